"""The machine beyond its topology: what each node offers, how loaded it is, and the kernel's settings that matter."""

from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.model.ids import NodeId
from balancerd.model.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Rated latency and bandwidth of a node's memory for the nodes whose CPUs are nearest to it, its initiators.

    As ACPI's HMAT tells it. Any may be None: the table need not tell all. Source: the kernel's
    Documentation/admin-guide/mm/numaperf.rst.
    """

    read_latency_seconds: float | None
    write_latency_seconds: float | None
    read_bytes_per_second: float | None
    write_bytes_per_second: float | None
    initiators: frozenset[NodeId]

    @property
    def is_known(self) -> bool:
        """Whether any figure is known."""
        figures = (self.read_latency_seconds, self.write_latency_seconds)
        rates = (self.read_bytes_per_second, self.write_bytes_per_second)
        return any(figure is not None for figure in (*figures, *rates))


@dataclass(frozen=True, slots=True, kw_only=True)
class HugetlbPool:
    """Huge pages of one size on one node: nodeN/hugepages/hugepages-NkB."""

    page_bytes: int
    total_pages: int
    free_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that lies at one node: `kind` is "net", "nvme" or "gpu"; its node is that of its PCI slot.

    One of which the firmware does not say where it lies is no Device.
    """

    kind: str
    name: str
    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node at one moment. What the kernel does not tell is None.

    `load_ratio` is the share of its CPUs' time since the reading before that they were not idle; None at first, and
    for a node without CPUs. `free_blocks` counts free blocks of 2**order base pages by order, over the zones in which
    memory of processes lies. Watermarks are summed over all of the node's zones. `tier` is the kernel's id of its
    memory tier: lower is faster. `hugetlb` has the pools by page size, those without pages too.
    """

    node: NodeId
    load_ratio: float | None = None
    free_blocks: tuple[int, ...] | None = None
    min_watermark_bytes: int | None = None
    low_watermark_bytes: int | None = None
    high_watermark_bytes: int | None = None
    link: Link | None = None
    tier: int | None = None
    hugetlb: tuple[HugetlbPool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Every online node, the devices at them, and the settings of the kernel's own memory management.

    `numa_balancing` is the number in kernel.numa_balancing (0 off, 1 balancing, 2 tiering), `demotion` whether reclaim
    demotes to slower nodes; `transparent_huge_pages` is what stands in brackets in .../transparent_hugepage/enabled.
    """

    nodes: Mapping[NodeId, NodeState]
    devices: tuple[Device, ...] = ()
    numa_balancing: int | None = None
    demotion: bool | None = None
    transparent_huge_pages: str | None = None
    transparent_huge_defrag: str | None = None

    @property
    def is_hugetlb_in_use(self) -> bool:
        """Whether any hugetlb page, of any size, is in use on any node."""
        return any(pool.total_pages > pool.free_pages for state in self.nodes.values() for pool in state.hugetlb)

    def busy_cpus(self, topology: Topology) -> float | None:
        """Return how many CPUs were not idle since the reading before; None where no load is known."""
        loads = {node: state.load_ratio for node, state in self.nodes.items() if state.load_ratio is not None}
        return sum(loads.get(node.id, 0.0) * len(node.cpus) for node in topology.nodes) if loads else None
