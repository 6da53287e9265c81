"""Arbitration: each objection by table, budgets and room shared over all decisions, the ranges that may move."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.ledger import Ledger
from balancerd.engine.plan import PlanLimits, Planned, make_plan, movable_ranges
from balancerd.model.decision import Decision, Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import Mempolicy, PlacementSample, ProcessSample, VmaKind, VmaPlacement
from tests.unit.fakes import GIB, MIB, N0, N2, make_placement, make_process, make_snapshot, make_survey, make_vma

LIMITS = PlanLimits(budget_bytes=2 * GIB, budget_seconds=1.0, watermark_ratio=0.02)


def want(pid: int = 100, *, mib: int = 256, gain: float = 0.1, target: int = 0, policy: str = "home") -> Decision:
    return Decision(
        policy=policy,
        process=ProcessId(pid, 1),
        target=NodeId(target),
        misplaced_bytes=mib * MIB,
        gain_cores=gain,
        cost_seconds=1.0,
    )


def plan(
    decisions: list[Decision],
    *,
    process: ProcessSample | None = None,
    placement: PlacementSample | None = None,
    free_bytes: dict[int, int] | None = None,
    limits: PlanLimits = LIMITS,
    ledger: Ledger | None = None,
) -> Planned:
    pids = sorted({d.process.pid for d in decisions})
    processes = [process or make_process(pid) for pid in pids]
    placements = [placement or make_placement({2: 256}, pid=pid) for pid in pids]
    snapshot = make_snapshot(make_survey(*processes, free_bytes=free_bytes), *placements)
    return make_plan(snapshot, decisions, ledger or Ledger(60.0), limits)


def test_an_unopposed_decision_becomes_a_step_over_its_mapping() -> None:
    planned = plan([want()])
    (step,) = planned.plan.steps
    vma = make_vma(256)
    assert [(r.start, r.end, r.page_bytes) for r in step.ranges] == [(vma.start, vma.end, 4096)]
    assert (step.target, step.budget_bytes, step.resume_at, step.policy) == (0, 2 * GIB, 0, "home")
    assert planned.plan.rejected == ()


BOUND = Mempolicy(mode="bind", nodes=frozenset({N2}))


@pytest.mark.parametrize(
    ("process", "vma", "free_bytes", "limits", "reason", "detail"),
    [
        ({"mems_allowed": frozenset({N2})}, {}, {}, LIMITS, Reason.CPUSET, "node 0 is not in its Mems_allowed 2"),
        ({"mems_allowed": None}, {}, {}, LIMITS, Reason.CPUSET, "its Mems_allowed could not be read"),
        ({}, {"mempolicy": BOUND}, {}, LIMITS, Reason.MEMPOLICY, "bind:2"),
        ({}, {"mempolicies_at": None}, {}, LIMITS, Reason.MEMPOLICY_UNREAD, ""),
        ({}, {"mempolicies_at": -61.0}, {}, LIMITS, Reason.MEMPOLICY_UNREAD, ""),
        ({}, {}, {0: 500 * MIB}, LIMITS, Reason.TARGET_FULL, "node 0: 500 MiB available"),
        ({}, {}, {}, replace(LIMITS, budget_bytes=MIB), Reason.MIGRATION_BUDGET, ""),
    ],
)
def test_objections(
    process: dict[str, Any],
    vma: dict[str, Any],
    free_bytes: dict[int, int],
    limits: PlanLimits,
    reason: Reason,
    detail: str,
) -> None:
    planned = plan(
        [want()],
        process=make_process(**process),
        placement=make_placement({2: 256}, **vma),
        free_bytes=free_bytes,
        limits=limits,
    )
    assert planned.plan.steps == ()
    assert [(s.reason, s.detail, s.by) for s in planned.plan.rejected] == [(reason, detail, "plan")]
    assert planned.read_mempolicies == ({ProcessId(100, 1)} if reason is Reason.MEMPOLICY_UNREAD else set())
    assert [s.reason for s in planned.turn_down] == ([reason] if reason is Reason.MEMPOLICY else [])


def test_a_local_mempolicy_asks_for_what_we_do() -> None:
    local = make_placement({2: 256}, mempolicy=Mempolicy(mode="local"))
    assert len(plan([want()], placement=local).plan.steps) == 1


def test_the_first_policy_claims_the_process() -> None:
    planned = plan([want(policy="a", gain=0.2), want(policy="b", gain=0.1)])
    assert [s.policy for s in planned.plan.steps] == ["a"]
    assert [(s.reason, s.detail) for s in planned.plan.rejected] == [(Reason.CLAIMED, "by policy a")]


def test_budget_goes_to_the_best_gain_for_cost_first() -> None:
    limits = replace(LIMITS, budget_bytes=300 * MIB)
    planned = plan([want(1, gain=0.1), want(2, gain=0.3), want(3, gain=0.2)], limits=limits)
    assert [(s.process.pid, s.budget_bytes >> 20) for s in planned.plan.steps] == [(2, 300), (3, 44)]
    assert [(s.process.pid, s.reason) for s in planned.plan.rejected] == [(1, Reason.MIGRATION_BUDGET)]


def test_room_on_the_target_is_shared_by_all_decisions() -> None:
    # of 8 GiB: high watermark 16 MiB and a tenth (819.2 MiB) stay; 300 MiB remain to fill
    planned = plan([want(1, gain=0.2), want(2, gain=0.1)], free_bytes={0: 1136 * MIB})
    assert [(s.process.pid, s.budget_bytes >> 20) for s in planned.plan.steps] == [(1, 300), (2, 44)]


def test_page_cache_not_used_lately_counts_as_room() -> None:
    snapshot = make_snapshot(make_survey(make_process(), free_bytes={0: 0}), make_placement({2: 256}))
    memory = dict(snapshot.survey.memory)
    memory[N0] = replace(memory[N0], inactive_file_bytes=2 * GIB)
    snapshot = replace(snapshot, survey=replace(snapshot.survey, memory=memory))
    assert len(make_plan(snapshot, [want()], Ledger(60.0), LIMITS).plan.steps) == 1


def place(index: int, pages: dict[int, float], absent: float = 0.0, **changes: Any) -> VmaPlacement:
    return VmaPlacement(
        vma=make_vma(1, index, **changes),
        pages_by_node={NodeId(n): count for n, count in pages.items()},
        absent_pages=absent,
    )


@pytest.mark.parametrize(
    ("placed", "moves"),
    [
        (place(0, {2: 256}), True),
        (place(0, {0: 255, 2: 1}), True),
        (place(0, {0: 256}), False),
        (place(0, {}, absent=256), False),
        (place(0, {}), True),  # too small to be sampled
        (place(0, {}, kind=VmaKind.FILE), False),
        (place(0, {2: 256}, kind=VmaKind.FILE), True),
        (place(0, {2: 256}, kind=VmaKind.FILE, executable=True), False),
        (place(0, {2: 256}, kind=VmaKind.SPECIAL), False),
        (place(0, {2: 256}, mempolicy=BOUND), False),
        (place(0, {2: 256}, mempolicy=None), False),
        (place(0, {2: 256}, page_bytes=None), False),
    ],
)
def test_which_mappings_may_move(placed: VmaPlacement, moves: bool) -> None:
    placement = replace(make_placement({0: 1}), vmas=(placed,))
    assert bool(movable_ranges(placement, N0)) is moves


def test_ranges_ascend_whatever_the_order_of_the_sample() -> None:
    placement = replace(make_placement({0: 1}), vmas=(place(2, {2: 1}), place(0, {2: 1}), place(1, {2: 1})))
    starts = [r.start for r in movable_ranges(placement, N0)]
    assert starts == sorted(starts)
    assert len(starts) == 3
