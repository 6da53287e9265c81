"""What is worth remembering of a tick, under which number, and what belongs to which decision."""

from dataclasses import replace

from balancerd.engine import chronicle as chronicle_module
from balancerd.engine.chronicle import Chronicle
from balancerd.model.decision import Reason, Skip, Steer
from balancerd.model.event import Action, Event, EventKind
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.judged import MoveResult
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, ThreadFate
from tests.unit.reports import (
    MIB,
    a_decision,
    a_judged_move,
    a_moving_report,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    an_eviction,
    an_eviction_outcome,
    an_outcome,
)

PROCESS = a_process()


def a_wanting_report(number: int, *skips: Skip, target: int = 0, policies: tuple[str, ...] = ("home",)) -> TickReport:
    """Each policy wants process 4242 on the node `target`; the plan says `skips`."""
    verdicts = tuple(a_decision(PROCESS.id, policy=policy, target=target) for policy in policies)
    seen = a_process_report(PROCESS, verdicts=verdicts, placement=a_placement(PROCESS.id, {1: 1000.0, 2: 24.0}))
    return a_report(number=number, processes=(seen,), rejected=skips)


def a_skip(reason: Reason, detail: str = "") -> Skip:
    return Skip(by="plan", process=PROCESS.id, reason=reason, detail=detail)


def kinds(events: tuple[Event, ...]) -> list[str]:
    return [event.kind.value for event in events]


def test_a_decision_and_the_move_that_it_led_to_have_one_number() -> None:
    decision, move = Chronicle(first_id=70).of(a_moving_report(7))
    assert decision == Event(
        id=70,
        kind=EventKind.DECISION,
        tick=7,
        decision=70,
        policy="home",
        process=PROCESS.id,
        comm="spin",
        workload="spin.service",
        action=Action.MIGRATE,
        bytes_by_node={NodeId(1): 256 * MIB},
        target=NodeId(0),
        amount_bytes=256 * MIB,
        reason="misplaced",
        detail="home is node 0",
    )
    assert (move.id, move.decision, move.kind) == (71, 70, EventKind.MOVE)
    assert (move.bytes_by_node, move.amount_bytes) == ({NodeId(1): 1000 * PAGE_BYTES}, 1000 * PAGE_BYTES)
    assert move.counts == {"moved": 1000, "eacces": 24}


def test_who_asks_for_the_same_tick_again_gets_the_same_events() -> None:
    chronicle, report = Chronicle(), a_moving_report(7)
    assert chronicle.of(report) is chronicle.of(report)
    assert chronicle.of(a_report(number=8)) == ()


def test_what_a_policy_goes_on_wanting_is_one_decision() -> None:
    chronicle = Chronicle()
    assert kinds(chronicle.of(a_moving_report(1))) == ["decision", "move"]
    (second,) = chronicle.of(a_moving_report(2))
    assert (second.kind, second.decision) == (EventKind.MOVE, 1)


def test_what_was_not_wanted_for_a_tick_or_goes_elsewhere_is_decided_anew() -> None:
    chronicle = Chronicle()
    assert kinds(chronicle.of(a_wanting_report(1))) == ["decision"]
    assert chronicle.of(a_wanting_report(2)) == ()
    (elsewhere,) = chronicle.of(a_wanting_report(3, target=3))
    assert (elsewhere.id, elsewhere.target) == (2, 3)
    assert elsewhere.bytes_by_node == {NodeId(1): 1000 * PAGE_BYTES, NodeId(2): 24 * PAGE_BYTES}
    chronicle.of(a_report(number=4))
    (again,) = chronicle.of(a_wanting_report(5, target=3))
    assert (again.id, again.decision) == (3, 3)


def test_what_lies_on_the_target_already_is_not_to_move() -> None:
    (event,) = Chronicle().of(a_wanting_report(1, target=2))
    assert event.bytes_by_node == {NodeId(1): 1000 * PAGE_BYTES}


def test_why_a_decision_is_held_is_told_when_the_reason_changes() -> None:
    chronicle = Chronicle()
    assert kinds(chronicle.of(a_wanting_report(1, a_skip(Reason.COOLDOWN)))) == ["decision", "held"]
    assert chronicle.of(a_wanting_report(2, a_skip(Reason.COOLDOWN, "18 s left"))) == ()
    (held,) = chronicle.of(a_wanting_report(3, a_skip(Reason.TARGET_FULL)))
    assert (held.decision, held.reason, held.amount_bytes) == (1, "target-full", None)
    chronicle.of(a_moving_report(4))
    assert kinds(chronicle.of(a_wanting_report(5, a_skip(Reason.TARGET_FULL)))) == ["held"]  # after a move it is news


def test_what_is_only_observed_is_held_and_told_once() -> None:
    chronicle = Chronicle()

    def observed(number: int) -> TickReport:
        outcome = an_outcome(PROCESS.id, pages={}, moved_from={}, stopped_by=Reason.OBSERVE_MODE)
        return replace(a_wanting_report(number), outcomes=(outcome,))

    assert [event.reason for event in chronicle.of(observed(1))] == ["misplaced", "observe-mode"]
    assert chronicle.of(observed(2)) == ()


def test_of_two_policies_each_is_held_for_its_own_reason() -> None:
    report = a_wanting_report(
        1,
        Skip(by="tick", process=PROCESS.id, reason=Reason.OBSERVE_MODE, detail="policy trial; home is node 0"),
        a_skip(Reason.CLAIMED),
        policies=("home", "trial"),
    )
    held = [event for event in Chronicle().of(report) if event.kind is EventKind.HELD]
    assert [(event.policy, event.reason) for event in held] == [("trial", "observe-mode"), ("home", "claimed")]


def test_what_the_plan_turns_down_is_not_about_what_has_moved() -> None:
    report = a_wanting_report(1, a_skip(Reason.CLAIMED), policies=("first", "home"))
    report = replace(report, outcomes=(an_outcome(PROCESS.id, policy="first"),))
    events = Chronicle().of(report)
    assert [(e.kind.value, e.policy) for e in events[2:]] == [("move", "first"), ("held", "home")]


def test_a_skip_of_a_process_that_nobody_wants_to_move_is_no_event() -> None:
    assert Chronicle().of(a_report(rejected=(a_skip(Reason.COOLDOWN),))) == ()


def test_parts_of_a_process_that_go_to_one_node_are_one_decision() -> None:
    parts = [
        replace(a_decision(PROCESS.id, misplaced_bytes=MIB), source_bytes={NodeId(2): MIB}),
        replace(a_decision(PROCESS.id, misplaced_bytes=MIB), source_bytes={NodeId(1): MIB}),
    ]
    (event,) = Chronicle().of(a_report(processes=(a_process_report(PROCESS, verdicts=parts),)))
    assert (event.amount_bytes, event.bytes_by_node) == (2 * MIB, {NodeId(1): MIB, NodeId(2): MIB})


def test_of_a_decision_with_sources_only_these_are_told() -> None:
    wanted = replace(a_decision(PROCESS.id), sources=frozenset({NodeId(2)}))
    seen = a_process_report(PROCESS, verdicts=(wanted,), placement=a_placement(PROCESS.id, {1: 1000.0, 2: 24.0}))
    (event,) = Chronicle().of(a_report(processes=(seen,)))
    assert event.bytes_by_node == {NodeId(2): 24 * PAGE_BYTES}


def test_a_move_that_ended_early_says_so() -> None:
    outcome = replace(an_outcome(PROCESS.id, stopped_by=Reason.NO_MEMORY), detail="node 0 is full")
    (event,) = Chronicle().of(a_report(outcomes=(outcome,)))
    assert (event.reason, event.detail) == ("misplaced", "ended: no-memory; node 0 is full")


def test_an_operators_command_is_a_move_without_a_decision() -> None:
    outcome = an_outcome(PROCESS.id, policy="command")
    (event,) = Chronicle().of(
        a_report(outcomes=(replace(outcome, step=replace(outcome.step, move_id=9, reason=Reason.COMMAND)),))
    )
    assert (event.decision, event.move, event.reason, event.comm, event.workload) == (None, 9, "command", None, None)


def test_an_eviction_tells_what_left_memory() -> None:
    seen = a_process_report(PROCESS, verdicts=(an_eviction(PROCESS.id),))
    report = a_report(processes=(seen,), evictions=(an_eviction_outcome(PROCESS.id),))
    decision, done = Chronicle().of(report)
    assert (decision.action, decision.amount_bytes, decision.target) == (Action.EVICT, 256 * MIB, None)
    assert (done.kind, done.amount_bytes, done.decision) == (EventKind.EVICTION, 900 * PAGE_BYTES, decision.id)
    assert done.counts == {"advised": 1000, "evicted": 900, "kept": 100}


def test_threads_that_were_moved_are_counted_by_fate_and_those_that_stay_are_no_event() -> None:
    step = SteerStep(
        policy="gather", process=PROCESS.id, target=NodeId(1), cpus=frozenset({CpuId(2)}), kind=SteerKind.PIN
    )
    wanted = Steer(
        policy="gather", process=PROCESS.id, target=NodeId(1), cpus=step.cpus, gain_cores=0.1, cost_seconds=0.1
    )
    seen = a_process_report(PROCESS, verdicts=(wanted,))
    chronicle = Chronicle()
    moved = SteerOutcome(step=step, threads={ThreadFate.PINNED: 3, ThreadFate.THERE: 1})
    decision, done = chronicle.of(replace(a_report(processes=(seen,)), steers=(moved,)))
    assert (decision.action, decision.amount_bytes) == (Action.STEER, None)
    assert (done.kind, done.counts, done.amount_bytes) == (EventKind.THREADS, {"pinned": 3, "there": 1}, None)
    stays = SteerOutcome(step=step, threads={ThreadFate.THERE: 4})
    assert chronicle.of(replace(a_report(processes=(seen,)), steers=(stays,))) == ()
    let_go = SteerOutcome(step=replace(step, kind=SteerKind.RELEASE), threads={ThreadFate.RESTORED: 3})
    (last,) = chronicle.of(replace(a_report(), steers=(let_go,)))
    assert (last.detail, last.decision) == ("let go", decision.id)


def test_what_a_move_came_to_is_told_with_its_decision_after_that_has_ended() -> None:
    chronicle = Chronicle()
    chronicle.of(a_moving_report(1))
    chronicle.of(a_report(number=2))
    judged = a_judged_move(PROCESS.id, result=MoveResult.WORSE, is_trial=True)
    (event,) = chronicle.of(a_report(number=3, judged=(judged,)))
    assert (event.kind, event.decision, event.reason) == (EventKind.RESULT, 1, "worse")
    assert event.detail.startswith("on trial")
    assert event.amount_bytes == 256 * MIB


def test_what_is_remembered_of_past_decisions_is_bounded() -> None:
    chronicle = Chronicle()
    most = chronicle_module.MOST_REMEMBERED
    for number in range(3):
        pids = range(number * most // 2 + 1, (number + 1) * most // 2 + 1)
        seen = [a_process_report(process, verdicts=(a_decision(process.id),)) for process in map(a_process, pids)]
        chronicle.of(a_report(number=number, processes=seen))
    assert len(chronicle._past) == most
    assert len(chronicle._open) == most // 2


def test_pages_that_stay_with_any_status_are_a_move_that_moved_nothing() -> None:
    outcome = an_outcome(PROCESS.id, pages={PageStatus.BUSY: 5}, moved_from={})
    (event,) = Chronicle().of(a_report(outcomes=(outcome,)))
    assert (event.kind, event.amount_bytes, event.counts) == (EventKind.MOVE, 0, {"ebusy": 5})
