"""The workloads: where the memory of each lies, where it runs, and what holds it back. Pure."""

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Final

from balancerd.model.decision import REASON_TEXT
from balancerd.model.report import TickReport, WorkloadReport
from balancerd.web.figures import (
    Column,
    Piece,
    bar,
    by_node,
    colour,
    count,
    percent,
    section,
    shares,
    size,
    table,
)
from balancerd.web.markup import Html, element, shorten

MOST: Final = 40
MOST_REASONS: Final = 2

COLUMNS: Final = (
    Column(title="workload"),
    Column(title="memory", number=True),
    Column(title="lies on", wide=True),
    Column(title="runs on"),
    Column(title="CPU", number=True),
    Column(title="local", number=True),
    Column(title="now"),
)


def workloads(report: TickReport) -> Html:
    """Return a bar of placement for each workload, those with most remote memory first."""
    shown = heapq.nsmallest(MOST, report.workloads, key=_rank)
    left = len(report.workloads) - len(shown)
    note = "Most memory away from its threads first." + (
        f" {count(left, 'more workload')} not shown: balancerctl ps --workloads" if left else ""
    )
    if not shown:
        return section("workloads", "Workloads", element("p", "No process is large enough to be watched."))
    return section(
        "workloads", "Workloads", _legend(report), table(COLUMNS, map(_row, shown), "Placement of workloads"), note=note
    )


def reasons(report: TickReport) -> Html:
    """Return how many processes are left alone, or moving, and why."""
    counts = Counter(process.reason for process in report.processes)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0].value))
    most = max(counts.values(), default=1)
    columns = (
        Column(title="processes", number=True),
        Column(title="reason"),
        Column(title="share"),
        Column(title="meaning", wide=True),
    )
    rows = [
        (
            f"{number:,}",
            reason.value,
            bar([Piece(ratio=number / most, colour="plain", told=reason.value)], count(number, "process"), "bar thin"),
            REASON_TEXT[reason],
        )
        for reason, number in ranked
    ]
    note = (
        f"Not looked at: {count(report.survey.small_processes, 'smaller process')}, "
        f"{count(report.survey.kernel_threads, 'kernel thread')}."
    )
    return section("reasons", "Why processes stay or move", table(columns, rows, "Processes by reason"), note=note)


def _rank(report: WorkloadReport) -> tuple[int, int, str]:
    return -(report.remote_bytes or 0), -report.rss_bytes, report.workload.name


def _legend(report: TickReport) -> Html:
    ids = report.survey.topology.node_ids[:8]
    return element(
        "p",
        [element("span", element("i", class_=f"dot {colour(node)}"), f"node {node} ") for node in ids],
        class_="legend",
    )


def _row(report: WorkloadReport) -> tuple[Html | str, ...]:
    name, kind = report.workload.name, report.workload.kind.value
    run, cores = report.run_ratio, report.cpu_cores
    return (
        element(
            "div",
            element("b", shorten(name), title=shorten(name, 200)),
            element("small", f"{kind}, {count(len(report.members), 'process')}"),
            class_="name",
        ),
        size(report.rss_bytes),
        _placement(report),
        "unknown" if run is None else shares(run),
        "unknown" if cores is None else f"{cores:.1f}",
        percent(report.local_ratio),
        element("div", list(_now(report)), class_="now"),
    )


def _placement(report: WorkloadReport) -> Html:
    held = report.bytes_by_node
    total = sum(held.values())
    if not total:
        return element("span", "unknown", class_="muted")
    pieces = [
        Piece(ratio=part / total, colour=colour(node), told=f"node {node}: {size(part)}")
        for node, part in sorted(held.items())
        if part
    ]
    told = by_node(held)
    return element("div", bar(pieces, told), element("small", told), class_="placed")


def _now(report: WorkloadReport) -> Iterator[Html]:
    if report.moving_processes:
        yield element("span", f"{count(report.moving_processes, 'process')} moving", class_="tag good")
    if report.pending_bytes:
        yield element("span", f"{size(report.pending_bytes)} to move", class_="tag")
    ranked = sorted(report.held.items(), key=lambda item: (-item[1], item[0].value))
    for reason, number in ranked[:MOST_REASONS]:
        yield element("span", f"{number:,} {reason.value}", class_="tag warn", title=REASON_TEXT[reason])
    if not report.moving_processes and not report.pending_bytes and not report.held:
        yield element("span", "nothing to do", class_="muted")
