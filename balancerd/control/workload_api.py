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

GET /v1/top?sort=remote|cpu     (400: another sort; remote unless given)
    schema, tick, mode, age_seconds (since the tick ended), interval_seconds, sort
    nodes       [{node, cpus ("0-3"), total_bytes, free_bytes, available_bytes, load_ratio (null: not known)}]
    workloads   the first 100: [a workload as above, and moved_bytes_per_second]
    processes   the first 100: [a process as in GET /v1/processes, and remote_bytes, state (as in the metric
                balancerd_processes), next_move (null or {policy, target, pending_bytes, reason}),
                moved_bytes_per_second]
    left_out    {workloads, processes}
    Most remote_bytes or cpu_cores first, what is not known last. moved_bytes_per_second is that of the last tick, with
    what operators' commands moved; null at the first tick.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from balancerd.control.api import SCHEMA, Json, node_facts, process_facts, workloads_by_process
from balancerd.control.state import View
from balancerd.metrics.gauges import STATES
from balancerd.model.decision import Decision
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.report import ProcessReport, TickReport, WorkloadReport
from balancerd.model.sample import PAGE_BYTES

MOST: Final = 100
"""A live view shows no more of either."""

PROCESS_SORTS: Final[Mapping[str, Callable[[ProcessReport], float | None]]] = {
    "remote": lambda report: report.remote_bytes,
    "cpu": lambda report: report.process.cpu_cores,
}
WORKLOAD_SORTS: Final[Mapping[str, Callable[[WorkloadReport], float | None]]] = {
    "remote": lambda report: report.remote_bytes,
    "cpu": lambda report: report.cpu_cores,
}


def workloads(view: View) -> Json:
    """Answer GET /v1/workloads."""
    reports = () if view.report is None else view.report.workloads
    largest_first = sorted(reports, key=lambda report: (-report.rss_bytes, report.workload.name))
    return {
        "schema": SCHEMA,
        "tick": None if view.report is None else view.report.number,
        "workloads": [_workload(report) for report in largest_first],
    }


def top(view: View, *, sort: str, now: float) -> Json:
    """Answer GET /v1/top at monotonic second `now`. KeyError when there is no such sort."""
    report = view.report
    by_process, by_workload = PROCESS_SORTS[sort], WORKLOAD_SORTS[sort]
    processes = () if report is None else report.processes
    told = () if report is None else report.workloads
    named = workloads_by_process(report)
    moved = _moved_bytes(report)
    interval_seconds = None if report is None else report.survey.interval_seconds
    first_processes = heapq.nsmallest(MOST, processes, key=lambda p: (_descending(by_process(p)), p.process.id))
    first_workloads = heapq.nsmallest(MOST, told, key=lambda w: (_descending(by_workload(w)), w.workload.name))
    return {
        "schema": SCHEMA,
        "tick": None if report is None else report.number,
        "mode": None if report is None else report.mode,
        "age_seconds": None if view.told_at is None else round(now - view.told_at, 6),
        "interval_seconds": interval_seconds,
        "sort": sort,
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
