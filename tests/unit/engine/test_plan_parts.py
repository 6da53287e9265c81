"""Decisions about parts of a process: which pages their steps are about, and what parts of one process share."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.budgets import Budgets
from balancerd.engine.ledger import Ledger
from balancerd.engine.plan import PlanLimits, Planned, make_plan
from balancerd.model.decision import Decision, Reason
from balancerd.model.extent import Extent, joined
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import FailedRun, MigrationOutcome, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES, Mempolicy, PlacementSample, Vma, VmaKind, VmaPlacement
from tests.unit.fakes import (
    MIB,
    N1,
    N2,
    N3,
    VMA_START,
    make_placement,
    make_process,
    make_rates,
    make_run,
    make_snapshot,
    make_survey,
    make_vma,
)
from tests.unit.reports import an_outcome

LIMITS = PlanLimits(budget_seconds=1.0, watermark_ratio=0.02)
PID = ProcessId(100, 1)
BOUND = Mempolicy(mode="bind", nodes=frozenset({N2}))


def extent(start_mib: float, end_mib: float) -> Extent:
    return Extent(VMA_START + round(start_mib * MIB), VMA_START + round(end_mib * MIB))


def part(*extents: Extent, target: int = 0, policy: str = "parts", source: int = 2, gain: float = 0.1) -> Decision:
    size_bytes = sum(e.end - e.start for e in extents)
    return Decision(
        policy=policy,
        process=PID,
        target=NodeId(target),
        misplaced_bytes=size_bytes,
        gain_cores=gain,
        cost_seconds=1.0,
        extents=extents,
        source_bytes={NodeId(source): size_bytes},
    )


def plan(
    *decisions: Decision,
    placement: PlacementSample | None = None,
    ledger: Ledger | None = None,
    budgets: Budgets | None = None,
    may_read: bool = True,
) -> Planned:
    snapshot = make_snapshot(make_survey(make_process()), placement or make_placement({2: 256}))
    return make_plan(
        snapshot, decisions, ledger or Ledger(60.0), budgets or Budgets(make_rates()), LIMITS, may_read=may_read
    )


def in_mib(ranges: Sequence[Range]) -> list[tuple[float, float]]:
    return [((r.start - VMA_START) / MIB, (r.end - VMA_START) / MIB) for r in ranges]


def reasons(planned: Planned) -> list[tuple[Reason, str]]:
    return [(skip.reason, skip.detail) for skip in planned.plan.rejected]


def test_a_step_is_about_the_extents_and_nothing_else() -> None:
    (step,) = plan(part(extent(10, 20), extent(30, 31))).plan.steps
    assert in_mib(step.ranges) == [(10, 20), (30, 31)]
    assert (step.is_part, step.resume_at, step.target, step.policy) == (True, 0, 0, "parts")


def test_parts_of_one_process_move_to_several_nodes_in_one_tick() -> None:
    planned = plan(*(part(extent(16 * n, 16 * n + 16), target=n, source=3) for n in range(3)))
    assert {step.target: in_mib(step.ranges) for step in planned.plan.steps} == {
        0: [(0, 16)],
        1: [(16, 32)],
        2: [(32, 48)],
    }
    assert planned.plan.rejected == ()


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(part(extent(8, 24), target=1), id="the same memory"),
        pytest.param(part(extent(16, 32), target=1, policy="other"), id="another policy"),
        pytest.param(part(extent(16, 32), target=1, policy="zones"), id="one of a later name"),
        pytest.param(replace(part(extent(16, 32), target=1), extents=None), id="the whole process"),
    ],
)
def test_what_a_part_leaves_to_no_other_decision(second: Decision) -> None:
    planned = plan(part(extent(0, 16), gain=0.2), second)
    assert [step.target for step in planned.plan.steps] == [0]
    assert reasons(planned) == [(Reason.CLAIMED, "by policy parts")]


def test_a_whole_move_leaves_no_part() -> None:
    whole = replace(part(extent(0, 256), gain=0.5, policy="home"), extents=None, source_bytes=None)
    planned = plan(part(extent(0, 16), target=1), whole)
    assert [step.policy for step in planned.plan.steps] == ["home"]
    assert reasons(planned) == [(Reason.CLAIMED, "by policy home")]


def test_a_mapping_that_the_sample_saw_on_the_target_alone_may_hold_a_part_that_is_not() -> None:
    (step,) = plan(part(extent(1, 2)), placement=make_placement({0: 256})).plan.steps
    assert in_mib(step.ranges) == [(1, 2)]


@pytest.mark.parametrize(
    ("vma", "reason"),
    [
        ({"kind": VmaKind.SPECIAL}, Reason.CHANGED),
        ({"kind": VmaKind.FILE, "program": True}, Reason.CHANGED),
        ({"mempolicy": BOUND}, Reason.MEMPOLICY),
        ({"mempolicies_at": None}, Reason.MEMPOLICY_UNREAD),
    ],
)
def test_what_may_not_move_does_not_move_as_a_part(vma: dict[str, Any], reason: Reason) -> None:
    planned = plan(part(extent(0, 16)), placement=make_placement({2: 256}, **vma))
    assert planned.plan.steps == ()
    assert [skip.reason for skip in planned.plan.rejected] == [reason]
    assert planned.turn_down == ()  # the rest of the process may be about other memory
    assert planned.read_mempolicies == ({PID} if reason is Reason.MEMPOLICY_UNREAD else set())


def test_nothing_is_mapped_there_any_more() -> None:
    assert reasons(plan(part(extent(300, 301)))) == [(Reason.CHANGED, "nothing that may move is mapped there any more")]


def test_hugetlb_pages_move_whole_or_not_at_all() -> None:
    huge = make_placement({2: 256}, kind=VmaKind.HUGETLB, page_bytes=2 * MIB)
    (step,) = plan(part(extent(1, 5)), placement=huge).plan.steps
    assert [(r.page_bytes, *in_mib([r])) for r in step.ranges] == [(2 * MIB, (2, 4))]


def test_parts_share_the_buckets_of_their_process_and_each_takes_of_the_links_it_uses() -> None:
    decisions = [part(extent(100 * i, 100 * i + 64), target=i, source=3, gain=0.3 - 0.1 * i) for i in range(2)]
    budgets = Budgets(make_rates(process_mib=50, pair_mib=20))
    steps = plan(*decisions, budgets=budgets).plan.steps
    assert [step.budget_bytes >> 20 for step in steps] == [40, 40]  # 20 MiB/s for 2 s from node 3 to each
    budgets = Budgets(make_rates(process_mib=50))
    steps = plan(*decisions, budgets=budgets).plan.steps
    assert [step.budget_bytes >> 20 for step in steps] == [100, 36]


def outcome(*, target: int = 1, moved: tuple[float, float] | None = (0, 16), **changes: Any) -> MigrationOutcome:
    made = an_outcome(PID, pages={PageStatus.MOVED: 4096 if moved else 0})
    runs = () if moved is None else (make_run(extent(*moved).start, moved[1] - moved[0], source=3, target=target),)
    step = replace(made.step, is_part=True, target=NodeId(target), move_id=7 + target)
    return replace(made, step=step, moved_runs=runs, **changes)


def test_what_was_moved_a_moment_ago_may_go_on_to_its_node_but_to_no_other() -> None:
    ledger = Ledger(60.0)
    ledger.record(outcome(target=1, moved=(0, 16)), -1.0)
    assert in_mib(plan(part(extent(0, 16), target=1), ledger=ledger).plan.steps[0].ranges) == [(0, 16)]
    away = plan(part(extent(0, 16), target=2), ledger=ledger)
    assert reasons(away) == [(Reason.QUARANTINE, "16 MiB moved a moment ago in 1 ranges; again in 59 s")]
    assert in_mib(plan(part(extent(8, 24), target=2), ledger=ledger).plan.steps[0].ranges) == [(16, 24)]
    whole = replace(part(extent(0, 256)), extents=None, source_bytes=None)
    assert in_mib(plan(whole, ledger=ledger).plan.steps[0].ranges) == [(0, 256)]


def test_a_part_that_goes_to_and_fro_rests_for_twice_as_long_each_time() -> None:
    ledger, now, rests = Ledger(60.0), 0.0, []
    for _ in range(4):
        ledger.record(outcome(target=1, moved=(0, 2)), now)
        (span,) = ledger.held_ranges(PID, now, target=N2)
        rests.append(span.until - now)
        now = span.until
    assert rests == [60, 120, 240, 480]


def test_a_step_over_parts_brings_no_hold_and_does_not_end_the_row_of_its_move() -> None:
    ledger = Ledger(60.0)
    for target in (1, 2):
        ledger.record(outcome(target=target, moved=(16 * target, 16 * target + 16)), 0.0)
    assert ledger.hold(PID, 0.0) is None
    assert (ledger.move_id(PID, N1), ledger.move_id(PID, N2), ledger.move_id(PID, N3)) == (8, 9, 0)
    assert ledger.resume_at(PID, N1) == 0
    assert ledger.moving() == {PID}
    assert sorted(ledger.abandon_all_but(set(), set())) == [8, 9]
    assert ledger.moving() == frozenset()


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({"pages": {PageStatus.MOVED: 1, PageStatus.ABSENT: 9}, "submitted_pages": 10}, None),
        ({"pages": {PageStatus.ABSENT: 10}, "submitted_pages": 10}, Reason.QUARANTINE),
        ({"pages": {}, "submitted_pages": 0}, None),
        ({"stopped_by": Reason.NO_MEMORY}, Reason.NO_MEMORY),
        ({"stopped_by": Reason.STALLED}, Reason.STALLED),
        ({"stopped_by": Reason.PRESSURE}, None),
        ({"stopped_by": Reason.EXITED}, None),
    ],
)
def test_what_a_step_over_parts_leads_to(changes: dict[str, Any], held: Reason | None) -> None:
    ledger = Ledger(60.0)
    moved = changes.get("pages", {PageStatus.MOVED: 1}).get(PageStatus.MOVED, 0)
    ledger.record(outcome(moved=(0, 1) if moved else None, **changes), 0.0)
    hold = ledger.hold(PID, 0.0)
    assert (None if hold is None else hold.reason) is held


def test_pages_that_can_never_move_are_in_quarantine_and_the_other_parts_go_on() -> None:
    run = FailedRun(start=VMA_START, end=VMA_START + MIB, page_bytes=PAGE_BYTES, status=PageStatus.SHARED)
    ledger = Ledger(60.0)
    done = outcome(moved=None, failed_runs=(run,), pages={PageStatus.SHARED: 256}, submitted_pages=256)
    ledger.record(done, -1.0)
    assert ledger.hold(PID, 0.0) is None
    assert reasons(plan(part(extent(0, 2), target=1), ledger=ledger))[0][0] is Reason.QUARANTINE
    assert len(plan(part(extent(2, 4), target=1), ledger=ledger).plan.steps) == 1


def test_a_process_that_is_gone_is_forgotten_with_its_parts() -> None:
    ledger = Ledger(60.0)
    ledger.record(outcome(), 0.0)
    ledger.forget_all_but(set())
    assert ledger.held_ranges(PID, 0.0, target=N2) == ()
    assert ledger.moving() == frozenset()


N_PAGES = 64
PAGES = st.integers(0, N_PAGES)
SPANS = st.lists(st.tuples(PAGES, PAGES), max_size=8)


def pages_of(spans: Sequence[tuple[int, int]]) -> set[int]:
    return {page for start, end in spans for page in range(start, end)}


@given(wanted=SPANS, taken=SPANS, bound=st.sets(st.integers(0, 7)), gone=st.sets(st.integers(0, 7)))
def test_every_page_of_every_part_is_in_one_step_or_has_a_reason_to_stay(
    wanted: list[tuple[int, int]], taken: list[tuple[int, int]], bound: set[int], gone: set[int]
) -> None:
    """Eight mappings of eight pages, some bound, some gone; two parts that may overlap."""

    def vma(index: int) -> Vma:
        start = VMA_START + index * 8 * PAGE_BYTES
        mempolicy = BOUND if index in bound else Mempolicy(mode="default")
        return replace(make_vma(1), start=start, end=start + 8 * PAGE_BYTES, mempolicy=mempolicy)

    placed = [VmaPlacement(vma=vma(i), pages_by_node={N2: 8.0}, absent_pages=0.0) for i in range(8) if i not in gone]
    parts = [
        joined(Extent(VMA_START + a * PAGE_BYTES, VMA_START + b * PAGE_BYTES) for a, b in spans)
        for spans in (taken, wanted)
    ]
    decisions = [part(*extents, target=i) for i, extents in enumerate(parts) if extents]
    planned = plan(*decisions, placement=replace(make_placement({2: 1}), vmas=tuple(placed)))

    movable = {page for i in range(8) if i not in bound | gone for page in range(8 * i, 8 * i + 8)}
    overlap = bool(pages_of(taken) & pages_of(wanted))
    steps = {step.target: step for step in planned.plan.steps}
    assert len(steps) + len(planned.plan.rejected) == len(decisions)
    for target, spans in enumerate((taken, wanted)):
        step = steps.get(NodeId(target))
        may_move = pages_of(spans) & movable
        if step is None:
            assert not may_move or (overlap and pages_of((taken, wanted)[1 - target]) & movable)
            continue
        found = [((r.start - VMA_START) // PAGE_BYTES, (r.end - VMA_START) // PAGE_BYTES) for r in step.ranges]
        assert pages_of(found) == may_move
        assert sum(end - start for start, end in found) == len(may_move)
    assert not (overlap and len(steps) == 2)


def test_extents_that_touch_are_one() -> None:
    assert joined([Extent(4, 8), Extent(0, 4), Extent(6, 7), Extent(9, 9), Extent(10, 12)]) == (
        Extent(0, 8),
        Extent(10, 12),
    )


def test_what_a_part_takes_of_a_link_is_by_where_that_part_lies_and_not_the_rest_of_the_process() -> None:
    budgets = Budgets(make_rates(pair_mib=20))
    budgets.spend_bytes(ProcessId(7, 1), 60 * MIB, {(N3, N1): 60 * MIB}, 0.0)
    from_3, from_2 = part(extent(0, 16), target=1, source=3), part(extent(32, 48), target=1, source=2)
    planned = plan(from_3, from_2, budgets=budgets)
    assert [in_mib(step.ranges) for step in planned.plan.steps] == [[(32, 48)]]
    assert [(reason, detail.partition(";")[0]) for reason, detail in reasons(planned)] == [
        (Reason.NODE_PAIR_BUDGET, "node 3 to 1")
    ]


def test_what_is_stuck_and_what_moved_a_moment_ago_are_cut_out_together_where_they_overlap() -> None:
    ledger = Ledger(60.0)
    run = FailedRun(start=extent(2, 3).start, end=extent(2, 3).end, page_bytes=PAGE_BYTES, status=PageStatus.LOCKED)
    ledger.record(outcome(target=1, moved=(0, 8), failed_runs=(run,)), -1.0)
    ledger.record(outcome(target=3, moved=(6, 12)), -1.0)
    spans = ledger.held_ranges(PID, 0.0, target=N2)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    (step,) = plan(part(extent(0, 16), target=2), ledger=ledger).plan.steps
    assert in_mib(step.ranges) == [(12, 16)]
    (step,) = plan(part(extent(0, 16), target=1), ledger=ledger).plan.steps
    assert in_mib(step.ranges) == [(0, 2), (4, 6), (12, 16)]
