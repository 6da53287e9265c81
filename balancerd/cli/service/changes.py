"""What installing or removing the service changes, and doing it: all files or none.

Owns the order of things and how they are undone. It must not know what is in the files.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from balancerd.cli.service.files import (
    CONFIG_FOLDER,
    DROP_INS,
    LIBRARY,
    SHARE,
    STATE_FOLDER,
    SYSUSERS,
    TMPFILES,
    UNIT,
    USER,
    ServiceFile,
)
from balancerd.cli.service.obstacles import below, is_ours
from balancerd.kernel.whole_file import replace_file, sync_directory, write_new

Action = Literal["write", "replace", "same", "keep", "remove"]
READABLE: Final = 0o644
_RELOAD: Final = ("systemctl", "daemon-reload")
_KEPT_FOLDERS: Final = {LIBRARY, SHARE, CONFIG_FOLDER.parent, STATE_FOLDER.parent}
"""Folders that are left, empty or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one path, and why where that is not plain; `text` is what is written."""

    path: Path
    action: Action
    text: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What happens to files, and the commands that systemd is told by: `before` the files change, and `after`."""

    changes: tuple[Change, ...]
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()


def plan_install(files: Iterable[ServiceFile], root: Path | None) -> Changes:
    """Return what installing would change. Without `root` systemd of this machine is told."""
    changes = tuple(_installed(each, below(root or Path("/"), each.path)) for each in files)
    if root is not None:
        return Changes(changes=changes)
    after = (("systemd-sysusers", str(SYSUSERS)), ("systemd-tmpfiles", "--create", str(TMPFILES)), _RELOAD)
    return Changes(changes=changes, after=after)


def plan_removal(files: Iterable[ServiceFile], root: Path | None, *, purge: bool) -> Changes:
    """Return what removing would change: what is there; with `purge` also what the operator and the daemon wrote."""
    top = root or Path("/")
    changes = [_removed(each, below(top, each.path), purge=purge) for each in files]
    if purge:
        changes += [Change(path=below(top, folder), action="remove") for folder in (CONFIG_FOLDER, STATE_FOLDER)]
    else:
        why = "what the daemon keeps; --purge removes it, and its user"
        changes.append(Change(path=below(top, STATE_FOLDER), action="keep", why=why))
    changes.append(Change(path=below(top, DROP_INS), action="keep", why="your drop-ins"))
    there = tuple(each for each in changes if os.path.lexists(each.path))
    if root is not None or not there:
        return Changes(changes=there)
    has_unit = any(each.path.name == UNIT for each in there)
    return Changes(
        changes=there,
        before=(("systemctl", "disable", "--now", UNIT),) if has_unit else (),
        after=(_RELOAD, *((("userdel", USER),) if purge and has_user() else ())),
    )


def apply_install(planned: Changes) -> None:
    """Write the files and tell systemd; when anything fails, everything is as before.

    Raises OSError, or subprocess.CalledProcessError with what the command said.
    """
    is_new_user, is_new_state = not has_user(), not STATE_FOLDER.exists()
    with contextlib.ExitStack() as undo:
        if planned.after:
            undo.callback(_quietly, _RELOAD)
        staged = [(change.path, _stage(change, undo)) for change in planned.changes if change.text is not None]
        for path, new in staged:
            _put_in_place(path, new, undo)
        for command in planned.after:
            if command[0] == "systemd-sysusers" and is_new_user:
                undo.callback(_quietly, ("userdel", USER))
            if command[0] == "systemd-tmpfiles" and is_new_state:
                undo.callback(shutil.rmtree, STATE_FOLDER, ignore_errors=True)
            run(command)
        undo.pop_all()


def apply_removal(planned: Changes, root: Path | None) -> None:
    """Stop the service, remove the files and the folders that are empty then. What failed can be done again.

    Raises OSError, or subprocess.CalledProcessError with what the command said.
    """
    for command in planned.before:
        run(command)
    for change in planned.changes:
        if change.action == "remove":
            _remove(change.path)
            _remove_empty(change.path.parent, root or Path("/"))
    for command in planned.after:
        run(command)


def run(command: Sequence[str]) -> None:
    """Run one command, and keep what it says for the error."""
    subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def has_user() -> bool:
    """Whether the user that the daemon runs as is there."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _installed(file: ServiceFile, path: Path) -> Change:
    if not os.path.lexists(path):
        return Change(path=path, action="write", text=file.text)
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == file.text:
        return Change(path=path, action="same")
    if file.is_operators:
        return Change(path=path, action="keep", why="it is yours: it differs from the one that is shipped")
    return Change(path=path, action="replace", text=file.text)


def _removed(file: ServiceFile, path: Path, *, purge: bool) -> Change:
    is_as_written = (
        not path.is_symlink()
        and path.is_file()
        and (path.read_text(encoding="utf-8", errors="replace") == file.text if file.is_operators else is_ours(path))
    )
    if is_as_written or purge:
        return Change(path=path, action="remove")
    return Change(path=path, action="keep", why="it was changed; --purge removes it")


def _stage(change: Change, undo: contextlib.ExitStack) -> Path:
    """Write the text beside where it belongs, under a name that nobody reads; return that name."""
    _make_folders(change.path.parent, undo)
    new = change.path.with_name(f".{change.path.name}.new")
    undo.callback(new.unlink, missing_ok=True)
    new.unlink(missing_ok=True)  # of a command that was killed
    write_new(new, (change.text or "").encode("utf-8"), READABLE)
    new.chmod(READABLE)  # whatever the umask
    return new


def _make_folders(folder: Path, undo: contextlib.ExitStack) -> None:
    for each in (*reversed(folder.parents), folder):
        if not each.exists():
            each.mkdir()
            each.chmod(0o755)
            undo.callback(_remove_folder, each)


def _put_in_place(path: Path, new: Path, undo: contextlib.ExitStack) -> None:
    if path.exists():
        old, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
        undo.callback(replace_file, path, old, beside=new, mode=mode)
    else:
        undo.callback(path.unlink, missing_ok=True)
    new.replace(path)
    sync_directory(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path, root: Path) -> None:
    kept = {below(root, each) for each in _KEPT_FOLDERS}
    while folder not in kept and _remove_folder(folder):
        folder = folder.parent


def _remove_folder(folder: Path) -> bool:
    """Remove a folder unless something is in it; return whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _quietly(command: Sequence[str]) -> None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        run(command)
