"""A machine with two nodes with CPUs and one without, and heat as policies see it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot
from balancerd.model.topology import Topology
from tests.unit.fakes import MIB, VMA_START, make_process, make_snapshot, make_survey, make_topology

TIERS = ((10, 20, 40), (20, 10, 60), (40, 60, 10))


def make_tiers() -> Topology:
    """8 GiB on each node; node 2 has no CPUs."""
    topology = make_topology(TIERS)
    nodes = (*topology.nodes[:2], replace(topology.nodes[2], cpus=frozenset()))
    return replace(topology, nodes=nodes, node_of_cpu={CpuId(n): NodeId(n) for n in range(2)})


def make_heat(
    regions: Iterable[tuple[float, float]],
    *,
    pid: int = 100,
    at: float = 0.0,
    age: float | None = None,
    lie_on: Sequence[int] = (),
    **changes: Any,
) -> HeatWindow:
    """Regions are (MiB, ratio), one behind the other from VMA_START on; where each lies, if that is known."""
    found, start = [], VMA_START
    for (mib, ratio), node in zip_longest(regions, lie_on):
        end = start + round(mib * MIB)
        pages = None if node is None else {NodeId(node): mib * 256}
        found.append(HeatRegion(start=start, end=end, ratio=ratio, age_seconds=age, pages_by_node=pages))
        start = end
    window = HeatWindow(
        process=ProcessId(pid, 1),
        taken_at=at,
        seconds=5.0,
        watched_seconds=300.0,
        method=HeatMethod.DAMON,
        regions=tuple(found),
    )
    return replace(window, **changes)


def make_tiered(
    process: ProcessSample,
    placement: PlacementSample | None,
    heat: HeatWindow | None,
    *,
    at: float = 0.0,
    free_bytes: Mapping[int, int] | None = None,
) -> Snapshot:
    """One process on that machine."""
    survey = make_survey(process, at=at, topology=make_tiers(), free_bytes=free_bytes)
    snapshot = make_snapshot(survey, *(() if placement is None else (placement,)))
    windows = {} if heat is None else {process.id: heat}
    return replace(snapshot, heats=Heats(method=HeatMethod.DAMON, windows=windows))


def make_tiered_process(**changes: Any) -> ProcessSample:
    """It runs on node 1, and may have memory everywhere."""
    return make_process(run={1: 2.0}, rss_bytes=1024 * MIB, mems_allowed=frozenset(map(NodeId, range(3))), **changes)
