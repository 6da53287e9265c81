"""Which parts of a process a step may be about: movable, off the target, without a mempolicy, not in quarantine."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from balancerd.engine.movable import movable
from balancerd.engine.quarantine import Span, cut
from balancerd.model.extent import Extent, do_meet, inside
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.migration import Range
from balancerd.model.sample import PAGE_BYTES, PlacementSample, Vma, VmaKind, VmaPlacement

NEGLIGIBLE_BYTES = 2 << 20
NEGLIGIBLE_RATIO = 0.02
"""What a sample shows beside a mapping's pages in quarantine, below this size and this share of it, is its error."""


def candidates(
    placement: PlacementSample, target: NodeId, sources: AbstractSet[NodeId] | None = None
) -> tuple[VmaPlacement, ...]:
    """Return the mappings, ascending, that may hold pages to move: sampled off the target, or too small to be sampled.

    With `sources` only pages on these are to move. Left out are mappings that are not movable at all. Mempolicies are
    not asked for.
    """
    placed = (p for p in movable(placement) if _is_candidate(p, target, sources))
    return tuple(sorted(placed, key=lambda p: p.vma.start))


def around(placement: PlacementSample, extents: Sequence[Extent]) -> tuple[VmaPlacement, ...]:
    """Return the movable mappings, ascending, that share an address with `extents`, wherever their pages lie."""
    placed = sorted(movable(placement), key=lambda p: p.vma.start)
    return tuple(p for p in placed if do_meet((Extent(p.vma.start, p.vma.end),), extents))


def within(ranges: Iterable[Range], extents: Sequence[Extent]) -> tuple[Range, ...]:
    """Return the whole pages of ascending `ranges` that lie in `extents`, which ascend and do not overlap."""
    parts = ((whole.page_bytes, part) for whole in ranges for part in inside(extents, whole.start, whole.end))
    rounded = ((-(-part.start // page) * page, part.end // page * page, page) for page, part in parts)
    return tuple(Range(start=start, end=end, page_bytes=page) for start, end, page in rounded if start < end)


def outside_quarantine(
    placed: Iterable[VmaPlacement],
    target: NodeId,
    held: tuple[Span, ...],
    sources: AbstractSet[NodeId] | None = None,
) -> tuple[VmaPlacement, ...]:
    """Return the mappings that hold more off the target, or on `sources`, than what is stuck there already."""
    return tuple(p for p in placed if not _is_all_held(p, target, held, sources))


def without_mempolicy(placed: Iterable[VmaPlacement]) -> tuple[VmaPlacement, ...]:
    """Return the mappings of which it was read that nobody chose a mempolicy for them."""
    return tuple(p for p in placed if p.vma.mempolicy is not None and not p.vma.mempolicy.explicit)


def to_ranges(
    placed: Iterable[VmaPlacement], held: tuple[Span, ...], agreed: AbstractSet[str] = frozenset()
) -> tuple[Range, ...]:
    """Return the ranges of ascending mappings whose page size is known, without what is in quarantine.

    Shared memory of which `agreed` holds the backing moves for all who map it.
    """
    return cut(
        (
            Range(
                start=p.vma.start,
                end=p.vma.end,
                page_bytes=p.vma.page_bytes,
                all_sharers=bool(p.vma.backing) and p.vma.backing in agreed,
            )
            for p in placed
            if p.vma.page_bytes is not None
        ),
        held,
    )


def evictable(placement: PlacementSample) -> tuple[VmaPlacement, ...]:
    """Return the mappings, ascending, that process_madvise(2) may empty: private, and neither hugetlb nor a program."""
    kinds = {VmaKind.ANON, VmaKind.HEAP, VmaKind.STACK, VmaKind.FILE}
    return tuple(
        p
        for p in sorted(movable(placement), key=lambda p: p.vma.start)
        if p.vma.kind in kinds and not (p.vma.shared or p.vma.program) and any(p.pages_by_node.values())
    )


def evictable_ranges(placement: PlacementSample) -> tuple[Range, ...]:
    """Return their ranges."""
    found = evictable(placement)
    return tuple(Range(start=p.vma.start, end=p.vma.end, page_bytes=p.vma.page_bytes or PAGE_BYTES) for p in found)


def explain_mempolicies(placed: Iterable[VmaPlacement]) -> str:
    """Return the mempolicies that someone chose for some mappings."""
    modes = sorted({_mempolicy_text(p.vma) for p in placed if p.vma.mempolicy is None or p.vma.mempolicy.explicit})
    return ", ".join(modes) or "no mapping that may be moved holds any of it"


def _is_away(node: NodeId, target: NodeId, sources: AbstractSet[NodeId] | None) -> bool:
    return node != target and (sources is None or node in sources)


def _is_candidate(placed: VmaPlacement, target: NodeId, sources: AbstractSet[NodeId] | None) -> bool:
    if any(pages > 0 for node, pages in placed.pages_by_node.items() if _is_away(node, target, sources)):
        return True
    return _is_unsampled(placed) and placed.vma.kind is not VmaKind.FILE


def _is_unsampled(placed: VmaPlacement) -> bool:
    return not placed.absent_pages and not any(placed.pages_by_node.values())


def _is_all_held(
    placed: VmaPlacement, target: NodeId, held: tuple[Span, ...], sources: AbstractSet[NodeId] | None
) -> bool:
    vma = placed.vma
    inside = [span for span in held if span.start < vma.end and vma.start < span.end]
    if not inside:
        return False
    if _is_unsampled(placed):
        return not cut((Range(start=vma.start, end=vma.end, page_bytes=PAGE_BYTES),), tuple(inside))
    off_bytes = PAGE_BYTES * sum(
        pages for node, pages in placed.pages_by_node.items() if _is_away(node, target, sources)
    )
    size_bytes = PAGE_BYTES * sum(placed.pages_by_node.values())
    left_bytes = off_bytes - sum(span.stuck_bytes for span in inside)
    return left_bytes <= max(NEGLIGIBLE_BYTES, NEGLIGIBLE_RATIO * size_bytes)


def _mempolicy_text(vma: Vma) -> str:
    if vma.mempolicy is None:
        return "unread"
    nodes = format_id_list(vma.mempolicy.nodes)
    return f"{vma.mempolicy.mode}:{nodes}" if nodes else vma.mempolicy.mode
