"""Figures as words, and words as tables in Markdown. Pure: must not know what a figure means."""

import math
from collections.abc import Iterable, Mapping, Sequence

from tests.bench.locality.compare import Spread

MISSING = "-"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a table with one line a row; so many columns hold words, and read from the left, the others numbers."""
    lines = [titles, [*["---"] * words, *["--:"] * (len(titles) - words)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float, decimals: int) -> str:
    """Return a number in words: never for what is infinite, and no minus before zero."""
    if math.isinf(value):
        return "never"
    words = f"{value:.{decimals}f}"
    return words.removeprefix("-") if float(words) == 0 else words


def told(spread: Spread | None, decimals: int = 0, *, unit: float = 1) -> str:
    """Return the median, and behind it the range where several boots differ; in multiples of `unit`."""
    if spread is None:
        return MISSING
    median, low, high = (number(value / unit, decimals) for value in (spread.median, spread.low, spread.high))
    if low == high:
        return median
    return f"{median} ({low} to {high})" if low.startswith("-") else f"{median} ({low}-{high})"


def beside(spread: Spread | None, base: Spread | None, decimals: int, *, unit: float = 1) -> str:
    """Return the same with the ratio of its median to that of `base` behind it, where there is one."""
    if spread is None or base is None or not base.median:
        return told(spread, decimals, unit=unit)
    return f"{told(spread, decimals, unit=unit)} = {number(spread.median / base.median, 1)}x"


def counted(counts: Mapping[str, int]) -> str:
    """Return `name (n)` for each, the most frequent first."""
    return ", ".join(f"{name} ({n})" for name, n in sorted(counts.items(), key=lambda it: (-it[1], it[0])))
