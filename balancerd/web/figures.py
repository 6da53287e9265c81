"""How figures are written and drawn on the page: sizes, shares, ages, bars, tables. Pure.

The Content-Security-Policy forbids style attributes, so what has a length is SVG, and colours are classes of page.css:
a node has the colour of its number, modulo COLOURS.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from balancerd.config.units import format_bytes, format_duration
from balancerd.model.ids import NodeId
from balancerd.web.markup import Html, element, together

UNKNOWN: Final = "unknown"
COLOURS: Final = 8
MOST_NAMED: Final = 4
BAR_WIDTH: Final = 1000
"""Of every bar, in units of its own: the browser stretches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a bar: its share of the whole, the class of its colour, and what a pointer on it is told."""

    ratio: float
    colour: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table; `number` is aligned to the right, `wide` has the room that others leave."""

    title: str
    number: bool = False
    wide: bool = False


def size(count_bytes: int | None) -> str:
    """Return a byte size to read."""
    return UNKNOWN if count_bytes is None else format_bytes(count_bytes)


def rate(bytes_per_second: float | None) -> str:
    """Return a byte rate to read."""
    return UNKNOWN if bytes_per_second is None else f"{size(round(bytes_per_second))}/s"


def percent(ratio: float | None, digits: int = 0) -> str:
    """Return percents, rounded down, so that 100% means all of it."""
    if ratio is None:
        return UNKNOWN
    scale = 10**digits
    return f"{int(ratio * 100 * scale + 1e-9) / scale:.{digits}f}%"


def age(seconds: float) -> str:
    """Return a time span to read: below ten seconds to the tenth, below an hour to the second, else to the minute."""
    span = max(0.0, seconds)
    if span < 10:
        return format_duration(round(span, 1))
    return format_duration(float(round(span)) if span < 3600 else round(span / 60) * 60.0)


def count(number: int, thing: str) -> str:
    """Return "1 page", "2 pages", "2 processes"."""
    return f"{number:,} {thing}{'' if number == 1 else 'es' if thing.endswith('s') else 's'}"


def by_node(values: Mapping[NodeId, int]) -> str:
    """Return sizes by node, the largest few first: "node 0: 2GiB, node 1: 4KiB, 3 more"."""
    ranked = sorted(((node, held) for node, held in values.items() if held > 0), key=lambda item: (-item[1], item[0]))
    told = [f"node {node}: {size(held)}" for node, held in ranked[:MOST_NAMED]]
    return ", ".join([*told, f"{len(ranked) - MOST_NAMED} more"] if len(ranked) > MOST_NAMED else told)


def shares(ratios: Mapping[NodeId, float]) -> str:
    """Return shares by node, largest first: "0" when it is all of it, "0: 75%, 2: 25%" otherwise."""
    ranked = sorted(ratios.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return UNKNOWN
    if ranked[0][1] >= 0.995:
        return str(ranked[0][0])
    told = [f"{node}: {round(ratio * 100)}%" for node, ratio in ranked if ratio >= 0.005]
    return ", ".join([*told[:MOST_NAMED], "…"] if len(told) > MOST_NAMED else told)


def colour(node: NodeId) -> str:
    """Return the class of a node's colour."""
    return f"n{node % COLOURS}"


def bar(pieces: Iterable[Piece], told: str, kind: str = "bar") -> Html:
    """Return a bar of some pieces, from the left; `told` is what it says in words."""
    at, rects = 0.0, []
    for piece in pieces:
        width = min(max(piece.ratio, 0.0), 1.0 - at) * BAR_WIDTH
        if width > 0:
            title = element("title", piece.told)
            rects.append(element("rect", title, class_=piece.colour, x=at * BAR_WIDTH, y=0, width=width, height=10))
            at += width / BAR_WIDTH
    return element(
        "svg",
        rects,
        class_=kind,
        viewBox=f"0 0 {BAR_WIDTH} 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=told,
    )


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Html | str | int]], caption: str, *, kind: str = "rows"
) -> Html:
    """Return a table. On a narrow screen each row becomes a block, so every cell carries its column's title."""
    head = element("tr", [element("th", c.title, scope="col", class_=_kind(c), role="columnheader") for c in columns])
    body = [
        element(
            "tr",
            [
                element("td", cell, class_=_kind(c), data_label=c.title, role="cell")
                for c, cell in zip(columns, row, strict=True)
            ],
            role="row",
        )
        for row in rows
    ]
    return element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", head, role="rowgroup"),
        element("tbody", body, role="rowgroup"),
        class_=kind,
        role="table",
    )


def section(name: str, title: str, *children: Html, note: str = "") -> Html:
    """Return a part of the page that is replaced as a whole when it has changed."""
    heading = element("h2", title, id=f"{name}-title")
    told = element("p", note, class_="note") if note else together()
    return element("section", heading, told, children, id=name, class_="card", aria_labelledby=f"{name}-title")


def details(name: str, title: str, *children: Html) -> Html:
    """Return what is hidden until somebody asks for it; the script keeps it open."""
    return element("details", element("summary", title, id=f"{name}-more"), children, id=name)


def _kind(column: Column) -> str | None:
    return "number" if column.number else "wide" if column.wide else None
