"""Kernel counters: how many pages of each node a thread's hint faults were at, as the kernel's balancing counts them.

Needs kernel.numa_balancing and /proc/PID/task/TID/sched, neither perf events nor a capability. The counts tell no
addresses, so nothing can be moved by them; they tell how much of a process's memory is used from its own node. Each
scan halves them (sched/fair.c, task_numa_placement), so they are of the last few scans, and a page counts where it is
after its fault, by which the kernel may have moved it. But they are halved only when the thread itself faults: those of
one that filled the memory and has slept since stay as they were. So threads weigh by how long they ran of late.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from balancerd.kernel.accesses.obstacles import find_balancing_obstacle
from balancerd.kernel.accesses.threads import ThreadChoice
from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.processes.identity import check_identity
from balancerd.model.access import AccessMethod, AccessWindow, Obstacle
from balancerd.model.ids import NodeId, ProcessId
from balancerd.ports import Clock

KEEP_RUN = 0.8
"""How much earlier windows count in how long a thread ran of late."""

_RAN = re.compile(rb"se\.sum_exec_runtime +: +(\d{1,20}\.\d{1,9})")
_NODE = re.compile(rb"current_node=(\d{1,9}), numa_group_id=\d+")
_FAULTS = re.compile(rb"numa_faults node=(\d{1,9}) task_private=(\d{1,20}) task_shared=(\d{1,20})(?: .*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadFaults:
    """The hint faults of one thread, which runs on `node`: pages by the node that holds them, zeros included.

    `ran_seconds` is the run time since it began.
    """

    node: NodeId
    pages_by_node: Mapping[NodeId, int]
    ran_seconds: float


def parse_sched(text: bytes, path: str) -> ThreadFaults | None:
    """Parse /proc/PID/task/TID/sched (kernel/sched/debug.c, sched_show_numa); None where it tells no hint faults.

    Raises ParseError for numbers of faults that do not read as such.
    """
    node: NodeId | None = None
    ran_seconds = 0.0
    pages: dict[NodeId, int] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if found := _RAN.fullmatch(line):
            ran_seconds = float(found[1]) / 1e3
        elif found := _NODE.fullmatch(line):
            node = NodeId(int(found[1]))
        elif found := _FAULTS.fullmatch(line):
            pages[NodeId(int(found[1]))] = int(found[2]) + int(found[3])
        elif line.startswith(b"numa_faults node="):
            raise ParseError(path, number, line, "not numbers of hint faults by node")
    if node is None or not pages:
        return None
    return ThreadFaults(node=node, pages_by_node=pages, ran_seconds=ran_seconds)


def local_ratio(threads: Iterable[tuple[ThreadFaults, float]]) -> float | None:
    """Return the share of pages that were on the node of the thread that faulted on them; None without any.

    Each thread comes with its weight, such as how long it ran.
    """
    local = total = 0.0
    for thread, weight in threads:
        pages = sum(thread.pages_by_node.values())
        if pages:
            local += weight * thread.pages_by_node.get(thread.node, 0) / pages
            total += weight
    return local / total if total else None


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Look whether the kernel's balancing is on and tells of it; None when it does."""
    obstacle = find_balancing_obstacle(root)
    if obstacle is not None:
        return obstacle
    try:
        text = (root / "proc/self/sched").read_bytes()
    except FileNotFoundError:
        return Obstacle(seen="there is no /proc/PID/sched", fix="boot a kernel with CONFIG_SCHED_DEBUG=y")
    if parse_sched(text, "/proc/self/sched") is None:
        return Obstacle(seen="/proc/PID/sched shows no numa_faults", fix="boot a kernel with CONFIG_NUMA_BALANCING=y")
    return None


@dataclass(slots=True)
class _Watched:
    threads: ThreadChoice
    since: float
    read_at: float
    ran: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By thread, its run time when it was read last, and how much of it was of late."""

    def weigh(self, found: Mapping[int, ThreadFaults]) -> tuple[tuple[ThreadFaults, float], ...]:
        """Return each thread with how long it ran of late; what it ran before it was seen first is not known."""
        before, self.ran = self.ran, {}
        for tid, faults in found.items():
            ran, late = before.get(tid, (faults.ran_seconds, 0.0))
            self.ran[tid] = (faults.ran_seconds, KEEP_RUN * late + max(0.0, faults.ran_seconds - ran))
        return tuple((faults, self.ran[tid][1]) for tid, faults in found.items())


class KernelCounters:
    """The AccessSource. Its windows have a `local_ratio` and no runs; there is nothing to open in the kernel."""

    method = AccessMethod.KERNEL_COUNTERS

    def __init__(self, clock: Clock, *, procfs: str = "/proc") -> None:
        self._clock = clock
        self._procfs = procfs
        self._watched: dict[ProcessId, _Watched] = {}

    def probe(self) -> Obstacle | None:
        """See AccessSource."""
        return find_obstacle()

    def open(self, process: ProcessId) -> None:
        """See AccessSource."""
        if process not in self._watched:
            check_identity(process, self._procfs)
            now = self._clock.now()
            watched = _Watched(ThreadChoice(process.pid, self._procfs), since=now, read_at=now)
            watched.weigh(self._read_threads(process.pid, watched.threads.choose(now)))
            self._watched[process] = watched

    def read(self, process: ProcessId) -> AccessWindow:
        """See AccessSource. Raises KeyError for a process that is not open."""
        watched = self._watched[process]
        check_identity(process, self._procfs)
        cpu_before, now = self._clock.cpu_seconds(), self._clock.now()
        seconds, watched.read_at = now - watched.read_at, now
        threads = watched.weigh(self._read_threads(process.pid, watched.threads.choose(now)))
        return AccessWindow(
            process=process,
            taken_at=now,
            seconds=seconds,
            watched_seconds=now - watched.since,
            method=self.method,
            samples=0,
            hits=0,
            threads=len(threads),
            cpu_seconds=self._clock.cpu_seconds() - cpu_before,
            local_ratio=local_ratio(threads),
        )

    def close(self, process: ProcessId) -> None:
        """See AccessSource."""
        self._watched.pop(process, None)

    def _read_threads(self, pid: int, tids: Iterable[int]) -> dict[int, ThreadFaults]:
        return {tid: faults for tid in tids if (faults := self._read_thread(pid, tid)) is not None}

    def _read_thread(self, pid: int, tid: int) -> ThreadFaults | None:
        """Return what a thread's file tells; None for one that has ended, and for one of which nothing is told."""
        path = f"{self._procfs}/{pid}/task/{tid}/sched"
        try:
            return parse_sched(read_bytes(path), path)
        except (FileNotFoundError, ProcessLookupError):
            return None
