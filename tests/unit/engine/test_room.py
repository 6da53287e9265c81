"""How much a node can take, who is nearest, and what is left after each that takes some."""

from dataclasses import replace

import pytest

from balancerd.engine.room import SMALLEST_STEP_BYTES, Room, kept_bytes, nearest, room_bytes
from balancerd.model.ids import NodeId
from balancerd.model.topology import NodeMemory
from tests.unit.fakes import GIB, MIB, N0, N1, N2, N3, make_survey, make_topology

KEPT = 8 * GIB // 10 + 16 * MIB


def memory(total_gib: float, free_mib: float = 0.0, inactive_mib: float = 0.0) -> NodeMemory:
    return NodeMemory(
        node=N0,
        total_bytes=round(total_gib * GIB),
        free_bytes=round(free_mib * MIB),
        inactive_file_bytes=round(inactive_mib * MIB),
        high_watermark_bytes=16 * MIB,
    )


@pytest.mark.parametrize(
    ("total_gib", "ratio", "reserve_bytes"),
    [
        pytest.param(8, 0.0, 8 * GIB // 10, id="a tenth of a small one"),
        pytest.param(10, 0.0, GIB, id="a gibibyte"),
        pytest.param(256, 0.0, GIB, id="of a large one no more than that"),
        pytest.param(256, 0.02, int(5.12 * GIB), id="unless the watermark is higher"),
        pytest.param(8, 0.02, 8 * GIB // 10, id="which it is not here"),
        pytest.param(8, 0.5, 4 * GIB, id="here it is"),
    ],
)
def test_what_is_kept_is_the_high_watermark_and_a_reserve(total_gib: float, ratio: float, reserve_bytes: int) -> None:
    assert kept_bytes(memory(total_gib), ratio) == 16 * MIB + reserve_bytes


def test_there_is_room_for_what_is_available_beyond_that_and_never_less_than_none() -> None:
    assert room_bytes(memory(8, free_mib=2000), 0.0) == 2000 * MIB - KEPT
    assert room_bytes(memory(8, free_mib=100), 0.0) == 0
    with_cache = memory(8, free_mib=1000, inactive_mib=1000)
    assert room_bytes(with_cache, 0.0) == max(0, with_cache.available_bytes - KEPT)


@pytest.mark.parametrize(
    ("source", "cpuless", "order"),
    [
        (0, (), (N0, N1, N2, N3)),
        (2, (), (N2, N3, N0, N1)),
        (3, (), (N3, N2, N1, N0)),
        (2, (3,), (N2, N0, N1, N3)),
        (2, (2, 3), (N0, N1, N2, N3)),
        (9, (), (N0, N1, N2, N3)),
        (9, (0,), (N1, N2, N3, N0)),
    ],
)
def test_the_nearest_come_first_and_those_without_cpus_last(
    source: int, cpuless: tuple[int, ...], order: tuple[NodeId, ...]
) -> None:
    ring = make_topology()
    nodes = tuple(replace(node, cpus=frozenset()) if node.id in cpuless else node for node in ring.nodes)
    assert nearest(NodeId(source), (N3, N1, N0, N2), replace(ring, nodes=nodes)) == order


def room(*left_bytes: int) -> Room:
    """So much on each node beyond what is kept."""
    return Room(make_survey(free_bytes={n: KEPT + left for n, left in enumerate(left_bytes)}), 0.0)


def test_each_that_takes_room_leaves_less_for_the_next() -> None:
    rooms = room(100 * MIB, 50 * MIB, 0, 0)
    assert [rooms.left(node) for node in (N0, N1, N2, NodeId(9))] == [100 * MIB, 50 * MIB, 0, 0]
    assert rooms.take((N0, N1), 30 * MIB) == N0
    assert (rooms.left(N0), rooms.left(N1)) == (70 * MIB, 50 * MIB)
    assert rooms.take((N0, N1), 300 * MIB) == N0, "a part of it may go there"
    assert rooms.left(N0) == 0
    assert rooms.take((N0, N2, N1), 30 * MIB) == N1
    assert rooms.take((N0, N2, NodeId(9)), 30 * MIB) is None
    assert rooms.take((), MIB) is None


@pytest.mark.parametrize(
    ("left_bytes", "wanted_bytes", "goes"),
    [
        (SMALLEST_STEP_BYTES, 100 * MIB, True),
        (SMALLEST_STEP_BYTES - 1, 100 * MIB, False),
        (MIB, MIB, True),
        (MIB - 1, MIB, False),
        (1, 0, True),
        (0, 0, False),
    ],
)
def test_a_step_begins_where_a_huge_page_fits_or_all_of_it(left_bytes: int, wanted_bytes: int, *, goes: bool) -> None:
    assert (room(left_bytes, 0, 0, 0).take((N0,), wanted_bytes) == N0) is goes


def test_a_step_is_no_smaller_than_a_huge_page() -> None:
    assert SMALLEST_STEP_BYTES == 2 * MIB
