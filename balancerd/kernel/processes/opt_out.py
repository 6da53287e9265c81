"""Whose owner asks for it to be left alone, and where: a variable, a cgroup's name, or an attribute of a cgroup.

`BALANCERD=off` in the environment that the process was started with; a cgroup whose name ends in `-nobalance`; the
extended attribute `user.balancerd` or `trusted.balancerd` with the value `off` on its cgroup. A cgroup counts for all
below it. Remembers the answers, since none of them changes often; must not know what follows from them.
"""

import os
import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

from balancerd.kernel.errors import BlockedError, ParseError
from balancerd.kernel.files import read_beginning
from balancerd.kernel.processes.details import Patience
from balancerd.kernel.workloads.mounts import CgroupMount, membership_mounts, read_mounts
from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample
from balancerd.ports import Clock

OFF = b"off"
VARIABLE = b"BALANCERD=" + OFF
ATTRIBUTES = ("user.balancerd", "trusted.balancerd")
"""The second one can be set, and read, with CAP_SYS_ADMIN only, xattr(7)."""

_ENVIRONMENT_BYTES = 8 << 20
"""More than execve(2) hands over: three quarters of 8 MiB. A process may say later on that it has gigabytes."""

_NAME = re.compile(r".*-nobalance(\.slice|\.scope|\.service)?", re.DOTALL)
_CGROUP_SECONDS = 30.0
_UNREADABLE_SECONDS = 30.0
_MOUNTS_SECONDS = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Environment:
    """What was read of a process that was called `comm` then; believed until `until`, None: for as long as it is."""

    comm: str
    is_off: bool
    until: float | None = None


class OptOuts:
    """Tells of each process where its owner asks for it to be left alone. Safe to call from any thread."""

    def __init__(
        self,
        clock: Clock,
        reads: Patience,
        procfs: str = "/proc",
        getxattr: Callable[[str, str], bytes] = os.getxattr,
    ) -> None:
        self._clock = clock
        self._reads = reads
        self._procfs = procfs
        self._getxattr = getxattr
        self._environments: dict[ProcessId, _Environment] = {}
        self._cgroups: dict[str, tuple[float, str | None]] = {}
        self._mounts: tuple[float, tuple[CgroupMount, ...]] | None = None

    def of(self, process: ProcessSample) -> str | None:
        """Return where it says so, for people, or None when it does nowhere.

        None, too, when it cannot be read: without ptrace access to a process nobody can move its memory either. A
        process whose cgroup was not read is only asked for its environment.
        """
        if process.kernel_thread:
            return None
        where = None if process.cgroup is None else self._of_cgroup(process.cgroup)
        if where is None and self._is_off_by_environment(process):
            where = f"{VARIABLE.decode()} in its environment"
        return where

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that are not in `alive`, and of cgroups what is out of date."""
        for process in tuple(self._environments):
            if process not in alive:
                self._environments.pop(process, None)
        now = self._clock.now()
        for cgroup, (read_at, _) in tuple(self._cgroups.items()):
            if now - read_at >= _CGROUP_SECONDS:
                self._cgroups.pop(cgroup, None)

    def _is_off_by_environment(self, process: ProcessSample) -> bool:
        """Read the environment once, and again when the process has another name: execve(2) brings a new one."""
        known, now = self._environments.get(process.id), self._clock.now()
        if known is not None and known.comm == process.comm and (known.until is None or now < known.until):
            return known.is_off
        path = f"{self._procfs}/{process.id.pid}/environ"
        try:
            text = self._reads.read(process.id, lambda: read_beginning(path, _ENVIRONMENT_BYTES))
        except BlockedError:
            return known is not None and known.is_off
        except OSError:
            found = _Environment(process.comm, is_off=False, until=now + _UNREADABLE_SECONDS)
        else:
            found = _Environment(process.comm, is_off=parse_environ(text))
        self._environments[process.id] = found
        return found.is_off

    def _of_cgroup(self, cgroup: str) -> str | None:
        known, now = self._cgroups.get(cgroup), self._clock.now()
        if known is not None and now - known[0] < _CGROUP_SECONDS:
            return known[1]
        where = named_off(cgroup) or self._marked_off(cgroup)
        self._cgroups[cgroup] = (now, where)
        return where

    def _marked_off(self, cgroup: str) -> str | None:
        """Look for an attribute on the cgroup and upwards, wherever a hierarchy that may hold it is mounted.

        Not on the root of the hierarchy: that would be all processes.
        """
        for mount in self._cgroup_mounts():
            where = cgroup.rstrip("/")
            while (directory := mount.directory(where)) is not None and directory != mount.point:
                for attribute in ATTRIBUTES:
                    if self._is_off(directory, attribute):
                        return f"{attribute}={OFF.decode()} on the cgroup {where}"
                where = where.rpartition("/")[0]
        return None

    def _is_off(self, directory: str, attribute: str) -> bool:
        try:
            return self._getxattr(directory, attribute) == OFF
        except OSError:  # it has none; the cgroup is in another hierarchy, or gone
            return False

    def _cgroup_mounts(self) -> tuple[CgroupMount, ...]:
        now = self._clock.now()
        if self._mounts is None or now - self._mounts[0] >= _MOUNTS_SECONDS:
            try:
                mounts = membership_mounts(read_mounts(self._procfs))
            except (OSError, ParseError):
                mounts = ()
            self._mounts = (now, mounts)
        return self._mounts[1]


def named_off(cgroup: str) -> str | None:
    """Return where the name of a cgroup, or of one above it, asks for it."""
    parts = cgroup.split("/")
    for n, part in enumerate(parts, 1):
        if _NAME.fullmatch(part):
            return f"the name of its cgroup {'/'.join(parts[:n])}"
    return None


def parse_environ(text: bytes) -> bool:
    """Return whether /proc/PID/environ (proc_pid_environ(5)) holds the variable; anything may stand in it."""
    return b"\0%b\0" % VARIABLE in b"\0%b\0" % text  # a list of what may be millions of empty texts is larger
