"""How the mappings of a process are spread over nodes in blocks, when nothing is known but which node holds how much.

Each block has a node of its own that follows from its address alone (engine/interleaving.py), so that nothing has to be
remembered and nothing moves twice. Blocks are larger in large mappings, where there would be too many of 2 MiB.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from balancerd.engine.interleaving import equal_weights, node_of_region
from balancerd.engine.movable import movable
from balancerd.model.access import REGION_BYTES
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PAGE_BYTES, PlacementSample, Vma, VmaPlacement

SMALLEST_MAPPING_BYTES = 16 << 20
"""Smaller mappings stay as they are: a few blocks cannot be spread evenly."""

MOST_BLOCKS = 2048
"""In one mapping; a larger one has larger blocks, each time by a factor of 16."""

TOLERANCE_RATIO = 0.05
"""A mapping is spread when so much of it would have to move at most, or as much as the sample cannot tell or blocks do
not divide."""

ODD_BLOCKS = 0.75
"""A node has so many blocks too few at most, on average over the nodes."""


def block_bytes(vma: Vma) -> int:
    """Return the size of the blocks of a mapping."""
    size = REGION_BYTES
    while vma.end - vma.start > MOST_BLOCKS * size:
        size *= 16
    return size


def uneven(placement: PlacementSample, nodes: Sequence[NodeId]) -> tuple[VmaPlacement, ...]:
    """Return the movable mappings, ascending, that are not spread evenly over the nodes, as far as the sample tells."""
    exact = placement.exact or placement.method is PlacementMethod.NUMA_MAPS
    found = (
        each
        for each in movable(placement)
        if each.vma.end - each.vma.start >= SMALLEST_MAPPING_BYTES and _is_uneven(each, nodes, exact=exact)
    )
    return tuple(sorted(found, key=lambda each: each.vma.start))


def shortfalls(mappings: Sequence[VmaPlacement], nodes: Sequence[NodeId]) -> dict[NodeId, int]:
    """Return how many bytes each node has too few of in all mappings; 0 where that is a small part of its due."""
    short = dict.fromkeys(nodes, 0.0)
    for each in mappings:
        for node, pages in _short_pages(each, nodes).items():
            short[node] += pages
    least = TOLERANCE_RATIO * sum(sum(each.pages_by_node.values()) for each in mappings) / len(nodes)
    return {node: round(pages * PAGE_BYTES) if pages > least else 0 for node, pages in short.items()}


def extents_of_node(vma: Vma, node: NodeId, nodes: Iterable[NodeId]) -> Iterator[Extent]:
    """Yield the blocks of a mapping that belong on `node` when it is spread over `nodes`, ascending."""
    size, weights = block_bytes(vma), equal_weights(nodes)
    for index in range(vma.start // size, -(-vma.end // size)):
        if node_of_region(index * REGION_BYTES, weights) == node:
            yield Extent(max(vma.start, index * size), min(vma.end, (index + 1) * size))


def _short_pages(placed: VmaPlacement, nodes: Sequence[NodeId]) -> dict[NodeId, float]:
    even = sum(placed.pages_by_node.values()) / len(nodes)
    return {node: max(0.0, even - placed.pages_by_node.get(node, 0.0)) for node in nodes}


def _is_uneven(placed: VmaPlacement, nodes: Sequence[NodeId], *, exact: bool) -> bool:
    total = sum(placed.pages_by_node.values())
    if total <= 0:
        return False
    short = sum(_short_pages(placed, nodes).values()) / total
    noise = 0.0 if exact or not placed.found_pages else 1.0 / math.sqrt(placed.found_pages)
    odd = ODD_BLOCKS * len(nodes) * block_bytes(placed.vma) / (placed.vma.end - placed.vma.start)
    return short > max(TOLERANCE_RATIO, noise, odd)
