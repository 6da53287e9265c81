"""The answers of the control socket: pure functions from what is known to plain dicts, ready for JSON.

Every answer has "schema": 1; keys may be added under the same number, never renamed or removed. Unknown is null, never
0. Units stand in the key. Nodes are keys of objects, so they are texts: {"0": 4096}. A process name is the bytes of
/proc/PID/comm: an undecodable byte comes as a lone surrogate (Python's surrogateescape).

GET /v1/openapi.json
    all of this for machines (OpenAPI): see openapi.py

GET /v1/status
    schema, version, mode ("enforce", "observe", null before the first tick), pid, uptime_seconds, paused (whether moves
                rest, to a node or everywhere), paused_detail (why, or null)
    tick        null before the first, else {number, age_seconds, interval_seconds, phase_seconds: {phase: n}}
    scan        null before the second tick, else {used_ratio (share of one core that observing used since the tick
                before), budget_ratio}
    nodes       [{node, cpus ("0-3"), total_bytes, free_bytes, available_bytes, distances: {node: n}}]
    copying     null before the first tick, else how fast the kernel copies: {bytes_per_second (null: nothing measured),
                measured_bytes (the older the less), pairs: [{from, to, bytes_per_second, measured_bytes}]}
    counts      {surveyed, sampled, decided, planned, small_processes, kernel_threads, vanished_processes,
                by_reason: {reason: processes}}
    managers    null before the first tick, else every other manager of placement: [{manager, active, yields (whether
                yield_to names it), processes (held by it; null where it is about the whole machine), detail, pids (its
                own), fix, unreadable (what could not be read, or null)}]
    totals      {ticks, failed_ticks, moved_bytes, submitted_pages, pages: {status: n}}
    policy_errors  {policy: text} of the last tick
    disabled_policies  {policy: {cause ("raised", "slow", "nonsense"), detail}}: asked no more until a reload
    config      {path (null: there is no such file), files: [what is in effect; what wins stands last],
                last_reload: null or {succeeded, at_unix_seconds, error}}

GET /v1/nodes
    the machine: see machine_api.py

GET /v1/processes
    schema, tick, processes: [process], largest first, with a process being
        pid, start_ticks, comm, uid, cgroup, workload (its name), workload_kind ("unit", "pod", "container", "vm",
        "group", "other"), age_seconds, rss_bytes, cpu_cores, threads,
        bytes_by_node, run_ratio (by node), local_ratio, reason, reason_text, detail

GET /v1/processes/PID       (404: no such process; 400: PID is no number)
    schema, tick, process: the process as above, and
        cpus_allowed, mems_allowed   ("0-3", null where not read)
        verdicts    in the order in which they fell: [{by, action ("migrate", "steer", "leave"), reason, reason_text,
                    detail}, for "migrate" also target, misplaced_bytes, gain_cores, cost_seconds; for "steer" target,
                    pin, gain_cores, cost_seconds; more: explain_api.py]
        policies, deciding, judged   the stack, what gave the reason, what the last move came to: see explain_api.py
        placement   null or {age_seconds, method ("test", "sample", "every-page", "numa-maps"), queried_pages,
                    present_pages, exact, share_intervals: {node: [low, high]} (95 %), seconds, mempolicies_age_seconds,
                    vmas: the largest [{start, end (hexadecimal), kind, name, shared, bytes_by_node, absent_bytes,
                    page_bytes, mempolicy}], vmas_left_out}
        next_look_seconds   until it is looked at again, if it does not change before; 0 when that is due, null when
                    it is no candidate or was never looked at
        outcome     null or the last migration known, as in history
        history     newest first: [{tick, age_seconds, policy, target, move (its id, null for none), submitted_pages,
                    pages, moved_from, calls, longest_call_seconds, seconds, stopped_by, detail}]

GET /v1/plan
    what would be moved now: see plan_api.py

GET /v1/stream
    every tick as it ends: see stream_api.py

GET /v1/processes/PID/heat
    its address space as cells: see heat_api.py

POST /v1/reload             (202; root and the daemon's user only)
    schema, accepted (true): the configuration will be read again before the next tick; see config.last_reload

POST /v1/jobs, GET /v1/jobs, GET /v1/jobs/ID, POST /v1/jobs/ID/cancel, GET /v1/moves
    what operators ask for, and what moved: see job_api.py

GET /v1/advice, POST /v1/advice, /v1/pause, /v1/resume, /v1/mode, GET /v1/config
    advice on placement, and what operators switch: see operator_api.py

GET /v1/history
    what was decided and done, from the file that keeps it: see history_api.py

POST /v1/imports
    a log of accesses: see import_api.py

POST /v1/recordings
    what ticks are told, for `balancerctl record`: see recording_api.py

Errors (400, 403, 404, 405, 409, 411, 413, 503): schema, error (a sentence).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from balancerd.control import explain_api
from balancerd.control.machine_facts import copying
from balancerd.control.state import PastOutcome, View
from balancerd.engine.managers import tell_managers
from balancerd.engine.workloads import workload_of
from balancerd.model.decision import REASON_TEXT, Decision, Eviction, Skip, Steer, Verdict
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import PAGE_BYTES, Mempolicy, PlacementSample, VmaPlacement
from balancerd.model.topology import Node
from balancerd.model.workload import Workload

SCHEMA = 1
SHOWN_VMAS = 20
SHOWN_OUTCOMES = 20

Json: TypeAlias = dict[str, Any]
"""An object ready for json.dumps; Any, because JSON has no better type in Python."""


def status(view: View, *, version: str, pid: int, now: float) -> Json:
    """Answer GET /v1/status at monotonic second `now`."""
    report = view.report
    return {
        "schema": SCHEMA,
        "version": version,
        "mode": None if report is None else report.mode,
        "pid": pid,
        "uptime_seconds": rounded_seconds(now - view.started_at),
        "paused": report is not None and report.paused is not None,
        "paused_detail": None if report is None else report.paused,
        "tick": None
        if report is None or view.told_at is None
        else {
            "number": report.number,
            "age_seconds": rounded_seconds(now - view.told_at),
            "interval_seconds": report.survey.interval_seconds,
            "phase_seconds": {phase: rounded_seconds(seconds) for phase, seconds in report.phase_seconds.items()},
        },
        "scan": None if report is None else _scan(report),
        "nodes": [] if report is None else _nodes(report),
        "copying": None if report is None else copying(report.copying),
        "counts": None if report is None else _counts(report),
        "managers": None if report is None else _managers(report),
        "totals": {
            "ticks": view.totals.ticks,
            "failed_ticks": view.totals.failed_ticks,
            "moved_bytes": view.totals.moved_bytes,
            "submitted_pages": view.totals.submitted_pages,
            "pages": dict(view.totals.pages),
        },
        "policy_errors": {} if report is None else dict(report.policy_errors),
        "disabled_policies": {}
        if report is None
        else {name: {"cause": f.cause.value, "detail": f.detail} for name, f in report.disabled_policies.items()},
        "config": {
            "path": view.config_path,
            "files": list(view.places.files),
            "last_reload": None
            if view.reload is None
            else {
                "succeeded": view.reload.succeeded,
                "at_unix_seconds": view.reload.at,
                "error": view.reload.error,
            },
        },
    }


def processes(view: View) -> Json:
    """Answer GET /v1/processes."""
    reports = () if view.report is None else view.report.processes
    largest_first = sorted(reports, key=lambda report: (-report.process.rss_bytes, report.process.id))
    workloads = workloads_by_process(view.report)
    return {
        "schema": SCHEMA,
        "tick": None if view.report is None else view.report.number,
        "processes": [process_facts(each, workloads.get(each.process.id)) for each in largest_first],
    }


def process(view: View, report: ProcessReport, *, now: float) -> Json:
    """Answer GET /v1/processes/PID for a process of the last report, or one looked at just now."""
    sample = report.process
    history = _history(view.outcomes, sample.id, now)
    told = () if view.report is None else view.report.workloads
    next_look = None if view.report is None else view.report.next_looks.get(sample.id)
    workload = next((each.workload for each in told if sample.id in each.members), None)
    return {
        "schema": SCHEMA,
        "tick": None if view.report is None else view.report.number,
        "process": {
            **process_facts(report, workload),
            "cpus_allowed": None if sample.cpus_allowed is None else format_id_list(sample.cpus_allowed),
            "mems_allowed": None if sample.mems_allowed is None else format_id_list(sample.mems_allowed),
            "verdicts": [{**_verdict(verdict), **explain_api.why(verdict, view.places)} for verdict in report.verdicts],
            "policies": explain_api.policies(view, report),
            "deciding": explain_api.deciding(view, report),
            "judged": explain_api.judged(view, sample.id, now),
            "placement": None if report.placement is None else _placement(report.placement, report.run_ratio, now),
            "next_look_seconds": None if next_look is None else rounded_seconds(max(0.0, next_look - now)),
            "outcome": history[0] if history else None,
            "history": history,
        },
    }


def error(text: str) -> Json:
    """Tell what is wrong with a request."""
    return {"schema": SCHEMA, "error": text}


def workloads_by_process(report: TickReport | None) -> dict[ProcessId, Workload]:
    """Return the workload of each process of a report."""
    told = () if report is None else report.workloads
    return {process: each.workload for each in told for process in each.members}


def node_facts(report: TickReport, node: Node) -> Json:
    """Return what is told of a node everywhere."""
    memory = report.survey.memory.get(node.id)
    return {
        "node": node.id,
        "cpus": format_id_list(node.cpus),
        "total_bytes": node.total_bytes,
        "free_bytes": None if memory is None else memory.free_bytes,
        "available_bytes": None if memory is None else memory.available_bytes,
    }


def _nodes(report: TickReport) -> list[Json]:
    return [
        {**node_facts(report, node), "distances": _by_node(node.distances)} for node in report.survey.topology.nodes
    ]


def _scan(report: TickReport) -> Json | None:
    if report.scan_cores is None:
        return None
    return {"used_ratio": round(report.scan_cores, 6), "budget_ratio": report.scan_budget_ratio}


def _counts(report: TickReport) -> Json:
    return {
        "surveyed": len(report.survey.processes),
        "sampled": len(report.sampled),
        "decided": sum(isinstance(verdict, Decision) for verdict in report.verdicts),
        "planned": len(report.plan.steps),
        "small_processes": report.survey.small_processes,
        "kernel_threads": report.survey.kernel_threads,
        "vanished_processes": report.survey.vanished_processes,
        "by_reason": dict(Counter(process.reason.value for process in report.processes)),
    }


def _managers(report: TickReport) -> list[Json]:
    return [
        {
            "manager": found.manager.value,
            "active": found.active,
            "yields": found.manager in report.yield_to,
            "processes": found.held_processes,
            "detail": found.detail,
            "pids": list(found.pids),
            "fix": found.fix,
            "unreadable": found.unreadable,
        }
        for found in tell_managers(report)
    ]


def process_facts(report: ProcessReport, workload: Workload | None) -> Json:
    """Return what is told of a process everywhere; without a `workload`, that which its own sample names."""
    sample = report.process
    named = workload_of(sample) if workload is None else workload
    return {
        "pid": sample.id.pid,
        "start_ticks": sample.id.start_ticks,
        "comm": sample.comm,
        "uid": sample.uid,
        "cgroup": sample.cgroup,
        "workload": named.name,
        "workload_kind": named.kind.value,
        "age_seconds": rounded_seconds(sample.age_seconds),
        "rss_bytes": sample.rss_bytes,
        "cpu_cores": None if sample.cpu_cores is None else round(sample.cpu_cores, 4),
        "threads": sample.n_threads,
        "bytes_by_node": None if report.placement is None else _by_node(report.placement.bytes_by_node),
        "run_ratio": None if report.run_ratio is None else _by_node(_rounded(report.run_ratio)),
        "local_ratio": None if report.local_ratio is None else round(report.local_ratio, 4),
        "reason": report.reason.value,
        "reason_text": REASON_TEXT[report.reason],
        "detail": report.detail,
    }


def _verdict(verdict: Verdict) -> Json:
    text = {"reason": verdict.reason.value, "reason_text": REASON_TEXT[verdict.reason], "detail": verdict.detail}
    if isinstance(verdict, Skip):
        return {"by": verdict.by, "action": "leave", **text}
    if isinstance(verdict, Eviction):
        return {
            "by": verdict.policy,
            "action": "evict",
            **text,
            "evict_bytes": verdict.evict_bytes,
            "cold_only": verdict.cold_only,
        }
    if isinstance(verdict, Steer):
        return {
            "by": verdict.policy,
            "action": "steer",
            **text,
            "target": verdict.target,
            "pin": verdict.pin,
            "gain_cores": round(verdict.gain_cores, 6),
            "cost_seconds": round(verdict.cost_seconds, 6),
        }
    return {
        "by": verdict.policy,
        "action": "migrate",
        **text,
        "target": verdict.target,
        "misplaced_bytes": verdict.misplaced_bytes,
        "gain_cores": round(verdict.gain_cores, 6),
        "cost_seconds": round(verdict.cost_seconds, 6),
    }


def _placement(placement: PlacementSample, run_ratio: Mapping[NodeId, float] | None, now: float) -> Json:
    home = max(run_ratio, key=lambda node: (run_ratio[node], -node)) if run_ratio else None
    largest = sorted(placement.vmas, key=lambda placed: (-_pages_off(placed, home), placed.vma.start))[:SHOWN_VMAS]
    return {
        "age_seconds": rounded_seconds(now - placement.taken_at),
        "method": placement.method.value,
        "queried_pages": placement.queried_pages,
        "present_pages": placement.present_pages,
        "exact": placement.exact,
        "share_intervals": {
            str(node): [round(interval.low, 6), round(interval.high, 6)]
            for node, interval in sorted(placement.intervals.items())
        },
        "seconds": rounded_seconds(placement.seconds),
        "mempolicies_age_seconds": None
        if placement.mempolicies_at is None
        else rounded_seconds(now - placement.mempolicies_at),
        "vmas": [_vma(placed) for placed in largest],
        "vmas_left_out": len(placement.vmas) - len(largest),
    }


def _pages_off(placed: VmaPlacement, home: NodeId | None) -> float:
    """Return the pages away from the node where the process runs most; all of them when that is not known."""
    return sum(pages for node, pages in placed.pages_by_node.items() if node != home)


def _vma(placed: VmaPlacement) -> Json:
    vma = placed.vma
    return {
        "start": f"{vma.start:x}",
        "end": f"{vma.end:x}",
        "kind": vma.kind.value,
        "name": vma.name,
        "shared": vma.shared,
        "bytes_by_node": _by_node({node: round(p * PAGE_BYTES) for node, p in placed.pages_by_node.items()}),
        "absent_bytes": round(placed.absent_pages * PAGE_BYTES),
        "page_bytes": vma.page_bytes,
        "mempolicy": None if vma.mempolicy is None else _mempolicy(vma.mempolicy),
    }


def _mempolicy(policy: Mempolicy) -> str:
    return f"{policy.mode}:{format_id_list(policy.nodes)}" if policy.nodes else policy.mode


def _history(outcomes: Iterable[PastOutcome], process_id: ProcessId, now: float) -> list[Json]:
    mine = [outcome for outcome in outcomes if outcome.process == process_id][-SHOWN_OUTCOMES:]
    return [
        {
            "tick": outcome.tick,
            "age_seconds": rounded_seconds(now - outcome.told_at),
            "policy": outcome.policy,
            "target": outcome.target,
            "move": outcome.move_id,
            "submitted_pages": outcome.submitted_pages,
            "pages": dict(outcome.pages),
            "moved_from": _by_node(outcome.moved_from),
            "calls": outcome.calls,
            "longest_call_seconds": outcome.longest_call_seconds,
            "seconds": rounded_seconds(outcome.seconds),
            "stopped_by": None if outcome.stopped_by is None else outcome.stopped_by.value,
            "detail": outcome.detail,
        }
        for outcome in reversed(mine)
    ]


def _by_node(values: Mapping[NodeId, int] | Mapping[NodeId, float]) -> dict[str, float]:
    return {str(node): value for node, value in sorted(values.items())}


def _rounded(ratios: Mapping[NodeId, float]) -> dict[NodeId, float]:
    return {node: round(ratio, 4) for node, ratio in ratios.items()}


def rounded_seconds(value: float) -> float:
    """Return seconds as every answer tells them: to the microsecond."""
    return round(value, 6)
