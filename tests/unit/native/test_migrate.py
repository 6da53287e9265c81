"""The step of a migration as far as one node can show it; the pages that do move are in tests/lab."""

import errno
import os
from itertools import pairwise
from typing import Any

import pytest

from balancerd.native import Cursor, Migration, RangeArray, migrate
from tests.unit.native.memory import (
    PAGE,
    address_of,
    child,
    kernel_thread,
    map_pages,
    needs_root,
    own_node,
    touch,
    without_privileges,
)

NODE = own_node()
NO_SUCH_NODE = 999
MIB = 1 << 20


def assert_sums_hold(step: Migration) -> None:
    errors = sum(pages for _, pages in step.by_errno)
    before = step.already_on_target_pages + step.left_alone_pages + step.absent_pages + step.other_before_pages
    assert step.looked_pages == before + step.no_room_pages + step.submitted_pages
    assert step.submitted_pages == step.moved_pages + errors + step.not_attempted_pages + step.unwritten_pages
    assert step.moved_pages == sum(pages for _, pages in step.from_node)
    assert step.other_before_pages == sum(pages for _, pages in step.before_errno)
    recorded = sum(run.end - run.start for run in step.runs) // PAGE
    assert recorded + step.unrecorded_pages == step.moved_pages + errors + step.unwritten_pages
    assert len(step.call_seconds) == step.calls


def one_step(pid: int, ranges: RangeArray, *, node: int = NODE, cursor: Cursor | None = None) -> Migration:
    step = migrate(pid, ranges, node=node, cursor=cursor or Cursor(), batch_pages=512, look_pages=4096)
    assert_sums_hold(step)
    return step


def all_steps(pid: int, ranges: RangeArray, *, look_pages: int) -> list[Migration]:
    steps = [migrate(pid, ranges, node=NODE, cursor=Cursor(), batch_pages=512, look_pages=look_pages)]
    while not steps[-1].is_done:
        cursor = steps[-1].cursor
        steps.append(migrate(pid, ranges, node=NODE, cursor=cursor, batch_pages=512, look_pages=look_pages))
        assert steps[-1].cursor != cursor
    return steps


def test_pages_on_the_target_already_are_counted_and_not_submitted() -> None:
    area = map_pages(1000)
    touch(area, 0, 700)
    assert area[700 * PAGE] == 0  # maps the zero page
    start = address_of(area)
    step = one_step(os.getpid(), RangeArray([(start, start + 1000 * PAGE, PAGE)]))
    assert step.is_done
    assert (step.looked_pages, step.already_on_target_pages) == (1000, 700)
    assert (step.absent_pages, step.other_before_pages, step.submitted_pages) == (299, 1, 0)
    assert step.before_errno == ((errno.EFAULT, 1),)
    assert (step.calls, step.moving_seconds, step.largest_call_pages) == (0, 0.0, 0)
    assert step.query_calls > 0
    assert step.cursor.range_index == 1


@pytest.mark.parametrize("look_pages", [1, 512, 700, 100000])
def test_steps_look_at_every_page_of_every_range_once(look_pages: int) -> None:
    area = map_pages(3000)
    touch(area, 0, 3000)
    start = address_of(area)
    cuts = [0, 1, 1, 700, 701, 2500, 3000]
    pieces = [(start + a * PAGE, start + b * PAGE, PAGE) for a, b in pairwise(cuts)]
    steps = all_steps(os.getpid(), RangeArray(pieces), look_pages=look_pages)
    assert sum(step.looked_pages for step in steps) == 3000
    assert sum(step.already_on_target_pages for step in steps) == 3000
    assert all(step.looked_pages < look_pages + 512 for step in steps)
    assert (len(steps) == 1) == (look_pages == 100000)


def test_a_step_ends_at_the_end_of_a_block_and_the_next_begins_there() -> None:
    area = map_pages(2048)
    start = (address_of(area) + 2 * MIB - 1) & -(2 * MIB)
    ranges = RangeArray([(start + 5 * PAGE, start + 4 * MIB, PAGE)])
    first = migrate(os.getpid(), ranges, node=NODE, cursor=Cursor(), batch_pages=512, look_pages=1)
    assert (first.looked_pages, first.cursor.address, first.is_done) == (507, start + 2 * MIB, False)
    second = one_step(os.getpid(), ranges, cursor=first.cursor)
    assert (second.looked_pages, second.is_done) == (512, True)


def test_no_ranges_are_done_at_once() -> None:
    step = one_step(os.getpid(), RangeArray([]))
    assert (step.is_done, step.looked_pages, step.query_calls) == (True, 0, 0)


def test_a_node_that_does_not_exist_ends_with_enodev_and_nothing_attempted() -> None:
    with child(pages=1500, touched=1400) as other:
        ranges = RangeArray([(other.start, other.end, PAGE)])
        step = one_step(other.process.pid, ranges, node=NO_SUCH_NODE)
    assert (step.error, step.is_done, step.moved_pages, step.calls) == (errno.ENODEV, False, 0, 1)
    assert (step.error_target, step.runs) == (NO_SUCH_NODE, ())
    assert step.not_attempted_pages == step.submitted_pages > 0
    assert step.cursor == Cursor(range_index=0, address=other.start)


def test_a_process_that_is_gone_ends_with_esrch_at_the_same_place() -> None:
    with child(pages=600, touched=600) as other:
        pid, ranges = other.process.pid, RangeArray([(other.start, other.end, PAGE)])
    cursor = Cursor(range_index=0, address=other.start + 3 * PAGE)
    step = one_step(pid, ranges, cursor=cursor)
    assert (step.error, step.is_done, step.looked_pages, step.cursor) == (errno.ESRCH, False, 0, cursor)


def test_a_kernel_thread_ends_with_einval() -> None:
    step = one_step(kernel_thread(), RangeArray([(0x10000, 0x20000, PAGE)]))
    assert (step.error, step.looked_pages) == (errno.EINVAL, 0)


@needs_root
def test_a_process_of_another_user_ends_with_eperm_without_privileges() -> None:
    with child(pages=8, touched=8) as other:
        ranges = RangeArray([(other.start, other.end, PAGE)])
        step = without_privileges(lambda: one_step(other.process.pid, ranges))
    assert (step.error, step.looked_pages) == (errno.EPERM, 0)


@pytest.mark.parametrize(
    ("target_of", "there", "left_alone"),
    [({NODE: NODE}, 700, 0), ({}, 0, 700), ({NODE + 1: NODE}, 0, 700), ({NODE + 1: 0, NODE: NODE}, 700, 0)],
)
def test_a_map_of_targets_says_which_pages_are_there_and_which_are_left_alone(
    target_of: dict[int, int], there: int, left_alone: int
) -> None:
    area = map_pages(1000)
    touch(area, 0, 700)
    start = address_of(area)
    ranges = RangeArray([(start, start + 1000 * PAGE, PAGE)])
    step = migrate(
        os.getpid(), ranges, target_of=target_of, cursor=Cursor(), batch_pages=512, step_pages=1000, look_pages=4096
    )
    assert_sums_hold(step)
    assert (step.already_on_target_pages, step.left_alone_pages, step.absent_pages) == (there, left_alone, 300)
    assert (step.is_done, step.calls) == (True, 0)


def test_a_map_of_targets_sends_pages_where_it_says() -> None:
    with child(pages=600, touched=600) as other:
        ranges = RangeArray([(other.start, other.end, PAGE)])
        step = migrate(
            other.process.pid,
            ranges,
            node=NODE,  # does not count beside a map
            target_of={NODE: NO_SUCH_NODE},
            cursor=Cursor(),
            batch_pages=512,
            look_pages=4096,
        )
    assert_sums_hold(step)
    assert (step.error, step.error_target, step.moved_pages) == (errno.ENODEV, NO_SUCH_NODE, 0)
    assert step.cursor == Cursor(range_index=0, address=other.start)


@pytest.mark.parametrize("cursor", [Cursor(), Cursor(base_pages=True)])
@pytest.mark.parametrize("room_pages", [0, 511])
def test_without_room_nothing_that_may_be_huge_is_submitted(cursor: Cursor, room_pages: int) -> None:
    with child(pages=4 * 512, touched=3 * 512) as other:
        block = (other.start + 2 * MIB - 1) & -(2 * MIB)
        ranges = RangeArray([(block, block + 4 * MIB, PAGE)])
        step = migrate(
            other.process.pid,
            ranges,
            node=NO_SUCH_NODE,
            cursor=cursor,
            batch_pages=512,
            look_pages=4096,
            large_room_pages=room_pages,
        )
    assert_sums_hold(step)
    # of the two blocks, the second ends with pages that were never touched, unless the mapping was aligned
    absent = max(0, block - other.start + 4 * MIB - 3 * 2 * MIB) // PAGE
    held_back = 512 if absent else 1024
    assert (step.no_room_pages, step.absent_pages + step.other_before_pages) == (held_back, absent)
    assert (step.calls, step.error) == ((1, errno.ENODEV) if absent else (0, None))


def test_known_to_hold_no_huge_pages_a_mapping_needs_no_room() -> None:
    with child(pages=600, touched=600) as other:
        ranges = RangeArray([(other.start, other.end, PAGE)])
        step = migrate(
            other.process.pid,
            ranges,
            node=NO_SUCH_NODE,
            cursor=Cursor(),
            batch_pages=600,
            look_pages=4096,
            huge_bytes=0,
            large_room_pages=0,
        )
    assert_sums_hold(step)
    assert (step.error, step.no_room_pages, step.submitted_pages) == (errno.ENODEV, 0, 600)


@pytest.mark.parametrize(
    "changes",
    [
        {"node": -1},
        {"node": None},
        {"target_of": {-1: 0}},
        {"target_of": {0: -1}},
        {"target_of": {0: 1024}},
        {"target_of": {1024: 0}},
        {"batch_pages": 0},
        {"batch_pages": (1 << 20) + 1},
        {"look_pages": 0},
        {"huge_bytes": 3 << 20},
        {"huge_bytes": PAGE},
        {"huge_bytes": 1 << 30},
        {"cursor": Cursor(range_index=2)},
        {"pid": 0},
    ],
)
def test_arguments_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "pid": os.getpid(),
        "node": NODE,
        "cursor": Cursor(),
        "batch_pages": 512,
        "look_pages": 512,
    }
    ranges = RangeArray([(0x10000, 0x20000, PAGE)])
    with pytest.raises(OSError, match="Invalid argument"):
        migrate(ranges=ranges, **{**arguments, **changes})
