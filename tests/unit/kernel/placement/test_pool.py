"""Reads that may not come back. A time-out of nothing makes every read late that is not done, so nothing waits here."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import BlockedError, LateError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.placement.pool import PatientReads, ReadPool, pause_seconds
from balancerd.model.ids import ProcessId
from tests.unit.fakes import FakeClock

AMPLE = 60.0
T = TypeVar("T")
A, B, C = (ProcessId(pid, 1) for pid in (10, 11, 12))


class Answer:
    """Something to keep or to drop."""


class Stuck:
    """A read that waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self) -> None:
        assert self.go.wait(AMPLE)


@pytest.fixture
def pool() -> Iterator[ReadPool]:
    made = ReadPool(2)
    yield made
    made.close()


@pytest.fixture
def stick(pool: ReadPool) -> Iterator[Callable[[ProcessId], Stuck]]:
    """Have a read of a process come late; all are let go in the end."""
    made: list[Stuck] = []

    def one(process: ProcessId) -> Stuck:
        stuck = Stuck()
        made.append(stuck)
        with pytest.raises(LateError):
            pool.read(process, stuck, 0.0)
        return stuck

    yield one
    for stuck in made:
        stuck.go.set()


def read_again(pool: ReadPool, process: ProcessId) -> str:
    """Read as soon as the pool lets us."""
    while True:
        try:
            return pool.read(process, lambda: "read", AMPLE)
        except BlockedError:
            continue


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("balancerd-read")}


def raise_(error: BaseException) -> None:
    raise error


def test_a_read_returns_what_its_function_does(pool: ReadPool) -> None:
    assert pool.read(A, lambda: 7, AMPLE) == 7
    assert pool.read(A, lambda: None, AMPLE) is None


@pytest.mark.parametrize("error", [PermissionError(1, "no"), ProcessLookupError(3, "gone"), SystemExit(3)])
def test_what_it_raises_is_raised_where_it_was_asked_for_and_the_thread_lives_on(
    pool: ReadPool, error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised:
        pool.read(A, lambda: raise_(error), AMPLE)
    assert raised.value is error
    assert pool.read(A, threading.get_ident, AMPLE) == pool.read(A, threading.get_ident, AMPLE)


def test_one_after_the_other_needs_one_thread_which_no_exit_waits_for(pool: ReadPool) -> None:
    before = threads()
    idents = {pool.read(process, threading.get_ident, AMPLE) for process in (A, B, C) * 100}
    (thread,) = threads() - before
    assert idents == {thread.ident}
    assert thread.daemon


def test_the_cpu_time_of_a_read_is_that_of_the_whole_process(pool: ReadPool) -> None:
    def burn() -> None:
        while time.thread_time() < 0.02:
            pass

    clock = MonotonicClock()
    before = clock.cpu_seconds()
    pool.read(A, burn, AMPLE)
    assert clock.cpu_seconds() - before >= 0.02
    clock.close()


def test_a_late_read_is_given_up_and_others_are_read_meanwhile(
    pool: ReadPool, stick: Callable[[ProcessId], Stuck]
) -> None:
    stick(A)
    assert pool.late_reads == 1
    assert pool.read(B, lambda: "b", AMPLE) == "b"


def test_a_process_that_keeps_a_thread_waiting_is_not_tried_again_until_it_is_back(
    pool: ReadPool, stick: Callable[[ProcessId], Stuck]
) -> None:
    stuck = stick(A)
    with pytest.raises(BlockedError, match="an earlier read of it") as refused:
        pool.read(A, lambda: pytest.fail("it was read"), AMPLE)
    assert not isinstance(refused.value, LateError)
    later_owner_of_the_pid = ProcessId(A.pid, 2)
    assert pool.read(later_owner_of_the_pid, lambda: 2, AMPLE) == 2
    stuck.go.set()
    assert read_again(pool, A) == "read"
    assert pool.late_reads == 0


def test_when_every_thread_waits_others_are_refused_at_once_and_never_queued(
    pool: ReadPool, stick: Callable[[ProcessId], Stuck]
) -> None:
    first, _ = stick(A), stick(B)
    read: list[ProcessId] = []
    with pytest.raises(BlockedError, match="all 2 threads") as refused:
        pool.read(C, lambda: read.append(C), AMPLE)
    assert not isinstance(refused.value, LateError)
    first.go.set()
    assert read_again(pool, C) == "read"
    assert read == []


def dies_soon(reference: weakref.ref[Answer]) -> bool:
    """Whether the last to hold it lets go, without the help of the garbage collector."""
    end = time.monotonic() + 10.0
    gc.disable()
    while reference() is not None and time.monotonic() < end:
        pass
    gc.enable()
    return reference() is None


@pytest.mark.parametrize("raises", [False, True])
def test_a_late_answer_is_dropped_with_all_that_it_holds(pool: ReadPool, raises: bool) -> None:
    go, made = threading.Event(), threading.Event()
    references: list[weakref.ref[Answer]] = []

    def late() -> Answer:
        go.wait(AMPLE)
        answer = Answer()
        references.append(weakref.ref(answer))
        made.set()
        if raises:
            raise PermissionError(1, "too late")  # its traceback holds this frame
        return answer

    with pytest.raises(LateError, match="within 0 ms"):
        pool.read(A, late, 0.0)
    go.set()
    assert made.wait(AMPLE)
    assert dies_soon(references[0])


def test_an_idle_thread_keeps_nothing_of_its_last_answer(pool: ReadPool) -> None:
    answer = pool.read(A, Answer, AMPLE)
    reference = weakref.ref(answer)
    del answer
    assert dies_soon(reference)


def test_who_has_an_answer_may_ask_again_at_once() -> None:
    pool, interval = ReadPool(1), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        assert [pool.read(A, partial(int, n), AMPLE) for n in range(5000)] == list(range(5000))
    finally:
        sys.setswitchinterval(interval)
        pool.close()


def test_a_late_error_is_dropped_and_the_thread_lives_on(pool: ReadPool) -> None:
    go = threading.Event()

    def fail() -> None:
        go.wait(AMPLE)
        raise PermissionError(1, "too late")

    with pytest.raises(LateError):
        pool.read(A, fail, 0.0)
    go.set()
    assert read_again(pool, A) == "read"
    assert pool.late_reads == 0


def test_a_late_read_of_a_file_closes_it(pool: ReadPool, tmp_path: Path) -> None:
    fifo = tmp_path / "maps"
    os.mkfifo(fifo)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(LateError):
        pool.read(A, lambda: read_bytes(str(fifo)), 0.0)
    with fifo.open("wb") as writer:  # opens once the reader has
        writer.write(b"late")
    read_again(pool, A)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_reads_of_many_threads_get_their_own_answers(pool: ReadPool) -> None:
    refused = 0

    def ask(number: int) -> int | None:
        try:
            return pool.read(ProcessId(number, 1), lambda: number, AMPLE)
        except BlockedError:
            return None

    with ThreadPoolExecutor(4) as callers:
        for number, answer in enumerate(callers.map(ask, range(2000))):
            refused += answer is None
            assert answer in {number, None}
    assert refused < 2000
    assert pool.late_reads == 0
    assert pool.read(A, lambda: 1, AMPLE) == 1


def test_a_closed_pool_reads_nothing_and_its_threads_end(pool: ReadPool, stick: Callable[[ProcessId], Stuck]) -> None:
    before = threads()
    stuck = stick(A)
    pool.read(B, lambda: None, AMPLE)
    mine = threads() - before
    assert len(mine) == 2
    pool.close()
    with pytest.raises(BlockedError):
        pool.read(B, lambda: None, AMPLE)
    stuck.go.set()
    for thread in mine:
        thread.join(AMPLE)
        assert not thread.is_alive()


def test_where_no_thread_can_be_started_a_read_is_refused(pool: ReadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: raise_(RuntimeError("can't start new thread")))
        with pytest.raises(BlockedError, match="can't start new thread"):
            pool.read(A, lambda: 1, AMPLE)
    assert pool.read(A, lambda: 1, AMPLE) == 1


def test_a_program_ends_though_a_read_never_returns() -> None:
    program = """
import os
from balancerd.kernel.errors import LateError
from balancerd.kernel.placement.pool import ReadPool
from balancerd.model.ids import ProcessId
reading, writing = os.pipe()
try:
    ReadPool().read(ProcessId(1, 1), lambda: os.read(reading, 1), 0.0)
except LateError:
    print("late")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "late\n"


@pytest.mark.parametrize(
    ("late_reads", "seconds"),
    [(1, 0.0), (2, 0.0), (3, 5.0), (4, 10.0), (5, 20.0), (8, 160.0), (9, 320.0), (10, 320.0), (10_000, 320.0)],
)
def test_pauses_double(late_reads: int, seconds: float) -> None:
    assert pause_seconds(late_reads) == seconds


class ToldPool(ReadPool):
    """Reads at once, but for what it is told to raise; counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.asked: list[tuple[ProcessId, float]] = []

    def read(self, process: ProcessId, read: Callable[[], T], timeout_seconds: float) -> T:
        self.asked.append((process, timeout_seconds))
        if self.error is not None:
            raise self.error
        return read()


class World:
    """Patient reads, and what stands around them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pool = ToldPool()
        self.reads = PatientReads(self.clock, self.pool, 0.1)

    def try_(self, process: ProcessId, error: BaseException | None = None) -> str:
        self.pool.error = error
        asked = len(self.pool.asked)
        try:
            self.reads.read(process, lambda: None)
        except BlockedError as blocked:
            return "late" if isinstance(blocked, LateError) else "refused" if len(self.pool.asked) > asked else "paused"
        except OSError:
            return "error"
        return "read"


def test_three_late_reads_in_a_row_bring_pauses_of_5_s_to_320_s() -> None:
    world = World()
    began, tries = world.clock.time, []
    for _ in range(4000):
        if world.try_(A, LateError()) == "late":
            tries.append(world.clock.time - began)
        world.clock.time += 0.5
    steps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert steps[:11] == [0.5, 0.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 320.0, 320.0]


def test_a_pause_is_told_and_holds_back_only_the_one_process() -> None:
    world = World()
    assert [world.try_(A, LateError()) for _ in range(4)] == ["late", "late", "late", "paused"]
    with pytest.raises(BlockedError, match=r"^3 reads in a row were late; the next one in 5\.0 s$"):
        world.reads.read(A, lambda: None)
    assert world.try_(B) == "read"


@pytest.mark.parametrize(("error", "came"), [(None, "read"), (PermissionError(), "error")])
def test_any_answer_in_time_ends_the_row(error: BaseException | None, came: str) -> None:
    world = World()
    for _ in range(3):
        assert [world.try_(A, LateError()) for _ in range(2)] == ["late", "late"]
        assert world.try_(A, error) == came


def test_a_read_that_was_refused_counts_for_nothing() -> None:
    world = World()
    assert [world.try_(A, LateError()) for _ in range(2)] == ["late", "late"]
    assert [world.try_(A, BlockedError()) for _ in range(9)] == ["refused"] * 9
    assert [world.try_(A, LateError()) for _ in range(2)] == ["late", "paused"]


def test_who_is_gone_is_forgotten() -> None:
    world = World()
    for process in (A, B):
        assert [world.try_(process, LateError()) for _ in range(4)][-1] == "paused"
    world.reads.forget_all_but({B})
    assert world.try_(A) == "read"
    assert world.try_(B) == "paused"


def test_the_time_out_may_change_and_be_stretched() -> None:
    world = World()
    world.reads.read(A, lambda: None)
    world.reads.timeout_seconds = 0.5
    world.reads.read(A, lambda: None, extra_seconds=0.25)
    assert world.pool.asked == [(A, 0.1), (A, 0.75)]
