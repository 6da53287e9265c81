"""The Machine as it is now. Owns which of its files are read at each tick and which once a minute.

At each tick: CPU times, free blocks, and the hugetlb pools of sizes that have pages. Watermarks, links, tiers, devices
and settings change by an administrator's hand or by hotplug, and zoneinfo grows with nodes times CPUs. It must not know
processes.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from balancerd.kernel.machine.cpu_load import CpuTicks, load_by_node, read_cpu_ticks, ticks_between
from balancerd.kernel.machine.devices import read_devices
from balancerd.kernel.machine.hugetlb import read_filled_sizes, read_pool_sizes, read_pools
from balancerd.kernel.machine.links import read_link, read_tiers
from balancerd.kernel.machine.values import read_choice, read_number, read_truth
from balancerd.kernel.machine.zones import read_free_blocks, read_watermarks
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.machine import HugetlbPool, Machine, NodeState
from balancerd.model.topology import Topology
from balancerd.ports import Clock

_LONG_SECONDS = 60.0
"""How old may be what changes rarely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rare:
    """What is read once a minute, for the topology of that moment."""

    read_at: float
    topology: Topology
    machine: Machine
    high_watermarks: Mapping[NodeId, int]
    pool_sizes: Mapping[NodeId, tuple[int, ...]]
    """Sizes of hugetlb pages in bytes."""


class MachineReader:
    """Reads the machine below `procfs` and `sysfs`; nothing is read before the first question.

    `ticks` is what each CPU has counted between the last two readings.
    """

    def __init__(self, clock: Clock, procfs: str = "/proc", sysfs: str = "/sys") -> None:
        self._clock = clock
        self._procfs = procfs
        self._sysfs = sysfs
        self._rare: _Rare | None = None
        self._counted: dict[CpuId, CpuTicks] = {}
        self.ticks: dict[CpuId, CpuTicks] = {}

    def read(self, topology: Topology) -> Machine:
        """Return the machine now; loads are since the call before. Raises OSError or ParseError."""
        rare = self._read_rare(topology)
        free_blocks = read_free_blocks(self._procfs) or {}
        before, self._counted = self._counted, read_cpu_ticks(self._procfs)
        self.ticks = ticks_between(before, self._counted)
        loads = load_by_node(topology.nodes, self.ticks)
        filled_sizes = read_filled_sizes(self._sysfs, itertools.chain.from_iterable(rare.pool_sizes.values()))
        states = {
            node: replace(
                state,
                load_ratio=loads.get(node),
                free_blocks=free_blocks.get(node),
                hugetlb=self._read_pools(node, rare.pool_sizes[node], filled_sizes),
            )
            for node, state in rare.machine.nodes.items()
        }
        return replace(rare.machine, nodes=states)

    def high_watermarks(self, topology: Topology) -> Mapping[NodeId, int]:
        """Return the high watermark of each node in bytes, a minute old at most. Raises OSError or ParseError."""
        return self._read_rare(topology).high_watermarks

    def _read_pools(
        self, node: NodeId, page_sizes: Iterable[int], filled_sizes: frozenset[int]
    ) -> tuple[HugetlbPool, ...]:
        """Read only pools of sizes that have pages somewhere: on most machines none has, and every file costs."""
        pools = read_pools(self._sysfs, node, filled_sizes.intersection(page_sizes))
        empty = (HugetlbPool(page_bytes=n, total_pages=0, free_pages=0) for n in page_sizes if n not in filled_sizes)
        return tuple(sorted((*pools, *empty), key=lambda pool: pool.page_bytes))

    def _read_rare(self, topology: Topology) -> _Rare:
        now = self._clock.now()
        rare = self._rare
        if rare is None or rare.topology is not topology or now - rare.read_at >= _LONG_SECONDS:
            rare = self._rare = self._read_everything_rare(topology, now)
        return rare

    def _read_everything_rare(self, topology: Topology, now: float) -> _Rare:
        marks = read_watermarks(self._procfs)
        tiers = read_tiers(self._sysfs)
        nodes: dict[NodeId, NodeState] = {}
        for node in topology.node_ids:
            of_node = marks.get(node)
            nodes[node] = NodeState(
                node=node,
                min_watermark_bytes=None if of_node is None else of_node.min_bytes,
                low_watermark_bytes=None if of_node is None else of_node.low_bytes,
                high_watermark_bytes=None if of_node is None else of_node.high_bytes,
                link=read_link(self._sysfs, node),
                tier=tiers.get(node),
            )
        huge = f"{self._sysfs}/kernel/mm/transparent_hugepage"
        machine = Machine(
            nodes=nodes,
            devices=read_devices(self._sysfs),
            numa_balancing=read_number(f"{self._procfs}/sys/kernel/numa_balancing"),
            demotion=read_truth(f"{self._sysfs}/kernel/mm/numa/demotion_enabled"),
            transparent_huge_pages=read_choice(f"{huge}/enabled"),
            transparent_huge_defrag=read_choice(f"{huge}/defrag"),
        )
        return _Rare(
            read_at=now,
            topology=topology,
            machine=machine,
            high_watermarks={node: of_node.high_bytes for node, of_node in marks.items()},
            pool_sizes={node: read_pool_sizes(self._sysfs, node) for node in nodes},
        )
