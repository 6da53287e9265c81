"""The heat of a process from window to window, as samples of accesses tell it, and in pieces of its mappings."""

import pytest

from balancerd.engine.pieces import pieces
from balancerd.engine.warmth import HALF_LIFE_SECONDS, LEAST_WEIGHT, Warm, Warmth, regions_of_accesses
from balancerd.model.access import AccessRegion
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatRegion
from balancerd.model.sample import PAGE_BYTES
from tests.unit.fakes import MIB, N0, N1, N2, VMA_START, make_access_window, make_placement

BASE = -(-VMA_START // (2 * MIB)) * 2 * MIB


def region(start: int, end: int, ratio: float) -> HeatRegion:
    return HeatRegion(start=start, end=end, ratio=ratio)


def test_what_was_known_is_halved_and_handed_on_to_the_regions_of_now() -> None:
    warmth = Warmth()
    warmth.observe([region(0, 100, 0.8), region(100, 200, 0.0)], 0.0)
    assert warmth.regions == (Warm(0, 100, 0.8), Warm(100, 200, 0.0))
    warmth.observe([region(0, 50, 0.0), region(50, 150, 0.4), region(150, 250, 1.0)], HALF_LIFE_SECONDS)
    heats = [warm.heat for warm in warmth.regions]
    assert heats == pytest.approx([0.4, (0.4 + 0.4) / 2, (0.5 + 1.0) / 2])  # of the last, half is new


def test_an_old_window_says_nothing_and_the_same_only_where_memory_lies() -> None:
    warmth = Warmth()
    warmth.observe([region(0, 100, 0.8)], 10.0)
    warmth.observe([region(0, 100, 0.1)], 9.0)
    assert warmth.regions == (Warm(0, 100, 0.8),)
    warmth.observe([HeatRegion(start=0, end=100, ratio=0.1, pages_by_node={N1: 4.0})], 10.0)
    assert warmth.regions == (Warm(0, 100, 0.8, {N1: 4.0}),)


def accesses(*regions: tuple[int, float]) -> tuple[HeatRegion, ...]:
    """Regions of 2 MiB by number with their weight; one mapping of 8, one of a part of the 10th."""
    found = tuple(
        AccessRegion(start=BASE + number * 2 * MIB, weight_by_node={N0: weight / 2, N1: weight / 2})
        for number, weight in regions
    )
    mappings = [Extent(BASE + 19 * MIB, BASE + 20 * MIB), Extent(BASE, BASE + 16 * MIB)]
    return regions_of_accesses(make_access_window(regions=found), mappings, 0.5)


def test_samples_are_heat_and_memory_without_any_is_cold() -> None:
    told = [
        ((each.start - BASE) / MIB, (each.end - BASE) / MIB, each.ratio)
        for each in accesses((1, 200.0), (2, 100.0), (9, 50.0), (30, 50.0))
    ]
    assert told == [(0, 2, 0.0), (2, 4, 0.5), (4, 6, 0.25), (6, 16, 0.0), (19, 20, 0.125)]


def test_of_too_few_samples_nothing_is_said() -> None:
    assert accesses((1, LEAST_WEIGHT - 1)) == ()
    assert accesses() == ()


def test_a_piece_lies_as_its_mapping_does_unless_it_was_asked() -> None:
    placement = make_placement({1: 8, 2: 24})
    start = VMA_START
    warm = [
        Warm(start, start + 16 * MIB, 0.5),
        Warm(start + 16 * MIB, start + 48 * MIB, 0.25, {N2: 6144.0, N0: 2048.0}),
    ]
    first, second = pieces(placement, warm)
    assert first.held == {N1: 4 * MIB, N2: 12 * MIB}
    assert second.held == {N2: 12 * MIB, N0: 4 * MIB}
    assert (first.share, second.share) == pytest.approx((2 / 3, 1 / 3))
    part = first.part(Extent(start, start + 4 * MIB))
    assert part.held == {N1: MIB, N2: 3 * MIB}
    assert part.share == pytest.approx(1 / 6)
    assert second.extent.end == start + 32 * MIB, "the end of the mapping"


def test_pieces_end_at_whole_regions() -> None:
    placement = make_placement({1: 32})
    cut = VMA_START + 5 * PAGE_BYTES
    warm = [Warm(VMA_START, cut, 0.5), Warm(cut, VMA_START + 32 * MIB, 0.0)]
    (piece,) = pieces(placement, warm)
    assert (piece.extent, piece.heat) == (Extent(VMA_START, VMA_START + 32 * MIB), 0.0)
