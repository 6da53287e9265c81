"""Holding on to one process: a pidfd, and the start time that tells it from a later owner of its pid."""

import errno
import os
import select
from types import TracebackType
from typing import Final, Self

from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.processes.status import parse_stat
from balancerd.model.ids import ProcessId

GONE: Final = frozenset({errno.ESRCH, errno.EINVAL})
"""What move_pages(2) answers of a process that has exited, and of one that is about to: it has no memory any more, and
is told as EINVAL until nobody finds it (find_mm_struct() in mm/migrate.c). A kernel thread never has any."""


class HeldProcess:
    """Context manager around a pidfd; see pidfd_open(2). Entering raises ProcessGoneError when it is another process.

    The pidfd is opened first and the start time read behind it, so that the two belong together. A pid is not kept
    from being used again by this, but `alive()` knows when it may have been.
    """

    def __init__(self, process: ProcessId, procfs: str = "/proc") -> None:
        self.process = process
        self._procfs = procfs
        self._fd = -1
        self._poll = select.poll()

    def __enter__(self) -> Self:
        pid = self.process.pid
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise ProcessGoneError(f"no process has pid {pid}") from error
        try:
            self._check()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @property
    def fd(self) -> int:
        """The pidfd, as process_madvise(2) wants it."""
        return self._fd

    def alive(self) -> bool:
        """Whether the process still runs: its pidfd becomes readable when it exits."""
        return not self._poll.poll(0)

    def _check(self) -> None:
        check_identity(self.process, self._procfs)
        self._poll.register(self._fd, select.POLLIN)
        if not self.alive():
            raise ProcessGoneError(f"process {self.process.pid} has exited")


def check_identity(process: ProcessId, procfs: str = "/proc") -> None:
    """Raise ProcessGoneError when a process's pid belongs to nobody, or to another process by now."""
    start_ticks = read_start_ticks(process.pid, procfs)
    if start_ticks != process.start_ticks:
        raise ProcessGoneError(f"pid {process.pid} belongs to a process that started at tick {start_ticks}")


def read_start_ticks(pid: int, procfs: str = "/proc") -> int:
    """Return when the owner of `pid` started, in clock ticks after boot. Raises ProcessGoneError when there is none."""
    path = f"{procfs}/{pid}/stat"
    try:
        return parse_stat(read_bytes(path), path).start_ticks
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGoneError(f"no process has pid {pid}") from error
