"""Holds and passes: what ends a pass, how holds double, and what makes them forgotten."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.ledger import Ledger
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import FailedRun, MigrationOutcome
from balancerd.model.page_status import PageStatus
from tests.unit.fakes import MIB, N0, make_run
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
        (outcome(100, 0, passed_over={PageStatus.NO_HUGE_PAGE: 512}), (Reason.COOLDOWN, 10)),
        (outcome(99, 1, passed_over={PageStatus.LEFT_ALONE: 9000}), (Reason.COOLDOWN, 10)),
        (outcome(resume_at=MIB), None),
        (outcome(resume_at=MIB, stopped_by=Reason.STOPPING), None),
        (outcome(resume_at=MIB, stopped_by=Reason.PRESSURE), None),
        (outcome(resume_at=MIB, stopped_by=Reason.CHANGED), None),
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
