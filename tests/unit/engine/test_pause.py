"""Nothing moves for a while after moves that went wrong: to a full node, or anywhere when calls fail."""

from dataclasses import replace

import pytest

from balancerd.engine.pause import Pause
from balancerd.model.decision import Decision, Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import Survey
from tests.unit.fakes import MIB, N0, N1, make_survey
from tests.unit.reports import a_decision, an_eviction, an_outcome

PID = ProcessId(1, 1)
WANTED = (a_decision(PID, target=0), a_decision(PID, target=1))


def outcome(pages: dict[PageStatus, int], *, stopped_by: Reason | None = None, target: int = 0) -> MigrationOutcome:
    return an_outcome(PID, pages=pages, target=target, moved_from={}, stopped_by=stopped_by)


def survey(at: float, free_mib: int = 4096) -> Survey:
    return make_survey(at=at, free_bytes={0: free_mib * MIB})


def targets(pause: Pause, now: float) -> list[NodeId]:
    able, skips = pause.part(WANTED, now)
    assert len(able) + len(skips) == len(WANTED)
    assert all(skip.reason is Reason.PAUSED for skip in skips)
    return [each.target for each in able if isinstance(each, Decision)]


@pytest.mark.parametrize(
    ("done", "free_mib", "left"),
    [
        (outcome({PageStatus.MOVED: 10_000}), 4096, [N0, N1]),
        (outcome({PageStatus.MOVED: 10_000, PageStatus.NO_MEMORY: 1}), 4096, [N1]),
        (outcome({PageStatus.MOVED: 1}, stopped_by=Reason.NO_MEMORY), 4096, [N1]),
        (outcome({PageStatus.MOVED: 1}), 15, [N1]),  # the watermark is 16 MiB
        (outcome({PageStatus.SHARED: 1}), 15, [N0, N1]),  # nothing went there
        (outcome({PageStatus.MOVED: 949, PageStatus.IO_ERROR: 51}), 4096, []),
        (outcome({PageStatus.MOVED: 950, PageStatus.IO_ERROR: 50}), 4096, [N0, N1]),
        (outcome({PageStatus.MOVED: 400, PageStatus.OTHER_ERROR: 100}), 4096, [N0, N1]),  # too few to tell
        (outcome({PageStatus.SHARED: 900, PageStatus.BUSY: 100}), 4096, [N0, N1]),
    ],
)
def test_each_cause_stops_what_it_must(done: MigrationOutcome, free_mib: int, left: list[NodeId]) -> None:
    pause = Pause()
    pause.note(done, 10.0)
    pause.look(survey(12.0, free_mib))
    assert targets(pause, 12.0) == left
    assert (pause.tell(12.0) is None) is (left == [N0, N1])
    assert targets(pause, 69.9) == left
    assert targets(pause, 70.0) == [N0, N1]
    assert pause.tell(70.0) is None


def test_a_pause_doubles_until_it_was_calm_for_long() -> None:
    pause, at, waits = Pause(), 10.0, []
    for calm in (0.0, 0.0, 599.0, 600.0):
        pause.note(outcome({PageStatus.NO_MEMORY: 1}), at)
        pause.look(survey(at))
        until = next(at + wait for wait in (60, 120, 240, 480) if N0 in targets(pause, at + wait))
        waits.append(until - at)
        at = until + calm
    assert waits == [60, 120, 240, 480]
    pause.note(outcome({PageStatus.NO_MEMORY: 1}), at)
    pause.look(survey(at))
    assert targets(pause, at + 59.9) == [N1]
    assert targets(pause, at + 60.0) == [N0, N1]


def test_what_went_wrong_counts_once_and_says_what_it_was() -> None:
    pause = Pause()
    pause.note(outcome({PageStatus.NO_MEMORY: 1}), 10.0)
    pause.look(survey(12.0))
    pause.look(survey(14.0))
    (_, (skip,)) = pause.part(WANTED, 14.0)
    assert skip.detail == "node 0 ran out of memory during a move; again in 56 s"
    assert skip.needs == "56 s more of rest"


def test_targets_of_their_own_count_and_evictions_go_on() -> None:
    pause, done = Pause(), outcome({PageStatus.NO_MEMORY: 1})
    pause.note(replace(done, step=replace(done.step, target_of={N0: N1})), 10.0)
    pause.look(survey(12.0))
    eviction = an_eviction(PID)
    able, _ = pause.part((*WANTED, eviction), 12.0)
    assert able == (WANTED[0], eviction)


def test_an_operators_pause_lets_nothing_begin() -> None:
    pause = Pause()
    pause.halt("paused by an operator")
    able, skips = pause.part((*WANTED, an_eviction(PID)), 10.0)
    assert able == ()
    assert [(skip.process, skip.reason, skip.needs) for skip in skips] == [(PID, Reason.HALTED, "balancerctl resume")]
    assert pause.tell(10.0) == "paused by an operator"
    pause.halt(None)
    assert pause.part(WANTED, 10.0) == (WANTED, ())
    assert pause.tell(10.0) is None


@pytest.mark.parametrize(
    ("done", "free_mib", "told"),
    [
        (outcome({PageStatus.MOVED: 1}), 15, "node 0 has 15 MiB left after a move, less than its watermark"),
        (outcome({PageStatus.MOVED: 949, PageStatus.IO_ERROR: 51}), 4096, "51 of 1000 pages failed"),
        (outcome({PageStatus.MOVED: 900, PageStatus.NO_MEMORY: 1}), 15, "node 0 ran out of memory during a move"),
    ],
)
def test_a_pause_is_told_with_its_cause(done: MigrationOutcome, free_mib: int, told: str) -> None:
    pause = Pause()
    pause.note(done, 10.0)
    pause.look(survey(12.0, free_mib))
    assert pause.tell(12.0) == told


@pytest.mark.parametrize(("moved", "failed", "pauses"), [(400, 100, False), (900, 101, True)])
def test_failures_of_all_steps_between_two_looks_count_together(moved: int, failed: int, *, pauses: bool) -> None:
    pause = Pause()
    for pages in ({PageStatus.MOVED: moved}, {PageStatus.IO_ERROR: failed}):
        pause.note(outcome(pages), 10.0)
    pause.look(survey(12.0))
    assert (targets(pause, 12.0) == []) is pauses
    pause.look(survey(14.0))
    assert (targets(pause, 14.0) == []) is pauses, "they count once"


def test_after_long_calm_a_pause_is_as_short_as_the_first() -> None:
    pause = Pause()
    for at in (10.0, 5000.0):
        pause.note(outcome({PageStatus.NO_MEMORY: 1}), at)
        pause.look(survey(at))
        assert targets(pause, at + 59.0) == [N1]
        assert targets(pause, at + 60.0) == [N0, N1]


def test_of_two_pauses_that_concern_it_the_longer_one_is_told() -> None:
    pause = Pause()
    pause.note(outcome({PageStatus.MOVED: 900, PageStatus.IO_ERROR: 100}), 10.0)
    pause.look(survey(10.0))
    pause.note(outcome({PageStatus.NO_MEMORY: 1}), 30.0)
    pause.look(survey(30.0))
    _, (to_full, to_other) = pause.part(WANTED, 40.0)
    assert to_full.detail == "node 0 ran out of memory during a move; again in 50 s"
    assert to_other.detail == "100 of 1000 pages failed; again in 30 s"
    assert pause.tell(40.0) == "100 of 1000 pages failed; node 0 ran out of memory during a move"
