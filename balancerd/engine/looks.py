"""How soon a process deserves another look: the longer nothing changes, the later.

Remembers of each process when it was looked at last, where its memory lay, and what the cheap files told of it then.
Time is data.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PlacementSample, ProcessSample, Survey
from balancerd.model.topology import Topology

SHORTEST_SECONDS = 5.0
LONGEST_SECONDS = 320.0

SIZE_CHANGE = 0.05
"""A process whose resident size changed by this share is looked at again at once."""

SHARE_CHANGE = 0.02
"""What a node's share of the memory must have changed by to count, beside the error of the two samples."""

FAULTS_FACTOR = 3.0
MANY_FAULTS_PER_SECOND = 1000.0
"""A process with so many page faults, and so many times those of the last look, is filling new memory."""

LONGEST_MISS_SECONDS = 40.0
"""A process that could not be looked at is tried again after at most so long."""

HOME_RATIO = 0.9
"""Share of the run time that makes a node the home; as follow-cpu counts, but over one interval only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the cheap files tell of a process that bears on where its memory lies.

    `workload_shares` is each node's share of what its workload's cgroup holds, None where that is not known.
    """

    home: NodeId | None
    rss_bytes: int
    faults_per_second: float | None = None
    workload_shares: Mapping[NodeId, float] | None = None


def circumstances(process: ProcessSample, survey: Survey) -> Circumstances:
    """Return what one survey tells of one of its processes."""
    cgroup = None if process.workload is None else process.workload.cgroup
    held = None if cgroup is None else survey.workload_bytes.get(cgroup)
    return Circumstances(
        home=present_home(process, survey.topology),
        rss_bytes=process.rss_bytes,
        faults_per_second=process.faults_per_second,
        workload_shares=_shares(held) if held else None,
    )


def present_home(process: ProcessSample, topology: Topology) -> NodeId | None:
    """Return the node with memory where the process ran nearly all of its latest time, None when there is none."""
    run = process.run_seconds or {}
    total = sum(run.values())
    for node, seconds in run.items():
        if total > 0 and seconds >= HOME_RATIO * total and node in topology.memory_nodes:
            return node
    return None


@dataclass(frozen=True, slots=True)
class _Look:
    taken_at: float
    then: Circumstances
    placement: PlacementSample
    shares: Mapping[NodeId, float]
    interval_seconds: float


class Looks:
    """When to look again, by process."""

    def __init__(self) -> None:
        self._looks: dict[ProcessId, _Look] = {}
        self._misses: dict[ProcessId, tuple[float, float]] = {}

    def is_due(self, process: ProcessId, now_is: Circumstances, now: float) -> bool:
        """Return whether the process was never looked at, its circumstances changed, or its interval has passed.

        One that could not be looked at the last time waits for its turn, whatever has changed.
        """
        if process in self._misses:
            tried_at, interval = self._misses[process]
            return now - tried_at >= interval
        last = self._looks.get(process)
        return last is None or now - last.taken_at >= last.interval_seconds or _has_changed(last.then, now_is)

    def due_at(self, process: ProcessId) -> float | None:
        """Return when the next look is due if nothing changes, None for a process never looked at."""
        last = self._looks.get(process)
        return None if last is None else last.taken_at + last.interval_seconds

    def note(self, placement: PlacementSample, now_is: Circumstances) -> None:
        """Take note of a look: the next one comes after 5 s when something has changed, else after twice as long.

        Memory away from a new home is looked at again at once: whether it moves is asked soon, and it may be moving.
        """
        shares = _shares(placement.bytes_by_node)
        self._misses.pop(placement.process, None)
        last = self._looks.get(placement.process)
        home, home_before = now_is.home, None if last is None else last.then.home
        interval = SHORTEST_SECONDS
        if home is not None and home != home_before and shares.get(home, 0.0) < 1.0 - SHARE_CHANGE:
            interval = 0.0
        elif last is not None and not _has_changed(last.then, now_is) and not _has_moved(last, placement, shares):
            interval = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, 2 * last.interval_seconds))
        self._looks[placement.process] = _Look(placement.taken_at, now_is, placement, shares, interval)

    def note_miss(self, process: ProcessId, now: float) -> None:
        """Take note of a look in vain: the next try comes after 5 s, then after twice as long each time, up to 40 s."""
        _, before = self._misses.get(process, (now, SHORTEST_SECONDS / 2))
        self._misses[process] = (now, min(LONGEST_MISS_SECONDS, 2 * before))

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for process in self._looks.keys() - alive:
            del self._looks[process]
        for process in self._misses.keys() - alive:
            del self._misses[process]


def _has_changed(then: Circumstances, now_is: Circumstances) -> bool:
    if now_is.home is not None and now_is.home != then.home:
        return True
    if abs(now_is.rss_bytes - then.rss_bytes) > SIZE_CHANGE * then.rss_bytes:
        return True
    faults, before = now_is.faults_per_second, then.faults_per_second
    if faults is not None and before is not None and faults > max(MANY_FAULTS_PER_SECOND, FAULTS_FACTOR * before):
        return True
    if now_is.workload_shares is None or then.workload_shares is None:
        return False
    return _differ(then.workload_shares, now_is.workload_shares, SHARE_CHANGE)


def _has_moved(last: _Look, placement: PlacementSample, shares: Mapping[NodeId, float]) -> bool:
    """Return whether memory lies elsewhere, beyond what chance explains, or mappings came or went."""
    if last.placement.n_vmas != placement.n_vmas:
        return True
    return any(
        abs(shares.get(node, 0.0) - last.shares.get(node, 0.0))
        > max(SHARE_CHANGE, _error(last.placement, node) + _error(placement, node))
        for node in shares.keys() | last.shares.keys()
    )


def _error(placement: PlacementSample, node: NodeId) -> float:
    interval = placement.intervals.get(node)
    return 0.0 if interval is None else interval.half_width


def _shares(held: Mapping[NodeId, int]) -> dict[NodeId, float]:
    total = sum(held.values())
    return {node: size / total for node, size in held.items()} if total else {}


def _differ(a: Mapping[NodeId, float], b: Mapping[NodeId, float], by: float) -> bool:
    return any(abs(a.get(node, 0.0) - b.get(node, 0.0)) > by for node in a.keys() | b.keys())
