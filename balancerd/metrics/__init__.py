"""What Prometheus sees: totals over all ticks, and gauges over the last report.

Owns every metric's name, labels and help; nothing else in the daemon knows them. It is a collector on a registry of
its own, so what is gone from the last report is gone from the next scrape. Labels are bounded: never a pid, a command
or an address. It must not know how or by whom it is scraped. The HTTP thread reads while the loop writes; one lock
stands between them, held only for arithmetic.
"""

import threading
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from balancerd.metrics import history, observation, workloads
from balancerd.metrics.gauges import of_report
from balancerd.metrics.instruments import Counter, Histogram, gauge, scalars
from balancerd.metrics.migration import MigrationCounters
from balancerd.model.decision import Decision, Reason, Skip, Steer, Wanted
from balancerd.model.event import HistoryFigures
from balancerd.model.ids import ProcessId
from balancerd.model.report import TickReport

__all__ = ["Metrics"]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
"""Methods that become a label of their own; a client may send any other word (RFC 9110, 9.1)."""

MISSES = frozenset({Reason.NO_ACCESS, Reason.VANISHED, Reason.UNREADABLE, Reason.BLOCKED})
"""Reasons that tell of a file that could not be read."""

PHASE_BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The sink behind /metrics.

    `unix_seconds` gives wall-clock time. `numa_balancing_mode` returns /proc/sys/kernel/numa_balancing, or None when
    the kernel has no such file; it is asked at each scrape, as is `history`, how the keeping of one goes.
    """

    def __init__(
        self,
        *,
        version: str,
        unix_seconds: Callable[[], float] = time.time,
        numa_balancing_mode: Callable[[], int | None] | None = None,
        history: Callable[[], HistoryFigures | None] = lambda: None,
    ) -> None:
        self._version = version
        self._unix_seconds = unix_seconds
        self._numa_balancing_mode = numa_balancing_mode
        self._history = history
        self._lock = threading.Lock()
        self._report: TickReport | None = None
        self._succeeded_at: float | None = None
        self._limit: float | None = None
        self._reload_succeeded: bool | None = None
        self._reloaded_at: float | None = None
        self._policies: set[str] = set()
        self._known_misses: frozenset[tuple[ProcessId, Reason]] = frozenset()

        self._ticks = Counter("balancerd_ticks_total", "Ticks by how they ended.", "outcome")
        self._errors = Counter(
            "balancerd_source_errors_total",
            "Things that could not be read or failed, once for each occurrence, by where and what.",
            *("source", "error"),
        )
        self._decisions = Counter("balancerd_decisions_total", "Decisions by policy.", "policy", "action")
        self._suppressed = Counter(
            "balancerd_decisions_suppressed_total",
            "Decisions that were turned down by the plan or ended early, by reason.",
            *("policy", "reason"),
        )
        self._migration = MigrationCounters()
        self._observation = observation.ObservationCounters()
        self._largest = workloads.Largest()
        self._requests = Counter(
            "balancerd_control_requests_total", "Requests on the control socket.", "method", "code"
        )
        self._turned_away = Counter(
            "balancerd_http_turned_away_total",
            "Clients let go before they had what they came for, by listener and reason.",
            *("listener", "reason"),
        )
        self._phases = Histogram(
            "balancerd_tick_phase_duration_seconds", "Wall time of each phase of a tick.", PHASE_BOUNDS_SECONDS, "phase"
        )
        for outcome in ("success", "degraded", "failure"):
            self._ticks.add(outcome, by=0.0)
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
            self._migration.count(report)
            self._observation.count(report)
            self._largest.rank(report.workloads)

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

    def turned_away(self, listener: str, reason: str) -> None:
        """Count one client that a listener ("control", "metrics") has let go; see control/door."""
        with self._lock:
            self._turned_away.add(listener, reason)

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
            families = [gauge("build_info", "Which version runs.", {(self._version,): 1.0}, "version")]
            families += [c.family() for c in (self._ticks, self._errors, self._decisions, self._suppressed)]
            families += [c.family() for c in (self._requests, self._turned_away, self._phases)]
            families += self._migration.families()
            families += self._observation.families()
            families += scalars(
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
            report, policies, largest = self._report, sorted(self._policies), self._largest.names
        families += history.families(self._history())
        if report is not None:
            families += of_report(report, policies)
            families += observation.of_report(report)
            families += workloads.families(report.workloads, largest, report.survey.topology)
        return families

    def _count_errors(self, report: TickReport) -> None:
        if report.survey.vanished_processes:
            self._errors.add("survey", Reason.VANISHED.value, by=report.survey.vanished_processes)
        if report.survey.unreadable_processes:
            self._errors.add("survey", Reason.UNREADABLE.value, by=report.survey.unreadable_processes)
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
            if not isinstance(verdict, Skip):
                self._policies.add(verdict.policy)
                self._decisions.add(verdict.policy, _action(verdict))
                open_decisions.setdefault(verdict.process, []).append(verdict.policy)
        done = [(o.step.process, o.step.policy, o.stopped_by) for o in report.outcomes]
        done += [(o.step.process, o.step.policy, o.stopped_by) for o in report.evictions]
        done += [(o.step.process, o.step.policy, o.stopped_by) for o in report.steers if not o.is_release]
        for process, policy, stopped_by in done:
            policies = open_decisions.get(process, [])
            if policy in policies:
                policies.remove(policy)
            if stopped_by is not None:
                self._suppressed.add(policy, stopped_by.value)
        for skip in report.plan.rejected:
            policies = open_decisions.get(skip.process, [])
            self._suppressed.add(policies.pop(0) if policies else skip.by, skip.reason.value)


def _action(want: Wanted) -> str:
    return "migrate" if isinstance(want, Decision) else "steer" if isinstance(want, Steer) else "evict"
