"""Imported perf logs as a source of accesses, which goes before all others for the processes that it knows.

Owns when the counts of a log are judged, and where its pages are found to lie. How they were counted is the store's
affair, what is worth moving the policy's.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from balancerd import native
from balancerd.kernel.accesses.judging import Judged, judge
from balancerd.kernel.accesses.log_clock import MOST_AGE_SECONDS
from balancerd.kernel.accesses.log_store import LogStore
from balancerd.kernel.accesses.memory import located
from balancerd.kernel.accesses.rate import Turns
from balancerd.kernel.accesses.watch import BY
from balancerd.kernel.errors import BlockedError, ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.moving.room import Room, parse_huge_mappings
from balancerd.kernel.placement.pool import PatientReads
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.access import REGION_BYTES, Accesses, AccessMethod, AccessRun, AccessWindow, Obstacle
from balancerd.model.decision import Reason, Skip
from balancerd.model.extent import Extent, joined
from balancerd.model.ids import ProcessId
from balancerd.model.topology import Topology
from balancerd.ports import AccessWatch, Clock

HUGE_SECONDS = 60.0
"""How often it is asked which mappings hold huge pages; smaps takes 47 ns for each page of the process."""


@dataclass(slots=True)
class _Reading:
    """What was made of a process's counts last."""

    read_at: float
    version: int = -1
    turns: Turns = field(default_factory=Turns)
    judged: Judged = field(default_factory=Judged)
    huge: tuple[Extent, ...] | None = None
    huge_at: float = float("-inf")


class LogSource:
    """The AccessSource. What was imported stays when a process is closed, until it is too old.

    `phase` returns numbers in [0, 1): where samples of placements begin.
    """

    method = AccessMethod.PERF_LOG

    def __init__(
        self,
        clock: Clock,
        reads: PatientReads,
        store: LogStore,
        topology: Callable[[], Topology],
        *,
        budget_ratio: float,
        procfs: str = "/proc",
        sysfs: str = "/sys",
        phase: Callable[[], float] = random.random,
    ) -> None:
        self.budget_ratio = budget_ratio
        self._clock = clock
        self._reads = reads
        self._store = store
        self._topology = topology
        self._procfs = procfs
        self._room = Room(procfs, sysfs)
        self._phase = phase
        self._rule = native.JudgeRule()
        self._readings: dict[ProcessId, _Reading] = {}

    def probe(self) -> Obstacle | None:
        """See AccessSource: it needs nothing of the machine."""
        return None

    def knows(self, process: ProcessId) -> bool:
        """Return whether a log tells of a process, and is young enough."""
        with self._store.lock:
            counts = self._store.counts(process)
            is_young = counts is not None and self._clock.now() - counts.until <= MOST_AGE_SECONDS
            if counts is not None and is_young and counts.topology == self._topology():
                return True
        self._forget(process)
        return False

    def open(self, process: ProcessId) -> None:
        """See AccessSource. Raises ProcessGoneError."""
        self._check_identity(process)

    def read(self, process: ProcessId) -> AccessWindow:
        """See AccessSource. Raises KeyError for a process that no log tells of."""
        try:
            self._check_identity(process)
        except ProcessGoneError:
            self._forget(process)
            raise
        cpu_before, now = self._clock.cpu_seconds(), self._clock.now()
        reading = self._readings.setdefault(process, _Reading(read_at=now))
        seconds, reading.read_at = now - reading.read_at, now
        with self._store.lock:
            counts = self._store.counts(process)
            if counts is None:
                raise KeyError(f"no log tells of process {process.pid}")
            samples, hits, lost = counts.new_samples, counts.new_hits, counts.new_lost
            counts.new_samples = counts.new_hits = counts.new_lost = 0
            since, threads, is_new = counts.since, len(counts.tids), counts.version != reading.version
            is_due = is_new or reading.turns.is_due(now)
            reading.version = counts.version
            if is_due:
                reading.judged = judge(counts.table, self._rule, since_seconds=now - MOST_AGE_SECONDS)
        if is_due:
            self._locate(process, reading, now)
            reading.turns.note(now, self._clock.cpu_seconds() - cpu_before, self.budget_ratio)
        return AccessWindow(
            process=process,
            taken_at=now,
            seconds=seconds,
            watched_seconds=max(0.0, now - since),
            method=self.method,
            samples=samples,
            hits=hits,
            lost_samples=lost,
            threads=threads,
            regions=reading.judged.regions,
            runs=reading.judged.runs,
            huge=reading.huge,
            unreported_runs=reading.judged.unreported_runs,
            unreported_regions=reading.judged.unreported_regions,
            cpu_seconds=self._clock.cpu_seconds() - cpu_before,
        )

    def close(self, process: ProcessId) -> None:
        """See AccessSource: what was imported stays."""

    def _locate(self, process: ProcessId, reading: _Reading, now: float) -> None:
        """Add to the runs where they lie now; if the process cannot be asked in time, nobody knows."""
        n_nodes, runs = max(self._topology().node_ids) + 1, reading.judged.runs
        try:
            found = self._reads.read(process, lambda: located(process.pid, runs, n_nodes=n_nodes, phase=self._phase()))
            reading.judged = replace(reading.judged, runs=found)
            self._learn_huge(process, reading, now)
        except BlockedError:
            return
        except ProcessLookupError as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was read") from error

    def _learn_huge(self, process: ProcessId, reading: _Reading, now: float) -> None:
        """Learn which mappings hold huge pages, where it matters: where runs are not of whole regions."""
        if now - reading.huge_at < HUGE_SECONDS or not any(map(_is_ragged, reading.judged.runs)):
            return
        reading.huge_at = now
        if not self._room.may_hold_huge_pages():
            reading.huge = ()
            return
        path = f"{self._procfs}/{process.pid}/smaps"
        text = self._reads.read(process, lambda: read_bytes(path))
        reading.huge = joined(Extent(start, end) for start, end in parse_huge_mappings(text, path))

    def _check_identity(self, process: ProcessId) -> None:
        start_ticks = read_start_ticks(process.pid, self._procfs)
        if start_ticks != process.start_ticks:
            raise ProcessGoneError(f"pid {process.pid} belongs to a process that started at tick {start_ticks}")

    def _forget(self, process: ProcessId) -> None:
        self._readings.pop(process, None)
        self._store.forget(process)


class LogsFirst:
    """An AccessWatch: processes that logs tell of are read from these, the others by another watch."""

    def __init__(self, logs: LogSource, others: AccessWatch) -> None:
        self._logs = logs
        self._others = others

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        """See AccessWatch."""
        known = [process for process in processes if self._logs.knows(process)]
        found = self._others.read([process for process in processes if process not in known])
        windows, missed = dict(found.windows), dict(found.missed)
        for process in known:
            try:
                windows[process] = self._logs.read(process)
            except (ProcessGoneError, ParseError, KeyError, OSError) as error:
                told = f"its log cannot be used: {error}"
                missed[process] = Skip(by=BY, process=process, reason=Reason.NOT_WATCHED, detail=told)
        return Accesses(windows=windows, missed=missed)


def _is_ragged(run: AccessRun) -> bool:
    return bool(run.start % REGION_BYTES or run.end % REGION_BYTES)
