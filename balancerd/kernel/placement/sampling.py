"""Which of a process's pages to ask for, so that few answers say where all lie. Pure: the asking is a parameter.

Systematic samples, a random start and equal distances over the pages of all ranges in a row, err by
less than 1 % from 2048 pages that are present. Addresses without a page tell little, so where most are absent it
looks at the density first, by size of the range: a reservation of terabytes that was never touched must neither
hide the small dense ranges beside it nor cost more than a few thousand questions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balancerd.native.records import RangePlacement

_LOOK_SAMPLES = 128
"""Questions that tell how dense the ranges of one size are."""

_MOST_PER_STRATUM = 4
"""The questions asked of one stratum, at most: so many times the wanted samples."""

_STRATUM_BITS = 6
"""Ranges share a stratum when their sizes are within a factor of 2**6; 48 bits of addresses give at most six strata."""

Ask = Callable[[Sequence[int], int], Sequence[RangePlacement]]
"""Asks for so many pages (0: all) of the ranges with these indexes, and returns what it found of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Base pages of each range: `found[i]` counts answers, and each stands for `scale[i]` pages."""

    found: tuple[RangePlacement, ...]
    scale: tuple[float, ...]
    queried_pages: int
    exact: bool

    @property
    def present_pages(self) -> int:
        """How many of the answers named a node."""
        return sum(sum(row.on_node) for row in self.found)


def estimate_ranges(pages: Sequence[int], resident_pages: int, samples: int, ask: Ask, *, exact: bool) -> Estimate:
    """Ask about ranges of so many `pages` each, until about `samples` present pages were found.

    As many questions as pages, or `exact`, make the answer exact. `resident_pages` is an upper bound of what
    can be present; it keeps a single hit in a huge reservation from being taken for a huge memory.
    """
    everything = range(len(pages))
    total = sum(pages)
    if exact or total <= samples:
        return Estimate(found=tuple(ask(everything, 0)), scale=(1.0,) * len(pages), queried_pages=total, exact=True)
    first = Estimate(
        found=tuple(ask(everything, samples)),
        scale=(total / samples,) * len(pages),
        queried_pages=samples,
        exact=False,
    )
    if first.present_pages >= samples * 3 / 4:
        return first
    return _estimate_by_strata(pages, resident_pages, samples, ask)


def _estimate_by_strata(pages: Sequence[int], resident_pages: int, samples: int, ask: Ask) -> Estimate:
    strata = _strata(pages)
    queried = samples
    present: list[float] = []
    for stratum in strata:
        total = sum(pages[i] for i in stratum)
        look = min(total, _LOOK_SAMPLES)
        hits = sum(sum(row.on_node) for row in ask(stratum, look))
        present.append(min(total * hits / look, resident_pages))
        queried += look
    wanted_ratio = samples / max(1.0, sum(present))
    found: list[RangePlacement | None] = [None] * len(pages)
    scale = [1.0] * len(pages)
    for stratum in strata:
        total = sum(pages[i] for i in stratum)
        questions = min(total, _MOST_PER_STRATUM * samples, max(_LOOK_SAMPLES, round(total * wanted_ratio)))
        for i, row in zip(stratum, ask(stratum, questions), strict=True):
            found[i] = row
            scale[i] = total / questions
        queried += questions
    return Estimate(
        found=tuple(row for row in found if row is not None),
        scale=tuple(scale),
        queried_pages=queried,
        exact=False,
    )


def _strata(pages: Sequence[int]) -> list[list[int]]:
    """Group the indexes of the ranges by the order of magnitude of their size."""
    strata: dict[int, list[int]] = {}
    for i, n in enumerate(pages):
        strata.setdefault(n.bit_length() // _STRATUM_BITS, []).append(i)
    return [strata[magnitude] for magnitude in sorted(strata)]
