"""Imported perf logs as a source of accesses, which goes before all others for the processes that it knows.

Owns when the counts of a log are judged, and where its pages are found to lie. How they were counted is the store's
affair, what is worth moving the policy's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from balancerd import native
from balancerd.kernel.accesses.judging import Findings, Locator, judge
from balancerd.kernel.accesses.log_clock import MOST_AGE_SECONDS
from balancerd.kernel.accesses.log_store import LogStore
from balancerd.kernel.accesses.rate import Turns
from balancerd.kernel.accesses.rings import Surroundings
from balancerd.kernel.accesses.watch import BY
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.moving.room import Room
from balancerd.kernel.processes.identity import check_identity
from balancerd.model.access import Accesses, AccessMethod, AccessWindow, Obstacle
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.ports import AccessWatch


@dataclass(slots=True)
class _Reading:
    """What was made of a process's counts last."""

    read_at: float
    version: int = -1
    turns: Turns = field(default_factory=Turns)
    found: Findings = field(default_factory=Findings)


class LogSource:
    """The AccessSource. What was imported stays when a process is closed, until it is too old."""

    method = AccessMethod.PERF_LOG

    def __init__(self, around: Surroundings, store: LogStore, *, budget_ratio: float) -> None:
        self.budget_ratio = budget_ratio
        self._clock = around.clock
        self._store = store
        self._topology = around.topology
        self._procfs = around.mappings.procfs
        self._locator = Locator(around.reads, around.topology, Room(self._procfs, around.sysfs), around.phase)
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
        check_identity(process, self._procfs)

    def read(self, process: ProcessId) -> AccessWindow:
        """See AccessSource. Raises KeyError for a process that no log tells of."""
        try:
            check_identity(process, self._procfs)
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
                reading.found.judged = judge(counts.table, self._rule, since_seconds=now - MOST_AGE_SECONDS)
        if is_due:
            self._locator.locate(process, reading.found, now)
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
            regions=reading.found.judged.regions,
            runs=reading.found.judged.runs,
            huge=reading.found.huge,
            unreported_runs=reading.found.judged.unreported_runs,
            unreported_regions=reading.found.judged.unreported_regions,
            cpu_seconds=self._clock.cpu_seconds() - cpu_before,
        )

    def close(self, process: ProcessId) -> None:
        """See AccessSource: what was imported stays."""

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
