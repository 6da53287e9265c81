"""`balancerctl ps`: every process, where its memory is and where it runs.

It must not know how the daemon is reached.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from balancerd.cli import words
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import UNKNOWN, Column, Table, draw, write, write_json

Key = Callable[[Document], Any]

SORT_KEYS: Final[Mapping[str, Key]] = {
    "remote": lambda process: _descending(process["remote_bytes"]),
    "rss": lambda process: _descending(process["rss_bytes"]),
    "cpu": lambda process: _descending(process["cpu_cores"]),
    "local": lambda process: _ascending(process["local_ratio"]),
    "age": lambda process: _descending(process["age_seconds"]),
    "command": lambda process: process["comm"],
    "pid": lambda process: process["pid"],
}
"""What each --sort compares; ties go by pid, and what is not known comes last."""


@click.command(
    short_help="List processes: where their memory is and where they run.",
    epilog="""\b
Examples:
  balancerctl ps
  balancerctl ps --all --sort rss --limit 20
  balancerctl ps --json | jq '.processes[] | select(.state == "moving") | .pid'
""",
)
@click.option(
    "--sort",
    type=click.Choice(list(SORT_KEYS)),
    default="remote",
    show_default=True,
    help="remote: most bytes away from where it runs first; local: smallest local share first.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show the first N only.")
@click.option("--all", "show_all", is_flag=True, help="Show the skipped ones, too (idle, young, unreadable).")
@socket_option
@json_option
@click.pass_obj
def ps(settings: Settings, *, sort: str, limit: int | None, show_all: bool, as_json: bool) -> None:
    """List processes: memory by node, where they run, how much of it is local, and what is done about it.

    LOCAL is the share of a process's memory that lies where it runs. STATE is moving, eligible (a candidate; REASON
    says why it stays) or skipped. "-" is not known; balancerctl explain PID tells more.

    In JSON: the answer of the daemon to GET /v1/processes, sorted and limited likewise, each process with "state" and
    "remote_bytes" (null where unknown), and "hidden", the number of skipped processes left out.
    """
    document = ask(settings, "/v1/processes")
    everyone = [
        {**each, "state": words.state(each["reason"]), "remote_bytes": remote_bytes(each)}
        for each in document["processes"]
    ]
    shown = [each for each in everyone if show_all or each["state"] != "skipped"]
    hidden = len(everyone) - len(shown)
    shown.sort(key=lambda each: (SORT_KEYS[sort](each), each["pid"]))
    shown = shown[:limit]
    if as_json:
        write_json({**document, "processes": shown, "hidden": hidden})
        return
    draw(Table(columns=_columns(shown), rows=[_row(each, _nodes(shown)) for each in shown]))
    if hidden:
        write(f"{words.count(hidden, 'skipped process')} not shown (--all)", err=True)


def remote_bytes(process: Document) -> int | None:
    """How much of its memory lies away from where it runs; None when either is not known."""
    held, local = process["bytes_by_node"], process["local_ratio"]
    return None if held is None or local is None else round(sum(held.values()) * (1 - local))


def _nodes(shown: Sequence[Document]) -> list[str]:
    """Every node that holds memory of a shown process or runs it, in order."""
    seen = {node for each in shown for node in (*(each["bytes_by_node"] or ()), *(each["run_ratio"] or ()))}
    return sorted(seen, key=int)


def _columns(shown: Sequence[Document]) -> tuple[Column, ...]:
    return (
        Column(title="PID", right=True),
        Column(title="COMMAND", cut=True),
        Column(title="RSS", right=True),
        *(Column(title=f"NODE {node}", right=True) for node in _nodes(shown)),
        Column(title="RUNS ON"),
        Column(title="LOCAL", right=True),
        Column(title="STATE"),
        Column(title="REASON", cut=True),
    )


def _row(process: Document, nodes: Sequence[str]) -> tuple[str, ...]:
    held = process["bytes_by_node"]
    return (
        str(process["pid"]),
        process["comm"],
        words.size(process["rss_bytes"]),
        *(UNKNOWN if held is None else words.size(held.get(node, 0)) for node in nodes),
        words.by_node(process["run_ratio"]),
        words.percent(process["local_ratio"]),
        process["state"],
        process["reason"],
    )


def _descending(value: float | None) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, -value)


def _ascending(value: float | None) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, value)
