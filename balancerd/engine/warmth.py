"""The heat of one process over time: what its windows tell, newest most, with what was learnt before halved by and by.

Regions come and go from window to window; what was known of an address is handed on to the region that it lies in now.
Owns also how samples of accesses are read as heat. Time is data.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from balancerd.model.access import REGION_BYTES, AccessWindow
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatRegion
from balancerd.model.ids import NodeId

HALF_LIFE_SECONDS = 10.0
"""Cooling: memory that nobody uses any more is half as hot after so long."""

LEAST_WEIGHT = 200.0
"""Of fewer samples of a process in all, nothing is said about what they do not tell of: it may be in use, too."""


class Warm(NamedTuple):
    """Memory [start, end) of one heat, from 0 to 1, and where its pages lie; None where nobody has asked."""

    start: int
    end: int
    heat: float
    pages_by_node: Mapping[NodeId, float] | None = None


class Warmth:
    """What is known of one process."""

    def __init__(self) -> None:
        self.regions: tuple[Warm, ...] = ()
        self._at: float | None = None

    def observe(self, regions: Iterable[HeatRegion], at: float) -> None:
        """Take note of a window; one that is no newer than the last says nothing but where its memory lies now."""
        regions = tuple(regions)
        if self._at is not None and at <= self._at:
            if at == self._at and len(regions) == len(self.regions):
                pairs = zip(self.regions, regions, strict=True)
                self.regions = tuple(warm._replace(pages_by_node=region.pages_by_node) for warm, region in pairs)
            return
        keep = 0.0 if self._at is None else 0.5 ** ((at - self._at) / HALF_LIFE_SECONDS)
        before, self._at = self.regions, at
        self.regions = tuple(
            Warm(r.start, r.end, keep * _mean(before, r) + (1.0 - keep) * r.ratio, r.pages_by_node) for r in regions
        )


def regions_of_accesses(window: AccessWindow, mappings: Iterable[Extent], busy_cores: float) -> tuple[HeatRegion, ...]:
    """Return samples of accesses as heat of `mappings`: the hottest region is as hot as its process is busy.

    Empty while there are too few samples to say that memory without any is cold.
    """
    weights = {region.start: sum(region.weight_by_node.values()) for region in window.regions}
    pages = {region.start: region.pages_by_node for region in window.regions}
    if sum(weights.values()) < LEAST_WEIGHT or window.unreported_regions:
        return ()
    hottest, scale = max(weights.values()), min(1.0, busy_cores)
    starts = sorted(weights)
    found: list[HeatRegion] = []
    for mapping in sorted(mappings):
        at = mapping.start
        for start in starts[bisect_left(starts, mapping.start - REGION_BYTES + 1) :]:
            if start >= mapping.end:
                break
            if at < start:
                found.append(HeatRegion(start=at, end=start, ratio=0.0))
            at = max(at, start)
            end = min(mapping.end, start + REGION_BYTES)
            ratio = scale * weights[start] / hottest
            found.append(HeatRegion(start=at, end=end, ratio=ratio, pages_by_node=pages[start]))
            at = end
        if at < mapping.end:
            found.append(HeatRegion(start=at, end=mapping.end, ratio=0.0))
    return tuple(found)


def _mean(before: Sequence[Warm], region: HeatRegion) -> float:
    """Return the mean heat of a region by what was known before; where nothing was, what is known now counts."""
    total = 0.0
    covered = 0
    first = max(0, bisect_right(before, region.start, key=lambda warm: warm.start) - 1)
    for number in range(first, len(before)):
        warm = before[number]
        if warm.start >= region.end:
            break
        overlap = min(warm.end, region.end) - max(warm.start, region.start)
        if overlap > 0:
            covered += overlap
            total += overlap * warm.heat
    size = region.end - region.start
    return (total + (size - covered) * region.ratio) / size
