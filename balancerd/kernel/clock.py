"""The only reader of clocks, and the only waiter."""

import contextlib
import math
import os
import select
import time
from collections.abc import Callable, Iterable

_CPUCLOCK_SCHED = 2
_CPUCLOCK_PERTHREAD = 4
"""The low bits of the number of a process's or thread's clock, include/linux/posix-timers_types.h."""

_PIPE_BYTES = 65536
"""What a pipe holds, pipe(7)."""


class MonotonicClock:
    """CLOCK_MONOTONIC; `wake()` from a signal handler or another thread ends the wait at hand, or the next one.

    A pipe carries the wake-up: threading.Event takes a lock that a signal handler, running in the
    thread that already holds it, would wait for in vain. A process with several threads also gives `wake_fd` to
    signal.set_wakeup_fd(), since a signal may interrupt another thread than the one that waits.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._left_out: Callable[[], Iterable[int]] = tuple
        self._left_out_seconds: dict[int, float] = {}

    @property
    def wake_fd(self) -> int:
        """A descriptor; a byte written to it does what `wake()` does."""
        return self._write_fd

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def leave_out(self, threads: Callable[[], Iterable[int]]) -> None:
        """Count the CPU time of these threads no more: those that serve people, whose asking is not observing."""
        self._left_out = threads

    def cpu_seconds(self) -> float:
        """See Clock."""
        used = time.process_time()
        for thread in self._left_out():
            seconds = thread_cpu_seconds(thread)
            if seconds is not None:  # else it has ended, and what it used is known from before
                self._left_out_seconds[thread] = seconds
        return used - sum(self._left_out_seconds.values())

    def wait_until(self, deadline: float) -> None:
        """Return at monotonic time `deadline`, or as soon as somebody called `wake()`."""
        remaining_seconds = max(0.0, deadline - time.monotonic())
        if self._poll.poll(math.ceil(remaining_seconds * 1000)):
            os.read(self._read_fd, _PIPE_BYTES)

    def wake(self) -> None:
        """End the current wait; when nobody waits, the next wait returns at once."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._write_fd, b"\0")

    def close(self) -> None:
        """Give the descriptors back; the clock cannot wait any more."""
        os.close(self._read_fd)
        os.close(self._write_fd)


def boottime_seconds() -> float:
    """Return seconds since boot with suspended time: what start_ticks of proc_pid_stat(5) are measured on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of all threads of a process, clock_getcpuclockid(3); None when it is gone.

    A thread that runs elsewhere is told as of its last tick, up to 10 ms ago.
    """
    return _clock_seconds(~pid << 3 | _CPUCLOCK_SCHED)


def thread_cpu_seconds(tid: int) -> float | None:
    """Return the CPU time of one of our own threads; None when it is gone, or somebody else's."""
    return _clock_seconds(~tid << 3 | _CPUCLOCK_PERTHREAD | _CPUCLOCK_SCHED)


def _clock_seconds(clock: int) -> float | None:
    try:
        return time.clock_gettime(clock)
    except OSError:
        return None
