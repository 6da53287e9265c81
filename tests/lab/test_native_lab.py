"""The native core against a kernel with four nodes: each page moves, stays or fails as counted.

Inside the guest. The truth comes from numa_maps, smaps and vmstat, never from move_pages itself.
"""

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.native import Cursor, RangeArray, migrate, placement
from tests.lab import kernel
from tests.lab.native_targets import (
    HUGE,
    MADV_NOHUGEPAGE,
    MAP_HUGETLB,
    MIB,
    PAGE,
    SOURCE,
    TARGET,
    THP,
    anon_huge_kib,
    assert_sums_hold,
    base_pages,
    bind_new_pages_to,
    checksum,
    child,
    errors_of,
    fill,
    found,
    full,
    groups_of_the_kernel,
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


@pytest.mark.parametrize("batch_pages", [64, pytest.param(700, marks=pytest.mark.thorough), 4096])
def test_base_pages_move_and_keep_their_contents(batch_pages: int) -> None:
    with child(16 * MIB, base_pages) as target:
        assert nodes_of(target) == {SOURCE: 4096}
        steps = move(target, batch_pages=batch_pages)
        assert nodes_of(target) == {TARGET: 4096}
        assert target.checksum() == target.sum_before
        assert [step.from_node for step in steps if step.moved_pages] == [
            ((SOURCE, step.moved_pages),) for step in steps if step.moved_pages
        ]
        assert (total(steps, "looked_pages"), total(steps, "moved_pages")) == (4096, 4096)
        assert total(steps, "whole_folios") == 0
        assert max(step.largest_call_pages for step in steps) <= max(batch_pages, 512)
        again = move(target, batch_pages=batch_pages)
        assert (total(again, "already_on_target_pages"), total(again, "calls")) == (4096, 0)


@pytest.mark.kernel(*kernel.SERIES)
@pytest.mark.parametrize(
    ("make", "group_pages", "groups"),
    [
        (base_pages, 0, [8, 4088]),  # the first pages of eight blocks, which might have been huge, and then the rest
        (base_pages, 64, [1] * 8 + [64] * 63 + [56]),
        (base_pages, 4000, [8, 4000, 88]),
        (huge_pages, 64, [512] * 8),
    ],
)
def test_separators_end_the_kernels_groups_within_a_call(
    make: Callable[[int], int], group_pages: int, groups: list[int]
) -> None:
    with child(16 * MIB, make) as target, groups_of_the_kernel() as seen:
        (step,) = move(target, batch_pages=4096, group_pages=group_pages)
        assert seen() == groups
        assert (step.calls, step.resubmissions) == (1 if make is huge_pages else 2, 0)
        assert (step.looked_pages, step.moved_pages) == (4096, 4096)
        assert nodes_of(target) == {TARGET: 4096}
        assert target.checksum() == target.sum_before


@pytest.mark.parametrize("batch_pages", [64, 512, 4096])
def test_transparent_huge_pages_move_whole_and_by_one_address_each(batch_pages: int) -> None:
    with child(16 * MIB, huge_pages) as target:
        assert (anon_huge_kib(target), nodes_of(target)) == (16384, {SOURCE: 4096})
        splits = vmstat("thp_migration_split"), vmstat("thp_split_page")
        steps = move(target, batch_pages=batch_pages)
        assert (anon_huge_kib(target), nodes_of(target)) == (16384, {TARGET: 4096})
        assert (vmstat("thp_migration_split"), vmstat("thp_split_page")) == splits
        assert target.checksum() == target.sum_before
        assert (total(steps, "moved_pages"), total(steps, "whole_folios")) == (4096, 8)
        assert total(steps, "calls") == (1 if batch_pages == 4096 else 8)


@pytest.mark.parametrize("batch_pages", [64, 512, 4096])
def test_blocks_of_huge_and_of_base_pages_are_counted_as_what_they_are(batch_pages: int) -> None:
    with child(32 * MIB, mixed_pages) as target:
        assert (anon_huge_kib(target), nodes_of(target)) == (16384, {SOURCE: 8192})
        splits = vmstat("thp_migration_split")
        steps = move(target, batch_pages=batch_pages)
        assert (anon_huge_kib(target), nodes_of(target)) == (16384, {TARGET: 8192})
        assert vmstat("thp_migration_split") == splits
        assert target.checksum() == target.sum_before
        assert (total(steps, "looked_pages"), total(steps, "moved_pages")) == (8192, 8192)
        assert total(steps, "whole_folios") >= 4


def test_a_step_of_many_batches_ends_when_its_pages_are_submitted() -> None:
    with child(16 * MIB, base_pages) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        step = migrate(
            target.pid, ranges, node=TARGET, cursor=Cursor(), batch_pages=512, step_pages=2048, look_pages=8192
        )
        assert_sums_hold(step)
        assert (step.moved_pages, step.largest_call_pages, step.is_done) == (2048, 512, False)
        assert nodes_of(target) == {TARGET: 2048, SOURCE: 2048}
        assert step.cursor.address == target.address + 8 * MIB


def test_a_range_that_begins_and_ends_inside_huge_pages_takes_them_along() -> None:
    with child(8 * MIB, huge_pages) as whole:
        part = replace(whole, address=whole.address + 5 * PAGE, length=6 * MIB)
        steps = move(part)
        assert nodes_of(whole) == {TARGET: 2048}
        assert anon_huge_kib(whole) == 8192
        assert total(steps, "looked_pages") == total(steps, "moved_pages") == 6 * MIB // PAGE
        assert whole.checksum() == whole.sum_before


def test_hugetlb_pages_move_and_are_counted_in_base_pages() -> None:
    pools = [
        Path(f"/sys/devices/system/node/node{n}/hugepages/hugepages-2048kB/nr_hugepages") for n in (SOURCE, TARGET)
    ]

    def hugetlb_pages(length: int) -> int:
        bind_new_pages_to(SOURCE)
        address = map_aligned(length, MAP_HUGETLB)
        fill(address, length)
        return address

    try:
        for pool in pools:
            pool.write_text("6")
            assert pool.read_text() == "6\n"
        with child(12 * MIB, hugetlb_pages) as target:
            assert nodes_of(target) == {SOURCE: 6}
            steps = move(target, step_bytes=HUGE)
            assert nodes_of(target) == {TARGET: 6}
            assert target.checksum() == target.sum_before
            assert (total(steps, "looked_pages"), total(steps, "moved_pages")) == (3072, 3072)
            ranges = RangeArray([(target.address, target.end, HUGE)])
            assert placement(target.pid, ranges, n_nodes=4).on_node == (3072, 0, 0, 0)
    finally:
        for pool in pools:
            pool.write_text("0")


def test_folios_of_64_kib_are_counted_page_by_page() -> None:
    setting = THP / "hugepages-64kB/enabled"
    if not setting.exists():
        pytest.skip("this kernel has no multi-size transparent huge pages")
    whole = THP / "hugepages-2048kB/enabled"
    before = [path.read_text().partition("[")[2].partition("]")[0] for path in (setting, whole)]
    try:
        setting.write_text("always")
        whole.write_text("never")
        allocated = vmstat_of_64_kib()
        with child(8 * MIB, huge_pages) as target:
            assert vmstat_of_64_kib() - allocated >= 128
            assert (anon_huge_kib(target), nodes_of(target)) == (0, {SOURCE: 2048})
            steps = move(target)
            assert nodes_of(target) == {TARGET: 2048}
            assert target.checksum() == target.sum_before
            assert (total(steps, "looked_pages"), total(steps, "moved_pages")) == (2048, 2048)
            assert total(steps, "whole_folios") == 0
    finally:
        for path, word in zip((setting, whole), before, strict=True):
            path.write_text(word)


def vmstat_of_64_kib() -> int:
    return int((THP / "hugepages-64kB/stats/anon_fault_alloc").read_text())


@pytest.mark.parametrize("make", [base_pages, huge_pages])
def test_pages_shared_with_another_process_stay_and_are_counted_as_eacces(make: Callable[[int], int]) -> None:
    def shared(length: int) -> int:
        address = make(length)
        if os.fork() == 0:  # maps the same pages until its parent is gone
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            signal.pause()
        return address

    with child(4 * MIB, shared) as target:
        steps = move(target)
        assert nodes_of(target) == {SOURCE: 1024}
        assert total(steps, "submitted_pages") == 1024
        assert errors_of(steps) == {errno.EACCES: 1024}
        ranges = RangeArray([(target.address, target.end, PAGE)])
        step = migrate(
            target.pid, ranges, node=TARGET, cursor=Cursor(), batch_pages=1024, look_pages=1024, move_all=True
        )
        assert_sums_hold(step)
        assert step.moved_pages == 1024
        assert nodes_of(target) == {TARGET: 1024}


def test_mlocked_pages_move() -> None:
    def locked(length: int) -> int:
        address = base_pages(length)
        assert libc.mlock(address, length) == 0
        return address

    with child(4 * MIB, locked) as target:
        steps = move(target)
        assert nodes_of(target) == {TARGET: 1024}
        assert total(steps, "moved_pages") == 1024
        assert found(r"VmLck:\s+(\d+) kB", Path(f"/proc/{target.pid}/status").read_text()) == 4096


def test_absent_pages_and_zero_pages_are_not_submitted() -> None:
    def sparse(length: int) -> int:
        address = map_aligned(length)
        libc.madvise(address, length, MADV_NOHUGEPAGE)
        fill(address, length // 4)
        checksum(address + length // 4, length // 4)  # reading maps the zero page
        return address

    def make(length: int) -> int:
        return sparse(2 * length)

    with child(4 * MIB, make) as half:  # the child sums its first half; the rest stays untouched
        target = replace(half, length=8 * MIB)
        steps = move(target)
        counts = [total(steps, name) for name in ("moved_pages", "other_before_pages", "absent_pages")]
        assert counts == [512, 512, 1024]
        assert total(steps, "looked_pages") == 2048


@pytest.mark.parametrize("make", [base_pages, huge_pages])
@pytest.mark.parametrize("batch_pages", [512, 2048])
def test_pinned_pages_stay_busy_and_do_not_keep_their_neighbours_back(
    make: Callable[[int], int], batch_pages: int
) -> None:
    def pinned(length: int) -> int:
        address = make(length)
        pin(address + 3 * PAGE)
        pin(address + HUGE + 700 * PAGE)
        return address

    with child(8 * MIB, pinned) as target:
        before = anon_huge_kib(target)
        steps = move(target, batch_pages=batch_pages)
        errors = errors_of(steps)
        stuck = nodes_of(target)[SOURCE]
        assert target.checksum() == target.sum_before
        assert anon_huge_kib(target) == before
        if make is base_pages:
            assert (stuck, errors, total(steps, "refused_pages")) == (2, {errno.EBUSY: 2}, 2)
        else:
            assert stuck == 1024
            assert (errors, total(steps, "not_attempted_pages")) == ({errno.EBUSY: 1024}, 0)
            assert total(steps, "stuck_pages") > 1000  # a folio that is stuck is not tried by every address
        assert total(steps, "moved_pages") == 2048 - stuck
        assert total(steps, "resubmissions") <= 1


@pytest.mark.kernel(*kernel.SERIES)
def test_of_groups_between_separators_those_that_fail_are_known_and_the_others_move() -> None:
    def pinned(length: int) -> int:
        address = base_pages(length)
        for page in (3, 64, 65, 700, 2047):
            pin(address + page * PAGE)
        return address

    with child(8 * MIB, pinned) as target:
        (step,) = move(target, batch_pages=2048, group_pages=64)
        assert (step.moved_pages, step.by_errno, step.refused_pages) == (2043, ((errno.EBUSY, 5),), 5)
        failed = [(run.start - target.address) // PAGE for run in step.runs if run.error == errno.EBUSY]
        assert failed == [3, 64, 700, 2047]  # 64 and 65 are one run, of two groups
        # the first pages of the blocks, the rest by groups to the end of the first one, and the rest of that in one
        assert (step.calls, step.resubmissions, step.not_attempted_pages) == (3, 1, 0)
        assert nodes_of(target) == {TARGET: 2043, SOURCE: 5}
        assert target.checksum() == target.sum_before


def failing_groups(count: int, distance: int) -> Callable[[int], int]:
    """Base pages with `count` pinned ones, each followed by a shared one, which ends the kernel's group."""

    def make(length: int) -> int:
        address = map_aligned(length)
        libc.madvise(address, length, MADV_NOHUGEPAGE)
        shared = [address + (i * distance + distance // 2) * PAGE for i in range(count)]
        share(shared)
        for at in range(address, address + length, PAGE):
            if at not in shared:
                fill(at, PAGE)
        for i in range(count):
            pin(address + (i * distance + 3) * PAGE)
        return address

    return make


@pytest.mark.parametrize("batch_pages", [512, 2048])
def test_the_tail_behind_a_failing_group_is_submitted_again_and_moves(batch_pages: int) -> None:
    with child(8 * MIB, failing_groups(count=5, distance=100)) as target:
        steps = move(target, batch_pages=batch_pages)
        assert nodes_of(target) == {TARGET: 2038, SOURCE: 10}
        assert errors_of(steps) == {errno.EBUSY: 5, errno.EACCES: 5}
        assert (total(steps, "moved_pages"), total(steps, "refused_pages")) == (2038, 5)
        assert (total(steps, "not_attempted_pages"), total(steps, "resubmissions")) == (0, 5)
        assert target.checksum() == target.sum_before


def test_a_step_ends_after_ten_resubmissions_and_the_next_goes_on_where_it_ended() -> None:
    with child(2 * MIB, failing_groups(count=24, distance=20)) as target:
        steps = move(target, batch_pages=512)
        assert [step.resubmissions for step in steps] == [10, 10, 2]
        assert all(step.not_attempted_pages > 0 for step in steps[:-1])
        assert nodes_of(target) == {TARGET: 512 - 48, SOURCE: 48}
        assert total(steps, "moved_pages") == 512 - 48
        assert errors_of(steps) == {errno.EBUSY: 24, errno.EACCES: 24}
        assert target.checksum() == target.sum_before


def test_a_target_that_exits_between_steps_ends_with_esrch_and_whole_sums() -> None:
    with child(8 * MIB, base_pages) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        first = migrate(target.pid, ranges, node=TARGET, cursor=Cursor(), batch_pages=512, look_pages=8192)
        assert (first.error, first.moved_pages) == (None, 512)
        target.kill()
        second = migrate(target.pid, ranges, node=TARGET, cursor=first.cursor, batch_pages=512, look_pages=8192)
        assert_sums_hold(second)
        assert (second.error, second.moved_pages, second.cursor) == (errno.ESRCH, 0, first.cursor)


def test_a_target_that_exits_during_a_call_ends_with_whole_sums() -> None:
    with child(64 * MIB, base_pages) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        with subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -9 {target.pid}"]):
            step = migrate(target.pid, ranges, node=TARGET, cursor=Cursor(), batch_pages=16384, look_pages=16384)
        assert_sums_hold(step)
        assert step.submitted_pages > 0


def test_a_cpuset_that_excludes_the_node_ends_with_eacces_and_nothing_moved() -> None:
    group = Path("/sys/fs/cgroup/native-test")
    with child(4 * MIB, base_pages) as target:
        group.mkdir()
        try:
            (group / "cpuset.mems").write_text(str(SOURCE))
            (group / "cgroup.procs").write_text(str(target.pid))
            steps = move(target)
            assert [step.error for step in steps] == [errno.EACCES]
            assert (steps[0].moved_pages, steps[0].not_attempted_pages) == (0, steps[0].submitted_pages)
            assert nodes_of(target) == {SOURCE: 1024}
        finally:
            target.kill()
            group.rmdir()


@pytest.mark.parametrize("make", [base_pages, huge_pages])
def test_a_full_target_node_ends_with_enomem_and_counts_what_did_move(make: Callable[[int], int]) -> None:
    node = 3
    with child(64 * MIB, make) as target, full(node):
        steps = move(target, node=node, batch_pages=4096)
        nodes = nodes_of(target)
        assert steps[-1].error == errno.ENOMEM
        assert steps[-1].not_attempted_pages > 0
        assert steps[-1].error_target == node
        # the kernel splits a huge page that finds no room, and may move some of its pages before it gives up
        assert total(steps, "moved_pages") == nodes.get(node, 0)
        assert target.checksum() == target.sum_before


def test_sampled_placement_agrees_with_numa_maps() -> None:
    def halves(length: int) -> int:
        address = map_aligned(length)
        libc.madvise(address, length, MADV_NOHUGEPAGE)
        for at in range(address, address + length, MIB):
            fill(at, MIB, node=1 if (at - address) // MIB % 4 else 3)
        return address

    with child(32 * MIB, halves) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        assert nodes_of(target) == {1: 6144, 3: 2048}
        assert placement(target.pid, ranges, n_nodes=4).on_node == (0, 6144, 0, 2048)
        sampled = placement(target.pid, ranges, n_nodes=4, samples=1024, phase=0.37)
        assert sampled.on_node == (0, 768, 0, 256)
