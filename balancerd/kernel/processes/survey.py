"""All processes in one cheap pass, and what they used since the pass before. Owns what must be remembered between two.

Two readings of a counter of CPU time, and the time between them, give busy cores. The pass itself is native;
knows nothing of which pages lie where.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from balancerd.kernel.errors import ParseError
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.status import KERNEL_THREAD_FLAG
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Survey
from balancerd.model.topology import NodeMemory, Topology
from balancerd.native.records import ProcessRow, ProcessSurvey, ThreadRow, ThreadSurvey
from balancerd.ports import Clock, SurveyScope


class SurveyCore(Protocol):
    """The native functions that a survey needs; balancerd.native.binding has them."""

    def survey(self, proc_fd: int, *, min_rss_pages: int) -> ProcessSurvey:
        """List the processes of at least that resident size, and count the others."""
        ...

    def threads(self, proc_fd: int, pid: int) -> ThreadSurvey:
        """List the threads of one process. Raises ProcessLookupError when it is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """What one pass leaves for the next: counters in ticks, by process, and by thread as (tid, start_ticks)."""

    taken_at: float
    boottime_ticks: int
    cpu_ticks: dict[ProcessId, int] = field(default_factory=dict)
    cpu_cores: dict[ProcessId, float] = field(default_factory=dict)
    thread_ticks: dict[ProcessId, dict[tuple[int, int], int]] = field(default_factory=dict)


class Surveyor:
    """Turns native rows into a Survey. Remembers the previous pass and nothing older.

    `boottime` returns seconds since boot, with the time asleep: CLOCK_BOOTTIME, on which start_ticks are measured.
    """

    def __init__(
        self,
        core: SurveyCore,
        files: ProcessFiles,
        clock: Clock,
        boottime: Callable[[], float],
        ticks_per_second: int | None = None,
    ) -> None:
        self._core = core
        self._files = files
        self._clock = clock
        self._boottime = boottime
        self._ticks_per_second = ticks_per_second or os.sysconf("SC_CLK_TCK")
        self._before: _Pass | None = None

    def survey(
        self,
        scope: SurveyScope,
        topology: Topology,
        memory: Mapping[NodeId, NodeMemory],
        *,
        hugetlb: bool = False,
    ) -> Survey:
        """Look at every process. One that vanishes, or that cannot be read further, never stops the pass.

        With `hugetlb`, small but busy processes are looked at too: they may hold hugetlb pages, which their resident
        size does not count.
        """
        before = self._before
        now = _Pass(taken_at=self._clock.now(), boottime_ticks=int(self._boottime() * self._ticks_per_second))
        min_rss_pages = 1 if hugetlb else max(1, scope.min_rss_bytes // PAGE_BYTES)
        rows = self._core.survey(self._files.directory_fd, min_rss_pages=min_rss_pages)
        processes: list[ProcessSample] = []
        gone = 0
        for row in rows.rows:
            process = self._process(row, before, now)
            busy = process.cpu_cores is not None and process.cpu_cores >= scope.min_cpu_cores
            if busy:
                process = self._with_details(process, now.taken_at)
            if process.rss_bytes < scope.min_rss_bytes:
                continue
            if busy:
                try:
                    process = replace(process, run_seconds=self._run_seconds(row, process.id, topology, before, now))
                except (FileNotFoundError, ProcessLookupError):
                    gone += 1
                    continue
            processes.append(process)
        self._files.forget_all_but(now.cpu_ticks.keys())
        self._before = now
        return Survey(
            taken_at=now.taken_at,
            interval_seconds=None if before is None else now.taken_at - before.taken_at,
            topology=topology,
            memory=memory,
            processes=tuple(processes),
            small_processes=rows.processes - rows.kernel_threads - len(processes) - gone,
            kernel_threads=rows.kernel_threads,
            vanished_processes=rows.vanished + gone,
        )

    def look(self, pid: int) -> ProcessSample | None:
        """Read one process now, also a small one or a kernel thread; None when there is none.

        `cpu_cores` is that of the last survey, None when the process was not in it. The next survey is not disturbed.
        """
        try:
            stat = self._files.stat(pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        id_ = ProcessId(pid, stat.start_ticks)
        return self._with_details(
            ProcessSample(
                id=id_,
                comm=stat.comm,
                age_seconds=self._boottime() - stat.start_ticks / self._ticks_per_second,
                rss_bytes=stat.rss_pages * PAGE_BYTES,
                cpu_cores=None if self._before is None else self._before.cpu_cores.get(id_),
                kernel_thread=stat.kernel_thread,
                n_threads=stat.n_threads,
            ),
            now=None,
        )

    def _process(self, row: ProcessRow, before: _Pass | None, now: _Pass) -> ProcessSample:
        id_ = ProcessId(row.pid, row.start_ticks)
        now.cpu_ticks[id_] = row.cpu_ticks
        cpu_cores = None
        if before is not None and id_ in before.cpu_ticks and now.taken_at > before.taken_at:
            run_ticks = max(0, row.cpu_ticks - before.cpu_ticks[id_])
            cpu_cores = run_ticks / self._ticks_per_second / (now.taken_at - before.taken_at)
            now.cpu_cores[id_] = cpu_cores
        return ProcessSample(
            id=id_,
            comm=row.comm,
            age_seconds=max(0, now.boottime_ticks - row.start_ticks) / self._ticks_per_second,
            rss_bytes=row.rss_pages * PAGE_BYTES,
            cpu_cores=cpu_cores,
            kernel_thread=bool(row.flags & KERNEL_THREAD_FLAG),
            n_threads=row.n_threads,
        )

    def _run_seconds(
        self, process: ProcessRow, id_: ProcessId, topology: Topology, before: _Pass | None, now: _Pass
    ) -> Mapping[NodeId, float]:
        """Read the threads of a busy process and subtract what they had used when last read, a survey ago.

        A thread that started since then counts whole, and one that is alone had all that its process had. Of any other
        that was not read then, nothing is known.
        """
        known = {} if before is None else before.thread_ticks.get(id_, {})
        ticks = now.thread_ticks[id_] = {}
        run: dict[NodeId, float] = {}
        rows = _only_thread(process) or self._core.threads(self._files.directory_fd, id_.pid).rows
        for row in rows:
            key = (row.tid, row.start_ticks)
            ticks[key] = row.cpu_ticks
            run_ticks: int | None = None
            if key in known:
                run_ticks = max(0, row.cpu_ticks - known[key])
            elif before is not None and (known or row.start_ticks >= before.boottime_ticks):
                run_ticks = row.cpu_ticks
            elif before is not None and len(rows) == 1 and id_ in before.cpu_ticks:
                run_ticks = max(0, now.cpu_ticks[id_] - before.cpu_ticks[id_])
            node = topology.node_of_cpu.get(CpuId(row.last_cpu))
            if run_ticks is not None and node is not None:
                run[node] = run.get(node, 0.0) + run_ticks / self._ticks_per_second
        return run

    def _with_details(self, process: ProcessSample, now: float | None) -> ProcessSample:
        """Add what status and cgroup tell; what cannot be read stays None, and the process stays in the survey.

        With `now`, both may be remembered ones.
        """
        pid = process.id.pid
        try:
            status = self._files.status(pid) if now is None else self._files.remembered_status(process.id, now)
            cgroup = self._files.cgroup(pid) if now is None else self._files.remembered_cgroup(process.id, now)
            return replace(
                process,
                cgroup=cgroup,
                rss_bytes=process.rss_bytes + status.hugetlb_bytes,
                uid=status.uid,
                cpus_allowed=status.cpus_allowed,
                mems_allowed=status.mems_allowed,
            )
        except (OSError, ParseError):
            return process


def _only_thread(process: ProcessRow) -> tuple[ThreadRow, ...]:
    """Return the thread of a process that has just one, from what is known of the process; nothing otherwise."""
    if process.n_threads != 1:
        return ()
    return (
        ThreadRow(
            tid=process.pid,
            start_ticks=process.start_ticks,
            cpu_ticks=process.cpu_ticks,
            last_cpu=process.last_cpu,
            state=process.state,
        ),
    )
