"""What Prometheus sees: totals over all ticks, and gauges over the last report.

Owns every metric's name, labels and help; nothing else in the daemon knows them. It is a collector on a registry of
its own, so what is gone from the last report is gone from the next scrape. Labels are bounded: never a pid, a command
or an address. It must not know how or by whom it is scraped. The HTTP thread reads while the loop writes; one lock
stands between them, held only for arithmetic.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from balancerd.model.decision import Decision, Reason, Skip
from balancerd.model.ids import ProcessId, format_id_list
from balancerd.model.migration import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.topology import Topology

MODES = ("enforce", "observe")
"""Kernel.mode, see ports."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
"""Methods that become a label of their own; a client may send any other word (RFC 9110, 9.1)."""

STATES: Mapping[Reason, str] = {
    Reason.KERNEL_THREAD: "kernel-thread",
    **dict.fromkeys((Reason.SELF, Reason.BELOW_MIN_AGE, Reason.BELOW_MIN_CPU, Reason.FIRST_SIGHT), "unselected"),
    Reason.BELOW_MIN_RSS: "small",
    **dict.fromkeys((Reason.SCAN_BUDGET, Reason.NOT_SAMPLED), "unsampled"),
    **dict.fromkeys((Reason.NO_ACCESS, Reason.VANISHED, Reason.UNREADABLE, Reason.NOTHING_PRESENT), "unreadable"),
    Reason.WELL_PLACED: "well-placed",
    **dict.fromkeys(
        (Reason.NO_HOME, Reason.SEVERAL_HOMES, Reason.HOME_WITHOUT_MEMORY, Reason.HOME_TOO_YOUNG), "no-home"
    ),
    **dict.fromkeys((Reason.LOSS_BELOW_COST, Reason.GAIN_BELOW_COST), "not-worth"),
    Reason.MISPLACED: "moving",
    **dict.fromkeys(
        (
            *(Reason.COOLDOWN, Reason.QUARANTINE, Reason.CPUSET, Reason.MEMPOLICY, Reason.MEMPOLICY_UNREAD),
            *(Reason.TARGET_FULL, Reason.MIGRATION_BUDGET, Reason.CLAIMED, Reason.OBSERVE_MODE),
            *(Reason.EXITED, Reason.STOPPING, Reason.NO_MEMORY, Reason.CALL_FAILED),
        ),
        "held",
    ),
}
"""The state in which a process is counted, by the reason of its last verdict: each process has exactly one."""

MISSES = frozenset({Reason.NO_ACCESS, Reason.VANISHED, Reason.UNREADABLE})
"""Reasons that tell of a file that could not be read."""

PHASE_BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CALL_BOUNDS_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""migrate.stall_target is 5 ms by default, so it is a bound; operators ask for the share below it."""


Values: TypeAlias = dict[tuple[str, ...], float]
"""Numbers by label values."""


class _Counter:
    """Totals by label values."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._values: Values = {}

    def add(self, *values: str, by: float = 1.0) -> None:
        self._values[values] = self._values.get(values, 0.0) + by

    def family(self) -> Metric:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, total in self._values.items():
            family.add_metric(values, total)
        return family


class _Histogram:
    """Observations by label values, in buckets with inclusive upper bounds."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: Values = {}
        if not labels:
            self._start(())

    def observe(self, seconds: float, *values: str) -> None:
        if values not in self._counts:
            self._start(values)
        self._counts[values][bisect_left(self._bounds, seconds)] += 1
        self._sums[values] += seconds

    def family(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for values, counts in self._counts.items():
            buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
            family.add_metric(values, buckets, sum_value=self._sums[values])
        return family

    def _start(self, values: tuple[str, ...]) -> None:
        self._counts[values] = [0] * (len(self._bounds) + 1)
        self._sums[values] = 0.0


class Metrics:
    """The sink behind /metrics.

    `unix_seconds` gives wall-clock time. `numa_balancing_mode` returns /proc/sys/kernel/numa_balancing, or None when
    the kernel has no such file; it is asked at each scrape.
    """

    def __init__(
        self,
        *,
        version: str,
        unix_seconds: Callable[[], float] = time.time,
        numa_balancing_mode: Callable[[], int | None] | None = None,
    ) -> None:
        self._version = version
        self._unix_seconds = unix_seconds
        self._numa_balancing_mode = numa_balancing_mode
        self._lock = threading.Lock()
        self._report: TickReport | None = None
        self._succeeded_at: float | None = None
        self._limit: float | None = None
        self._reload_succeeded: bool | None = None
        self._reloaded_at: float | None = None
        self._policies: set[str] = set()
        self._known_misses: frozenset[tuple[ProcessId, Reason]] = frozenset()

        self._ticks = _Counter("balancerd_ticks_total", "Ticks by how they ended.", "outcome")
        self._errors = _Counter(
            "balancerd_source_errors_total",
            "Things that could not be read or failed, once for each occurrence, by where and what.",
            *("source", "error"),
        )
        self._decisions = _Counter("balancerd_decisions_total", "Decisions by policy.", "policy", "action")
        self._suppressed = _Counter(
            "balancerd_decisions_suppressed_total",
            "Decisions that were turned down by the plan or ended early, by reason.",
            *("policy", "reason"),
        )
        self._bytes = _Counter(
            "balancerd_migrated_bytes_total", "Bytes whose node changed, by both nodes.", "from_node", "to_node"
        )
        self._pages = _Counter(
            "balancerd_migration_pages_total", "Base pages submitted for migration, by how each one ended.", "status"
        )
        self._failed_pages = _Counter(
            "balancerd_migration_failed_pages_total", "Base pages submitted that did not move, by why.", "status"
        )
        self._requests = _Counter(
            "balancerd_control_requests_total", "Requests on the control socket.", "method", "code"
        )
        self._phases = _Histogram(
            "balancerd_tick_phase_duration_seconds", "Wall time of each phase of a tick.", PHASE_BOUNDS_SECONDS, "phase"
        )
        self._calls = _Histogram(
            "balancerd_migration_call_duration_seconds",
            "Time in one migrating call to move_pages(2), in which the process may wait for its memory.",
            CALL_BOUNDS_SECONDS,
        )
        for outcome in ("success", "degraded", "failure"):
            self._ticks.add(outcome, by=0.0)
        for status in PageStatus:
            self._pages.add(status.value, by=0.0)
            if status is not PageStatus.MOVED:
                self._failed_pages.add(status.value, by=0.0)

        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def emit(self, report: TickReport) -> None:
        """Add one finished tick to the totals; it becomes what the gauges tell."""
        with self._lock:
            self._report = report
            self._succeeded_at = self._unix_seconds()
            self._ticks.add("degraded" if report.policy_errors else "success")
            for phase, seconds in report.phase_seconds.items():
                self._phases.observe(seconds, phase)
            self._count_errors(report)
            self._count_decisions(report)
            self._count_outcomes(report)

    def tick_failed(self, source: str, error: str) -> None:
        """Count a tick that ended with an exception: `source` is its phase, `error` the exception's class name."""
        with self._lock:
            self._ticks.add("failure")
            self._errors.add(source, error)

    def reload(self, *, succeeded: bool, at: float) -> None:
        """Note that the configuration was read (the first time, too) at unix time `at`."""
        with self._lock:
            self._reload_succeeded = succeeded
            if succeeded:
                self._reloaded_at = at

    def limit(self, bytes_per_second: float | None) -> None:
        """Note the configured migrate.rate_limit; None when there is none."""
        with self._lock:
            self._limit = bytes_per_second

    def control_request(self, method: str, code: int) -> None:
        """Count one answered request on the control socket."""
        with self._lock:
            self._requests.add(method if method in METHODS else "other", str(code))

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return content type and exposition for an Accept header: OpenMetrics when asked for, else the text format."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry then does not collect while registering."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return every family; called by the registry in the thread that scrapes."""
        numa_balancing = None if self._numa_balancing_mode is None else self._numa_balancing_mode()
        with self._lock:
            families = [_gauge("build_info", "Which version runs.", {(self._version,): 1.0}, "version")]
            families += [c.family() for c in (self._ticks, self._errors, self._decisions, self._suppressed)]
            families += [c.family() for c in (self._bytes, self._pages, self._failed_pages, self._requests)]
            families += [self._phases.family(), self._calls.family()]
            families += _scalars(
                (
                    "config_last_reload_successful",
                    "Whether the last reading of the file succeeded.",
                    self._reload_succeeded,
                ),
                (
                    "config_last_reload_success_timestamp_seconds",
                    "When the file was last read well.",
                    self._reloaded_at,
                ),
                ("tick_last_success_timestamp_seconds", "When a tick was last completed.", self._succeeded_at),
                ("migration_limit_bytes_per_second", "The configured migrate.rate_limit.", self._limit),
                (
                    "kernel_numa_balancing_mode",
                    "/proc/sys/kernel/numa_balancing; 1 and 2 move pages too.",
                    numa_balancing,
                ),
            )
            report, policies = self._report, sorted(self._policies)
        if report is not None:
            families += _of_report(report, policies)
        return families

    def _count_errors(self, report: TickReport) -> None:
        if report.survey.vanished_processes:
            self._errors.add("survey", Reason.VANISHED.value, by=report.survey.vanished_processes)
        misses = frozenset((v.process, v.reason) for v in report.verdicts if isinstance(v, Skip) and v.reason in MISSES)
        for _process, reason in (
            misses - self._known_misses
        ):  # the engine repeats a miss until the process is read or gone
            self._errors.add("sample", reason.value)
        self._known_misses = misses
        for policy in report.policy_errors:
            self._errors.add(f"policy/{policy}", "exception")

    def _count_decisions(self, report: TickReport) -> None:
        open_decisions: dict[ProcessId, list[str]] = {}
        for verdict in report.verdicts:
            if isinstance(verdict, Decision):
                self._policies.add(verdict.policy)
                self._decisions.add(verdict.policy, "migrate")
                open_decisions.setdefault(verdict.process, []).append(verdict.policy)
        for outcome in report.outcomes:
            policies = open_decisions.get(outcome.step.process, [])
            if outcome.step.policy in policies:
                policies.remove(outcome.step.policy)
            if outcome.stopped_by is not None:
                self._suppressed.add(outcome.step.policy, outcome.stopped_by.value)
        for skip in report.plan.rejected:
            policies = open_decisions.get(skip.process, [])
            self._suppressed.add(policies.pop(0) if policies else skip.by, skip.reason.value)

    def _count_outcomes(self, report: TickReport) -> None:
        for outcome in report.outcomes:
            for node, pages in outcome.moved_from.items():
                self._bytes.add(str(node), str(outcome.step.target), by=pages * PAGE_BYTES)
            for status, pages in outcome.pages.items():
                self._pages.add(status.value, by=pages)
                if status is not PageStatus.MOVED:
                    self._failed_pages.add(status.value, by=pages)
            for seconds in outcome.call_seconds:
                self._calls.observe(seconds)


def _gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"balancerd_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _scalars(*gauges: tuple[str, str, float | None]) -> list[Metric]:
    return [_gauge(name, text, {(): float(value)}) for name, text, value in gauges if value is not None]


def _of_report(report: TickReport, policies: Iterable[str]) -> list[Metric]:
    return [
        _gauge("mode", "1 for the mode at work.", {(m,): float(m == report.mode) for m in MODES}, "mode"),
        _gauge("processes", "Processes by state; each is counted once.", _by_state(report), "state"),
        _gauge(
            "plan_pending_bytes",
            "Bytes that a policy wants moved and that the last tick did not move.",
            {(policy,): pending for policy, pending in _pending_bytes(report, policies).items()},
            "policy",
        ),
        *_of_topology(report.survey.topology),
    ]


def _by_state(report: TickReport) -> Values:
    counts: Values = {(state,): 0.0 for state in STATES.values()}
    counts["small",] += report.survey.small_processes
    counts["kernel-thread",] += report.survey.kernel_threads
    for process in report.processes:
        counts[STATES[process.reason],] += 1
    return counts


def _pending_bytes(report: TickReport, policies: Iterable[str]) -> dict[str, float]:
    moved = {(o.step.policy, o.step.process): o.moved_pages * PAGE_BYTES for o in report.outcomes}
    pending = dict.fromkeys(policies, 0.0)
    for verdict in report.verdicts:
        if isinstance(verdict, Decision):
            done = moved.get((verdict.policy, verdict.process), 0)
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
        _gauge("numa_distance", "SLIT distance between two nodes; 10 is local.", distances, "from_node", "to_node"),
        _gauge(
            "numa_node_info",
            "Online nodes: their CPUs, whether they have memory.",
            nodes,
            "numa_node",
            "cpus",
            "memory",
        ),
    ]
