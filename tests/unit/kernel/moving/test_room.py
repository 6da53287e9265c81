"""Huge pages move only as far as the target has room for them, and base pages go on moving beside them."""

from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.moving.legs import Leg, Way, make_legs
from balancerd.kernel.moving.room import Room, parse_huge_mappings
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.migration import Range
from balancerd.model.page_status import PageStatus
from balancerd.native.records import Cursor, Migration
from tests.unit.kernel.trees import write_tree
from tests.unit.kernel.worlds import CAPTURED, HUGE, OWN, PAGE, START, World, anon, make_step, make_world

N = [NodeId(n) for n in range(6)]
GIB = 1 << 30
SMAPS = """{:x}-{:x} rw-p 00000000 00:00 0 {}
Size:               8192 kB
Rss:                8192 kB
AnonHugePages:      {} kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
VmFlags: rd wr mr mw me ac sd hg
"""


def buddyinfo(order_9: int, order_10: int = 0, *, node: int = 3) -> str:
    return (
        f"Node {node}, zone      DMA{' 9' * 11}\n"
        f"Node {node}, zone   Normal{' 50' * 9} {order_9} {order_10} \n"
        f"Node {node}, zone   Device{' 9' * 11}\n"
    )


def smaps(*mappings: tuple[int, int, int]) -> str:
    """Compose smaps of mappings (first page, end, kB of huge pages)."""
    return "".join(SMAPS.format(START + a * PAGE, START + b * PAGE, "", kib) for a, b, kib in mappings)


def make_huge(world: World, *blocks: int) -> None:
    world.core.huge |= {START + block * HUGE for block in blocks}


def pages(first: int, end: int, page_bytes: int = PAGE) -> Range:
    return Range(start=START + first * PAGE, end=START + end * PAGE, page_bytes=page_bytes)


def test_the_room_of_a_machine_is_what_its_least_target_has_free_in_blocks_large_enough() -> None:
    room = Room(str(CAPTURED))
    room._huge_bytes = HUGE
    assert room.huge_pages([N[3]]) == (1 + 2 * 240 - 8) * 512
    assert room.huge_pages([N[3], N[1]]) == (1 + 2 * 218 - 8) * 512
    assert room.huge_pages([N[5]]) == 0


@pytest.mark.parametrize(("blocks", "pages_"), [((0, 0), 0), ((8, 0), 0), ((9, 0), 512), ((4, 5), 6 * 512)])
def test_some_blocks_of_the_zones_of_programs_are_kept(tmp_path: Path, blocks: tuple[int, int], pages_: int) -> None:
    write_tree(
        tmp_path, {"buddyinfo": buddyinfo(*blocks), "kernel/mm/transparent_hugepage/hpage_pmd_size": "2097152\n"}
    )
    assert Room(str(tmp_path), str(tmp_path)).huge_pages([N[3]]) == pages_


def test_a_kernel_without_transparent_huge_pages_has_none(tmp_path: Path) -> None:
    assert Room(str(tmp_path), str(tmp_path)).huge_bytes == 0


def test_pools_are_read_by_node_and_size(tmp_path: Path) -> None:
    pool = "devices/system/node/node{}/hugepages/hugepages-{}kB/free_hugepages"
    write_tree(tmp_path, {pool.format(0, 2048): "7\n", pool.format(1, 2048): "3\n", pool.format(1, 1048576): "1\n"})
    room = Room(sysfs=str(tmp_path))
    assert room.hugetlb_pages([N[0]], HUGE) == 7 * 512
    assert room.hugetlb_pages([N[0], N[1]], HUGE) == 3 * 512
    assert room.hugetlb_pages([N[1]], GIB) == 1 << 18
    assert room.hugetlb_pages([N[0]], GIB) == 0
    assert room.is_there_for(N[1], 3 * HUGE, HUGE)
    assert not room.is_there_for(N[1], 4 * HUGE, HUGE)


def test_room_for_base_pages_is_what_lies_above_the_watermark(tmp_path: Path) -> None:
    meminfo = "Node 1 MemTotal: 1000 kB\nNode 1 MemFree: 100 kB\nNode 1 Inactive(file): 20 kB\n"
    write_tree(
        tmp_path,
        {"zoneinfo": "Node 1, zone   Normal\n        high     10\n", "devices/system/node/node1/meminfo": meminfo},
    )
    room = Room(str(tmp_path), str(tmp_path))
    assert room.is_there_for(N[1], 80 << 10, PAGE)
    assert not room.is_there_for(N[1], 81 << 10, PAGE)
    assert not room.is_there_for(N[2], 1, PAGE)


def test_mappings_with_huge_pages_are_read_as_the_kernel_writes_them() -> None:
    text = (CAPTURED / "exhibit/smaps-of-another").read_bytes()
    assert parse_huge_mappings(text, "s") == ((0x7F73E5200000, 0x7F73E5A00000),)


@pytest.mark.parametrize("text", [b"a-b rw-p\nAnonHugePages: x kB\n", b"x rw-p\nFilePmdMapped: 4 kB\n"])
def test_another_text_tells_no_huge_mappings(text: bytes) -> None:
    with pytest.raises(ParseError, match="s:2: not a mapping"):
        parse_huge_mappings(text, "s")


def test_legs_are_neighbours_of_one_sort() -> None:
    ranges = [pages(0, 10), pages(20, 30), pages(1024, 2048, HUGE), pages(3000, 3010)]
    assert make_legs(ranges, HUGE) == (
        Leg((pages(0, 10), pages(20, 30)), PAGE, HUGE),
        Leg((pages(1024, 2048, HUGE),), HUGE, 0),
        Leg((pages(3000, 3010),), PAGE, HUGE),
    )
    assert [leg.huge_bytes for leg in make_legs(ranges, 0)] == [0, 0, 0]
    shared = replace(pages(20, 30), all_sharers=True)
    assert make_legs([pages(0, 10), shared, pages(40, 50)], 0) == (
        Leg((pages(0, 10),), PAGE, 0),
        Leg((shared,), PAGE, 0, all_sharers=True),
        Leg((pages(40, 50),), PAGE, 0),
    )
    huge = [(START + 5 * PAGE, START + 25 * PAGE), (START + 28 * PAGE, START + 29 * PAGE)]
    assert [(leg.ranges, leg.huge_bytes) for leg in make_legs(ranges[:2], HUGE, huge)] == [
        ((pages(0, 5),), 0),
        ((pages(5, 10), pages(20, 25)), HUGE),
        ((pages(25, 28),), 0),
        ((pages(28, 29),), HUGE),
        ((pages(29, 30),), 0),
    ]


def test_a_way_knows_where_it_is_and_what_lies_ahead() -> None:
    way = Way([pages(0, 10), pages(1024, 2048, HUGE), pages(3000, 3010)], START + 4 * PAGE, HUGE)
    assert (way.resume_at, way.left_pages) == (START + 4 * PAGE, 6 + 1024 + 10)
    way.went(Cursor(address=START + 7 * PAGE), is_done=False)
    assert (way.resume_at, way.left_pages) == (START + 7 * PAGE, 3 + 1024 + 10)
    way.tell_apart([(START + 8 * PAGE, START + 3005 * PAGE)])
    assert (way.leg.ranges, way.leg.huge_bytes, way.cursor) == ((pages(7, 8),), 0, Cursor())
    way.went(Cursor(range_index=1), is_done=True)
    assert (way.leg.ranges, way.leg.huge_bytes) == ((pages(8, 10),), HUGE)
    way.went(Cursor(range_index=1), is_done=False)  # an error behind the last page of a leg
    assert way.resume_at == START + 1024 * PAGE
    for _ in range(4):
        assert not way.is_done
        way.went(Cursor(range_index=1), is_done=True)
    assert way.is_done
    assert way.left_pages == 0


def test_huge_pages_move_with_the_room_that_there_is_at_each_call(tmp_path: Path) -> None:
    world = make_world(tmp_path, 8 * 512)
    make_huge(world, *range(8))
    outcome = world.move(make_step(8 * 512))
    assert outcome.pages == {PageStatus.MOVED: 8 * 512}
    assert {call["huge_bytes"] for call in world.core.calls} == {HUGE}
    assert {call["large_room_pages"] for call in world.core.calls} == {(3 * 100000 - 8) * 512}
    assert not (tmp_path / f"proc/{OWN.pid}/smaps").exists()  # so nobody can have read it


def test_where_room_is_short_huge_pages_are_held_back_and_base_pages_go_on(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.maps(anon(START, 1024), anon(START + 1024 * PAGE, 2048), anon(START + 3072 * PAGE, 512))
    world.fill(3584)
    make_huge(world, 2, 3, 4, 5)
    world.write({"proc/buddyinfo": buddyinfo(8 + 1), f"proc/{OWN.pid}/smaps": smaps((0, 1024, 0), (1024, 3072, 8192))})
    world.core.before_call = lambda: world.write(
        {"proc/buddyinfo": buddyinfo(8)} if any(world.core.nodes[START + b * HUGE] == 3 for b in (2, 3, 4, 5)) else {}
    )
    outcome = world.move(make_step(3584))
    assert outcome.pages == {PageStatus.MOVED: 1024 + 512 + 512}
    assert outcome.passed_over == {PageStatus.NO_HUGE_PAGE: 3 * 512}
    assert outcome.resume_at is None
    assert {(call["huge_bytes"], call["large_room_pages"]) for call in world.core.calls} >= {(0, None), (HUGE, 512)}
    assert {rows[0] for rows in world.core.ranges} == {
        (START, START + 1024 * PAGE, PAGE),
        (START + 1024 * PAGE, START + 3072 * PAGE, PAGE),
        (START + 3072 * PAGE, START + 3584 * PAGE, PAGE),
    }


def test_room_that_suffices_for_the_budget_needs_no_smaps(tmp_path: Path) -> None:
    world = make_world(tmp_path, 4096)
    world.write({"proc/buddyinfo": buddyinfo(8 + 2)})
    outcome = world.move(make_step(4096, budget_pages=1024))
    assert outcome.moved_pages == 1024
    assert outcome.stopped_by is None


@pytest.mark.parametrize(
    ("kib", "moved", "read"), [((0, 0, 0), 4096, False), ((2048, 0, 0), 0, True), ((0, 0, 2048), 0, True)]
)
def test_where_no_node_holds_a_huge_page_no_smaps_is_read(
    tmp_path: Path, kib: tuple[int, int, int], moved: int, read: bool
) -> None:
    world = make_world(tmp_path, 4096)
    if read:
        make_huge(world, *range(8))
    held = "".join(
        f"Node 2 {name}: {n} kB\n"
        for name, n in zip(("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"), kib, strict=True)
    )
    meminfo = "sys/devices/system/node/node{}/meminfo"
    world.write({"proc/buddyinfo": buddyinfo(8), meminfo.format(2): "Node 2 MemTotal: 8192 kB\n" + held})
    world.write({meminfo.format(3): "Node 3 MemTotal: 8192 kB\n", f"proc/{OWN.pid}/smaps": smaps((0, 4096, 8192))})
    outcome = world.move(make_step(4096))
    assert outcome.moved_pages == moved
    assert outcome.passed_over == ({PageStatus.NO_HUGE_PAGE: 4096} if read else {})


def test_a_process_that_is_gone_when_its_smaps_is_read_has_exited(tmp_path: Path) -> None:
    world = make_world(tmp_path, 4096)
    world.write({"proc/buddyinfo": buddyinfo(0)})
    outcome = world.move(make_step(4096))
    assert (outcome.stopped_by, outcome.submitted_pages, outcome.resume_at) == (Reason.EXITED, 0, START)


def test_hugetlb_pages_move_as_far_as_the_pool_of_the_target_goes(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    at = START + GIB
    world.maps(anon(START, 100), f"{at:x}-{at + 5 * HUGE:x} rw-s 00000000 00:0f 99 /dev/hugepages/a\n")
    world.fill(100)
    world.fill(5, start=at, page_bytes=HUGE)
    pool = "sys/devices/system/node/node3/hugepages/hugepages-2048kB/free_hugepages"

    def shrink(done: Migration) -> Migration:
        world.write({pool: f"{2 - sum(world.core.nodes[at + i * HUGE] == 3 for i in range(5))}\n"})
        return done

    world.write({pool: "2\n"})
    world.core.change = shrink
    ranges = [pages(0, 100), Range(start=at, end=at + 5 * HUGE, page_bytes=HUGE)]
    outcome = world.move(make_step(0, ranges=ranges))
    assert outcome.pages == {PageStatus.MOVED: 100 + 2 * 512}
    assert outcome.passed_over == {PageStatus.NO_HUGE_PAGE: 3 * 512}
    assert [(call["huge_bytes"], call["large_room_pages"]) for call in world.core.calls][:2] == [
        (HUGE, (3 * 100000 - 8) * 512),
        (0, 1024),
    ]
    assert outcome.verified is not None
    assert outcome.verified.on_target_pages == outcome.verified.asked_pages > 0
