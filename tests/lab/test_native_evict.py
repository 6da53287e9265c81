"""Giving memory back, to a swap area in compressed memory, and moving a whole process; counted against smaps.

Inside the guest. The truth comes from smaps and numa_maps, never from move_pages.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.native import Cursor, Eviction, RangeArray, evict, migrate_process
from tests.lab.native_targets import (
    HUGE,
    MADV_DONTNEED,
    MADV_NOHUGEPAGE,
    MAP_HUGETLB,
    MIB,
    PAGE,
    SOURCE,
    TARGET,
    Target,
    base_pages,
    bind_new_pages_to,
    child,
    fill,
    huge_page_pool,
    huge_pages,
    libc,
    map_aligned,
    nodes_of,
    sum_in_smaps,
)

ZRAM = Path("/sys/block/zram0")


@pytest.fixture(scope="module")
def swap() -> Iterator[None]:
    """A swap area of 256 MiB."""
    subprocess.run(["modprobe", "zram"], check=True)
    (ZRAM / "disksize").write_text("256M")
    subprocess.run(["mkswap", "/dev/zram0"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", "/dev/zram0"], check=True)
    yield
    subprocess.run(["swapoff", "/dev/zram0"], check=True)
    (ZRAM / "reset").write_text("1")


def assert_sums_hold(step: Eviction) -> None:
    assert step.looked_pages == step.absent_pages + step.other_pages + step.advised_pages
    assert step.advised_pages == step.evicted_pages + step.kept_pages
    assert step.refused_pages <= step.kept_pages
    assert len(step.call_seconds) == min(step.calls, 64)


def give_back(
    target: Target, *, batch_pages: int = 512, step_bytes: int = PAGE, cold_only: bool = False
) -> list[Eviction]:
    """Every step until the range is done or a call fails."""
    pidfd = os.pidfd_open(target.pid)
    ranges = RangeArray([(target.address, target.end, step_bytes)])
    steps: list[Eviction] = []
    cursor = Cursor()
    while not steps or not (steps[-1].is_done or steps[-1].error):
        step = evict(
            target.pid,
            pidfd,
            ranges,
            cursor=cursor,
            batch_pages=batch_pages,
            look_pages=8192,
            cold_only=cold_only,
        )
        assert_sums_hold(step)
        assert step.advised_pages <= max(batch_pages, step_bytes // PAGE)
        assert step.cursor != cursor
        cursor = step.cursor
        steps.append(step)
    os.close(pidfd)
    return steps


def total(steps: list[Eviction], name: str) -> int:
    return sum(getattr(step, name) for step in steps)


@pytest.mark.usefixtures("swap")
@pytest.mark.parametrize("make", [base_pages, huge_pages])
@pytest.mark.parametrize("batch_pages", [100, 512, 4096])
def test_what_is_said_to_be_evicted_is_in_swap_and_comes_back_as_it_was(
    make: Callable[[int], int], batch_pages: int
) -> None:
    with child(8 * MIB, make) as target:
        steps = give_back(target, batch_pages=batch_pages)
        swapped = sum_in_smaps(target, "Swap") // 4
        assert total(steps, "evicted_pages") == swapped
        assert sum_in_smaps(target, "Rss") // 4 == total(steps, "kept_pages") == 2048 - swapped
        assert swapped > 2048 * 9 // 10  # pages on their way to an LRU list of another CPU cannot go
        assert total(steps, "looked_pages") == 2048
        assert target.checksum() == target.sum_before


@pytest.mark.usefixtures("swap")
def test_cold_pages_stay_and_are_counted_as_kept() -> None:
    with child(4 * MIB, base_pages) as target:
        steps = give_back(target, cold_only=True)
        assert (total(steps, "advised_pages"), total(steps, "kept_pages")) == (1024, 1024)
        assert sum_in_smaps(target, "Swap") == 0
        assert total(steps, "refused_pages") == 0


@pytest.mark.usefixtures("swap")
def test_a_locked_part_is_kept_and_what_is_behind_it_goes() -> None:
    def partly_locked(length: int) -> int:
        address = base_pages(length)
        assert libc.mlock(address + MIB, MIB) == 0
        return address

    with child(8 * MIB, partly_locked) as target:
        steps = give_back(target, batch_pages=2048)
        assert total(steps, "refused_pages") == 256
        assert total(steps, "evicted_pages") == sum_in_smaps(target, "Swap") // 4
        assert 1536 * 9 // 10 < total(steps, "evicted_pages") <= 2048 - 256
        assert target.checksum() == target.sum_before


@pytest.mark.usefixtures("swap")
def test_absent_and_swapped_pages_are_not_advised() -> None:
    def half(length: int) -> int:
        address = map_aligned(2 * length)
        libc.madvise(address, 2 * length, MADV_NOHUGEPAGE)
        fill(address, length)
        return address

    with child(4 * MIB, half) as touched:
        target = replace(touched, length=8 * MIB)
        first = give_back(target)
        again = give_back(target)
        assert (_not_there(first), total(first, "advised_pages")) == (1024, 1024)
        assert _not_there(again) == 1024 + total(first, "evicted_pages")
        assert total(again, "advised_pages") == total(first, "kept_pages")


def _not_there(steps: list[Eviction]) -> int:
    """Absent pages; a page never touched is an error up to 6.11."""
    return total(steps, "absent_pages") + total(steps, "other_pages")


def test_hugetlb_pages_are_refused_and_kept() -> None:
    def hugetlb_pages(length: int) -> int:
        bind_new_pages_to(SOURCE)
        address = map_aligned(length, MAP_HUGETLB)
        fill(address, length)
        return address

    pool = huge_page_pool(SOURCE)
    try:
        pool.write_text("3")
        with child(6 * MIB, hugetlb_pages) as target:
            steps = give_back(target, step_bytes=HUGE)
            counts = [total(steps, name) for name in ("advised_pages", "kept_pages", "refused_pages", "evicted_pages")]
            assert counts == [1536, 1536, 1536, 0]
            assert [step.error for step in steps] == [None] * 3
            assert nodes_of(target) == {SOURCE: 3}
    finally:
        pool.write_text("0")


@pytest.mark.usefixtures("swap")
def test_without_room_in_swap_pages_are_kept() -> None:
    subprocess.run(["swapoff", "/dev/zram0"], check=True)
    try:
        with child(4 * MIB, base_pages) as target:
            steps = give_back(target)
            assert (total(steps, "evicted_pages"), total(steps, "kept_pages")) == (0, 1024)
            assert [step.error for step in steps] == [None] * len(steps)
    finally:
        subprocess.run(["swapon", "/dev/zram0"], check=True)


@pytest.mark.usefixtures("swap")
def test_a_process_that_exits_ends_with_esrch_where_it_stood() -> None:
    with child(4 * MIB, base_pages) as target:
        pidfd = os.pidfd_open(target.pid)
        ranges = RangeArray([(target.address, target.end, PAGE)])
        first = evict(target.pid, pidfd, ranges, cursor=Cursor(), batch_pages=512, look_pages=512)
        target.kill()
        second = evict(target.pid, pidfd, ranges, cursor=first.cursor, batch_pages=512, look_pages=512)
        os.close(pidfd)
        assert (first.error, second.error, second.looked_pages) == (None, errno.ESRCH, 0)
        assert second.cursor == first.cursor


def test_a_whole_process_moves_and_keeps_relative_positions() -> None:
    def two_nodes(length: int) -> int:
        address = base_pages(length)
        libc.madvise(address, length // 4, MADV_DONTNEED)
        fill(address, length // 4, 3)
        return address

    with child(8 * MIB, two_nodes) as target:
        assert nodes_of(target) == {SOURCE: 1536, 3: 512}
        assert migrate_process(target.pid, [SOURCE, 3], [TARGET, 1]) == 0
        assert nodes_of(target) == {TARGET: 1536, 1: 512}
        assert target.checksum() == target.sum_before
        with pytest.raises(OSError, match="Invalid argument"):
            migrate_process(target.pid, [TARGET], [9])
