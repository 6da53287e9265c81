"""A full home on a ring of four nodes: node 1 is close to node 0 (12), node 2 less so (21), node 3 is far (31)."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from balancerd.engine.overflow import find_refuge
from balancerd.engine.room import Room
from balancerd.model.ids import NodeId
from balancerd.model.topology import Topology
from tests.unit.fakes import MIB, N0, RING, make_survey, make_topology

TOPOLOGY = make_topology(RING)
PLENTY = 8192


def refuge(
    held_mib: Mapping[int, int],
    free_mib: Mapping[int, int],
    allowed: frozenset[int] | None = None,
    topology: Topology = TOPOLOGY,
) -> tuple[int, dict[int, int]] | None:
    survey = make_survey(free_bytes={node: free_mib.get(node, PLENTY) * MIB for node in range(4)}, topology=topology)
    held = {NodeId(node): mib * MIB for node, mib in held_mib.items()}
    nodes = None if allowed is None else frozenset(map(NodeId, allowed))
    found = find_refuge(N0, held, Room(survey, 0.02), topology, nodes)
    return None if found is None else (found.node, {node: size // MIB for node, size in found.farther_bytes.items()})


@pytest.mark.parametrize(
    ("held_mib", "free_mib", "expected"),
    [
        pytest.param({2: 600}, {}, None, id="there is room at home"),
        pytest.param({2: 600}, {0: 0}, (1, {2: 600}), id="the closest node"),
        pytest.param({0: 100, 2: 300, 3: 200}, {0: 0}, (1, {2: 300, 3: 200}), id="from wherever it is farther"),
        pytest.param({0: 100, 1: 300, 3: 200}, {0: 0}, (1, {3: 200}), id="not from where it is as near"),
        pytest.param({1: 600}, {0: 0}, None, id="it is on the closest node"),
        pytest.param({2: 300, 3: 200}, {0: 0, 1: 0}, (2, {3: 200}), id="the closest node is full too"),
        pytest.param({2: 600}, {0: 0, 1: 0}, None, id="nothing nearer has room"),
        pytest.param({0: 600}, {0: 0}, None, id="all at home"),
        pytest.param({}, {0: 0}, None, id="nothing at all"),
    ],
)
def test_refuge(
    held_mib: Mapping[int, int], free_mib: Mapping[int, int], expected: tuple[int, dict[int, int]] | None
) -> None:
    assert refuge(held_mib, free_mib) == expected


def test_a_node_outside_of_the_cpuset_is_no_refuge() -> None:
    assert refuge({3: 600}, {0: 0}, frozenset({0, 2, 3})) == (2, {3: 600})
    assert refuge({2: 600}, {0: 0}, frozenset({0, 2})) is None


def test_memory_on_a_node_that_is_gone_goes_nowhere() -> None:
    assert refuge({7: 600}, {0: 0}) is None


@pytest.mark.parametrize(
    ("free_mib", "expected"),
    [
        pytest.param({0: 0}, (2, {3: 600}), id="one with CPUs first, though it is farther"),
        pytest.param({0: 0, 2: 0}, (1, {3: 600}), id="one without when there is no other"),
    ],
)
def test_nodes_without_cpus_come_last(free_mib: Mapping[int, int], expected: tuple[int, dict[int, int]]) -> None:
    nodes = tuple(replace(node, cpus=frozenset()) if node.id == 1 else node for node in TOPOLOGY.nodes)
    assert refuge({3: 600}, free_mib, topology=replace(TOPOLOGY, nodes=nodes)) == expected


def test_a_node_without_cpus_takes_what_is_farther_than_it_though_none_with_cpus_is_nearer() -> None:
    nodes = tuple(replace(node, cpus=frozenset()) if node.id == 1 else node for node in TOPOLOGY.nodes)
    assert refuge({2: 600}, {0: 0}, topology=replace(TOPOLOGY, nodes=nodes)) == (1, {2: 600})
