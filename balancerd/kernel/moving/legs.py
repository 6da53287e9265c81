"""The way through the ranges of one step: legs of pages of one sort, one after the other. Pure.

A leg is what the native core takes in one array: neighbouring ranges whose pages have one size, may or cannot be
transparent huge pages, and move for all who map them or not. Must not know what happens on the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from balancerd import native
from balancerd.model.migration import Range
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Cursor


@dataclass(frozen=True, slots=True)
class Leg:
    """Ranges (ascending) of pages of `page_bytes`; `huge_bytes` is 0 where none can be a transparent huge page.

    With `all_sharers` pages that other processes map move, too.
    """

    ranges: tuple[Range, ...]
    page_bytes: int
    huge_bytes: int
    all_sharers: bool = False


class Way:
    """Where a step is on its way through `ranges` (ascending), from address `resume_at` on."""

    def __init__(self, ranges: Sequence[Range], resume_at: int, huge_bytes: int) -> None:
        self._huge_bytes = huge_bytes
        self.cursor = Cursor()
        self._legs = make_legs(after(ranges, resume_at), huge_bytes)
        self._enter()

    @property
    def leg(self) -> Leg:
        """The leg that the step is on; IndexError when it is done."""
        return self._legs[0]

    @property
    def array(self) -> native.RangeArray:
        """The ranges of the leg as the core wants them; the cursor belongs to them."""
        return self._array

    @property
    def is_done(self) -> bool:
        """Whether nothing lies ahead."""
        return self.resume_at is None

    @property
    def resume_at(self) -> int | None:
        """The address to go on from, None when the ranges are done."""
        if not self._legs or self.cursor.range_index >= len(self.leg.ranges):
            return self._legs[1].ranges[0].start if len(self._legs) > 1 else None
        return max(self.cursor.address, self.leg.ranges[self.cursor.range_index].start)

    @property
    def left_pages(self) -> int:
        """Base pages of address space that lie ahead, on the whole way."""
        at = self.resume_at
        ahead = () if at is None else after([r for leg in self._legs for r in leg.ranges], at)
        return sum(r.end - r.start for r in ahead) // PAGE_BYTES

    def went(self, cursor: Cursor, *, is_done: bool) -> None:
        """Go on to where the core got to; `is_done` ends the leg."""
        self.cursor = cursor
        if is_done:
            self._legs = self._legs[1:]
            self._enter()

    def tell_apart(self, huge: Sequence[tuple[int, int]]) -> None:
        """From here on, only mappings in `huge` (ascending) hold transparent huge pages."""
        at = self.resume_at
        if at is not None:
            ahead = after([r for leg in self._legs for r in leg.ranges], at)
            self._legs = make_legs(ahead, self._huge_bytes, huge)
            self._enter()

    def _enter(self) -> None:
        self.cursor = Cursor()
        self._array = as_array(self.leg.ranges if self._legs else ())


def as_array(ranges: Sequence[Range]) -> native.RangeArray:
    """Pack ranges for the core."""
    return native.RangeArray((r.start, r.end, r.page_bytes) for r in ranges)


def after(ranges: Sequence[Range], address: int) -> tuple[Range, ...]:
    """Return what of `ranges` lies at or behind `address`."""
    return tuple(r if r.start >= address else replace(r, start=address) for r in ranges if r.end > address)


def make_legs(
    ranges: Sequence[Range], huge_bytes: int, huge: Sequence[tuple[int, int]] | None = None
) -> tuple[Leg, ...]:
    """Cut `ranges` (ascending) into legs. Without `huge`, any base page may be part of a transparent huge page."""
    pieces: list[tuple[Range, int]] = []
    for whole in ranges:
        if whole.page_bytes != PAGE_BYTES or huge_bytes == 0:
            pieces.append((whole, 0))
        elif huge is None:
            pieces.append((whole, huge_bytes))
        else:
            pieces += [(part, huge_bytes if is_huge else 0) for part, is_huge in parts(whole, huge)]
    return tuple(
        Leg(ranges=tuple(r for r, _ in group), page_bytes=page_bytes, huge_bytes=bytes_of_huge, all_sharers=all_sharers)
        for (page_bytes, bytes_of_huge, all_sharers), group in groupby(
            pieces, key=lambda piece: (piece[0].page_bytes, piece[1], piece[0].all_sharers)
        )
    )


def parts(whole: Range, huge: Sequence[tuple[int, int]]) -> list[tuple[Range, bool]]:
    """Cut one range into what lies inside of the intervals of `huge` (ascending) and what lies outside."""
    found: list[tuple[Range, bool]] = []
    at = whole.start
    for start, end in huge:
        if end <= at or start >= whole.end:
            continue
        if start > at:
            found.append((replace(whole, start=at, end=start), False))
        found.append((replace(whole, start=max(at, start), end=min(end, whole.end)), True))
        at = min(end, whole.end)
    if at < whole.end:
        found.append((replace(whole, start=at), False))
    return found
