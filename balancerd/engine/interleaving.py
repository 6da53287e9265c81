"""How memory is spread over nodes by weight, and how unevenly nodes are used. Pure arithmetic.

A region's node follows from its address and the weights alone: whoever asks again gets the same answer, so that nothing
moves twice, and nothing has to be remembered. It must not know who shares what, nor what a move costs.
"""

import math
from collections.abc import Iterable, Mapping

from balancerd.model.access import REGION_BYTES
from balancerd.model.ids import NodeId
from balancerd.model.machine import Machine

_STEP = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: of its multiples any few in a row lie evenly (Knuth, TAOCP 3, 6.4, theorem S)."""

_CIRCLE = 1 << 64


def node_of_region(start: int, weights: Mapping[NodeId, float]) -> NodeId:
    """Return the node of the region that holds address `start`; weights are positive and sum to 1.

    Of any n regions in a row, and of every second or fourth, each node gets its share to within a few. When a weight
    changes, only regions next to the shifted borders change their node.
    """
    at = start // REGION_BYTES * _STEP % _CIRCLE / _CIRCLE
    border = 0.0
    nodes = sorted(weights)
    for node in nodes[:-1]:
        border += weights[node]
        if at < border:
            return node
    return nodes[-1]


def equal_weights(nodes: Iterable[NodeId]) -> dict[NodeId, float]:
    """Return the same weight for each node."""
    each = sorted(nodes)
    return dict.fromkeys(each, 1.0 / len(each)) if each else {}


def bandwidth_weights(nodes: Iterable[NodeId], machine: Machine | None) -> dict[NodeId, float]:
    """Return weights by how fast each node's memory is read, as its firmware tells (ACPI HMAT).

    Equal ones where it does not tell so of every node.
    """
    each = sorted(nodes)
    rates: dict[NodeId, float] = {}
    for node in each:
        state = None if machine is None else machine.nodes.get(node)
        rate = None if state is None or state.link is None else state.link.read_bytes_per_second
        if not rate:
            return equal_weights(each)
        rates[node] = rate
    total = sum(rates.values())
    return {node: rate / total for node, rate in rates.items()}


def crowding(load: Mapping[NodeId, float], weights: Mapping[NodeId, float]) -> float:
    """Return how many times as much load as its due the node of an access has, on average over all accesses.

    `load` are shares of all accesses by the node whose memory serves them. 1: each node has what its weight says; 4:
    all is on one of four alike. Nodes without a weight count like an average one of the others.
    """
    if not weights:
        return 1.0
    average = sum(weights.values()) / len(weights)
    return sum(share * share / weights.get(node, average) for node, share in load.items())


def imbalance(load: Mapping[NodeId, float], weights: Mapping[NodeId, float]) -> float:
    """Return the standard deviation of the nodes' load over its mean, each node's load taken by its weight.

    With equal weights that is the measure of Carrefour (Dashti et al., ASPLOS 2013), which interleaves above 35 %.
    """
    return math.sqrt(max(0.0, crowding(load, weights) - 1.0))
