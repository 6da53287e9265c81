"""Why a service of this installation would not start, must not be started, or is somebody else's already.

Each obstacle is a sentence with the way out. Reads the machine and changes nothing.
"""

import os
import re
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import balancerd
from balancerd.cli.service.files import MARK, UNIT, USER, ServiceFile
from balancerd.config.custody import find_exposure

BOOTED: Final = Path("/run/systemd/system")
"""There while systemd is PID 1, see sd_booted(3)."""

HIDDEN: Final = {
    **dict.fromkeys(map(Path, ("/home", "/root", "/run/user")), "ProtectHome="),
    **dict.fromkeys(map(Path, ("/tmp", "/var/tmp")), "PrivateTmp="),  # noqa: S108 -- told about, not used
}
"""What the unit hides from the daemon, and the setting that does."""

ELSEWHERE: Final = "as root: PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install balancerd"

_UNIT_FOLDERS: Final = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_SAFE: Final = re.compile(r"[\w/.+@-]+", re.ASCII)  # no blank, quote, percent, dollar or backslash: systemd.service(5)


def find_programs() -> Path:
    """Return the folder that holds balancerd and balancerctl of this installation."""
    return Path(sysconfig.get_path("scripts"))


def list_obstacles(files: Iterable[ServiceFile], programs: Path, root: Path | None) -> list[str]:
    """Return what forbids to install: below `root` only what lies there, without one what this machine is, too."""
    found = [*_foreign(files, root or Path("/")), *_unusable_names(programs)]
    if root is None:
        found += [*_not_booted(), *_unreachable(programs)]
    return found


def list_owners(files: Iterable[ServiceFile], root: Path | None) -> list[str]:
    """Return what forbids to remove: files that this command has not written."""
    return [*_foreign(files, root or Path("/"))]


def judge_hidden(place: Path) -> str | None:
    """Say why the daemon would not find a place, None if it does."""
    for folder, setting in HIDDEN.items():
        if place.is_relative_to(folder):
            why = f"{place} lies in {folder}, which the unit hides from the daemon ({setting})"
            return f"{why}; install it elsewhere, {ELSEWHERE}"
    return None


def judge_access(path: Path, status: os.stat_result) -> str | None:
    """Say why a file or a folder on the way to one is not fit for a daemon that is as good as root, None if it is."""
    mode = status.st_mode
    if find_exposure(status, owners={0}, group=status.st_gid) is not None:  # Debian's /usr/local is its group staff's
        told = f"{path} (owner {status.st_uid}, mode {stat.S_IMODE(mode):04o})"
        return (
            f"others than root may change {told}, and would be as good as root by it; install it elsewhere, {ELSEWHERE}"
        )
    needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH | stat.S_IXOTH
    if mode & needed != needed:
        return f"the user {USER} cannot reach {path}: chmod o+rX {path}"
    return None


def _foreign(files: Iterable[ServiceFile], root: Path) -> Iterator[str]:
    units = (Path(folder) / UNIT for folder in _UNIT_FOLDERS)
    seen = set()
    for path in (*units, *(each.path for each in files if not each.is_operators)):
        there = below(root, path)
        place = there.parent.resolve() / there.name  # /lib may be a link to /usr/lib
        if place in seen or not os.path.lexists(place) or is_ours(place):
            continue
        seen.add(place)
        yield f"{there} is there already, from a package or by hand: remove that package, or move the file away"


def below(root: Path, path: Path) -> Path:
    """Return where an absolute path is below a root."""
    return root / path.relative_to("/")


def is_ours(path: Path) -> bool:
    """Whether a file was written by this command."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline() == MARK


def _unusable_names(programs: Path) -> Iterator[str]:
    if not _SAFE.fullmatch(str(programs)):
        yield f"{programs} has characters that mean something in a unit; install it elsewhere, {ELSEWHERE}"


def _not_booted() -> Iterator[str]:
    if not BOOTED.is_dir():
        yield f"systemd does not run this machine (no {BOOTED}); --root DIRECTORY writes the files of an image"


def _unreachable(programs: Path) -> Iterator[str]:
    """Look at the programs, the interpreter and the code."""
    daemon = programs / USER
    places = name_both_ways((daemon, Path(balancerd.__file__).parent, Path(sys.executable)))
    hidden = next(filter(None, map(judge_hidden, places)), None)
    if hidden or not daemon.is_file():
        yield hidden or f"there is no {daemon}, beside the interpreter that runs this; {ELSEWHERE}"
        return
    for path in list_ways(places):
        reason = judge_access(path, path.stat())
        if reason:
            yield reason


def name_both_ways(places: Iterable[Path]) -> list[Path]:
    """Return each place as it is named, and what that leads to: links are read, and may be changed, by their names."""
    return list(dict.fromkeys(named for place in places for named in (place, place.resolve())))


def list_ways(places: Iterable[Path]) -> list[Path]:
    """Return the places, and every folder on the way to one, once each and from the top."""
    return list(dict.fromkeys(each for place in places for each in (*reversed(place.parents), place)))
