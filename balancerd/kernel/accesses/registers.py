"""Register sampling: a timer shows the registers of a running thread, and those that point into data are its accesses.

Needs no PMU and no hint faults, only perf_event_open(2) (kernel.perf_event_paranoid, CAP_PERFMON). Owns the events and
the counts of each watched process, and when they are judged. What pages are worth moving is the policy's business.
"""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from balancerd import native
from balancerd.kernel.accesses.memory import MOST_PIECES, located, parse_stack_bytes, pieces, watched_ranges
from balancerd.kernel.accesses.rate import Governor, Turns, most_hz, ring_pages
from balancerd.kernel.accesses.threads import ThreadChoice
from balancerd.kernel.doctor.files import has_capability
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

CAP_PERFMON = 38  # include/uapi/linux/capability.h

EXPECTED_SECONDS = 2.0
"""Between the first two reads; from then on it is known."""

RANGES_SECONDS = 5.0
"""How often the mappings are read again, for memory that came."""

LOOKBACK_SECONDS = 120.0
"""Pages that nobody was seen at for so long are not judged: where they belong is history."""

FORGET_SECONDS = 600.0

HUGE_SECONDS = 60.0
"""How often it is asked which mappings hold huge pages; smaps takes 47 ns for each page of the process."""

MOST_RUNS = 4096
MOST_REGIONS = 1024


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Try to sample this very thread; return what is in the way and the exact remedy, None when nothing is."""
    try:
        native.probe(native.PerfKind.REGISTERS)
    except OSError as error:
        return _explain(error, root)
    return None


@dataclass(slots=True)
class _Watched:
    """One process: its events and counts, and what was found out last."""

    rings: native.ThreadRings
    table: native.AccessTable
    threads: ThreadChoice
    turns: Turns
    since: float
    read_at: float
    ranges: native.AddressRanges | None = None
    ranges_at: float = float("-inf")
    lost_in_table: int = 0
    runs: tuple[AccessRun, ...] = ()
    regions: tuple[AccessRegion, ...] = ()
    unreported_runs: int = 0
    unreported_regions: int = 0
    huge: tuple[Extent, ...] | None = None
    huge_at: float = float("-inf")

    def close(self) -> None:
        self.rings.close()
        self.table.close()


class RegisterSource:
    """The AccessSource. `table_bytes` bounds the counts of one process, `budget_ratio` what sampling takes of a core.

    `phase` returns numbers in [0, 1): where samples of placements begin.
    """

    method = AccessMethod.REGISTERS

    def __init__(
        self,
        clock: Clock,
        reads: PatientReads,
        mappings: Mappings,
        topology: Callable[[], Topology],
        *,
        table_bytes: int,
        budget_ratio: float,
        sysfs: str = "/sys",
        phase: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._reads = reads
        self._mappings = mappings
        self._topology = topology
        self._room = Room(mappings.procfs, sysfs)
        self._phase = phase
        self._rule = native.JudgeRule()
        self._governor = Governor(budget_ratio)
        self._watched: dict[ProcessId, _Watched] = {}
        self._nodes: tuple[Topology, native.AccessNodes] | None = None
        self.table_bytes = table_bytes

    @property
    def budget_ratio(self) -> float:
        """The share of one core that sampling may take, here and in the processes; may be changed at any time."""
        return self._governor.budget_ratio

    @budget_ratio.setter
    def budget_ratio(self, ratio: float) -> None:
        self._governor.budget_ratio = ratio

    def probe(self) -> Obstacle | None:
        """See AccessSource."""
        try:
            self._access_nodes()
        except ValueError as error:
            return Obstacle(seen=str(error), fix="none: take register sampling out of accesses.sources")
        return find_obstacle()

    def open(self, process: ProcessId) -> None:
        """See AccessSource. Threads are opened by the first read."""
        if process in self._watched:
            return
        self._check_identity(process)
        now = self._clock.now()
        threads = ThreadChoice(process.pid, self._mappings.procfs)
        n_threads = len(threads.choose(now))
        pages = ring_pages(n_threads)
        self._governor.expect(process, n_threads)
        self._watched[process] = _Watched(
            rings=native.ThreadRings(
                native.PerfKind.REGISTERS,
                frequency_hz=self._governor.choose(most_hz(pages, EXPECTED_SECONDS)),
                ring_pages=pages,
            ),
            table=native.AccessTable(self._access_nodes(), self.table_bytes),
            threads=threads,
            turns=Turns(),
            since=now,
            read_at=now,
        )

    def read(self, process: ProcessId) -> AccessWindow:
        """See AccessSource. Raises KeyError for a process that is not open."""
        self._check_nodes()
        watched = self._watched[process]
        self._check_identity(process)
        cpu_before, now = self._clock.cpu_seconds(), self._clock.now()
        seconds, watched.read_at = now - watched.read_at, now
        self._refresh_ranges(process, watched, now)
        at_hz = watched.rings.frequency_hz
        reading = watched.rings.read(watched.table, watched.ranges or native.AddressRanges(()), pid=process.pid)
        if watched.rings.tids:
            self._governor.note(process, samples=reading.samples + reading.lost, seconds=seconds, at_hz=at_hz)
        self._follow_threads(watched, now, seconds or EXPECTED_SECONDS)
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
            seconds=seconds,
            watched_seconds=now - watched.since,
            method=self.method,
            samples=reading.samples,
            hits=reading.with_access + reading.repeated,
            lost_samples=reading.lost + lost,
            throttled=reading.throttled,
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
        self._governor.forget_all_but(self._watched.keys())

    def _refresh_ranges(self, process: ProcessId, watched: _Watched, now: float) -> None:
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

    def _follow_threads(self, watched: _Watched, now: float, seconds: float) -> None:
        """Open threads that came, drop those that went; what these leave in their rings was read before."""
        tids = watched.threads.choose(now)
        for tid in watched.rings.tids - tids:
            watched.rings.drop(tid)
        frequency_hz = self._governor.choose(most_hz(watched.rings.ring_pages, seconds))
        if frequency_hz != watched.rings.frequency_hz:
            watched.rings.set_frequency(frequency_hz)
        for tid in sorted(tids - watched.rings.tids):
            try:
                watched.rings.open(tid)
            except ProcessLookupError:
                continue
            except OSError as error:
                if len(watched.rings) and error.errno in {errno.EMFILE, errno.EPERM, errno.ENOMEM}:
                    return  # no room for more descriptors or rings: these threads tell enough
                raise

    def _judge(self, watched: _Watched, now: float) -> None:
        watched.table.forget(now - FORGET_SECONDS)
        since = now - LOOKBACK_SECONDS
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
                is_mixed=region.is_mixed,
            )
            for region in regions.regions
        )

    def _locate(self, process: ProcessId, watched: _Watched, now: float) -> None:
        """Add to the runs where they lie now; if the process cannot be asked in time, nobody knows."""
        n_nodes, runs = max(self._topology().node_ids) + 1, watched.runs
        try:
            watched.runs = self._reads.read(
                process, lambda: located(process.pid, runs, n_nodes=n_nodes, phase=self._phase())
            )
            self._learn_huge(process, watched, now)
        except BlockedError:
            return
        except ProcessLookupError as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was read") from error

    def _learn_huge(self, process: ProcessId, watched: _Watched, now: float) -> None:
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


def _explain(error: OSError, root: Path) -> Obstacle:
    told = f"perf_event_open(2): {errno.errorcode.get(error.errno or 0, error.errno)} ({error.strerror})"
    if error.errno in {errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP}:
        return Obstacle(seen=told, fix="boot a kernel with CONFIG_PERF_EVENTS=y and CONFIG_HAVE_PERF_REGS=y")
    if error.errno == errno.EMFILE:
        return Obstacle(seen=told, fix="raise LimitNOFILE= of the unit")
    level = _paranoia(root)
    in_unit = "in a unit, AmbientCapabilities=CAP_PERFMON, CapabilityBoundingSet=CAP_PERFMON and SystemCallFilter="
    if has_capability(root, CAP_PERFMON) or os.geteuid() == 0:
        return Obstacle(
            seen=f"{told} though the capability is there: a seccomp filter or a security module refuses it",
            fix="allow the system call: in Docker, --security-opt seccomp=unconfined; in Kubernetes, "
            f"securityContext.seccompProfile.type: Unconfined; {in_unit}perf_event_open",
        )
    return Obstacle(
        seen=f"{told} at kernel.perf_event_paranoid={level} without CAP_PERFMON",
        fix=f"{in_unit}perf_event_open (systemctl edit balancerd.service); in Docker, --cap-add=PERFMON; or for all "
        "users, as root: sysctl -w kernel.perf_event_paranoid=1",
    )


def _paranoia(root: Path) -> str:
    try:
        return (root / "proc/sys/kernel/perf_event_paranoid").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "unknown"
