"""Which of a process's pages to ask for, so that few answers say where all lie. Pure: the asking is a parameter.

About 2048 pages that are present, two in each of 1024 cells of equal size, err by a little more than 1 % at most (see
confidence.py for how that is known of each sample). Addresses without a page tell little, so where most are absent it
looks at the density first, by size of the mappings: a reservation of terabytes that was never touched must neither
hide the small dense mappings beside it nor cost more than a few thousand questions. Where the process is known to have
more memory than was seen, mappings that looked empty are asked more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balancerd.kernel.placement.confidence import HIDDEN_RATIO, Part
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Stratum, Tally

_LOOK_SAMPLES = 128
"""Questions that tell how dense a stratum is."""

_MOST_PER_STRATUM = 4
"""The questions asked of one stratum, at most: so many times the wanted samples."""

DENSE_RATIO = 0.5
"""From this share of present pages on, all strata are asked together."""

Ask = Callable[[Sequence[int], int], Tally]
"""Asks for so many units of the strata with these indexes, or for every one if there are no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What was asked in the end, and how many questions it took with those that led there."""

    parts: tuple[Part, ...]
    queried_pages: int

    @property
    def is_exact(self) -> bool:
        """Return whether every unit was asked for."""
        return all(part.tally.asked_units == part.tally.units for part in self.parts)

    @property
    def present_pages(self) -> int:
        """Return how many of the answers named a node."""
        return sum(part.tally.present_units for part in self.parts)


class _Counted:
    """Asks, and counts the questions."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.questions = 0

    def __call__(self, strata: Sequence[Stratum], questions: int) -> Part:
        units = sum(stratum.units for stratum in strata)
        indexes = tuple(stratum.index for stratum in strata)
        tally = self._ask(indexes, units if questions >= units else max(2, questions & ~1))
        self.questions += tally.asked_units
        return make_part(indexes, tally, strata[0].unit_bytes)


def make_part(strata: tuple[int, ...], tally: Tally, unit_bytes: int) -> Part:
    """Return the answers of some strata with the base pages that each stands for."""
    scale = tally.units / tally.asked_units * (unit_bytes // PAGE_BYTES) if tally.asked_units else 0.0
    return Part(strata=strata, tally=tally, scale=scale)


def estimate_strata(
    strata: Sequence[Stratum], resident_pages: int, samples: int, ask: Ask, *, exact: bool = False
) -> Estimate:
    """Ask about some strata, until about `samples` present pages were found.

    As many questions as pages, or `exact`, make the answer exact. `resident_pages` is an upper bound of what can be
    present; it keeps a single hit in a huge reservation from being taken for a huge memory.
    """
    counted = _Counted(ask)
    base = [stratum for stratum in strata if stratum.unit_bytes == PAGE_BYTES]
    parts: list[Part] = []
    for stratum in strata:
        if stratum.unit_bytes != PAGE_BYTES:
            parts.append(counted([stratum], stratum.units if exact else samples))
            resident_pages -= round(parts[-1].present_pages)
    total = sum(stratum.units for stratum in base)
    if total and (exact or total <= samples):
        parts.append(counted(base, total))
    elif total:
        parts.extend(_estimate_base(base, total, max(1, resident_pages), samples, counted))
    return Estimate(parts=tuple(parts), queried_pages=counted.questions)


def _estimate_base(
    base: Sequence[Stratum], total: int, resident_pages: int, samples: int, ask: _Counted
) -> Sequence[Part]:
    """Ask all strata together if they are dense, and else each as much as its present pages deserve."""
    density = min(1.0, resident_pages / total)
    if density >= DENSE_RATIO:
        together = ask(base, round(samples / density))
        if together.tally.present_units >= samples * 3 / 4 or together.unasked_ratio == 0:
            return [together]
    return _estimate_by_strata(base, resident_pages, samples, ask)


def _estimate_by_strata(base: Sequence[Stratum], resident_pages: int, samples: int, ask: _Counted) -> Sequence[Part]:
    looks = [ask([stratum], _LOOK_SAMPLES) for stratum in base]
    present = sum(min(look.present_pages, resident_pages) for look in looks)
    is_hidden = present < (1 - HIDDEN_RATIO) * resident_pages
    wanted_ratio = samples / max(1.0, present)
    most = _MOST_PER_STRATUM * samples
    parts: list[Part] = []
    for stratum, look in zip(base, looks, strict=True):
        questions = min(most, round(stratum.units * wanted_ratio))
        if not look.tally.present_units:
            questions = most if is_hidden else 0
        parts.append(look if questions <= look.tally.asked_units else ask([stratum], questions))
    return parts
