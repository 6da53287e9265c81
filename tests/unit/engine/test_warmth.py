"""The heat of a process from window to window, as samples of accesses tell it, and in pieces of its mappings."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from balancerd.engine.pieces import pieces
from balancerd.engine.warmth import (
    HALF_LIFE_SECONDS,
    LEAST_WEIGHT,
    MOST_REGIONS,
    MOST_TIMES,
    STEADY_TIMES,
    Warm,
    Warmth,
    regions_of_accesses,
    regions_of_heat,
)
from balancerd.model.access import AccessRegion
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatRegion
from balancerd.model.sample import PAGE_BYTES
from tests.unit.fakes import MIB, N0, N1, N2, VMA_START, make_access_window, make_placement

BASE = -(-VMA_START // (2 * MIB)) * 2 * MIB


def region(start: int, end: int, ratio: float) -> HeatRegion:
    return HeatRegion(start=start, end=end, ratio=ratio)


def cut_out(whole: HeatRegion, hole: tuple[int, int]) -> Iterator[HeatRegion]:
    """A region without a hole."""
    for start, end in ((whole.start, min(whole.end, hole[0])), (max(whole.start, hole[1]), whole.end)):
        if start < end:
            yield region(start, end, whole.ratio)


def test_what_was_known_is_halved_and_stays_where_it_was_known() -> None:
    warmth = Warmth()
    warmth.observe([region(0, 100, 0.8), region(100, 200, 0.0)], 0.0)
    assert warmth.regions == (Warm(0, 100, 0.8, times=1), Warm(100, 200, 0.0))
    warmth.observe([region(0, 50, 0.0), region(50, 150, 0.4), region(150, 250, 1.0)], HALF_LIFE_SECONDS)
    # of the last, half was known as cold; what differs by less than a bin is one
    assert [(warm.start, warm.end) for warm in warmth.regions] == [(0, 50), (50, 100), (100, 150), (150, 250)]
    assert [warm.heat for warm in warmth.regions] == pytest.approx([0.4, 0.6, 0.2, 0.75])


def test_an_edge_of_hot_memory_that_drifts_does_not_warm_what_is_cold_beside_it() -> None:
    """A large region of which a page is hot now and then would else be a little warm, and that is a lot of memory."""
    warmth, edge = Warmth(), BASE + 16 * MIB
    for turn in range(10):
        drift = (turn % 3 - 1) * 200 * PAGE_BYTES
        told = [region(BASE, edge + drift, 0.6), region(edge + drift, BASE + 512 * MIB, 0.0)]
        warmth.observe(regions_of_heat(told), 5.0 * turn)
    assert [(warm.start, warm.end) for warm in warmth.regions] == [(BASE, edge), (edge, BASE + 512 * MIB)]
    assert [warm.heat for warm in warmth.regions] == [pytest.approx(0.6), 0.0]
    nearly = MIB - PAGE_BYTES
    assert regions_of_heat([region(edge - nearly, edge + nearly, 0.6)]) == (), "it has no edge apart from the other"


def test_what_is_in_use_in_each_window_is_surely_used_and_what_is_now_and_then_is_not() -> None:
    warmth = Warmth()
    for turn, ratio in enumerate((0.0, 0.05, 0.05, 0.0, 0.05, 0.0)):
        warmth.observe([region(0, 100, 0.4), region(100, 200, ratio)], 5.0 * turn)
    assert [warm.times for warm in warmth.regions] == [MOST_TIMES, 1]
    warmth.observe([region(0, 300, 0.05)], 30.0)
    assert [(warm.start, warm.times) for warm in warmth.regions] == [(0, MOST_TIMES), (100, 2), (200, 1)]
    for turn in range(MOST_TIMES - STEADY_TIMES + 1):
        assert warmth.regions[0].times >= STEADY_TIMES
        warmth.observe([region(0, 300, 0.0)], 35.0 + 5.0 * turn)
    assert warmth.regions[0].times < STEADY_TIMES
    warmth = Warmth()
    warmth.observe([region(0, 100, 0.4)], 0.0)
    warmth.observe([region(0, 200, 0.4)], 5.0)
    assert [(warm.start, warm.times) for warm in warmth.regions] == [(0, 2), (100, 1)], "as hot, not for as long"
    warmth = Warmth()
    warmth.observe([region(0, 100, 0.4)], 0.0, counts=STEADY_TIMES)
    assert warmth.regions[0].times == STEADY_TIMES


def test_a_region_with_pages_that_is_parted_keeps_as_many_of_them() -> None:
    warmth = Warmth()
    warmth.observe([region(800, 900, 1.0), region(900, 1200, 0.0)], 0.0)
    warmth.observe([HeatRegion(start=800, end=1200, ratio=0.0, pages_by_node={N1: 40.0})], HALF_LIFE_SECONDS)
    assert [warm.pages_by_node for warm in warmth.regions] == [{N1: 10.0}, {N1: 30.0}]
    warmth.observe([HeatRegion(start=800, end=1200, ratio=0.0, pages_by_node={N2: 20.0})], HALF_LIFE_SECONDS)
    assert [warm.pages_by_node for warm in warmth.regions] == [{N2: 5.0}, {N2: 15.0}], "they have moved since"


def test_there_are_never_too_many_regions_and_what_differs_most_stays_apart() -> None:
    """Each window has its edges elsewhere."""
    warmth, size = Warmth(), 64 * 1024 * MIB
    hot = (BASE + 4096 * MIB, BASE + 4098 * MIB)
    dice = random.Random(7)  # noqa: S311
    for turn in range(20):
        edges = sorted({0, size, *(dice.randrange(0, size, 2 * MIB) for _ in range(400))})
        told = [region(BASE + a, BASE + b, dice.random() / 1000) for a, b in pairwise(edges)]
        cut = [part for each in told for part in cut_out(each, hot)]
        warmth.observe(sorted([*cut, region(*hot, 1.0)], key=lambda each: each.start), 5.0 * turn)
        assert len(warmth.regions) <= MOST_REGIONS
        assert all(first.end == second.start for first, second in pairwise(warmth.regions))
    assert [(warm.start, warm.end) for warm in warmth.regions if warm.heat > 0.5] == [hot]


def many(sizes: Iterable[int], ratios: Iterable[float]) -> Iterator[HeatRegion]:
    """Regions one after the other, each with 10 pages."""
    start = BASE
    for size, ratio in zip(sizes, ratios, strict=False):
        yield HeatRegion(start=start, end=start + size, ratio=ratio, pages_by_node={N1: 10.0})
        start += size


def test_of_too_many_regions_neighbours_that_are_alike_become_one_and_small_ones_first() -> None:
    """Alternately hot and cold, but for two pairs that are nearly alike; of these the smaller is joined first."""
    sizes = [PAGE_BYTES] * (MOST_REGIONS + 1)
    sizes[100:102], sizes[200:202] = [3 * PAGE_BYTES, PAGE_BYTES], [PAGE_BYTES] * 2
    ratios = [1.0 if number % 2 else 0.0 for number in range(len(sizes))]
    for number in (100, 200):
        ratios[number : number + 2] = [0.125, 0.0625]
    warmth = Warmth()
    warmth.observe(many(sizes, ratios), 0.0)
    assert len(warmth.regions) == MOST_REGIONS
    assert [warm.heat for warm in warmth.regions[98:103]] == [0.0, 1.0, 0.125, 0.0625, 0.0]
    assert [warm.heat for warm in warmth.regions[198:203]] == [0.0, 1.0, 0.09375, 0.0, 1.0]
    joined = warmth.regions[200]
    assert (joined.end - joined.start, joined.pages_by_node) == (2 * PAGE_BYTES, {N1: 20.0})
    assert all(first.end == second.start for first, second in pairwise(warmth.regions))


def test_neighbours_stay_apart_where_something_lies_between_or_only_one_was_asked_for_its_pages() -> None:
    told = [replace(each, end=each.end - 1) for each in many([PAGE_BYTES] * 1200, [0.5] * 1200)]
    warmth = Warmth()
    warmth.observe(told, 0.0)
    assert len(warmth.regions) == 1200, "nothing that touches"
    told = [
        replace(each, pages_by_node=each.pages_by_node if number % 2 else None)
        for number, each in enumerate(many([PAGE_BYTES] * 1200, [0.5] * 1200))
    ]
    warmth = Warmth()
    warmth.observe(told, 0.0)
    assert len(warmth.regions) == 1200, "none alike in what is known"


def test_an_old_window_says_nothing_and_the_same_only_where_memory_lies() -> None:
    warmth = Warmth()
    warmth.observe([region(0, 100, 0.8)], 10.0)
    warmth.observe([region(0, 100, 0.1)], 9.0)
    assert warmth.regions == (Warm(0, 100, 0.8, times=1),)
    warmth.observe([HeatRegion(start=0, end=100, ratio=0.1, pages_by_node={N1: 4.0})], 10.0)
    assert warmth.regions == (Warm(0, 100, 0.8, {N1: 4.0}, times=1),)


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
