"""What reaches standard output: text safe to print, tables, JSON documents and check marks.

Owns the choice between plain text and a drawn table. A terminal gets a table drawn by rich, which is imported only
then; a pipe, NO_COLOR (https://no-color.org) or TERM=dumb gets aligned columns. It must not know what is being shown.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import click

from balancerd.model.printable import printable

escape = printable
"""What commands call it."""

UNKNOWN = "-"
"""What a cell shows when a value is not known; never 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its title, whether its cells are numbers (right-aligned), and whether it may be cut on a terminal."""

    title: str
    right: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells, one cell for each column. Cells may hold hostile text; they are escaped when drawn."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def write(text: str = "", *, err: bool = False) -> None:
    """Print one or more lines of already escaped text; what the stream's encoding cannot say is backslash-escaped."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def write_json(document: Mapping[str, object]) -> None:
    """Print one JSON document in ASCII, lone surrogates and control characters escaped, keys in the order given."""
    click.echo(json.dumps(document, indent=2))


def on_terminal() -> bool:
    """Whether standard output is a terminal that wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def rewrite(text: str = "") -> None:
    """Put one line of escaped text, cut to the terminal's width, in the place of the one that standard error ends with.

    Standard error must be a terminal; it stays without a line's end, so clear it with "" before anything else.
    """
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        columns = 80
    click.echo(f"\r\x1b[K{text[: columns - 1]}", err=True, nl=False)  # CSI K: to the line's end, console_codes(4)


def paint(text: str, colour: str) -> str:
    """Return `text` in an ANSI colour ("green", "yellow", "red") on a terminal, unchanged elsewhere."""
    return click.style(text, fg=colour, bold=True) if on_terminal() else text


def can_print(text: str) -> bool:
    """Whether standard output's encoding has every character of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def draw(table: Table) -> None:
    """Print the table: by rich on a terminal, as aligned columns elsewhere."""
    rows = [[escape(cell) for cell in row] for row in table.rows]
    if on_terminal():
        _draw_rich(table.columns, rows)
    else:
        write("\n".join(aligned(table.columns, rows)))


def aligned(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a plain table: a line of titles, columns two blanks apart, no blanks at a line's end."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(width(line[i]) for line in lines) for i in range(len(columns))]
    return [
        "  ".join(
            " " * (wide - width(cell)) + cell if column.right else cell + " " * (wide - width(cell))
            for column, wide, cell in zip(columns, widths, line, strict=True)
        ).rstrip()
        for line in lines
    ]


def width(text: str) -> int:
    """Return how many terminal cells `text` takes: two for wide characters, none for combining ones (UAX #11)."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _draw_rich(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    # Here and not at the top: rich takes longer to import than all else, and only a terminal needs it.
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.cut,
            overflow="ellipsis" if column.cut else "fold",
        )
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))  # Text, because a name may hold rich's own [markup]
    Console(highlight=False, soft_wrap=False).print(drawn)
