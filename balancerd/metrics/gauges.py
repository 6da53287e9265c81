"""What a scrape shows of the last report alone: it is gone when the next report does not have it."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from balancerd.engine.managers import tell_managers
from balancerd.metrics.instruments import Values, gauge
from balancerd.model.decision import Decision
from balancerd.model.ids import format_id_list
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.states import STATES
from balancerd.model.topology import Topology

MODES = ("enforce", "observe")
"""Kernel.mode, see ports."""


def of_report(report: TickReport, policies: Iterable[str]) -> list[Metric]:
    """Return the gauges of one report; `policies` are those known, whether or not they want anything now."""
    return [
        gauge("mode", "1 for the mode at work.", {(m,): float(m == report.mode) for m in MODES}, "mode"),
        gauge("processes", "Processes by state; each is counted once.", _by_state(report), "state"),
        gauge(
            "plan_pending_bytes",
            "Bytes that a policy wants moved and that the last tick did not move.",
            {(policy,): pending for policy, pending in _pending_bytes(report, policies).items()},
            "policy",
        ),
        gauge(
            "policy_disabled",
            "1 for a policy that is asked no more until the configuration is loaded again, by why.",
            {(name, failure.cause.value): 1.0 for name, failure in report.disabled_policies.items()},
            *("policy", "cause"),
        ),
        gauge(
            "paused",
            "1 while moves rest since some went wrong; see docs/trust.md.",
            {(): float(report.paused is not None)},
        ),
        gauge(
            "pressure_ratio",
            "Share of the last ten seconds in which some task waited (PSI, some avg10).",
            {(name,): ratio for name, ratio in _pressure(report).items() if ratio is not None},
            "resource",
        ),
        gauge(
            "migration_copy_bytes_per_second",
            "What the kernel has copied in a second of its calls, as measured, by both nodes; see docs/trust.md.",
            {(str(p.source), str(p.target)): p.copied_bytes / p.seconds for p in report.copying.pairs if p.seconds > 0},
            *("from_node", "to_node"),
        ),
        *_of_managers(report),
        *_of_topology(report.survey.topology),
    ]


def _of_managers(report: TickReport) -> list[Metric]:
    managers = tell_managers(report)
    return [
        gauge(
            "conflicting_manager_active",
            "Whether another manager of placement is at work; see docs/other-managers.md.",
            {(found.manager.value,): float(found.active) for found in managers},
            "manager",
        ),
        gauge(
            "managed_processes",
            "Surveyed processes that another manager has placed.",
            {(m.manager.value,): float(m.held_processes) for m in managers if m.held_processes is not None},
            "manager",
        ),
    ]


def _pressure(report: TickReport) -> dict[str, float | None]:
    return {"cpu": report.survey.pressure.cpu_ratio, "memory": report.survey.pressure.memory_ratio}


def _by_state(report: TickReport) -> Values:
    counts: Values = {(state,): 0.0 for state in STATES.values()}
    counts["small",] += report.survey.small_processes
    counts["kernel-thread",] += report.survey.kernel_threads
    for process in report.processes:
        counts[STATES[process.reason],] += 1
    return counts


def _pending_bytes(report: TickReport, policies: Iterable[str]) -> dict[str, float]:
    moved = {(o.step.policy, o.step.process, o.step.target): o.moved_pages * PAGE_BYTES for o in report.outcomes}
    pending = dict.fromkeys(policies, 0.0)
    for verdict in report.verdicts:
        if isinstance(verdict, Decision):
            done = moved.get((verdict.policy, verdict.process, verdict.target), 0)
            pending[verdict.policy] = pending.get(verdict.policy, 0.0) + max(0, verdict.misplaced_bytes - done)
    return pending


def _of_topology(topology: Topology) -> list[Metric]:
    distances: Values = {
        (str(node.id), str(other)): float(distance)
        for node in topology.nodes
        for other, distance in node.distances.items()
    }
    nodes: Values = {
        (str(node.id), format_id_list(node.cpus), "true" if node.total_bytes else "false"): 1.0
        for node in topology.nodes
    }
    return [
        gauge("numa_distance", "SLIT distance between two nodes; 10 is local.", distances, "from_node", "to_node"),
        gauge(
            "numa_node_info",
            "Online nodes: their CPUs, whether they have memory.",
            nodes,
            "numa_node",
            "cpus",
            "memory",
        ),
    ]
