"""A part first, the rest once that has stayed; back with what has not; and what is remembered of both."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.tick import Engine
from balancerd.engine.trust import MOST_PROGRAMS, MOST_RETURNS, Reviewed, Trust
from balancerd.model.decision import Decision, Reason
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.interval import Interval
from balancerd.model.judged import JudgedMove, MoveResult
from balancerd.model.migration import MigrationOutcome, MigrationStep, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, Snapshot
from tests.unit.engine.test_tick import Run, Wanting
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N1,
    N2,
    VMA_START,
    make_placement,
    make_process,
    make_run,
    make_snapshot,
    make_survey,
    make_verified,
)

PID = ProcessId(100, 1)
COOLDOWN = 20.0


def wanting(mib: float, *, pid: int = 100, target: int = 0, policy: str = "home", **changes: object) -> Decision:
    decision = Decision(
        policy=policy,
        process=ProcessId(pid, 1),
        target=NodeId(target),
        misplaced_bytes=round(mib * MIB),
        gain_cores=0.1,
        cost_seconds=1.0,
    )
    return replace(decision, **changes)  # type: ignore[arg-type]


def look(
    at: float, mib: dict[int, float], *, placed_at: float | None = None, process: ProcessSample | None = None
) -> Snapshot:
    """What is known at a time: exact, so that a test need not reckon with errors."""
    its = process or make_process()
    placement = make_placement(mib, pid=its.id.pid, taken_at=at if placed_at is None else placed_at)
    return make_snapshot(make_survey(its, at=at), replace(placement, exact=True))


def moved(decision: Decision, mib: float, *, resume: bool = True, **changes: object) -> MigrationOutcome:
    pages = round(mib * MIB / PAGE_BYTES)
    outcome = MigrationOutcome(
        step=MigrationStep(
            policy=decision.policy,
            process=decision.process,
            target=decision.target,
            ranges=(Range(start=VMA_START, end=VMA_START + 64 * GIB, page_bytes=PAGE_BYTES),),
            resume_at=0,
            budget_bytes=GIB,
            budget_seconds=1.0,
            reason=decision.reason,
        ),
        looked_pages=pages,
        on_target_pages=0,
        passed_over={},
        submitted_pages=pages,
        pages={PageStatus.MOVED: pages},
        moved_from={N2: pages},
        call_seconds=(0.1,),
        query_seconds=0.0,
        batch_pages=512,
        resume_at=VMA_START + round(mib * MIB) if resume else None,
        moved_runs=(make_run(VMA_START, mib, source=2, target=decision.target),),
    )
    return replace(outcome, **changes)  # type: ignore[arg-type]


def trusting(*, canary: bool = True) -> Trust:
    return Trust(COOLDOWN, canary=canary)


def most(reviewed: Reviewed) -> int | None:
    (decision,) = reviewed.wanted
    assert isinstance(decision, Decision)
    return decision.most_bytes


def test_the_first_move_is_made_in_three_parts_each_when_the_one_before_has_stayed() -> None:
    trust, held = trusting(), {2: 4096.0, 0: 0.0}
    parts = []
    for tick in range(4):
        reviewed = trust.review(look(2.0 * tick, held), [wanting(held[2])])
        parts.append(most(reviewed))
        step = 1e9 if parts[-1] is None else parts[-1] / MIB
        step = min(step, 1024)
        held = {2: held[2] - step, 0: held[0] + step}
        trust.note(moved(wanting(0), step), 2.0 * tick + 1.0)
    assert [None if part is None else round(part / MIB) for part in parts] == [205, 819, None, None]


@pytest.mark.parametrize(
    ("decision", "canary", "part"),
    [
        (wanting(1024), True, 64 * MIB),
        (wanting(2048), True, round(0.05 * 2048 * MIB)),
        (wanting(64), True, None),
        (wanting(1024), False, None),
        *[
            (wanting(1024, reason=reason), True, None)
            for reason in (Reason.RULE, Reason.CPUSET, Reason.DRAIN, Reason.COMMAND)
        ],
        (wanting(1024, extents=(Extent(VMA_START, VMA_START + GIB),)), True, None),
    ],
)
def test_what_is_small_ordered_or_a_part_already_is_not_tried_first(
    decision: Decision, *, canary: bool, part: int | None
) -> None:
    assert most(trusting(canary=canary).review(look(0.0, {2: 2048.0}), [decision])) == part


def after_a_part(
    held: dict[int, float], *, trust: Trust | None = None, placed_at: float = 2.0, **outcome: Any
) -> tuple[Trust, Reviewed]:
    """64 of 1024 MiB have moved, and then it lies like this."""
    trust = trust or trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    trust.note(moved(wanting(1024), 64, **outcome), 1.0)
    return trust, trust.review(look(2.0, held, placed_at=placed_at), [wanting(held.get(2, 0.0))])


@pytest.mark.parametrize(
    ("held", "has_stayed"),
    [
        ({2: 960.0, 0: 64.0}, True),
        ({2: 972.0, 0: 52.0}, True),  # 52 of 64 MiB are 81 %
        ({2: 974.0, 0: 50.0}, False),
        ({2: 1024.0}, False),
        ({2: 1100.0, 0: 64.0}, True),  # it has grown meanwhile, where it lies
    ],
)
def test_the_next_look_says_whether_a_part_has_stayed(held: dict[int, float], *, has_stayed: bool) -> None:
    _, reviewed = after_a_part(held)
    if has_stayed:
        assert (most(reviewed), reviewed.judged, reviewed.skips) == (192 * MIB, (), ())
    else:
        (judged,) = reviewed.judged
        assert (judged.result, judged.is_trial, judged.moved_bytes) == (MoveResult.WORSE, True, 64 * MIB)


def test_a_part_is_being_tried_from_its_move_until_it_is_judged() -> None:
    trust = trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    assert trust.tried_at is None
    trust.note(moved(wanting(1024), 0), 0.5)
    assert trust.tried_at is None
    trust.note(moved(wanting(1024), 64), 1.0)
    assert trust.tried_at == 1.0
    trust.review(look(2.0, {2: 960.0, 0: 64.0}), [wanting(960)])
    trust.note(moved(wanting(960), 192), 3.0)
    assert trust.tried_at == 3.0
    trust.review(look(4.0, {2: 768.0, 0: 256.0}), [wanting(768)])
    trust.note(moved(wanting(768), 512), 5.0)
    assert trust.tried_at is None  # nothing holds up the rest


def test_a_part_that_did_not_stay_goes_back_and_the_policy_waits() -> None:
    trust, reviewed = after_a_part({2: 1024.0})
    (back,) = reviewed.wanted
    assert isinstance(back, Decision)
    assert (back.policy, back.target, back.reason) == ("home", N2, Reason.ROLLBACK)
    assert (back.sources, back.source_bytes) == (frozenset({N0}), {N0: 64 * MIB})
    assert back.extents == (Extent(VMA_START, VMA_START + 64 * MIB),)
    assert [skip.reason for skip in reviewed.skips] == [Reason.NOT_TRUSTED]
    trust.note(moved(back, 64, resume=False), 3.0)
    later = trust.review(look(4.0, {2: 1024.0}), [wanting(1024)])
    assert later.wanted == ()
    assert later.skips[0].needs == "38 s more of rest"
    assert most(trust.review(look(42.0, {2: 1024.0}), [wanting(1024)])) == 64 * MIB


def test_what_goes_back_and_who_waits_is_told_with_what_was_found() -> None:
    _, reviewed = after_a_part({2: 1014.0, 0: 10.0})
    told = "10 of 64 MiB moved to node 0 are there"
    (judged,), (back,), (skip,) = reviewed.judged, reviewed.wanted, reviewed.skips
    assert isinstance(back, Decision)
    assert (judged.detail, judged.fallen_bytes, judged.at) == (told, 10 * MIB, 2.0)
    assert (judged.process, judged.policy, judged.target) == (PID, "home", N0)
    assert (back.detail, back.gain_cores, back.cost_seconds, back.misplaced_bytes) == (told, 0.0, 0.0, 64 * MIB)
    assert (skip.detail, skip.by) == ("what was moved goes back first", "plan")


def test_a_policy_that_waits_is_told_for_how_long_and_why() -> None:
    trust, _ = after_a_part({2: 1014.0, 0: 10.0})
    trust.note(moved(wanting(64, target=2, reason=Reason.ROLLBACK), 64, resume=False), 3.0)
    (skip,) = trust.review(look(12.0, {2: 1024.0}), [wanting(1024)]).skips
    assert skip.detail == "policy home: 10 of 64 MiB moved to node 0 are there; again in 30 s"


@pytest.mark.parametrize("to", [1, 2])
def test_only_steps_to_the_target_of_the_move_count(to: int) -> None:
    trust = trusting()
    trust.review(look(0.0, {3: 1024.0}), [wanting(1024, target=1 if to == 2 else 2)])
    trust.note(moved(wanting(1024, target=to), 64), 1.0)
    assert trust.review(look(2.0, {3: 1024.0}), [wanting(1024, target=1 if to == 2 else 2)]).judged == ()


def test_steps_over_parts_are_not_judged() -> None:
    trust = trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    step = moved(wanting(1024), 64)
    trust.note(replace(step, step=replace(step.step, is_part=True)), 1.0)
    assert trust.review(look(2.0, {2: 1024.0}), [wanting(1024)]).judged == ()


@pytest.mark.parametrize(
    ("held", "run", "detail"),
    [
        ({0: 1024.0}, {1: 1.0, 0: 2.0}, "1024 of 1024 MiB moved to node 0 are there"),
        ({0: 1024.0}, {0: 1.0, 1: 2.0}, "1024 of 1024 MiB moved to node 0 are there; it runs elsewhere now"),
        ({0: 900.0, 2: 124.0}, {0: 2.0}, "900 of 1024 MiB moved to node 0 are there"),
    ],
)
def test_a_judgement_tells_how_much_is_there(held: dict[int, float], run: dict[int, float], detail: str) -> None:
    (judged,) = finished(trusting(), held, make_process(run=run))
    assert judged.detail == detail


def test_a_part_that_may_move_is_no_larger_than_the_policy_asks_for() -> None:
    assert most(trusting().review(look(0.0, {2: 1024.0}), [wanting(1024, most_bytes=10 * MIB)])) == 10 * MIB
    assert most(trusting().review(look(0.0, {2: 1024.0}), [wanting(1024, most_bytes=65 * MIB)])) == 64 * MIB


@pytest.mark.parametrize(("mib", "part"), [(57.0, 7 * MIB), (58.0, 198 * MIB), (64 - 1 / 256, 192 * MIB + 4096)])
def test_nine_tenths_of_a_part_are_enough_for_the_next_and_the_rest_counts(mib: float, part: int) -> None:
    trust = trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    trust.note(moved(wanting(1024), mib), 1.0)
    assert most(trust.review(look(2.0, {2: 1024.0 - mib, 0: mib}), [wanting(1024)])) == part


def test_what_lies_on_other_nodes_than_those_it_was_taken_from_says_nothing_of_the_move() -> None:
    trust, wanted = trusting(), wanting(64, sources=frozenset({N2}))
    trust.review(look(0.0, {1: 500.0, 2: 64.0}), [wanted])
    trust.note(moved(wanted, 64, resume=False), 1.0)
    (judged,) = trust.review(look(2.0, {1: 500.0, 0: 64.0}), []).judged
    assert (judged.result, judged.fallen_bytes) == (MoveResult.IMPROVED, 64 * MIB)


def test_other_processes_are_judged_on_when_one_is_moved_by_somebody_else() -> None:
    for others in (99, 101):
        trust, other = trusting(), make_process(others)
        trust.review(look(0.0, {2: 1024.0}, process=other), [wanting(1024, pid=others)])
        trust.note(moved(wanting(1024, pid=others), 64), 1.0)
        trust.forget_moves(PID)
        (judged,) = trust.review(look(2.0, {2: 1024.0}, process=other), [wanting(1024, pid=others)]).judged
        assert judged.result is MoveResult.WORSE


def test_trust_in_other_processes_stays_when_that_in_one_is_revoked_or_one_is_gone() -> None:
    trust = trusting()
    for pid in (99, 100, 101):
        finished(trust, {0: 1024.0}, make_process(pid, cgroup=f"/{pid}"))
    trust.revoke(PID)
    assert trust._trusted == {(ProcessId(99, 1), "home"), (ProcessId(101, 1), "home")}
    trust.forget_all_but({ProcessId(101, 1)})
    assert trust._trusted == {(ProcessId(101, 1), "home")}


def test_of_many_programs_that_were_moved_well_the_oldest_is_forgotten() -> None:
    trust = trusting()
    for number in range(MOST_PROGRAMS + 1):
        finished(trust, {0: 1024.0}, make_process(1000 + number, comm=f"program{number}"))
    for number, part in ((1, None), (0, 64 * MIB)):
        process = make_process(7000 + number, comm=f"program{number}")
        reviewed = trust.review(look(10.0, {2: 1024.0}, process=process), [wanting(1024, pid=7000 + number)])
        assert most(reviewed) == part


def test_only_processes_of_which_all_must_wait_do_not_go_on() -> None:
    trust, _ = after_a_part({2: 1024.0})
    for at in (3.0, 4.0, 5.0):
        trust.review(look(at, {2: 1024.0}), [])
    waiting, other, unheard = wanting(1024), wanting(1024, policy="other"), wanting(1024, pid=7)
    alone = trust.review(look(6.0, {2: 1024.0}), [waiting])
    assert alone.without_waiting([waiting, unheard]) == [unheard]
    both = trust.review(look(6.0, {2: 1024.0}), [waiting, other])
    assert both.without_waiting([waiting, other, unheard]) == [waiting, other, unheard]


@pytest.mark.parametrize(
    ("before", "after", "is_refuted"), [(0.03, 0.018, True), (0.03, 0.022, False), (0.0, 0.051, False)]
)
def test_both_looks_may_err(before: float, after: float, *, is_refuted: bool) -> None:
    def may_err(at: float, half_width: float) -> Snapshot:
        placement = make_placement({2: 1024.0}, taken_at=at)
        placement = replace(placement, intervals={N0: Interval(0.0, 2 * half_width)})
        return make_snapshot(make_survey(make_process(), at=at), placement)

    trust = trusting()
    trust.review(may_err(0.0, before), [wanting(1024)])
    trust.note(moved(wanting(1024), 64), 1.0)
    assert bool(trust.review(may_err(2.0, after), [wanting(1024)]).judged) is is_refuted


def test_what_comes_from_several_nodes_goes_back_to_each() -> None:
    trust = trusting()
    trust.review(look(0.0, {1: 512.0, 2: 512.0}), [wanting(1024)])
    runs = (make_run(VMA_START, 40, source=2), make_run(VMA_START + GIB, 24, source=1))
    trust.note(moved(wanting(1024), 64, moved_runs=runs), 1.0)
    first, second = trust.review(look(2.0, {1: 512.0, 2: 512.0}), [wanting(1024)]).wanted
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert [(each.target, each.misplaced_bytes) for each in (first, second)] == [(N1, 24 * MIB), (N2, 40 * MIB)]
    trust.note(moved(first, 24, resume=False), 3.0)
    assert len(trust.review(look(4.0, {1: 536.0, 2: 488.0}), []).wanted) == 2, "one of two is back"


def test_what_is_lost_after_its_parts_had_stayed_is_judged_and_not_put_back() -> None:
    trust, held = trusting(), 0.0
    for tick, mib in enumerate((64.0, 192.0, 768.0)):
        now = look(2.0 * tick, {2: 1024.0 - held, 0: held})
        assert trust.review(now, [wanting(1024 - held)]).judged == ()
        trust.note(moved(wanting(1024), mib, resume=tick < 2), 2.0 * tick + 1.0)
        held += mib
    reviewed = trust.review(look(6.0, {2: 1000.0, 0: 24.0}), [wanting(1000)])
    assert [(judged.result, judged.is_trial) for judged in reviewed.judged] == [(MoveResult.WORSE, False)]
    assert reviewed.wanted == ()


def test_what_cannot_go_back_is_given_up_after_a_few_ticks() -> None:
    trust, reviewed = after_a_part({2: 1024.0})
    tries = 0
    while reviewed.wanted:
        tries += 1
        reviewed = trust.review(look(2.0 + tries, {2: 1024.0}), [wanting(1024)])
    assert tries == MOST_RETURNS


def test_distrust_doubles_and_ends_with_a_move_that_stayed() -> None:
    trust, waits = trusting(), []
    at = 0.0
    for _ in range(3):
        trust.review(look(at, {2: 32.0}), [wanting(32)])
        trust.note(moved(wanting(32), 32, resume=False), at + 1.0)
        assert trust.review(look(at + 2.0, {2: 32.0}), []).judged[0].result is MoveResult.WORSE
        waits.append(float(trust.review(look(at + 2.0, {2: 32.0}), [wanting(32)]).skips[0].needs.split()[0]))
        at += 2.0 + waits[-1]
    assert waits == [40.0, 80.0, 160.0]
    trust.review(look(at, {2: 32.0}), [wanting(32)])
    trust.note(moved(wanting(32), 32, resume=False), at + 1.0)
    assert trust.review(look(at + 2.0, {0: 32.0}), []).judged[0].result is MoveResult.IMPROVED
    trust.review(look(at + 4.0, {2: 32.0}), [wanting(32)])
    trust.note(moved(wanting(32), 32, resume=False), at + 5.0)
    trust.review(look(at + 6.0, {2: 32.0}), [])
    assert trust.review(look(at + 6.0, {2: 32.0}), [wanting(32)]).skips[0].needs == "40 s more of rest"


def test_another_policy_is_not_held_up_by_the_distrust_of_one() -> None:
    trust, _ = after_a_part({2: 1024.0})
    trust.note(moved(wanting(64, target=2, reason=Reason.ROLLBACK), 64, resume=False), 3.0)
    reviewed = trust.review(look(4.0, {2: 1024.0}), [wanting(1024), wanting(1024, policy="other")])
    assert [each.policy for each in reviewed.wanted] == ["other"]


def finished(trust: Trust, held: dict[int, float], process: ProcessSample | None = None) -> tuple[JudgedMove, ...]:
    its = process or make_process()
    wanted = wanting(1024, pid=its.id.pid)
    trust.review(look(0.0, {2: 1024.0}, process=its), [wanted])
    trust.note(moved(wanted, 1024, resume=False), 1.0)
    return trust.review(look(2.0, held, process=its), []).judged


@pytest.mark.parametrize(
    ("held", "run", "result"),
    [
        ({0: 1024.0}, {0: 2.0}, MoveResult.IMPROVED),
        ({0: 1024.0}, {1: 2.0}, MoveResult.NEUTRAL),
        ({0: 1024.0}, {}, MoveResult.IMPROVED),
        ({2: 500.0, 0: 524.0}, {0: 2.0}, MoveResult.WORSE),
        ({2: 500.0, 0: 524.0}, {1: 2.0}, MoveResult.WORSE),
    ],
)
def test_a_move_that_is_over_is_judged_by_where_its_pages_are_and_where_it_runs(
    held: dict[int, float], run: dict[int, float], result: MoveResult
) -> None:
    (judged,) = finished(trusting(), held, make_process(run=run))
    assert (judged.result, judged.moved_bytes, judged.fallen_bytes) == (
        result,
        GIB,
        GIB - round(held.get(2, 0.0) * MIB),
    )


def test_after_a_move_that_helped_the_same_process_and_others_of_its_program_are_moved_at_once() -> None:
    trust = trusting()
    finished(trust, {0: 1024.0}, make_process(comm="db", cgroup="/a"))
    for process, part in (
        (make_process(comm="db", cgroup="/a"), None),
        (make_process(200, comm="db", cgroup="/a"), None),
        (make_process(201, comm="db", cgroup="/b"), 64 * MIB),
        (make_process(202, comm="other", cgroup="/a"), 64 * MIB),
    ):
        wanted = wanting(1024, pid=process.id.pid)
        assert most(trust.review(look(10.0, {2: 1024.0}, process=process), [wanted])) == part
    other = wanting(1024, pid=200, policy="other")
    assert most(trust.review(look(10.0, {2: 1024.0}, process=make_process(200)), [other])) == 64 * MIB


def test_a_process_on_trial_goes_on_at_once_when_another_of_its_program_has_been_moved_well() -> None:
    trust, second = trusting(), make_process(200)
    assert most(trust.review(look(0.0, {2: 1024.0}, process=second), [wanting(1024, pid=200)])) == 64 * MIB
    trust.note(moved(wanting(1024, pid=200), 32), 1.0)
    finished(trust, {0: 1024.0})
    assert most(trust.review(look(3.0, {2: 992.0, 0: 32.0}, process=second), [wanting(992, pid=200)])) is None


def test_trust_is_gone_when_what_was_moved_came_back_later() -> None:
    trust = trusting()
    finished(trust, {0: 1024.0}, make_process(cgroup="/a"))
    again = look(10.0, {2: 1024.0}, process=make_process(cgroup="/elsewhere"))
    assert most(trust.review(again, [wanting(1024)])) is None  # the process is trusted, wherever it is put
    trust.revoke(PID)
    assert most(trust.review(again, [wanting(1024)])) == 64 * MIB


@pytest.mark.parametrize(("verified", "goes_on"), [(None, True), ((256, 0), True), ((256, 100), False)])
def test_without_a_new_look_the_movers_own_word_counts(verified: tuple[int, int] | None, *, goes_on: bool) -> None:
    found = None if verified is None else make_verified(*verified)
    _, reviewed = after_a_part({2: 1024.0}, placed_at=0.5, verified=found)
    if goes_on:
        assert most(reviewed) == 192 * MIB
    else:
        assert [judged.result for judged in reviewed.judged] == [MoveResult.WORSE]


def sampled(half_width: float | None) -> PlacementSample:
    placement = make_placement({2: 1024.0}, taken_at=2.0)
    if half_width is None:
        return replace(placement, present_pages=256)
    return replace(placement, intervals={N0: Interval(0.0, 2 * half_width)})


@pytest.mark.parametrize(("half_width", "is_refuted"), [(0.001, True), (0.06, False), (None, False)])
def test_what_a_sample_cannot_tell_for_sure_refutes_nothing(half_width: float | None, *, is_refuted: bool) -> None:
    trust = trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    trust.note(moved(wanting(1024), 64), 1.0)
    now = make_snapshot(make_survey(make_process(), at=2.0), sampled(half_width))
    assert bool(trust.review(now, [wanting(1024)]).judged) is is_refuted


def test_another_target_is_another_move_and_steps_in_observe_mode_are_none() -> None:
    trust = trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    trust.note(moved(wanting(1024), 64), 1.0)
    (other,) = trust.review(look(2.0, {2: 960.0, 0: 64.0}), [wanting(1024, target=1)]).wanted
    assert isinstance(other, Decision)
    assert other.most_bytes == 64 * MIB
    trust.note(moved(wanting(1024, target=1), 0, stopped_by=Reason.OBSERVE_MODE), 3.0)
    assert trust.review(look(4.0, {2: 1024.0}), []).judged == ()


@pytest.mark.parametrize("by", ["other", "command"])
def test_what_another_policy_or_an_operator_moves_meanwhile_is_no_fault_of_the_policy_on_trial(by: str) -> None:
    memory = a_run(1024).memory
    trust = memory.trust
    trust.obey(COOLDOWN, canary=True)
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    trust.note(moved(wanting(1024), 64), 1.0)
    note = memory.record if by == "other" else memory.record_command
    note(moved(wanting(1024, policy=by, target=2, reason=Reason.CPUSET), 64, resume=False), 1.5)
    reviewed = trust.review(look(2.0, {2: 1024.0}), [wanting(1024)])
    assert (reviewed.judged, most(reviewed)) == ((), 64 * MIB)


def test_a_rule_that_waits_for_a_pause_keeps_its_process() -> None:
    memory = a_run(1024).memory
    full = moved(wanting(1), 0, pages={PageStatus.NO_MEMORY: 10}, moved_from={}, moved_runs=())
    memory.pause.note(full, 1.0)
    rule = wanting(1024, policy="fixed", reason=Reason.RULE, holds=True)
    reviewed = memory.review(look(2.0, {2: 1024.0}), [rule, wanting(1024)])
    assert [(skip.reason, skip.by) for skip in reviewed.skips] == [(Reason.PAUSED, "plan")] * 2
    assert [(skip.reason, skip.by, skip.holds) for skip in reviewed.kept] == [(Reason.PAUSED, "fixed", True)]


@pytest.mark.parametrize(("later", "judged"), [(60.0, 1), (60.1, 0)])
def test_a_move_that_nobody_could_look_at_for_long_is_not_judged(later: float, judged: int) -> None:
    trust = trusting()
    trust.review(look(0.0, {2: 1024.0}), [wanting(1024)])
    trust.note(moved(wanting(1024), 1024, resume=False), 1.0)
    assert trust.review(look(30.0, {2: 1024.0}, placed_at=0.5), []).judged == ()
    assert len(trust.review(look(1.0 + later, {2: 1024.0}), []).judged) == judged
    assert trust.review(look(62.0, {2: 1024.0}), []).judged == ()


def test_of_processes_that_are_gone_nothing_is_left_but_their_programs() -> None:
    trust, _ = after_a_part({2: 1024.0})
    finished(trust, {0: 1024.0}, make_process(300))
    trust.forget_all_but(frozenset())
    assert not any((trust._moves, trust._distrust, trust._returns, trust._trusted))
    assert most(trust.review(look(5.0, {2: 1024.0}, process=make_process(301)), [wanting(1024, pid=301)])) is None


def a_run(mib: float) -> Run:
    run = Run(cooldown=COOLDOWN)
    run.settings = replace(run.settings, canary=True)
    run.engine = run.load()
    run.kernel.add(make_process(rss_bytes=round(mib * MIB), cpu_cores=4.0), {2: mib})
    return run


def steps_of(reports: list[TickReport]) -> list[tuple[int, str, int]]:
    return [
        (n, o.step.reason.value, o.moved_pages * PAGE_BYTES // MIB) for n, r in enumerate(reports) for o in r.outcomes
    ]


def test_follow_cpu_goes_home_in_parts_within_a_tick_each_and_the_move_is_judged() -> None:
    run = a_run(1024)
    reports = run.ticks(12)
    assert steps_of(reports) == [(3, "misplaced", 64), (4, "misplaced", 192), (5, "misplaced", 768)]
    (judged,) = [judged for report in reports for judged in report.judged]
    assert (judged.result, judged.moved_bytes, judged.is_trial) == (MoveResult.IMPROVED, GIB, False)
    assert isinstance(run.engine, Engine)
    assert run.kernel.mib[PID][N0] == 1024.0


def test_what_somebody_moves_away_at_once_is_put_back_and_left_alone() -> None:
    run = a_run(512)
    reports = run.ticks(4)
    run.kernel.mib[PID] = {N2: 488.0, N0: 24.0, N1: 0.0}
    reports += run.ticks(12)
    first, back = run.kernel.steps
    assert (first.reason, first.budget_bytes, first.target) == (Reason.MISPLACED, 64 * MIB, N0)
    assert (back.reason, back.target, back.target_of) == (Reason.ROLLBACK, N2, {N2: N2, N0: N2})
    assert [(r.start, r.end) for r in back.ranges] == [(VMA_START, VMA_START + 64 * MIB)]
    assert [judged.result for report in reports for judged in report.judged] == [MoveResult.WORSE]
    assert {report.processes[0].reason for report in reports[5:]} == {Reason.NOT_TRUSTED}
    assert reports[4].processes[0].reason is Reason.ROLLBACK
    assert run.memory.ledger.moving() == frozenset()  # nor is it sampled at each tick for what does not go on


def test_a_rule_that_waits_for_a_pause_lets_no_other_policy_have_its_process() -> None:
    rule, home = Wanting(wanting(256, policy="test", reason=Reason.RULE, holds=True)), Wanting(wanting(256, target=1))
    home.name = "home"
    run = Run(policies=[rule, home])
    limits = replace(run.settings.limits, places={"test": 0, "home": 1})
    run.settings = replace(run.settings, limits=limits)
    run.engine = run.load([rule, home])
    run.kernel.add(make_process(), {2: 256})
    run.ticks(1)  # first sight
    run.memory.pause.note(moved(wanting(1), 0, stopped_by=Reason.NO_MEMORY, moved_from={}), run.clock.time)
    (report,) = run.ticks(1)
    assert run.kernel.steps == [] or run.kernel.steps[-1].target == N0
    assert [skip.reason for skip in report.plan.rejected] == [Reason.PAUSED, Reason.CLAIMED]
    assert report.paused == "node 0 ran out of memory during a move"


def test_pages_that_come_back_later_take_the_trust_away() -> None:
    run = a_run(256)
    run.ticks(7)
    assert run.memory.trust._trusted == {(PID, "home")}
    run.kernel.returned_ratio[PID] = 0.5
    run.ticks(8)
    assert run.memory.trust._trusted == set()


def test_what_is_known_of_processes_goes_with_them() -> None:
    run = a_run(256)
    run.ticks(7)
    run.kernel.processes.clear()
    run.ticks(1)
    assert run.memory.trust._trusted == set()
