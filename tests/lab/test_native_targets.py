"""Moves by a map of targets, in the order of the runs they tell, and within the room there is for huge pages.

Inside the guest. Where each page is comes from numa_maps, which tells it by mapping: stripes() makes many of them.
"""

import errno
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from balancerd.native import Cursor, Migration, RangeArray, migrate
from tests.lab.native_targets import (
    HUGE,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    MAP_HUGETLB,
    MIB,
    PAGE,
    SOURCE,
    TARGET,
    Target,
    anon_huge_kib,
    assert_sums_hold,
    base_pages,
    bind_new_pages_to,
    child,
    fill,
    full,
    huge_page_pool,
    huge_pages,
    libc,
    map_aligned,
    mixed_pages,
    move,
    nodes_of,
    pin,
    share,
    total,
    vmstat,
)

MADV_DONTDUMP, MADV_DODUMP = 16, 17  # include/uapi/asm-generic/mman-common.h
BLOCK = HUGE // PAGE
SWAP = {0: 1, 1: 0}


def stripes(*parts: tuple[int, int, bool]) -> Callable[[int], int]:
    """Mappings next to each other: (bytes, node, is_huge). Every other one is not to be dumped, so they stay apart."""

    def make(length: int) -> int:
        address = at = map_aligned(length)
        for number, (part_bytes, node, is_huge) in enumerate(parts):
            libc.madvise(at, part_bytes, MADV_HUGEPAGE if is_huge else MADV_NOHUGEPAGE)
            libc.madvise(at, part_bytes, MADV_DONTDUMP if number % 2 else MADV_DODUMP)
            fill(at, part_bytes, node)
            at += part_bytes
        return address

    return make


def length_of(*parts: tuple[int, int, bool]) -> int:
    return sum(part_bytes for part_bytes, _, _ in parts)


def nodes_by_mapping(target: Target) -> list[tuple[int, dict[int, int]]]:
    """The address of each mapping in the target's range, and its pages by node."""
    rows = []
    for line in Path(f"/proc/{target.pid}/numa_maps").read_text().splitlines():
        start = int(line.split()[0], 16)
        if target.address <= start < target.end:
            rows.append((start, {int(node): int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)}))
    return sorted(rows, key=lambda row: row[0])


def moved_in(steps: list[Migration], start: int, end: int) -> dict[int, int]:
    """Pages by target, of the runs that moved, between two addresses."""
    pages: dict[int, int] = {}
    for run in (run for step in steps for run in step.runs if run.error == 0):
        inside = min(run.end, end) - max(run.start, start)
        if inside > 0:
            pages[run.target] = pages.get(run.target, 0) + inside // PAGE
    return pages


FINE = [(64 * PAGE, number % 2, False) for number in range(32)]  # four blocks, each on both nodes
COARSE = [(2 * HUGE, 0, True), (HUGE, 1, False), (HUGE, 1, True), (HUGE, 0, False), (2 * HUGE, 1, True)]
MIXED = [*COARSE, *FINE, (3 * PAGE, 1, False), (200 * PAGE, 3, False), (309 * PAGE, 0, False)]


@pytest.mark.parametrize(("batch_pages", "group_pages"), [(64, 0), (512, 64), (8192, 0), (8192, 64)])
def test_two_nodes_swap_their_pages_in_one_pass_each_to_its_place(batch_pages: int, group_pages: int) -> None:
    with child(length_of(*MIXED), stripes(*MIXED)) as target:
        before, huge = nodes_by_mapping(target), anon_huge_kib(target)
        assert [nodes for _, nodes in before] == [{node: size // PAGE} for size, node, _ in MIXED]
        splits = vmstat("thp_migration_split")
        steps = move(target, node=None, target_of=SWAP, batch_pages=batch_pages, group_pages=group_pages)
        after = nodes_by_mapping(target)
        assert [nodes for _, nodes in after] == [{SWAP.get(node, node): size // PAGE} for size, node, _ in MIXED]
        assert (anon_huge_kib(target), vmstat("thp_migration_split")) == (huge, splits)
        assert target.checksum() == target.sum_before
        assert (total(steps, "left_alone_pages"), total(steps, "already_on_target_pages")) == (200, 0)
        assert total(steps, "looked_pages") == total(steps, "moved_pages") + 200 == target.length // PAGE
        assert max(step.largest_call_pages for step in steps) <= max(batch_pages, 512)
        ends = [start for start, _ in after[1:]] + [target.end]
        for (start, nodes), end in zip(after, ends, strict=True):
            assert moved_in(steps, start, end) == ({} if 3 in nodes else nodes)
        assert all(SWAP[run.source] == run.target for step in steps for run in step.runs)


def test_a_node_mapped_to_itself_is_there_already_and_one_that_is_not_mapped_is_left_alone() -> None:
    parts = [(MIB, 0, False), (MIB, 1, False), (2 * MIB, 2, False), (MIB, 3, False)]
    with child(length_of(*parts), stripes(*parts)) as target:
        steps = move(target, node=None, target_of={0: 0, 2: 1, 3: 1})
        assert nodes_of(target) == {0: 256, 1: 1024}
        counts = [total(steps, name) for name in ("already_on_target_pages", "left_alone_pages", "moved_pages")]
        assert counts == [256, 256, 768]
        assert target.checksum() == target.sum_before


def test_a_page_that_stays_does_not_keep_back_those_with_another_target() -> None:
    halves = [(MIB, 0, False), (MIB, 1, False)]

    def pinned(length: int) -> int:
        address = stripes(*halves)(length)
        pin(address + 300 * PAGE)  # in the half that is submitted first
        return address

    with child(2 * MIB, pinned) as target:
        (step,) = move(target, node=None, target_of=SWAP)
        assert [nodes for _, nodes in nodes_by_mapping(target)] == [{1: 256}, {0: 255, 1: 1}]
        assert (step.moved_pages, step.by_errno, step.resubmissions) == (511, ((errno.EBUSY, 1),), 1)
        assert step.stuck_pages == 0
        failed = [run for run in step.runs if run.error]
        place = target.address + 300 * PAGE
        assert [(run.start, run.end, run.source, run.target, run.error) for run in failed] == [
            (place, place + PAGE, 1, 0, errno.EBUSY)
        ]
        assert target.checksum() == target.sum_before


def test_an_error_is_told_of_the_page_that_it_belongs_to_whatever_was_submitted_first() -> None:
    def with_a_shared_page(length: int) -> int:
        address = map_aligned(length)
        libc.madvise(address, length, MADV_NOHUGEPAGE)
        shared = address + 300 * PAGE
        share([shared], node=1)
        fill(address, length // 2, node=0)
        fill(address + length // 2, shared - address - length // 2, node=1)
        fill(shared + PAGE, address + length - shared - PAGE, node=1)
        return address

    with child(2 * MIB, with_a_shared_page) as target:
        assert nodes_of(target) == {0: 256, 1: 256}
        (step,) = move(target, node=None, target_of=SWAP)
        assert nodes_of(target) == {0: 255, 1: 257}
        assert (step.moved_pages, step.by_errno) == (511, ((errno.EACCES, 1),))
        place = target.address + 300 * PAGE
        failed = [run for run in step.runs if run.error]
        assert [(run.start, run.end, run.source, run.target) for run in failed] == [(place, place + PAGE, 1, 0)]
        assert target.checksum() == target.sum_before


def test_neighbours_that_fare_alike_are_one_run_and_what_does_not_fit_is_counted() -> None:
    def pinned(length: int) -> int:
        address = base_pages(length)
        pin(address + 300 * PAGE)
        return address

    with child(4 * MIB, pinned) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        step = migrate(
            target.pid,
            ranges,
            node=TARGET,
            cursor=Cursor(base_pages=True),
            batch_pages=1024,
            look_pages=1024,
            run_capacity=2,
        )
        assert_sums_hold(step)
        told = [((run.start - target.address) // PAGE, (run.end - target.address) // PAGE) for run in step.runs]
        assert told == [(0, 300), (300, 301)]
        assert [(run.source, run.target, run.error) for run in step.runs] == [
            (SOURCE, TARGET, 0),
            (SOURCE, TARGET, errno.EBUSY),
        ]
        assert {run.page_bytes for run in step.runs} == {PAGE}
        assert (step.unrecorded_pages, step.moved_pages) == (1024 - 301, 1023)


def test_a_full_target_of_several_ends_with_enomem_and_tells_which() -> None:
    parts = [(16 * MIB, 0, False), (64 * MIB, 1, False)]
    with child(length_of(*parts), stripes(*parts)) as target, full(3):
        steps = move(target, node=None, target_of={0: 2, 1: 3}, batch_pages=4096)
        assert (steps[-1].error, steps[-1].error_target) == (errno.ENOMEM, 3)
        nodes = nodes_of(target)
        assert nodes[2] == 4096
        assert total(steps, "moved_pages") == nodes[2] + nodes.get(3, 0)
        assert target.checksum() == target.sum_before


@pytest.mark.parametrize("batch_pages", [512, 8192])
@pytest.mark.parametrize("look_pages", [1, 8192])
def test_huge_pages_that_exceed_the_room_stay_whole_where_they_are(batch_pages: int, look_pages: int) -> None:
    with child(16 * MIB, huge_pages) as target:
        splits = vmstat("thp_migration_split"), vmstat("thp_split_page")
        steps = move(target, batch_pages=batch_pages, look_pages=look_pages, large_room_pages=3 * BLOCK + 100)
        assert nodes_of(target) == {SOURCE: 5 * BLOCK, TARGET: 3 * BLOCK}
        assert anon_huge_kib(target) == 16384
        assert (vmstat("thp_migration_split"), vmstat("thp_split_page")) == splits
        counts = [total(steps, name) for name in ("moved_pages", "no_room_pages", "submitted_pages", "whole_folios")]
        assert counts == [3 * BLOCK, 5 * BLOCK, 3 * BLOCK, 3]


@pytest.mark.parametrize("batch_pages", [512, 8192])
def test_base_pages_give_the_room_back_and_all_move(batch_pages: int) -> None:
    with child(16 * MIB, base_pages) as target:
        steps = move(target, batch_pages=batch_pages, large_room_pages=BLOCK)
        assert nodes_of(target) == {TARGET: 8 * BLOCK}
        assert (total(steps, "moved_pages"), total(steps, "no_room_pages")) == (8 * BLOCK, 0)
        assert target.checksum() == target.sum_before


@pytest.mark.parametrize("room_blocks", [0, 1, 3, 4])
def test_among_base_pages_no_more_huge_ones_move_than_have_room_and_none_is_split(room_blocks: int) -> None:
    with child(16 * MIB, mixed_pages) as target:  # two blocks huge, two of base pages, and so on
        splits = vmstat("thp_migration_split"), vmstat("thp_split_page")
        ranges = RangeArray([(target.address, target.end, PAGE)])
        step = migrate(
            target.pid,
            ranges,
            node=TARGET,
            cursor=Cursor(base_pages=True),
            batch_pages=8 * BLOCK,
            step_pages=100 * BLOCK,
            look_pages=100 * BLOCK,
            large_room_pages=room_blocks * BLOCK,
        )
        assert_sums_hold(step)
        assert step.is_done
        assert anon_huge_kib(target) == 8192
        assert (vmstat("thp_migration_split"), vmstat("thp_split_page")) == splits
        assert nodes_of(target).get(TARGET, 0) == step.moved_pages
        assert step.moved_pages + step.no_room_pages == 8 * BLOCK
        huge_moved = {0: 0, 1: 1, 3: 3, 4: 4}[room_blocks]
        base_moved = {0: 0, 1: 0, 3: 2, 4: 2}[room_blocks]  # behind the last room, anything may be huge
        assert step.moved_pages == (huge_moved + base_moved) * BLOCK
        assert target.checksum() == target.sum_before


def test_part_of_a_huge_page_is_not_moved_without_room_for_the_whole() -> None:
    with child(4 * MIB, huge_pages) as target:
        ranges = RangeArray([(target.address + 5 * PAGE, target.address + HUGE + 7 * PAGE, PAGE)])
        step = migrate(
            target.pid, ranges, node=TARGET, cursor=Cursor(), batch_pages=1024, look_pages=4096, large_room_pages=511
        )
        assert_sums_hold(step)
        assert (step.no_room_pages, step.calls, step.is_done) == (BLOCK + 2, 0, True)
        assert nodes_of(target) == {SOURCE: 2 * BLOCK}


def test_known_to_hold_no_huge_pages_base_pages_need_no_room() -> None:
    with child(4 * MIB, base_pages) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        arguments = {"node": TARGET, "cursor": Cursor(), "batch_pages": 1024, "look_pages": 4096, "large_room_pages": 0}
        held = migrate(target.pid, ranges, **arguments)  # type: ignore[arg-type]
        assert (held.no_room_pages, held.calls, held.is_done) == (1024, 0, True)
        free = migrate(target.pid, ranges, huge_bytes=0, **arguments)  # type: ignore[arg-type]
        assert_sums_hold(free)
        assert (free.no_room_pages, free.moved_pages) == (0, 1024)
        assert nodes_of(target) == {TARGET: 1024}


def test_a_huge_page_that_is_pinned_gives_its_room_back() -> None:
    def pinned(length: int) -> int:
        address = huge_pages(length)
        pin(address + 3 * PAGE)
        return address

    with child(6 * MIB, pinned) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        step = migrate(
            target.pid,
            ranges,
            node=TARGET,
            cursor=Cursor(),
            batch_pages=BLOCK,
            step_pages=8 * BLOCK,
            look_pages=8 * BLOCK,
            large_room_pages=2 * BLOCK,
        )
        assert_sums_hold(step)
        assert (step.moved_pages, step.by_errno, step.no_room_pages) == (2 * BLOCK, ((errno.EBUSY, BLOCK),), 0)
        assert nodes_of(target) == {SOURCE: BLOCK, TARGET: 2 * BLOCK}
        assert anon_huge_kib(target) == 6144


def test_hugetlb_pages_that_exceed_the_room_are_not_submitted() -> None:
    def hugetlb_pages(length: int) -> int:
        bind_new_pages_to(SOURCE)
        address = map_aligned(length, MAP_HUGETLB)
        fill(address, length)
        return address

    pools = [huge_page_pool(node) for node in (SOURCE, TARGET)]
    try:
        for pool in pools:
            pool.write_text("6")
            assert pool.read_text() == "6\n"
        with child(12 * MIB, hugetlb_pages) as target:
            (step,) = move(target, step_bytes=HUGE, batch_pages=4096, large_room_pages=2 * BLOCK + 1)
            assert nodes_of(target) == {SOURCE: 4, TARGET: 2}
            assert (step.moved_pages, step.no_room_pages) == (2 * BLOCK, 4 * BLOCK)
            assert [(run.end - run.start, run.page_bytes) for run in step.runs] == [(2 * HUGE, HUGE)]
            assert target.checksum() == target.sum_before
    finally:
        for pool in pools:
            pool.write_text("0")
