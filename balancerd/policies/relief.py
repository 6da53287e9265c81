"""Which processes make room on nodes that are short of memory, and where they go: those that it costs least.

Owns what that costs, and the choice of one moment. It must not know who made room before.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from balancerd.engine.gate import HORIZON_SECONDS, STALL_SHARE, cost_seconds, remoteness
from balancerd.engine.packing import GIB, LEAST_OVER, Option, Slack, pack
from balancerd.engine.room import SMALLEST_STEP_BYTES
from balancerd.engine.shortage import Level
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import ProcessSample
from balancerd.model.topology import Topology
from balancerd.policies.consolidating import Spread

IDLE_CORES: Final = 0.01
"""Who does not run counts as using so much: of several targets the nearest is the best for it, too."""

WITHOUT_CPUS: Final = 3.0
"""Memory of a node without CPUs counts as so much farther away, in distances of a local access: it comes last."""

MOST_ITEMS: Final = 256
"""So many processes, the cheapest, are weighed against each other."""

Pair = tuple[NodeId, NodeId]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who may make room: what lies on short nodes, and by pair of nodes how much would move, and what that costs."""

    process: ProcessSample
    on_short: Mapping[NodeId, int]
    pairs: Mapping[Pair, tuple[int, float]]

    @property
    def least_price(self) -> float:
        """What the cheapest way costs, for each byte."""
        return min(cost / size for size, cost in self.pairs.values())


def price(spread: Spread, pair: Pair, moved_bytes: int, topology: Topology, bytes_per_second: float) -> float:
    """Return the cores that it costs to have a part of a process elsewhere: remote accesses, and moving for a while."""
    source, target = pair
    run = spread.run or {source: 1.0}
    more = remoteness(run, {target: 1.0}, topology) - remoteness(run, {source: 1.0}, topology)
    if not next(node.cpus for node in topology.nodes if node.id == target):
        more += WITHOUT_CPUS
    lost = max(spread.cores, IDLE_CORES) * STALL_SHARE * more * moved_bytes / spread.total_bytes
    return lost + cost_seconds(moved_bytes, bytes_per_second) / HORIZON_SECONDS


def choose(
    candidates: Iterable[Candidate],
    failed: Mapping[ProcessId, Collection[Pair]],
    levels: Mapping[NodeId, Level],
) -> dict[ProcessId, Pair]:
    """Return who moves between which nodes.

    Who has failed to lately only does if the others are not enough, and then if it can to another node.
    """
    cheapest = sorted(candidates, key=lambda candidate: (candidate.least_price, candidate.process.id))[:MOST_ITEMS]
    chosen: dict[ProcessId, Pair] = {}
    for attempt in range(3):
        ways: list[tuple[Candidate, list[Pair]]] = []
        for candidate in cheapest:
            its_failed = failed.get(candidate.process.id, ())
            if its_failed and attempt == 0:
                continue
            pairs = [pair for pair in candidate.pairs if attempt == 2 or pair not in its_failed]
            if pairs:
                ways.append((candidate, pairs))
        if not ways:
            continue
        items = [[_staying(candidate), *(_moving(candidate, pair) for pair in pairs)] for candidate, pairs in ways]
        slack = {
            node: level.slack_bytes - level.needed_bytes + sum(item[0].added_bytes.get(node, 0) for item in items)
            for node, level in levels.items()
        }
        packing = pack(items, Slack(memory_bytes=slack))
        chosen = {
            candidate.process.id: pairs[number - 1]
            for (candidate, pairs), number in zip(ways, packing.chosen, strict=True)
            if number
        }
        if packing.over <= LEAST_OVER + len(levels) * SMALLEST_STEP_BYTES / GIB:
            break
    return chosen


def _staying(candidate: Candidate) -> Option:
    return Option(cost=0.0, added_bytes=dict(candidate.on_short))


def _moving(candidate: Candidate, pair: Pair) -> Option:
    source, target = pair
    size, cost = candidate.pairs[pair]
    added = {**candidate.on_short, source: candidate.on_short[source] - size, target: size}
    return Option(cost=cost, added_bytes=added)
