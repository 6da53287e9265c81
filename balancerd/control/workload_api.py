"""The answers about workloads, and the live view: pure functions from what is known to plain dicts; see api.

GET /v1/workloads
    schema, tick, workloads: [workload], largest first, with a workload being the sum over its processes that are large
    enough to be watched:
        name, kind ("unit", "pod", "container", "vm", "group", "other"), cgroup (null: none of its own), processes,
        threads, rss_bytes, cpu_cores (null at first sight), cores_by_node (of those processes whose node is known),
        run_ratio (by node, or null), bytes_by_node (null: not known of any), exact (its cgroup told bytes_by_node:
        all that its processes map, each page once; else estimated), known_ratio (share of rss_bytes that
        bytes_by_node tells of), local_ratio (share of its memory that lies where its processes run, or null),
        remote_bytes (the rest of what that is known of, or null), pending_bytes (wanted elsewhere),
        moving_processes, held {reason: processes}

GET /v1/top?sort=remote|cpu|rss|local|moved&match=TEXT     (400: another sort, or too long a text)
    schema, tick, mode, age_seconds (since the tick ended), interval_seconds, sort (remote unless given), match ("")
    nodes       [{node, cpus ("0-3"), total_bytes, free_bytes, available_bytes, load_ratio (null: not known)}]
    workloads   the first 100: [a workload as above, and moved_bytes_per_second]
    processes   the first 100: [a process as in GET /v1/processes, and remote_bytes, state (as in the metric
                balancerd_processes), next_move (null or {policy, target, pending_bytes, reason}),
                moved_bytes_per_second]
    left_out    {workloads, processes}: how many more match
    Most remote_bytes, cpu_cores, rss_bytes or moved bytes first, or least local_ratio; what is not known last. A text
    is looked for, upper or lower case, in command, pid and workload's name. moved_bytes_per_second is that of the last
    tick, with what operators' commands moved; null at the first tick.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qs

from balancerd.control.api import SCHEMA, Json, node_facts, process_facts, workloads_by_process
from balancerd.control.state import View
from balancerd.engine.workloads import workload_of
from balancerd.model.decision import Decision
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.report import ProcessReport, TickReport, WorkloadReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.states import STATES
from balancerd.model.workload import Workload

MOST: Final = 100
"""A live view shows no more of either."""

LONGEST_MATCH: Final = 64

Moved: TypeAlias = Mapping[ProcessId, int]
"""Bytes that the last tick moved."""

PROCESS_SORTS: Final[Mapping[str, Callable[[ProcessReport, Moved], float | None]]] = {
    "remote": lambda report, _moved: report.remote_bytes,
    "cpu": lambda report, _moved: report.process.cpu_cores,
    "rss": lambda report, _moved: report.process.rss_bytes,
    "local": lambda report, _moved: None if report.local_ratio is None else -report.local_ratio,
    "moved": lambda report, moved: moved.get(report.process.id, 0),
}
WORKLOAD_SORTS: Final[Mapping[str, Callable[[WorkloadReport, Moved], float | None]]] = {
    "remote": lambda report, _moved: report.remote_bytes,
    "cpu": lambda report, _moved: report.cpu_cores,
    "rss": lambda report, _moved: report.rss_bytes,
    "local": lambda report, _moved: None if report.local_ratio is None else -report.local_ratio,
    "moved": lambda report, moved: sum(moved.get(member, 0) for member in report.members) if moved else 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which processes and workloads a live view shows: those that `match`, "" for all, ordered by a sort."""

    sort: str = "remote"
    match: str = ""


def parse_asked(query: str) -> Asked | None:
    """Parse the query of GET /v1/top or /v1/stream; None when it is not understood."""
    try:
        told = parse_qs(query, keep_blank_values=True, max_num_fields=2, errors="surrogateescape")
    except ValueError:
        return None
    sorts, matches = told.pop("sort", ["remote"]), told.pop("match", [""])
    if told or len(sorts) != 1 or len(matches) != 1:
        return None
    if sorts[0] not in PROCESS_SORTS or len(matches[0]) > LONGEST_MATCH:
        return None
    return Asked(sort=sorts[0], match=matches[0])


def workloads(view: View) -> Json:
    """Answer GET /v1/workloads."""
    reports = () if view.report is None else view.report.workloads
    largest_first = sorted(reports, key=lambda report: (-report.rss_bytes, report.workload.name))
    return {
        "schema": SCHEMA,
        "tick": None if view.report is None else view.report.number,
        "workloads": [_workload(report) for report in largest_first],
    }


def top(view: View, asked: Asked, *, now: float) -> Json:
    """Answer GET /v1/top at monotonic second `now`. KeyError when there is no such sort."""
    report = view.report
    by_process, by_workload = PROCESS_SORTS[asked.sort], WORKLOAD_SORTS[asked.sort]
    named = workloads_by_process(report)
    text = asked.match.casefold()
    processes = [p for p in (() if report is None else report.processes) if _matches(p, named, text)]
    told = [w for w in (() if report is None else report.workloads) if text in w.workload.name.casefold()]
    moved = _moved_bytes(report)
    interval_seconds = None if report is None else report.survey.interval_seconds
    first_processes = heapq.nsmallest(MOST, processes, key=lambda p: (_descending(by_process(p, moved)), p.process.id))
    first_workloads = heapq.nsmallest(MOST, told, key=lambda w: (_descending(by_workload(w, moved)), w.workload.name))
    return {
        "schema": SCHEMA,
        "tick": None if report is None else report.number,
        "mode": None if report is None else report.mode,
        "age_seconds": None if view.told_at is None else round(now - view.told_at, 6),
        "interval_seconds": interval_seconds,
        "sort": asked.sort,
        "match": asked.match,
        "nodes": [] if report is None else _nodes(report),
        "workloads": [
            {
                **_workload(each),
                "moved_bytes_per_second": _rate((moved.get(m, 0) for m in each.members), interval_seconds),
            }
            for each in first_workloads
        ],
        "processes": [
            {
                **process_facts(each, named.get(each.process.id)),
                "remote_bytes": each.remote_bytes,
                "state": STATES[each.reason],
                "next_move": _next_move(each),
                "moved_bytes_per_second": _rate([moved.get(each.process.id, 0)], interval_seconds),
            }
            for each in first_processes
        ],
        "left_out": {
            "workloads": len(told) - len(first_workloads),
            "processes": len(processes) - len(first_processes),
        },
    }


def _matches(report: ProcessReport, named: Mapping[ProcessId, Workload], text: str) -> bool:
    """Whether a casefolded text is found in what a process is known by; "" is found in everyone."""
    if not text:
        return True
    workload = named.get(report.process.id) or workload_of(report.process)
    return any(text in each.casefold() for each in (report.process.comm, str(report.process.id.pid), workload.name))


def _workload(report: WorkloadReport) -> Json:
    run, cores = report.run_ratio, report.cpu_cores
    return {
        "name": report.workload.name,
        "kind": report.workload.kind.value,
        "cgroup": report.workload.cgroup,
        "processes": len(report.members),
        "threads": report.threads,
        "rss_bytes": report.rss_bytes,
        "cpu_cores": None if cores is None else round(cores, 4),
        "cores_by_node": _by_node(report.cores_by_node),
        "run_ratio": None if run is None else _by_node(run),
        "bytes_by_node": _by_node(report.bytes_by_node) if report.known_bytes or report.exact else None,
        "exact": report.exact,
        "known_ratio": _rounded(report.known_ratio),
        "local_ratio": _rounded(report.local_ratio),
        "remote_bytes": report.remote_bytes,
        "pending_bytes": report.pending_bytes,
        "moving_processes": report.moving_processes,
        "held": {reason.value: processes for reason, processes in report.held.items()},
    }


def _nodes(report: TickReport) -> list[Json]:
    machine = report.survey.machine
    told = []
    for node in report.survey.topology.nodes:
        state = None if machine is None else machine.nodes.get(node.id)
        told.append({**node_facts(report, node), "load_ratio": None if state is None else _rounded(state.load_ratio)})
    return told


def _next_move(report: ProcessReport) -> Json | None:
    """Return what the first policy still wants moved of a process; None when that is nothing."""
    done = report.outcome
    for verdict in report.verdicts:
        if isinstance(verdict, Decision):
            moved_pages = done.moved_pages if done is not None and _is_of(done, verdict) else 0
            pending_bytes = verdict.misplaced_bytes - moved_pages * PAGE_BYTES
            if pending_bytes > 0:
                return {
                    "policy": verdict.policy,
                    "target": verdict.target,
                    "pending_bytes": pending_bytes,
                    "reason": verdict.reason.value,
                }
    return None


def _is_of(done: MigrationOutcome, decision: Decision) -> bool:
    return (done.step.policy, done.step.target) == (decision.policy, decision.target)


def _moved_bytes(report: TickReport | None) -> dict[ProcessId, int]:
    moved: dict[ProcessId, int] = {}
    for outcome in () if report is None else report.outcomes:
        process = outcome.step.process
        moved[process] = moved.get(process, 0) + outcome.moved_pages * PAGE_BYTES
    return moved


def _rate(moved_bytes: Iterable[int], interval_seconds: float | None) -> float | None:
    return round(sum(moved_bytes) / interval_seconds, 1) if interval_seconds else None


def _descending(value: float | None) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, -value)


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def _by_node(values: Mapping[NodeId, int] | Mapping[NodeId, float]) -> dict[str, float]:
    return {str(node): round(value, 4) for node, value in sorted(values.items())}
