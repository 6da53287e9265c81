"""DAMON schemes that migrate or reclaim memory: /sys/kernel/mm/damon and the modules that use DAMON by themselves.

Sources: Documentation/admin-guide/mm/damon/{usage,reclaim,lru_sort}.rst. The files belong to root and nobody else may
read them; the directories, and DAMON's kernel threads, can be seen by everyone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from balancerd.kernel.files import list_names, read_bytes

ACTIONS: Final = frozenset({"migrate_hot", "migrate_cold", "pageout", "lru_prio", "lru_deprio"})
"""Actions that move memory, or decide which memory is reclaimed next; the others only look or give hints."""

MODULES: Final = ("damon_reclaim", "damon_lru_sort")

_LOOKING_MODULE: Final = "damon_stat"
"""Since 6.17; it runs a thread of DAMON that only looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemes:
    """What is at work: "kdamond 0: pageout", "damon_reclaim".

    `unreadable` names what this user may not read, None when all was read. Then `suspect` tells whether a running
    thread of DAMON may well move memory: there are schemes, or nobody but a module can have started it.
    """

    at_work: tuple[str, ...] = ()
    unreadable: str | None = None
    suspect: bool = False


def read_schemes(sysfs: str) -> Schemes:
    """Read what DAMON does; nothing on a kernel without it."""
    at_work: list[str] = []
    n_schemes = 0
    unreadable: str | None = None
    top = f"{sysfs}/kernel/mm/damon/admin/kdamonds"
    kdamonds = _numbers(top)
    for kdamond in kdamonds:
        schemes = [
            f"{top}/{kdamond}/contexts/{context}/schemes/{scheme}"
            for context in _numbers(f"{top}/{kdamond}/contexts")
            for scheme in _numbers(f"{top}/{kdamond}/contexts/{context}/schemes")
        ]
        n_schemes += len(schemes)
        try:
            if _text(f"{top}/{kdamond}/state") == "on":
                found = sorted({action for scheme in schemes if (action := _text(f"{scheme}/action")) in ACTIONS})
                at_work += [f"kdamond {kdamond}: {action}" for action in found]
        except PermissionError as error:
            unreadable = str(error.filename)
    for module in MODULES:
        try:
            if _text(f"{sysfs}/module/{module}/parameters/enabled") == "Y":
                at_work.append(module)
        except PermissionError as error:
            unreadable = unreadable or str(error.filename)
    by_module = not kdamonds and not Path(f"{sysfs}/module/{_LOOKING_MODULE}").is_dir()
    return Schemes(at_work=tuple(at_work), unreadable=unreadable, suspect=n_schemes > 0 or by_module)


def _numbers(directory: str) -> Sequence[str]:
    """Return the directories that are named by a number; none where there is no such directory."""
    try:
        return sorted(filter(str.isdigit, list_names(directory)), key=int)
    except OSError:
        return ()


def _text(path: str) -> str | None:
    """Return the word in a file, None when it is not there any more. Raises PermissionError."""
    try:
        return read_bytes(path).decode("ascii", "replace").strip()
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, path) from error
    except OSError:
        return None
