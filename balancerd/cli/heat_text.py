"""An address space as text: a picture for a terminal, a letter for each cell, or a table of stretches that look alike.

Owns layout and legend. It must not know how the daemon is reached.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final

from balancerd.cli import words
from balancerd.cli.heat_cells import NO_USE, Look, Row, Scale, find_scale, look, rows, shares, size_bytes
from balancerd.cli.options import Document
from balancerd.cli.screen import UNKNOWN, Column, Table, can_print, escape, paint, width

LABEL_WIDTH: Final = 15
"""The offset and the name of a line: "1022.5MiB node "."""

STEP_CELLS: Final = 16
"""A row's length is a multiple, so that offsets are round numbers."""

MOST_ROW_CELLS: Final = 256

BLOCKS: Final = "·░▒▓█"
ASCII_BLOCKS: Final = ".-+*#"

NODE_COLOURS: Final = (
    *("cyan", "green", "magenta", "blue"),
    *("bright_cyan", "bright_green", "bright_magenta", "bright_blue"),
)


def row_cells(columns: int) -> int:
    """Return how many cells a row has on a terminal of so many columns."""
    return max(STEP_CELLS, min(MOST_ROW_CELLS, (columns - LABEL_WIDTH) // STEP_CELLS * STEP_CELLS))


def picture(document: Document, columns: int) -> Iterator[str]:
    """Yield the lines of the picture, without its heading."""
    scale, cell_bytes = find_scale(document), document["cell_bytes"]
    accesses = sum(mapping["weight"] for mapping in document["mappings"]) + document["left_out"]["weight"]
    for mapping in document["mappings"]:
        yield ""
        yield _cut(_title(mapping, accesses if document["accesses"] is not None else None), columns)
        for row in rows(mapping, cell_bytes, row_cells(columns)):
            yield from _row(row, int(mapping["start"], 16), scale)
        if mapping["sparse"]:
            yield " " * 10 + "hardly anything of it is in memory: only what was seen in use is drawn"
    yield ""
    yield from _legend(document)


def table(document: Document) -> Table:
    """Return stretches of neighbouring cells that look alike, one in each row."""
    titles = ("START", "END", "SIZE", "KIND", "NODE", "HEAT", "USE", "USED FROM", "MAPPING")
    right = {"SIZE", "HEAT"}
    scale = find_scale(document)
    return Table(
        columns=[Column(title=title, right=title in right, cut=title == "MAPPING") for title in titles],
        rows=[row for mapping in document["mappings"] for row in _stretches(mapping, scale)],
    )


def _title(mapping: Document, accesses: float | None) -> str:
    kind = "new" if mapping["kind"] is None else mapping["kind"] + (" shared" if mapping["shared"] else "")
    length_bytes, held = int(mapping["end"], 16) - int(mapping["start"], 16), mapping["bytes_by_node"]
    told = [words.size(length_bytes)]
    if held:
        present = min(length_bytes, sum(held.values()))  # an estimate from a few pages may be more than fits
        told.append(f"{words.size(present)} of it on node {words.by_node(shares(held))}")
    if accesses is not None:
        told.append(f"{words.percent(mapping['weight'] / accesses if accesses else None)} of accesses")
    if mapping["vmas"] > 1:
        told.append(f"{mapping['vmas']} mappings")
    return escape(f"{mapping['start']} {kind} {', '.join(told)}{'  ' if mapping['name'] else ''}{mapping['name']}")


def _row(row: Row, mapping_start: int, scale: Scale | None) -> Iterator[str]:
    """Yield up to three lines: which node holds each cell, how hot it is, from where it is used."""
    looks = [None if cell is None else look(cell, scale) for cell in row.cells]
    blocks = BLOCKS if can_print(BLOCKS) else ASCII_BLOCKS
    label = words.size(row.start - mapping_start)
    yield f"{label:>9} node " + _strip(looks, lambda its: its.node, lambda its: _node_colour(its.node))
    if any(its is not None and its.level for its in looks):
        yield f"{'':>9} heat " + _strip(looks, lambda its: blocks[its.level or 0], lambda its: _node_colour(its.node))
    if any(its is not None and its.use != NO_USE for its in looks):
        yield f"{'':>9} use  " + _strip(looks, lambda its: its.use, _use_colour)


def _strip(looks: Sequence[Look | None], letter: Callable[[Look], str], colour: Callable[[Look], str | None]) -> str:
    """Return one letter for each cell, neighbours of one colour painted at once, no blanks at the end."""
    cells = [(" ", None) if its is None else (letter(its), colour(its)) for its in looks]
    painted = []
    for tone, group in groupby(cells, key=lambda cell: cell[1]):
        text = "".join(char for char, _ in group)
        painted.append(text if tone is None else paint(text, tone))
    return "".join(painted).rstrip()


def _node_colour(letter: str) -> str | None:
    return NODE_COLOURS[int(letter, 36) % len(NODE_COLOURS)] if letter.isalnum() else None


def _use_colour(its: Look) -> str | None:
    return "red" if its.is_remote else "yellow" if its.is_shared else None


def _legend(document: Document) -> Iterator[str]:
    yield f"each letter {words.size(document['cell_bytes'])}"
    yield "  node  the node that holds at least 80% of it; * several do, ? not known"
    scale = find_scale(document)
    if scale is not None:
        blocks = BLOCKS if can_print(BLOCKS) else ASCII_BLOCKS
        yield f"  heat  {blocks[0]} not seen in use, {' '.join(blocks[1:])} each up to four times as hot as before"
    if scale is not None and scale.by_accesses:
        yield "  use   = from the node that holds it, + shared: from several nodes;"
        yield "        remote: the node that uses it, * if not the same one for all of it;"
        yield "        ? from one node, and not known where it lies"
    left = document["left_out"]
    if left["mappings"]:
        told = words.size(sum(left["bytes_by_node"].values()))
        yield f"left out: {words.count(left['mappings'], 'small mapping')} with {told}"


def _stretches(mapping: Document, scale: Scale | None) -> Iterator[tuple[str, ...]]:
    kind = UNKNOWN if mapping["kind"] is None else mapping["kind"] + (" shared" if mapping["shared"] else "")
    alike: list[tuple[Look, list[Document]]] = []
    for cell in mapping["cells"]:
        its = look(cell, scale)
        if alike and alike[-1][0] == its and alike[-1][1][-1]["end"] == cell["start"]:
            alike[-1][1].append(cell)
        else:
            alike.append((its, [cell]))
    for its, cells in alike:
        used_from: dict[str, float] = {}
        for cell in cells:
            for node, weight in cell["weight_by_node"].items():
                used_from[node] = used_from.get(node, 0.0) + weight
        yield (
            cells[0]["start"],
            cells[-1]["end"],
            words.size(sum(map(size_bytes, cells))),
            kind,
            its.node if cells[0]["node"] is None else str(cells[0]["node"]),
            UNKNOWN if its.level is None else str(its.level),
            cells[0]["use"] or UNKNOWN,
            words.by_node(shares(used_from)),
            mapping["name"],
        )


def _cut(text: str, columns: int) -> str:
    while width(text) > columns:
        text = text[:-1]
    return text
