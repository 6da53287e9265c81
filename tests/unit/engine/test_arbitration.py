"""Who has a process when several policies want it: by place, whoever holds it, and nodes that are being emptied."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.budgets import Budgets
from balancerd.engine.ledger import Ledger
from balancerd.engine.plan import PlanLimits, Planned, make_plan
from balancerd.model.decision import Decision, Eviction, Reason, Skip, Steer
from balancerd.model.extent import Extent
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.migration import FailedRun
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import Mempolicy
from tests.unit.fakes import (
    MIB,
    N0,
    N1,
    N2,
    N3,
    VMA_START,
    make_placement,
    make_process,
    make_rates,
    make_snapshot,
    make_survey,
)
from tests.unit.reports import an_outcome

PLACES = {"fixed": -2, "cpusets": -1, "home": 0, "empty": 1, "late": 2}
LIMITS = PlanLimits(budget_seconds=1.0, watermark_ratio=0.02, places=PLACES)


def want(policy: str, pid: int = 100, target: int = 0, **changes: Any) -> Decision:
    decision = Decision(
        policy=policy,
        process=ProcessId(pid, 1),
        target=NodeId(target),
        misplaced_bytes=256 * MIB,
        gain_cores=0.1,
        cost_seconds=1.0,
    )
    return replace(decision, **changes)


def evict(policy: str, pid: int = 100) -> Eviction:
    return Eviction(policy=policy, process=ProcessId(pid, 1), evict_bytes=64 * MIB)


def plan(
    wanted: Iterable[Decision | Eviction | Steer],
    *,
    held: Mapping[int, float] | None = None,
    kept: tuple[Skip, ...] = (),
    closed: dict[NodeId, str] | None = None,
    ledger: Ledger | None = None,
    spent_mib: int = 0,
    **survey: Any,
) -> Planned:
    asked = tuple(wanted)
    pids = sorted({each.process.pid for each in asked})
    placements = [make_placement({2: 256} if held is None else held, pid=pid) for pid in pids]
    snapshot = make_snapshot(make_survey(*(make_process(pid) for pid in pids), **survey), *placements)
    budgets = Budgets(make_rates())
    budgets.spend_bytes(ProcessId(999, 1), spent_mib * MIB, {}, 0.0)
    return make_plan(snapshot, asked, ledger or Ledger(60.0), budgets, LIMITS, kept=kept, closed=closed)


def steps(planned: Planned) -> list[tuple[int, str]]:
    return [(step.process.pid, step.policy) for step in planned.plan.steps]


def rejected(planned: Planned) -> list[tuple[Reason, str]]:
    return [(skip.reason, skip.detail) for skip in planned.plan.rejected]


@pytest.mark.parametrize("first", ["fixed", "cpusets", "home", "empty"])
def test_the_policy_of_the_lower_place_has_the_process_whatever_the_others_win(first: str) -> None:
    others = [name for name in PLACES if PLACES[name] > PLACES[first]]
    wanted = [want(name, target=1, gain_cores=9.0) for name in others] + [want(first, gain_cores=0.0)]
    planned = plan(wanted)
    assert steps(planned) == [(100, first)]
    assert rejected(planned) == [(Reason.CLAIMED, f"by policy {first}")] * len(others)


def test_budget_goes_by_place_before_gain_and_before_passes_under_way() -> None:
    ledger = Ledger(60.0)
    ledger.record(an_outcome(ProcessId(2, 1), resume_at=VMA_START + MIB), 0.0)
    planned = plan([want("late", 2, gain_cores=9.0), want("home", 1, gain_cores=0.01)], ledger=ledger, spent_mib=2040)
    assert [step.process.pid for step in planned.plan.steps] == [1]


def test_a_policy_without_a_place_comes_last() -> None:
    assert steps(plan([want("unknown", gain_cores=9.0), want("late")])) == [(100, "late")]


@pytest.mark.parametrize("other", [want("home", target=1), want("late", target=1), evict("home")])
def test_a_decision_that_holds_keeps_the_others_away_even_when_it_is_turned_down(other: Decision | Eviction) -> None:
    planned = plan([want("fixed", target=0, holds=True), other], free_bytes={0: 0})
    assert not planned.plan.steps
    assert not planned.plan.evictions
    assert rejected(planned) == [
        (Reason.TARGET_FULL, "node 0: 0 MiB available"),
        (Reason.CLAIMED, "by policy fixed, which wants to move it"),
    ]


def test_a_decision_that_does_not_hold_and_cannot_be_done_lets_the_next_one_have_its_turn() -> None:
    assert steps(plan([want("home", target=0), want("late", target=1)], free_bytes={0: 0})) == [(100, "late")]


def test_a_decision_that_only_waits_keeps_its_process() -> None:
    planned = plan([want("home", target=0), want("late", target=1)], spent_mib=2048)
    assert [reason for reason, _ in rejected(planned)] == [Reason.MIGRATION_BUDGET, Reason.CLAIMED]
    assert rejected(planned)[1][1] == "by policy home, which wants to move it"


@pytest.mark.parametrize(
    ("by", "policy", "moves"),
    [("fixed", "home", False), ("fixed", "cpusets", False), ("home", "fixed", True), ("fixed", "fixed", True)],
)
def test_a_skip_that_holds_keeps_later_policies_away_and_no_earlier_one(by: str, policy: str, moves: bool) -> None:
    skip = Skip(by=by, process=ProcessId(100, 1), reason=Reason.NEVER, detail="rule 1", holds=True)
    planned = plan([want(policy)], kept=(skip,))
    assert bool(planned.plan.steps) is moves
    if not moves:
        assert rejected(planned) == [(Reason.CLAIMED, f"by policy {by}, never: rule 1")]


def test_nothing_is_evicted_of_who_is_never_moved() -> None:
    skip = Skip(by="fixed", process=ProcessId(100, 1), reason=Reason.NEVER, holds=True)
    planned = plan([evict("home")], kept=(skip,))
    assert not planned.plan.evictions
    assert rejected(planned) == [(Reason.CLAIMED, "by policy fixed, never")]


@pytest.mark.parametrize(
    ("policy", "target", "moves"),
    [("home", 0, False), ("empty", 0, False), ("home", 1, True), ("fixed", 0, True), ("cpusets", 0, True)],
)
def test_nothing_goes_to_a_node_that_is_being_emptied_but_by_rules_and_cpusets(
    policy: str, target: int, moves: bool
) -> None:
    planned = plan([want(policy, target=target)], closed={N0: "empty"})
    assert bool(planned.plan.steps) is moves
    if not moves:
        assert rejected(planned) == [(Reason.NODE_CLOSED, "node 0, by policy empty")]


@pytest.mark.parametrize(
    ("policy", "target", "goes"),
    [("home", 0, False), ("empty", 0, False), ("home", 1, True), ("fixed", 0, True), ("cpusets", 0, True)],
)
def test_nor_do_threads(policy: str, target: int, *, goes: bool) -> None:
    cpus = frozenset({CpuId(target)})
    steer = Steer(
        policy=policy, process=ProcessId(100, 1), target=NodeId(target), cpus=cpus, gain_cores=0.1, cost_seconds=0.01
    )
    planned = plan([steer], closed={N0: "empty"})
    assert bool(planned.plan.steers) is goes
    assert rejected(planned) == ([] if goes else [(Reason.NODE_CLOSED, "node 0, by policy empty")])


def test_pages_of_the_named_sources_move_and_pages_of_others_stay() -> None:
    planned = plan([want("empty", target=1, sources=frozenset({N2, N3}))], held={0: 100, 2: 56, 3: 100})
    (step,) = planned.plan.steps
    assert step.target_of == {N1: N1, N2: N1, N3: N1}
    assert not step.is_part


def test_a_mapping_without_pages_on_the_sources_is_not_walked() -> None:
    planned = plan([want("empty", target=1, sources=frozenset({N3}))], held={0: 256})
    assert not planned.plan.steps


def test_what_is_stuck_on_the_sources_is_left_alone_though_other_nodes_hold_much() -> None:
    ledger = Ledger(1.0)
    stuck = FailedRun(start=VMA_START, end=VMA_START + 10 * MIB, page_bytes=4096, status=PageStatus.SHARED)
    pages = {PageStatus.MOVED: 10 * MIB, PageStatus.SHARED: 10 * MIB // 4096}
    ledger.record(replace(an_outcome(ProcessId(100, 1), target=1, pages=pages), failed_runs=(stuck,)), 0.0)
    decision = want("empty", target=1, sources=frozenset({N2}), misplaced_bytes=10 * MIB)
    planned = plan([decision], held={0: 246, 2: 10}, ledger=ledger, at=5.0)
    assert [reason for reason, _ in rejected(planned)] == [Reason.QUARANTINE]


def test_a_pass_over_parts_goes_on_where_it_stopped() -> None:
    ledger = Ledger(60.0)
    ledger.record(an_outcome(ProcessId(100, 1), target=1, resume_at=VMA_START + 8 * MIB), 0.0)
    parts = (Extent(VMA_START, VMA_START + 2 * MIB), Extent(VMA_START + 8 * MIB, VMA_START + 10 * MIB))
    (step,) = plan([want("fixed", target=1, extents=parts, is_pass=True)], ledger=ledger).plan.steps
    assert (step.is_part, step.resume_at) == (False, VMA_START + 8 * MIB)
    assert [(each.start, each.end) for each in step.ranges] == [tuple(part) for part in parts]


def test_mempolicies_of_what_is_on_the_sources_do_not_hold_the_whole_process() -> None:
    bound = make_placement({0: 100, 2: 156}, mempolicy=Mempolicy(mode="bind", nodes=frozenset({N2})))
    for sources, n_held in ((frozenset({N2}), 0), (None, 1)):
        snapshot = make_snapshot(make_survey(make_process()), bound)
        decision = want("empty", target=1, sources=sources)
        planned = make_plan(snapshot, [decision], Ledger(60.0), Budgets(make_rates()), LIMITS)
        assert rejected(planned) == [(Reason.MEMPOLICY, "bind:2")]
        assert len(planned.turn_down) == n_held


ANY_DECISION = st.builds(
    lambda policy, pid, target, holds, gain: want(policy, pid, target, holds=holds, gain_cores=gain),
    st.sampled_from(sorted(PLACES)),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.floats(0.0, 1.0),
)
ANY_SKIP = st.builds(
    lambda by, pid: Skip(by=by, process=ProcessId(pid, 1), reason=Reason.NEVER, holds=True),
    st.sampled_from(sorted(PLACES)),
    st.integers(1, 4),
)


@given(
    wanted=st.lists(ANY_DECISION, min_size=1, max_size=12, unique_by=lambda d: (d.policy, d.process)),
    kept=st.lists(ANY_SKIP, max_size=3),
    closed=st.sets(st.integers(0, 3), max_size=2),
    full=st.sets(st.integers(0, 3), max_size=2),
)
def test_whatever_is_wanted_each_process_has_one_policy_and_nobody_passes_who_holds_it(
    wanted: list[Decision], kept: list[Skip], closed: set[int], full: set[int]
) -> None:
    planned = plan(
        wanted,
        kept=tuple(kept),
        closed={NodeId(n): "empty" for n in closed},
        free_bytes=dict.fromkeys(full, 0),
    )
    by_process: dict[ProcessId, set[str]] = {}
    for step in planned.plan.steps:
        by_process.setdefault(step.process, set()).add(step.policy)
        assert step.target not in closed or PLACES[step.policy] < 0
        assert step.target not in full
        holders = [d.policy for d in wanted if d.process == step.process and d.holds]
        holders += [skip.by for skip in kept if skip.process == step.process]
        assert all(PLACES[step.policy] <= PLACES[name] for name in holders)
    assert all(len(policies) == 1 for policies in by_process.values())
    assert len(planned.plan.steps) + len(planned.plan.rejected) == len(wanted), "each is a step or a skip"
