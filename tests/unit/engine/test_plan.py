"""Arbitration: each objection by table, budgets and room shared over all decisions, the ranges that may move."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine import ranges
from balancerd.engine.budgets import Budgets, Rates
from balancerd.engine.circumstances import explain_pressure
from balancerd.engine.ledger import Ledger
from balancerd.engine.plan import PlanLimits, Planned, make_plan
from balancerd.model.decision import MIGRATION_REASONS, Decision, Eviction, Reason
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import FailedRun, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import Mempolicy, PlacementSample, Pressure, ProcessSample, VmaKind, VmaPlacement
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N2,
    VMA_START,
    make_placement,
    make_process,
    make_rates,
    make_snapshot,
    make_survey,
    make_vma,
)
from tests.unit.reports import an_eviction_outcome, an_outcome

LIMITS = PlanLimits(budget_seconds=1.0, watermark_ratio=0.02, max_memory_pressure_ratio=0.1, max_cpu_pressure_ratio=0.4)
PID = ProcessId(100, 1)


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
    decisions: Sequence[Decision | Eviction],
    *,
    process: ProcessSample | None = None,
    placement: PlacementSample | None = None,
    free_bytes: dict[int, int] | None = None,
    limits: PlanLimits = LIMITS,
    ledger: Ledger | None = None,
    budgets: Budgets | None = None,
    pressure: Pressure | None = None,
    claimed: frozenset[ProcessId] = frozenset(),
    may_read: bool = True,
) -> Planned:
    pids = sorted({d.process.pid for d in decisions})
    processes = [process or make_process(pid) for pid in pids]
    placements = [placement or make_placement({2: 256}, pid=pid) for pid in pids]
    snapshot = make_snapshot(make_survey(*processes, free_bytes=free_bytes, pressure=pressure), *placements)
    return make_plan(
        snapshot,
        decisions,
        ledger or Ledger(60.0),
        budgets or Budgets(make_rates()),
        limits,
        claimed=claimed,
        may_read=may_read,
    )


def reasons(planned: Planned) -> list[tuple[int, Reason, str]]:
    return [(skip.process.pid, skip.reason, skip.detail) for skip in planned.plan.rejected]


def test_an_unopposed_decision_becomes_a_step_over_its_mapping() -> None:
    planned = plan([want()])
    (step,) = planned.plan.steps
    vma = make_vma(256)
    assert [(r.start, r.end, r.page_bytes) for r in step.ranges] == [(vma.start, vma.end, 4096)]
    assert (step.target, step.budget_bytes, step.resume_at, step.policy) == (0, 2 * GIB, 0, "home")
    assert planned.plan.rejected == ()


BOUND = Mempolicy(mode="bind", nodes=frozenset({N2}))


@pytest.mark.parametrize(
    ("process", "vma", "free_bytes", "reason", "detail"),
    [
        ({"mems_allowed": frozenset({N2})}, {}, {}, Reason.OUTSIDE_CPUSET, "node 0 is not in its Mems_allowed 2"),
        ({"mems_allowed": None}, {}, {}, Reason.OUTSIDE_CPUSET, "its Mems_allowed could not be read"),
        ({}, {"mempolicy": BOUND}, {}, Reason.MEMPOLICY, "bind:2"),
        ({}, {"mempolicies_at": None}, {}, Reason.MEMPOLICY_UNREAD, ""),
        ({}, {"mempolicies_at": -61.0}, {}, Reason.MEMPOLICY_UNREAD, ""),
        ({}, {}, {0: 500 * MIB}, Reason.TARGET_FULL, "node 0: 500 MiB available"),
    ],
)
def test_objections(
    process: dict[str, Any],
    vma: dict[str, Any],
    free_bytes: dict[int, int],
    reason: Reason,
    detail: str,
) -> None:
    planned = plan(
        [want()],
        process=make_process(**process),
        placement=make_placement({2: 256}, **vma),
        free_bytes=free_bytes,
    )
    assert planned.plan.steps == ()
    assert [(s.reason, s.detail, s.by) for s in planned.plan.rejected] == [(reason, detail, "plan")]
    assert planned.read_mempolicies == ({ProcessId(100, 1)} if reason is Reason.MEMPOLICY_UNREAD else set())
    assert [s.reason for s in planned.turn_down] == ([reason] if reason is Reason.MEMPOLICY else [])


def test_a_local_mempolicy_asks_for_what_we_do() -> None:
    local = make_placement({2: 256}, mempolicy=Mempolicy(mode="local"))
    assert len(plan([want()], placement=local).plan.steps) == 1


@pytest.mark.parametrize(
    ("free_bytes", "budgets", "claimed"),
    [
        ({0: 500 * MIB}, make_rates(), False),
        ({}, make_rates(process_mib=1), False),
        ({}, make_rates(), True),
    ],
)
def test_nobody_reads_mempolicies_of_a_process_that_would_not_move_anyway(
    free_bytes: dict[int, int], budgets: Rates, claimed: bool
) -> None:
    spent = Budgets(budgets)
    spent.spend_bytes(PID, 4 * MIB, {}, 0.0)
    planned = plan(
        [want()],
        placement=make_placement({2: 256}, mempolicies_at=None),
        free_bytes=free_bytes,
        budgets=spent,
        claimed=frozenset({PID}) if claimed else frozenset(),
    )
    assert planned.read_mempolicies == frozenset()
    assert [s.reason for s in planned.plan.rejected] not in ([], [Reason.MEMPOLICY_UNREAD])


def test_mempolicies_are_read_of_those_alone_for_whom_the_budget_lasts() -> None:
    unread = make_placement({2: 256}, mempolicies_at=None)
    decisions = [want(pid, gain=0.1 * pid) for pid in (1, 2, 3)]
    processes = [make_process(pid) for pid in (1, 2, 3)]
    placements = [replace(unread, process=process.id) for process in processes]
    snapshot = make_snapshot(make_survey(*processes), *placements)
    budgets = Budgets(make_rates(machine_mib=200))
    first = make_plan(snapshot, decisions, Ledger(60.0), budgets, LIMITS)
    assert {process.pid for process in first.read_mempolicies} == {2, 3}
    again = make_plan(snapshot, decisions, Ledger(60.0), budgets, LIMITS, may_read=False)
    assert [s.reason for s in again.plan.rejected] == [Reason.MEMPOLICY_UNREAD] * 3  # nothing is set aside twice


@pytest.mark.parametrize(
    ("spent", "reason", "detail"),
    [
        ("machine", Reason.MIGRATION_BUDGET, "again in 0.2 s"),
        ("process", Reason.PROCESS_BUDGET, "again in 0.2 s"),
        ("pair", Reason.NODE_PAIR_BUDGET, "node 2 to 0; again in 0.2 s"),
    ],
)
def test_an_empty_bucket_turns_down_with_its_own_reason_and_the_wait(spent: str, reason: Reason, detail: str) -> None:
    rates = make_rates(**{f"{spent}_mib": 10})
    budgets = Budgets(rates)
    other = ProcessId(7, 1)
    budgets.spend_bytes(PID if spent == "process" else other, 20 * MIB, {(N2, N0): 20 * MIB}, 0.0)
    planned = plan([want()], budgets=budgets)
    assert reasons(planned) == [(100, reason, detail)]


def test_a_step_takes_the_least_of_machine_process_and_pairs() -> None:
    def budget(placement: dict[int, float], **rates: float) -> float:
        planned = plan([want()], placement=make_placement(placement), budgets=Budgets(make_rates(**rates)))
        return planned.plan.steps[0].budget_bytes / MIB

    assert budget({2: 256}) == 2048
    assert budget({2: 256}, machine_mib=100) == 200
    assert budget({2: 256}, process_mib=50) == 100
    assert budget({2: 256}, pair_mib=50) == 100
    assert budget({1: 64, 2: 192}, pair_mib=50) == 64 + 100  # the link from node 1 has more than is there to move
    assert budget({0: 100, 2: 156}, pair_mib=50) == 100  # what is on the target needs no link
    assert budget({0: 100, 2: 156}, pair_mib=400) == 800  # a sample errs: nothing short, nothing binds


def test_steps_of_one_tick_share_the_tokens_of_a_pair() -> None:
    placements = {1: make_placement({2: 256}, pid=1), 2: make_placement({1: 256}, pid=2)}
    budgets = Budgets(make_rates(pair_mib=150))
    planned = plan([want(1, gain=0.3), want(3, gain=0.2), want(2, gain=0.1)], budgets=budgets)
    assert [(s.process.pid, s.budget_bytes >> 20) for s in planned.plan.steps] == [(1, 300), (3, 44)]
    assert reasons(planned) == [(2, Reason.NODE_PAIR_BUDGET, "node 2 to 0; again in 0.0 s")]
    processes = [make_process(pid) for pid in placements]
    snapshot = make_snapshot(make_survey(*processes), *placements.values())
    apart = make_plan(snapshot, [want(1), want(2)], Ledger(60.0), budgets, LIMITS)
    assert [s.budget_bytes >> 20 for s in apart.plan.steps] == [300, 300]


@pytest.mark.parametrize(
    ("memory", "cpu", "told"),
    [
        (None, None, None),
        (0.1, 0.4, None),
        (0.101, 0.0, "memory pressure 10.1% is above 10.0%"),
        (0.0, 0.5, "CPU pressure 50.0% is above 40.0%"),
        (0.25, 0.5, "memory pressure 25.0% is above 10.0%, CPU pressure 50.0% is above 40.0%"),
        (0.25, None, "memory pressure 25.0% is above 10.0%"),
    ],
)
def test_under_pressure_nothing_moves_and_the_figures_say_why(
    memory: float | None, cpu: float | None, told: str | None
) -> None:
    pressure = Pressure(cpu_ratio=cpu, memory_ratio=memory)
    planned = plan([want(1), want(2)], pressure=pressure)
    expected = [] if told is None else [(pid, Reason.PRESSURE, told) for pid in (1, 2)]
    assert reasons(planned) == expected
    assert len(planned.plan.steps) == 2 - len(expected)
    assert planned.read_mempolicies == frozenset()
    without = replace(LIMITS, max_memory_pressure_ratio=None, max_cpu_pressure_ratio=None)
    assert explain_pressure(pressure, without.max_memory_pressure_ratio, without.max_cpu_pressure_ratio) is None


def test_who_is_claimed_by_a_command_is_left_to_it() -> None:
    planned = plan([want(1), want(2)], claimed=frozenset({ProcessId(1, 1)}))
    assert [s.process.pid for s in planned.plan.steps] == [2]
    assert reasons(planned) == [(1, Reason.CLAIMED, "by a command")]


@pytest.mark.parametrize("reason", MIGRATION_REASONS)
def test_a_step_carries_the_reason_of_its_decision(reason: Reason) -> None:
    (step,) = plan([replace(want(), reason=reason)]).plan.steps
    assert step.reason is reason
    assert step.move_all is False
    (step,) = plan([want()], limits=replace(LIMITS, move_all=True)).plan.steps
    assert step.move_all is True


SHARED: dict[str, Any] = {"kind": VmaKind.SHMEM, "shared": True, "backing": "0:1:7"}


@pytest.mark.parametrize(
    ("limits", "run", "vma", "for_all"),
    [
        ({"move_shared": True}, {0: 2.0}, SHARED, True),
        ({"move_shared": False}, {0: 2.0}, SHARED, False),
        ({"move_shared": True}, {1: 2.0}, SHARED, False),
        ({"move_shared": True}, {0: 2.0}, SHARED | {"backing": ""}, False),
        ({"move_shared": True, "move_all": True}, {0: 2.0}, SHARED, False),
    ],
)
def test_shared_memory_moves_for_all_when_they_run_there(
    limits: dict[str, Any],
    run: dict[int, float],
    vma: dict[str, Any],
    for_all: bool,
) -> None:
    placement = make_placement({2: 64})
    shared = VmaPlacement(vma=make_vma(64, 1, **vma), pages_by_node={N2: 16384.0}, absent_pages=0.0)
    placement = replace(placement, vmas=(*placement.vmas, shared))
    process = make_process(run=run)
    (step,) = plan([want()], process=process, placement=placement, limits=replace(LIMITS, **limits)).plan.steps
    assert [r.all_sharers for r in step.ranges] == [False, for_all]
    part = replace(want(), extents=(Extent(shared.vma.start, shared.vma.end),), source_bytes={N2: 64 * MIB})
    (step,) = plan([part], process=process, placement=placement, limits=replace(LIMITS, **limits)).plan.steps
    assert [r.all_sharers for r in step.ranges] == [False]


@pytest.mark.parametrize(
    ("status", "move_shared", "is_tried"),
    [
        (PageStatus.SHARED, True, True),
        (PageStatus.SHARED, False, False),
        (PageStatus.LOCKED, True, False),
    ],
)
def test_what_others_map_is_tried_again_as_soon_as_all_agree(
    status: PageStatus,
    move_shared: bool,
    is_tried: bool,
) -> None:
    placement, ledger = make_placement({2: 256}, **SHARED), Ledger(0.0)
    (vma,) = (placed.vma for placed in placement.vmas)
    failed = FailedRun(start=vma.start, end=vma.end, page_bytes=4096, status=status)
    outcome = replace(an_outcome(PID), failed_runs=(failed,))
    ledger.record(outcome, -1.0)
    limits = replace(LIMITS, move_shared=move_shared)
    planned = plan([want()], placement=placement, ledger=ledger, limits=limits)
    assert [r.all_sharers for step in planned.plan.steps for r in step.ranges] == [True] * is_tried
    assert [reason for _, reason, _ in reasons(planned)] == [Reason.QUARANTINE] * (not is_tried)
    part = replace(want(), extents=(Extent(vma.start, vma.end),), source_bytes={N2: 256 * MIB})
    planned = plan([part], placement=placement, ledger=ledger, limits=limits)
    assert [reason for _, reason, _ in reasons(planned)] == [Reason.QUARANTINE]


def stuck(*at_mib: tuple[float, float], now: float = -1.0) -> Ledger:
    """A ledger after a pass whose last word about these MiB (start, size) of the mapping was EPERM."""
    ledger = Ledger(0.0)
    runs = tuple(
        FailedRun(
            start=VMA_START + round(at * MIB),
            end=VMA_START + round((at + size) * MIB),
            page_bytes=4096,
            status=PageStatus.LOCKED,
        )
        for at, size in at_mib
    )
    ledger.record(replace(an_outcome(PID), failed_runs=runs), now)
    return ledger


def test_what_is_in_quarantine_is_cut_out_of_the_ranges() -> None:
    (step,) = plan([want()], ledger=stuck((10, 1), (100, 4))).plan.steps
    mib = [((r.start - VMA_START) / MIB, (r.end - VMA_START) / MIB) for r in step.ranges]
    assert mib == [(0, 10), (12, 100), (104, 256)]


def test_a_process_whose_whole_rest_is_in_quarantine_is_not_walked_again() -> None:
    rest = make_placement({0: 156, 2: 100}, mempolicies_at=None)
    planned = plan([want(mib=100)], placement=rest, ledger=stuck((156, 100)))
    assert planned.plan.steps == ()
    assert planned.read_mempolicies == frozenset()
    assert reasons(planned) == [(100, Reason.QUARANTINE, "100 MiB eperm in 1 ranges; again in 59 s")]


def test_what_came_on_top_of_what_is_in_quarantine_is_walked_to() -> None:
    grown = make_placement({0: 106, 2: 150})
    (step,) = plan([want(mib=150)], placement=grown, ledger=stuck((156, 100))).plan.steps
    assert [(r.end - r.start) // MIB for r in step.ranges] == [156]


@pytest.mark.parametrize(
    ("held", "stuck_mib", "is_walked"),
    [
        pytest.param({0: 151, 2: 105}, 100, False, id="a fiftieth of 256 MiB is within the error of a sample"),
        pytest.param({0: 150, 2: 106}, 100, True, id="more is not"),
        pytest.param({0: 40, 2: 10}, 8, False, id="of a small one, 2 MiB are"),
        pytest.param({0: 40, 2: 10}, 7, True, id="and 3 are not"),
        pytest.param({0: 40, 2: 10}, 0, True, id="nothing is stuck"),
    ],
)
def test_what_a_sample_shows_beside_what_is_stuck_is_walked_to_when_it_is_more_than_its_error(
    held: dict[int, float], stuck_mib: float, is_walked: bool
) -> None:
    start = held[0]
    ledger = stuck((start, stuck_mib)) if stuck_mib else None
    planned = plan([want(mib=int(held[2]))], placement=make_placement(held), ledger=ledger)
    assert bool(planned.plan.steps) is is_walked


def evict(pid: int = 100, *, mib: int = 64, cold_only: bool = False) -> Eviction:
    return Eviction(policy="trim", process=ProcessId(pid, 1), evict_bytes=mib * MIB, cold_only=cold_only)


def test_an_eviction_becomes_a_step_within_its_own_rate() -> None:
    budgets = Budgets(make_rates(machine_mib=1, evict_mib=48))
    budgets.spend_bytes(ProcessId(7, 1), GIB, {}, 0.0)
    planned = plan([evict(1), evict(2, cold_only=True), evict(3)], budgets=budgets)
    assert [(s.process.pid, s.budget_bytes >> 20, s.cold_only) for s in planned.plan.evictions] == [
        (1, 64, False),
        (2, 32, True),
    ]
    assert reasons(planned) == [(3, Reason.MIGRATION_BUDGET, "evict.rate_limit")]


def test_an_eviction_of_parts_is_about_these_and_goes_on_where_it_stopped() -> None:
    extents = (Extent(0, 4096), Extent(VMA_START + 100, VMA_START + MIB), Extent(VMA_START + 2 * MIB, 1 << 62))
    ledger = Ledger(60.0)
    ledger.record_eviction(an_eviction_outcome(ProcessId(100, 1), is_part=True, resume_at=VMA_START + MIB), 0.0)
    planned = plan([replace(evict(), extents=extents)], ledger=ledger)
    (step,) = planned.plan.evictions
    assert [((r.start - VMA_START) // 4096, (r.end - VMA_START) // 4096) for r in step.ranges] == [
        (1, 256),
        (512, 256 * 256),
    ]
    assert (step.is_part, step.resume_at) == (True, VMA_START + MIB)
    nothing = plan([replace(evict(), extents=extents[:1])])
    assert reasons(nothing)[0][1] is Reason.NOTHING_PRESENT


def test_one_process_is_moved_or_evicted_but_not_both_in_one_tick() -> None:
    planned = plan([evict(), want()])
    assert len(planned.plan.steps) == 1
    assert reasons(planned) == [(100, Reason.CLAIMED, "by policy home")]


def test_evictions_stop_for_pressure_on_memory_and_not_on_cpus() -> None:
    assert len(plan([evict()], pressure=Pressure(cpu_ratio=0.9, memory_ratio=0.0)).plan.evictions) == 1
    planned = plan([evict()], pressure=Pressure(cpu_ratio=0.0, memory_ratio=0.2))
    assert reasons(planned) == [(100, Reason.PRESSURE, "memory pressure 20.0% is above 10.0%")]


@pytest.mark.parametrize(
    ("vma", "goes"),
    [
        ({}, True),
        ({"kind": VmaKind.FILE}, True),
        ({"kind": VmaKind.FILE, "program": True}, False),
        ({"kind": VmaKind.FILE, "program": True, "exclusive": True}, False),
        ({"shared": True}, False),
        ({"kind": VmaKind.SHMEM}, False),
        ({"kind": VmaKind.HUGETLB}, False),
        ({"kind": VmaKind.SPECIAL}, False),
        ({"mempolicies_at": None, "page_bytes": None}, True),
    ],
)
def test_which_mappings_may_be_evicted(vma: dict[str, Any], goes: bool) -> None:
    planned = plan([evict()], placement=make_placement({2: 256}, **vma))
    assert len(planned.plan.evictions) == goes
    assert [s.reason for s in planned.plan.rejected] == ([] if goes else [Reason.NOTHING_PRESENT])


def test_the_first_policy_claims_the_process() -> None:
    planned = plan([want(policy="a", gain=0.2), want(policy="b", gain=0.1)])
    assert [s.policy for s in planned.plan.steps] == ["a"]
    assert [(s.reason, s.detail) for s in planned.plan.rejected] == [(Reason.CLAIMED, "by policy a")]


def test_budget_goes_to_the_best_gain_for_cost_first() -> None:
    budgets = Budgets(make_rates(machine_mib=150))
    planned = plan([want(1, gain=0.1), want(2, gain=0.3), want(3, gain=0.2)], budgets=budgets)
    assert [(s.process.pid, s.budget_bytes >> 20) for s in planned.plan.steps] == [(2, 300), (3, 44)]
    assert reasons(planned) == [(1, Reason.MIGRATION_BUDGET, "again in 0.0 s")]


def test_a_move_that_costs_nothing_is_as_good_as_what_it_wins() -> None:
    budgets = Budgets(make_rates(machine_mib=100))
    free, dear = replace(want(1, gain=0.2), cost_seconds=0.0), want(2, gain=0.3)
    planned = plan([free, dear], budgets=budgets)
    assert [s.process.pid for s in planned.plan.steps] == [2]
    planned = plan([free, replace(dear, cost_seconds=2.0)], budgets=budgets)
    assert [s.process.pid for s in planned.plan.steps] == [1]


def test_room_on_the_target_is_shared_by_all_decisions() -> None:
    # of 8 GiB: high watermark 16 MiB and a tenth (819.2 MiB) stay; 300 MiB remain to fill
    planned = plan([want(1, gain=0.2), want(2, gain=0.1)], free_bytes={0: 1136 * MIB})
    assert [(s.process.pid, s.budget_bytes >> 20) for s in planned.plan.steps] == [(1, 300), (2, 44)]


def test_page_cache_not_used_lately_counts_as_room() -> None:
    snapshot = make_snapshot(make_survey(make_process(), free_bytes={0: 0}), make_placement({2: 256}))
    memory = dict(snapshot.survey.memory)
    memory[N0] = replace(memory[N0], inactive_file_bytes=2 * GIB)
    snapshot = replace(snapshot, survey=replace(snapshot.survey, memory=memory))
    assert len(make_plan(snapshot, [want()], Ledger(60.0), Budgets(make_rates()), LIMITS).plan.steps) == 1


def place(index: int, pages: dict[int, float], absent: float = 0.0, **changes: Any) -> VmaPlacement:
    return VmaPlacement(
        vma=make_vma(1, index, **changes),
        pages_by_node={NodeId(n): count for n, count in pages.items()},
        absent_pages=absent,
    )


def movable_ranges(placement: PlacementSample, target: NodeId) -> tuple[Range, ...]:
    """What may move of a sample, before any of it is in quarantine."""
    return ranges.to_ranges(ranges.without_mempolicy(ranges.candidates(placement, target)), ())


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
        (place(0, {2: 256}, kind=VmaKind.FILE, program=True), False),
        (place(0, {2: 256}, kind=VmaKind.FILE, program=True, exclusive=True), True),
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
