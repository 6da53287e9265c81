"""Workloads as a scrape shows them: the largest by name, all others as one, so that there are never too many series.

Owns which workloads have series of their own, and what their names look like as a label. One workload enters when it
is among the largest, and leaves when it is well below: two of the same size do not take turns.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from balancerd.metrics.instruments import Values, gauge
from balancerd.model.ids import NodeId
from balancerd.model.printable import is_printable
from balancerd.model.report import WorkloadReport
from balancerd.model.topology import Topology

ENTER = 50
"""So many of the largest workloads, by resident size, have series of their own."""

LEAVE = 60
"""One that has them keeps them while it is among so many, so this bounds the series."""

OTHER = "other"
"""The label of all others together; a workload of that name is always among them."""

LONGEST_LABEL_BYTES = 200
"""In UTF-8. Names that are the same up to there are told together."""


def label(name: str) -> str:
    """Return a workload's name as a label: what is not printable, or not UTF-8, is "?", and what is too long is cut."""
    clean = "".join(char if is_printable(char) else "?" for char in name)
    return clean.encode()[:LONGEST_LABEL_BYTES].decode("utf-8", "ignore") or OTHER


class Largest:
    """The workloads with series of their own."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()

    def rank(self, workloads: Iterable[WorkloadReport]) -> None:
        """Let workloads enter and leave, by their size now; ties go by name."""
        sizes = {report.workload.name: report.rss_bytes for report in workloads if report.workload.name != OTHER}
        if len(sizes) <= ENTER:
            self.names = frozenset(sizes)
            return
        ranked = sorted(sizes, key=lambda name: (-sizes[name], name))[:LEAVE]
        self.names = frozenset(name for place, name in enumerate(ranked) if place < ENTER or name in self.names)


@dataclass(slots=True)
class _Sum:
    """What is told under one label."""

    bytes_by_node: dict[NodeId, int] = field(default_factory=lambda: defaultdict(int))
    cores_by_node: dict[NodeId, float] = field(default_factory=lambda: defaultdict(float))
    judged_bytes: int = 0
    local_bytes: int = 0

    def add(self, report: WorkloadReport) -> None:
        for node, held in report.bytes_by_node.items():
            self.bytes_by_node[node] += held
        for node, cores in report.cores_by_node.items():
            self.cores_by_node[node] += cores
        self.judged_bytes += report.judged_bytes
        self.local_bytes += report.local_bytes


def families(workloads: Sequence[WorkloadReport], named: frozenset[str], topology: Topology) -> list[Metric]:
    """Return the gauges of all workloads; those in `named` have a label of their own.

    A workload of which something is known has a value for every node that it could be on, and else none.
    """
    sums: dict[str, _Sum] = defaultdict(_Sum)
    for report in workloads:
        name = report.workload.name
        sums[label(name) if name in named else OTHER].add(report)
    resident: Values = {}
    cores: Values = {}
    local: Values = {}
    with_memory = dict.fromkeys(sorted(topology.memory_nodes), 0)
    with_cpus = dict.fromkeys((node.id for node in topology.nodes if node.cpus), 0.0)
    for name, total in sums.items():
        if total.bytes_by_node:
            resident |= _values(name, {**with_memory, **total.bytes_by_node})
        if total.cores_by_node:
            cores |= _values(name, {**with_cpus, **total.cores_by_node})
        if total.judged_bytes:
            local[name,] = total.local_bytes / total.judged_bytes
    return [
        gauge("workloads", "Workloads with a process that is large enough to be watched.", {(): float(len(workloads))}),
        gauge(
            "workload_resident_bytes",
            "Memory of a workload by node, estimated unless its cgroup tells; what is on no known node is left out.",
            resident,
            *("workload", "numa_node"),
        ),
        gauge(
            "workload_cpu_cores",
            "CPU cores that a workload uses, by the node where its threads ran last; threads are not counted by node.",
            cores,
            *("workload", "numa_node"),
        ),
        gauge(
            "workload_locality_ratio",
            "Share of a workload's memory that lies where its processes run.",
            local,
            "workload",
        ),
    ]


def _values(name: str, by_node: dict[NodeId, int] | dict[NodeId, float]) -> Values:
    return {(name, str(node)): float(value) for node, value in by_node.items()}
