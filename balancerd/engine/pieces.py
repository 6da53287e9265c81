"""A process's movable memory in pieces of one heat each: where each lies, and which part of all accesses goes there.

How much of a piece is there, and where, was asked of some; others are taken to be as their mapping is on average.
Pieces end at 2 MiB, where a huge page may, or with their mapping.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from balancerd.engine.movable import movable
from balancerd.engine.tiers import bin_of
from balancerd.engine.warmth import STEADY_TIMES, Warm
from balancerd.model.access import REGION_BYTES, region_edge
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES, PlacementSample


@dataclass(frozen=True, slots=True)
class Piece:
    """Memory of one heat: bytes by node, and its share of the accesses of its process; `times` as of its region."""

    extent: Extent
    heat: float
    share: float
    held: Mapping[NodeId, float]
    times: int

    @property
    def bin(self) -> int:
        """The bin of its heat."""
        return bin_of(self.heat)

    @property
    def is_steady(self) -> bool:
        """Whether it is surely used."""
        return self.times >= STEADY_TIMES

    @property
    def is_idle(self) -> bool:
        """Whether it was not in use lately, or no more often than it was not."""
        return self.times == 0

    def part(self, extent: Extent) -> "Piece":
        """Return what of it lies in an extent within it."""
        ratio = (extent.end - extent.start) / (self.extent.end - self.extent.start)
        held = {node: size * ratio for node, size in self.held.items()}
        return replace(self, extent=extent, share=self.share * ratio, held=held)

    def first(self, ratio: float) -> "Piece":
        """Return so much of it, from its start on, in whole regions."""
        if ratio >= 1.0:
            return self
        start, end = self.extent
        regions = -(-round((end - start) * ratio) // REGION_BYTES)
        return self.part(Extent(start, min(end, start + regions * REGION_BYTES)))


def pieces(placement: PlacementSample, regions: Sequence[Warm]) -> tuple[Piece, ...]:
    """Return the memory of which it is known how warm it is, ascending."""
    found = list(_pieces(placement, regions))
    total = sum(region.heat * sum(held.values()) for _, region, held in found)
    return tuple(
        Piece(
            extent=extent,
            heat=region.heat,
            share=region.heat * sum(held.values()) / total if total > 0 else 0.0,
            held=held,
            times=region.times,
        )
        for extent, region, held in found
    )


def _pieces(placement: PlacementSample, regions: Sequence[Warm]) -> Iterator[tuple[Extent, Warm, dict[NodeId, float]]]:
    first = 0
    for placed in sorted(movable(placement), key=lambda placed: placed.vma.start):
        vma = placed.vma
        if not any(placed.pages_by_node.values()):
            continue
        while first < len(regions) and regions[first].end <= vma.start:
            first += 1
        for number in range(first, len(regions)):
            region = regions[number]
            if region.start >= vma.end:
                break
            start, end = max(vma.start, region_edge(region.start)), min(vma.end, region_edge(region.end))
            if start < end:
                pages, size = placed.pages_by_node, vma.end - vma.start
                if region.pages_by_node is not None:
                    pages, size = region.pages_by_node, region.end - region.start
                held = {node: count * PAGE_BYTES * (end - start) / size for node, count in pages.items() if count > 0}
                if held:
                    yield Extent(start, end), region, held
