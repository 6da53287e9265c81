"""A process of which nothing is new is told by the very same report."""

from dataclasses import replace

import pytest

from balancerd.engine.story import NOT_ITS_BUSINESS, Storyteller
from balancerd.model.decision import Reason, Skip, Verdict
from balancerd.model.report import ProcessReport
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot
from tests.unit.fakes import make_placement, make_process, make_survey
from tests.unit.reports import an_outcome

IDLE = make_process(cpu_cores=0.0)
SKIP = Skip(by="select", process=IDLE.id, reason=Reason.BELOW_MIN_CPU)
PLACED = make_placement({0: 256})


def a_snapshot(process: ProcessSample, placement: PlacementSample | None = None) -> Snapshot:
    placements = {} if placement is None else {process.id: placement}
    return Snapshot(taken_at=0.0, survey=make_survey(process), placements=placements, eligible=())


def told(teller: Storyteller, snapshot: Snapshot, *verdicts: Verdict) -> ProcessReport:
    (only,) = teller.tell(snapshot, verdicts, ())
    return only


def test_the_same_process_with_the_same_verdict_gives_the_same_report() -> None:
    teller = Storyteller()
    first = told(teller, a_snapshot(IDLE), SKIP)
    assert told(teller, a_snapshot(IDLE), SKIP) is first
    assert (first.reason, first.process) == (Reason.BELOW_MIN_CPU, IDLE)


def test_whatever_is_new_gives_a_new_report() -> None:
    teller = Storyteller()
    first = told(teller, a_snapshot(IDLE), SKIP)
    other_reason = replace(SKIP, reason=Reason.FIRST_SIGHT)
    assert told(teller, a_snapshot(IDLE), other_reason).reason is Reason.FIRST_SIGHT
    assert told(teller, a_snapshot(IDLE), other_reason, SKIP).verdicts == (other_reason, SKIP)
    assert told(teller, a_snapshot(IDLE, PLACED), SKIP).placement is PLACED
    read_again = replace(IDLE, rss_bytes=7)
    assert told(teller, a_snapshot(read_again), SKIP).process is read_again
    assert told(teller, a_snapshot(IDLE), SKIP) is not first


def test_an_outcome_is_told_in_its_tick_only() -> None:
    teller = Storyteller()
    outcome = an_outcome(IDLE.id)
    (moved,) = teller.tell(a_snapshot(IDLE), (SKIP,), (outcome,))
    assert moved.outcome is outcome
    assert told(teller, a_snapshot(IDLE), SKIP).outcome is None


def test_the_dead_are_told_no_more() -> None:
    teller = Storyteller()
    told(teller, a_snapshot(IDLE), SKIP)
    assert teller.tell(replace(a_snapshot(IDLE), survey=make_survey()), (), ()) == ()


@pytest.mark.parametrize("not_mine", sorted(NOT_ITS_BUSINESS))
def test_a_policy_that_leaves_a_process_to_another_one_does_not_have_the_last_word(not_mine: Reason) -> None:
    judged = Skip(by="home", process=IDLE.id, reason=Reason.WELL_PLACED)
    left = Skip(by="parts", process=IDLE.id, reason=not_mine)
    assert told(Storyteller(), a_snapshot(IDLE), judged, left).reason is Reason.WELL_PLACED
    assert told(Storyteller(), a_snapshot(IDLE), left, judged).reason is Reason.WELL_PLACED
    assert told(Storyteller(), a_snapshot(IDLE), left).reason is not_mine
