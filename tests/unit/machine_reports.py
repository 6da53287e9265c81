"""Builders of tick reports that tell of a machine of many kinds: plain, tiered, large."""

from dataclasses import replace

from balancerd.model.ids import NodeId
from balancerd.model.machine import Device, HugetlbPool, Link, Machine, NodeState
from balancerd.model.report import TickReport
from tests.unit.reports import GIB, MIB, a_placement, a_process, a_process_report, a_report, a_topology

BLOCKS = (8, 4, 2, 1, 0, 0, 0, 0, 0, 12, 250)


def a_link(*initiators: int, nanoseconds: int = 100, mib_per_second: int = 10240) -> Link:
    """Writes are half as fast as reads, and their latency is not known."""
    return Link(
        read_latency_seconds=nanoseconds / 1e9,
        write_latency_seconds=None,
        read_bytes_per_second=float(mib_per_second * MIB),
        write_bytes_per_second=mib_per_second * MIB / 2,
        initiators=frozenset(map(NodeId, initiators)),
    )


def a_state(node: int, *, link: Link | None = None, tier: int | None = 4, load: float | None = 0.256) -> NodeState:
    """A node with an empty pool of large pages and a pool of small ones."""
    return NodeState(
        node=NodeId(node),
        load_ratio=load,
        free_blocks=BLOCKS,
        min_watermark_bytes=8 * MIB,
        low_watermark_bytes=12 * MIB,
        high_watermark_bytes=16 * MIB,
        link=link,
        tier=tier,
        hugetlb=(
            HugetlbPool(page_bytes=2 * MIB, total_pages=16, free_pages=12),
            HugetlbPool(page_bytes=GIB, total_pages=0, free_pages=0),
        ),
    )


def a_tiered_report() -> TickReport:
    """Two nodes with CPUs, and node 2 with slow memory only; two of three processes have known placements."""
    states = (
        a_state(0, link=a_link(0)),
        a_state(1, link=a_link(1), load=1.0),
        a_state(2, link=a_link(0, 1, nanoseconds=400, mib_per_second=1024), tier=180, load=None),
    )
    machine = Machine(
        nodes={state.node: state for state in states},
        devices=(
            Device(kind="net", name="eth0", node=NodeId(1)),
            Device(kind="nvme", name="nvme0", node=NodeId(0)),
            Device(kind="nvme", name="nvme1", node=NodeId(0)),
        ),
        numa_balancing=1,
        demotion=False,
        transparent_huge_pages="madvise",
        transparent_huge_defrag="defer+madvise",
    )
    processes = [
        a_process_report(a_process(1), placement=a_placement(a_process(1).id, {0: 1024.0, 2: 256.0})),
        a_process_report(a_process(2), placement=a_placement(a_process(2).id, {0: 512.0})),
        a_process_report(a_process(3)),
    ]
    report = a_report(number=7, processes=processes, topology=a_topology(3, memory_only=[2]))
    return replace(report, survey=replace(report.survey, machine=machine))


def a_plain_report(nodes: int, *, cpus_per_node: int = 2) -> TickReport:
    """A machine of so many equal nodes that tells of tiers, and has neither HMAT nor hugetlb pages nor devices."""
    states = [replace(a_state(node), hugetlb=()) for node in range(nodes)]
    report = a_report(number=7, topology=a_topology(nodes, cpus_per_node))
    machine = Machine(nodes={state.node: state for state in states}, numa_balancing=0)
    return replace(report, survey=replace(report.survey, machine=machine))
