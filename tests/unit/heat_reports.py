"""A process of four threads on four nodes, watched: tick reports with windows of accesses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from balancerd.model.access import REGION_BYTES, AccessMethod, AccessRegion, AccessRun, AccessWindow
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import PAGE_BYTES, PlacementSample, Vma, VmaKind, VmaPlacement
from tests.unit.reports import MIB, a_placement, a_process, a_process_report, a_report

HEAP = 0x7F00_0000_0000
REGION_PAGES = REGION_BYTES // PAGE_BYTES
PID = ProcessId(4242, 1000)


def a_vma(
    start: int,
    mib: float,
    pages_by_node: Mapping[int, float] | None = None,
    *,
    kind: VmaKind = VmaKind.ANON,
    name: str = "",
) -> VmaPlacement:
    """A mapping of so many MiB; by default all of it on node 0."""
    end = start + int(mib * MIB)
    n_pages = (end - start) / PAGE_BYTES
    pages = {0: n_pages} if pages_by_node is None else pages_by_node
    return VmaPlacement(
        vma=Vma(start=start, end=end, kind=kind, name=name),
        pages_by_node={NodeId(node): each for node, each in pages.items()},
        absent_pages=n_pages - sum(pages.values()),
        found_pages=10,
    )


def placed(*vmas: VmaPlacement) -> PlacementSample:
    """A sample of these mappings, taken at second 100."""
    return replace(a_placement(PID), vmas=vmas)


def a_region(start: int, weights: Mapping[int, float], *, on: Mapping[int, float] | None = None) -> AccessRegion:
    """What was seen in one region; `on` is the share of it on each node, None: nobody has asked."""
    pages = REGION_BYTES / PAGE_BYTES
    return AccessRegion(
        start=start,
        weight_by_node={NodeId(node): weight for node, weight in weights.items()},
        pages_by_node=None if on is None else {NodeId(node): pages * share for node, share in on.items()},
    )


def a_run(start: int, mib: float, node: int, *, on: Mapping[int, float] | None = None, weight: float = 1) -> AccessRun:
    """Pages that one node uses; `on` is the share of them on each node, None: nobody has asked."""
    end = start + int(mib * MIB)
    pages = (end - start) / PAGE_BYTES
    return AccessRun(
        start=start,
        end=end,
        node=NodeId(node),
        weight=weight,
        node_weight=weight,
        pages_by_node=None if on is None else {NodeId(n): pages * share for n, share in on.items()},
    )


def a_window(
    regions: Sequence[AccessRegion] = (), runs: Sequence[AccessRun] = (), *, unreported_regions: int = 0
) -> AccessWindow:
    """Two seconds of register sampling of four threads, ended at second 100."""
    return AccessWindow(
        process=PID,
        taken_at=100.0,
        seconds=2.0,
        watched_seconds=42.0,
        method=AccessMethod.REGISTERS,
        samples=1200,
        hits=980,
        threads=4,
        regions=tuple(regions),
        runs=tuple(runs),
        unreported_regions=unreported_regions,
    )


def parts_window() -> AccessWindow:
    """Of 256 MiB on node 0, nodes 1 to 3 use 64 MiB each, the hotter the higher, and 16 MiB of node 0's are shared.

    The part of node 1 has moved already.
    """
    regions = [
        a_region(
            HEAP + i * REGION_BYTES,
            {0: 50.0, 2: 50.0} if i < 8 else {i // 32: 4.0 ** (i // 32) * 100},
        )
        for i in range(128)
        if not 20 <= i < 32
    ]
    runs = [a_run(HEAP + part * 64 * MIB, 64, part, on={part if part == 1 else 0: 1.0}) for part in (1, 2, 3)]
    return a_window(regions, runs)


def parts_process(comm: str = "parts") -> ProcessReport:
    """The process, with a heap that all threads use, a library, and a reserved mapping with next to nothing in it."""
    return a_process_report(
        a_process(comm=comm, rss_bytes=258 * MIB),
        placement=placed(
            a_vma(HEAP, 256),
            a_vma(HEAP + 512 * MIB, 4096, {0: 4.0}, name="[anon:reserved]"),
            a_vma(HEAP + (8 << 30), 2, kind=VmaKind.FILE, name="/usr/lib/libc.so.6"),
        ),
        run_ratio=dict.fromkeys(range(4), 0.25),
    )


def a_parts_report(comm: str = "parts", window: AccessWindow | None = None) -> TickReport:
    """A tick in which the process is watched."""
    report = a_report(number=7, processes=(parts_process(comm),))
    return replace(report, accesses=(parts_window() if window is None else window,))


def some_heats(*regions: tuple[float, float, float], process: ProcessId = PID) -> Heats:
    """Regions (first MiB, last MiB, ratio) of the heap by DAMON at second 99, of one process."""
    window = HeatWindow(
        process=process,
        taken_at=99.0,
        seconds=0.1,
        watched_seconds=42.0,
        method=HeatMethod.DAMON,
        regions=tuple(
            HeatRegion(start=HEAP + int(first * MIB), end=HEAP + int(last * MIB), ratio=ratio, age_seconds=3.0)
            for first, last, ratio in regions
        ),
        cpu_ratio=0.004,
    )
    return Heats(method=window.method, windows={process: window})
