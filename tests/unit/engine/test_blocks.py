"""Spreading by blocks: their size, whose they are, and which mappings count as uneven."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.blocks import block_bytes, extents_of_node, shortfalls, uneven
from balancerd.model.extent import joined, size_bytes
from balancerd.model.ids import NodeId
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PlacementSample, VmaPlacement
from tests.unit.fakes import GIB, MIB, N0, N1, N2, make_placement, make_vma

BOTH = (N0, N1)


def sampled(placement: PlacementSample, found: int) -> PlacementSample:
    return replace(placement, vmas=tuple(replace(each, found_pages=found) for each in placement.vmas))


@pytest.mark.parametrize(
    ("mib", "block_mib"), [(16, 2), (4096, 2), (4098, 32), (64 * 1024, 32), (64 * 1024 + 2, 512), (1 << 20, 512)]
)
def test_large_mappings_have_larger_blocks(mib: int, block_mib: int) -> None:
    vma = make_vma(mib)
    assert block_bytes(vma) == block_mib * MIB
    assert len(list(extents_of_node(vma, N0, BOTH))) <= 2048


@given(
    start_pages=st.integers(min_value=0, max_value=1 << 20),
    pages=st.integers(min_value=1, max_value=1 << 19),
    nodes=st.sets(st.integers(min_value=0, max_value=7), min_size=1, max_size=4),
)
def test_every_address_of_a_mapping_belongs_to_one_node(start_pages: int, pages: int, nodes: set[int]) -> None:
    start = 0x7F00_0000_0000 + start_pages * 4096
    vma = replace(make_vma(1), start=start, end=start + pages * 4096)
    targets = tuple(NodeId(n) for n in sorted(nodes))
    parts = [part for node in targets for part in extents_of_node(vma, node, targets)]
    assert size_bytes(parts) == vma.end - vma.start
    (whole,) = joined(parts)
    assert (whole.start, whole.end) == (vma.start, vma.end)


@pytest.mark.parametrize("mib", [256, 8 * 1024, 100 * 1024])
def test_each_node_gets_its_share_of_a_mapping(mib: int) -> None:
    vma = make_vma(mib)
    for node in (N0, N1, N2):
        part = size_bytes(extents_of_node(vma, node, (N0, N1, N2)))
        assert part == pytest.approx(mib * MIB / 3, rel=0.05)


@pytest.mark.parametrize(
    ("held", "found", "is_uneven"),
    [
        ({0: 256.0}, 0, True),
        ({0: 128.0, 1: 128.0}, 0, False),
        ({0: 140.0, 1: 116.0}, 0, False),  # 4.7 % would move
        ({0: 142.0, 1: 114.0}, 0, True),
        ({0: 142.0, 1: 114.0}, 100, False),  # of 100 pages that were found a tenth says nothing
        ({0: 142.0, 1: 114.0}, 2048, True),
        ({2: 256.0}, 2048, True),
        ({0: 14.0}, 0, False),  # too small
        ({}, 0, False),
    ],
)
def test_which_mappings_are_uneven(held: dict[int, float], found: int, is_uneven: bool) -> None:
    assert bool(uneven(sampled(make_placement(held), found), BOTH)) is is_uneven


def test_what_numa_maps_told_is_exact() -> None:
    placement = replace(sampled(make_placement({0: 142.0, 1: 114.0}), 100), method=PlacementMethod.NUMA_MAPS)
    assert uneven(placement, BOTH)


def test_shortfalls_add_up_over_mappings_and_count_what_lies_on_other_nodes() -> None:
    pages = GIB // 4096
    mappings = (
        VmaPlacement(vma=make_vma(1024), pages_by_node={N0: float(pages)}, absent_pages=0.0),
        VmaPlacement(vma=make_vma(1024, 1), pages_by_node={N2: float(pages)}, absent_pages=0.0),
    )
    assert shortfalls(mappings, BOTH) == {N0: 512 * MIB, N1: GIB}
