"""Which nodes hold the pages of a process. `estimate(pid)` is the entry point for anybody outside of the daemon.

Reads /proc/PID/maps for the mappings and asks move_pages(2) for some of their pages: some tens where it only has to be
seen that a process is still well placed, about two thousand for a share of each node, and all when they are no more.
Mappings without any permission and pages of the kernel or a driver are left out. numa_maps, whose cost grows with the
memory of the process, is read on request, for mempolicies and page sizes, and where it costs less than a sample. Both
files take the mmap lock of the process for reading.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from balancerd import native
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.machine.topology import parse_ids
from balancerd.kernel.placement.confidence import Part, allow_for_hidden, intervals
from balancerd.kernel.placement.costs import NumaMapsCosts
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.numa_maps import VmaPolicy, parse_numa_maps
from balancerd.kernel.placement.placing import place
from balancerd.kernel.placement.sampling import Ask, estimate_strata
from balancerd.kernel.placement.sequential import (
    dense_group,
    groups_like,
    is_worth_a_test,
    judge_home,
    plain_intervals,
)
from balancerd.kernel.processes.identity import GONE, HeldProcess, read_start_ticks
from balancerd.kernel.processes.status import parse_status
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.interval import Interval
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PAGE_BYTES, PlacementSample
from balancerd.native.records import Tally
from balancerd.ports import Clock

WANTED_SAMPLES = 2048
"""Present pages that give about 1 % of error, whatever the size of the process."""

_MOVING_SECONDS = 60.0
"""A process whose mempolicies were read so lately is being moved, and a move needs every mapping."""

_CHANCES = 1 << 53
"""How many numbers a random float in [0, 1) can be."""


class SampleCore(Protocol):
    """The native function that a placement needs; balancerd.native has it."""

    def sample(
        self, pid: int, table: native.VmaTable, *, n_nodes: int, strata: Iterable[int], questions: int, seed: int
    ) -> Tally:
        """Ask for so many pages chosen by chance, or for all. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What was found out of the placement of one process, and how."""

    method: PlacementMethod
    parts: tuple[Part, ...]
    queried_pages: int
    is_exact: bool
    intervals: Mapping[NodeId, Interval] = field(default_factory=dict)


class PlacementReader:
    """Estimates placements, and remembers of each process its mempolicies, where they were read, and how dense it is.

    `chance` returns numbers in [0, 1) that decide which pages are asked for. Several threads may read at a time.
    """

    def __init__(
        self,
        core: SampleCore,
        clock: Clock,
        procfs: str = "/proc",
        chance: Callable[[], float] = random.random,
        *,
        samples: int = WANTED_SAMPLES,
        mappings: Mappings | None = None,
    ) -> None:
        self._core = core
        self._clock = clock
        self._procfs = procfs
        self._chance = chance
        self._samples = samples
        self._policies: dict[ProcessId, tuple[float, dict[int, VmaPolicy]]] = {}
        self._densities: dict[ProcessId, dict[tuple[int, ...], float]] = {}
        self._costs = NumaMapsCosts()
        self._mappings = mappings or Mappings(clock, procfs)

    def read(
        self,
        process: ProcessId,
        *,
        n_nodes: int,
        rss_bytes: int,
        read_mempolicies: bool = False,
        exact: bool = False,
        home: NodeId | None = None,
    ) -> PlacementSample:
        """Estimate where the pages of `process` are; `n_nodes` is the highest node id + 1.

        `exact` asks for all pages, at a cost in proportion to what it mapped. `home` asks whether it is well placed
        there, before anything else. The sample is complete with `exact` or `read_mempolicies`, and for a
        minute after these were read.
        Raises ProcessGoneError, PermissionError, ParseError, and OSError otherwise.
        """
        with HeldProcess(process, self._procfs) as held:
            try:
                return self._read(
                    process, n_nodes, rss_bytes, read_mempolicies=read_mempolicies, exact=exact, home=home
                )
            except (FileNotFoundError, ProcessLookupError) as error:
                raise ProcessGoneError(f"process {process.pid} exited while it was read") from error
            finally:
                if not held.alive():
                    self._policies.pop(process, None)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that are not in `alive`."""
        for process in (*self._policies, *self._densities):  # a copy: other threads may add to them
            if process not in alive:
                self._policies.pop(process, None)
                self._densities.pop(process, None)
        self._costs.forget_all_but(alive)

    def _read(
        self,
        process: ProcessId,
        n_nodes: int,
        rss_bytes: int,
        *,
        read_mempolicies: bool,
        exact: bool,
        home: NodeId | None,
    ) -> PlacementSample:
        began = self._clock.now()
        table = self._mappings.table(process.pid)

        def ask(strata: Sequence[int], questions: int) -> Tally:
            seed = int(self._chance() * _CHANCES)
            try:
                return self._core.sample(
                    process.pid, table, n_nodes=n_nodes, strata=strata, questions=questions, seed=seed
                )
            except OSError as error:
                if error.errno in GONE:
                    raise ProcessGoneError(f"process {process.pid} exited while it was asked for its pages") from error
                raise

        resident_pages = rss_bytes // PAGE_BYTES
        read_before = self._policies.get(process)
        is_known = read_before is not None and began - read_before[0] <= _MOVING_SECONDS
        is_complete = exact or read_mempolicies or is_known
        found: _Found | None = None
        if read_mempolicies:
            counted, text, path = self._count(process, table, n_nodes)
            self._policies[process] = (began, parse_numa_maps(text, path))
            found = None if exact else counted
        elif not exact and self._costs.is_cheaper(
            process, resident_pages=resident_pages, n_vmas=len(table), questions=self._samples
        ):
            found, _, _ = self._count(process, table, n_nodes)
        if found is None and home is not None and not is_complete:
            found = self._test(process, table, resident_pages, home, ask)
        if found is None:
            found = self._sample(process, table, resident_pages, ask, exact=exact)
        read_at, policies = self._policies.get(process, (None, {}))
        is_counted = found.method is PlacementMethod.NUMA_MAPS
        return PlacementSample(
            process=process,
            taken_at=began,
            vmas=place(table, found.parts, policies, is_counted=is_counted, complete=is_complete),
            queried_pages=found.queried_pages,
            present_pages=sum(part.tally.present_units for part in found.parts),
            exact=found.is_exact,
            seconds=self._clock.now() - began,
            mempolicies_at=read_at,
            method=found.method,
            intervals=found.intervals,
            n_vmas=len(table),
            complete=is_complete,
        )

    def _count(self, process: ProcessId, table: native.VmaTable, n_nodes: int) -> tuple[_Found, bytes, str]:
        """Count pages by numa_maps, and remember what that cost; the text is of use for mempolicies, too."""
        path = f"{self._procfs}/{process.pid}/numa_maps"
        began = self._clock.now()
        text = read_bytes(path)
        seconds = self._clock.now() - began
        try:
            tally = native.count_numa_maps(text, table, n_nodes=n_nodes)
        except native.MalformedTextError as error:
            raise ParseError(path, error.line_number, b"", "not a mapping") from error
        self._costs.learn(process, present_pages=tally.present_units, n_vmas=len(table), seconds=seconds)
        found = _Found(
            method=PlacementMethod.NUMA_MAPS,
            parts=(Part(strata=(), tally=tally, scale=1.0),),
            queried_pages=tally.present_units,
            is_exact=True,
        )
        return found, text, path

    def _test(
        self, process: ProcessId, table: native.VmaTable, resident_pages: int, home: NodeId, ask: Ask
    ) -> _Found | None:
        """Return what a test found that says that the process is well placed, or None: look closer."""
        known = self._densities.get(process)
        strata = table.strata()
        groups = (groups_like(strata, known) if known else None) or dense_group(strata, resident_pages)
        if groups is None or not is_worth_a_test(groups):
            return None

        def counts(vma: int) -> bool:
            return not table.row(vma).is_program

        verdict = judge_home(groups, home, ask, counts)
        if not verdict.is_well_placed:
            return None
        return _Found(
            method=PlacementMethod.TEST,
            parts=verdict.parts,
            queried_pages=verdict.queried_pages,
            is_exact=False,
            intervals=plain_intervals(verdict.parts),
        )

    def _sample(
        self, process: ProcessId, table: native.VmaTable, resident_pages: int, ask: Ask, *, exact: bool
    ) -> _Found:
        estimate = estimate_strata(table.strata(), resident_pages, self._samples, ask, exact=exact)
        bounds = intervals(estimate.parts)
        self._densities[process] = {part.strata: part.present_ratio for part in estimate.parts}
        return _Found(
            method=PlacementMethod.EVERY_PAGE if estimate.is_exact else PlacementMethod.SAMPLE,
            parts=estimate.parts,
            queried_pages=estimate.queried_pages,
            is_exact=estimate.is_exact,
            intervals={} if estimate.is_exact else allow_for_hidden(bounds, estimate.parts, resident_pages),
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
