"""The other half of packing: memory that lies on several nodes gathers on the fewest nodes that can take the process.

Owns which nodes these are, whether that pays, and who gathers or has gathered. It must not know of shortages.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final

from balancerd.engine.gate import HORIZON_SECONDS, STALL_SHARE, cost_seconds, is_worth, remoteness
from balancerd.engine.packing import Option, Slack, pack
from balancerd.engine.progress import Progress
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.sample import ProcessSample
from balancerd.model.topology import Topology

LEAST_AWAY_RATIO: Final = 0.1
"""Memory of which less lies beside its largest part is together as it is."""

WIDE_FACTOR: Final = 6.0
"""Memory that was gathered on several nodes rests so many times as long: numad's 30 minutes to 5."""

PATIENCE_SECONDS: Final = 30.0
"""Where nothing has come of a gathering for so long it is over."""

MOST_SETS: Final = 64
"""On larger machines only sets of a node and its nearest neighbours are tried."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A process: what may move of it by node, how many cores it keeps busy, and on which nodes these are, by share."""

    process: ProcessSample
    held: Mapping[NodeId, int]
    cores: float
    run: Mapping[NodeId, float]

    @property
    def total_bytes(self) -> int:
        """All of its memory that may move."""
        return sum(self.held.values())


@dataclass(frozen=True, slots=True)
class Gathering:
    """Where the memory of one process gathers: what moves to each of these nodes, and what that wins and costs."""

    nodes: frozenset[NodeId]
    arriving: Mapping[NodeId, int]
    gain_cores: float
    cost_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What nodes may get, and how busy they are. `follow` tells whether threads go to where memory is."""

    topology: Topology
    slack_bytes: Mapping[NodeId, int]
    busy_cores: Mapping[NodeId, float]
    target_load: float
    follow: bool
    bytes_per_second: float

    def cores(self, node: NodeId) -> float:
        """Return how many cores of a node may be busy."""
        return self.target_load * next(len(each.cpus) for each in self.topology.nodes if each.id == node)


@dataclass(slots=True)
class _Memory:
    """Of one process: where it gathers, since when nothing more has come there, and until when it rests."""

    goal: frozenset[NodeId] | None = None
    progress_at: float = 0.0
    progress: Progress = field(default_factory=Progress)
    rests_until: float = float("-inf")


class Gatherer:
    """Gathers one process after the other, and remembers which. `name` is the policy's."""

    def __init__(self, name: str, again_after_seconds: float) -> None:
        self._name = name
        self._again_after_seconds = again_after_seconds
        self._memories: dict[ProcessId, _Memory] = {}

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}

    def decide(self, spreads: Iterable[Spread], capacity: Capacity, now: float) -> list[Verdict]:
        """Return one verdict for each process; those that gather already come first."""
        verdicts: list[Verdict] = []
        waiting: list[Spread] = []
        slack = dict(capacity.slack_bytes)
        for spread in spreads:
            memory = self._memories.setdefault(spread.process.id, _Memory())
            verdict = self._go_on(spread, memory, slack, capacity, now)
            if verdict is not None:
                verdicts.append(verdict)
            elif not is_spread(spread.held):
                verdicts.append(self._skip(spread, Reason.ROOMY, "and it lies together"))
            else:
                waiting.append(spread)
        capacity = replace(capacity, slack_bytes=slack)
        for spread, found in zip(waiting, gather(waiting, capacity), strict=True):
            verdicts.append(self._begin(spread, found, capacity, now))
        return verdicts

    def _go_on(
        self, spread: Spread, memory: _Memory, slack: dict[NodeId, int], capacity: Capacity, now: float
    ) -> Verdict | None:
        """Go on with a gathering, or rest from it; None when there is none. Takes what it needs from the slack."""
        if memory.goal is not None:
            outside = sum(size for node, size in spread.held.items() if node not in memory.goal)
            memory.progress.look(outside)
            if memory.progress.is_moving:
                memory.progress_at = now
            parts = arriving(spread.held, memory.goal, slack)
            is_over = memory.progress.is_negligible(outside, spread.total_bytes) or parts is None
            if not is_over and now - memory.progress_at < PATIENCE_SECONDS:
                for node, part in (parts or {}).items():
                    slack[node] -= part
                return self._decision(spread, memory, parts or {}, 0.0, capacity)
            factor = WIDE_FACTOR if len(memory.goal) > 1 else 1.0
            memory.rests_until = now + factor * self._again_after_seconds
            memory.goal = None
        if now < memory.rests_until:
            told = f"it was gathered; again in {memory.rests_until - now:.0f} s"
            return self._skip(spread, Reason.COOLDOWN, told)
        return None

    def _begin(self, spread: Spread, found: Gathering | None, capacity: Capacity, now: float) -> Verdict:
        if found is None:
            return self._skip(spread, Reason.GAIN_BELOW_COST, "its memory lies on several nodes, and nowhere better")
        if not is_worth(found.gain_cores, found.cost_seconds, HORIZON_SECONDS):
            told = f"gain {found.gain_cores:.3f} cores on node {format_id_list(found.nodes)}"
            return self._skip(spread, Reason.GAIN_BELOW_COST, f"{told}, cost {found.cost_seconds:.2f} s")
        memory = self._memories[spread.process.id]
        memory.goal, memory.progress_at, memory.progress = found.nodes, now, Progress()
        return self._decision(spread, memory, found.arriving, found.gain_cores, capacity)

    def _decision(
        self, spread: Spread, memory: _Memory, parts: Mapping[NodeId, int], gain: float, capacity: Capacity
    ) -> Decision:
        """Want the largest part where it belongs; the others follow at later ticks."""
        goal = memory.goal or frozenset()
        outside = {node: size for node, size in spread.held.items() if node not in goal}
        memory.progress.want(sum(outside.values()))
        target = max(parts, key=lambda node: (parts[node], -node))
        return Decision(
            policy=self._name,
            process=spread.process.id,
            target=target,
            misplaced_bytes=parts[target],
            gain_cores=gain,
            cost_seconds=cost_seconds(parts[target], capacity.bytes_per_second),
            reason=Reason.PACKING,
            detail=f"{sum(outside.values()) >> 20} MiB gather on node {format_id_list(goal)}",
            source_bytes=outside,
            sources=frozenset(outside),
            most_bytes=parts[target],
            holds=True,
        )

    def _skip(self, spread: Spread, reason: Reason, detail: str) -> Skip:
        return Skip(by=self._name, process=spread.process.id, reason=reason, detail=detail)


def is_spread(held: Mapping[NodeId, int]) -> bool:
    """Return whether memory lies on several nodes."""
    total = sum(held.values())
    return total > 0 and total - max(held.values()) >= LEAST_AWAY_RATIO * total


def gather(spreads: Iterable[Spread], capacity: Capacity) -> list[Gathering | None]:
    """Return where the memory of each gathers, all of them together within the capacity; None: it stays.

    What one leaves is not room for another: moves take time, and not each is made.
    """
    found = [_ways(spread, capacity) for spread in spreads]
    if not found:
        return []
    items = [[option for _, option in ways] for ways in found]
    cores = {node: capacity.cores(node) - busy for node, busy in capacity.busy_cores.items()}
    packing = pack(items, Slack(memory_bytes=capacity.slack_bytes, cpu_cores=cores if capacity.follow else {}))
    return [ways[number][0] for ways, number in zip(found, packing.chosen, strict=True)]


def arriving(
    held: Mapping[NodeId, int], nodes: Iterable[NodeId], slack: Mapping[NodeId, int]
) -> dict[NodeId, int] | None:
    """Return how much of what lies elsewhere goes to each of some nodes, that with most slack first; None: no room."""
    members = frozenset(nodes)
    left = sum(size for node, size in held.items() if node not in members)
    parts: dict[NodeId, int] = {}
    for node in sorted(members, key=lambda n: (-slack.get(n, 0), n)):
        part = min(left, max(0, slack.get(node, 0)))
        if part:
            parts[node] = part
            left -= part
    return None if left else parts


def _ways(spread: Spread, capacity: Capacity) -> list[tuple[Gathering | None, Option]]:
    """Return what may become of a process: nothing, or its memory on the nodes of one of the smallest sets that fit."""
    before = spread.cores * STALL_SHARE * remoteness(spread.run, _shares(spread.held), capacity.topology)
    ways: list[tuple[Gathering | None, Option]] = [(None, Option(cost=before))]
    allowed = capacity.topology.memory_nodes & (spread.process.mems_allowed or frozenset())
    able = sorted(node for node in allowed if capacity.cores(node) > 0)
    for size in range(1, len([size for size in spread.held.values() if size])):
        for nodes in _sets(able, size, capacity.topology):
            if spread.cores > sum(map(capacity.cores, nodes)):
                continue
            parts = arriving(spread.held, nodes, capacity.slack_bytes)
            if parts:
                ways.append(_way(spread, frozenset(nodes), parts, before, capacity))
        if len(ways) > 1:
            break
    return ways


def _way(
    spread: Spread, nodes: frozenset[NodeId], parts: Mapping[NodeId, int], before: float, capacity: Capacity
) -> tuple[Gathering, Option]:
    after = {node: spread.held.get(node, 0) + parts.get(node, 0) for node in sorted(nodes)}
    run = {node: 1.0 / len(nodes) for node in sorted(nodes)} if capacity.follow else spread.run
    lost = spread.cores * STALL_SHARE * remoteness(run, _shares(after), capacity.topology)
    moving = cost_seconds(sum(parts.values()), capacity.bytes_per_second)
    more = {node: spread.cores * (share - spread.run.get(node, 0.0)) for node, share in run.items()}
    cores = {node: each for node, each in more.items() if each > 0.0} if capacity.follow else {}
    option = Option(cost=lost + moving / HORIZON_SECONDS, added_bytes=parts, added_cores=cores)
    return Gathering(nodes, parts, before - lost, moving), option


def _sets(nodes: list[NodeId], size: int, topology: Topology) -> Iterable[tuple[NodeId, ...]]:
    """Return the sets of so many nodes; of very many only those of neighbours."""
    sets = tuple(combinations(nodes, size)) if len(nodes) <= 8 else ()
    if 0 < len(sets) <= MOST_SETS:
        return sets
    near = (tuple(sorted(sorted(nodes, key=lambda n: (topology.distance(a, n), n))[:size])) for a in nodes)
    return tuple(dict.fromkeys(near))


def _shares(held: Mapping[NodeId, int]) -> dict[NodeId, float]:
    total = sum(held.values())
    return {node: size / total for node, size in held.items() if size}
