"""All processes in one cheap pass, and what they used between two readings. Owns what must be remembered between two.

The pass itself is native and reads only those that are due: loud processes (large and busy) each time, the others now
and then. A process that was not read, or is as it was, is told by the very same object as before. Knows nothing of
which pages lie where.
"""

import os
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Protocol, TypeAlias

from balancerd.kernel.processes.descriptors import keepable_descriptors
from balancerd.kernel.processes.details import DetailReader, Details, Patience
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.threads import ThreadCore, ThreadReader
from balancerd.kernel.processes.turns import BusyCpus, TurnKeeper
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Survey
from balancerd.model.topology import NodeMemory, Topology
from balancerd.native import ProcessSeats
from balancerd.native.records import ProcessRow, ProcessSurvey, SurveyRules
from balancerd.ports import Clock, SurveyScope

_REFRESH_SECONDS = 5.0
"""So often it is seen whose cpuset is due to be read again, of processes that do nothing: 1 us each."""


class SurveyCore(ThreadCore, Protocol):
    """The native functions that a survey needs; balancerd.native.surveying has them."""

    def survey(
        self, proc_fd: int, seats: ProcessSeats, rules: SurveyRules, *, now_seconds: float, boot_ticks: int
    ) -> ProcessSurvey:
        """List all processes, read those that are due, and tell the large ones that changed."""
        ...


Annotate: TypeAlias = Callable[[ProcessSample, bool], ProcessSample]
"""Adds to a large process what others know of it; the second argument tells whether it is busy, or looked at anyway."""


class Surveyor:
    """Turns native rows into a Survey. Remembers the large processes as they were last told.

    `boottime` returns seconds since boot, with the time asleep: CLOCK_BOOTTIME, on which start_ticks are measured.
    `annotate` adds what others know; `kept_descriptors` bounds the files that stay open.
    """

    def __init__(
        self,
        core: SurveyCore,
        files: ProcessFiles,
        clock: Clock,
        boottime: Callable[[], float],
        ticks_per_second: int | None = None,
        *,
        annotate: Annotate | None = None,
        patience: Patience | None = None,
        kept_descriptors: int | None = None,
    ) -> None:
        self._core = core
        self._files = files
        self._clock = clock
        self._boottime = boottime
        self._ticks_per_second = ticks_per_second or os.sysconf("SC_CLK_TCK")
        self._annotate = annotate
        self._kept_descriptors = keepable_descriptors() if kept_descriptors is None else kept_descriptors
        self._seats = ProcessSeats()
        self._details = DetailReader(files, patience)
        self._threads = ThreadReader(core, files.directory_fd)
        self._turns = TurnKeeper()
        self._busy_cpus = BusyCpus()
        self._known: dict[int, ProcessSample] = {}
        self._processes: tuple[ProcessSample, ...] = ()
        self._taken_at: float | None = None
        self._refreshed_at: float | None = None

    def close(self) -> None:
        """Close the descriptors that are kept; nothing is remembered any more."""
        self._seats.close()

    def pids_named(self, beginning: str) -> tuple[int, ...]:
        """Return the pids of all processes, small ones too, whose name begins so, as last read; 64 at most."""
        return self._seats.pids_named(beginning)

    def survey(
        self,
        scope: SurveyScope,
        topology: Topology,
        memory: Mapping[NodeId, NodeMemory],
        *,
        hugetlb: bool = False,
        busy_cpus: float | None = None,
    ) -> Survey:
        """Look at every process. One that vanishes, or that cannot be read further, never stops the pass.

        With `hugetlb`, small but busy processes are looked at too: they may hold hugetlb pages, which their resident
        size does not count. `busy_cpus` is how many CPUs were busy since the survey before; None: nobody knows.
        """
        now, before = self._clock.now(), self._taken_at
        interval = None if before is None else now - before
        boot_ticks = int(self._boottime() * self._ticks_per_second)
        at_work = self._busy_cpus.rose(now, busy_cpus)
        turns = self._turns.turns(len(self._known), scope.scan_budget_ratio, at_work=at_work)
        rules = SurveyRules(
            min_rss_pages=max(1, -(-scope.min_rss_bytes // PAGE_BYTES)),
            min_cpu_cores=scope.min_cpu_cores,
            ticks_per_second=self._ticks_per_second,
            listing_seconds=turns.listing_seconds,
            idle_seconds=turns.idle_seconds,
            small_seconds=turns.small_seconds,
            kernel_seconds=turns.kernel_seconds,
            max_kept=self._kept_descriptors,
            busy_is_large=hugetlb,
        )
        cpu_before = self._clock.cpu_seconds()
        found = self._core.survey(self._files.directory_fd, self._seats, rules, now_seconds=now, boot_ticks=boot_ticks)
        self._turns.note(found, self._clock.cpu_seconds() - cpu_before)
        self._taken_at = now
        for pid in found.dropped:
            self._known.pop(pid, None)
            self._details.forget(pid)
        for row in found.rows:
            if not row.is_loud:
                quiet = self._process(
                    row,
                    boot_ticks,
                    self._details.read_idle(ProcessId(row.pid, row.start_ticks), row.comm, scope, now),
                )
                self._known[row.pid] = quiet if self._annotate is None else self._annotate(quiet, scope.read_idle)
        most_threads = self._turns.most_threads(interval, scope.scan_budget_ratio)
        loud = [row for row in found.rows if row.is_loud]
        gone = self._take_loud(loud, scope, topology, now, boot_ticks, most_threads=most_threads)
        changed = scope.read_idle and self._refresh_idle({row.pid for row in found.rows}, scope, now)
        if found.rows or found.dropped or changed:
            self._processes = tuple(self._known.values())
        return Survey(
            taken_at=now,
            interval_seconds=interval,
            topology=topology,
            memory=memory,
            processes=self._processes,
            small_processes=found.processes - found.kernel_threads - len(self._processes) - gone,
            kernel_threads=found.kernel_threads,
            vanished_processes=found.vanished + gone,
            unreadable_processes=found.unreadable,
            read_processes=found.read,
        )

    def look(self, pid: int) -> ProcessSample | None:
        """Read one process now, also a small one or a kernel thread; None when there is none.

        `cpu_cores` is as the last survey has it, None when it does not know. The next survey is not disturbed.
        """
        try:
            stat = self._files.stat(pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        details = self._details.read_anew(pid)
        return ProcessSample(
            id=ProcessId(pid, stat.start_ticks),
            comm=stat.comm,
            age_seconds=self._boottime() - stat.start_ticks / self._ticks_per_second,
            rss_bytes=stat.rss_pages * PAGE_BYTES + details.hugetlb_bytes,
            cpu_cores=self._seats.cpu_cores(pid, stat.start_ticks),
            kernel_thread=stat.kernel_thread,
            n_threads=stat.n_threads,
            uid=details.uid,
            cgroup=details.cgroup,
            cpus_allowed=details.cpus_allowed,
            mems_allowed=details.mems_allowed,
        )

    def _refresh_idle(self, just_read: AbstractSet[int], scope: SurveyScope, now: float) -> bool:
        """Read cpuset and affinity of the others anew when it is time: idle ones are told only when they change."""
        if self._refreshed_at is not None and now - self._refreshed_at < _REFRESH_SECONDS:
            return False
        self._refreshed_at, changed = now, {}
        for pid, process in self._known.items():
            if pid in just_read:
                continue
            details = self._details.read_idle(process.id, process.comm, scope, now)
            cpus, mems = details.cpus_allowed, details.mems_allowed
            if mems is not None and (cpus, mems) != (process.cpus_allowed, process.mems_allowed):
                told = replace(process, uid=details.uid, cpus_allowed=cpus, mems_allowed=mems)
                changed[pid] = told if self._annotate is None else self._annotate(told, True)
        self._known |= changed
        return bool(changed)

    def _take_loud(
        self,
        rows: list[ProcessRow],
        scope: SurveyScope,
        topology: Topology,
        now: float,
        boot_ticks: int,
        *,
        most_threads: int | None,
    ) -> int:
        """Read details and threads of loud processes, and remember those large enough. Returns how many are gone."""
        details = {
            row.pid: self._details.read(ProcessId(row.pid, row.start_ticks), row.comm, scope, now) for row in rows
        }
        large = [
            row for row in rows if row.rss_pages * PAGE_BYTES + details[row.pid].hugetlb_bytes >= scope.min_rss_bytes
        ]
        cpu_before = self._clock.cpu_seconds()
        threads = self._threads.read(large, topology, now, most_threads=most_threads)
        self._turns.note_threads(threads.n_read, self._clock.cpu_seconds() - cpu_before)
        for pid in {row.pid for row in rows} - {row.pid for row in large} | threads.gone:
            self._known.pop(pid, None)
        for row in large:
            if row.pid in threads.gone:
                continue
            known, run_ticks = details[row.pid], threads.run_ticks.get(row.pid)
            if _has_been_bound_anew(known, run_ticks, topology):
                known = self._details.read_again(ProcessId(row.pid, row.start_ticks), row.comm, scope, now)
            process = self._process(row, boot_ticks, known, run_ticks)
            self._known[row.pid] = process if self._annotate is None else self._annotate(process, True)
        return len(threads.gone)

    def _process(
        self,
        row: ProcessRow,
        boot_ticks: int,
        details: Details,
        run_ticks: Mapping[NodeId, int] | None = None,
    ) -> ProcessSample:
        run_seconds = None
        if run_ticks is not None:
            run_seconds = {node: ticks / self._ticks_per_second for node, ticks in run_ticks.items()}
        return ProcessSample(
            id=ProcessId(row.pid, row.start_ticks),
            comm=row.comm,
            age_seconds=max(0, boot_ticks - row.start_ticks) / self._ticks_per_second,
            rss_bytes=row.rss_pages * PAGE_BYTES + details.hugetlb_bytes,
            cpu_cores=row.cpu_cores,
            n_threads=row.n_threads,
            faults_per_second=row.faults_per_second,
            run_seconds=run_seconds,
            uid=details.uid,
            cgroup=details.cgroup,
            exe=details.exe,
            cmdline=details.cmdline,
            cpus_allowed=details.cpus_allowed,
            mems_allowed=details.mems_allowed,
        )


def _has_been_bound_anew(details: Details, run_ticks: Mapping[NodeId, int] | None, topology: Topology) -> bool:
    """Return whether a process ran, but nowhere where it may run as far as is remembered."""
    ran_on = {node for node, ticks in (run_ticks or {}).items() if ticks}
    if not ran_on or details.cpus_allowed is None:
        return False
    return ran_on.isdisjoint(topology.nodes_of(details.cpus_allowed))
