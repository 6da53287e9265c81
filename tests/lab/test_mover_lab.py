"""The daemon's mover against a real kernel: room for huge pages, further tries, claims, verification, pace, node sets.

Inside the guest. The truth comes from numa_maps, smaps, buddyinfo and vmstat, never from the mover itself.
"""

import ctypes
import errno
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd.model.decision import Reason
from balancerd.model.migration import FailedRun, MigrationOutcome, RunsNow, VerifyRequest
from balancerd.model.page_status import PageStatus
from balancerd.native import Migration, RangeArray, placement
from tests.lab.live import WatchedCore, carry_out, live_kernel, step_of
from tests.lab.native_targets import (
    HUGE,
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    MAP_HUGETLB,
    MIB,
    PAGE,
    SOURCE,
    TARGET,
    VMSPLICE,
    IoVector,
    Target,
    anon_huge_kib,
    base_pages,
    bind_new_pages_to,
    child,
    fill,
    free_mib,
    huge_page_pool,
    huge_pages,
    libc,
    map_aligned,
    nodes_at_rest,
    nodes_of,
    take_free,
    vmstat,
)
from tests.lab.syscalls import child_process, step

MLOCK2, MLOCK_ONFAULT = 325, 1  # arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/mman-common.h
KEPT_PAGE_OF = 64
"""Of so many pages the fragmenter keeps one: eight in each block of 2 MiB."""

SETTLE_SECONDS = 5.0
"""So long at most what others free on a node is taken, too."""

MakeMemory = Callable[[int], int]


def spans(target: Target) -> list[tuple[int, int]]:
    return [(target.address, target.end)]


# Room for huge pages


def free_huge_blocks(node: int) -> int:
    """Free blocks of 2 MiB and more, but for those that the kernel keeps for allocations that must not fail."""
    text = Path("/proc/pagetypeinfo").read_text(encoding="ascii")
    rows = re.findall(rf"(?m)^Node +{node}, zone +\w+, type +(\w+) +(.*)$", text)
    assert rows, text
    return sum(sum(map(int, counts.split()[9:])) for kind, counts in rows if kind != "HighAtomic")


@contextmanager
def fragmented(node: int) -> Iterator[None]:
    """A node with much free memory, and no free block of 2 MiB in it."""
    pool, allowed = huge_page_pool(node), Path("/proc/sys/vm/compact_unevictable_allowed")
    allowed_before = allowed.read_text(encoding="ascii")

    def scatter(_length: int) -> int:
        """Take all that is free in base pages, give most of them back, and have the pool take the blocks left over.

        What is kept is locked, so that the kernel does not move it to make blocks of what is free.
        """
        address, length = take_free(node)
        for at in range(address, address + length, KEPT_PAGE_OF * PAGE):
            assert libc.madvise(at + PAGE, (KEPT_PAGE_OF - 1) * PAGE, MADV_DONTNEED) == 0
        locked = libc.syscall(MLOCK2, ctypes.c_void_p(address), ctypes.c_size_t(length), MLOCK_ONFAULT)
        assert locked == 0, os.strerror(ctypes.get_errno())
        for _ in range(10):  # what was below the watermarks before
            take_blocks()
        return address

    def take_blocks() -> int:
        """Have the pool take what is free in one piece, for more would be made so; return how many these were."""
        blocks = free_huge_blocks(node)
        pool.write_text(str(int(pool.read_text(encoding="ascii")) + blocks), encoding="ascii")
        return blocks

    try:
        allowed.write_text("0", encoding="ascii")
        pool.write_text("600", encoding="ascii")  # as many as there are
        pool.write_text(str(int(pool.read_text(encoding="ascii")) - 60), encoding="ascii")
        with child(PAGE, scatter):
            deadline = time.monotonic() + SETTLE_SECONDS
            while take_blocks() and time.monotonic() < deadline:  # what others have freed meanwhile
                time.sleep(0.1)
            yield
    finally:
        pool.write_text("0", encoding="ascii")
        allowed.write_text(allowed_before, encoding="ascii")


def half_huge(length: int) -> int:
    address = map_aligned(length)
    assert libc.madvise(address, length // 2, MADV_HUGEPAGE) == 0
    assert libc.madvise(address + length // 2, length // 2, MADV_NOHUGEPAGE) == 0
    fill(address, length)
    return address


def splits() -> int:
    """Huge pages split because they found no room; thp_split_page counts those that reclaim split as well."""
    return vmstat("thp_migration_split")


def test_huge_pages_wait_for_free_blocks_on_the_target_while_base_pages_move() -> None:
    node = 3
    live = live_kernel()
    with child(16 * MIB, half_huge) as target:
        assert (anon_huge_kib(target), nodes_of(target)) == (8192, {SOURCE: 4096})
        split_before = splits()
        with fragmented(node):
            assert free_huge_blocks(node) == 0
            assert free_mib(node) > 40
            outcome = carry_out(live, step_of(target.pid, spans(target), node))
            assert outcome.pages == {PageStatus.MOVED: 2048}
            assert outcome.passed_over == {PageStatus.NO_HUGE_PAGE: 2048}
            assert (anon_huge_kib(target), nodes_at_rest(target, 4096)) == (8192, {SOURCE: 2048, node: 2048})
        assert free_huge_blocks(node) > 100
        outcome = carry_out(live, step_of(target.pid, spans(target), node))
        assert (outcome.pages, outcome.whole_folios) == ({PageStatus.MOVED: 2048}, 4)
        assert (anon_huge_kib(target), nodes_at_rest(target, 4096)) == (8192, {node: 4096})
        assert splits() == split_before
        assert target.checksum() == target.sum_before


def hugetlb_pages(length: int) -> int:
    bind_new_pages_to(SOURCE)
    address = map_aligned(length, MAP_HUGETLB)
    fill(address, length)
    return address


def test_hugetlb_pages_move_as_far_as_the_pool_of_the_target_has_free_ones() -> None:
    source, target_pool = huge_page_pool(SOURCE), huge_page_pool(TARGET)
    live = live_kernel()
    try:
        source.write_text("6", encoding="ascii")
        assert target_pool.read_text(encoding="ascii") == "0\n"
        with child(12 * MIB, hugetlb_pages) as target:
            all_of_it = step_of(target.pid, spans(target), TARGET, page_bytes=HUGE)
            outcome = carry_out(live, all_of_it)
            assert (outcome.submitted_pages, outcome.call_seconds) == (0, ())
            assert outcome.passed_over == {PageStatus.NO_HUGE_PAGE: 3072}
            assert nodes_of(target) == {SOURCE: 6}
            target_pool.write_text("3", encoding="ascii")
            outcome = carry_out(live, all_of_it)
            assert outcome.pages == {PageStatus.MOVED: 1536}
            assert outcome.passed_over == {PageStatus.NO_HUGE_PAGE: 1536}
            assert nodes_of(target) == {SOURCE: 3, TARGET: 3}
            assert target.checksum() == target.sum_before
    finally:
        source.write_text("0", encoding="ascii")
        target_pool.write_text("0", encoding="ascii")


# Further tries


@contextmanager
def with_a_pinned_page(make: MakeMemory) -> Iterator[tuple[Target, Callable[[], None]]]:
    """4 MiB with a page that a pipe holds; the function that comes with it lets go of that page."""
    read, write = os.pipe()

    def pinned(length: int) -> int:
        address = make(length)
        vector = IoVector(address + HUGE + 3 * PAGE, PAGE)
        assert libc.syscall(VMSPLICE, write, ctypes.byref(vector), 1, 0) == PAGE
        return address

    try:
        with child(4 * MIB, pinned) as target:
            yield target, lambda: assert_reads_a_page(read)
    finally:
        os.close(read)
        os.close(write)


def assert_reads_a_page(pipe: int) -> None:
    assert len(os.read(pipe, PAGE)) == PAGE


@pytest.mark.parametrize("make", [base_pages, huge_pages])
def test_a_page_that_is_busy_for_a_moment_moves_at_a_further_try(make: MakeMemory) -> None:
    stuck = 1 if make is base_pages else 512
    busy: list[int] = []

    def let_go_after_two_failures(done: Migration) -> None:
        busy.extend(pages for number, pages in done.by_errno if number == errno.EBUSY)
        if len(busy) == 2 and done.by_errno:
            let_go()

    core = WatchedCore(after=let_go_after_two_failures)
    with with_a_pinned_page(make) as (target, let_go):
        huge_kib = anon_huge_kib(target)
        outcome = carry_out(live_kernel(core), step_of(target.pid, spans(target), TARGET))
        assert nodes_of(target) == {TARGET: 1024}
        assert (outcome.pages, outcome.failed_runs) == ({PageStatus.MOVED: 1024}, ())
        assert busy == [stuck, stuck]
        assert (outcome.retried_pages, outcome.unrecorded_pages) == (2 * stuck, 0)
        assert outcome.throttled_seconds["retry"] > 0
        assert anon_huge_kib(target) == huge_kib
        assert target.checksum() == target.sum_before


@pytest.mark.parametrize("make", [base_pages, huge_pages])
def test_a_page_that_stays_busy_is_given_up_and_told_where_it_is(make: MakeMemory) -> None:
    stuck = 1 if make is base_pages else 512
    with with_a_pinned_page(make) as (target, _):
        outcome = carry_out(live_kernel(), step_of(target.pid, spans(target), TARGET))
        assert nodes_of(target) == {SOURCE: stuck, TARGET: 1024 - stuck}
        assert outcome.pages == {PageStatus.MOVED: 1024 - stuck, PageStatus.BUSY: stuck}
        start = target.address + HUGE + (3 * PAGE if stuck == 1 else 0)
        assert outcome.failed_runs == (
            FailedRun(start=start, end=start + stuck * PAGE, page_bytes=PAGE, status=PageStatus.BUSY),
        )
        assert (outcome.retried_pages, outcome.unrecorded_pages) == (3 * stuck, 0)
        assert (outcome.stopped_by, outcome.resume_at) == (None, None)
        assert target.checksum() == target.sum_before


# Claims


def test_memory_that_another_process_of_ours_is_moving_is_left_to_it() -> None:
    with child(8 * MIB, base_pages) as target:
        started, go_on = os.pipe(), os.pipe()
        all_of_it = step_of(target.pid, spans(target), TARGET)

        def wait_for_the_other() -> None:
            if not core.moves:
                os.close(go_on[1])  # the copy of this process
            os.write(started[1], b"+")
            os.read(go_on[0], 1)

        core = WatchedCore(before=wait_for_the_other)
        with child_process(lambda: carry_out(live_kernel(core), all_of_it).pages) as answer:
            os.close(started[1])
            assert os.read(started[0], 1) == b"+"
            live = live_kernel()
            refused = carry_out(live, all_of_it)
            untouched = nodes_of(target)
            os.close(go_on[1])
            assert answer() == {PageStatus.MOVED: 2048}
        assert (refused.stopped_by, refused.looked_pages) == (Reason.CLAIMED, 0)
        assert untouched == {SOURCE: 2048}
        assert nodes_of(target) == {TARGET: 2048}
        free_again = carry_out(live, all_of_it)
        assert (free_again.stopped_by, free_again.on_target_pages) == (None, 2048)
        os.close(started[0])
        os.close(go_on[0])


def test_one_mover_has_two_moves_in_one_process_only_where_they_do_not_meet() -> None:
    inner: list[MigrationOutcome] = []

    def move_meanwhile(_done: Migration) -> None:
        if not inner:
            inner.append(carry_out(live, step_of(target.pid, [(middle - PAGE, target.end)], TARGET)))
            inner.append(carry_out(live, step_of(target.pid, [(middle, target.end)], TARGET)))

    live = live_kernel(WatchedCore(after=move_meanwhile))
    with child(8 * MIB, base_pages) as target:
        middle = target.address + 4 * MIB
        outcome = carry_out(live, step_of(target.pid, [(target.address, middle)], TARGET))
        assert outcome.pages == {PageStatus.MOVED: 1024}
        assert [one.stopped_by for one in inner] == [Reason.CLAIMED, None]
        assert [one.moved_pages for one in inner] == [0, 1024]
        assert nodes_of(target) == {TARGET: 2048}


# Verification


@pytest.mark.parametrize("make", [base_pages, huge_pages])
def test_pages_that_moved_are_found_on_their_target(make: MakeMemory) -> None:
    with child(16 * MIB, make) as target:
        outcome = carry_out(live_kernel(), step_of(target.pid, spans(target), TARGET))
        assert outcome.verified is not None
        assert outcome.verified.asked_pages > 200
        assert outcome.verified.on_target_pages == outcome.verified.asked_pages


def test_pages_that_somebody_else_moves_back_are_found_elsewhere() -> None:
    def move_half_back(done: Migration) -> None:
        if done.is_done:
            half = RangeArray([(target.address + 8 * MIB, target.end, PAGE)])
            with child_process(lambda: step(half, node=SOURCE, pid=target.pid).moved_pages) as answer:
                assert answer() == 2048

    live = live_kernel(WatchedCore(after=move_half_back))
    with child(16 * MIB, base_pages) as target:
        all_of_it = step_of(target.pid, spans(target), TARGET)
        outcome = carry_out(live, all_of_it)
        assert outcome.pages == {PageStatus.MOVED: 4096}
        assert nodes_of(target) == {SOURCE: 2048, TARGET: 2048}
        request = VerifyRequest(process=all_of_it.process, runs=outcome.moved_runs, asked_pages=512)
        later = live.verify(request)
        assert isinstance(later, RunsNow)
        for found, asked in ((outcome.verified, 256), (later.total, 512)):
            assert found is not None
            assert abs(found.asked_pages - asked) <= 1
            assert abs(found.elsewhere_pages - asked / 2) <= 2
            assert found.on_target_pages + found.elsewhere_pages == found.asked_pages


# Pace


def test_two_stalls_end_a_step_with_whole_sums() -> None:
    live = live_kernel(stall_target_seconds=1e-6, stall_limit_seconds=1e-9)
    with child(8 * MIB, base_pages) as target:
        outcome = carry_out(live, step_of(target.pid, spans(target), TARGET))
        assert outcome.stopped_by is Reason.STALLED
        assert 2 <= outcome.stalls <= len(outcome.call_seconds) <= 6  # calls that are short go on unchecked
        assert 0 < outcome.moved_pages < 2048
        assert nodes_of(target) == {SOURCE: 2048 - outcome.moved_pages, TARGET: outcome.moved_pages}
        assert outcome.resume_at == target.address + outcome.moved_pages * PAGE


def test_moving_calls_fill_no_more_of_the_time_than_the_duty_cycle_allows() -> None:
    shares: list[float] = []
    with child(32 * MIB, base_pages) as target:
        for duty_ratio, node in ((0.2, TARGET), (1.0, SOURCE)):
            live = live_kernel(duty_ratio=duty_ratio, stall_target_seconds=0.01)
            began = time.monotonic()
            outcome = carry_out(live, step_of(target.pid, spans(target), node))
            took = time.monotonic() - began
            assert outcome.pages == {PageStatus.MOVED: 8192}
            assert len(outcome.call_seconds) >= 8
            shares.append(sum(outcome.call_seconds) / took)
            assert (outcome.throttled_seconds.get("duty-cycle", 0.0) > 0.5 * took) == (duty_ratio < 1)
    assert shares[0] <= 0.25
    assert shares[1] > 2 * shares[0]


# Sets of nodes


CHUNK_NODES = (0, 1, 2, 1, 0, 3, 0, 1)


def chunks_of(chunk_bytes: int) -> MakeMemory:
    """Memory whose chunks lie on CHUNK_NODES by turns; chunks of 2 MiB are huge pages."""

    def make(length: int) -> int:
        address = map_aligned(length)
        libc.madvise(address, length, MADV_HUGEPAGE if chunk_bytes == HUGE else MADV_NOHUGEPAGE)
        for number, at in enumerate(range(address, address + length, chunk_bytes)):
            fill(at, chunk_bytes, node=CHUNK_NODES[number % len(CHUNK_NODES)])
        return address

    return make


def nodes_of_chunks(target: Target, chunk_bytes: int) -> list[set[int]]:
    """The nodes that hold pages of each chunk."""
    starts = range(target.address, target.end, chunk_bytes)
    found = placement(target.pid, RangeArray([(at, at + chunk_bytes, PAGE) for at in starts]), n_nodes=4)
    return [{node for node, pages in enumerate(chunk.on_node) if pages} for chunk in found.per_range]


@pytest.mark.parametrize("target_of", [{0: 2, 1: 3}, {0: 1, 1: 0}], ids=["set to set", "swap"])
@pytest.mark.parametrize("chunk_bytes", [16 * PAGE, HUGE], ids=["base", "huge"])
def test_pages_of_each_node_move_to_the_target_of_that_node(chunk_bytes: int, target_of: Mapping[int, int]) -> None:
    with child(16 * MIB if chunk_bytes == HUGE else 4 * MIB, chunks_of(chunk_bytes)) as target:
        huge_kib = anon_huge_kib(target)
        n_chunks, chunk_pages = target.length // chunk_bytes, chunk_bytes // PAGE
        before = [CHUNK_NODES[i % len(CHUNK_NODES)] for i in range(n_chunks)]
        assert nodes_of_chunks(target, chunk_bytes) == [{node} for node in before]
        expected = [target_of.get(node, node) for node in before]
        outcome = carry_out(live_kernel(), step_of(target.pid, spans(target), 2, target_of=target_of))
        assert nodes_of_chunks(target, chunk_bytes) == [{node} for node in expected]
        assert nodes_of(target) == {node: n * chunk_pages for node, n in Counter(expected).items()}
        moved = {node: before.count(node) * chunk_pages for node in target_of}
        assert outcome.moved_from == moved
        assert outcome.pages == {PageStatus.MOVED: sum(moved.values())}
        assert outcome.passed_over == {PageStatus.LEFT_ALONE: target.length // PAGE - sum(moved.values())}
        assert {(run.source, run.target) for run in outcome.moved_runs} == set(target_of.items())
        assert outcome.unrecorded_pages == 0
        assert outcome.verified is not None
        assert outcome.verified.on_target_pages == outcome.verified.asked_pages > 0
        assert anon_huge_kib(target) == huge_kib
        assert target.checksum() == target.sum_before
