"""Claiming memory before it moves, so that nobody of us moves it at the same time, and checking that it is still there.

Owns who holds what: inside this process by its ranges, among processes by a lock that the kernel keeps. Must not know
what is done with the memory.

The lock is an flock(2) on /proc/PID/maps of the target. It sits on the inode that procfs has for this one process, so
it needs no file of ours, ends with the process that holds it or with the target, and only those can take it who may
ptrace the target, since others cannot open the file (proc_pid_maps(5)). A procfs that is mounted anew, as in most
containers, has inodes of its own: there the lock excludes nobody outside.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from balancerd.kernel.errors import BlockedError, ChangedError, ClaimedError, ParseError, ProcessGoneError
from balancerd.kernel.moving.patience import Caller, drop
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.processes.identity import HeldProcess
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import Range
from balancerd.model.sample import PAGE_BYTES, Vma, VmaKind

EVERYTHING = (Range(start=0, end=1 << 56, page_bytes=PAGE_BYTES),)
"""Claims a whole address space; five-level page tables give a process 2**56 bytes at most."""

_BASE_PAGE_KINDS = frozenset({VmaKind.ANON, VmaKind.HEAP, VmaKind.STACK, VmaKind.FILE, VmaKind.SHMEM})
_HUGE_PAGE_KINDS = frozenset({VmaKind.HUGETLB, VmaKind.SHMEM})
"""maps shows a memfd or a SysV segment of huge pages like one of base pages."""

_REASONS = (
    (ClaimedError, Reason.CLAIMED),
    (ChangedError, Reason.CHANGED),
    (ProcessGoneError, Reason.EXITED),
    (PermissionError, Reason.NO_ACCESS),
    (ParseError, Reason.UNREADABLE),
    (BlockedError, Reason.BLOCKED),
)

REFUSALS = (ClaimedError, ChangedError, ProcessGoneError, ParseError, BlockedError, OSError)
"""What may be raised while a claim is taken, and while one works with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Memory of a process that is ours for now: what is left of the `ranges` asked for, and its mappings.

    `detail` tells what was cut off since it was asked for, for people; empty when nothing was.
    """

    held: HeldProcess
    ranges: tuple[Range, ...]
    vmas: tuple[Vma, ...]
    detail: str


@dataclass(slots=True)
class _Lock:
    """The lock on one process, which all our claims on it share, and their ranges."""

    fd: int
    ranges: list[Sequence[Range]] = field(default_factory=list)


class Claims:
    """Everything that this process has claimed. `caller` makes what may wait for a lock of the process."""

    def __init__(self, mappings: Mappings, caller: Caller) -> None:
        self.caller = caller
        self._mappings = mappings
        self._locks: dict[ProcessId, _Lock] = {}

    @property
    def procfs(self) -> str:
        """Where procfs is mounted."""
        return self._mappings.procfs

    def processes(self) -> frozenset[ProcessId]:
        """Return the processes of which anything is claimed here."""
        return frozenset(self._locks)

    @contextmanager
    def claim(self, process: ProcessId, ranges: Sequence[Range]) -> Iterator[Claim]:
        """Hold `process` and claim `ranges` (ascending) of it; given back at the end, whatever happens.

        The identity of the process and its mappings are checked behind the claim. Raises one of REFUSALS: ClaimedError,
        ChangedError when nothing is left of the ranges, ProcessGoneError, ParseError, BlockedError, and OSError
        otherwise.
        """
        with HeldProcess(process, self.procfs) as held:
            lock = self._take(process, ranges)
            try:
                vmas = self._read(process)
                if not held.alive():
                    raise ProcessGoneError(f"process {process.pid} has exited")
                left = EVERYTHING if ranges is EVERYTHING else cut(ranges, vmas)
                detail = _explain_cut(ranges, left)
                if ranges and not left:
                    raise ChangedError(detail)
                yield Claim(held=held, ranges=left, vmas=vmas, detail=detail)
            finally:
                self._give_back(process, lock, ranges)

    def _take(self, process: ProcessId, ranges: Sequence[Range]) -> _Lock:
        lock = self._locks.get(process)
        if lock is None:
            lock = self._locks[process] = _Lock(fd=self.caller.call(process, lambda: self._lock(process), os.close))
        elif any(_overlap(ranges, taken) for taken in lock.ranges):
            raise ClaimedError(f"this balancerd is moving memory of process {process.pid} already")
        lock.ranges.append(ranges)
        return lock

    def _give_back(self, process: ProcessId, lock: _Lock, ranges: Sequence[Range]) -> None:
        lock.ranges = [taken for taken in lock.ranges if taken is not ranges]
        if not lock.ranges:
            del self._locks[process]
            os.close(lock.fd)

    def _lock(self, process: ProcessId) -> int:
        path = f"{self.procfs}/{process.pid}/maps"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"no process has pid {process.pid}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EWOULDBLOCK:
                raise ClaimedError(f"another program holds the lock on {path}") from error
            raise
        return fd

    def _read(self, process: ProcessId) -> tuple[Vma, ...]:
        try:
            return self.caller.call(process, lambda: self._mappings.read(process.pid), drop)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was read") from error


def why_refused(error: Exception) -> tuple[Reason, str]:
    """Return the reason that one of REFUSALS stands for, and its text."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.CALL_FAILED), str(error)


def cut(ranges: Sequence[Range], vmas: Sequence[Vma]) -> tuple[Range, ...]:
    """Return the parts of `ranges` that are mapped, by memory that may move and has pages of the size that they say.

    Both are ascending. Left out are mappings of the kernel or a driver.
    """
    left: list[Range] = []
    first = 0
    for wanted in ranges:
        kinds = _BASE_PAGE_KINDS if wanted.page_bytes == PAGE_BYTES else _HUGE_PAGE_KINDS
        while first < len(vmas) and vmas[first].end <= wanted.start:
            first += 1
        at = first
        while at < len(vmas) and vmas[at].start < wanted.end:
            vma = vmas[at]
            at += 1
            if vma.kind not in kinds:
                continue
            start = -(-max(wanted.start, vma.start) // wanted.page_bytes) * wanted.page_bytes
            end = min(wanted.end, vma.end) // wanted.page_bytes * wanted.page_bytes
            if start >= end:
                continue
            if left and left[-1].end == start > wanted.start and left[-1].page_bytes == wanted.page_bytes:
                start = left.pop().start
            left.append(replace(wanted, start=start, end=end))
    return tuple(left)


def _overlap(some: Sequence[Range], others: Sequence[Range]) -> bool:
    """Return whether two ascending sequences of ranges share an address."""
    i = j = 0
    while i < len(some) and j < len(others):
        if some[i].end <= others[j].start:
            i += 1
        elif others[j].end <= some[i].start:
            j += 1
        else:
            return True
    return False


def _explain_cut(wanted: Sequence[Range], left: Sequence[Range]) -> str:
    gone = sum(r.end - r.start for r in wanted) - sum(r.end - r.start for r in left)
    return f"{gone >> 10} KiB of what was asked for are no longer mapped, or hold something else" if gone else ""
