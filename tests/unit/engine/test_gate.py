"""The gate's arithmetic against figures worked out by hand."""

import pytest

from balancerd.engine.gate import (
    access_gain_cores,
    copy_bytes_per_second,
    cost_seconds,
    gain_cores,
    is_worth,
    remoteness,
    spread_gain_cores,
)
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
        pytest.param(3.0, 8, 0.25, 2.5, 1.25, 0.07875, id="a bit of each"),
        pytest.param(1.0, 1, 0.0, 3.0, 1.0, 0.24, id="one CPU"),
        pytest.param(4.0, 0, -1.0, 2.0, 1.0, 0.0, id="nodes without CPUs"),
    ],
)
def test_a_spread_wins_by_what_gets_less_crowded_and_loses_by_what_gets_farther(
    busy: float, n_cpus: int, farther: float, before: float, after: float, gain: float
) -> None:
    assert spread_gain_cores(busy, n_cpus, farther, before, after) == pytest.approx(gain)


@pytest.mark.parametrize(
    ("busy", "share", "pages", "gain"),
    [
        pytest.param(1.0, 1.0, {2: 7.0}, 0.132, id="all of it at distance 21"),
        pytest.param(2.0, 0.25, {2: 0.5}, 0.066, id="a quarter of the accesses of two cores, to less than a page"),
        pytest.param(1.0, 1.0, {0: 300.0, 3: 100.0}, 0.063, id="a quarter of the pages at distance 31"),
        pytest.param(1.0, 1.0, {0: 5.0}, 0.0, id="there already"),
        pytest.param(1.0, 1.0, {2: 0.0}, 0.0, id="no page"),
        pytest.param(1.0, 1.0, {}, 0.0, id="nowhere"),
    ],
)
def test_what_the_accesses_that_were_seen_win(busy: float, share: float, pages: dict[int, float], gain: float) -> None:
    held = {NodeId(node): number for node, number in pages.items()}
    assert access_gain_cores(busy, share, NodeId(0), held, make_topology()) == pytest.approx(gain)


@pytest.mark.parametrize(
    ("version", "gib"), [((5, 19), 1), ((6, 2), 1), ((6, 3), 2), ((6, 12), 2), ((7, 0), 2), ((4, 99), 1)]
)
def test_a_kernel_that_unmaps_in_batches_copies_twice_as_fast(version: tuple[int, int], gib: int) -> None:
    assert copy_bytes_per_second(version) == gib * GIB


@pytest.mark.parametrize(("moved", "a_second", "seconds"), [(GIB, GIB, 2.0), (3 * GIB, 2 * GIB, 3.0), (0, GIB, 0.0)])
def test_a_gigabyte_at_a_gigabyte_a_second_costs_two_seconds(moved: float, a_second: float, seconds: float) -> None:
    assert cost_seconds(moved, a_second) == pytest.approx(seconds)


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
