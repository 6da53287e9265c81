from dataclasses import replace

from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES
from balancerd.web.recent import KEPT, PastDecision, Recent
from tests.unit.reports import (
    a_decision,
    a_moving_report,
    a_process,
    a_process_report,
    a_report,
    an_eviction,
    an_eviction_outcome,
    an_outcome,
)


def kept(*told: object) -> tuple[PastDecision, ...]:
    """What is kept of some reports, one every two seconds."""
    recent = Recent()
    for number, report in enumerate(told):
        recent.add(report, 2.0 * number)  # type: ignore[arg-type]
    return recent.decisions()


def test_a_move_that_goes_on_is_one_line() -> None:
    (found,) = kept(a_moving_report(1), a_moving_report(2), a_moving_report(3))
    assert (found.comm, found.policy, found.action, found.target) == ("spin", "home", "move", 0)
    assert (found.ticks, found.done_bytes, found.failed_pages, found.last_at) == (3, 3000 * PAGE_BYTES, 72, 4.0)
    assert found.held_by is None


def test_after_a_rest_of_a_minute_it_is_another_one() -> None:
    recent = Recent()
    recent.add(a_moving_report(1), 0.0)
    recent.add(a_moving_report(2), 60.0)
    recent.add(a_moving_report(3), 120.1)
    (found,) = recent.decisions()
    assert (found.ticks, found.done_bytes) == (1, 1000 * PAGE_BYTES)


def test_what_turned_a_decision_down_is_told() -> None:
    process = a_process()
    report = a_report(
        processes=[a_process_report(process, verdicts=[a_decision(process.id)])],
        rejected=[Skip(by="plan", process=process.id, reason=Reason.TARGET_FULL, detail="node 0 has 3 MiB")],
    )
    (found,) = kept(report)
    assert (found.held_by, found.held_detail, found.done_bytes) == (Reason.TARGET_FULL, "node 0 has 3 MiB", 0)


def test_of_two_policies_that_want_one_process_each_has_its_own_end() -> None:
    process = a_process()
    wanted = [a_decision(process.id, policy="first"), a_decision(process.id, policy="second", target=1)]
    report = a_report(
        processes=[a_process_report(process, verdicts=wanted)],
        outcomes=[an_outcome(process.id, policy="first")],
        rejected=[Skip(by="plan", process=process.id, reason=Reason.CLAIMED)],
    )
    first, second = sorted(kept(report), key=lambda each: each.policy)
    assert (first.policy, first.done_bytes, first.held_by) == ("first", 1000 * PAGE_BYTES, None)
    assert (second.policy, second.done_bytes, second.held_by) == ("second", 0, Reason.CLAIMED)


def test_parts_of_a_process_with_one_target_are_one_line_and_count_once() -> None:
    process = a_process()
    wanted = [a_decision(process.id), a_decision(process.id), a_decision(process.id, target=1)]
    outcomes = [an_outcome(process.id), an_outcome(process.id), an_outcome(process.id, target=1)]
    found = kept(a_report(processes=[a_process_report(process, verdicts=wanted)], outcomes=outcomes))
    assert sum(each.done_bytes for each in found) == 3000 * PAGE_BYTES
    assert {each.target: each.done_bytes for each in found} == {0: 2000 * PAGE_BYTES, 1: 1000 * PAGE_BYTES}


def test_an_eviction_tells_what_left_memory() -> None:
    process = a_process()
    report = a_report(
        processes=[a_process_report(process, verdicts=[an_eviction(process.id)])],
        evictions=[an_eviction_outcome(process.id)],
    )
    (found,) = kept(report)
    assert (found.action, found.target, found.done_bytes) == ("evict", None, 900 * PAGE_BYTES)


def test_what_an_operator_asked_for_is_told_though_no_policy_wanted_it() -> None:
    process = ProcessId(9, 9)
    outcome = an_outcome(process, policy="operator")
    step = replace(outcome.step, reason=Reason.COMMAND)
    (found,) = kept(a_report(outcomes=[replace(outcome, step=step)]))
    assert (found.comm, found.policy, found.reason, found.done_bytes) == (None, "operator", Reason.COMMAND, 4096000)


def test_no_more_than_the_newest_are_kept() -> None:
    processes = [a_process(pid) for pid in range(1, 10_001)]
    report = a_report(processes=[a_process_report(p, verdicts=[a_decision(p.id)]) for p in processes])
    found = kept(report)
    assert [each.process.pid for each in found] == list(range(10_001 - KEPT, 10_001))


def test_of_too_many_those_are_kept_that_did_something() -> None:
    processes = [a_process(pid) for pid in range(1, 201)]
    report = a_report(
        processes=[a_process_report(p, verdicts=[a_decision(p.id)]) for p in processes],
        outcomes=[an_outcome(processes[0].id)],
    )
    found = kept(report)
    assert (len(found), found[-1].process.pid, found[-1].done_bytes) == (KEPT, 1, 4096000)


def test_many_ticks_with_a_few_decisions_each_leave_the_newest() -> None:
    told = [
        a_report(processes=[a_process_report(a_process(pid), verdicts=[a_decision(a_process(pid).id)])])
        for pid in range(1, 101)
    ]
    assert [each.process.pid for each in kept(*told)] == list(range(51, 101))


def test_skips_are_no_decisions() -> None:
    process = a_process()
    skip = Skip(by="select", process=process.id, reason=Reason.BELOW_MIN_CPU)
    assert kept(a_report(processes=[a_process_report(process, verdicts=[skip])])) == ()
