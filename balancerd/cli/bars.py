"""Memory by node as a cell of a table: the size, and on a wide terminal a bar of the share beside it.

A pipe gets the sizes alone, for whoever takes them apart. It must not know what holds the memory.
"""

import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from balancerd.cli import words
from balancerd.cli.screen import UNKNOWN, can_print, on_terminal

CELLS: Final = 5
SIZE_WIDTH: Final = 9
"""As long as "1023.9MiB"."""

REST_WIDTH: Final = 80
"""What the other columns of a table take, about; bars are drawn only where there is room beside that."""

BLOCKS: Final = " ▏▎▍▌▋▊▉█"
"""Nothing to all of a cell, in eighths: U+2588 to U+258F."""


def wants_bars(nodes: int) -> bool:
    """Whether standard output is a terminal with room for the bars of so many nodes."""
    room = REST_WIDTH + nodes * (CELLS + SIZE_WIDTH + 3)
    return on_terminal() and shutil.get_terminal_size().columns >= room


def by_node(held: Mapping[str, int] | None, nodes: Sequence[str], *, bars: bool) -> list[str]:
    """Return one cell for each of `nodes`; `held` is bytes by node, None when they are not known."""
    if held is None:
        return [UNKNOWN] * len(nodes)
    if not bars:
        return [words.size(held.get(node, 0)) for node in nodes]
    total = sum(held.values())
    return [
        f"{bar(held.get(node, 0) / total if total else 0.0):{CELLS}} {words.size(held.get(node, 0)):>{SIZE_WIDTH}}"
        for node in nodes
    ]


def bar(ratio: float) -> str:
    """Return a bar for a share of 1: CELLS long for all of it, and the shortest there is for next to nothing."""
    if not can_print(BLOCKS):
        return "#" * _steps(ratio, CELLS)
    whole, part = divmod(_steps(ratio, 8 * CELLS), 8)
    return BLOCKS[-1] * whole + (BLOCKS[part] if part else "")


def _steps(ratio: float, most: int) -> int:
    """Return a share as a number of steps, rounded: 0 and `most` only for none and all of it."""
    if ratio <= 0:
        return 0
    return most if ratio >= 1 else min(max(1, round(ratio * most)), most - 1)
