"""Holds and passes: what ends a pass, how holds double, and what makes them forgotten."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.ledger import Ledger
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, FailedRun, MigrationOutcome
from balancerd.model.page_status import PageStatus
from tests.unit.fakes import MIB, N0, N1, make_run
from tests.unit.reports import an_eviction_outcome, an_outcome

PID = ProcessId(100, 1)
COOLDOWN = 10.0


def outcome(moved: int = 1000, failed: int = 0, **changes: Any) -> MigrationOutcome:
    passed_over = changes.pop("passed_over", {})
    made = an_outcome(PID, pages={PageStatus.MOVED: moved, PageStatus.BUSY: failed}, **changes)
    return replace(made, passed_over=passed_over)


def held(ledger: Ledger, now: float = 0.0) -> tuple[Reason, float] | None:
    hold = ledger.hold(PID, now)
    return None if hold is None else (hold.reason, hold.until - now)


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (outcome(), (Reason.COOLDOWN, 10)),
        (outcome(100, 900), (Reason.COOLDOWN, 10)),
        (outcome(99, 901), (Reason.QUARANTINE, 10)),
        (outcome(0, 0), (Reason.QUARANTINE, 10)),
        (outcome(99, 1, passed_over={PageStatus.NO_HUGE_PAGE: 900}), (Reason.QUARANTINE, 10)),
        (outcome(99, 413, passed_over={PageStatus.NO_HUGE_PAGE: 512}), (Reason.QUARANTINE, 10)),
        (outcome(100, 0, passed_over={PageStatus.NO_HUGE_PAGE: 512}), (Reason.COOLDOWN, 10)),
        (outcome(99, 1, passed_over={PageStatus.LEFT_ALONE: 9000}), (Reason.COOLDOWN, 10)),
        (outcome(resume_at=MIB), None),
        (outcome(resume_at=MIB, stopped_by=Reason.STOPPING), None),
        (outcome(resume_at=MIB, stopped_by=Reason.PRESSURE), None),
        (outcome(resume_at=MIB, stopped_by=Reason.CHANGED), None),
        (outcome(1, 0, resume_at=MIB, stopped_by=Reason.CHANGED), None),
        (outcome(0, 0, resume_at=MIB, stopped_by=Reason.CHANGED), (Reason.CHANGED, 10)),
        (outcome(resume_at=MIB, stopped_by=Reason.STALLED), (Reason.STALLED, 60)),
        (outcome(resume_at=MIB, stopped_by=Reason.NO_MEMORY), (Reason.NO_MEMORY, 10)),
        (outcome(stopped_by=Reason.EXITED), None),
        (outcome(0, 0, stopped_by=Reason.OBSERVE_MODE), None),
    ],
)
def test_what_a_step_leads_to(done: MigrationOutcome, expected: tuple[Reason, float] | None) -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record(done, 0.0)
    assert held(ledger) == expected
    goes_on = expected is None and done.stopped_by not in {Reason.EXITED, Reason.OBSERVE_MODE}
    assert ledger.moving() == ({PID} if goes_on else set())
    assert ledger.resume_at(PID, N0) == (MIB if goes_on else 0)


def test_a_pass_is_judged_by_all_of_its_steps_and_its_reasons_are_told() -> None:
    ledger = Ledger(COOLDOWN)
    first = outcome(1000, 0, resume_at=MIB)
    ledger.record(replace(first, step=replace(first.step, move_id=7)), 0.0)
    assert ledger.move_id(PID, N0) == 7
    assert ledger.move_id(PID, NodeId(1)) == 0
    last = outcome(0, 100, passed_over={PageStatus.NO_HUGE_PAGE: 512})
    ledger.record(replace(last, step=replace(last.step, resume_at=MIB)), 1.0)
    hold = ledger.hold(PID, 1.0)
    assert hold is not None
    assert hold.detail == "moved 3 MiB to node 0; left over: 100 pages ebusy, 512 pages no-huge-page"


@pytest.mark.parametrize("reason", [Reason.STALLED, Reason.PING_PONG])
def test_stalls_and_ping_pong_double_from_a_minute_to_an_hour_whatever_the_cooldown(reason: Reason) -> None:
    ledger, now, seconds = Ledger(COOLDOWN), 0.0, []
    for _ in range(8):
        if reason is Reason.STALLED:
            ledger.record(outcome(resume_at=MIB, stopped_by=Reason.STALLED), now)
        else:
            ledger.record_return(PID, (), ping_pong="told", now=now)
        hold = held(ledger, now)
        assert hold is not None
        assert hold[0] is reason
        seconds.append(hold[1])
        now += hold[1]
    assert seconds == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_pass_that_went_well_forgives_stalls_but_not_ping_pong() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record(outcome(resume_at=MIB, stopped_by=Reason.STALLED), 0.0)
    ledger.record_return(PID, (), ping_pong="told", now=0.0)
    ledger.record(outcome(), 100.0)
    ledger.record(outcome(resume_at=MIB, stopped_by=Reason.STALLED), 200.0)
    assert held(ledger, 200.0) == (Reason.STALLED, 60)
    ledger.record_return(PID, (), ping_pong="told", now=300.0)
    assert held(ledger, 300.0) == (Reason.PING_PONG, 120)
    ledger.stayed(PID)
    ledger.record_return(PID, (), ping_pong="told", now=500.0)
    assert held(ledger, 500.0) == (Reason.PING_PONG, 60)


def test_a_shorter_hold_does_not_end_a_longer_one() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record_return(PID, (), ping_pong="told", now=0.0)
    ledger.record(outcome(), 1.0)
    assert held(ledger, 30.0) == (Reason.PING_PONG, 30)


def test_runs_that_came_back_are_locked_without_a_hold() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record_return(PID, (make_run(0, 4),), ping_pong=None, now=0.0)
    assert held(ledger) is None
    assert [span.end for span in ledger.held_ranges(PID, 1.0)] == [4 * MIB]


def test_shared_pages_are_tried_again_once_they_may_be_moved() -> None:
    ledger = Ledger(COOLDOWN)
    runs = (
        FailedRun(start=0, end=4096, page_bytes=4096, status=PageStatus.SHARED),
        FailedRun(start=8 * MIB, end=8 * MIB + 4096, page_bytes=4096, status=PageStatus.LOCKED),
    )
    ledger.record(replace(outcome(), failed_runs=runs), 0.0)
    ledger.release_shared()
    assert [span.cause for span in ledger.held_ranges(PID, 1.0)] == ["eperm"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (Reason.COOLDOWN, 10)),
        ({"evicted_pages": 10, "kept_pages": 990}, (Reason.QUARANTINE, 10)),
        ({"evicted_pages": 0, "kept_pages": 1000, "cold_only": True}, (Reason.COOLDOWN, 10)),
        ({"resume_at": MIB}, None),
        ({"resume_at": MIB, "stopped_by": Reason.PRESSURE}, None),
        ({"stopped_by": Reason.NO_SWAP}, (Reason.NO_SWAP, 10)),
        ({"stopped_by": Reason.OBSERVE_MODE}, None),
        ({"stopped_by": Reason.EXITED}, None),
        ({"is_part": True}, None),
        ({"is_part": True, "resume_at": MIB}, None),
        ({"is_part": True, "evicted_pages": 0, "kept_pages": 0}, None),
        ({"is_part": True, "evicted_pages": 10, "kept_pages": 990}, (Reason.QUARANTINE, 10)),
    ],
)
def test_what_a_step_of_eviction_leads_to(changes: dict[str, Any], expected: tuple[Reason, float] | None) -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record_eviction(an_eviction_outcome(PID, **changes), 0.0)
    assert held(ledger) == expected
    assert ledger.eviction_resume_at(PID) == (changes.get("resume_at") or 0 if expected is None else 0)
    ledger.abandon_all_but(set(), set())
    assert ledger.eviction_resume_at(PID) == 0


def told(ledger: Ledger, now: float = 0.0) -> str:
    hold = ledger.hold(PID, now)
    return "" if hold is None else hold.detail


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"evicted_pages": 512, "kept_pages": 256}, "3 MiB evicted"),
        ({"evicted_pages": 0, "kept_pages": 768, "cold_only": True}, "3 MiB marked as cold"),
        ({"evicted_pages": 10, "kept_pages": 990}, "10 of 1000 pages could be evicted"),
        ({"evicted_pages": 100, "kept_pages": 900}, "100 of 1000 pages could be evicted"),
        ({"evicted_pages": 101, "kept_pages": 899}, "3 MiB evicted"),
    ],
)
def test_a_hold_tells_what_the_eviction_did(changes: dict[str, Any], detail: str) -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record_eviction(an_eviction_outcome(PID, **changes), 0.0)
    assert told(ledger) == detail


def evicted(resumed_at: int, **changes: Any) -> EvictionOutcome:
    made = an_eviction_outcome(PID, **changes)
    return replace(made, step=replace(made.step, resume_at=resumed_at))


@pytest.mark.parametrize(
    ("steps", "detail"),
    [
        pytest.param([(0, 1000, 0, False), (MIB, 1000, 48, False)], "8 MiB evicted", id="the steps of a pass are one"),
        pytest.param([(0, 30, 500, False), (MIB, 22, 0, False)], "52 of 552 pages could be evicted", id="few in all"),
        pytest.param([(0, 0, 5000, False), (0, 512, 0, False)], "2 MiB evicted", id="from the start is another pass"),
        pytest.param([(MIB, 512, 0, False)], "2 MiB evicted", id="in the middle of nothing that is known"),
        pytest.param(
            [(0, 950, 0, True), (MIB, 50, 0, False)], "50 of 1000 pages could be evicted", id="marked is not evicted"
        ),
    ],
)
def test_an_eviction_is_judged_by_all_steps_of_its_pass(steps: list[tuple[int, int, int, bool]], detail: str) -> None:
    ledger = Ledger(COOLDOWN)
    for number, (resumed_at, out, kept, cold_only) in enumerate(steps, 1):
        goes_on_at = None if number == len(steps) else MIB
        done = evicted(resumed_at, evicted_pages=out, kept_pages=kept, cold_only=cold_only, resume_at=goes_on_at)
        ledger.record_eviction(done, 0.0)
        assert ledger.eviction_resume_at(PID) == (goes_on_at or 0)
    assert told(ledger) == detail


@pytest.mark.parametrize(
    ("done", "detail"),
    [
        (outcome(512), "moved 2 MiB to node 0"),
        (outcome(512, 7), "moved 2 MiB to node 0; left over: 7 pages ebusy"),
        (outcome(0, 0), "nothing was found that could be moved"),
        (outcome(0, 5), "5 pages ebusy"),
    ],
)
def test_a_hold_tells_what_the_move_did(done: MigrationOutcome, detail: str) -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record(done, 0.0)
    assert told(ledger) == detail


def test_a_pass_that_begins_at_the_start_knows_nothing_of_the_one_before() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record(outcome(1000, 9000, resume_at=MIB), 0.0)
    ledger.record(outcome(256), 1.0)
    assert told(ledger, 1.0) == "moved 1 MiB to node 0"


def test_all_pages_that_a_pass_met_count_and_all_that_failed_are_told() -> None:
    ledger = Ledger(COOLDOWN)
    first, last = outcome(60, 540, resume_at=MIB), outcome(59, 541)
    ledger.record(first, 0.0)
    ledger.record(replace(last, step=replace(last.step, resume_at=MIB)), 0.0)
    assert held(ledger) == (Reason.QUARANTINE, 10)
    assert told(ledger) == "1081 pages ebusy"
    ledger.record(replace(first, pages={PageStatus.MOVED: 768}, submitted_pages=768), 50.0)
    ledger.record(replace(last, pages={PageStatus.MOVED: 768}, step=replace(last.step, resume_at=MIB)), 50.0)
    assert told(ledger, 50.0) == "moved 6 MiB to node 0"


def towards(target: int, move_id: int, *, is_part: bool = False, resume_at: int | None = None) -> MigrationOutcome:
    done = outcome(target=target, resume_at=resume_at)
    return replace(done, step=replace(done.step, move_id=move_id, is_part=is_part))


def test_a_pass_towards_another_node_ends_the_one_before() -> None:
    ledger = Ledger(COOLDOWN)
    assert ledger.record(towards(0, 7, resume_at=MIB), 0.0) == ()
    assert ledger.record(towards(0, 7, resume_at=2 * MIB), 1.0) == ()
    assert ledger.record(towards(1, 8, resume_at=MIB), 2.0) == (7,)
    assert (ledger.move_id(PID, N0), ledger.move_id(PID, N1), ledger.resume_at(PID, N0)) == (0, 8, 0)
    gone = replace(towards(0, 9), stopped_by=Reason.EXITED)
    assert ledger.record(gone, 3.0) == (8,)
    assert ledger.moving() == set()
    ledger.record(towards(1, 10, resume_at=MIB), 4.0)
    assert ledger.record(replace(towards(0, 11), stopped_by=Reason.OBSERVE_MODE), 5.0) == ()
    assert ledger.move_id(PID, N1) == 10


def test_parts_go_to_several_nodes_at_a_time_and_are_never_resumed() -> None:
    ledger = Ledger(COOLDOWN)
    assert ledger.record(towards(0, 7, is_part=True, resume_at=MIB), 0.0) == ()
    assert ledger.record(towards(1, 8, is_part=True), 1.0) == ()
    assert (ledger.move_id(PID, N0), ledger.move_id(PID, N1)) == (7, 8)
    assert (ledger.resume_at(PID, N0), held(ledger, 1.0)) == (0, None)
    assert ledger.abandon_all_but({PID}, set()) == ()
    assert ledger.abandon_all_but(set(), {PID}) == (7, 8)
    assert ledger.moving() == set()


def test_parts_that_moved_rest_unless_more_goes_to_the_same_node() -> None:
    ledger = Ledger(COOLDOWN)
    done = towards(0, 7, is_part=True)
    ledger.record(replace(done, moved_runs=(make_run(4 * MIB, 2),)), 0.0)
    assert [span.start for span in ledger.held_ranges(PID, 1.0, target=N1)] == [4 * MIB]
    assert ledger.held_ranges(PID, 1.0, target=N0) == ()
    assert ledger.held_ranges(PID, 1.0) == ()
    assert ledger.held_ranges(PID, 60.0, target=N1) == ()


@pytest.mark.parametrize(("target", "is_held"), [(0, True), (1, False), (2, True)])
def test_a_part_that_moved_may_go_on_to_no_other_node(target: int, *, is_held: bool) -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record(replace(towards(1, 7, is_part=True), moved_runs=(make_run(4 * MIB, 2, target=1),)), 0.0)
    assert bool(ledger.held_ranges(PID, 1.0, target=NodeId(target))) is is_held
    ledger.forget_all_but({PID})
    assert bool(ledger.held_ranges(PID, 1.0, target=NodeId(target))) is is_held
    ledger.forget_all_but(set())
    assert ledger.held_ranges(PID, 1.0, target=NodeId(target)) == ()


@pytest.mark.parametrize(
    ("done", "failed", "expected"),
    [
        pytest.param(outcome(0, 5), None, (Reason.QUARANTINE, "5 pages ebusy"), id="it would be asked for again"),
        pytest.param(outcome(0, 5), PageStatus.NO_MEMORY, (Reason.QUARANTINE, "5 pages ebusy"), id="so would it be"),
        pytest.param(outcome(0, 5), PageStatus.LOCKED, None, id="what failed is in quarantine"),
        pytest.param(outcome(1, 500), None, None, id="something moved"),
        pytest.param(outcome(0, 0), None, None, id="nothing was there"),
        pytest.param(outcome(0, 5, resume_at=MIB), None, None, id="the rest follows"),
    ],
)
def test_a_part_of_which_nothing_moved_makes_the_process_wait(
    done: MigrationOutcome, failed: PageStatus | None, expected: tuple[Reason, str] | None
) -> None:
    ledger = Ledger(COOLDOWN)
    runs = () if failed is None else (FailedRun(start=0, end=4096, page_bytes=4096, status=failed),)
    ledger.record(replace(done, step=replace(done.step, is_part=True), failed_runs=runs), 0.0)
    hold = ledger.hold(PID, 0.0)
    assert (None if hold is None else (hold.reason, hold.detail)) == expected


def test_a_process_rests_or_is_turned_down_for_as_long_as_the_cooldown() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.rest(PID, "told", 5.0)
    assert held(ledger, 6.0) == (Reason.COOLDOWN, 9.0)
    ledger.turn_down(PID, Reason.TARGET_FULL, "told", 15.0)
    assert held(ledger, 15.0) == (Reason.TARGET_FULL, 10.0)
    ledger.turn_down(PID, Reason.TARGET_FULL, "told", 25.0)
    assert held(ledger, 25.0) == (Reason.TARGET_FULL, 20.0)


def test_another_cooldown_counts_from_the_next_move_on() -> None:
    ledger = Ledger(COOLDOWN)
    ledger.record(outcome(), 0.0)
    ledger.set_cooldown(30.0)
    assert held(ledger) == (Reason.COOLDOWN, 10)
    ledger.record(outcome(), 20.0)
    assert held(ledger, 20.0) == (Reason.COOLDOWN, 30)


def test_who_is_gone_is_forgotten_and_his_move_told() -> None:
    ledger = Ledger(COOLDOWN)
    first = outcome(resume_at=MIB)
    ledger.record(replace(first, step=replace(first.step, move_id=7)), 0.0)
    ledger.record_return(PID, (make_run(0, 4),), ping_pong="told", now=0.0)
    assert ledger.forget_all_but({ProcessId(1, 1)}) == (7,)
    assert held(ledger) is None
    assert ledger.held_ranges(PID, 0.0) == ()
    ledger.record_return(PID, (), ping_pong="told", now=0.0)
    assert held(ledger) == (Reason.PING_PONG, 60)
