"""Where something new had best be placed: a set of nodes with idle CPUs and free memory, near together. Pure.

The fewest nodes that hold it, then those nearest to each other, then the tightest fit, so that large holes stay large;
equals go by number. It must not know who asks, nor where the figures come from.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from balancerd.engine.room import kept_bytes
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.machine import Machine
from balancerd.model.topology import NodeMemory, Topology

MOST_NODES_TRIED: Final = 10
"""So many have 1,023 sets, which are all tried; of more nodes, only those that grow around each node."""

WATERMARK_RATIO: Final = 0.02
"""Share of a node's memory that advice leaves free: the default of migrate.watermark."""

_FAR: Final = 255
"""The distance that SLIT gives to what cannot be reached (ACPI 6.5, 5.2.17)."""

_SLACK_CPUS: Final = 0.5
"""No CPU is ever quite idle: so much may be missing from what is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is to be placed. Either may be 0: then only the other counts."""

    cpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """What one node has to offer: idle CPUs (None: its load is not known) and memory that may be filled."""

    node: NodeId
    cpus: int
    idle_cpus: float | None
    free_bytes: int
    distances: Mapping[NodeId, int]

    @property
    def usable_cpus(self) -> float:
        """CPUs that something new may count on: all of them where nobody knows better."""
        return float(self.cpus) if self.idle_cpus is None else self.idle_cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of a demand goes to one node."""

    node: NodeId
    cpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A set of nodes, ascending, and what would go to each. `fits` is whether CPUs and memory suffice."""

    shares: tuple[Share, ...]
    fits: bool
    detail: str

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """The nodes, ascending; empty only on a machine without any that has CPUs and memory."""
        return tuple(share.node for share in self.shares)


def rooms(
    topology: Topology,
    memory: Mapping[NodeId, NodeMemory],
    machine: Machine | None,
    watermark_ratio: float = WATERMARK_RATIO,
) -> tuple[NodeRoom, ...]:
    """Return what the nodes with memory have to offer, ascending."""
    found = []
    for node in topology.nodes:
        now = memory.get(node.id)
        if now is None or node.total_bytes <= 0:
            continue
        state = None if machine is None else machine.nodes.get(node.id)
        load = None if state is None else state.load_ratio
        found.append(
            NodeRoom(
                node=node.id,
                cpus=len(node.cpus),
                idle_cpus=None if load is None else len(node.cpus) * (1.0 - load),
                free_bytes=max(0, now.available_bytes - kept_bytes(now, watermark_ratio)),
                distances=node.distances,
            )
        )
    return tuple(found)


def without(offered: Iterable[NodeRoom], taken: Iterable[Share]) -> tuple[NodeRoom, ...]:
    """Return what is left when these shares were promised to others."""
    cpus: dict[NodeId, float] = {}
    held: dict[NodeId, int] = {}
    for share in taken:
        cpus[share.node] = cpus.get(share.node, 0.0) + share.cpus
        held[share.node] = held.get(share.node, 0) + share.memory_bytes
    return tuple(
        replace(
            room,
            idle_cpus=max(0.0, room.usable_cpus - cpus[room.node]) if room.node in cpus else room.idle_cpus,
            free_bytes=max(0, room.free_bytes - held.get(room.node, 0)),
        )
        for room in offered
    )


def advise(demand: Demand, offered: Collection[NodeRoom]) -> Advice:
    """Return the best set of nodes for a demand; where nothing fits, the one that comes nearest to it.

    Nodes without CPUs count only where those with CPUs lack memory: theirs is slower.
    """
    with_cpus = tuple(room for room in offered if room.cpus)
    tries: tuple[tuple[_Test, _Merit, str], ...] = (
        (_fits, _left_over, ""),
        (_holds, _crowding, "idle CPUs do not suffice anywhere"),
    )
    for suits, merit, lack in tries:
        for candidates in (with_cpus, tuple(offered)):
            best = _best(demand, candidates, suits, merit)
            if best is not None:
                return _tell(demand, best, fits=not lack, lack=lack)
    return _tell(demand, offered, fits=False, lack="not even all nodes together suffice")


_Test: TypeAlias = Callable[[Demand, tuple[NodeRoom, ...]], bool]
_Merit: TypeAlias = Callable[[Demand, tuple[NodeRoom, ...]], float]
"""The smaller the better."""


def _best(demand: Demand, candidates: tuple[NodeRoom, ...], suits: _Test, merit: _Merit) -> tuple[NodeRoom, ...] | None:
    if not suits(demand, candidates):  # then no part of them does
        return None
    orders = _orders(candidates)
    for size in range(_fewest(demand, candidates), len(candidates) + 1):
        suiting = [chosen for chosen in _sets(candidates, orders, size) if suits(demand, chosen)]
        if suiting:
            return min(
                suiting, key=lambda chosen: (_width(chosen), merit(demand, chosen), [room.node for room in chosen])
            )
    return None


def _fewest(demand: Demand, candidates: Collection[NodeRoom]) -> int:
    """Return how many nodes it takes at least: with the most CPUs, and with the most memory."""
    needs = (
        (demand.cpus - _SLACK_CPUS, sorted((float(room.cpus) for room in candidates), reverse=True)),
        (float(demand.memory_bytes), sorted((float(room.free_bytes) for room in candidates), reverse=True)),
    )
    return max(
        next((size for size, held in enumerate(itertools.accumulate(largest), 1) if held >= wanted), len(largest))
        for wanted, largest in needs
    )


def _orders(candidates: tuple[NodeRoom, ...]) -> tuple[tuple[NodeRoom, ...], ...]:
    """Return the candidates by their distance from each of them, where not all sets are tried."""
    if len(candidates) <= MOST_NODES_TRIED:
        return ()
    return tuple(
        tuple(sorted(candidates, key=lambda room: (seed.distances.get(room.node, _FAR), room.node)))
        for seed in candidates
    )


def _sets(
    candidates: tuple[NodeRoom, ...], orders: tuple[tuple[NodeRoom, ...], ...], size: int
) -> Iterator[tuple[NodeRoom, ...]]:
    """Yield the sets of so many nodes that are tried, each in the order of its numbers."""
    if not orders:
        yield from itertools.combinations(candidates, size)
    for order in orders:
        yield tuple(sorted(order[:size], key=lambda room: room.node))


def _fits(demand: Demand, chosen: tuple[NodeRoom, ...]) -> bool:
    has_cpus = sum(room.usable_cpus for room in chosen) >= demand.cpus - _SLACK_CPUS and any(r.cpus for r in chosen)
    return has_cpus and sum(room.free_bytes for room in chosen) >= demand.memory_bytes


def _holds(demand: Demand, chosen: tuple[NodeRoom, ...]) -> bool:
    """Whether the memory fits, and there are CPUs enough, though others keep them busy."""
    has_cpus = sum(room.cpus for room in chosen) >= max(demand.cpus, 1.0)
    return has_cpus and sum(room.free_bytes for room in chosen) >= demand.memory_bytes


def _width(chosen: tuple[NodeRoom, ...]) -> int:
    """Return the sum of the distances between the nodes."""
    return sum(a.distances.get(b.node, _FAR) for a, b in itertools.permutations(chosen, 2))


def _left_over(demand: Demand, chosen: tuple[NodeRoom, ...]) -> float:
    """Return how much would stay unused: of CPUs and of memory, each as a share of what the nodes have free."""
    cpus, held = sum(room.usable_cpus for room in chosen), sum(room.free_bytes for room in chosen)
    spare_cpus = (cpus - demand.cpus) / max(1, sum(room.cpus for room in chosen))
    return spare_cpus + (held - demand.memory_bytes) / max(1, demand.memory_bytes, held)


def _crowding(_demand: Demand, chosen: tuple[NodeRoom, ...]) -> float:
    """Return how busy the CPUs are, as a share of them: where none are idle, the least busy are best."""
    return -sum(room.usable_cpus for room in chosen) / max(1, sum(room.cpus for room in chosen))


def _tell(demand: Demand, chosen: Collection[NodeRoom], *, fits: bool, lack: str) -> Advice:
    cpus, held = sum(room.usable_cpus for room in chosen), sum(room.free_bytes for room in chosen)
    shares = tuple(
        Share(
            node=room.node,
            cpus=_part(demand.cpus, room.usable_cpus, cpus, len(chosen)),
            memory_bytes=int(_part(demand.memory_bytes, room.free_bytes, held, len(chosen))),
        )
        for room in chosen
    )
    known = all(room.idle_cpus is not None for room in chosen if room.cpus)
    offer = f"{cpus:.1f} CPUs {'idle' if known else '(their load is not known)'} and {held >> 20} MiB free"
    where = f"node{'' if len(shares) == 1 else 's'} {format_id_list(share.node for share in shares)}: {offer}"
    wanted = f"for {demand.cpus:g} CPUs and {demand.memory_bytes >> 20} MiB"
    return Advice(shares=shares, fits=fits, detail=f"{where}, {wanted}" + (f"; {lack}" if lack else ""))


def _part(whole: float, own: float, total: float, count: int) -> float:
    """Return the part of one node in proportion to what it has of the total; equal parts of nothing."""
    return whole * own / total if total > 0 else whole / count
