"""Token buckets: what is allowed now, what spending does to later, and that no rate is exceeded over any time."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.budgets import LEAST_CAPACITY_BYTES, Budgets, NodePair
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.page_status import PageStatus
from tests.unit.fakes import MIB, N0, N1, N2, N3, make_rates
from tests.unit.reports import an_eviction_outcome, an_outcome

PID, OTHER = ProcessId(100, 1), ProcessId(101, 1)
WANTED = {(N2, N0): 10_000 * MIB}


def allowed_bytes(budgets: Budgets, process: ProcessId, wanted: Mapping[NodePair, int], now: float) -> int:
    return budgets.draft(now).allow(process, wanted).budget_bytes


def allowed_mib(budgets: Budgets, now: float, process: ProcessId = PID) -> float:
    return allowed_bytes(budgets, process, WANTED, now) / MIB


def test_new_buckets_hold_what_one_tick_brings() -> None:
    assert allowed_mib(Budgets(make_rates(machine_mib=300, interval=2.0)), 5.0) == 600
    assert allowed_mib(Budgets(make_rates(process_mib=300, interval=0.5)), 5.0) == 150


def test_a_bucket_holds_at_least_two_huge_pages() -> None:
    assert allowed_mib(Budgets(make_rates(machine_mib=1, interval=0.1)), 0.0) == 4
    assert LEAST_CAPACITY_BYTES == 4 * MIB


def test_buckets_fill_with_time_up_to_their_capacity_and_a_debt_is_paid_first() -> None:
    budgets = Budgets(make_rates(machine_mib=100, interval=2.0))
    budgets.spend_bytes(PID, 350 * MIB, {}, 10.0)
    assert [allowed_mib(budgets, now) for now in (10.0, 11.0, 11.5, 12.0, 13.0, 99.0)] == [0, 0, 0, 50, 150, 200]


def test_a_clock_that_stands_still_or_is_behind_brings_nothing() -> None:
    budgets = Budgets(make_rates(machine_mib=100))
    budgets.spend_bytes(PID, 200 * MIB, {}, 10.0)
    assert allowed_mib(budgets, 10.0) == 0
    assert allowed_mib(budgets, 9.0) == 0
    budgets.spend_bytes(PID, 100 * MIB, {}, 9.0)
    assert allowed_mib(budgets, 11.0) == 0
    assert allowed_mib(budgets, 11.5) == 50


def test_each_process_and_each_pair_of_nodes_has_a_bucket_of_its_own() -> None:
    budgets = Budgets(make_rates(process_mib=100, pair_mib=200, machine_mib=10_000))
    budgets.spend_bytes(PID, 200 * MIB, {(N2, N0): 300 * MIB}, 0.0)
    draft = budgets.draft(0.0)
    assert draft.allow(PID, {(N1, N0): MIB}).reason is Reason.PROCESS_BUDGET
    assert draft.allow(OTHER, {(N1, N0): 1000 * MIB}).budget_bytes == 200 * MIB
    assert draft.allow(OTHER, WANTED).budget_bytes == 100 * MIB
    assert draft.allow(OTHER, WANTED).reason is Reason.NODE_PAIR_BUDGET
    assert draft.allow(OTHER, {(N0, N2): 1000 * MIB}).budget_bytes == 200 * MIB  # the way back is another bucket


def test_an_outcome_spends_what_was_submitted_and_of_each_pair_what_moved() -> None:
    budgets = Budgets(make_rates(machine_mib=100, process_mib=100, pair_mib=100, interval=1.0))
    mib = 256
    outcome = an_outcome(
        PID, pages={PageStatus.MOVED: 30 * mib, PageStatus.BUSY: 10 * mib}, moved_from={2: 10 * mib, 3: 20 * mib}
    )
    budgets.spend(outcome, 0.0)
    draft = budgets.draft(0.0)
    assert draft.allow(PID, {}).budget_bytes == 60 * MIB
    assert draft.allow(OTHER, {}).budget_bytes == 60 * MIB
    assert draft.allow(OTHER, {(N2, N0): 95 * MIB}).budget_bytes == 60 * MIB
    budgets = Budgets(make_rates(pair_mib=100, interval=1.0))
    budgets.spend(replace(outcome, step=replace(outcome.step, target_of={N2: N1, N3: N0})), 0.0)
    left = [allowed_bytes(budgets, OTHER, {pair: 1000 * MIB}, 0.0) // MIB for pair in ((N2, N1), (N3, N0), (N2, N0))]
    assert left == [90, 80, 100]


def test_promises_are_kept_apart_from_what_was_spent() -> None:
    budgets = Budgets(make_rates(machine_mib=100, interval=1.0))
    draft = budgets.draft(0.0)
    draft.promise(PID, WANTED, 70 * MIB)
    assert draft.allow(OTHER, {}).budget_bytes == 30 * MIB
    assert allowed_mib(budgets, 0.0) == 100


@pytest.mark.parametrize(
    ("wanted_mib", "spent_mib", "mib"),
    [
        pytest.param({N1: 64, N2: 192}, {}, 64 + 100, id="one is short: no more than is wanted of the other"),
        pytest.param({N1: 64, N2: 100}, {}, 200, id="none is short: all that they hold"),
        pytest.param({N1: 64, N2: 192}, {N1: 300}, 100, id="a debt of one is none of the other's"),
        pytest.param({N1: 64, N2: 192}, {N1: 90}, 10 + 100, id="little is left of one"),
        pytest.param({N1: 64}, {N1: 300}, 0, id="a debt"),
    ],
)
def test_what_comes_over_several_links_at_once(
    wanted_mib: dict[NodeId, int], spent_mib: dict[NodeId, int], mib: int
) -> None:
    budgets = Budgets(make_rates(pair_mib=50))
    budgets.spend_bytes(OTHER, 0, {(node, N0): spent * MIB for node, spent in spent_mib.items()}, 0.0)
    wanted = {(node, N0): size * MIB for node, size in wanted_mib.items()}
    assert allowed_bytes(budgets, PID, wanted, 0.0) == mib * MIB


def test_a_promise_takes_of_each_link_what_is_wanted_and_there() -> None:
    draft = Budgets(make_rates(pair_mib=50)).draft(0.0)
    draft.promise(PID, {(N1, N0): 64 * MIB, (N2, N0): 192 * MIB}, 120 * MIB)
    left = [draft.allow(OTHER, {(node, N0): 1000 * MIB}).budget_bytes // MIB for node in (N1, N2)]
    assert left == [36, 44]
    draft.promise(PID, {(N1, N0): 64 * MIB, (N2, N0): 192 * MIB}, 1000 * MIB)
    left = [draft.allow(OTHER, {(node, N0): 1000 * MIB}).budget_bytes // MIB for node in (N1, N2)]
    assert left == [0, 0]


@pytest.mark.parametrize(
    ("rates", "spent_mib", "told"),
    [
        ({"machine_mib": 10}, {"size": 20}, (Reason.MIGRATION_BUDGET, "again in 0.2 s")),
        ({"machine_mib": 10}, {"size": 60}, (Reason.MIGRATION_BUDGET, "again in 4.2 s")),
        ({"machine_mib": 10}, {"size": 19}, (Reason.MIGRATION_BUDGET, "again in 0.1 s")),
        ({"machine_mib": 10}, {"size": 17}, (Reason.MIGRATION_BUDGET, "again in 0.0 s")),
        ({"process_mib": 5}, {"size": 20}, (Reason.PROCESS_BUDGET, "again in 2.4 s")),
        ({"pair_mib": 10}, {"pair": 30}, (Reason.NODE_PAIR_BUDGET, "node 1 to 0, node 2 to 0; again in 0.0 s")),
        (
            {"pair_mib": 10},
            {"pair": 30, "other": 50},
            (Reason.NODE_PAIR_BUDGET, "node 1 to 0, node 2 to 0; again in 1.2 s"),
        ),
    ],
)
def test_the_bucket_that_binds_is_told_with_when_it_lets_a_step_begin(
    rates: dict[str, float], spent_mib: dict[str, int], told: tuple[Reason, str]
) -> None:
    budgets = Budgets(make_rates(**rates))
    moved = {(N2, N0): spent_mib.get("pair", 0) * MIB, (N1, N0): spent_mib.get("other", 0) * MIB}
    budgets.spend_bytes(PID, spent_mib.get("size", 0) * MIB, moved, 0.0)
    allowance = budgets.draft(0.0).allow(PID, {(N2, N0): 1000 * MIB, (N1, N0): 20 * MIB} if "pair" in spent_mib else {})
    assert (allowance.reason, allowance.detail) == told


def test_what_is_over_full_is_forgotten_too_once_the_rate_is_lower() -> None:
    budgets = Budgets(make_rates(process_mib=100, machine_mib=10_000))
    budgets.spend_bytes(PID, MIB, {}, 0.0)
    budgets.set_rates(make_rates(process_mib=10, machine_mib=10_000))
    budgets.forget_full(0.0)
    assert budgets._processes._kept == {}
    assert allowed_mib(budgets, 0.0) == 20


def test_other_rates_keep_what_was_spent() -> None:
    budgets = Budgets(make_rates(machine_mib=100))
    budgets.spend_bytes(PID, 300 * MIB, {}, 0.0)
    budgets.set_rates(make_rates(machine_mib=200))
    assert [allowed_mib(budgets, now) for now in (0.0, 0.5, 1.0, 9.0)] == [0, 0, 100, 400]


def test_evictions_have_a_rate_of_their_own() -> None:
    budgets = Budgets(make_rates(machine_mib=1, evict_mib=10))
    budgets.spend_eviction(an_eviction_outcome(PID, evicted_pages=2000, kept_pages=560), 0.0)
    assert budgets.allowed_eviction_bytes(0.0) == 10 * MIB
    assert allowed_mib(budgets, 0.0) == 4


def test_what_is_full_again_is_forgotten_and_a_debt_is_not() -> None:
    budgets = Budgets(make_rates(process_mib=10, machine_mib=10_000))
    budgets.spend_bytes(PID, 40 * MIB, {}, 0.0)
    budgets.forget_full(3.0)
    assert allowed_mib(budgets, 3.0) == 10
    budgets.forget_full(4.0)
    assert budgets._processes._kept == {}
    assert allowed_mib(budgets, 4.0) == 20


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 1.0)), min_size=1, max_size=60),
    rate_mib=st.integers(1, 500),
    interval=st.floats(0.1, 10.0),
)
def test_over_any_time_what_is_spent_as_allowed_never_exceeds_rate_and_capacity(
    steps: list[tuple[float, float]], rate_mib: int, interval: float
) -> None:
    budgets = Budgets(
        make_rates(machine_mib=rate_mib, process_mib=2 * rate_mib, pair_mib=4 * rate_mib, interval=interval)
    )
    capacity = max(rate_mib * MIB * interval, LEAST_CAPACITY_BYTES)
    now, spent = 0.0, 0
    for wait, share in steps:
        now += wait
        size = int(share * allowed_bytes(budgets, PID, WANTED, now))
        budgets.spend_bytes(PID, size, {(N2, N0): size}, now)
        spent += size
        assert spent <= rate_mib * MIB * now + capacity + 1


@given(
    overshoots=st.lists(st.integers(0, 64 * MIB), min_size=1, max_size=40),
    rate_mib=st.integers(1, 100),
)
def test_steps_that_take_more_than_allowed_pay_for_it_later(overshoots: list[int], rate_mib: int) -> None:
    """Whoever starts only when something is allowed, and takes too much each time, is one overshoot ahead at most."""
    budgets = Budgets(make_rates(machine_mib=rate_mib, interval=1.0))
    capacity = max(rate_mib * MIB, LEAST_CAPACITY_BYTES)
    now, spent = 0.0, 0
    for overshoot in overshoots:
        while not (allowance := allowed_bytes(budgets, PID, {}, now)):
            now += 0.25
        spent += allowance + overshoot
        budgets.spend_bytes(PID, allowance + overshoot, {}, now)
        assert spent <= rate_mib * MIB * now + capacity + max(overshoots) + len(overshoots)


@pytest.mark.parametrize("pairs", [{}, {(NodeId(1), NodeId(0)): 5}])
def test_an_allowance_is_never_negative(pairs: dict[tuple[NodeId, NodeId], int]) -> None:
    budgets = Budgets(make_rates(machine_mib=1))
    budgets.spend_bytes(PID, 1000 * MIB, {(N1, N0): 10_000 * MIB}, 0.0)
    assert allowed_bytes(budgets, PID, pairs, 0.0) == 0
