"""The machine as the kernel describes it: NUMA nodes, their CPUs, distances and memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from balancerd.model.ids import CpuId, NodeId

LOCAL_DISTANCE = 10
"""SLIT distance of a node to itself (ACPI 6.5, 5.2.17)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One online node. `cpus` is empty for a memory-only node; `total_bytes` is 0 for a memoryless one.

    `distances` maps every online node to the SLIT value of nodeN/distance.
    """

    id: NodeId
    cpus: frozenset[CpuId]
    total_bytes: int
    distances: Mapping[NodeId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All online nodes in ascending order, and the way back from a CPU to its node."""

    nodes: tuple[Node, ...]
    node_of_cpu: Mapping[CpuId, NodeId]

    def distance(self, a: NodeId, b: NodeId) -> int:
        """Return the SLIT distance from node `a` to node `b`; KeyError when either is not online."""
        for node in self.nodes:
            if node.id == a:
                return node.distances[b]
        raise KeyError(a)

    @property
    def node_ids(self) -> tuple[NodeId, ...]:
        """Every online node, ascending."""
        return tuple(node.id for node in self.nodes)

    def nodes_of(self, cpus: Iterable[CpuId]) -> frozenset[NodeId]:
        """Return the nodes that these CPUs are on; those that are on none, as they are offline, are passed over."""
        return frozenset(self.node_of_cpu[cpu] for cpu in cpus if cpu in self.node_of_cpu)

    @property
    def memory_nodes(self) -> frozenset[NodeId]:
        """The nodes that have memory: only they can be the target of a migration."""
        return frozenset(node.id for node in self.nodes if node.total_bytes > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMemory:
    """Memory of one node at one moment, in bytes, from nodeN/meminfo and /proc/zoneinfo.

    `inactive_file_bytes` is page cache that the kernel gives up first; `high_watermark_bytes` is
    the free memory below which kswapd works.
    """

    node: NodeId
    total_bytes: int
    free_bytes: int
    inactive_file_bytes: int
    high_watermark_bytes: int

    @property
    def available_bytes(self) -> int:
        """Memory that a migration may fill: free, and page cache not used lately."""
        return self.free_bytes + self.inactive_file_bytes
