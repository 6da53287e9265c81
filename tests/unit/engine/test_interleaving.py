"""Where regions go by their address, and how uneven the use of nodes is."""

from collections import Counter
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.interleaving import bandwidth_weights, crowding, equal_weights, imbalance, node_of_region
from balancerd.model.access import REGION_BYTES
from balancerd.model.ids import NodeId
from balancerd.model.machine import Link, Machine, NodeState
from tests.unit.fakes import N0, N1, N2, N3, VMA_START

EVEN = equal_weights((N0, N1, N2, N3))
ADDRESSES = st.integers(min_value=0, max_value=(1 << 47) - 1)
PARTS = st.lists(st.integers(min_value=1, max_value=10), min_size=1, max_size=8)


def by_parts(parts: list[int]) -> dict[NodeId, float]:
    return {NodeId(n): part / sum(parts) for n, part in enumerate(parts)}


@given(ADDRESSES, PARTS)
def test_every_address_of_a_region_belongs_to_the_same_one_node(address: int, parts: list[int]) -> None:
    weights = by_parts(parts)
    start = address // REGION_BYTES * REGION_BYTES
    assert node_of_region(address, weights) in weights
    assert node_of_region(address, weights) == node_of_region(start, weights)
    assert node_of_region(start + REGION_BYTES - 1, dict(reversed(weights.items()))) == node_of_region(start, weights)


@given(ADDRESSES, PARTS, st.integers(min_value=1, max_value=400), st.sampled_from((1, 2, 4)))
def test_of_any_regions_in_a_row_each_node_gets_its_share_to_within_a_few(
    address: int, parts: list[int], number: int, stride: int
) -> None:
    weights = by_parts(parts)
    got = Counter(node_of_region(address + i * stride * REGION_BYTES, weights) for i in range(number))
    assert all(abs(got[node] - number * weight) <= 5 for node, weight in weights.items())


def test_half_the_regions_of_a_node_that_leaves_go_to_each_of_the_others_and_those_stay_mostly() -> None:
    three, two = {N0: 0.25, N1: 0.5, N2: 0.25}, {N0: 0.5, N2: 0.5}
    starts = [VMA_START + i * REGION_BYTES for i in range(1000)]
    changed = [s for s in starts if node_of_region(s, three) != node_of_region(s, two)]
    assert {node_of_region(s, three) for s in changed} == {N1}
    assert Counter(node_of_region(s, two) for s in changed) == pytest.approx({N0: 250, N2: 250}, abs=3)


def a_machine(*rates: float | None) -> Machine:
    links = [
        Link(
            read_latency_seconds=1e-7,
            write_latency_seconds=None,
            read_bytes_per_second=rate,
            write_bytes_per_second=None,
            initiators=frozenset({N0}),
        )
        for rate in rates
    ]
    return Machine(nodes={NodeId(n): NodeState(node=NodeId(n), link=link) for n, link in enumerate(links)})


@pytest.mark.parametrize(
    ("machine", "weights"),
    [
        pytest.param(None, {N0: 0.5, N1: 0.5}, id="nothing is known"),
        pytest.param(a_machine(3e10, 1e10, 9e10), {N0: 0.75, N1: 0.25}, id="by bandwidth, of these nodes only"),
        pytest.param(a_machine(3e10, None), {N0: 0.5, N1: 0.5}, id="of one it is not told"),
        pytest.param(a_machine(3e10), {N0: 0.5, N1: 0.5}, id="a node is not told of"),
        pytest.param(Machine(nodes={n: NodeState(node=n) for n in (N0, N1)}), {N0: 0.5, N1: 0.5}, id="no HMAT"),
    ],
)
def test_weights_are_as_fast_as_the_memory_is_or_equal(machine: Machine | None, weights: dict[NodeId, float]) -> None:
    assert bandwidth_weights((N1, N0), machine) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("load", "weights", "expected"),
    [
        pytest.param({N0: 1.0}, EVEN, 4.0, id="all on one of four"),
        pytest.param(EVEN, EVEN, 1.0, id="even"),
        pytest.param({N0: 0.5, N1: 0.5}, EVEN, 2.0, id="on two of four"),
        pytest.param({N0: 0.75, N1: 0.25}, {N0: 0.75, N1: 0.25}, 1.0, id="by weight"),
        pytest.param({N2: 1.0}, {N0: 0.5, N1: 0.5}, 2.0, id="on a node that is none of them"),
        pytest.param({N2: 0.5, N3: 0.5}, {N0: 0.5, N1: 0.5}, 1.0, id="even, but elsewhere"),
        pytest.param({N0: 1.0}, {}, 1.0, id="nowhere to go"),
    ],
)
def test_crowding_is_how_much_load_an_access_meets(
    load: dict[NodeId, float], weights: dict[NodeId, float], expected: float
) -> None:
    assert crowding(load, weights) == pytest.approx(expected)


@given(st.lists(st.integers(min_value=0, max_value=1000), min_size=2, max_size=16).filter(any))
def test_with_equal_weights_imbalance_is_the_standard_deviation_over_the_mean(counts: list[int]) -> None:
    load = {NodeId(n): count / sum(counts) for n, count in enumerate(counts)}
    assert imbalance(load, equal_weights(load)) == pytest.approx(pstdev(counts) / fmean(counts), abs=1e-6)
