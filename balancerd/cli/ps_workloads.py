"""The table of `balancerctl ps --workloads`. It must not know how the daemon is reached."""

from collections.abc import Mapping, Sequence
from typing import Final

from balancerd.cli import bars, words
from balancerd.cli.options import Document
from balancerd.cli.ranking import Key, least, most
from balancerd.cli.screen import Column, Table

SORT_KEYS: Final[Mapping[str, Key]] = {
    "remote": lambda workload: most(workload["remote_bytes"]),
    "rss": lambda workload: most(workload["rss_bytes"]),
    "cpu": lambda workload: most(workload["cpu_cores"]),
    "local": lambda workload: least(workload["local_ratio"]),
    "processes": lambda workload: most(workload["processes"]),
    "workload": lambda workload: workload["name"],
}
"""What each --sort compares; ties go by name."""


def table(workloads: Sequence[Document]) -> Table:
    """Return the table of some workloads, in their order."""
    nodes = sorted({n for w in workloads for n in (*(w["bytes_by_node"] or ()), *w["cores_by_node"])}, key=int)
    with_bars = bars.wants_bars(len(nodes))
    return Table(
        columns=(
            Column(title="WORKLOAD", cut=True),
            Column(title="KIND"),
            *(Column(title=title, right=True) for title in ("PROCS", "RSS", "CPU")),
            *(Column(title=f"NODE {node}", right=True) for node in nodes),
            Column(title="KNOWN", right=True),
            Column(title="RUNS ON"),
            Column(title="LOCAL", right=True),
            Column(title="MOVES", cut=True),
        ),
        rows=[_row(each, nodes, with_bars=with_bars) for each in workloads],
    )


def _row(workload: Document, nodes: Sequence[str], *, with_bars: bool) -> tuple[str, ...]:
    return (
        workload["name"],
        workload["kind"],
        str(workload["processes"]),
        words.size(workload["rss_bytes"]),
        words.cores(workload["cpu_cores"]),
        *bars.by_node(workload["bytes_by_node"], nodes, bars=with_bars),
        "exact" if workload["exact"] else words.percent(workload["known_ratio"]),
        words.by_node(workload["run_ratio"]),
        words.percent(workload["local_ratio"]),
        moves(workload),
    )


def moves(workload: Document) -> str:
    """Return what is done about its memory, "" when nothing is wanted: "1 moving, 2 cooldown, 12MiB to go"."""
    parts = [f"{workload['moving_processes']} moving"] if workload["moving_processes"] else []
    parts += [f"{count} {reason}" for reason, count in workload["held"].items()]
    if workload["pending_bytes"]:
        parts.append(f"{words.size(workload['pending_bytes'])} to go")
    return ", ".join(parts)
