"""Which nodes hold the pages of a process. `estimate(pid)` is the entry point for anybody outside of the daemon.

Reads /proc/PID/maps for the ranges and asks move_pages(2) for some of their pages. Mappings without any permission and
pages of the kernel or a driver are left out. numa_maps, whose cost grows with the memory of the process, is read only
on request, for mempolicies and page sizes. Both files take the mmap lock of the process for reading.
"""

import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Protocol

from balancerd import native
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.machine.topology import parse_ids
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.numa_maps import VmaPolicy, parse_numa_maps
from balancerd.kernel.placement.sampling import Estimate, estimate_ranges
from balancerd.kernel.processes.identity import HeldProcess, read_start_ticks
from balancerd.kernel.processes.status import parse_status
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, PlacementSample, Vma, VmaKind, VmaPlacement
from balancerd.native.records import Placement, RangePlacement
from balancerd.ports import Clock

WANTED_SAMPLES = 2048
"""Present pages that give 1 % of error with 95 % confidence, whatever the size of the process."""


class PlacementCore(Protocol):
    """The native function that a placement needs; balancerd.native has it."""

    def placement(
        self, pid: int, ranges: native.RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0
    ) -> Placement:
        """Count which node holds the pages, of all or of so many. Raises OSError."""
        ...


class PlacementReader:
    """Estimates placements, and remembers the mempolicies of those that it was told to read.

    `phase` returns numbers in [0, 1): where each sample begins. `n_nodes` is the highest node id + 1.
    """

    def __init__(
        self,
        core: PlacementCore,
        clock: Clock,
        procfs: str = "/proc",
        phase: Callable[[], float] = random.random,
        *,
        samples: int = WANTED_SAMPLES,
        mappings: Mappings | None = None,
    ) -> None:
        self._core = core
        self._clock = clock
        self._procfs = procfs
        self._phase = phase
        self._samples = samples
        self._policies: dict[ProcessId, tuple[float, dict[int, VmaPolicy]]] = {}
        self._mappings = mappings or Mappings(clock, procfs)

    def read(
        self, process: ProcessId, *, n_nodes: int, rss_bytes: int, read_mempolicies: bool = False, exact: bool = False
    ) -> PlacementSample:
        """Estimate where the pages of `process` are; `exact` asks for all, at a cost in proportion to what it mapped.

        Raises ProcessGoneError, PermissionError, ParseError, and OSError otherwise.
        """
        with HeldProcess(process, self._procfs) as held:
            try:
                return self._read(process, n_nodes, rss_bytes, read_mempolicies=read_mempolicies, exact=exact)
            except (FileNotFoundError, ProcessLookupError) as error:
                raise ProcessGoneError(f"process {process.pid} exited while it was read") from error
            finally:
                if not held.alive():
                    self._policies.pop(process, None)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that are not in `alive`."""
        for process in self._policies.keys() - alive:
            del self._policies[process]

    def _read(
        self, process: ProcessId, n_nodes: int, rss_bytes: int, *, read_mempolicies: bool, exact: bool
    ) -> PlacementSample:
        began = self._clock.now()
        vmas = [vma for vma in self._mappings.read(process.pid) if vma.kind is not VmaKind.SPECIAL]
        if read_mempolicies:
            path = f"{self._procfs}/{process.pid}/numa_maps"
            self._policies[process] = (began, parse_numa_maps(read_bytes(path), path))
        read_at, policies = self._policies.get(process, (None, {}))
        vmas = [_with_policy(vma, policies.get(vma.start)) for vma in vmas]
        estimate = self._estimate(process.pid, vmas, n_nodes, rss_bytes, exact=exact)
        return PlacementSample(
            process=process,
            taken_at=began,
            vmas=tuple(map(_place, vmas, estimate.found, estimate.scale)),
            queried_pages=estimate.queried_pages,
            present_pages=estimate.present_pages,
            exact=estimate.exact,
            seconds=self._clock.now() - began,
            mempolicies_at=read_at,
        )

    def _estimate(self, pid: int, vmas: Sequence[Vma], n_nodes: int, rss_bytes: int, *, exact: bool) -> Estimate:
        def ask(indexes: Sequence[int], samples: int) -> Sequence[RangePlacement]:
            ranges = native.RangeArray(
                (vma.start, vma.end, vma.page_bytes or PAGE_BYTES) for vma in (vmas[i] for i in indexes)
            )
            phase = self._phase()
            return self._core.placement(pid, ranges, n_nodes=n_nodes, samples=samples, phase=phase).per_range

        pages = [(vma.end - vma.start) // PAGE_BYTES for vma in vmas]
        return estimate_ranges(pages, rss_bytes // PAGE_BYTES, self._samples, ask, exact=exact)


def _with_policy(vma: Vma, policy: VmaPolicy | None) -> Vma:
    """Add what numa_maps said; it alone knows a memfd or a SysV segment of huge pages from one of base pages."""
    if policy is None:
        return vma
    kind = VmaKind.HUGETLB if policy.hugetlb else vma.kind
    return replace(vma, kind=kind, page_bytes=policy.page_bytes, mempolicy=policy.mempolicy)


def _place(vma: Vma, found: RangePlacement, scale: float) -> VmaPlacement:
    """Scale the answers to pages. A mapping in which no page was asked for has none at all, not even absent ones."""
    if not (found.absent_pages or found.other_pages or any(found.on_node)):
        return VmaPlacement(vma=vma, pages_by_node={}, absent_pages=0.0)
    return VmaPlacement(
        vma=vma,
        pages_by_node={NodeId(node): n * scale for node, n in enumerate(found.on_node) if n},
        absent_pages=(found.absent_pages + found.other_pages) * scale,
    )


def estimate(pid: int, *, samples: int = WANTED_SAMPLES, exact: bool = False) -> PlacementSample:
    """Estimate which nodes hold the pages of process `pid`, in about a millisecond whatever its size.

    The stable entry point for benchmarks and other programs: about `samples` pages that are present are asked for,
    or all of them with `exact`. Raises ProcessGoneError, PermissionError (it needs CAP_SYS_PTRACE over the process),
    ParseError, and OSError otherwise.
    """
    online = "/sys/devices/system/node/online"
    n_nodes = max(parse_ids(read_bytes(online), online)) + 1
    process = ProcessId(pid, read_start_ticks(pid))
    status = f"/proc/{pid}/status"
    hugetlb_bytes = parse_status(read_bytes(status), status).hugetlb_bytes
    rss_bytes = int(read_bytes(f"/proc/{pid}/statm").split()[1]) * PAGE_BYTES + hugetlb_bytes
    clock = MonotonicClock()
    try:
        return PlacementReader(native, clock, samples=samples).read(
            process, n_nodes=n_nodes, rss_bytes=rss_bytes, exact=exact
        )
    finally:
        clock.close()
