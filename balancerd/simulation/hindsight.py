"""What moving memory alone could have cost, with the threads where they were: two bounds beside the optimum.

The optimum places threads, too, and knows the future. These do neither, or only one of both. `foresight` is the best
that any mover of memory could do that knew where threads would go: exact, by dynamic programming over each mapping.
`waiting` is the best of rules that know nothing of the future: memory follows when it has lost so many times what the
move costs, the number of times chosen for each group when all is over. For stays that end by chance at any time, no
rule without foresight does better. Both know at once where everything is, move in no time, and find room everywhere.

Must not know the engine, nor who moves memory.
"""

from dataclasses import dataclass
from typing import Final

from balancerd.engine.gate import cost_seconds
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES
from balancerd.simulation.machine import Machine
from balancerd.simulation.process import Part, SimProcess

WAITS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, float("inf"))
"""A rule's memory follows after a loss of so many times the cost of the move; the last one never does."""

LEAST_CORES: Final = 1e-12
"""What is lost in addition by lying elsewhere: less is the error of adding up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """CPU seconds lost by stalls and moves; waiting for a CPU is the scheduler's, and is not in them."""

    foresight_seconds: float
    waiting_seconds: float


@dataclass(slots=True)
class _Follower:
    """One rule at work on one piece of memory: where it has it, and what it has lost since the best node changed."""

    wait: float
    node: int
    best: int
    lost: float = 0.0
    total: float = 0.0

    def live(self, rates: list[float], cost: float, seconds: float) -> None:
        """Let time pass in which lying on each node costs so many cores."""
        best = min(range(len(rates)), key=rates.__getitem__)
        away = rates[self.node] - rates[best]
        if away <= LEAST_CORES:
            self.lost = 0.0
            self.total += rates[self.node] * seconds
            return
        if best != self.best:
            self.best, self.lost = best, 0.0
        until = float("inf") if self.wait == WAITS[-1] else max(0.0, self.wait * cost - self.lost) / away
        if until >= seconds:
            self.lost += away * seconds
            self.total += rates[self.node] * seconds
        else:
            self.total += rates[self.node] * until + cost + rates[best] * (seconds - until)
            self.node = best


@dataclass(slots=True)
class _Piece:
    """What of one mapping was born on one node. `cheapest` is the least cost of having it on each node by now."""

    cost: float
    """Of moving all of it."""
    share: float
    """Of its mapping."""
    cheapest: list[float]
    followers: tuple[_Follower, ...]

    def live(self, rates: list[float], seconds: float) -> None:
        rates = [rate * self.share for rate in rates]
        by_now = [lost + rate * seconds for lost, rate in zip(self.cheapest, rates, strict=True)]
        least = min(by_now) + self.cost
        self.cheapest = [min(lost, least) for lost in by_now]
        for follower in self.followers:
            follower.live(rates, self.cost, seconds)


@dataclass(slots=True)
class _Track:
    """A process, its pieces by mapping, and what lying on each node costs each mapping at the moment."""

    group: str
    pieces: list[list[_Piece]]
    rates: list[list[float]]
    since: float


class Hindsight:
    """Watches one machine from its beginning."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._per_second = machine.section.bandwidth_bytes_per_second
        self._tracks: dict[ProcessId, _Track] = {}
        self._foresight = 0.0
        self._waiting: dict[str, list[float]] = {}
        for process in machine.list:
            self._note(process, is_alive=True)
        machine.on_change = self._note

    def bounds(self) -> Bounds:
        """Return both, as of now; it is the end."""
        for process in tuple(self._machine.list):
            self._note(process, is_alive=False)
        return Bounds(
            foresight_seconds=self._foresight,
            waiting_seconds=sum(min(totals) for totals in self._waiting.values()),
        )

    def _note(self, process: SimProcess, *, is_alive: bool) -> None:
        """Live up to now at the rates before; from now on at others, or no more."""
        track = self._tracks.get(process.id)
        if track is None:
            track = self._tracks[process.id] = self._begin(process)
        seconds = self._machine.now - track.since
        if seconds > 0.0:
            for pieces, rates in zip(track.pieces, track.rates, strict=True):
                for piece in pieces:
                    piece.live(rates, seconds)
            track.since = self._machine.now
        if not is_alive:
            self._end(self._tracks.pop(process.id))
            return
        machine = self._machine
        track.rates = [process.stall_by_node(p, machine.scale, machine.extra) for p in process.parts]

    def _begin(self, process: SimProcess) -> _Track:
        return _Track(
            group=process.group.name,
            pieces=[self._pieces(part) for part in process.parts],
            rates=[],
            since=self._machine.now,
        )

    def _pieces(self, part: Part) -> list[_Piece]:
        n_nodes = len(self._machine.nodes)
        return [
            self._piece(node, pages, part.layout.n_pages, n_nodes, is_foreign=part.is_foreign)
            for node, pages in part.born_on.items()
        ]

    def _piece(self, node: NodeId, pages: int, all_pages: int, n_nodes: int, *, is_foreign: bool) -> _Piece:
        cost = float("inf") if is_foreign else cost_seconds(pages * PAGE_BYTES, self._per_second)
        waits = WAITS[-1:] * len(WAITS) if is_foreign else WAITS
        return _Piece(
            cost=cost,
            share=pages / all_pages,
            cheapest=[0.0 if n == node else cost for n in range(n_nodes)],
            followers=tuple(_Follower(wait=wait, node=int(node), best=int(node)) for wait in waits),
        )

    def _end(self, track: _Track) -> None:
        totals = self._waiting.setdefault(track.group, [0.0] * len(WAITS))
        for pieces in track.pieces:
            for piece in pieces:
                self._foresight += min(piece.cheapest)
                for number, follower in enumerate(piece.followers):
                    totals[number] += follower.total
