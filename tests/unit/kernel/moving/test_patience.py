"""Calls that do not come back in time: who waits for them, for how long, and what becomes of their answers."""

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.errors import BlockedError, LateError
from balancerd.kernel.files import list_names
from balancerd.kernel.moving import patience
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.patience import LateAnswers, PatientCalls, call_holding
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.processes.identity import HeldProcess
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.page_status import PageStatus
from balancerd.native.records import Cursor, Migration
from tests.unit.fakes import FakeClock
from tests.unit.kernel.worlds import OWN, PAGE, START, make_step, make_world

OTHER = ProcessId(OWN.pid + 1, 1)
A_WHILE = 30.0


def refuse(_answer: object) -> None:
    raise AssertionError("it came in time")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[PatientCalls]:
    """Calls that are waited for for a moment."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(patience, "SHORT_PATIENCE_SECONDS", 1.0)
    made = PatientCalls(FakeClock())
    yield made
    made.close()


@contextmanager
def held_up(calls: PatientCalls, process: ProcessId, kept: list[int]) -> Iterator[None]:
    """A call about a process waits for a lock, which is given back at the end."""
    lock = threading.Event()

    def wait() -> int:
        lock.wait(A_WHILE)
        return 7

    with pytest.raises(LateError, match="no answer within 1000 ms"):
        calls.call(process, wait, kept.append)
    try:
        yield
    finally:
        lock.set()


def wait_until_kept(kept: list[int]) -> None:
    end = time.monotonic() + A_WHILE
    while not kept and time.monotonic() < end:
        time.sleep(0.01)


def test_what_comes_in_time_is_returned_or_raised(calls: PatientCalls) -> None:
    assert calls.call(OWN, lambda: 5, refuse) == 5
    with pytest.raises(ZeroDivisionError):
        calls.call(OWN, lambda: 1 // 0, refuse)


def test_what_comes_too_late_is_kept_once_and_meanwhile_others_get_their_answers(calls: PatientCalls) -> None:
    kept: list[int] = []
    with held_up(calls, OWN, kept):
        with pytest.raises(BlockedError) as error:
            calls.call(OWN, lambda: 1, refuse)
        assert not isinstance(error.value, LateError)
        assert calls.call(OTHER, lambda: 2, refuse) == 2
        assert kept == []
    wait_until_kept(kept)
    assert kept == [7]
    assert calls.call(OWN, lambda: 3, refuse) == 3
    assert kept == [7]


def test_while_a_call_is_late_the_others_are_waited_for_less(
    calls: PatientCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_up(calls, OWN, []):
        monkeypatch.setattr(patience, "SHORT_PATIENCE_SECONDS", 0.02)
        lock = threading.Event()
        try:
            with pytest.raises(LateError, match="no answer within 20 ms"):
                calls.call(OTHER, lambda: lock.wait(A_WHILE), lambda _: None)
        finally:
            lock.set()


def test_all_that_can_be_late_at_a_time_keep_a_tick_within_its_watchdog() -> None:
    seconds = patience.PATIENCE_SECONDS + (patience.CALLERS - 1) * patience.SHORT_PATIENCE_SECONDS
    assert 2 * seconds < 60


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_a_call_has_a_pidfd_of_its_own_for_as_long_as_it_is_at_work(calls: PatientCalls) -> None:
    lock, seen = threading.Event(), []

    def wait(pidfd: int) -> int:
        lock.wait(A_WHILE)
        seen.append((pidfd, is_open(pidfd)))
        return 7

    kept: list[int] = []
    with HeldProcess(OWN) as held, pytest.raises(LateError):
        call_holding(calls, held, wait, kept.append)
    before = len(list_names("/proc/self/fd"))
    with HeldProcess(OWN) as held, pytest.raises(BlockedError, match="still waits"):
        call_holding(calls, held, wait, refuse)
    assert len(list_names("/proc/self/fd")) == before
    lock.set()
    wait_until_kept(kept)
    ((pidfd, was_open),) = seen
    assert was_open
    assert pidfd != held.fd
    assert len(list_names("/proc/self/fd")) == before - 1


def test_pages_of_a_call_that_is_late_are_told_by_the_next_step(tmp_path: Path, calls: PatientCalls) -> None:
    world = make_world(tmp_path, 1024)
    world.claims = Claims(Mappings(world.clock, str(tmp_path / "proc")), calls)
    mover, lock = world.mover, threading.Event()

    def wait() -> None:
        lock.wait(A_WHILE)

    world.core.before_call = wait
    first = mover.migrate(make_step(1024), lambda: False)
    assert first.stopped_by is Reason.BLOCKED
    assert (first.looked_pages, first.submitted_pages, first.resume_at) == (0, 0, START)
    again = mover.migrate(make_step(1024), lambda: False)
    assert (again.stopped_by, again.submitted_pages) == (Reason.BLOCKED, 0)
    lock.set()
    end = time.monotonic() + A_WHILE
    while calls._pool.late_reads and time.monotonic() < end:
        time.sleep(0.01)
    done = mover.migrate(make_step(1024), lambda: False)
    assert done.stopped_by is None
    assert done.pages == {PageStatus.MOVED: 1024}
    assert sum(run.end - run.start for run in done.moved_runs) == 1024 * PAGE
    assert world.claims.processes() == frozenset()


def test_late_answers_are_told_once_and_forgotten_with_their_process() -> None:
    late: LateAnswers[int] = LateAnswers()
    for process, answer in ((OWN, 1), (OTHER, 2), (OWN, 3)):
        late.keep(process, answer)
    assert late.take(OWN) == [1, 3]
    assert late.take(OWN) == []
    late.forget_all_but({OWN, OTHER})
    assert late.take(OTHER) == [2]
    late.keep(OWN, 4)
    late.keep(OTHER, 5)
    late.forget_all_but({OWN})
    assert (late.take(OWN), late.take(OTHER)) == ([4], [])


def test_no_call_is_made_once_the_process_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pidfd = os.pidfd_open(child.pid)
        select.select([pidfd], [], [])
        child.wait()
    try:
        area = native.RangeArray([(START, START + 16 * PAGE, PAGE)])

        def migrate(pidfd: int) -> Migration:
            return native.migrate(
                os.getpid(), area, node=0, cursor=Cursor(), batch_pages=16, look_pages=16, pidfd=pidfd
            )

        assert migrate(pidfd).error == 3  # ESRCH
        assert migrate(0).error is None
        own = os.pidfd_open(os.getpid())
        assert migrate(own).error is None
        os.close(own)
    finally:
        os.close(pidfd)
