"""The tables of `balancerctl top`, cell by cell: pure. It must not know who draws them."""

from collections.abc import Mapping
from typing import Final

from balancerd.cli import words
from balancerd.cli.options import Document
from balancerd.cli.ps_workloads import moves
from balancerd.cli.screen import UNKNOWN, Column
from balancerd.cli.top.frame import held_by

PROCESSES: Final = (
    Column(title="PID", right=True),
    Column(title="COMMAND", cut=True),
    Column(title="RSS", right=True),
    Column(title="CPU", right=True),
    Column(title="MEMORY"),
    Column(title="RUNS ON"),
    Column(title="LOCAL", right=True),
    Column(title="STATE"),
    Column(title="NEXT MOVE"),
    Column(title="MOVED/S", right=True),
    Column(title="REASON"),
    Column(title="WORKLOAD", cut=True),
)
WORKLOADS: Final = (
    Column(title="WORKLOAD", cut=True),
    Column(title="PROCS", right=True),
    Column(title="RSS", right=True),
    Column(title="CPU", right=True),
    Column(title="MEMORY"),
    Column(title="RUNS ON"),
    Column(title="LOCAL", right=True),
    Column(title="MOVES", cut=True),
    Column(title="MOVED/S", right=True),
    Column(title="KIND"),
)
NODES: Final = (
    Column(title="NODE", right=True),
    Column(title="CPUS"),
    *(Column(title=title, right=True) for title in ("LOAD", "TOTAL", "USED", "FREE", "AVAILABLE")),
    Column(title="USED BY", cut=True),
)

SORT_TITLES: Final[Mapping[str, str]] = {"cpu": "CPU", "rss": "RSS", "local": "LOCAL", "moved": "MOVED/S"}
"""The column that each sort goes by; `remote` has none of its own."""

SORTS: Final = ("remote", *SORT_TITLES)


def process(told: Document) -> tuple[str, ...]:
    """Return the cells of a process of GET /v1/top."""
    return (
        str(told["pid"]),
        told["comm"],
        words.size(told["rss_bytes"]),
        words.cores(told["cpu_cores"]),
        words.by_node(shares(told["bytes_by_node"])),
        words.by_node(told["run_ratio"]),
        words.percent(told["local_ratio"]),
        told["state"],
        next_move(told["next_move"]),
        rate(told["moved_bytes_per_second"]),
        told["reason"],
        told["workload"],
    )


def workload(told: Document) -> tuple[str, ...]:
    """Return the cells of a workload of GET /v1/top."""
    return (
        told["name"],
        str(told["processes"]),
        words.size(told["rss_bytes"]),
        words.cores(told["cpu_cores"]),
        words.by_node(shares(told["bytes_by_node"])),
        words.by_node(told["run_ratio"]),
        words.percent(told["local_ratio"]),
        moves(told),
        rate(told["moved_bytes_per_second"]),
        told["kind"],
    )


def node(told: Document, top: Document) -> tuple[str, ...]:
    """Return the cells of a node of GET /v1/top."""
    total, free = told["total_bytes"], told["free_bytes"]
    return (
        str(told["node"]),
        told["cpus"] or "none",
        words.percent(told["load_ratio"]),
        words.size(total),
        UNKNOWN if free is None else words.size(total - free),
        words.size(free),
        words.size(told["available_bytes"]),
        ", ".join(f"{s.name} {words.percent(s.ratio)}" for s in held_by(told, top["workloads"]) if s.name),
    )


def shares(held: Mapping[str, int] | None) -> dict[str, float] | None:
    """Return bytes by node as shares of their sum; None when nothing is known, or nothing held."""
    total = sum((held or {}).values())
    return {node: size_bytes / total for node, size_bytes in (held or {}).items()} if total else None


def next_move(told: Document | None) -> str:
    """Return where how much is to go: "12MiB to 0"; "" for nowhere."""
    return "" if told is None else f"{words.size(told['pending_bytes'])} to {told['target']}"


def rate(bytes_per_second: float | None) -> str:
    """Return a rate to read in a column of rates; "" for none."""
    if bytes_per_second is None:
        return UNKNOWN
    return words.size(round(bytes_per_second)) if bytes_per_second else ""


def left_out(top: Document, listed: str) -> str:
    """Return how many more processes or workloads there are than listed; "" when these are all."""
    more = top["left_out"][listed]
    return f"and {more} more {listed}" if more else ""
