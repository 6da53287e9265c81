"""Where a process is at home, since when, and how long it stays: told from where its threads ran, tick by tick.

A process changes its home when it ran on another node for long enough to count; what it ran before is forgotten then,
so that a change takes seconds to see, however long the stay before it was. A shorter visit elsewhere ends no stay, nor
do shares that waver about the threshold. A process that is bound to a node, and runs there, has come to stay at once.
Knows nothing of memory or of moves. Time is data.
"""

import math
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample
from balancerd.model.topology import Topology

LAPSE_SHARE = 0.1
"""A home keeps its title until its share has fallen this much below the one that made it the home."""

MAJORITY = 0.5
"""A process that ran less than this share of its latest time at home is away, if only on a visit."""

QUIET_RATIO = 0.25
"""A process that is so much less busy than it was is idling: where it does that says little of where it works."""

REMEMBERED_STAYS = 16

LONGEST_GAP_SECONDS = 10.0
"""After a longer time without news of its threads a process is as if seen for the first time, but for its home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeRule:
    """What makes a home: its share of run time, for how long at least, and the time constant of the average."""

    share: float
    least_seconds: float
    window_seconds: float


@dataclass(frozen=True, slots=True)
class _Interval:
    began_at: float
    seconds: float
    run: Mapping[NodeId, float]


class Residence:
    """One process: its home, if it has one, and its stays. `run` are cores by node, averaged since the home began."""

    def __init__(self, rule: HomeRule) -> None:
        self._rule = rule
        self._latest: deque[_Interval] = deque()
        self._run: dict[NodeId, float] = {}
        self._weight = 0.0
        self._stays: deque[float] = deque(maxlen=REMEMBERED_STAYS)
        self._was_home_at = 0.0
        self._nodes: AbstractSet[NodeId] = frozenset()
        self.home: NodeId | None = None
        self.since = 0.0
        self.is_at_home = False
        """Whether the process ran mostly at its home when it was last seen to run."""
        self.is_bound = False
        """Whether it may run at its home only, as of then."""
        self.seen_at: float | None = None
        self.new_seconds = 0.0
        """The time by which the stay was longer at the last observation than at the one before."""
        self.ran_seconds = 0.0
        """The CPU time that the process took during the stay, on whatever node."""

    @property
    def shares(self) -> dict[NodeId, float]:
        """Each node's share of the averaged run time; empty for a process that has not run."""
        return _normalised(self._run)

    @property
    def cores(self) -> float:
        """The averaged cores that the process keeps busy."""
        return sum(self._run.values()) / self._weight if self._weight else 0.0

    @property
    def age_seconds(self) -> float:
        """How long the present stay has lasted, as of the last observation."""
        return 0.0 if self.home is None or self.seen_at is None else self.seen_at - self.since

    @property
    def n_stays(self) -> int:
        """How many stays have ended that were long enough to count, of those that are remembered."""
        return len(self._stays)

    @property
    def expected_stay_seconds(self) -> float | None:
        """How long a stay goes on once it counts: the mean of those that ended, to which the present one adds.

        It is told one standard error too low, that of stays which end by chance at any time: few of them may be long by
        luck, and who asks at each tick until the mean is high enough would always find that luck. None before one has
        ended.
        """
        n_stays = len(self._stays)
        if not n_stays:
            return None
        least = self._rule.least_seconds
        seconds = sum(max(0.0, stay - least) for stay in (*self._stays, self.age_seconds))
        return seconds / (n_stays + math.sqrt(n_stays))

    def observe(
        self,
        run: Mapping[NodeId, float],
        now: float,
        interval_seconds: float,
        nodes: AbstractSet[NodeId],
        *,
        bound_to: NodeId | None = None,
    ) -> None:
        """Take note of the cores that ran on each node since the last time, which was about an interval ago.

        `nodes` are those that are online; what ran on others is forgotten. `bound_to` has all CPUs that it may use.
        """
        gap = interval_seconds if self.seen_at is None else now - self.seen_at
        elapsed = gap if gap <= max(LONGEST_GAP_SECONDS, interval_seconds) else interval_seconds
        if elapsed < gap:
            self._latest.clear()
        self.seen_at, self.new_seconds = now, elapsed
        if elapsed <= 0.0:
            return
        if nodes != self._nodes:
            self._forget_all_but(nodes)
        here = {node: cores for node, cores in run.items() if cores > 0.0 and node in nodes}
        self._count(here, elapsed)
        if here:
            self._latest.append(_Interval(now - elapsed, elapsed, here))
            while self._latest_seconds() - self._latest[0].seconds >= max(self._rule.least_seconds, elapsed):
                self._latest.popleft()
            self._settle(now, here, bound_to)

    def _settle(self, now: float, here: Mapping[NodeId, float], bound_to: NodeId | None) -> None:
        """Find out whether the home is still the home, after an interval in which the process ran `here`."""
        if self.home is None or _share(here, self.home) < self._rule.share:
            is_there = bound_to is not None and _share(here, bound_to) >= self._rule.share
            node = bound_to if is_there else self._candidate()
            if node is not None and node != self.home:
                self._leave()
                self._enter(node)
            elif self.home is not None and _share(self._run, self.home) < self._rule.share - LAPSE_SHARE:
                self._leave()
        self.is_at_home = self.home is not None and _share(here, self.home) >= MAJORITY
        if self.is_at_home:
            self._was_home_at, self.is_bound = now, bound_to == self.home

    def _candidate(self) -> NodeId | None:
        """Return the node that had nearly all of the latest run time, if that is long enough and much enough to count.

        A process that has no home takes the first that it finds: who acts on it asks for its age.
        """
        seconds = self._latest_seconds()
        ran: dict[NodeId, float] = {}
        for interval in self._latest:
            for node, cores in interval.run.items():
                ran[node] = ran.get(node, 0.0) + cores * interval.seconds
        if self.home is not None and (
            seconds < self._rule.least_seconds or sum(ran.values()) < QUIET_RATIO * self.cores * seconds
        ):
            return None
        return next((node for node in ran if _share(ran, node) >= self._rule.share), None)

    def _enter(self, node: NodeId) -> None:
        """Begin a stay: from now on only what ran since then counts."""
        while _share(self._latest[0].run, node) < MAJORITY:
            self._latest.popleft()
        self.home, self.since = node, self._latest[0].began_at
        self._run, self._weight, self.ran_seconds = {}, 0.0, 0.0
        for interval in self._latest:
            self._count(interval.run, interval.seconds)
        self.new_seconds = self.age_seconds

    def _leave(self) -> None:
        """End the stay, which went on until the process ran mostly at its home for the last time."""
        stay = self._was_home_at - self.since
        if self.home is not None and (self.is_bound or stay >= self._rule.least_seconds):
            self._stays.append(stay)
        self.home, self.is_bound = None, False

    def _forget_all_but(self, nodes: AbstractSet[NodeId]) -> None:
        self._nodes = nodes
        self._run = {node: cores for node, cores in self._run.items() if node in nodes}
        self._latest = deque(i for i in self._latest if all(node in nodes for node in i.run))
        if self.home is not None and self.home not in nodes:
            self.home, self.is_at_home, self.is_bound = None, False, False

    def _count(self, run: Mapping[NodeId, float], elapsed: float) -> None:
        keep = math.exp(-elapsed / self._rule.window_seconds)
        self._weight = self._weight * keep + 1.0 - keep
        self.ran_seconds += sum(run.values()) * elapsed
        for node in self._run:
            self._run[node] *= keep
        for node, cores in run.items():
            self._run[node] = self._run.get(node, 0.0) + (1.0 - keep) * cores

    def _latest_seconds(self) -> float:
        return sum([interval.seconds for interval in self._latest])


def find_binding(process: ProcessSample, topology: Topology) -> NodeId | None:
    """Return the node that has all CPUs which the process may use, None when there is none or it is not known."""
    if process.cpus_allowed is None or len(topology.node_ids) == 1:
        return None
    nodes = topology.nodes_of(process.cpus_allowed)
    return next(iter(nodes)) if len(nodes) == 1 else None


def cores_by_node(
    process: ProcessSample, run_seconds: Mapping[NodeId, float], interval_seconds: float
) -> dict[NodeId, float]:
    """Return how many cores the process kept busy on each node: threads are read in turns, its cores each time."""
    total = sum(run_seconds.values())
    if total <= 0.0:
        return {}
    cores = process.cpu_cores
    if cores is None:
        cores = total / interval_seconds if interval_seconds > 0.0 else 0.0
    return {node: cores * seconds / total for node, seconds in run_seconds.items()}


def _share(run: Mapping[NodeId, float], node: NodeId) -> float:
    total = sum(run.values())
    return run.get(node, 0.0) / total if total > 0.0 else 0.0


def _normalised(run: Mapping[NodeId, float]) -> dict[NodeId, float]:
    total = sum(run.values())
    return {node: cores / total for node, cores in run.items()} if total > 0.0 else {}
