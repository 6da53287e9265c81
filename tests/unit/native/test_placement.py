"""Counting where pages are, against mappings of which every page's state is known."""

import errno
import os
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.native import Placement, RangeArray, placement
from tests.unit.native.memory import (
    PAGE,
    address_of,
    child,
    map_pages,
    needs_root,
    node_count,
    touch,
    without_privileges,
)

NODES = node_count()


def pages_on_nodes(found: Placement) -> int:
    return sum(found.on_node)


def assert_sums_hold(found: Placement) -> None:
    errors = sum(pages for _, pages in found.by_errno)
    assert found.queried_pages == pages_on_nodes(found) + errors + found.unwritten_pages
    rows = sum(sum(row.on_node) + row.absent_pages + row.other_pages for row in found.per_range)
    assert rows == found.queried_pages


def test_touched_untouched_and_zero_pages_are_told_apart() -> None:
    area = map_pages(100)
    touch(area, 0, 40)
    assert area[40 * PAGE] + area[41 * PAGE] == 0  # reading maps the zero page
    start = address_of(area)
    found = placement(os.getpid(), RangeArray([(start, start + 100 * PAGE, PAGE)]), n_nodes=NODES)
    assert (pages_on_nodes(found), dict(found.by_errno)) == (40, {errno.EFAULT: 2, errno.ENOENT: 58})
    assert (found.per_range[0].absent_pages, found.per_range[0].other_pages) == (58, 2)
    assert (found.queried_pages, found.unwritten_pages, found.calls) == (100, 0, 1)
    assert_sums_hold(found)


def test_each_range_has_its_own_row() -> None:
    area = map_pages(64)
    touch(area, 16, 48)
    start = address_of(area)
    quarters = [(start + i * 16 * PAGE, start + (i + 1) * 16 * PAGE, PAGE) for i in range(4)]
    found = placement(os.getpid(), RangeArray(quarters), n_nodes=NODES)
    assert [sum(row.on_node) for row in found.per_range] == [0, 16, 16, 0]
    assert [row.absent_pages for row in found.per_range] == [16, 0, 0, 16]
    assert_sums_hold(found)


def test_an_unmapped_range_has_no_page_on_any_node() -> None:
    found = placement(os.getpid(), RangeArray([(0x10000, 0x18000, PAGE)]), n_nodes=NODES)
    assert (pages_on_nodes(found), found.queried_pages) == (0, 8)
    assert found.by_errno in {((errno.EFAULT, 8),), ((errno.ENOENT, 8),)}  # EFAULT before Linux 6.12


def test_pages_of_a_child_are_counted_over_several_calls() -> None:
    with child(pages=10000, touched=9000) as other:
        ranges = RangeArray([(other.start, other.end, PAGE)])
        found = placement(other.process.pid, ranges, n_nodes=NODES)
    assert (pages_on_nodes(found), dict(found.by_errno)) == (9000, {errno.ENOENT: 1000})
    assert (found.queried_pages, found.calls) == (10000, 3)
    assert 0 < found.longest_call_seconds < found.duration_seconds
    assert_sums_hold(found)


def test_a_node_beyond_those_asked_for_is_in_the_total_and_among_the_others_of_its_range() -> None:
    area = map_pages(4)
    touch(area, 0, 4)
    start = address_of(area)
    found = placement(os.getpid(), RangeArray([(start, start + 4 * PAGE, PAGE)]), n_nodes=0)
    assert pages_on_nodes(found) == 4
    assert (found.per_range[0].on_node, found.per_range[0].other_pages) == ((), 4)


def test_a_page_of_a_larger_step_counts_its_base_pages() -> None:
    found = placement(os.getpid(), RangeArray([(2 << 20, 8 << 20, 2 << 20)]), n_nodes=NODES)
    assert (found.queried_pages, found.calls) == (1536, 1)


def test_no_ranges_are_no_pages_and_no_call() -> None:
    found = placement(os.getpid(), RangeArray([]), n_nodes=NODES)
    assert (found.queried_pages, found.calls, found.per_range) == (0, 0, ())


@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=30),
    samples=st.integers(1, 300),
    phase=st.floats(0, 1, exclude_max=True),
)
def test_samples_are_spread_evenly_over_the_pages_of_all_ranges(lengths: list[int], samples: int, phase: float) -> None:
    total = sum(lengths)
    ranges, at = [], 0x100000
    for length in lengths:
        ranges.append((at, at + length * PAGE, PAGE))
        at += (length + 7) * PAGE
    found = placement(os.getpid(), RangeArray(ranges), n_nodes=1, samples=samples, phase=phase)
    assert found.queried_pages == min(samples, total)
    assert_sums_hold(found)
    before = seen = 0
    for length, row in zip(lengths, found.per_range, strict=True):
        before += length
        seen += sum(row.on_node) + row.absent_pages + row.other_pages
        # up to any page, as many samples as that part of all pages deserves, give or take one
        assert abs(seen - before * min(samples, total) / max(total, 1)) <= 1


@given(total=st.integers(2, 400), phase=st.floats(0, 1, exclude_max=True), data=st.data())
def test_no_two_samples_are_neighbours_unless_they_must_be(total: int, phase: float, data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, total - 1))
    pages = [(0x100000 + 2 * i * PAGE, 0x100000 + (2 * i + 1) * PAGE, PAGE) for i in range(total)]
    found = placement(os.getpid(), RangeArray(pages), n_nodes=1, samples=samples, phase=phase)
    hits = [i for i, row in enumerate(found.per_range) if sum(row.on_node) + row.absent_pages + row.other_pages]
    assert len(hits) == samples
    gaps = {after - before for before, after in pairwise(hits)}
    assert gaps <= {total // samples, -(-total // samples)}


def test_every_page_is_as_likely_as_any_other() -> None:
    pages = [(0x100000 + 2 * i * PAGE, 0x100000 + (2 * i + 1) * PAGE, PAGE) for i in range(50)]
    hits = [0] * 50
    for turn in range(1000):
        found = placement(os.getpid(), RangeArray(pages), n_nodes=1, samples=7, phase=turn / 1000)
        for i, row in enumerate(found.per_range):
            hits[i] += sum(row.on_node) + row.absent_pages + row.other_pages
    assert all(abs(n - 140) <= 7 for n in hits)


def test_a_sample_estimates_the_share_of_present_pages() -> None:
    area = map_pages(20000)
    choose = random.Random(7)  # noqa: S311 which pages are present, the same in every run
    present = 0
    for block in range(0, 20000, 100):
        if choose.random() < 0.3:
            touch(area, block, block + 100)
            present += 100
    start = address_of(area)
    ranges = RangeArray([(start, start + 20000 * PAGE, PAGE)])
    found = placement(os.getpid(), ranges, n_nodes=NODES, samples=2000, phase=0.5)
    assert abs(pages_on_nodes(found) / 2000 - present / 20000) < 0.01


def test_the_sum_of_sizes_may_pass_64_bits_times_samples() -> None:
    top = 1 << 47
    found = placement(os.getpid(), RangeArray([(0, top, PAGE)]), n_nodes=1, samples=1 << 12, phase=0.999)
    assert found.queried_pages == 1 << 12


@pytest.mark.parametrize(
    ("ranges", "samples", "phase", "n_nodes"),
    [
        ([(PAGE, 0, PAGE)], 0, 0.0, 1),
        ([(1, PAGE, PAGE)], 0, 0.0, 1),
        ([(0, PAGE + 1, PAGE)], 0, 0.0, 1),
        ([(0, PAGE, 2048)], 0, 0.0, 1),
        ([(0, 3 * PAGE, 3 * PAGE)], 0, 0.0, 1),
        ([(PAGE, 3 * PAGE, 2 * PAGE)], 0, 0.0, 1),
        ([(0, 1 << 40, 1 << 40)], 0, 0.0, 1),
        ([(0, PAGE, PAGE)], 1, 1.0, 1),
        ([(0, PAGE, PAGE)], 1, -0.1, 1),
        ([(0, PAGE, PAGE)], 1, float("nan"), 1),
        ([(0, PAGE, PAGE)], 0, 0.0, 1025),
    ],
)
def test_arguments_out_of_bounds_are_refused(
    ranges: list[tuple[int, int, int]], samples: int, phase: float, n_nodes: int
) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        placement(os.getpid(), RangeArray(ranges), n_nodes=n_nodes, samples=samples, phase=phase)


def test_a_process_that_is_gone_is_told_by_its_pid() -> None:
    with child(pages=1, touched=1) as other:
        pid, ranges = other.process.pid, RangeArray([(other.start, other.end, PAGE)])
    with pytest.raises(ProcessLookupError, match=f"process {pid}"):
        placement(pid, ranges, n_nodes=NODES)


@needs_root
def test_a_process_of_another_user_is_refused_without_privileges() -> None:
    def attempt(pid: int, ranges: RangeArray) -> int | None:
        try:
            placement(pid, ranges, n_nodes=NODES)
        except PermissionError as error:
            return error.errno
        return None

    with child(pages=1, touched=1) as other:
        ranges = RangeArray([(other.start, other.end, PAGE)])
        assert without_privileges(lambda: attempt(other.process.pid, ranges)) == errno.EPERM
