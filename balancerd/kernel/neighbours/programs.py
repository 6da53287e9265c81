"""Which programs run that move memory too, found by name in /proc. Owns the names, and reading few names at a time.

A name alone can be anyone's: where /proc/PID/exe can be read it must agree, and only root and our own user count, for
they alone may move the memory of others. Processes of other pid namespaces are in this /proc as well, so an agent in a
container counts.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import list_names, read_bytes
from balancerd.kernel.processes.status import parse_stat, parse_status
from balancerd.model.manager import Manager

PROGRAMS: Final[Mapping[str, Manager]] = {
    "numad": Manager.NUMAD,
    "memtierd": Manager.MEMTIERD,
    "katalyst-agent": Manager.KATALYST,
}
"""Programs by the name of their process, which is that of their file; the kernel keeps 15 bytes of it."""

KDAMOND: Final = "kdamond."
"""The beginning of the name of DAMON's kernel threads (damon_start() in mm/damon/core.c)."""

_ROUNDS = 60
"""A process may take another name by execve(2) at any time, so each is read again after so many looks at the latest."""

FindPids = Callable[[str], Iterable[int]]
"""Returns the pids of the processes whose name begins with a word, as a survey knows them anyway."""


class Programs:
    """Lists the processes at its first look, then asks `find`; without it, lists them again, but remembers them.

    A look then reads the name of new ones and of a few others. A new one is read twice: it may have been about to
    become another program.
    """

    def __init__(self, procfs: str, find: FindPids | None = None) -> None:
        self._procfs = procfs
        self._find = find
        self._known: set[str] | None = None
        self._fresh: set[str] = set()
        self._again: list[str] = []
        self._running: dict[int, str] = {}

    def look(self) -> dict[str, tuple[int, ...]]:
        """Return the pids by name: PROGRAMS, and KDAMOND for all of DAMON's threads. Raises OSError without a /proc."""
        for pid in self._due():
            name = self._wanted_name(pid)
            if name is not None:
                self._running[pid] = name
        return self.verify()

    def verify(self) -> dict[str, tuple[int, ...]]:
        """Return the pids by name of those known that still run."""
        found: dict[str, list[int]] = {}
        for pid, name in sorted(self._running.items()):
            if self._wanted_name(pid) == name and self._is_itself(pid, name):
                found.setdefault(name, []).append(pid)
            else:
                del self._running[pid]
        return {name: tuple(pids) for name, pids in found.items()}

    def _due(self) -> Iterable[int]:
        """Return the processes whose names are to be read. Before the first survey `find` knows none."""
        if self._find is not None and self._known is not None:
            return [pid for name in (*PROGRAMS, KDAMOND) for pid in self._find(name)]
        names = set(filter(str.isdigit, list_names(self._procfs)))
        due = names
        if self._known is not None:
            fresh = names - self._known
            due = fresh | self._fresh & names | self._next_round(names)
            self._fresh = fresh
        self._known = names
        return map(int, due)

    def _next_round(self, names: set[str]) -> set[str]:
        """Return the next few of those that were read before."""
        if not self._again:
            self._again = list(names)
        share = len(names) // _ROUNDS + 1
        due, self._again = self._again[:share], self._again[share:]
        return names.intersection(due)

    def _wanted_name(self, pid: int) -> str | None:
        try:
            comm = read_bytes(f"{self._procfs}/{pid}/comm").removesuffix(b"\n").decode("utf-8", "replace")
        except OSError:
            return None
        return KDAMOND if comm.startswith(KDAMOND) else comm if comm in PROGRAMS else None

    def _is_itself(self, pid: int, name: str) -> bool:
        """Return whether the process is what its name says, as far as this user may know."""
        if name == KDAMOND:
            return self._is_kernel_thread(pid)
        if not self._is_believed(pid):
            return False
        try:
            file = Path(f"{self._procfs}/{pid}/exe").readlink().name
        except PermissionError:
            return True
        except OSError:  # it is gone, or a zombie
            return False
        return file.removesuffix(" (deleted)") == name and not self._only_advises(pid, name)

    def _is_believed(self, pid: int) -> bool:
        """Return whether it is root's or ours. Its directory is root's also when it is not dumpable, proc(5)."""
        path = f"{self._procfs}/{pid}/status"
        try:
            return parse_status(read_bytes(path), path).uid in {0, os.geteuid()}
        except (OSError, ParseError):
            return False

    def _is_kernel_thread(self, pid: int) -> bool:
        path = f"{self._procfs}/{pid}/stat"
        try:
            return parse_stat(read_bytes(path), path).kernel_thread
        except (OSError, ParseError):
            return False

    def _only_advises(self, pid: int, name: str) -> bool:
        """Return whether it is `numad -w CPUS:MiB`, which libvirt asks for advice and which moves nothing; numad(8)."""
        if name != Manager.NUMAD:
            return False
        try:
            words = read_bytes(f"{self._procfs}/{pid}/cmdline").split(b"\0")[1:]
        except OSError:
            return False
        return any(word.startswith(b"-w") for word in words)
