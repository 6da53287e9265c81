"""What all sources have in common that count samples of perf events: a ring for each thread, a table for each process.

Owns the events and the counts of each watched process, and when they are judged. What is sampled, how often, and which
samples are accesses, is for each source to say. What pages are worth moving is the policy's business.
"""

import abc
import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from balancerd import native
from balancerd.kernel.accesses.judging import Findings, Locator, judge
from balancerd.kernel.accesses.memory import read_stack_bytes, watched_ranges
from balancerd.kernel.accesses.rate import Interest, Turns, standing
from balancerd.kernel.accesses.threads import ThreadChoice
from balancerd.kernel.errors import BlockedError, ProcessGoneError
from balancerd.kernel.moving.room import Room
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads
from balancerd.kernel.processes.identity import check_identity
from balancerd.model.access import AccessMethod, AccessWindow, Obstacle
from balancerd.model.ids import ProcessId
from balancerd.model.topology import Topology
from balancerd.ports import Clock

EXPECTED_SECONDS = 2.0
"""Between the first two reads; from then on it is known."""

RANGES_SECONDS = 5.0
"""How often the mappings are read again, for memory that came."""

FORGET_RATIO = 0.1
"""Of the time after which pages are forgotten: so often it is done, since it looks at the whole table."""


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
    """What came out of the rings of a process: of `samples` those that told an address, and what is not known.

    `lost` speak against what was counted; `cut` do not, since all threads were cut off at the same time.
    """

    samples: int
    hits: int
    throttled: int
    lost: int = 0
    cut: int = 0


@dataclass(slots=True)
class Watched:
    """One process: its events and counts, and what was found out last."""

    rings: native.ThreadRings
    table: native.AccessTable
    threads: ThreadChoice
    turns: Turns
    since: float
    read_at: float
    forgot_at: float
    ranges: native.AddressRanges
    ranges_at: float = float("-inf")
    seconds: float = 0.0
    lost_in_table: int = 0
    found: Findings = field(default_factory=Findings)
    interest: Interest = field(default_factory=Interest)

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
        self._locator = Locator(around.reads, around.topology, Room(around.mappings.procfs, around.sysfs), around.phase)
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
        check_identity(process, self._mappings.procfs)
        now = self._clock.now()
        threads = ThreadChoice(process.pid, self._mappings.procfs)
        self._watched[process] = Watched(
            rings=self._make_rings(process, len(threads.choose(now))),
            table=native.AccessTable(self._access_nodes(), self.table_bytes),
            threads=threads,
            turns=Turns(),
            since=now,
            read_at=now,
            forgot_at=now,
            ranges=native.AddressRanges(()),
        )

    def read(self, process: ProcessId) -> AccessWindow:
        """See AccessSource. Raises KeyError for a process that is not open."""
        self._check_nodes()
        watched = self._watched[process]
        check_identity(process, self._mappings.procfs)
        cpu_before, now = self._clock.cpu_seconds(), self._clock.now()
        watched.seconds, watched.read_at = now - watched.read_at, now
        self._refresh_ranges(process, watched, now)
        drained = self._drain(process, watched)
        self._follow_threads(watched, now)
        if watched.turns.is_due(now) and watched.table.totals().taken:  # nothing at first, and the turn would be gone
            judging_from = self._clock.cpu_seconds()
            if now - watched.forgot_at >= FORGET_RATIO * self.forget_seconds:
                watched.table.forget(now - self.forget_seconds)
                watched.forgot_at = now
            watched.table.gather()
            watched.found.judged = judge(watched.table, self._rule, since_seconds=now - self.lookback_seconds)
            self._locator.locate(process, watched.found, now)
            judged = watched.found.judged
            watched.interest.note(now, standing(judged.runs, judged.regions))
            budget_ratio = self.budget_ratio * watched.interest.ratio
            watched.turns.note(now, self._clock.cpu_seconds() - judging_from, budget_ratio)
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
            cut_samples=drained.cut,
            throttled=drained.throttled,
            threads=len(watched.rings),
            regions=watched.found.judged.regions,
            runs=watched.found.judged.runs,
            huge=watched.found.huge,
            unreported_runs=watched.found.judged.unreported_runs,
            unreported_regions=watched.found.judged.unreported_regions,
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
        try:
            vmas = self._reads.read(process, lambda: self._mappings.read(process.pid))
            stack_bytes = read_stack_bytes(process.pid, self._mappings.procfs)
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
