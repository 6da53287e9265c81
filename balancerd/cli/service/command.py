"""`balancerctl service`: install and remove the systemd service of this installation. Needs no daemon.

Owns what is printed, and who may. It must not know which files there are, nor what is in them.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click

from balancerd.cli.exits import CommandError, ExitCode, NotPermittedError
from balancerd.cli.options import SCHEMA, json_option
from balancerd.cli.screen import escape, write, write_json
from balancerd.cli.service.changes import Change, Changes, apply_install, apply_removal, plan_install, plan_removal
from balancerd.cli.service.files import ServiceFile, list_files
from balancerd.cli.service.obstacles import find_programs, list_obstacles, list_owners

T = TypeVar("T")

DONE: Final = {"write": "wrote", "replace": "replaced", "same": "unchanged", "keep": "kept", "remove": "removed"}


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add what both commands have in common: --dry-run, --root and --json."""
    root = click.option(
        "--root",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIRECTORY",
        help="Only the files, below this directory: for images and packages.",
    )
    dry_run = click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
    return dry_run(root(json_option(command)))


@click.group(
    name="service",
    epilog="""\b
Examples:
  balancerctl service install --dry-run
  balancerctl service install && systemctl enable --now balancerd
  balancerctl service remove
""",
)
def service() -> None:
    """Install or remove the systemd service of this installation."""


@service.command(
    epilog="""\b
Examples:
  balancerctl service install --dry-run
  balancerctl service install
  balancerctl service install --root /mnt/image
"""
)
@_common
def install(*, dry_run: bool, root: Path | None, as_json: bool) -> None:
    """Install the service for balancerd that came by pip or pipx: packages of a distribution have it.

    Writes the unit, the user it runs as, the directory of what it keeps, a preset, drop-ins to choose from, and the
    configuration unless there is one. The unit runs the programs of this very installation. Nothing is started or
    enabled. When something fails everything is as before. Doing it again, as after an upgrade, writes what has changed.

    In JSON: {schema, dry_run, files: [{path, action, text, why}], commands, obstacles}.
    """
    programs = find_programs()
    files = _files(programs if root is None else _inside(programs, root))
    _ask_for_root(programs, "install", is_needed=root is None and not dry_run)
    obstacles = _attempt(lambda: list_obstacles(files, programs, root))
    planned = _attempt(lambda: plan_install(files, root))
    _go(planned, obstacles, lambda: apply_install(planned), dry_run=dry_run, as_json=as_json)
    if root is None and not dry_run:
        write("next: systemctl enable --now balancerd; after an upgrade: systemctl restart balancerd", err=True)


@service.command(
    epilog="""\b
Examples:
  balancerctl service remove --dry-run
  balancerctl service remove
  balancerctl service remove --purge && pipx uninstall balancerd
"""
)
@_common
@click.option("--purge", is_flag=True, help="Remove changed configuration, what the daemon keeps, and its user, too.")
def remove(*, dry_run: bool, root: Path | None, as_json: bool, purge: bool) -> None:
    """Stop and disable the service, and remove what `service install` wrote.

    A configuration that was changed stays, as does what the daemon keeps in /var/lib/balancerd, with the user that
    owns it: --purge removes these. Drop-ins in /etc/systemd/system/balancerd.service.d are yours.

    In JSON as `service install`.
    """
    programs = find_programs()
    files = _files(programs)
    _ask_for_root(programs, "remove", is_needed=root is None and not dry_run)
    obstacles = _attempt(lambda: list_owners(files, root))
    planned = _attempt(lambda: plan_removal(files, root, purge=purge))
    _go(planned, obstacles, lambda: apply_removal(planned, root), dry_run=dry_run, as_json=as_json)
    if not planned.changes:
        write("there is nothing to remove", err=True)


def _inside(programs: Path, root: Path) -> Path:
    """Return where the programs are once the root is one."""
    inside = programs.is_relative_to(root.absolute())
    return Path("/") / programs.relative_to(root.absolute()) if inside else programs


def _files(programs: Path) -> tuple[ServiceFile, ...]:
    try:
        return list_files(programs)
    except OSError as error:
        raise CommandError(f"this installation is not whole, install it again: {escape(str(error))}") from error


def _ask_for_root(programs: Path, verb: str, *, is_needed: bool) -> None:
    if is_needed and os.geteuid() != 0:
        again = escape(f"sudo {programs}/balancerctl service {verb}")
        raise NotPermittedError(f"only root may: {again} (to look at it first: --dry-run)")


def _go(planned: Changes, obstacles: Sequence[str], apply: Callable[[], None], *, dry_run: bool, as_json: bool) -> None:
    """Do it and tell, or tell what would be done. Obstacles end it: by exit status 5 after a dry run."""
    if obstacles and not dry_run:
        raise CommandError("nothing was changed:\n" + "\n".join(f"  {escape(each)}" for each in obstacles))
    if not dry_run:
        _attempt(apply)
    if as_json:
        write_json(_document(planned, obstacles, dry_run=dry_run))
    else:
        _tell(planned, dry_run=dry_run)
    for each in obstacles:
        write(f"in the way: {escape(each)}", err=True)
    if obstacles:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _attempt(action: Callable[[], T]) -> T:
    try:
        return action()
    except subprocess.CalledProcessError as error:
        command = " ".join(error.cmd)
        raise CommandError(escape(f"{command} has failed: {(error.stderr or '').strip()}")) from error
    except PermissionError as error:
        raise NotPermittedError(escape(str(error))) from error
    except OSError as error:
        raise CommandError(escape(str(error))) from error


def _tell(planned: Changes, *, dry_run: bool) -> None:
    for command in planned.before:
        write(escape(f"{'run' if dry_run else 'ran'} {' '.join(command)}"))
    for change in planned.changes:
        write(escape(_line(change, dry_run=dry_run)))
        if dry_run and change.text is not None:
            for line in change.text.splitlines():
                write(escape(f"    {line}".rstrip()))
    for command in planned.after:
        write(escape(f"{'run' if dry_run else 'ran'} {' '.join(command)}"))


def _line(change: Change, *, dry_run: bool) -> str:
    word = change.action if dry_run else DONE[change.action]
    return f"{word} {change.path}" + (f": {change.why}" if change.why else "")


def _document(planned: Changes, obstacles: Sequence[str], *, dry_run: bool) -> dict[str, object]:
    files = [
        {"path": str(each.path), "action": each.action, "text": each.text, "why": each.why} for each in planned.changes
    ]
    return {
        "schema": SCHEMA,
        "dry_run": dry_run,
        "files": files,
        "commands": [" ".join(command) for command in (*planned.before, *planned.after)],
        "obstacles": list(obstacles),
    }
