"""What the live view draws of a frame, as rich text: the lines at the top, the nodes, the cells of the tables.

Pure. It must not know widgets, nor keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from balancerd.cli import words
from balancerd.cli.options import Document
from balancerd.cli.screen import Column, escape, width
from balancerd.cli.status import is_healthy
from balancerd.cli.top import marks, rows
from balancerd.cli.top.frame import Frame, Rates, by_state, held_by

SORT_WORDS: Final[Mapping[str, str]] = {
    "remote": "remote memory",
    "cpu": "CPU",
    "rss": "resident memory",
    "local": "local share, least first",
    "moved": "what the last tick moved",
}

NODE_LABEL: Final = 8
LEAST_BAR: Final = 10
MOST_BAR: Final = 60
FIGURES: Final = 31
"""What stands behind a node's bar before the names: used, free, load."""

NAMES: Final = 34
"""What is left for the names of who holds it."""

WIDE: Final = 130
"""Columns from which on each node's bar in a table is WIDE_BAR cells wide."""

WIDE_BAR: Final = 3

LONGEST: Final = {"COMMAND": 15, "WORKLOAD": 30, "MOVES": 30}
"""Cells are cut to so many characters."""

USED_STYLES: Final = ("cyan", "magenta", "blue", "bright_black")
STATE_STYLES: Final[Mapping[str, str]] = {"moving": "bold green", "held": "yellow", "unreadable": "red"}
LOCAL, REMOTE = "green", "yellow"
LEAST_RUN_RATIO: Final = 0.05
"""A node where a process runs less is not where it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the terminal can do: its width in cells, and whether it has block characters."""

    columns: int
    blocks: bool


def head(frame: Frame, rates: Rates, age_seconds: float | None, look: Look) -> Text:
    """Return three lines: who it is and whether it works; what it moves; how many processes are in which state.

    `age_seconds` is how long ago its last tick ended, None for a daemon that is gone.
    """
    status = frame.status
    tick = status["tick"]
    line = Text(f"balancerd {escape(status['version'])}  ")
    line.append(escape(status["mode"] or "starting"), "bold" if status["mode"] == "enforce" else "bold yellow")
    if age_seconds is None:
        line.append("  GONE", "bold red")
    elif tick is None:
        line.append("  no tick yet", "yellow")
    else:
        aged = {**status, "tick": {**tick, "age_seconds": age_seconds}}
        line.append("  healthy" if is_healthy(aged) else "  STALLED", "green" if is_healthy(aged) else "bold red")
        line.append(f"  tick {tick['number']}, {age_seconds:.0f}s ago")
    if frame.missed:
        line.append(f"  {words.count(frame.missed, 'tick')} missed", "yellow")
    scan = status["scan"]
    if scan is not None:
        line.append(f"  observing {scan['used_ratio']:.1%} of a core", "dim")
    last = rates.last()
    second = Text(f"moved {words.size(status['totals']['moved_bytes'])}")
    second.append("" if last is None else f", now {words.size(round(last))}/s  ")
    second.append(marks.spark(list(rates.rates), look.columns // 4, blocks=look.blocks), "green")
    states = ", ".join(f"{number} {state}" for state, number in by_state(status))
    return Text("\n").join(
        _cut(each, look.columns, look) for each in (line, second, Text(states or "no processes yet"))
    )


def nodes(frame: Frame, look: Look) -> Text:
    """Return a line for each node: its bar by who holds it, used, free, load, and the names."""
    bar = max(LEAST_BAR, min(MOST_BAR, look.columns - NODE_LABEL - FIGURES - NAMES))
    lines = [_node(each, frame.top["workloads"], bar, look) for each in frame.top["nodes"]]
    return Text("\n").join(_cut(line, look.columns, look) for line in lines)


def _node(node: Document, workloads: Sequence[Document], bar: int, look: Look) -> Text:
    line = Text(f"node {node['node']:<3}")
    shares = held_by(node, workloads)
    if not shares:
        return line.append("no memory" if node["total_bytes"] == 0 else "memory not known", "dim")
    fills = marks.fills(len(shares), blocks=look.blocks)
    styles = [*USED_STYLES[: len(shares) - 1], USED_STYLES[-1]]
    cells = marks.split([share.ratio for share in shares], bar)
    for fill, style, part in zip(fills, styles, cells, strict=True):
        line.append(fill * part, style)
    line.append((marks.NONE if look.blocks else marks.ASCII_NONE) * (bar - sum(cells)), "dim")
    used = sum(share.ratio for share in shares)
    load = words.percent(node["load_ratio"])
    line.append(f" {words.percent(used):>4} {words.size(node['free_bytes']):>9} free {load:>4} CPU  ")
    for fill, style, share in zip(fills, styles, shares, strict=True):
        if share.name:
            line.append(fill, style)
            line.append(_cut(Text(escape(share.name)), LONGEST["WORKLOAD"], look))
            line.append(f" {words.percent(share.ratio)}  ")
    return line


def process_columns(top: Document, look: Look) -> list[Column]:
    """Return the columns of the table of processes."""
    return _short(rows.PROCESSES, top, look)


def workload_columns(top: Document, look: Look) -> list[Column]:
    """Return the columns of the table of workloads."""
    return _short(rows.WORKLOADS, top, look)


def process_cells(told: Document, top: Document, look: Look) -> list[Text]:
    """Return the cells of a process."""
    return _cells(rows.PROCESSES, rows.process(told), told, top, look)


def workload_cells(told: Document, top: Document, look: Look) -> list[Text]:
    """Return the cells of a workload."""
    return _cells(rows.WORKLOADS, rows.workload(told), told, top, look)


def fit(columns: Sequence[Column], table: Sequence[Sequence[Text]]) -> list[int]:
    """Return how many terminal cells each column takes, with one between it and the next."""
    widest = [max((row[i].cell_len for row in table), default=0) for i in range(len(columns))]
    return [max(width(column.title), wide) + 1 for column, wide in zip(columns, widest, strict=True)]


def placed(cells: Sequence[Text], columns: Sequence[Column], widths: Sequence[int]) -> list[Text]:
    """Return a row's cells, numbers at the right."""
    told = []
    for cell, column, wide in zip(cells, columns, widths, strict=True):
        copy = cell.copy()
        if column.right:
            copy.pad_left(wide - 1 - cell.cell_len)
        told.append(copy)
    return told


def _short(columns: Sequence[Column], top: Document, look: Look) -> list[Column]:
    """Return columns whose titles are no longer than they must be, with the one that is sorted by marked."""
    titles = {"MEMORY": "MEM", "RUNS ON": "RUN", "NEXT MOVE": "NEXT"}
    sorted_by = rows.SORT_TITLES.get(top["sort"])
    mark = "▾" if look.blocks else "*"
    return [
        Column(
            title=titles.get(each.title, each.title) + (mark if each.title == sorted_by else ""),
            right=each.right,
            cut=each.cut,
        )
        for each in columns
    ]


def _cells(columns: Sequence[Column], cells: Sequence[str], told: Document, top: Document, look: Look) -> list[Text]:
    names = [str(node["node"]) for node in top["nodes"]]
    run: Mapping[str, float] | None = told["run_ratio"]
    drawn = []
    for column, cell in zip(columns, cells, strict=True):
        if column.title == "MEMORY":
            drawn.append(_bars(told["bytes_by_node"], names, run, look))
        elif column.title == "RUNS ON":
            drawn.append(_bars(run, names, None, look))
        else:
            text = escape(cell)
            shown = Text(text, STATE_STYLES.get(cell, "") if column.title == "STATE" else "")
            drawn.append(_cut(shown, LONGEST.get(column.title, shown.cell_len), look))
    return drawn


def _bars(
    shares: Mapping[str, float] | None, names: Sequence[str], run: Mapping[str, float] | None, look: Look
) -> Text:
    """Return a bar for each node; with `run`, memory away from where it runs looks different."""
    times = WIDE_BAR if look.columns >= WIDE else 1
    drawn = Text()
    for name, char in zip(names, marks.by_node(shares, names, blocks=look.blocks), strict=True):
        style = "" if run is None else LOCAL if run.get(name, 0.0) >= LEAST_RUN_RATIO else REMOTE
        drawn.append(char * times, "dim" if char in {marks.NONE, marks.ASCII_NONE, "?"} else style)
        drawn.append(" " if times > 1 else "")
    return drawn


def _cut(line: Text, cells: int, look: Look) -> Text:
    line.truncate(cells, overflow="ellipsis" if look.blocks else "crop")
    return line
