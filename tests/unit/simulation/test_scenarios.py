"""The default configuration in the shipped scenarios under each scheduler: what it must never do, and what it costs."""

import statistics

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balancerd.simulation import loading
from balancerd.simulation.judge import judge
from balancerd.simulation.run import run_engine, run_without
from balancerd.simulation.scenario import Scenario, SchedulerKind
from tests.bench.bench_dwell import lost_by_wandering
from tests.simulations import KINDS, is_memory_bound, make_means, random_scenario, under
from tests.unit.simulation.machines import GIB

LARGE = {"ten-thousand", "fleet-month", "thirty-two-nodes", "eight-nodes"}
SMALL = [name for name in loading.shipped() if name not in LARGE]
SETTLED = ("crossed", "memory-bound", "overcommitted", "phases", "shared-threads", "single-misplaced")
"""Those in which nobody wanders, comes or goes."""

SECONDS = 1200.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_the_work_never_takes_longer_than_under_nobody(name: str, kind: SchedulerKind) -> None:
    scenario = under(loading.load(name), kind, SECONDS)
    found = judge(scenario, 1, make_means(), with_optimum=False)
    assert found.engine.policy_errors == {}
    assert found.engine.accounts.oscillated_bytes == 0
    assert found.to_nothing_ratio is not None
    assert found.to_nothing_ratio <= 1.01


@pytest.mark.parametrize("kind", ["sticky", "balancing"])
@pytest.mark.parametrize("name", SETTLED)
def test_what_has_settled_rests(name: str, kind: SchedulerKind) -> None:
    run = run_engine(under(loading.load(name), kind, SECONDS), 1, make_means())
    assert run.steady_ratio_per_hour is not None
    assert run.steady_ratio_per_hour < 0.001
    assert run.accounts.returned_bytes == 0
    assert run.accounts.moved_bytes > 0


def test_on_average_the_work_takes_no_more_than_a_twentieth_longer_than_at_the_optimum() -> None:
    pytest.importorskip("scipy", reason="the optimum needs SciPy: the extra `optimum`")
    ratios = []
    for name in SETTLED:
        for kind in KINDS:
            found = judge(under(loading.load(name), kind, SECONDS), 1, make_means())
            assert found.nothing.load_ratio <= 0.85
            assert found.to_optimum_ratio is not None
            ratios.append(found.to_optimum_ratio)
    assert statistics.fmean(ratios) <= 1.05


def wanderer(stay_seconds: float, *, seconds: float) -> Scenario:
    scenario = loading.load("wander-60")
    (group,) = scenario.groups
    alone = group.model_copy(update={"stays_seconds": stay_seconds, "count": 1, "memory_bytes": GIB})
    return scenario.model_copy(update={"groups": (alone,), "duration_seconds": seconds})


@pytest.mark.parametrize(
    ("stay_seconds", "seconds", "most"),
    [
        pytest.param(5.0, 7200.0, 6.6, id="5 s"),
        pytest.param(60.0, 7200.0, 3.9, id="60 s"),
        pytest.param(300.0, 14400.0, 0.7, id="300 s"),
        pytest.param(1200.0, 28800.0, 0.2, id="1200 s"),
    ],
)
def test_wanderers_lose_what_the_table_of_dwell_times_says(stay_seconds: float, seconds: float, most: float) -> None:
    """Percent of the run time, on two nodes at distance 21; the same by the policy alone, beside which it is held."""
    scenario = wanderer(stay_seconds, seconds=seconds)
    nothing, engine = (
        100 * run.accounts.lost_seconds / run.accounts.run_seconds
        for run in (run_without(scenario, 1), run_engine(scenario, 1, make_means()))
    )
    alone = lost_by_wandering(stay_seconds, 2, 1.0, seconds=seconds, bytes_per_second=2.0 * GIB)["follow-cpu"]
    assert nothing == pytest.approx(6.6, rel=0.5)  # away for half of the time, but for the chance of few stays
    assert engine <= 1.01 * nothing + 0.1
    assert engine <= 1.1 * most
    assert engine == pytest.approx(alone, rel=0.2, abs=0.2)


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    scenario = under(loading.load("storm"), "random", 300.0)
    first, second, other = (run_engine(scenario, seed, make_means()) for seed in (1, 1, 2))
    assert first == second
    assert other.accounts != first.accounts


def test_threads_go_the_same_ways_whoever_moves_memory() -> None:
    scenario = under(loading.load("phases"), "random", 600.0)
    engine, nothing = run_engine(scenario, 3, make_means()), run_without(scenario, 3)
    assert engine.accounts.moved_bytes > 0
    assert engine.accounts.thread_moves == nothing.accounts.thread_moves > 0
    assert engine.accounts.run_seconds == pytest.approx(nothing.accounts.run_seconds)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_no_memory_goes_to_and_fro_and_nothing_takes_longer_in_scenarios_by_chance(seed: int) -> None:
    """A thousand of them are in tests/bench. What is hardly memory-bound wins less than the gate believes."""
    scenario = random_scenario(seed)
    found = judge(scenario, seed, make_means(), with_optimum=False)
    assert found.engine.policy_errors == {}
    assert found.engine.accounts.oscillated_bytes == 0
    if found.to_nothing_ratio is not None:
        assert found.to_nothing_ratio <= (1.01 if is_memory_bound(scenario) else 1.02)
