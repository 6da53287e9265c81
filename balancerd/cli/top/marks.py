"""Bars and sparklines as text: pure. With `blocks` they are drawn with block characters, else in ASCII."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

HEIGHTS: Final = "▁▂▃▄▅▆▇█"
NONE: Final = "·"
ASCII_NONE: Final = "."
ASCII_HEIGHTS: Final = "12345678"
"""Eighths, where there are no blocks."""

FILLS: Final = "█▓▒"
"""Who holds most of a node, who comes next, and the third."""

REST: Final = "░"
ASCII_FILLS: Final = "#=+"
ASCII_REST: Final = "-"


def heights(values: Sequence[float], *, blocks: bool, most: float | None = None) -> str:
    """Return one character for each value, as high as it is beside `most` (the largest unless given)."""
    top = max(values, default=0.0) if most is None else most
    return "".join(_height(value / top if top > 0 else 0.0, blocks=blocks) for value in values)


def _height(ratio: float, *, blocks: bool) -> str:
    if ratio <= 0:
        return NONE if blocks else ASCII_NONE
    step = min(7, max(0, round(ratio * 8) - 1))
    return (HEIGHTS if blocks else ASCII_HEIGHTS)[step]


def by_node(shares: Mapping[str, float] | None, nodes: Sequence[str], *, blocks: bool) -> str:
    """Return one character for each node, as high as its share of all; "?" for each when that is not known.

    A share is of the sum, so that bytes will do, too.
    """
    if shares is None:
        return "?" * len(nodes)
    total = sum(shares.values())
    return heights([shares.get(node, 0) / total if total else 0.0 for node in nodes], blocks=blocks, most=1.0)


def spark(rates: Sequence[float], cells: int, *, blocks: bool) -> str:
    """Return the latest values as a line of up to so many characters."""
    return heights(list(rates)[-cells:] if cells > 0 else [], blocks=blocks)


def split(ratios: Sequence[float], cells: int) -> list[int]:
    """Return how many of so many cells each ratio of 1 gets; their sum is as near to all of them as may be."""
    ends, total = [0], 0.0
    for ratio in ratios:
        total = min(1.0, total + ratio)
        ends.append(round(total * cells))
    return [end - begin for begin, end in pairwise(ends)]


def fills(shares: int, *, blocks: bool) -> list[str]:
    """Return the characters of so many shares: of those that are named, and for the rest, which comes last."""
    named, rest = (FILLS, REST) if blocks else (ASCII_FILLS, ASCII_REST)
    return [*named[: max(0, shares - 1)], rest][:shares]
