"""Reads that can wait for a lock of the process that is read: done by threads of their own, waited for with a bound.

Whoever holds the mmap lock of a process makes everybody wait who opens or reads its maps, numa_maps, smaps, environ or
cmdline, or asks move_pages(2) about it: a fork of a large process for a second, a mapping of a file whose server does
not answer for days. None of these calls takes a time-out.

Owns the threads, and when a process that keeps them waiting is tried again. Must not know what is read. Unlike those
of concurrent.futures, the threads are not waited for when the interpreter ends: one of them may never come back.
"""

import queue
import threading
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from balancerd.kernel.errors import BlockedError, LateError
from balancerd.model.ids import ProcessId
from balancerd.ports import Clock

READERS = 4
"""So many processes may keep a thread waiting before nobody else can be read."""

TOLERATED_LATE_READS = 3
"""A fork now and then makes a read late, too; from so many in a row on the process is left alone for a while."""

SHORTEST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 320.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class _Job(Generic[T]):
    """One read. `answers` holds what it returned or raised, once it has."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self.answers: queue.SimpleQueue[T | _Raised] = queue.SimpleQueue()

    def run(self) -> T | _Raised:
        try:
            return self._read()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asked
            return _Raised(error)


class _Reader:
    """A thread, and the process whose read it is at; None while it is idle. All but the inbox needs the pool's lock."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self.process: ProcessId | None = None
        self.is_late = False


class ReadPool:
    """Runs reads in up to `readers` daemon threads, started when they are needed. Safe to call from any thread.

    A read that comes late keeps its thread until it returns; what it then returns or raises is dropped.
    """

    def __init__(self, readers: int = READERS) -> None:
        self._limit = readers
        self._lock = threading.Lock()
        self._readers: list[_Reader] = []
        self._is_closed = False

    def read(self, process: ProcessId, read: Callable[[], T], timeout_seconds: float) -> T:
        """Return what `read` returns, or raise what it raises.

        Raises LateError when it does not return in time, BlockedError at once when no thread is free or when an earlier
        read of the same process is not back. `read` must bear that it is still at work when later reads begin.
        """
        reader = self._take(process)
        job = _Job(read)
        reader.inbox.put(job)
        try:
            answer = job.answers.get(timeout=timeout_seconds)
        except queue.Empty:
            answer = self._give_up(reader, job, timeout_seconds)
        if not isinstance(answer, _Raised):
            return answer
        try:
            raise answer.error
        finally:
            del answer  # or the error and this frame keep each other alive

    @property
    def late_reads(self) -> int:
        """How many threads wait for a process whose reader was given up."""
        with self._lock:
            return sum(reader.is_late for reader in self._readers)

    def close(self) -> None:
        """Let the threads end as soon as each has nothing to do. Nothing can be read any more."""
        with self._lock:
            self._is_closed = True
            for reader in self._readers:
                reader.inbox.put(None)

    def _take(self, process: ProcessId) -> _Reader:
        with self._lock:
            if self._is_closed:
                raise BlockedError("nothing is read any more")
            if any(reader.is_late and reader.process == process for reader in self._readers):
                raise BlockedError("an earlier read of it still waits")
            idle = next((reader for reader in self._readers if reader.process is None), None)
            if idle is None:
                idle = self._start()
            idle.process = process
            return idle

    def _start(self) -> _Reader:
        n = len(self._readers)
        if n >= self._limit:
            raise BlockedError(f"all {n} threads that could read it wait for other processes")
        reader = _Reader()
        thread = threading.Thread(target=self._work, args=(reader,), name=f"balancerd-read-{n}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the limit of tasks is reached
            raise BlockedError(f"no thread to read it with: {error}") from error
        self._readers.append(reader)
        return reader

    def _work(self, reader: _Reader) -> None:
        while (job := reader.inbox.get()) is not None:
            answer = job.run()
            with self._lock:  # idle first: who gets the answer may ask the next question at once
                is_wanted = not reader.is_late
                reader.process, reader.is_late = None, False
                if is_wanted:
                    job.answers.put(answer)
            del job, answer

    def _give_up(self, reader: _Reader, job: _Job[T], timeout_seconds: float) -> T | _Raised:
        with self._lock:
            try:
                return job.answers.get_nowait()  # it came while we were waking up
            except queue.Empty:
                reader.is_late = True
        raise LateError(f"no answer within {timeout_seconds * 1000:g} ms")


@dataclass(frozen=True, slots=True)
class _Streak:
    """So many reads in a row came late; before `until` there is no other."""

    late_reads: int
    until: float


class PatientReads:
    """Reads through a pool, and leaves a process alone for longer and longer while its reads come late.

    `timeout_seconds` may be changed at any time. Remembers the late reads of each process, in time of `clock`.
    """

    def __init__(self, clock: Clock, pool: ReadPool, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._clock = clock
        self._pool = pool
        self._streaks: dict[ProcessId, _Streak] = {}

    def read(self, process: ProcessId, read: Callable[[], T], *, extra_seconds: float = 0.0) -> T:
        """Return what `read` returns; see ReadPool.read. `extra_seconds` is what it may take beyond the time-out.

        Any answer in time, an error, too, ends the row of late ones. A read that was not begun changes nothing.
        """
        streak = self._streaks.get(process)
        left_seconds = 0.0 if streak is None else streak.until - self._clock.now()
        if streak is not None and left_seconds > 0:
            raise BlockedError(f"{streak.late_reads} reads in a row were late; the next one in {left_seconds:.1f} s")
        try:
            answer = self._pool.read(process, read, self.timeout_seconds + extra_seconds)
        except LateError:
            late_reads = 1 if streak is None else streak.late_reads + 1
            self._streaks[process] = _Streak(late_reads, self._clock.now() + pause_seconds(late_reads))
            raise
        except BlockedError:
            raise
        except BaseException:
            self._streaks.pop(process, None)
            raise
        self._streaks.pop(process, None)
        return answer

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that are not in `alive`."""
        for process in tuple(self._streaks):
            if process not in alive:
                self._streaks.pop(process, None)

    def close(self) -> None:
        """See ReadPool.close."""
        self._pool.close()


def pause_seconds(late_reads: int) -> float:
    """Return how long a process is left alone after so many late reads in a row."""
    doublings = late_reads - TOLERATED_LATE_READS
    return 0.0 if doublings < 0 else min(LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS * 2.0 ** min(doublings, 6))
