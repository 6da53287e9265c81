"""Which nodes are slow and how slow, bins of heat and their threshold, and what a node has to spare."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from balancerd.engine.tiers import BINS, bin_of, extra_latency, fast_nodes, slow_nodes, spare_bytes, threshold
from balancerd.model.ids import NodeId
from balancerd.model.machine import Link, Machine, NodeState
from balancerd.model.topology import NodeMemory
from tests.unit.fakes import GIB, MIB, N0, N1, N2
from tests.unit.policies.tiers import make_tiers


def machine(tiers: Mapping[int, int], latencies: Mapping[int, float] | None = None) -> Machine:
    """Every link is that of node 0."""
    states = {}
    for node in range(3):
        latency = (latencies or {}).get(node)
        link = Link(
            read_latency_seconds=latency,
            write_latency_seconds=None,
            read_bytes_per_second=None,
            write_bytes_per_second=None,
            initiators=frozenset({N0}),
        )
        states[NodeId(node)] = NodeState(node=NodeId(node), tier=tiers.get(node), link=link if latency else None)
    return Machine(nodes=states)


@pytest.mark.parametrize(
    ("tiers", "slow"),
    [
        pytest.param({}, {N2}, id="no tiers"),
        pytest.param({0: 4, 1: 4, 2: 22}, {N2}, id="slower"),
        pytest.param({0: 4, 1: 4, 2: 4}, {N2}, id="as the kernel has it without an HMAT"),
        pytest.param({0: 4, 1: 4, 2: 2}, set(), id="HBM"),
        pytest.param({2: 2}, {N2}, id="nothing to compare with"),
    ],
)
def test_memory_only_nodes_are_slow_unless_the_kernel_has_them_in_a_faster_tier(
    tiers: Mapping[int, int], slow: set[NodeId]
) -> None:
    assert slow_nodes(make_tiers(), machine(tiers)) == slow
    assert slow_nodes(make_tiers(), None) == {N2}
    assert fast_nodes(make_tiers()) == {N0, N1}


def test_a_memoryless_node_is_neither() -> None:
    topology = make_tiers()
    nodes = tuple(replace(node, total_bytes=0) for node in topology.nodes)
    assert slow_nodes(replace(topology, nodes=nodes), None) == fast_nodes(replace(topology, nodes=nodes)) == set()


@pytest.mark.parametrize(("user", "memory", "extra"), [(0, 0, 0.0), (0, 2, 2.5), (1, 2, 5.0), (1, 1, 0.0), (1, 0, 1.0)])
def test_latencies_count_where_the_hmat_tells_both_else_distances(user: int, memory: int, extra: float) -> None:
    known = machine({}, {0: 100e-9, 2: 350e-9})
    assert extra_latency(NodeId(user), NodeId(memory), make_tiers(), known) == pytest.approx(extra)


def test_without_an_hmat_distance_is_all() -> None:
    assert extra_latency(N0, N2, make_tiers(), None) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("heat", "number"), [(0.0, 0), (1e-9, 0), (2**-15, 1), (0.2, 13), (0.25, 14), (0.49, 14), (0.5, 15), (1.0, 15)]
)
def test_each_bin_is_twice_as_hot_as_the_one_before(heat: float, number: int) -> None:
    assert bin_of(heat) == number


@pytest.mark.parametrize(
    ("sizes", "capacity", "lowest"),
    [
        ({15: 4.0, 10: 4.0, 0: 4.0}, 12.0, 0),
        ({15: 4.0, 10: 4.0, 0: 4.0}, 11.9, 1),
        ({15: 4.0, 10: 4.0, 0: 4.0}, 8.0, 1),
        ({15: 4.0, 10: 4.0, 0: 4.0}, 7.9, 11),
        ({15: 4.0}, 3.9, 16),
        ({15: 4.0}, -1.0, 16),
        ({}, 0.0, 0),
    ],
)
def test_the_threshold_is_the_lowest_bin_that_fits_with_all_hotter_ones(
    sizes: Mapping[int, float], capacity: float, lowest: int
) -> None:
    assert threshold([sizes.get(number, 0.0) for number in range(BINS)], capacity) == lowest


@pytest.mark.parametrize(
    ("free", "headroom", "spare"), [(2 * GIB, 0.0, 1008), (2 * GIB, 0.1, 1008 - 1024), (0, 0.0, -1040)]
)
def test_what_a_node_lacks_is_below_zero(free: int, headroom: float, spare: int) -> None:
    memory = NodeMemory(
        node=N1, total_bytes=10 * GIB, free_bytes=free, inactive_file_bytes=0, high_watermark_bytes=16 * MIB
    )
    assert spare_bytes(memory, 0.02, headroom) == spare * MIB
