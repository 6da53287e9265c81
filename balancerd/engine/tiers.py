"""Fast and slow memory: which nodes are which, how much slower each is for whom, and what of memory is worth fast.

Sixteen bins of heat, each twice as hot as the one before, and the threshold above which all fits the fast node: MEMTIS
(Lee and others, SOSP 2023). Pure arithmetic; it must not know what moves.
"""

import math
from collections.abc import Mapping, Sequence

from balancerd.engine.room import kept_bytes
from balancerd.model.ids import NodeId
from balancerd.model.machine import Link, Machine
from balancerd.model.topology import LOCAL_DISTANCE, NodeMemory, Topology

BINS = 16
"""The hottest holds what half of the looks or more find in use, the coldest what one of 2**15 finds or none."""


def fast_nodes(topology: Topology) -> frozenset[NodeId]:
    """Return the nodes with memory and CPUs."""
    return frozenset(node.id for node in topology.nodes if node.cpus and node.total_bytes > 0)


def slow_nodes(topology: Topology, machine: Machine | None) -> frozenset[NodeId]:
    """Return the memory-only nodes, but for those that the kernel has in a faster tier than all nodes with CPUs."""
    fast = fast_nodes(topology)
    tiers = {} if machine is None else {node: state.tier for node, state in machine.nodes.items()}
    known = [tier for node in fast if (tier := tiers.get(node)) is not None]
    return frozenset(
        node.id
        for node in topology.nodes
        if not node.cpus
        and node.total_bytes > 0
        and not (known and (tier := tiers.get(node.id)) is not None and tier < min(known))
    )


def extra_latency(user: NodeId, memory: NodeId, topology: Topology, machine: Machine | None) -> float:
    """Return how much longer an access from node `user` takes than one to its own memory: 0 for local, 1 for twice.

    By the latencies of the HMAT where it tells both, else by distance.
    """
    own, other = _latency(user, user, machine), _latency(user, memory, machine)
    if own is not None and other is not None:
        return max(0.0, other / own - 1.0)
    return topology.distance(user, memory) / LOCAL_DISTANCE - 1.0


def mean_extra_latency(
    run: Mapping[NodeId, float], memory: NodeId, topology: Topology, machine: Machine | None
) -> float:
    """Return the same for threads on several nodes; `run` are their shares, which sum to 1."""
    return sum(share * extra_latency(user, memory, topology, machine) for user, share in run.items() if share)


def bin_of(heat: float) -> int:
    """Return the bin of a heat from 0 to 1: 15 from a half on, then one less for each halving."""
    if heat <= 0.0:
        return 0
    return max(0, min(BINS - 1, BINS + math.floor(math.log2(heat))))


def threshold(bytes_by_bin: Sequence[float], capacity_bytes: float) -> int:
    """Return the lowest bin which fits together with all hotter ones; BINS when not even the hottest does."""
    fits, total = BINS, 0.0
    for number in reversed(range(BINS)):
        total += bytes_by_bin[number]
        if total > capacity_bytes:
            break
        fits = number
    return fits


def is_cold(number: int, lowest: int) -> bool:
    """Return whether memory in a bin is cold where `lowest` is the threshold: below the warm bin next to that.

    What is never seen in use is cold as soon as not everything fits.
    """
    return number < max(1, lowest - 1) if lowest else False


def spare_bytes(memory: NodeMemory, watermark_ratio: float, headroom_ratio: float) -> int:
    """Return how much a node has beyond its watermark, its reserve and the headroom; below zero, what it lacks."""
    kept = kept_bytes(memory, watermark_ratio) + int(headroom_ratio * memory.total_bytes)
    return memory.available_bytes - kept


def _latency(user: NodeId, memory: NodeId, machine: Machine | None) -> float | None:
    """Return what the HMAT tells of accesses from a node: it tells them of the nearest nodes only."""
    state = None if machine is None else machine.nodes.get(memory)
    link: Link | None = None if state is None else state.link
    if link is None or user not in link.initiators or not link.read_latency_seconds:
        return None
    return link.read_latency_seconds
