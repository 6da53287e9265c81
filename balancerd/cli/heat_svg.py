"""An address space as an SVG file: nothing but rectangles and text. Pure; it must not know files or the daemon."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from balancerd.cli.heat_cells import LEVELS, Look, Row, Scale, find_scale, look, rows
from balancerd.cli.options import Document
from balancerd.cli.screen import escape

ROW_CELLS: Final = 64
CELL: Final = 12
LEFT: Final = 80
"""Room for the offset of a row, in pixels like all that follow."""

LINE: Final = 18
MARK: Final = 3
"""Height of the bar that tells remote or shared use."""

WIDTH: Final = LEFT + ROW_CELLS * CELL + 10

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#882255")
"""Of nodes; told apart by most eyes (Okabe and Ito, Color Universal Design). Further nodes begin anew."""

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
        drawn.append(_text(10, y, line))
        y += LINE
    for mapping in document["mappings"]:
        y += LINE // 2
        kind = mapping["kind"] or "new"
        drawn.append(_text(10, y, f"{mapping['start']}-{mapping['end']} {kind} {mapping['name']}"))
        y += LINE // 3
        for row in rows(mapping, cell_bytes, ROW_CELLS):
            drawn.extend(_row(row, y, scale, int(mapping["start"], 16)))
            y += LINE
        y += LINE // 2
    drawn.extend(_legend(document, y + LINE))
    height = y + 3 * LINE
    space, font = 'xmlns="http://www.w3.org/2000/svg"', 'font-family="monospace" font-size="11"'
    opening = f'<svg {space} width="{WIDTH}" height="{height}" {font}>'
    return "\n".join([opening, _rect(0, 0, (WIDTH, height), "#ffffff"), *drawn, "</svg>\n"])


def _row(row: Row, y: int, scale: Scale | None, mapping_start: int) -> Iterator[str]:
    yield _text(10, y + CELL - 2, f"+{(row.start - mapping_start) >> 20}MiB")
    placed = [(LEFT + i * CELL, look(cell, scale)) for i, cell in enumerate(row.cells) if cell is not None]
    for x, its in placed:
        yield _rect(x, y, (CELL - 1, CELL), _node_colour(its.node), _opacity(its))
        if its.is_remote or its.is_shared:
            yield _rect(x, y + CELL - MARK, (CELL - 1, MARK), REMOTE if its.is_remote else SHARED)
    for letter, group in groupby(placed, key=lambda cell: cell[1].node):
        yield _text(next(group)[0] + 2, y + CELL - 3, letter)


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
        yield _rect(x, y - CELL + 2, (CELL - 1, CELL), colour)
        yield _text(x + CELL + 3, y, name)
        x += CELL + 7 * len(name) + 20


def _opacity(its: Look) -> float:
    return 1.0 if its.level is None else round(COLDEST + (1 - COLDEST) * its.level / LEVELS, 2)


def _node_colour(letter: str) -> str:
    return COLOURS[int(letter, 36) % len(COLOURS)] if letter.isalnum() else GREY


def _rect(x: int, y: int, size: tuple[int, int], fill: str, opacity: float = 1.0) -> str:
    seen = "" if opacity >= 1 else f' fill-opacity="{opacity:g}"'
    return f'<rect x="{x}" y="{y}" width="{size[0]}" height="{size[1]}" fill="{fill}"{seen}/>'


def _text(x: int, y: int, text: str) -> str:
    safe = escape(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<text x="{x}" y="{y}">{safe}</text>'
