"""`balancerctl ps`: every process, or every workload: where its memory is and where it runs.

It must not know how the daemon is reached.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import click

from balancerd.cli import bars, ps_workloads, words
from balancerd.cli.exits import CommandError
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.ranking import Key, least, most
from balancerd.cli.screen import Column, Table, draw, escape, write, write_json

SORT_KEYS: Final[Mapping[str, Key]] = {
    "remote": lambda process: most(process["remote_bytes"]),
    "rss": lambda process: most(process["rss_bytes"]),
    "cpu": lambda process: most(process["cpu_cores"]),
    "local": lambda process: least(process["local_ratio"]),
    "age": lambda process: most(process["age_seconds"]),
    "command": lambda process: process["comm"],
    "pid": lambda process: process["pid"],
    "workload": lambda process: process["workload"],
}
"""What each --sort compares for processes; ties go by pid, and what is not known comes last."""


@click.command(
    short_help="List processes or workloads: where their memory is and where they run.",
    epilog="""\b
Examples:
  balancerctl ps
  balancerctl ps --all --sort rss --limit 20
  balancerctl ps --workloads --sort cpu
  balancerctl ps --workload nginx.service
  balancerctl ps --json | jq '.processes[] | select(.state == "moving") | .pid'
""",
)
@click.option("--workloads", is_flag=True, help="List workloads (units, containers, guests) in place of processes.")
@click.option("--workload", metavar="NAME", help="Only the processes of this workload, or only this workload.")
@click.option(
    "--sort",
    type=click.Choice(list({**SORT_KEYS, **ps_workloads.SORT_KEYS})),
    default="remote",
    show_default=True,
    help="remote: most bytes away from where it runs first; local: smallest local share first.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Show the first N only.")
@click.option("--all", "show_all", is_flag=True, help="Show skipped processes, too (idle, young, unreadable).")
@socket_option
@json_option
@click.pass_obj
def ps(
    settings: Settings,
    *,
    workloads: bool,
    workload: str | None,
    sort: str,
    limit: int | None,
    show_all: bool,
    as_json: bool,
) -> None:
    """List processes: memory by node, where they run, how much of it is local, and what is done about it.

    LOCAL is the share of a process's memory that lies where it runs. STATE is that of the metric balancerd_processes:
    moving, held (wanted elsewhere; REASON says why it stays), well-placed, not-worth, no-home or unsampled; of those
    skipped unselected, excluded, small or unreadable. "-" is not known; balancerctl explain PID tells more.

    With --workloads: sums over the processes of each that are large enough to be watched (PROCS). Memory that several
    of them share counts as often in RSS. KNOWN is the share of RSS that the NODE columns tell of, "exact" when the
    cgroup told them: then each page counts once. MOVES is what moves, what is held back and why, and what is left.

    In JSON: the answer of the daemon to GET /v1/processes, sorted and limited likewise, each process with "state" and
    "remote_bytes" (null where unknown), and "hidden", the number of skipped processes left out; with --workloads, that
    to GET /v1/workloads.
    """
    if sort not in (ps_workloads.SORT_KEYS if workloads else SORT_KEYS):
        listed = "workloads" if workloads else "processes"
        raise click.BadParameter(f"{listed} cannot be sorted by {sort}", param_hint="--sort")
    if workloads:
        _list_workloads(settings, workload, sort=sort, limit=limit, as_json=as_json)
    else:
        _list_processes(settings, workload, sort=sort, limit=limit, show_all=show_all, as_json=as_json)


def _list_workloads(settings: Settings, name: str | None, *, sort: str, limit: int | None, as_json: bool) -> None:
    document = ask(settings, "/v1/workloads")
    shown = _of_workload(document["workloads"], "name", name)
    shown.sort(key=lambda each: (ps_workloads.SORT_KEYS[sort](each), each["name"]))
    if as_json:
        write_json({**document, "workloads": shown[:limit]})
        return
    draw(ps_workloads.table(shown[:limit]))


def _list_processes(
    settings: Settings, workload: str | None, *, sort: str, limit: int | None, show_all: bool, as_json: bool
) -> None:
    document = ask(settings, "/v1/processes")
    everyone = [
        {**each, "state": words.state(each["reason"]), "remote_bytes": remote_bytes(each)}
        for each in _of_workload(document["processes"], "workload", workload)
    ]
    shown = [each for each in everyone if show_all or not words.is_skipped(each["state"])]
    hidden = len(everyone) - len(shown)
    shown.sort(key=lambda each: (SORT_KEYS[sort](each), each["pid"]))
    shown = shown[:limit]
    if as_json:
        write_json({**document, "processes": shown, "hidden": hidden})
        return
    nodes = _nodes(shown)
    with_bars = bars.wants_bars(len(nodes))
    draw(Table(columns=_columns(nodes), rows=[_row(each, nodes, with_bars=with_bars) for each in shown]))
    if hidden:
        write(f"{words.count(hidden, 'skipped process')} not shown (--all)", err=True)


def _of_workload(listed: Sequence[Document], key: str, name: str | None) -> list[Document]:
    """Return those whose `key` is the workload's name, all without a name. CommandError when there is none."""
    found = [each for each in listed if name is None or each[key] == name]
    if name is not None and not found:
        raise CommandError(f"there is no workload {escape(name)}: balancerctl ps --workloads lists them")
    return found


def remote_bytes(process: Document) -> int | None:
    """How much of its memory lies away from where it runs; None when either is not known."""
    held, local = process["bytes_by_node"], process["local_ratio"]
    return None if held is None or local is None else round(sum(held.values()) * (1 - local))


def _nodes(shown: Sequence[Document]) -> list[str]:
    """Every node that holds memory of a shown process or runs it, in order."""
    seen = {node for each in shown for node in (*(each["bytes_by_node"] or ()), *(each["run_ratio"] or ()))}
    return sorted(seen, key=int)


def _columns(nodes: Sequence[str]) -> tuple[Column, ...]:
    return (
        Column(title="PID", right=True),
        Column(title="COMMAND", cut=True),
        Column(title="RSS", right=True),
        *(Column(title=f"NODE {node}", right=True) for node in nodes),
        Column(title="RUNS ON"),
        Column(title="LOCAL", right=True),
        Column(title="STATE"),
        Column(title="REASON", cut=True),
    )


def _row(process: Document, nodes: Sequence[str], *, with_bars: bool) -> tuple[str, ...]:
    return (
        str(process["pid"]),
        process["comm"],
        words.size(process["rss_bytes"]),
        *bars.by_node(process["bytes_by_node"], nodes, bars=with_bars),
        words.by_node(process["run_ratio"]),
        words.percent(process["local_ratio"]),
        process["state"],
        process["reason"],
    )
