"""The heat of one process over time: what its windows tell, newest most, with what was learnt before halved by and by.

Regions come and go from window to window; what was known of an address stays known of it, whatever region it is in now:
were it averaged over a region, the edge of hot memory would warm all that is cold beside it. Owns also how samples of
accesses are read as heat. Time is data.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from balancerd.engine.tiers import bin_of
from balancerd.model.access import REGION_BYTES, AccessWindow, region_edge
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatRegion
from balancerd.model.ids import NodeId

HALF_LIFE_SECONDS = 10.0
"""Cooling: memory that nobody uses any more is half as hot after so long."""

LEAST_WEIGHT = 200.0
"""Of fewer samples of a process in all, nothing is said about what they do not tell of: it may be in use, too."""


STEADY_TIMES = 3
"""What was in use in so many windows more than it was not is surely used. Once says little: DAMON takes neighbours for
one whose accesses differ by up to a tenth of the looks, so that hot memory may lend some of its heat for a window."""

MOST_TIMES = 5
"""No more are counted, so that what was in use for long is soon not surely used any more when it no longer is."""

MOST_REGIONS = 1024
"""Of each process; beyond that neighbours are taken together whose heat differs the least."""


class Warm(NamedTuple):
    """Memory [start, end) of one heat, from 0 to 1, and where its pages lie; None where nobody has asked.

    `times` is in how many windows it was in use, less those since in which it was not: from 0 to MOST_TIMES.
    """

    start: int
    end: int
    heat: float
    pages_by_node: Mapping[NodeId, float] | None = None
    times: int = 0


class Warmth:
    """What is known of one process."""

    def __init__(self) -> None:
        self.regions: tuple[Warm, ...] = ()
        self._at: float | None = None

    def observe(self, regions: Iterable[HeatRegion], at: float, *, counts: int = 1) -> None:
        """Take note of a window; one that is no newer than the last says nothing but where its memory lies now.

        It `counts` as so many windows, where it tells of a longer time.
        """
        regions = tuple(regions)
        if self._at is not None and at <= self._at:
            if at == self._at:
                self.regions = tuple(
                    warm._replace(pages_by_node=pages_within(regions, warm.start, warm.end)) for warm in self.regions
                )
            return
        keep = 0.0 if self._at is None else 0.5 ** ((at - self._at) / HALF_LIFE_SECONDS)
        before, self._at = self.regions, at
        self.regions = _bounded([part for region in regions for part in _handed_on(before, region, keep, counts)])


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


def regions_of_heat(regions: Iterable[HeatRegion]) -> tuple[HeatRegion, ...]:
    """Return what a source of heat tells, with edges where huge pages may end, for they drift from window to window."""
    rounded = (replace(region, start=region_edge(region.start), end=region_edge(region.end)) for region in regions)
    return tuple(region for region in rounded if region.start < region.end)


def _handed_on(before: Sequence[Warm], region: HeatRegion, keep: float, counts: int) -> Iterator[Warm]:
    """Yield a region in parts of one past each, those alike as one."""
    held: Warm | None = None
    edges = _edges(before, region)
    for start, end in pairwise(edges):
        was, times = _past(before, start, end, region.ratio)
        times = min(times + counts, MOST_TIMES) if region.ratio > 0.0 else max(0, times - counts)
        pages = pages_within((region,), start, end)
        part = Warm(start, end, keep * was + (1.0 - keep) * region.ratio, pages, times)
        if held is not None and (held.times, bin_of(held.heat)) == (part.times, bin_of(part.heat)):
            held = _joined(held, part)
            continue
        if held is not None:
            yield held
        held = part
    if held is not None:
        yield held


def pages_within(regions: Sequence[HeatRegion], start: int, end: int) -> Mapping[NodeId, float] | None:
    """Return the pages by node of a part of regions, taken to be spread evenly over each; None where none are known."""
    held: dict[NodeId, float] | None = None
    for number in range(bisect_right(regions, start, key=lambda region: region.end), len(regions)):
        region = regions[number]
        if region.start >= end:
            break
        if region.pages_by_node is None:
            return None
        share = (min(region.end, end) - max(region.start, start)) / (region.end - region.start)
        held = {} if held is None else held
        for node, count in region.pages_by_node.items():
            held[node] = held.get(node, 0.0) + count * share
    return held


def _edges(before: Sequence[Warm], region: HeatRegion) -> list[int]:
    """Return where a region begins and ends, and the edges of what was known within."""
    edges = {region.start, region.end}
    for number in range(_first(before, region.start), len(before)):
        if before[number].start >= region.end:
            break
        edges.update(edge for edge in before[number][:2] if region.start < edge < region.end)
    return sorted(edges)


def _first(before: Sequence[Warm], start: int) -> int:
    return max(0, bisect_right(before, start, key=lambda warm: warm.start) - 1)


def _past(before: Sequence[Warm], start: int, end: int, now: float) -> tuple[float, int]:
    """Return the mean heat by what was known before, and how often all of it was in use.

    Where nothing was known, what is known now counts.
    """
    total, covered, times = 0.0, 0, MOST_TIMES
    for number in range(_first(before, start), len(before)):
        warm = before[number]
        if warm.start >= end:
            break
        overlap = min(warm.end, end) - max(warm.start, start)
        if overlap > 0:
            covered += overlap
            total += overlap * warm.heat
            times = min(times, warm.times)
    size = end - start
    return (total + (size - covered) * now) / size, times if covered == size else 0


def _joined(first: Warm, second: Warm) -> Warm:
    size = (first.end - first.start, second.end - second.start)
    heat = (size[0] * first.heat + size[1] * second.heat) / sum(size)
    pages = first.pages_by_node
    if pages is not None and second.pages_by_node is not None:
        both = pages.keys() | second.pages_by_node.keys()
        pages = {node: pages.get(node, 0.0) + second.pages_by_node.get(node, 0.0) for node in sorted(both)}
    return Warm(first.start, second.end, heat, pages, min(first.times, second.times))


def _bounded(warms: list[Warm]) -> tuple[Warm, ...]:
    """Take neighbours together, those that differ the least first, until there are not too many."""
    while (excess := len(warms) - MOST_REGIONS) > 0:
        alike = sorted(
            (abs(bin_of(first.heat) - bin_of(second.heat)), second.end - first.start, number)
            for number, (first, second) in enumerate(pairwise(warms))
            if first.end == second.start and (first.pages_by_node is None) is (second.pages_by_node is None)
        )
        chosen = {number for _, _, number in alike[:excess]}
        fewer: list[Warm] = []
        for number, warm in enumerate(warms):
            if number - 1 in chosen and fewer:
                fewer[-1] = _joined(fewer[-1], warm)
            else:
                fewer.append(warm)
        if len(fewer) == len(warms):
            break
        warms = fewer
    return tuple(warms)
