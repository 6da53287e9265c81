"""What the policy `tiering` works with: processes that can be judged, pieces that are to go, and what was asked for.

Must not know what is to go where, and why.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from balancerd.engine.gate import STALL_SHARE
from balancerd.engine.pieces import Piece
from balancerd.engine.swings import InVain, Swings
from balancerd.model.decision import Reason
from balancerd.model.extent import Extent, joined
from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample
from balancerd.policies.warming import Warmed

WAITING_RATIO = 0.75
"""With less of it on slow nodes, a piece may be the edge of what has left and of what is used and stayed."""


@dataclass(slots=True)
class Wishes:
    """What the policy remembers of its wishes for one process."""

    swings: Swings = field(default_factory=Swings)
    up: InVain = field(default_factory=InVain)
    down: InVain = field(default_factory=InVain)


@dataclass(slots=True)
class Seen:
    """A process that can be judged, and what is to become of it.

    `held` are its bytes by node, `extra` how much longer its accesses to each take than to its own. Of what does not
    move, bytes by why: not worth it, not yet worth it, no room for it, too much used to be moved away.
    """

    warmed: Warmed
    memory: Wishes
    pieces: tuple[Piece, ...]
    held: Mapping[NodeId, int]
    extra: Mapping[NodeId, float]
    not_worth: int = 0
    waiting: int = 0
    full: int = 0
    in_use: int = 0
    moves: dict[tuple[Reason, NodeId], list["Move"]] = field(default_factory=dict)

    @property
    def process(self) -> ProcessSample:
        """The process as it was seen."""
        return self.warmed.process

    @property
    def home(self) -> NodeId:
        """Where it runs most."""
        return max(self.warmed.run, key=lambda node: (self.warmed.run[node], -node))

    def gain(self, piece: Piece, sources: Iterable[NodeId], target: NodeId) -> float:
        """Return how many cores it would save if what a piece has on `sources` were on a target."""
        faster = sum(piece.held[node] * (self.extra[node] - self.extra[target]) for node in sources)
        cores = self.process.cpu_cores or 0.0
        return faster / sum(piece.held.values()) * cores * piece.share * STALL_SHARE

    def nearest(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """Return nodes with those first whose memory is the fastest for the process."""
        return sorted(nodes, key=lambda node: (self.extra[node], node))


@dataclass(frozen=True, slots=True)
class Move:
    """A piece that is to go, or may, from nodes where `n_bytes` of it lie."""

    seen: Seen
    piece: Piece
    sources: frozenset[NodeId]
    n_bytes: int
    gain: float
    cost: float


def parts_to_ask_for(piece: Piece, in_vain: InVain) -> Iterator[Piece]:
    """Yield what of a piece was not asked for in vain."""
    for extent in in_vain.without((piece.extent,)):
        yield piece if extent == piece.extent else piece.part(extent)


def hottest_waiting(seen: Iterable[Seen], slow: frozenset[NodeId]) -> dict[NodeId, int]:
    """Return the bin of the hottest memory on slow nodes that is surely used, by the home of its process."""
    hottest: dict[NodeId, int] = {}
    for each in seen:
        found = [piece.bin for piece in each.pieces if piece.is_steady and _share(piece, slow) >= WAITING_RATIO]
        hottest[each.home] = max([hottest.get(each.home, 0), *found])
    return hottest


def _share(piece: Piece, nodes: frozenset[NodeId]) -> float:
    return sum(size for node, size in piece.held.items() if node in nodes) / sum(piece.held.values())


def extents_of(each: Seen, reason: Reason) -> tuple[Extent, ...]:
    """Return what of a process is to move for a reason."""
    return joined(move.piece.extent for (why, _), moves in each.moves.items() if why is reason for move in moves)
