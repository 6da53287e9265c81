"""A process of which nothing is new is told by the very same report."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.story import NOT_ITS_BUSINESS, Storyteller, local_ratio, run_ratio
from balancerd.model.decision import Reason, Skip, Verdict
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.report import ProcessReport
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, ThreadFate
from tests.unit.fakes import N2, make_placement, make_process, make_survey, make_topology
from tests.unit.reports import an_eviction_outcome, an_outcome

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


@pytest.mark.parametrize(
    ("run", "ratio"),
    [
        ({0: 1.5, 2: 4.5}, {0: 0.25, 2: 0.75}),
        ({0: 3.0, 9: 1.0}, {0: 1.0}),
        ({0: 0.0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_where_it_ran_is_told_of_the_nodes_that_are_there(
    run: dict[NodeId, float] | None, ratio: dict[NodeId, float] | None
) -> None:
    assert run_ratio(replace(IDLE, run_seconds=run), make_topology()) == ratio


@pytest.mark.parametrize(
    ("run", "held", "ratio"),
    [
        ({0: 1.0}, {0: 256}, 1.0),
        ({0: 1.0}, {2: 256}, 0.0),
        ({0: 0.25, 2: 0.75}, {0: 128, 2: 128}, 0.75),
        ({0: 0.5, 1: 0.5}, {0: 64, 1: 64, 3: 128}, 0.5),
        ({0: 1.0}, {}, None),
        ({0: 1.0}, None, None),
        (None, {0: 256}, None),
    ],
)
def test_how_much_memory_lies_where_it_runs(
    run: dict[NodeId, float] | None, held: dict[int, float] | None, ratio: float | None
) -> None:
    assert local_ratio(run, None if held is None else make_placement(held)) == (
        None if ratio is None else pytest.approx(ratio)
    )


def ended(outcome: MigrationOutcome | EvictionOutcome | SteerOutcome) -> tuple[Reason, str]:
    """What the report says when that was the only step."""
    teller, now = Storyteller(), a_snapshot(IDLE)
    (report,) = teller.tell(
        now,
        (),
        [outcome] if isinstance(outcome, MigrationOutcome) else (),
        [outcome] if isinstance(outcome, EvictionOutcome) else (),
        [outcome] if isinstance(outcome, SteerOutcome) else (),
    )
    return report.reason, report.detail


def moved(moved: int, *, detail: str = "", stopped_by: Reason | None = None, **failed: int) -> MigrationOutcome:
    pages = {PageStatus.MOVED: moved, **{PageStatus[name.upper()]: number for name, number in failed.items()}}
    return replace(an_outcome(IDLE.id, target=1, pages=pages, stopped_by=stopped_by), detail=detail)


def evicted(**changes: Any) -> EvictionOutcome:
    detail = changes.pop("detail", "")
    return replace(an_eviction_outcome(IDLE.id, **changes), detail=detail)


def steered(
    threads: dict[ThreadFate, int], *, kind: SteerKind = SteerKind.KICK, stopped_by: Reason | None = None
) -> SteerOutcome:
    step = SteerStep(policy="threads", process=IDLE.id, target=N2, cpus=frozenset({CpuId(2)}), kind=kind)
    return SteerOutcome(step=step, threads=threads, held_threads=0, stopped_by=stopped_by)


@pytest.mark.parametrize(
    ("outcome", "detail"),
    [
        (moved(768), "moved 3 MiB to node 1"),
        (moved(768, busy=7, shared=0), "moved 3 MiB to node 1; 7 pages ebusy"),
        (moved(768, busy=7, detail="its end"), "moved 3 MiB to node 1; 7 pages ebusy; its end"),
        (moved(768, detail="its end"), "moved 3 MiB to node 1; its end"),
        (moved(0, stopped_by=Reason.OBSERVE_MODE), "would move to node 1"),
        (moved(0, stopped_by=Reason.STALLED), "moved 0 MiB to node 1"),
        (evicted(evicted_pages=768, kept_pages=0), "evicted 3 MiB"),
        (evicted(evicted_pages=768, kept_pages=5), "evicted 3 MiB; 5 pages stayed"),
        (evicted(evicted_pages=768, kept_pages=5, detail="its end"), "evicted 3 MiB; 5 pages stayed; its end"),
        (evicted(evicted_pages=0, kept_pages=768, cold_only=True), "marked 3 MiB"),
        (evicted(stopped_by=Reason.OBSERVE_MODE), "would evict memory"),
        (evicted(stopped_by=Reason.OBSERVE_MODE, cold_only=True), "would mark memory as cold"),
        (evicted(evicted_pages=768, kept_pages=0, stopped_by=Reason.PRESSURE), "evicted 3 MiB"),
        (steered({ThreadFate.MOVED: 3}), "3 threads moved to node 2"),
        (steered({ThreadFate.PINNED: 3}, kind=SteerKind.PIN), "3 threads held on node 2"),
        (steered({}), "no threads moved to node 2"),
        (steered({ThreadFate.MOVED: 3, ThreadFate.THERE: 2}), "3 threads moved to node 2; 2 there"),
        (steered({}, stopped_by=Reason.OBSERVE_MODE), "would move its threads to node 2"),
    ],
)
def test_what_was_done_is_told_with_how_much(
    outcome: MigrationOutcome | EvictionOutcome | SteerOutcome, detail: str
) -> None:
    reason, told = ended(outcome)
    assert told == detail
    assert reason is (outcome.stopped_by or outcome.step.reason)


def test_who_claims_a_process_has_the_last_word_only_when_nobody_else_objects() -> None:
    claim = Skip(by="plan", process=IDLE.id, reason=Reason.CLAIMED, detail="by policy a")
    full = Skip(by="plan", process=IDLE.id, reason=Reason.TARGET_FULL)
    held = Skip(by="rules", process=IDLE.id, reason=Reason.AS_RULED, holds=True)
    for verdicts, last in (
        ((full, claim), Reason.TARGET_FULL),
        ((claim, full), Reason.TARGET_FULL),
        ((held, claim), Reason.AS_RULED),
        ((SKIP, claim), Reason.CLAIMED),
        ((claim,), Reason.CLAIMED),
        ((full, held), Reason.TARGET_FULL),
    ):
        assert told(Storyteller(), a_snapshot(IDLE), *verdicts).reason is last
