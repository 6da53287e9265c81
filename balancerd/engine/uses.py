"""Which memory of a process was seen in use lately, whatever the newest window says of it.

DAMON takes neighbours for one region whose accesses differ by up to a tenth of its looks, and gives it their mean in
whole looks and their mean age: what is used seldom, beside memory that nobody uses, is then told as unused for long. A
moment before or after it was told as used. Owns for how long that counts. Time is data.
"""

from collections.abc import Iterable
from itertools import chain, pairwise

from balancerd.model.extent import Extent, joined
from balancerd.model.heat import HeatRegion

EPOCHS = 8
"""The time that counts is kept in so many parts; what was used counts for up to one of them longer."""

MOST_EXTENTS = 1024
"""Of each epoch; beyond that the smallest gaps between two count as used."""


class Uses:
    """What was in use within so many `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._epoch_seconds = seconds / EPOCHS
        self._epochs: dict[int, tuple[Extent, ...]] = {}

    def observe(self, regions: Iterable[HeatRegion], at: float) -> None:
        """Take note of a window of DAMON."""
        number = int(at // self._epoch_seconds)
        self._epochs = {epoch: used for epoch, used in self._epochs.items() if number - EPOCHS <= epoch <= number}
        used = (Extent(region.start, region.end) for region in regions if region.ratio > 0.0)
        self._epochs[number] = _bounded(joined(chain(self._epochs.get(number, ()), used)))

    def extents(self) -> tuple[Extent, ...]:
        """Return what was in use, ascending; the parts neither touch nor overlap."""
        return joined(chain.from_iterable(self._epochs.values()))


def _bounded(extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
    excess = len(extents) - MOST_EXTENTS
    if excess <= 0:
        return extents
    gaps = sorted(Extent(first.end, second.start) for first, second in pairwise(extents))
    return joined((*extents, *sorted(gaps, key=lambda gap: gap.end - gap.start)[:excess]))
