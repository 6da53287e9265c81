"""What all sources have in common that count samples of perf events: a ring for each thread, a table for each process.

Owns the events and the counts of each watched process, and when they are judged. What is sampled, how often, and which
samples are accesses, is for each source to say. What pages are worth moving is the policy's business.
"""

import abc
import errno
import random
from collections.abc import Callable
from dataclasses import dataclass

from balancerd import native
from balancerd.kernel.accesses.memory import (
    MOST_PIECES,
    located,
    located_regions,
    parse_stack_bytes,
    pieces,
    watched_ranges,
)
from balancerd.kernel.accesses.rate import Turns
from balancerd.kernel.accesses.threads import ThreadChoice
from balancerd.kernel.errors import BlockedError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.moving.room import Room
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.access import REGION_BYTES, AccessMethod, AccessRegion, AccessRun, AccessWindow, Obstacle
from balancerd.model.extent import Extent, joined
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.topology import Topology
from balancerd.ports import Clock

EXPECTED_SECONDS = 2.0
"""Between the first two reads; from then on it is known."""

RANGES_SECONDS = 5.0
"""How often the mappings are read again, for memory that came."""

HUGE_SECONDS = 60.0
"""How often it is asked which mappings hold huge pages; smaps takes 47 ns for each page of the process."""

MOST_RUNS = 4096
MOST_REGIONS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every source works with. `phase` returns numbers in [0, 1): where samples of placements begin."""

    clock: Clock
    reads: PatientReads
    mappings: Mappings
    topology: Callable[[], Topology]
    sysfs: str = "/sys"
    phase: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What came out of the rings of a process: of `samples` those that told an address, and what is not known."""

    samples: int
    hits: int
    lost: int
    throttled: int


@dataclass(slots=True)
class Watched:
    """One process: its events and counts, and what was found out last."""

    rings: native.ThreadRings
    table: native.AccessTable
    threads: ThreadChoice
    turns: Turns
    since: float
    read_at: float
    ranges: native.AddressRanges
    ranges_at: float = float("-inf")
    seconds: float = 0.0
    lost_in_table: int = 0
    runs: tuple[AccessRun, ...] = ()
    regions: tuple[AccessRegion, ...] = ()
    unreported_runs: int = 0
    unreported_regions: int = 0
    huge: tuple[Extent, ...] | None = None
    huge_at: float = float("-inf")

    def close(self) -> None:
        """Give descriptors and memory back."""
        self.rings.close()
        self.table.close()


class RingSource(abc.ABC):
    """An AccessSource but for what is sampled. `table_bytes` bounds the counts of one process.

    `budget_ratio` is the share of one core that judging may take. Both may be changed at any time; tables that are in
    use keep their size. Pages that nobody was seen at for `lookback_seconds` are not judged: where they belong is
    history.
    """

    method: AccessMethod
    lookback_seconds = 120.0
    forget_seconds = 600.0

    def __init__(self, around: Surroundings, *, table_bytes: int, budget_ratio: float) -> None:
        self._clock = around.clock
        self._reads = around.reads
        self._mappings = around.mappings
        self._topology = around.topology
        self._room = Room(around.mappings.procfs, around.sysfs)
        self._phase = around.phase
        self._rule = native.JudgeRule()
        self._watched: dict[ProcessId, Watched] = {}
        self._nodes: tuple[Topology, native.AccessNodes] | None = None
        self.table_bytes = table_bytes
        self.budget_ratio = budget_ratio

    @abc.abstractmethod
    def _find_obstacle(self) -> Obstacle | None:
        """Try whether the events can be opened; None when they can."""

    @abc.abstractmethod
    def _make_rings(self, process: ProcessId, n_threads: int) -> native.ThreadRings:
        """Return rings for a process of so many threads, none of them open. Raises OSError, ProcessGoneError."""

    @abc.abstractmethod
    def _drain(self, process: ProcessId, watched: Watched) -> Drained:
        """Count what came in `watched.seconds`, and see to it that the rings have the right rate from now on."""

    @abc.abstractmethod
    def _forget_closed(self) -> None:
        """Drop what is remembered of processes that are watched no more."""

    def probe(self) -> Obstacle | None:
        """See AccessSource."""
        try:
            self._access_nodes()
        except ValueError as error:
            return Obstacle(seen=str(error), fix=f"none: take {self.method} out of accesses.sources")
        return self._find_obstacle()

    def open(self, process: ProcessId) -> None:
        """See AccessSource. Threads are opened by the first read."""
        if process in self._watched:
            return
        self._check_identity(process)
        now = self._clock.now()
        threads = ThreadChoice(process.pid, self._mappings.procfs)
        self._watched[process] = Watched(
            rings=self._make_rings(process, len(threads.choose(now))),
            table=native.AccessTable(self._access_nodes(), self.table_bytes),
            threads=threads,
            turns=Turns(),
            since=now,
            read_at=now,
            ranges=native.AddressRanges(()),
        )

    def read(self, process: ProcessId) -> AccessWindow:
        """See AccessSource. Raises KeyError for a process that is not open."""
        self._check_nodes()
        watched = self._watched[process]
        self._check_identity(process)
        cpu_before, now = self._clock.cpu_seconds(), self._clock.now()
        watched.seconds, watched.read_at = now - watched.read_at, now
        self._refresh_ranges(process, watched, now)
        drained = self._drain(process, watched)
        self._follow_threads(watched, now)
        if watched.turns.is_due(now):
            judging_from = self._clock.cpu_seconds()
            self._judge(watched, now)
            self._locate(process, watched, now)
            watched.turns.note(now, self._clock.cpu_seconds() - judging_from, self.budget_ratio)
        lost_in_table = watched.table.totals().lost_samples
        lost, watched.lost_in_table = lost_in_table - watched.lost_in_table, lost_in_table
        return AccessWindow(
            process=process,
            taken_at=now,
            seconds=watched.seconds,
            watched_seconds=now - watched.since,
            method=self.method,
            samples=drained.samples,
            hits=drained.hits,
            lost_samples=drained.lost + lost,
            throttled=drained.throttled,
            threads=len(watched.rings),
            regions=watched.regions,
            runs=watched.runs,
            huge=watched.huge,
            unreported_runs=watched.unreported_runs,
            unreported_regions=watched.unreported_regions,
            cpu_seconds=self._clock.cpu_seconds() - cpu_before,
        )

    def close(self, process: ProcessId) -> None:
        """See AccessSource."""
        watched = self._watched.pop(process, None)
        if watched is not None:
            watched.close()
        self._forget_closed()

    def _refresh_ranges(self, process: ProcessId, watched: Watched, now: float) -> None:
        """Read the mappings again when it is time; while they are locked, those read before stand."""
        if now - watched.ranges_at < RANGES_SECONDS:
            return
        path = f"{self._mappings.procfs}/{process.pid}/limits"
        try:
            vmas = self._reads.read(process, lambda: self._mappings.read(process.pid))
            stack_bytes = parse_stack_bytes(read_bytes(path), path)
        except BlockedError:
            return
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was read") from error
        watched.ranges, watched.ranges_at = native.AddressRanges(watched_ranges(vmas, stack_bytes)), now

    def _follow_threads(self, watched: Watched, now: float) -> None:
        """Open threads that came, drop those that went; what these leave in their rings was read before."""
        tids = watched.threads.choose(now)
        for tid in watched.rings.tids - tids:
            watched.rings.drop(tid)
        for tid in sorted(tids - watched.rings.tids):
            try:
                watched.rings.open(tid)
            except ProcessLookupError:
                continue
            except OSError as error:
                if len(watched.rings) and error.errno in {errno.EMFILE, errno.EPERM, errno.ENOMEM}:
                    return  # no room for more descriptors or rings: these threads tell enough
                raise

    def _judge(self, watched: Watched, now: float) -> None:
        watched.table.forget(now - self.forget_seconds)
        since = now - self.lookback_seconds
        judged = watched.table.judge(self._rule, since_seconds=since, most_runs=MOST_RUNS)
        regions = watched.table.regions(self._rule, since_seconds=since, most_regions=MOST_REGIONS)
        found = (
            AccessRun(
                start=run.start,
                end=run.end,
                node=NodeId(run.node),
                weight=run.weight,
                node_weight=run.node_weight,
                is_mixed=run.is_mixed,
            )
            for run in judged.runs
        )
        every = tuple(pieces(found))
        watched.runs = every[:MOST_PIECES]
        watched.unreported_runs = judged.missed_runs + len(every[MOST_PIECES:])
        watched.unreported_regions = regions.missed_regions
        watched.regions = tuple(
            AccessRegion(
                start=region.start,
                weight_by_node={NodeId(node): weight for node, weight in region.weights},
                node=None if region.node is None else NodeId(region.node),
                is_mixed=region.is_mixed,
            )
            for region in regions.regions
        )

    def _locate(self, process: ProcessId, watched: Watched, now: float) -> None:
        """Add to runs and regions where they lie now; if the process cannot be asked in time, nobody knows."""
        n_nodes, pid, runs, regions = max(self._topology().node_ids) + 1, process.pid, watched.runs, watched.regions
        try:
            watched.runs, watched.regions = self._reads.read(
                process,
                lambda: (
                    located(pid, runs, n_nodes=n_nodes, phase=self._phase()),
                    located_regions(pid, regions, n_nodes=n_nodes, phase=self._phase()),
                ),
            )
            self._learn_huge(process, watched, now)
        except BlockedError:
            return
        except ProcessLookupError as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was read") from error

    def _learn_huge(self, process: ProcessId, watched: Watched, now: float) -> None:
        """Learn which mappings hold huge pages, where it matters: where runs are not of whole regions."""
        if now - watched.huge_at < HUGE_SECONDS or not any(map(_is_ragged, watched.runs)):
            return
        watched.huge_at = now
        found = self._reads.read(process, lambda: self._room.huge_mappings(process.pid))
        watched.huge = joined(Extent(start, end) for start, end in found)

    def _access_nodes(self) -> native.AccessNodes:
        topology = self._topology()
        if self._nodes is None or self._nodes[0] != topology:
            self._nodes = (topology, native.AccessNodes(topology.node_of_cpu.items()))
        return self._nodes[1]

    def _check_nodes(self) -> None:
        """Begin anew with everybody when CPUs have come or gone: counts are by the nodes that there were."""
        before = None if self._nodes is None else self._nodes[1]
        if before is not self._access_nodes():
            for process in tuple(self._watched):
                self.close(process)
                self.open(process)

    def _check_identity(self, process: ProcessId) -> None:
        start_ticks = read_start_ticks(process.pid, self._mappings.procfs)
        if start_ticks != process.start_ticks:
            raise ProcessGoneError(f"pid {process.pid} belongs to a process that started at tick {start_ticks}")


def _is_ragged(run: AccessRun) -> bool:
    return bool(run.start % REGION_BYTES or run.end % REGION_BYTES)
