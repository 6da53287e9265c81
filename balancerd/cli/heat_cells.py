"""What is common to all pictures of an address space: how hot a cell is beside the hottest, its letters, its rows.

Pure. It must not know terminals or files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from balancerd.cli.options import Document

LEVELS: Final = 4
"""Shades of heat, beside none."""

STEP: Final = 4.0
"""Each shade stands for up to so many times the accesses per byte of the one below."""

NODE_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

SEVERAL_NODES: Final = "*"
UNKNOWN_NODE: Final = "?"
FAR_NODE: Final = "^"
"""A node with a number beyond NODE_LETTERS."""

USE_LETTERS: Final[Mapping[str, str]] = {"local": "=", "shared": "+", "unknown": "?"}
"""Of remote use, the letter is that of the node it comes from."""

NO_USE: Final = "."
CLEAR_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Scale:
    """What the shades are measured by: accesses per byte, or how much is in use by a source of heat; and the most."""

    most: float
    by_accesses: bool

    def of(self, cell: Document) -> float:
        """Return how hot a cell is."""
        return float(cell["weight"] / size_bytes(cell) if self.by_accesses else cell["heat"] or 0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """Some cells of one mapping next to each other; None where a sparse mapping was not seen in use."""

    start: int
    cells: tuple[Document | None, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What a cell looks like: letters, and whether its use is remote or shared.

    `level` is None when neither accesses nor heat are watched, 0 when none were seen.
    """

    node: str
    level: int | None
    use: str
    is_remote: bool = False
    is_shared: bool = False


def size_bytes(cell: Document) -> int:
    """Return how long a cell is."""
    return int(cell["end"], 16) - int(cell["start"], 16)


def find_scale(document: Document) -> Scale | None:
    """Return the scale up to the hottest cell, by accesses if any were seen; None when nothing is watched."""
    cells = [cell for mapping in document["mappings"] for cell in mapping["cells"]]
    is_warm, is_watched = has_heat(document), document["accesses"] is not None
    if not is_warm and not is_watched:
        return None
    by_accesses = is_watched and (not is_warm or any(cell["weight"] for cell in cells))
    unit = Scale(1.0, by_accesses)
    return Scale(max(map(unit.of, cells), default=0.0), by_accesses)


def has_heat(document: Document) -> bool:
    """Return whether a source of heat tells of this process."""
    return document["heat"] is not None and document["heat"]["age_seconds"] is not None


def look(cell: Document, scale: Scale | None) -> Look:
    """Return what a cell looks like beside the hottest one."""
    use = cell["use"]
    return Look(
        node=_holder(cell),
        level=None if scale is None else level(scale.of(cell), scale.most),
        use=NO_USE if use is None else _user(cell) if use == "remote" else USE_LETTERS.get(use, "?"),
        is_remote=use == "remote",
        is_shared=use == "shared",
    )


def level(heat: float, most: float) -> int:
    """Return the shade of so many accesses per byte, LEVELS for those near the most; 0 only for none."""
    if heat <= 0:
        return 0
    shade = LEVELS
    while shade > 1 and heat * STEP <= most:
        heat *= STEP
        shade -= 1
    return shade


def _holder(cell: Document) -> str:
    node = cell["node"]
    if node is None:
        return SEVERAL_NODES if cell["bytes_by_node"] else UNKNOWN_NODE
    return _letter(node)


def _user(cell: Document) -> str:
    """Return the letter of the node that nearly all accesses come from."""
    node, share = max((shares(cell["weight_by_node"]) or {"0": 0.0}).items(), key=lambda item: item[1])
    return _letter(int(node)) if share >= CLEAR_SHARE else SEVERAL_NODES


def _letter(node: int) -> str:
    return NODE_LETTERS[node] if node < len(NODE_LETTERS) else FAR_NODE


def rows(mapping: Document, cell_bytes: int, cells_per_row: int) -> Iterator[Row]:
    """Yield a mapping's cells in rows; what follows a longer gap begins a new one."""
    held: dict[int, Document] = {}
    for cell in mapping["cells"]:
        held[int(cell["start"], 16) // cell_bytes] = cell
    while held:
        first = min(held)
        taken = [held.pop(i, None) for i in range(first, first + cells_per_row)]
        while taken[-1] is None:
            taken.pop()
        yield Row(max(first * cell_bytes, int(mapping["start"], 16)), tuple(taken))


def shares(amounts: Mapping[str, float]) -> dict[str, float] | None:
    """Return amounts as shares of their sum; None when there is nothing."""
    total = sum(amounts.values())
    return {key: amount / total for key, amount in amounts.items()} if total else None
