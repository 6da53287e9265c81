"""An address space as an SVG file: nothing but rectangles and text. Pure; it must not know files or the daemon."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from balancerd.cli.heat_cells import LEVELS, Look, Row, Scale, find_scale, look, rows
from balancerd.cli.options import Document
from balancerd.cli.svg import COLOURS, picture, rect, text

ROW_CELLS: Final = 64
CELL: Final = 12
LEFT: Final = 80
"""Room for the offset of a row, in pixels like all that follow."""

LINE: Final = 18
MARK: Final = 3
"""Height of the bar that tells remote or shared use."""

WIDTH: Final = LEFT + ROW_CELLS * CELL + 10

GREY: Final = "#888888"
REMOTE: Final = "#d00000"
SHARED: Final = "#000000"

COLDEST: Final = 0.12
"""Opacity of a cell that was not seen in use."""


def draw(document: Document, heading: Sequence[str]) -> str:
    """Return the file's text; `heading` and names need no escaping."""
    scale, cell_bytes = find_scale(document), document["cell_bytes"]
    drawn: list[str] = []
    y = LINE
    for line in heading:
        drawn.append(text(10, y, line))
        y += LINE
    for mapping in document["mappings"]:
        y += LINE // 2
        kind = mapping["kind"] or "new"
        drawn.append(text(10, y, f"{mapping['start']}-{mapping['end']} {kind} {mapping['name']}"))
        y += LINE // 3
        for row in rows(mapping, cell_bytes, ROW_CELLS):
            drawn.extend(_row(row, y, scale, int(mapping["start"], 16)))
            y += LINE
        y += LINE // 2
    drawn.extend(_legend(document, y + LINE))
    return picture((WIDTH, y + 3 * LINE), drawn)


def _row(row: Row, y: int, scale: Scale | None, mapping_start: int) -> Iterator[str]:
    yield text(10, y + CELL - 2, f"+{(row.start - mapping_start) >> 20}MiB")
    placed = [(LEFT + i * CELL, look(cell, scale)) for i, cell in enumerate(row.cells) if cell is not None]
    for x, its in placed:
        yield rect(x, y, (CELL - 1, CELL), _node_colour(its.node), _opacity(its))
        if its.is_remote or its.is_shared:
            yield rect(x, y + CELL - MARK, (CELL - 1, MARK), REMOTE if its.is_remote else SHARED)
    for letter, group in groupby(placed, key=lambda cell: cell[1].node):
        yield text(next(group)[0] + 2, y + CELL - 3, letter)


def _legend(document: Document, y: int) -> Iterator[str]:
    x = 10
    letters = {look(cell, None).node for mapping in document["mappings"] for cell in mapping["cells"]}
    names = {"*": "several nodes", "?": "not known"}
    entries = [(_node_colour(letter), names.get(letter, f"node {letter}")) for letter in sorted(letters)]
    if document["accesses"] is not None:
        entries += [(REMOTE, "used from another node"), (SHARED, "shared by several nodes")]
    for colour, name in entries:
        if x + CELL + 7 * len(name) > WIDTH:
            x, y = 10, y + LINE
        yield rect(x, y - CELL + 2, (CELL - 1, CELL), colour)
        yield text(x + CELL + 3, y, name)
        x += CELL + 7 * len(name) + 20


def _opacity(its: Look) -> float:
    return 1.0 if its.level is None else round(COLDEST + (1 - COLDEST) * its.level / LEVELS, 2)


def _node_colour(letter: str) -> str:
    return COLOURS[int(letter, 36) % len(COLOURS)] if letter.isalnum() else GREY
