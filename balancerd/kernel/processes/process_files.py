"""Reading the small files of a process: stat, status and cgroup. Remembers only cgroups, for a while.

None of these files takes the lock of the address space of the process that is read, so none can wait for it.
"""

import os
from collections.abc import Set as AbstractSet

from balancerd.kernel.files import read_bytes
from balancerd.kernel.processes.status import Stat, Status, parse_cgroup, parse_stat, parse_status
from balancerd.model.ids import ProcessId

_CGROUP_SECONDS = 30.0
_STATUS_SECONDS = 10.0
"""How long the cgroup of a process is believed before it is read again: processes change it rarely."""


class ProcessFiles:
    """Reads /proc/PID/{stat,status,cgroup} below `procfs`. Every method raises OSError and ParseError of its file."""

    def __init__(self, procfs: str = "/proc") -> None:
        self.path = procfs
        self.directory_fd = os.open(procfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._cgroups: dict[ProcessId, tuple[float, str]] = {}
        self._statuses: dict[ProcessId, tuple[float, Status]] = {}

    def close(self) -> None:
        """Give the directory back; nothing can be read any more."""
        os.close(self.directory_fd)

    def stat(self, pid: int) -> Stat:
        """Read /proc/PID/stat."""
        return parse_stat(self._read(f"{pid}/stat"), f"{self.path}/{pid}/stat")

    def status(self, pid: int) -> Status:
        """Read /proc/PID/status."""
        return parse_status(self._read(f"{pid}/status"), f"{self.path}/{pid}/status")

    def cgroup(self, pid: int) -> str:
        """Read /proc/PID/cgroup."""
        return parse_cgroup(self._read(f"{pid}/cgroup"), f"{self.path}/{pid}/cgroup")

    def remembered_status(self, process: ProcessId, now: float) -> Status:
        """Return the process's status, read again when it is known for longer than ten seconds at `now`.

        What it tells is set by people and changes rarely; the kernel checks a cpuset again at every move.
        """
        known = self._statuses.get(process)
        if known is not None and now - known[0] < _STATUS_SECONDS:
            return known[1]
        status = self.status(process.pid)
        self._statuses[process] = (now, status)
        return status

    def remembered_cgroup(self, process: ProcessId, now: float) -> str:
        """Return the process's cgroup, read again when it is known for longer than half a minute at `now` seconds."""
        known = self._cgroups.get(process)
        if known is not None and now - known[0] < _CGROUP_SECONDS:
            return known[1]
        cgroup = self.cgroup(process.pid)
        self._cgroups[process] = (now, cgroup)
        return cgroup

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that are not in `alive`."""
        for process in self._cgroups.keys() - alive:
            del self._cgroups[process]
        for process in self._statuses.keys() - alive:
            del self._statuses[process]

    def _read(self, path: str) -> bytes:
        return read_bytes(path, self.directory_fd)
