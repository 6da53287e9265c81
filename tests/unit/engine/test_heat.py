"""An address space as cells: sums that hold whatever comes in, where cells lie, and what their use is."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.heat import MOST_MAPPINGS, HeatCell, HeatMap, Use, map_heat
from balancerd.model.access import REGION_BYTES, AccessRegion, AccessRun
from balancerd.model.sample import PAGE_BYTES, VmaKind, VmaPlacement
from tests.unit.heat_reports import (
    HEAP,
    PID,
    a_region,
    a_run,
    a_vma,
    a_window,
    parts_process,
    parts_window,
    placed,
    some_heats,
)
from tests.unit.reports import MIB

GIB = 1 << 30


def heat(
    *vmas: VmaPlacement,
    regions: tuple[AccessRegion, ...] = (),
    runs: tuple[AccessRun, ...] = (),
    most_cells: int = 512,
    unreported_regions: int = 0,
) -> HeatMap:
    window = a_window(regions, runs, unreported_regions=unreported_regions)
    return map_heat(placed(*vmas), window, most_cells=most_cells)


def only_cell(found: HeatMap) -> HeatCell:
    (mapping,) = found.mappings
    (cell,) = mapping.cells
    return cell


def test_the_parts_of_a_process_are_told_by_where_they_lie_and_who_uses_them() -> None:
    found = map_heat(parts_process().placement, parts_window(), most_cells=64)
    assert found.cell_bytes == 8 * MIB
    heap = found.mappings[0]
    assert [(cell.node, cell.use) for cell in heap.cells[::2]] == [
        *((0, Use.SHARED), (0, Use.LOCAL)),
        *((0, Use.LOCAL), (0, None)),
        *[(1, Use.LOCAL)] * 4,
        *[(0, Use.REMOTE)] * 8,
    ]
    assert [cell.is_asked for cell in heap.cells] == [False] * 8 + [True] * 24
    assert heap.cells[31].weight_by_node == {3: 4 * 6400}
    assert heap.cells[31].weight_by_use == {Use.REMOTE: 4 * 6400}


@pytest.mark.parametrize(
    ("weights", "on", "use"),
    [
        ({0: 9.0, 1: 1.0}, {0: 512.0}, Use.LOCAL),
        ({0: 1.0, 1: 9.0}, {0: 512.0}, Use.REMOTE),
        ({0: 7.0, 1: 3.0}, {0: 512.0}, Use.SHARED),
        ({0: 8.0, 1: 2.0}, {0: 512.0}, Use.LOCAL),
        ({0: 9.0}, {0: 300.0, 1: 212.0}, Use.UNKNOWN),
        ({0: 9.0}, {}, Use.UNKNOWN),
        ({}, {0: 512.0}, None),
    ],
)
def test_the_use_of_a_region_goes_by_who_makes_nearly_all_accesses_and_where_it_lies(
    weights: dict[int, float], on: dict[int, float], use: Use | None
) -> None:
    cell = only_cell(heat(a_vma(HEAP, 2, on, kind=VmaKind.HEAP), regions=(a_region(HEAP, weights),)))
    assert cell.use is use
    assert cell.weight == sum(weights.values())


def test_pages_that_were_asked_for_outweigh_the_estimate_for_the_whole_mapping() -> None:
    vma = a_vma(HEAP, 4, {0: 1024.0})
    regions = (a_region(HEAP, {1: 10.0}), a_region(HEAP + REGION_BYTES, {1: 10.0}))
    first, second = heat(vma, regions=regions, runs=(a_run(HEAP, 2, 1, on={1: 1.0}),)).mappings[0].cells
    assert (first.node, first.is_asked, first.use) == (1, True, Use.LOCAL)
    assert (second.node, second.is_asked, second.use) == (0, False, Use.REMOTE)


def test_of_a_region_that_lies_on_two_nodes_the_accesses_are_local_in_proportion() -> None:
    cell = only_cell(
        heat(a_vma(HEAP, 2), regions=(a_region(HEAP, {1: 8.0}),), runs=(a_run(HEAP, 2, 1, on={1: 0.75, 0: 0.25}),))
    )
    assert cell.weight_by_use == {Use.LOCAL: 6.0, Use.REMOTE: 2.0}
    assert (cell.node, cell.use) == (None, Use.LOCAL)


def test_a_region_that_belongs_to_nobody_lies_where_it_was_asked_and_not_where_the_mapping_does() -> None:
    vma = a_vma(HEAP, 6, {0: 768.0, 1: 768.0})
    everybody = {0: 5.0, 1: 5.0}
    regions = (
        a_region(HEAP, {1: 10.0}),
        a_region(HEAP + REGION_BYTES, everybody, on={3: 1.0}),
        a_region(HEAP + 2 * REGION_BYTES, everybody),
    )
    runs = (a_run(HEAP, 3, 1, on={1: 1.0}), a_run(HEAP + 3 * MIB, 0.25, 0, on={0: 1.0}))
    cells = heat(vma, regions=regions, runs=runs).mappings[0].cells
    assert [(cell.node, cell.is_asked, cell.use) for cell in cells] == [
        (1, True, Use.LOCAL),
        (3, True, Use.SHARED),
        (None, False, Use.SHARED),
    ]
    assert [sum(cell.bytes_by_node.values()) for cell in cells] == [REGION_BYTES] * 3  # no page counts twice


def test_a_run_that_nobody_located_says_nothing_about_where_it_lies() -> None:
    cell = only_cell(heat(a_vma(HEAP, 2), regions=(a_region(HEAP, {1: 8.0}),), runs=(a_run(HEAP, 2, 1),)))
    assert (cell.node, cell.is_asked, cell.use) == (0, False, Use.REMOTE)


def test_neighbours_of_one_kind_and_name_are_one_mapping_whose_cells_keep_their_own_nodes() -> None:
    found = heat(
        a_vma(HEAP, 4, {0: 1024.0}),
        a_vma(HEAP + 4 * MIB, 4, {1: 1024.0}),
        a_vma(HEAP + 8 * MIB, 4, {1: 1024.0}, name="[anon:other]"),
        a_vma(HEAP + 14 * MIB, 2, {1: 512.0}, name="[anon:other]"),
    )
    assert [(mapping.n_vmas, [cell.node for cell in mapping.cells]) for mapping in found.mappings] == [
        (2, [0, 0, 1, 1]),
        (1, [1, 1]),
        (1, [1]),
    ]
    assert found.mappings[0].bytes_by_node == {0: 4 * MIB, 1: 4 * MIB}


def test_cells_lie_at_multiples_of_their_size_and_the_outermost_are_cut() -> None:
    found = heat(a_vma(HEAP + MIB, 4, {0: 1024.0}))
    assert [(cell.start - HEAP, cell.end - HEAP) for cell in found.mappings[0].cells] == [
        (MIB, 2 * MIB),
        (2 * MIB, 4 * MIB),
        (4 * MIB, 5 * MIB),
    ]
    assert [cell.bytes_by_node for cell in found.mappings[0].cells] == [{0: MIB}, {0: 2 * MIB}, {0: MIB}]


def test_a_region_at_the_edge_belongs_to_the_large_mapping_and_not_to_a_library_beside_it() -> None:
    library = a_vma(HEAP - MIB, 1, kind=VmaKind.FILE, name="/lib/x")
    found = heat(library, a_vma(HEAP, 3), regions=(a_region(HEAP - REGION_BYTES, {0: 5.0}),))
    # nothing of that region lies in the large one: the library is the only one there
    assert [mapping.weight for mapping in found.mappings] == [5.0, 0.0]
    shifted = heat(library, a_vma(HEAP, 3.5), regions=(a_region(HEAP + 2 * MIB, {0: 5.0}),))
    assert [mapping.weight for mapping in shifted.mappings] == [0.0, 5.0]
    straddling = heat(
        a_vma(HEAP, 1, kind=VmaKind.FILE, name="/lib/x"), a_vma(HEAP + MIB, 3), regions=(a_region(HEAP, {0: 5.0}),)
    )
    assert [mapping.weight for mapping in straddling.mappings] == [0.0, 5.0]


def test_memory_that_came_after_the_placement_was_found_is_told_as_new() -> None:
    regions = (a_region(HEAP + GIB, {2: 5.0}), a_region(HEAP + GIB + REGION_BYTES, {2: 5.0}))
    known, new = heat(a_vma(HEAP, 2), regions=regions).mappings
    assert (known.kind, known.weight) == (VmaKind.ANON, 0.0)
    assert (new.kind, new.start, new.end, new.weight, new.n_vmas) == (None, HEAP + GIB, HEAP + GIB + 4 * MIB, 10.0, 0)
    assert [(cell.node, cell.use) for cell in new.cells] == [(None, Use.UNKNOWN)] * 2


def test_of_a_mapping_with_hardly_anything_in_it_only_what_is_used_becomes_cells() -> None:
    regions = (a_region(HEAP, {0: 5.0}), a_region(HEAP + (1 << 43), {0: 5.0}))
    found = heat(a_vma(HEAP, 1 << 24, {0: 2048.0}), a_vma(HEAP + (1 << 45), 8), regions=regions)
    sparse, dense = found.mappings
    assert found.cell_bytes == REGION_BYTES
    assert (sparse.is_sparse, [cell.start for cell in sparse.cells]) == (True, [HEAP, HEAP + (1 << 43)])
    assert (dense.is_sparse, len(dense.cells)) == (False, 4)


def test_runs_tell_what_lies_beyond_the_last_region_that_was_reported() -> None:
    runs = (a_run(HEAP, 1, 1, weight=9.0), a_run(HEAP + MIB, 7, 0, on={0: 1.0}, weight=35.0))
    arguments = {"regions": (a_region(HEAP, {0: 5.0}),), "runs": runs}
    cut = heat(a_vma(HEAP, 16), unreported_regions=3, **arguments).mappings[0]  # type: ignore[arg-type]
    assert [cell.weight for cell in cut.cells] == [5.0, 10.0, 10.0, 10.0, 0.0, 0.0, 0.0, 0.0]
    assert cut.weight == 35.0
    whole = heat(a_vma(HEAP, 16), **arguments).mappings[0]  # type: ignore[arg-type]
    assert whole.weight == 5.0


def test_small_mappings_are_left_out_and_told_as_a_sum() -> None:
    vmas = [a_vma(HEAP + i * GIB, 2 + i % 2, {i % 2: 512.0}) for i in range(MOST_MAPPINGS)]
    small = [a_vma(HEAP + 100 * GIB + i * MIB, 1, {1: 0.25}) for i in range(5)]
    used = a_vma(HEAP + 200 * GIB, 2, {1: 1.0})
    found = heat(*vmas, *small, used, regions=(a_region(used.vma.start, {0: 1.0}),))
    assert len(found.mappings) == MOST_MAPPINGS
    assert found.mappings[-1].start == used.vma.start
    assert (found.left_out_mappings, found.left_out_weight) == (6, 0.0)
    assert found.left_out_bytes == {1: 512 * PAGE_BYTES + round(5 * 0.25 * PAGE_BYTES)}


def test_without_placement_or_accesses_there_is_nothing_to_draw() -> None:
    assert map_heat(None, None, most_cells=64).mappings == ()
    alone = map_heat(None, parts_window(), most_cells=64)
    assert {mapping.kind for mapping in alone.mappings} == {None}
    assert sum(mapping.weight for mapping in alone.mappings) == 8 * 100 + 12 * 100 + 32 * (400 + 1600 + 6400)


def test_too_few_cells_for_the_mappings_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        map_heat(None, None, most_cells=63)


@st.composite
def address_spaces(draw: st.DrawFn) -> tuple[tuple[VmaPlacement, ...], tuple[AccessRegion, ...]]:
    at, vmas = HEAP, []
    for gap, mib, share, node in draw(
        st.lists(
            st.tuples(
                st.sampled_from((0, PAGE_BYTES, 3 * MIB, GIB, 1 << 42)),
                st.sampled_from((0.25, 1, 2, 7.5, 64, 100_000)),
                st.sampled_from((0.001, 0.5, 1.0)),
                st.integers(0, 3),
            ),
            max_size=80,
        )
    ):
        start = at + gap
        vmas.append(a_vma(start, mib, {node: mib * MIB / PAGE_BYTES * share}))
        at = vmas[-1].vma.end
    starts = draw(st.sets(st.integers(-3, (at - HEAP) // REGION_BYTES + 3), max_size=60))
    regions = tuple(a_region(HEAP + i * REGION_BYTES, {0: 1.0, i % 4: 3.0}) for i in sorted(starts))
    return tuple(vmas), regions


@given(address_spaces(), st.sampled_from((64, 100, 2048)))
def test_no_cell_is_too_many_and_no_weight_is_lost(
    space: tuple[tuple[VmaPlacement, ...], tuple[AccessRegion, ...]], most_cells: int
) -> None:
    vmas, regions = space
    found = heat(*vmas, regions=regions, most_cells=most_cells)
    cells = [cell for mapping in found.mappings for cell in mapping.cells]
    assert len(cells) <= most_cells
    assert all(before.end <= after.start for before, after in pairwise(cells))
    assert all(cell.end - cell.start <= found.cell_bytes for cell in cells)
    total = sum(sum(region.weight_by_node.values()) for region in regions)
    assert sum(cell.weight for cell in cells) + found.left_out_weight == pytest.approx(total)
    assert sum(sum(cell.weight_by_use.values()) for cell in cells) == pytest.approx(sum(cell.weight for cell in cells))
    for mapping in found.mappings:
        held = sum(sum(cell.bytes_by_node.values()) for cell in mapping.cells)
        if not mapping.is_sparse:
            assert held == pytest.approx(sum(mapping.bytes_by_node.values()), abs=len(mapping.cells))


def test_heat_is_told_of_each_cell_and_only_where_somebody_has_looked() -> None:
    window = some_heats((0, 1, 1.0), (1, 3, 0.5), (4, 5, 0.0)).windows[PID]
    found = map_heat(placed(a_vma(HEAP, 8)), None, window, most_cells=64)
    (mapping,) = found.mappings
    assert [cell.heat_ratio for cell in mapping.cells] == [0.75, 0.5, 0.0, None]
    assert [cell.use for cell in mapping.cells] == [None] * 4
    assert mapping.weight == 0


def test_of_a_sparse_mapping_the_hot_cells_are_told_where_regions_are_short() -> None:
    window = some_heats((-16, 1, 0.1), (1, 128, 0.5), (128, 130, 0.3), (130, 140, 0.0), (2047, 2080, 1.0)).windows[PID]
    found = map_heat(placed(a_vma(HEAP, 2048, {0: 100.0})), None, window, most_cells=1024)
    (mapping,) = found.mappings
    assert mapping.is_sparse
    assert [(cell.start - HEAP) // MIB for cell in mapping.cells] == [0, 128, 2046]
