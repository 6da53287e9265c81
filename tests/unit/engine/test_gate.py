"""The gate's arithmetic against figures worked out by hand."""

import pytest

from balancerd.engine.gate import cost_seconds, gain_cores, is_worth, remoteness, spread_gain_cores
from balancerd.model.ids import NodeId
from tests.unit.fakes import GIB, make_topology


@pytest.mark.parametrize(
    ("run", "memory", "extra"),
    [
        ({0: 1.0}, {0: 1.0}, 0.0),
        ({0: 1.0}, {2: 1.0}, 1.1),
        ({0: 1.0}, {0: 0.5, 3: 0.5}, 1.05),
        ({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}, 0.1),
        ({}, {2: 1.0}, 0.0),
    ],
)
def test_remoteness_is_the_mean_extra_distance(run: dict[int, float], memory: dict[int, float], extra: float) -> None:
    ran = {NodeId(n): share for n, share in run.items()}
    held = {NodeId(n): share for n, share in memory.items()}
    assert remoteness(ran, held, make_topology()) == pytest.approx(extra)


def test_a_busy_core_at_distance_21_loses_an_eighth() -> None:
    assert gain_cores(1.0, 1.1, 0.0) == pytest.approx(0.132)
    assert gain_cores(4.0, 1.1, 0.0) == pytest.approx(0.528)


@pytest.mark.parametrize(
    ("busy", "n_cpus", "farther", "before", "after", "gain"),
    [
        pytest.param(4.0, 4, 0.0, 2.0, 1.0, 0.48, id="twice as many as the node's own, as much as distance 20"),
        pytest.param(2.0, 4, 0.0, 2.0, 1.0, 0.12, id="half as busy, a quarter"),
        pytest.param(4.0, 4, 1.0, 2.0, 1.0, 0.0, id="farther by as much"),
        pytest.param(4.0, 4, -1.0, 1.0, 1.0, 0.48, id="nearer only"),
        pytest.param(4.0, 4, 0.0, 1.0, 2.0, -0.48, id="more crowded"),
        pytest.param(4.0, 0, -1.0, 2.0, 1.0, 0.0, id="nodes without CPUs"),
    ],
)
def test_a_spread_wins_by_what_gets_less_crowded_and_loses_by_what_gets_farther(
    busy: float, n_cpus: int, farther: float, before: float, after: float, gain: float
) -> None:
    assert spread_gain_cores(busy, n_cpus, farther, before, after) == pytest.approx(gain)


def test_a_gigabyte_at_a_gigabyte_a_second_costs_two_seconds() -> None:
    assert cost_seconds(GIB, GIB) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("gain", "cost", "stay", "worth"),
    [
        (0.1, 1.0, 20.0, True),
        (0.1, 1.0, 19.9, False),
        (0.1, 15.0, 300.0, True),
        (0.1, 15.1, 1e9, False),  # nothing is expected to stay beyond the horizon
        (0.0, 0.0, 300.0, False),
        (-0.1, 0.0, 300.0, False),
    ],
)
def test_a_move_must_win_twice_its_cost_within_the_stay(gain: float, cost: float, stay: float, worth: bool) -> None:
    assert is_worth(gain, cost, stay) is worth
