"""Every metric that there is, by name, type, labels and help, whether or not it has a value now.

It is what a daemon tells that has seen an empty machine and of which everything else is known. Who adds a metric does
it where its values come from, and it stands here. What a program of Python tells of itself (process_*) is left out.
"""

from dataclasses import dataclass

from prometheus_client.core import Metric

from balancerd.metrics import Metrics
from balancerd.model.event import HistoryFigures
from balancerd.model.migration import MigrationPlan
from balancerd.model.report import TickReport
from balancerd.model.sample import Survey
from balancerd.model.topology import Topology

NOTHING = TickReport(
    number=1,
    mode="observe",
    survey=Survey(
        taken_at=0.0,
        interval_seconds=None,
        topology=Topology(nodes=(), node_of_cpu={}),
        memory={},
        processes=(),
    ),
    sampled=(),
    verdicts=(),
    plan=MigrationPlan(steps=(), rejected=()),
    outcomes=(),
    processes=(),
    phase_seconds={},
    policy_errors={},
    scan_budget_ratio=0.0,
)
"""A tick on a machine without nodes and processes."""

NOTHING_KEPT = HistoryFigures(written_events=0, lost_events={}, errors={}, rows=0, kept_bytes=0, trouble=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric, by the name under which /metrics lists it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def catalogue() -> tuple[Described, ...]:
    """Return all metrics, by name."""
    metrics = Metrics(version="", numa_balancing_mode=lambda: 0, history=lambda: NOTHING_KEPT)
    metrics.emit(NOTHING)
    metrics.reload(succeeded=True, at=0.0)
    metrics.limit(0.0)
    return tuple(sorted(map(_described, metrics.collect()), key=lambda metric: metric.name))


def _described(family: Metric) -> Described:
    return Described(
        name=f"{family.name}_total" if family.type == "counter" else family.name,
        kind=family.type,
        labels=family._labelnames,  # type: ignore[attr-defined]  # noqa: SLF001 - the names of labels are nowhere else
        text=family.documentation,
    )
