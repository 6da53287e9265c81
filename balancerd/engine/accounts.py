"""The sums over the processes of one workload, and what one process adds to them.

All of them are whole numbers, so that what was added can be taken away again without a rest. It must not know ticks,
nor who belongs to which workload.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import WorkloadReport
from balancerd.model.sample import PlacementSample, ProcessSample
from balancerd.model.workload import Workload, WorkloadKind

MICRO = 1_000_000
"""CPU use is summed in millionths of a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process adds to the sums of its workload. `microcores` is None where its CPU use is not known."""

    threads: int
    rss_bytes: int
    microcores: int | None
    microcores_by_node: Mapping[NodeId, int]
    known_bytes: int
    bytes_by_node: Mapping[NodeId, int]
    judged_bytes: int
    local_bytes: int


@dataclass(slots=True)
class Standing:
    """What one tick wants with the processes of one workload."""

    pending_bytes: int = 0
    moving_processes: int = 0
    held: Counter[Reason] = field(default_factory=Counter)


NOTHING_WANTED = Standing()


def memory_shares(placement: PlacementSample | None) -> Mapping[NodeId, float] | None:
    """Return the share of a process's memory on each node; None when nothing of it was found."""
    held = {} if placement is None else placement.bytes_by_node
    total = sum(held.values())
    return {node: count_bytes / total for node, count_bytes in held.items()} if total else None


def part_of(process: ProcessSample, memory: Mapping[NodeId, float] | None) -> Part:
    """Return what a process adds; `memory` is the share of its memory on each node, None where it is not known."""
    rss_bytes, cores = process.rss_bytes, process.cpu_cores
    run_seconds = process.run_seconds or {}
    total_seconds = sum(run_seconds.values())
    run = {node: seconds / total_seconds for node, seconds in run_seconds.items()} if total_seconds > 0 else None
    local_ratio = None if run is None or memory is None else sum(min(run[n], memory.get(n, 0.0)) for n in run)
    return Part(
        threads=process.n_threads,
        rss_bytes=rss_bytes,
        microcores=None if cores is None else round(cores * MICRO),
        microcores_by_node={} if run is None or cores is None else {n: round(cores * run[n] * MICRO) for n in run},
        known_bytes=0 if memory is None else rss_bytes,
        bytes_by_node={} if memory is None else {n: round(share * rss_bytes) for n, share in memory.items()},
        judged_bytes=0 if local_ratio is None else rss_bytes,
        local_bytes=0 if local_ratio is None else round(local_ratio * rss_bytes),
    )


class Account:
    """The sums of one workload. The report is made once and told until something changes."""

    def __init__(self) -> None:
        self._members: dict[ProcessId, None] = {}
        self._named: Counter[Workload] = Counter()
        self._threads = self._rss_bytes = self._known_bytes = self._judged_bytes = self._local_bytes = 0
        self._microcores = self._with_microcores = 0
        self._microcores_by_node: dict[NodeId, int] = {}
        self._bytes_by_node: dict[NodeId, int] = {}
        self._exact: Mapping[NodeId, int] | None = None
        self._standing = NOTHING_WANTED
        self._report: WorkloadReport | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no process any more."""
        return not self._members

    @property
    def workload(self) -> Workload:
        """The workload; without a cgroup when its processes are in several. StopIteration when it is empty."""
        first = next(iter(self._named))
        if len(self._named) == 1:
            return first
        named = next((each for each in self._named if each.kind is not WorkloadKind.OTHER), first)
        return Workload(kind=named.kind, name=named.name)

    def add(self, process: ProcessId, workload: Workload, part: Part) -> None:
        """Add a process, which must not be in it."""
        self._members[process] = None
        self._named[workload] += 1
        self._sum(part, 1)

    def change(self, before: Part, now: Part) -> None:
        """Have a process that is in it add something else than before."""
        self._sum(before, -1)
        self._sum(now, 1)

    def take_away(self, process: ProcessId, workload: Workload, part: Part) -> None:
        """Take away a process as it was added. KeyError when it is not in it."""
        del self._members[process]
        self._named[workload] -= 1
        if not self._named[workload]:
            del self._named[workload]
        self._sum(part, -1)

    def note(self, exact: Mapping[NodeId, int] | None, standing: Standing) -> None:
        """Take note of what the cgroup tells of its memory, None: nothing, and of what this tick wants with it."""
        if exact != self._exact or (standing is not self._standing and standing != self._standing):
            self._exact, self._standing, self._report = exact, standing, None

    def tell(self) -> WorkloadReport:
        """Return the report; the very same as before when nothing has changed."""
        if self._report is None:
            self._report = self._tell()
        return self._report

    def _tell(self) -> WorkloadReport:
        standing, is_exact = self._standing, self._exact is not None
        held = self._bytes_by_node if self._exact is None else self._exact
        return WorkloadReport(
            workload=self.workload,
            members=tuple(self._members),
            threads=self._threads,
            rss_bytes=self._rss_bytes,
            cpu_cores=self._microcores / MICRO if self._with_microcores else None,
            cores_by_node={node: micro / MICRO for node, micro in sorted(self._microcores_by_node.items()) if micro},
            bytes_by_node={node: count_bytes for node, count_bytes in sorted(held.items()) if count_bytes or is_exact},
            exact=is_exact,
            known_bytes=self._rss_bytes if is_exact else self._known_bytes,
            judged_bytes=self._judged_bytes,
            local_bytes=self._local_bytes,
            pending_bytes=standing.pending_bytes,
            moving_processes=standing.moving_processes,
            held=dict(sorted(standing.held.items())),
        )

    def _sum(self, part: Part, sign: int) -> None:
        self._threads += sign * part.threads
        self._rss_bytes += sign * part.rss_bytes
        self._known_bytes += sign * part.known_bytes
        self._judged_bytes += sign * part.judged_bytes
        self._local_bytes += sign * part.local_bytes
        if part.microcores is not None:
            self._microcores += sign * part.microcores
            self._with_microcores += sign
        for node, micro in part.microcores_by_node.items():
            self._microcores_by_node[node] = self._microcores_by_node.get(node, 0) + sign * micro
        for node, held in part.bytes_by_node.items():
            self._bytes_by_node[node] = self._bytes_by_node.get(node, 0) + sign * held
        self._report = None
