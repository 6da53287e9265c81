"""Which nodes are advised for something new: tables of machines, demands and answers."""

import itertools
import random
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from balancerd.engine.advice import MOST_NODES_TRIED, Advice, Demand, NodeRoom, Share, advise, rooms, without
from balancerd.model.ids import NodeId
from balancerd.model.machine import Machine, NodeState
from balancerd.model.topology import NodeMemory
from tests.unit.reports import GIB, MIB, a_topology

Spec = tuple[int, float | None, float]
"""CPUs, idle CPUs and free GiB of a node."""


def a_machine(*specs: Spec, near: Mapping[frozenset[int], int] | None = None, far: int = 21) -> tuple[NodeRoom, ...]:
    """Nodes from 0 on; `near` has the distances that are not `far`."""
    return tuple(
        NodeRoom(
            node=NodeId(n),
            cpus=cpus,
            idle_cpus=idle,
            free_bytes=int(free * GIB),
            distances={
                NodeId(other): 10 if other == n else (near or {}).get(frozenset({n, other}), far)
                for other in range(len(specs))
            },
        )
        for n, (cpus, idle, free) in enumerate(specs)
    )


def asked(cpus: float, gib: float, offered: tuple[NodeRoom, ...]) -> Advice:
    return advise(Demand(cpus=cpus, memory_bytes=int(gib * GIB)), offered)


CXL = {frozenset({0, 2}): 12}
PAIRS = {frozenset({0, 1}): 12, frozenset({2, 3}): 12}


@pytest.mark.parametrize(
    ("why", "machine", "cpus", "gib", "nodes", "fits"),
    [
        ("one node, all of it", a_machine((4, 4.0, 8)), 4, 8, (0,), True),
        ("the busy node is passed over", a_machine((4, 0.5, 8), (4, 4.0, 8)), 2, 2, (1,), True),
        ("the full node is passed over", a_machine((4, 4.0, 1), (4, 4.0, 8)), 2, 2, (1,), True),
        ("the tightest fit of memory", a_machine((4, 4.0, 16), (4, 4.0, 6), (4, 4.0, 8)), 2, 5, (1,), True),
        ("the tightest fit of CPUs", a_machine((8, 8.0, 8), (8, 3.0, 8)), 2, 2, (1,), True),
        ("as a share of the CPUs there are", a_machine((16, 6.0, 8), (4, 4.0, 8)), 2, 8, (0,), True),
        ("what is left of both adds up", a_machine((8, 6.0, 8), (8, 2.0, 9)), 2, 8, (1,), True),
        ("equals go by number", a_machine((4, 4.0, 8), (4, 4.0, 8)), 2, 2, (0,), True),
        ("the fewest nodes", a_machine((4, 2.0, 4), (4, 2.0, 4), (4, 4.0, 32)), 4, 4, (2,), True),
        ("two near each other", a_machine(*[(4, 4.0, 4)] * 4, near={frozenset({1, 3}): 12}), 6, 4, (1, 3), True),
        ("near before tight", a_machine((4, 3, 8), (4, 4, 8), (4, 3, 5), (4, 4, 8), near=PAIRS), 6, 6, (2, 3), True),
        ("all of them", a_machine(*[(4, 4.0, 4)] * 4), 16, 16, (0, 1, 2, 3), True),
        ("no CPU is ever quite idle", a_machine((4, 3.6, 8)), 4, 1, (0,), True),
        ("memory only", a_machine((4, 0.0, 2), (4, 0.0, 8)), 0, 4, (1,), True),
        ("CPUs only", a_machine((4, 1.0, 0), (4, 4.0, 0)), 2, 0, (1,), True),
        ("a load nobody knows counts as none", a_machine((4, None, 8)), 4, 1, (0,), True),
        ("memory of a node without CPUs is the last resort", a_machine((4, 4, 4), (0, 0, 64)), 2, 2, (0,), True),
        ("however near it is", a_machine((4, 4, 4), (4, 4, 4), (0, 0, 64), near=CXL), 2, 6, (0, 1), True),
        ("and better than none", a_machine((4, 4, 4), (0, 0, 64)), 2, 32, (0, 1), True),
        ("but needs CPUs beside it", a_machine((4, 4, 4), (0, 0, 64)), 0, 8, (0, 1), True),
        ("busy everywhere: the least busy that holds it", a_machine((4, 1.0, 8), (4, 1.5, 8)), 4, 2, (1,), False),
        ("busy everywhere, and memory counts first", a_machine((4, 1.0, 8), (4, 1.5, 1)), 4, 2, (0,), False),
        ("no CPU idle: equal parts of none", a_machine((4, 0.0, 8), (4, 0.0, 8)), 4, 10, (0, 1), False),
        ("more memory than there is: all nodes", a_machine((4, 4.0, 8), (4, 4.0, 8)), 2, 100, (0, 1), False),
        ("more CPUs than there are: all nodes", a_machine((4, 4.0, 8), (4, 4.0, 8)), 100, 1, (0, 1), False),
    ],
)
def test_the_best_set_of_nodes(
    why: str, machine: tuple[NodeRoom, ...], cpus: float, gib: float, nodes: tuple[int, ...], fits: bool
) -> None:
    advice = asked(cpus, gib, machine)
    assert (advice.nodes, advice.fits) == (nodes, fits), why
    assert sum(share.cpus for share in advice.shares) == pytest.approx(cpus)
    assert sum(share.memory_bytes for share in advice.shares) == pytest.approx(gib * GIB, abs=len(nodes))


def test_a_share_goes_by_what_a_node_has() -> None:
    advice = asked(4, 4, a_machine((4, 3.0, 4.5), (4, 1.0, 1.5), (4, 0.0, 0)))
    assert advice.shares == (
        Share(node=NodeId(0), cpus=3.0, memory_bytes=3 * GIB),
        Share(node=NodeId(1), cpus=1.0, memory_bytes=1 * GIB),
    )


def test_the_text_says_what_was_found_and_what_is_missing() -> None:
    machine = a_machine((4, 1.0, 8), (4, 1.5, 8))
    told = asked(4, 2, machine)
    assert (
        told.detail
        == "node 1: 1.5 CPUs idle and 8192 MiB free, for 4 CPUs and 2048 MiB; idle CPUs do not suffice anywhere"
    )
    told = asked(2.5, 9, machine)
    assert told.detail == "nodes 0-1: 2.5 CPUs idle and 16384 MiB free, for 2.5 CPUs and 9216 MiB"
    assert "(their load is not known)" in asked(1, 1, a_machine((4, None, 8))).detail


def test_what_was_promised_is_not_promised_again() -> None:
    machine, taken = a_machine((4, 4.0, 8), (4, None, 8)), list[Share]()
    chosen = []
    for _ in range(4):
        advice = asked(2, 3, without(machine, taken))
        taken += advice.shares
        chosen.append((advice.nodes, advice.fits))
    assert chosen == [((0,), True), ((0,), True), ((1,), True), ((1,), True)]
    left = without(machine, taken)
    assert [(room.idle_cpus, room.free_bytes) for room in left] == [(0.0, 2 * GIB), (0.0, 2 * GIB)]
    assert not asked(2, 3, left).fits


def test_nothing_is_advised_on_a_machine_without_nodes() -> None:
    assert asked(1, 1, ()) == Advice(
        shares=(),
        fits=False,
        detail="nodes : 0.0 CPUs idle and 0 MiB free, for 1 CPUs and 1024 MiB; not even all nodes together suffice",
    )


def test_on_a_large_machine_sets_grow_around_each_node_and_that_is_quick() -> None:
    count = 4 * MOST_NODES_TRIED
    near = {frozenset({n, n + 1}): 12 for n in range(count - 1)}
    machine = a_machine(*[(8, 8.0, 4)] * count, near=near)
    started = time.monotonic()
    advice = asked(24, 10, machine)
    assert time.monotonic() - started < 1.0
    assert advice.fits
    assert advice.nodes == (0, 1, 2)


def test_the_answer_fits_whenever_any_set_would_and_none_smaller_does() -> None:
    chance = random.Random(7)  # noqa: S311 -- any numbers do, the same ones each time
    for _ in range(300):
        machine = a_machine(*[(4, chance.choice((0.0, 1.0, 3.0, 4.0)), chance.randint(0, 6)) for _ in range(4)])
        cpus, gib = chance.randint(0, 12), chance.randint(0, 16)
        advice = asked(cpus, gib, machine)
        fitting = [
            chosen
            for size in range(1, 5)
            for chosen in itertools.combinations(machine, size)
            if sum(r.usable_cpus for r in chosen) >= cpus - 0.5 and sum(r.free_bytes for r in chosen) >= gib * GIB
        ]
        assert advice.fits == bool(fitting)
        if fitting:
            assert len(advice.nodes) == min(len(chosen) for chosen in fitting)


def test_rooms_are_what_is_available_beyond_the_watermarks() -> None:
    topology = a_topology(3, memory_only=[2])
    memory = {
        NodeId(n): NodeMemory(
            node=NodeId(n),
            total_bytes=4 * GIB,
            free_bytes=2 * GIB,
            inactive_file_bytes=GIB,
            high_watermark_bytes=8 * MIB,
        )
        for n in (0, 2)
    }
    machine = Machine(nodes={NodeId(0): NodeState(node=NodeId(0), load_ratio=0.25)})
    first, last = rooms(topology, memory, machine)
    assert (first.node, first.cpus, first.idle_cpus) == (0, 2, 1.5)
    assert first.free_bytes == 3 * GIB - 8 * MIB - int(0.1 * 4 * GIB)
    assert (last.node, last.cpus, last.idle_cpus) == (2, 0, None)
    assert [room.idle_cpus for room in rooms(topology, memory, None)] == [None, None]
    bare = replace(topology, nodes=tuple(replace(node, total_bytes=0) for node in topology.nodes))
    assert rooms(bare, memory, machine) == ()
