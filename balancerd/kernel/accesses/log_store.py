"""The accesses that imported logs tell, counted for each process that lives and is meant by them.

Owns the counts and how they come to be: an import counts in copies, and only its end puts these in place, so that a log
is taken whole or not at all. Threads of the control socket import, the tick reads: each call holds the lock for one
piece of samples at most. It must not know how logs are written, nor what is concluded from the counts.
"""

import bisect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from balancerd import native
from balancerd.kernel.accesses.log_clock import Clocks, offset_seconds
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.model.ids import ProcessId
from balancerd.model.topology import Topology

IDLE_SECONDS = 60.0
"""An import of which nothing was heard for so long gives way to the next one."""

START_SLACK_SECONDS = 0.02
"""Starts of processes are told in ticks of 10 ms."""

MOST_TIDS = 4096
"""So many threads are told apart, for their number."""

Sample = tuple[int, int, int, int, int]
"""pid, tid, CPU, nanoseconds on the log's clock, address."""


class ImportRefusedError(Exception):
    """An import cannot begin or go on; the message is a sentence for whoever asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHeader:
    """What is told of a log before its samples: how many there are by pid. Without times both seconds are None."""

    name: str
    samples_by_pid: Mapping[int, int]
    first_seconds: float | None = None
    last_seconds: float | None = None
    clock: str | None = None
    lost_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """A process that lives: since when, in monotonic seconds, and which of its memory is watched."""

    id: ProcessId
    started_at: float
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to a header: the number of the import, whose samples it wants, and why not those of others."""

    number: int
    wanted: tuple[int, ...]
    refused: Mapping[int, str]
    is_timed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the samples of one process: `hits` were counted, `earlier` are from before it began.

    `elsewhere` are in memory that is not watched, such as stacks, files and what is mapped no more.
    """

    process: ProcessId
    hits: int
    earlier: int
    elsewhere: int
    unknown_cpus: int


@dataclass(slots=True, kw_only=True)
class LogCounts:
    """The counts of one process. `since` is when the oldest sample was taken, `until` when the last log ended.

    `version` differs after each import; nodes are those of `topology`. The rest is news since the last reading.
    """

    table: native.AccessTable
    topology: Topology
    since: float
    until: float
    version: int = 0
    tids: set[int] = field(default_factory=set)
    new_samples: int = 0
    new_hits: int = 0
    new_lost: int = 0


@dataclass(slots=True)
class _Staged:
    process: LiveProcess
    counts: LogCounts
    starts: Sequence[int]
    samples: int = 0
    hits: int = 0
    earlier: int = 0
    elsewhere: int = 0
    unknown_before: int = 0

    def add(self, samples: Iterable[Sample], offset: float, untimed: float | None) -> None:
        ranges, begun = self.process.ranges, self.process.started_at - START_SLACK_SECONDS
        chosen: list[tuple[int, float, int, int]] = []
        for _pid, tid, cpu, nanoseconds, address in samples:
            self.samples += 1
            seconds = nanoseconds / 1e9 - offset if untimed is None else untimed
            at = bisect.bisect_right(self.starts, address) - 1
            if seconds < begun:
                self.earlier += 1
            elif at < 0 or address >= ranges[at][1]:
                self.elsewhere += 1
            else:
                chosen.append((address, max(0.0, seconds), tid, cpu))
                self.counts.since = min(self.counts.since, seconds)
                if len(self.counts.tids) < MOST_TIDS:
                    self.counts.tids.add(tid)
        self.counts.table.add(chosen)
        self.hits += len(chosen)

    def told(self) -> Imported:
        return Imported(
            process=self.process.id,
            hits=self.hits,
            earlier=self.earlier,
            elsewhere=self.elsewhere,
            unknown_cpus=self.counts.table.totals().unknown_cpus - self.unknown_before,
        )


@dataclass(slots=True)
class _Import:
    number: int
    heard_at: float
    offset: float
    untimed: float | None
    lost_ratio: float
    staged: dict[int, _Staged]


class LogStore:
    """Keeps the counts of the processes that logs were imported for last, `most_processes` at most.

    `find(pid)` returns a live process or raises ProcessGoneError, ParseError or OSError. Up to two tables of
    `table_bytes` are there for each process while an import runs.
    """

    def __init__(
        self,
        clocks: Callable[[], Clocks],
        find: Callable[[int], LiveProcess],
        topology: Callable[[], Topology],
        *,
        table_bytes: int,
        most_processes: int,
    ) -> None:
        self.table_bytes = table_bytes
        self.most_processes = most_processes
        self.lock = threading.RLock()
        self._clocks = clocks
        self._find = find
        self._topology = topology
        self._counts: dict[ProcessId, LogCounts] = {}
        self._import: _Import | None = None
        self._numbers = 0

    def counts(self, process: ProcessId) -> LogCounts | None:
        """Return what logs tell of a process, None: nothing. Hold the lock while it is used."""
        return self._counts.get(process)

    def forget(self, process: ProcessId) -> None:
        """Forget what logs tell of a process."""
        with self.lock:
            counts = self._counts.pop(process, None)
            if counts is not None:
                counts.table.close()

    def close(self) -> None:
        """Forget everything."""
        with self.lock:
            self._give_up()
            for process in tuple(self._counts):
                self.forget(process)

    def begin(self, header: LogHeader) -> Admission:
        """Begin to import a log. Raises ImportRefusedError, and ClockError when its times cannot be meant."""
        now, last = self._clocks(), header.last_seconds
        offset = 0.0 if last is None else offset_seconds(last, header.clock, now)
        ended_at = now.monotonic if last is None else last - offset
        found, refused = self._choose(header.samples_by_pid, ended_at)  # without the lock: reading may take long
        with self.lock:
            if self._import is not None and now.monotonic - self._import.heard_at < IDLE_SECONDS:
                raise ImportRefusedError("another log is being imported: try again in a minute")
            self._give_up()
            self._numbers += 1
            total = sum(header.samples_by_pid.values()) + header.lost_samples
            self._import = _Import(
                number=self._numbers,
                heard_at=now.monotonic,
                offset=offset,
                untimed=now.monotonic if last is None else None,
                lost_ratio=header.lost_samples / total if total else 0.0,
                staged={process.id.pid: self._stage(process, ended_at) for process in found},
            )
            return Admission(
                number=self._numbers,
                wanted=tuple(sorted(self._import.staged)),
                refused=refused,
                is_timed=last is not None,
            )

    def add(self, number: int, samples: Iterable[Sample]) -> None:
        """Count a piece of samples. Those of processes that were not wanted are left out. Raises ImportRefusedError."""
        with self.lock:
            going = self._going(number)
            by_pid: dict[int, list[Sample]] = {}
            for sample in samples:
                by_pid.setdefault(sample[0], []).append(sample)
            for pid, its in by_pid.items():
                if pid in going.staged:
                    going.staged[pid].add(its, going.offset, going.untimed)
            going.heard_at = self._clocks().monotonic

    def commit(self, number: int) -> tuple[Imported, ...]:
        """End an import: from now on its samples are among the counts. Raises ImportRefusedError."""
        with self.lock:
            going = self._going(number)
            self._import = None
            done = tuple(staged.told() for _, staged in sorted(going.staged.items()))
            for staged in going.staged.values():
                if staged.hits:
                    self._put(staged, going)
                else:
                    staged.counts.table.close()
            return done

    def abandon(self, number: int) -> None:
        """Forget an import that has not ended; unknown ones are none."""
        with self.lock:
            if self._import is not None and self._import.number == number:
                self._give_up()

    def _choose(self, samples_by_pid: Mapping[int, int], ended_at: float) -> tuple[list[LiveProcess], dict[int, str]]:
        """Return the processes that are meant, those with most samples first, as many as are kept."""
        found: list[LiveProcess] = []
        refused: dict[int, str] = {}
        for pid in sorted(samples_by_pid, key=lambda pid: (-samples_by_pid[pid], pid)):
            if len(found) >= self.most_processes:
                refused[pid] = "others have more samples: accesses.max_processes"
                continue
            try:
                process = self._find(pid)
            except ProcessGoneError:
                refused[pid] = "there is no such process any more"
            except (OSError, ParseError) as error:
                refused[pid] = f"it cannot be read: {error}"
            else:
                if process.started_at - START_SLACK_SECONDS > ended_at:
                    refused[pid] = (
                        f"the process of this number began {process.started_at - ended_at:.0f} s after the log"
                    )
                elif not process.ranges:
                    refused[pid] = "it has no memory of the kind that is watched"
                else:
                    found.append(process)
        return found, refused

    def _stage(self, process: LiveProcess, ended_at: float) -> _Staged:
        before, topology = self._counts.get(process.id), self._topology()
        if before is None or before.topology != topology:
            nodes = native.AccessNodes(topology.node_of_cpu.items())
            table = native.AccessTable(nodes, self.table_bytes)
            counts = LogCounts(table=table, topology=topology, since=ended_at, until=ended_at)
        else:
            until = max(before.until, ended_at)
            table = before.table.copy()
            counts = LogCounts(table=table, topology=topology, since=before.since, until=until, tids=set(before.tids))
        unknown_before = counts.table.totals().unknown_cpus
        starts = [start for start, _ in process.ranges]
        return _Staged(process=process, counts=counts, starts=starts, unknown_before=unknown_before)

    def _put(self, staged: _Staged, going: _Import) -> None:
        process, counts = staged.process.id, staged.counts
        before, taken = self._counts.get(process), staged.samples - staged.earlier
        counts.version = going.number
        counts.new_samples = taken + (0 if before is None else before.new_samples)
        counts.new_hits = staged.hits + (0 if before is None else before.new_hits)
        lost = round(taken * going.lost_ratio / (1.0 - going.lost_ratio))
        counts.new_lost = lost + (0 if before is None else before.new_lost)
        self.forget(process)
        self._counts[process] = counts
        if len(self._counts) > self.most_processes:
            self.forget(min(self._counts, key=lambda each: (self._counts[each].version, each)))

    def _going(self, number: int) -> _Import:
        if self._import is None or self._import.number != number:
            raise ImportRefusedError(f"there is no import {number}, or it gave way to another one")
        return self._import

    def _give_up(self) -> None:
        if self._import is not None:
            for staged in self._import.staged.values():
                staged.counts.table.close()
        self._import = None
