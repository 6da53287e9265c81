"""Stretches of an address space, whatever is mapped there, and where two sequences of them meet. Pure arithmetic."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Extent(NamedTuple):
    """Addresses [start, end) of one process. A tuple, since there may be thousands in one record."""

    start: int
    end: int


def joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """Return the same addresses in ascending extents that neither touch nor overlap."""
    found: list[Extent] = []
    for extent in sorted(extents):
        if extent.start >= extent.end:
            continue
        if found and extent.start <= found[-1].end:
            found[-1] = Extent(found[-1].start, max(found[-1].end, extent.end))
        else:
            found.append(extent)
    return tuple(found)


def inside(extents: Sequence[Extent], start: int, end: int) -> Iterator[Extent]:
    """Yield what of `extents`, which ascend and do not overlap, lies in [start, end)."""
    first = bisect_left(extents, (start,))
    if first and extents[first - 1].end > start:
        first -= 1
    for i in range(first, len(extents)):
        if extents[i].start >= end:
            return
        yield Extent(max(start, extents[i].start), min(end, extents[i].end))


def outside(extents: Sequence[Extent], start: int, end: int) -> Iterator[Extent]:
    """Yield what of [start, end) none of `extents` covers; these ascend and do not overlap."""
    for covered in inside(extents, start, end):
        if start < covered.start:
            yield Extent(start, covered.start)
        start = covered.end
    if start < end:
        yield Extent(start, end)


def do_meet(some: Iterable[Extent], others: Sequence[Extent]) -> bool:
    """Return whether any of `some` shares an address with one of `others`, which ascend and do not overlap."""
    return any(True for extent in some for _ in inside(others, extent.start, extent.end))


def size_bytes(extents: Iterable[Extent]) -> int:
    """Return the bytes of address space that extents span."""
    return sum(extent.end - extent.start for extent in extents)
