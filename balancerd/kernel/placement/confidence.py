"""How far a sample may be off. Pure: shares of pages by node and their intervals, from counts of answers.

Pages near each other tend to lie on the same node (huge pages, runs of one thread's memory), so answers are not
independent and their number alone says little. Two pages are asked for in each cell of the sample; how often they
differ tells the variance within cells, which is all that is left of it, as every cell was asked. Addresses may be
absent, so a share is a ratio of two estimates: R = Y/X, pages on the node over pages present. Its variance is that of
the sum of y - R*x over the pages (Cochran, Sampling Techniques, 1977, sections 5A.8 and 6.3). The interval is Wilson's
for as many independent answers as would have that variance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from balancerd.model.ids import NodeId
from balancerd.model.interval import Interval, wilson
from balancerd.native.records import Tally

UNSEEN_PAIRS = 1.0
"""Added to the pairs that differ: where few did, their number is as uncertain as any count, and 0 is not certainty.

Calibrated by tests/bench/bench_coverage.py: without it, the intervals of pages that lie in few places are too narrow.
"""


HIDDEN_RATIO = 0.1
"""Memory that the process is known to have, and no answer showed, is hidden from this share on; below it is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The answers of the strata with these indexes: each stands for `scale` base pages."""

    strata: tuple[int, ...]
    tally: Tally
    scale: float

    @property
    def present_pages(self) -> float:
        """Return the estimated base pages that are present."""
        return self.scale * self.tally.present_units

    @property
    def present_ratio(self) -> float:
        """Return the share of answers that named a node."""
        return self.tally.present_units / self.tally.asked_units if self.tally.asked_units else 0.0

    @property
    def unasked_ratio(self) -> float:
        """Return the share of units that were not asked for: the finite population correction."""
        return 1.0 - self.tally.asked_units / self.tally.units if self.tally.units else 0.0


def pages_by_node(parts: Sequence[Part]) -> tuple[float, ...]:
    """Return the estimated base pages on each node."""
    return tuple(
        sum(part.scale * answers for part, answers in zip(parts, column, strict=True))
        for column in zip(*(part.tally.on_node for part in parts), strict=True)
    )


def intervals(parts: Sequence[Part]) -> dict[NodeId, Interval]:
    """Return the 95 % interval of each node's share of what is present; empty when nothing is."""
    on_node = pages_by_node(parts)
    present = sum(on_node)
    if present <= 0:
        return {}
    answers = effective_answers(parts)
    found: dict[NodeId, Interval] = {}
    for node, pages in enumerate(on_node):
        share = min(1.0, pages / present)
        variance = _variance(parts, node, share) / present**2
        alike = variance <= 0 or not 0.0 < share < 1.0
        found[NodeId(node)] = wilson(share, answers if alike else share * (1.0 - share) / variance)
    return found


def allow_for_hidden(
    bounds: Mapping[NodeId, Interval], parts: Sequence[Part], resident_pages: int
) -> dict[NodeId, Interval]:
    """Widen intervals where much of the memory of a process was not seen, as it may lie on any node.

    A few gigabytes in a mapping of many terabytes are hardly ever hit.
    """
    seen = sum(pages_by_node(parts))
    hidden = resident_pages - seen
    if hidden <= HIDDEN_RATIO * resident_pages:
        return dict(bounds)
    return {
        node: Interval(bound.low * seen / resident_pages, (bound.high * seen + hidden) / resident_pages)
        for node, bound in bounds.items()
    }


def effective_answers(parts: Sequence[Part]) -> float:
    """Return how many equal answers would be worth as much: all of them, unless some stand for more than others."""
    weights = [(part.scale, part.tally.present_units) for part in parts]
    squares = sum(scale * scale * present for scale, present in weights)
    return sum(scale * present for scale, present in weights) ** 2 / squares if squares else 0.0


def _variance(parts: Sequence[Part], node: int, share: float) -> float:
    """Return the variance of pages on the node beyond `share` of those present, summed over the parts."""
    total = 0.0
    for part in parts:
        tally = part.tally
        if not tally.present_units:
            continue
        lone = tally.lone_pairs[node]
        squares = tally.differing_pairs[node] - 2 * share * lone + share * share * sum(tally.lone_pairs)
        total += part.scale**2 * part.unasked_ratio * (squares + UNSEEN_PAIRS)
    return total
