"""The address space of one process as cells of equal size: which node holds each, how much it is used, and from where.

For people to look at, and bounded however large the process is; nothing is decided by it. Must not know how it is
drawn. Where a cell lies is known for sure where pages were asked for, those of judged runs and of regions that belong
to nobody alone; elsewhere it is taken from the estimate for the whole mapping.
"""

import enum
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from balancerd.model.access import REGION_BYTES, AccessWindow
from balancerd.model.extent import Extent, inside, joined
from balancerd.model.heat import HeatWindow
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES, PlacementSample, VmaKind, VmaPlacement

MOST_MAPPINGS = 32

LEAST_SHARE = 0.001
"""A mapping with less of the memory and less of the accesses than this is left out."""

CLEAR_SHARE = 0.8
"""From this share on one node, memory is said to lie on it, or a region to be used from it."""

SPARSE_SHARE = 0.25
"""Of a mapping of which less than this is present only those cells are told that were seen in use."""

MOST_HOT_BYTES = 64 << 20
"""A longer region of heat does not say which cells of a sparse mapping are in use."""


class Use(enum.StrEnum):
    """From where memory is used, seen from where it lies."""

    LOCAL = "local"
    """From one node, which holds it."""
    REMOTE = "remote"
    """From one node, and it lies on another."""
    SHARED = "shared"
    """From several nodes."""
    UNKNOWN = "unknown"
    """From one node, but it is not known where it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatCell:
    """Addresses [start, end) of one mapping; all but the outermost are as long as the cells of the map.

    `heat_ratio` is how much of it is in use by a source of heat, None where none has looked.

    `bytes_by_node` is what is present, as far as it is known; `is_asked` tells that most of it was asked for by its
    pages. `weight_by_node` are the accesses seen, by the node that they came from, `weight_by_use` by what they are.
    """

    start: int
    end: int
    bytes_by_node: Mapping[NodeId, int]
    is_asked: bool
    weight_by_node: Mapping[NodeId, float]
    weight_by_use: Mapping[Use, float]
    heat_ratio: float | None = None

    @property
    def node(self) -> NodeId | None:
        """The node that holds it; None when several do, or none is known."""
        return _clear(self.bytes_by_node)

    @property
    def weight(self) -> float:
        """All accesses seen."""
        return sum(self.weight_by_node.values())

    @property
    def use(self) -> Use | None:
        """What most of the accesses are; None when none were seen."""
        return max(self.weight_by_use, key=lambda use: (self.weight_by_use[use], use), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMapping:
    """Neighbouring mappings of one kind and name, `n_vmas` of them; kind None: it came after the placement was found.

    Cells ascend. When `is_sparse`, they are only those that were seen in use.
    """

    start: int
    end: int
    kind: VmaKind | None
    shared: bool
    name: str
    n_vmas: int
    bytes_by_node: Mapping[NodeId, int]
    weight: float
    is_sparse: bool
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """The mappings that matter, ascending, and the sum of those left out."""

    cell_bytes: int
    mappings: tuple[HeatMapping, ...] = ()
    left_out_mappings: int = 0
    left_out_bytes: Mapping[NodeId, int] = field(default_factory=dict)
    left_out_weight: float = 0.0


def map_heat(
    placement: PlacementSample | None,
    window: AccessWindow | None,
    heat: HeatWindow | None = None,
    *,
    most_cells: int,
) -> HeatMap:
    """Return what is known as at most so many cells, which must be at least two for each of MOST_MAPPINGS."""
    if most_cells < 2 * MOST_MAPPINGS:
        raise ValueError(f"{most_cells} cells are too few for {MOST_MAPPINGS} mappings")
    pieces = () if window is None else tuple(_pieces(window))
    stretches = _stretches(() if placement is None else placement.vmas)
    stretches = sorted([*stretches, *_newcomers(stretches, pieces)], key=lambda stretch: stretch.start)
    asked = _Spread(() if window is None else _asked(window))
    _hand_out(stretches, pieces)
    _note_hot(stretches, heat)
    chosen = _choose(stretches)
    cell_bytes = REGION_BYTES
    while sum(len(stretch.indexes(cell_bytes)) for stretch in chosen) > most_cells:
        cell_bytes *= 2
    picked = set(chosen)
    rest = [stretch for stretch in stretches if stretch not in picked]
    return HeatMap(
        cell_bytes=cell_bytes,
        mappings=tuple(_mapping(stretch, asked, heat, cell_bytes) for stretch in chosen),
        left_out_mappings=sum(max(1, len(stretch.placed)) for stretch in rest),
        left_out_bytes=_rounded(_sum(stretch.bytes_by_node for stretch in rest)),
        left_out_weight=sum(stretch.weight for stretch in rest),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Memory [start, end), and the accesses seen there; taken to be spread evenly over it."""

    start: int
    end: int
    weight_by_node: Mapping[NodeId, float]

    def part(self, start: int, end: int, whole_bytes: int | None = None) -> "_Piece":
        """Return what of it lies in [start, end), its weight a share of `whole_bytes`, None: of all its bytes."""
        start, end = max(start, self.start), min(end, self.end)
        share = (end - start) / (whole_bytes or self.end - self.start)
        return _Piece(start, end, {node: weight * share for node, weight in self.weight_by_node.items()})


@dataclass(slots=True, eq=False)
class _Stretch:
    """Neighbouring mappings of one kind and name."""

    start: int
    end: int
    kind: VmaKind | None = None
    shared: bool = False
    name: str = ""
    placed: list[VmaPlacement] = field(default_factory=list)
    bytes_by_node: dict[NodeId, float] = field(default_factory=dict)
    pieces: list[_Piece] = field(default_factory=list)
    hot: list[Extent] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return sum(sum(piece.weight_by_node.values()) for piece in self.pieces)

    @property
    def is_sparse(self) -> bool:
        held = sum(self.bytes_by_node.values())
        return self.kind is not None and held < SPARSE_SHARE * (self.end - self.start)

    def indexes(self, cell_bytes: int) -> Sequence[int]:
        """Return which multiples of a cell's size are told."""
        if self.is_sparse:
            seen = [Extent(piece.start, piece.end) for piece in self.pieces] + self.hot
            return sorted({i for extent in seen for i in _indexes(extent.start, extent.end, cell_bytes)})
        return _indexes(self.start, self.end, cell_bytes)


class _Spread:
    """Pages by node of extents that do not overlap, taken to be spread evenly over each."""

    def __init__(self, extents: Iterable[tuple[int, int, Mapping[NodeId, float]]]) -> None:
        self._extents = sorted(extents, key=lambda extent: extent[0])
        self._starts = [start for start, _, _ in self._extents]

    def within(self, start: int, end: int) -> tuple[dict[NodeId, float], int]:
        """Return the bytes by node in [start, end), and how many bytes of it the extents cover."""
        held: dict[NodeId, float] = {}
        covered = 0
        for i in range(max(0, bisect_right(self._starts, start) - 1), len(self._extents)):
            its_start, its_end, pages_by_node = self._extents[i]
            if its_start >= end:
                break
            overlap = min(end, its_end) - max(start, its_start)
            if overlap <= 0:
                continue
            covered += overlap
            for node, pages in pages_by_node.items():
                held[node] = held.get(node, 0.0) + pages * PAGE_BYTES * overlap / (its_end - its_start)
        return held, covered


def _stretches(vmas: Iterable[VmaPlacement]) -> list[_Stretch]:
    found: list[_Stretch] = []
    for placed in sorted(vmas, key=lambda placed: placed.vma.start):
        vma, last = placed.vma, found[-1] if found else None
        if last is None or (last.end, last.kind, last.shared, last.name) != (vma.start, vma.kind, vma.shared, vma.name):
            last = _Stretch(vma.start, vma.end, vma.kind, vma.shared, vma.name)
            found.append(last)
        last.end = vma.end
        last.placed.append(placed)
        for node, pages in placed.pages_by_node.items():
            last.bytes_by_node[node] = last.bytes_by_node.get(node, 0.0) + pages * PAGE_BYTES
    return found


def _pieces(window: AccessWindow) -> Iterator[_Piece]:
    """Yield where accesses were seen: regions, and runs beyond the last region if not all regions are reported."""
    for region in window.regions:
        if any(region.weight_by_node.values()):
            yield _Piece(region.start, region.start + REGION_BYTES, region.weight_by_node)
    if not window.unreported_regions or not window.regions:
        return
    reported_to = window.regions[-1].start + REGION_BYTES
    for run in window.runs:
        if run.end > reported_to and run.node_weight > 0:
            yield _Piece(run.start, run.end, {run.node: run.node_weight}).part(reported_to, run.end)


def _asked(window: AccessWindow) -> Iterator[tuple[int, int, Mapping[NodeId, float]]]:
    """Yield where pages lie that were asked for, each once: regions without a node as a whole, and runs elsewhere."""
    regions = {region.start: region.pages_by_node for region in window.regions if region.pages_by_node is not None}
    for start, pages_by_node in regions.items():
        yield start, start + REGION_BYTES, pages_by_node
    whole = joined(Extent(start, start + REGION_BYTES) for start in regions)
    for run in window.runs:
        if run.pages_by_node is None:
            continue
        at = run.start
        for part in (*inside(whole, run.start, run.end), Extent(run.end, run.end)):
            if at < part.start:
                share = (part.start - at) / (run.end - run.start)
                yield at, part.start, {node: pages * share for node, pages in run.pages_by_node.items()}
            at = part.end


def _newcomers(stretches: Sequence[_Stretch], pieces: Iterable[_Piece]) -> Iterator[_Stretch]:
    """Yield the memory in which accesses were seen and of which the placement knows nothing."""
    for extent in joined(Extent(piece.start, piece.end) for piece in pieces if not _around(stretches, piece)):
        yield _Stretch(extent.start, extent.end)


def _around(stretches: Sequence[_Stretch], piece: _Piece) -> list[_Stretch]:
    """Return the stretches that share memory with a piece: small ones, such as libraries, only if there is no other."""
    first = bisect_right(stretches, piece.start, key=lambda stretch: stretch.end)
    found = []
    for i in range(first, len(stretches)):
        if stretches[i].start >= piece.end:
            break
        found.append(stretches[i])
    return [stretch for stretch in found if stretch.end - stretch.start >= REGION_BYTES] or found


def _hand_out(stretches: Sequence[_Stretch], pieces: Iterable[_Piece]) -> None:
    """Give each piece to the stretches that it lies in, by how much of it does."""
    for piece in pieces:
        around = _around(stretches, piece)
        whole_bytes = sum(min(piece.end, each.end) - max(piece.start, each.start) for each in around)
        for stretch in around:
            stretch.pieces.append(piece.part(stretch.start, stretch.end, whole_bytes))


def _note_hot(stretches: Sequence[_Stretch], heat: HeatWindow | None) -> None:
    """Tell sparse stretches where they are in use. Of a long region nobody knows which part of it is."""
    hot = [r for r in (() if heat is None else heat.regions) if r.ratio > 0 and r.end - r.start <= MOST_HOT_BYTES]
    for stretch in stretches if hot else ():
        if stretch.is_sparse:
            clipped = ((max(stretch.start, r.start), min(stretch.end, r.end)) for r in hot)
            stretch.hot = [Extent(start, end) for start, end in clipped if start < end]


def _choose(stretches: Sequence[_Stretch]) -> list[_Stretch]:
    """Return those with most of the memory or most of the accesses, by address."""
    held = {stretch: sum(stretch.bytes_by_node.values()) for stretch in stretches}
    weight = {stretch: stretch.weight for stretch in stretches}
    memory, accesses = sum(held.values()) or 1.0, sum(weight.values()) or 1.0
    share = {stretch: max(held[stretch] / memory, weight[stretch] / accesses) for stretch in stretches}
    ranked = sorted((s for s in stretches if share[s] >= LEAST_SHARE), key=lambda s: (-share[s], s.start))
    return sorted(ranked[:MOST_MAPPINGS], key=lambda stretch: stretch.start)


def _mapping(stretch: _Stretch, asked: _Spread, heat: HeatWindow | None, cell_bytes: int) -> HeatMapping:
    estimated = _Spread((placed.vma.start, placed.vma.end, placed.pages_by_node) for placed in stretch.placed)
    pieces: dict[int, list[_Piece]] = {}
    for piece in stretch.pieces:
        for i in _indexes(piece.start, piece.end, cell_bytes):
            pieces.setdefault(i, []).append(piece.part(i * cell_bytes, (i + 1) * cell_bytes))
    return HeatMapping(
        start=stretch.start,
        end=stretch.end,
        kind=stretch.kind,
        shared=stretch.shared,
        name=stretch.name,
        n_vmas=len(stretch.placed),
        bytes_by_node=_rounded(stretch.bytes_by_node),
        weight=stretch.weight,
        is_sparse=stretch.is_sparse,
        cells=tuple(
            _cell(
                Extent(max(stretch.start, i * cell_bytes), min(stretch.end, (i + 1) * cell_bytes)),
                pieces.get(i, ()),
                asked,
                estimated,
                heat,
            )
            for i in stretch.indexes(cell_bytes)
        ),
    )


def _cell(
    extent: Extent, pieces: Iterable[_Piece], asked: _Spread, estimated: _Spread, heat: HeatWindow | None
) -> HeatCell:
    by_use: dict[Use, float] = {}
    by_node: dict[NodeId, float] = {}
    for piece in pieces:
        for node, weight in piece.weight_by_node.items():
            by_node[node] = by_node.get(node, 0.0) + weight
        for use, weight in _uses(piece, asked, estimated):
            by_use[use] = by_use.get(use, 0.0) + weight
    held, is_asked = _held(extent.start, extent.end, asked, estimated)
    return HeatCell(
        start=extent.start,
        end=extent.end,
        bytes_by_node=_rounded(held),
        is_asked=is_asked,
        weight_by_node=dict(sorted(by_node.items())),
        weight_by_use=by_use,
        heat_ratio=None if heat is None else heat.ratio_within(extent.start, extent.end),
    )


def _uses(piece: _Piece, asked: _Spread, estimated: _Spread) -> Iterator[tuple[Use, float]]:
    """Yield the weight of a piece by what its accesses are."""
    weight, user = sum(piece.weight_by_node.values()), _clear(piece.weight_by_node)
    if user is None:
        yield Use.SHARED, weight
        return
    held, is_asked = _held(piece.start, piece.end, asked, estimated)
    total = sum(held.values())
    if not total or not (is_asked or _clear(held) is not None):
        yield Use.UNKNOWN, weight
        return
    local = held.get(user, 0.0) / total
    if local > 0:
        yield Use.LOCAL, weight * local
    if local < 1:
        yield Use.REMOTE, weight * (1 - local)


def _held(start: int, end: int, asked: _Spread, estimated: _Spread) -> tuple[dict[NodeId, float], bool]:
    """Return the bytes by node in [start, end), and whether pages in most of it were asked for."""
    held, covered = asked.within(start, end)
    rest = 1 - covered / (end - start)
    guessed, _ = estimated.within(start, end)
    return _sum([held, {node: size * rest for node, size in guessed.items()}]), 2 * covered >= end - start


def _indexes(start: int, end: int, cell_bytes: int) -> range:
    """Return the multiples of a cell's size at which the cells of [start, end) begin."""
    return range(start // cell_bytes, -(-end // cell_bytes))


def _clear(amounts: Mapping[NodeId, float] | Mapping[NodeId, int]) -> NodeId | None:
    """Return the node that has nearly all; None when there is none such."""
    total = sum(amounts.values())
    return next((node for node, amount in amounts.items() if total and amount >= CLEAR_SHARE * total), None)


def _sum(several: Iterable[Mapping[NodeId, float]]) -> dict[NodeId, float]:
    total: dict[NodeId, float] = {}
    for amounts in several:
        for node, amount in amounts.items():
            total[node] = total.get(node, 0.0) + amount
    return total


def _rounded(amounts: Mapping[NodeId, float]) -> dict[NodeId, int]:
    return {node: round(amount) for node, amount in sorted(amounts.items()) if round(amount)}
