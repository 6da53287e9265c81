"""What expressions may name: metrics of the daemon by type and labels, and what Prometheus adds.

Taken from a scrape in which every metric has a value, so that nothing is written down twice. Values of labels are known
where the code has a closed list of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from balancerd.metrics.gauges import MODES
from balancerd.model.decision import Reason
from balancerd.model.judged import MoveResult
from balancerd.model.manager import Manager
from balancerd.model.states import STATES
from tests.unit.every_metric import full_metrics

TARGET_LABELS = frozenset({"job", "instance", "cluster", "ring"})
"""What the shipped scrape configuration gives to each target."""

ALERT_LABELS = frozenset({"alertname", "alertstate", "severity", "policy"})

ALWAYS: Mapping[str, frozenset[str]] = {
    "reason": frozenset(Reason),
    "mode": frozenset(MODES),
    "manager": frozenset(Manager),
}
"""Values of labels that mean the same in every metric."""

MORE: Mapping[tuple[str, str], frozenset[str]] = {
    ("balancerd_processes", "state"): frozenset(STATES.values()),
    ("balancerd_moves_judged_total", "result"): frozenset(MoveResult),
    ("balancerd_history_lost_events_total", "cause"): frozenset({"queue", "limit", "end"}),
}
"""Values that the scrape does not show all of."""

FREE = frozenset(
    {"policy", "workload", "numa_node", "from_node", "to_node", "version", "cpus", "source", "error", "code"}
)
"""Labels whose values are open, or depend on the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What a name stands for. `kind` is counter, gauge or bucket; `values` are those known of a label."""

    kind: str
    labels: frozenset[str]
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)


def catalogue() -> dict[str, Series]:
    """Every series that a daemon's target has, by name; with `up` and ALERTS, which Prometheus makes."""
    found: dict[str, Series] = {}
    for family in text_string_to_metric_families(full_metrics().render()[1].decode()):
        for name in {sample.name for sample in family.samples}:
            samples = [sample.labels for sample in family.samples if sample.name == name]
            labels = frozenset(label for each in samples for label in each)
            found[name] = Series(
                kind=_kind(family.type, name),
                labels=labels | TARGET_LABELS,
                values={label: _values(name, label, samples) for label in labels - FREE - {"le"}},
            )
    found["up"] = Series(kind="gauge", labels=TARGET_LABELS)
    found["ALERTS"] = Series(kind="gauge", labels=TARGET_LABELS | ALERT_LABELS)
    return found


def families() -> frozenset[str]:
    """Names of the daemon's own metrics, as an operator looks for them: a counter's with _total, a histogram's bare."""
    text = full_metrics().render()[1].decode()
    return frozenset(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE balancerd_"))


def _kind(family: str, name: str) -> str:
    if family == "histogram":
        return "bucket" if name.endswith("_bucket") else "counter"
    assert family in {"counter", "gauge"}, f"{name} is a {family}"
    return family


def _values(name: str, label: str, samples: Iterable[Mapping[str, str]]) -> frozenset[str]:
    seen = frozenset(each[label] for each in samples if label in each)
    return seen | ALWAYS.get(label, frozenset()) | MORE.get((name, label), frozenset())
