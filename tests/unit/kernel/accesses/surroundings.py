"""What sources of accesses are given in tests: this machine, with each of its CPUs taken for a node."""

import os
from collections.abc import Callable

from balancerd.kernel.accesses.rings import Surroundings
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Node, Topology

MIB = 1 << 20
CPUS = sorted(os.sched_getaffinity(0))[:2]


def as_nodes(*cpus: int) -> Topology:
    """A machine in which each of these CPUs is a node; where its memory lies, the kernel of this one says."""
    ids = [NodeId(n) for n in range(len(cpus))]
    nodes = tuple(
        Node(id=n, cpus=frozenset({CpuId(cpu)}), total_bytes=1 << 33, distances=dict.fromkeys(ids, 21) | {n: 10})
        for n, cpu in zip(ids, cpus, strict=True)
    )
    return Topology(nodes=nodes, node_of_cpu={CpuId(cpu): n for n, cpu in zip(ids, cpus, strict=True)})


def surroundings(reads: PatientReads, topology: Callable[[], Topology]) -> Surroundings:
    clock = MonotonicClock()
    return Surroundings(clock=clock, reads=reads, mappings=Mappings(clock), topology=topology)
