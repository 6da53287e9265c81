"""Calls about a process that can wait for a lock of its address space: made by other threads, waited for with a bound.

Who holds the lock of its own address space keeps move_pages(2) waiting for as long as it likes, where no signal reaches
the thread. Owns how long that may hold up everybody else, and what is done with an answer that comes too late.
"""

import os
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, Protocol, TypeVar

from balancerd.kernel.errors import BlockedError, LateError
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.processes.identity import HeldProcess
from balancerd.model.ids import ProcessId
from balancerd.ports import Clock

CALLERS = 8
"""So many processes may keep a thread waiting; then nothing moves until one of them lets go."""

PATIENCE_SECONDS = 5.0
"""Many times what any call takes, where CPUs are emulated, too. Calls are bounded to milliseconds otherwise."""

SHORT_PATIENCE_SECONDS = 0.5
"""While a call is late already: all CALLERS together hold a tick up for less than the watchdog allows."""

T = TypeVar("T")


class Caller(Protocol):
    """Who makes calls about processes; see PatientCalls."""

    def call(self, process: ProcessId, make: Callable[[], T], keep: Callable[[T], object]) -> T:
        """Return what `make` returns, or raise what it raises, and BlockedError."""
        ...


class PatientCalls:
    """The Caller. To be used by one thread alone."""

    def __init__(self, clock: Clock) -> None:
        self._pool = ReadPool(CALLERS)
        self._reads = PatientReads(clock, self._pool, PATIENCE_SECONDS)

    def call(self, process: ProcessId, make: Callable[[], T], keep: Callable[[T], object]) -> T:
        """Return what `make` returns, or raise what it raises. What it returns too late a thread gives to `keep`.

        Raises BlockedError: it was not made, since one about the same process is late already, or no thread is free;
        or, as LateError, it has not come back.
        """
        call = _Call(make, keep)
        self._reads.timeout_seconds = SHORT_PATIENCE_SECONDS if self._pool.late_reads else PATIENCE_SECONDS
        try:
            return self._reads.read(process, call.run)
        except LateError:
            if (answers := call.give_up()) is not None:
                return answers[0]
            raise

    def close(self) -> None:
        """Let the threads end that are not waiting."""
        self._reads.close()


def call_holding(caller: Caller, held: HeldProcess, make: Callable[[int], T], keep: Callable[[T], object]) -> T:
    """Make a call that is given a pidfd of its own, since it may be at work when others have let go of the process."""
    pidfd = os.dup(held.fd)

    def closing() -> T:
        try:
            return make(pidfd)
        finally:
            os.close(pidfd)

    try:
        return caller.call(held.process, closing, keep)
    except LateError:
        raise
    except BlockedError:  # it was not made
        os.close(pidfd)
        raise


class LateAnswers(Generic[T]):
    """What calls have told that came back too late for their step, by process: it is told by the next step."""

    def __init__(self) -> None:
        self._answers: dict[ProcessId, list[T]] = {}
        self._lock = threading.Lock()

    def keep(self, process: ProcessId, answer: T) -> None:
        """Keep one; for the thread that made the call."""
        with self._lock:
            self._answers.setdefault(process, []).append(answer)

    def take(self, process: ProcessId) -> Sequence[T]:
        """Return what has come since about a process; once."""
        with self._lock:
            return self._answers.pop(process, [])

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what was told of processes that have ended: no step comes that could tell it, and no page is left."""
        with self._lock:
            for process in self._answers.keys() - alive:
                del self._answers[process]


def drop(_answer: object) -> None:
    """For what is not needed any more when it comes too late."""


class _Call(Generic[T]):
    """One call, and who gets its answer."""

    def __init__(self, make: Callable[[], T], keep: Callable[[T], object]) -> None:
        self._make = make
        self._keep = keep
        self._lock = threading.Lock()
        self._is_late = False
        self._answers: tuple[T] | None = None

    def run(self) -> T:
        """Make it; for the thread of a pool."""
        answer = self._make()
        with self._lock:
            self._answers = (answer,)
            is_late = self._is_late
        if is_late:
            self._keep(answer)
        return answer

    def give_up(self) -> tuple[T] | None:
        """Return the answer if it is there by now; otherwise it goes to `keep`."""
        with self._lock:
            self._is_late = self._answers is None
            return self._answers
