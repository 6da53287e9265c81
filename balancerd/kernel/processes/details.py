"""What the small files of a busy process say, remembered for as long as each may be believed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from balancerd.kernel.errors import BlockedError, ParseError
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.status import Status
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.ports import SurveyScope

T = TypeVar("T")

_STATUS_SECONDS = 10.0
"""What status tells is set by people and changes rarely; the kernel checks a cpuset again at every move."""
IDLE_STATUS_SECONDS = 30.0
"""Of one that does nothing, where a policy places its memory by what status tells: 35 to 80 us each time."""
_CGROUP_SECONDS = 30.0
"""Processes change their cgroup rarely."""
_IDLE_CGROUP_SECONDS = 300.0
"""Of one that does nothing only the workload that it is counted for hangs on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is known of one process beside its stat; None where it was not asked for or could not be read."""

    uid: int | None = None
    hugetlb_bytes: int = 0
    cpus_allowed: frozenset[CpuId] | None = None
    mems_allowed: frozenset[NodeId] | None = None
    cgroup: str | None = None
    exe: str | None = None
    cmdline: str | None = None


class _Remembered(Generic[T]):
    """The answers of one reader by pid, each believed for so many seconds. Failures are not remembered."""

    def __init__(self, read: Callable[[int], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._answers: dict[int, tuple[float, T]] = {}

    def get(
        self, pid: int, now: float, seconds: float | None = None, read: Callable[[int], T] | None = None
    ) -> T | None:
        """Return the answer, of which one as old as `seconds` will do; `read` is another way to get it."""
        known = self._answers.get(pid)
        if known is not None and now - known[0] < (self._seconds if seconds is None else seconds):
            return known[1]
        try:
            answer = (self._read if read is None else read)(pid)
        except (OSError, ParseError, BlockedError):
            return None
        self._answers[pid] = (now, answer)
        return answer

    def forget(self, pid: int) -> None:
        self._answers.pop(pid, None)


class Patience(Protocol):
    """Reads what may wait for a lock of the process; PatientReads does."""

    def read(self, process: ProcessId, read: Callable[[], T]) -> T:
        """Return what `read` returns. Raises BlockedError when it takes too long."""
        ...


class DetailReader:
    """Reads status and cgroup, exe and cmdline where a scope asks for them. Its user says whose pid is free again.

    The command line is read with `patience`: it lies in the memory of the process.
    """

    def __init__(self, files: ProcessFiles, patience: Patience | None = None) -> None:
        self._files = files
        self._patience = patience
        self._status = _Remembered(files.status, _STATUS_SECONDS)
        self._cgroup = _Remembered(files.cgroup, _CGROUP_SECONDS)
        self._exe = _Remembered(files.exe, math.inf)
        self._cmdline = _Remembered(files.cmdline, math.inf)
        self._comm: dict[int, str] = {}

    def read(self, process: ProcessId, comm: str, scope: SurveyScope, now: float) -> Details:
        """Return the details of a process, remembered ones where they may be: another name tells of an execve(2)."""
        pid = process.pid
        self._note_name(pid, comm)
        return _details(
            self._status.get(pid, now),
            self._cgroup.get(pid, now),
            self._exe.get(pid, now) if scope.read_exe else None,
            self._read_cmdline(process, now) if scope.read_cmdline else None,
        )

    def read_again(self, process: ProcessId, comm: str, scope: SurveyScope, now: float) -> Details:
        """Return the details of a process whose status, as it is remembered, is not true any more."""
        self._status.forget(process.pid)
        return self.read(process, comm, scope, now)

    def read_idle(self, process: ProcessId, comm: str, scope: SurveyScope, now: float) -> Details:
        """Return the cgroup of a process that does nothing, and the rest only when the scope asks for it."""
        pid = process.pid
        self._note_name(pid, comm)
        cgroup = self._cgroup.get(pid, now, _IDLE_CGROUP_SECONDS)
        if not scope.read_idle:
            return Details(cgroup=cgroup)
        return _details(
            self._status.get(pid, now, IDLE_STATUS_SECONDS),
            cgroup,
            self._exe.get(pid, now) if scope.read_exe else None,
            self._read_cmdline(process, now) if scope.read_cmdline else None,
        )

    def read_anew(self, pid: int) -> Details:
        """Read status and cgroup now, and remember nothing."""
        return _details(
            _Remembered(self._files.status, 0.0).get(pid, 0.0), _Remembered(self._files.cgroup, 0.0).get(pid, 0.0)
        )

    def forget(self, pid: int) -> None:
        """Drop what is remembered of the process that had this pid."""
        self._comm.pop(pid, None)
        for remembered in (self._status, self._cgroup, self._exe, self._cmdline):
            remembered.forget(pid)

    def _read_cmdline(self, process: ProcessId, now: float) -> str | None:
        patience = self._patience
        if patience is None:
            return self._cmdline.get(process.pid, now)
        return self._cmdline.get(
            process.pid, now, read=lambda pid: patience.read(process, lambda: self._files.cmdline(pid))
        )

    def _note_name(self, pid: int, comm: str) -> None:
        if self._comm.get(pid) != comm:
            self.forget(pid)
            self._comm[pid] = comm


def _details(status: Status | None, cgroup: str | None, exe: str | None = None, cmdline: str | None = None) -> Details:
    if status is None:
        return Details(cgroup=cgroup, exe=exe, cmdline=cmdline)
    return Details(
        uid=status.uid,
        hugetlb_bytes=status.hugetlb_bytes,
        cpus_allowed=status.cpus_allowed,
        mems_allowed=status.mems_allowed,
        cgroup=cgroup,
        exe=exe,
        cmdline=cmdline,
    )
