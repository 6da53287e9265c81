"""Every row of the table of return and status codes, one test a row: what the kernel says, and what we make of it.

Inside the guest, on each kernel; test_code_table_whole.py has the rows about migrate_pages(2).  The raw system calls
state the kernel's contract, and balancerd.native is held against it.  The releases differ in UNTOUCHED below only.
"""

import contextlib
import ctypes
import errno
import inspect
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from balancerd.native import RangeArray, migrate, moving, placement
from tests.lab import kernel
from tests.lab.conftest import INSIDE_KERNEL
from tests.lab.native_targets import (
    HUGE,
    MADV_HUGEPAGE,
    MAP_FIXED,
    MAP_HUGETLB,
    PAGE,
    SOURCE,
    TARGET,
    base_pages,
    child,
    fill,
    huge_page_pool,
    libc,
    map_aligned,
)
from tests.lab.syscalls import (
    MASK_BITS,
    MOVE,
    MOVE_ALL,
    STRICT,
    as_nobody,
    child_process,
    errno_of,
    node_of_address,
    pages_at,
    raw_move_pages,
    step,
    unmapped_page,
    untouched,
    unused_pid,
    zero_page,
)

pytestmark = pytest.mark.kernel(*kernel.SERIES)

KTHREADD = 2
NO_NODE = 4  # the first behind the four
MAP_LOOPS = 400  # natively this row is run 10,000 times; emulated, so many take about 10 s

# An untouched page of anonymous memory has no node: since 6.12 that is ENOENT, on 4.3 to 6.11 EFAULT (follow_page with
# FOLL_DUMP), as if nothing were mapped there.  So on older kernels it counts among the pages in error, not the absent.
UNTOUCHED = errno.ENOENT if INSIDE_KERNEL == "6.12" else errno.EFAULT


# Queries


def test_query_two_pages_on_a_and_b_gives_a_and_b_as_get_mempolicy_does() -> None:
    for a, b in [(2, 0), (0, 3), (3, 1), (1, 1)]:
        address = untouched(2 * PAGE)
        fill(address, PAGE, a)
        fill(address + PAGE, PAGE, b)
        assert raw_move_pages([address, address + PAGE]) == (0, 0, [a, b])
        assert [node_of_address(address), node_of_address(address + PAGE)] == [a, b]
        ours = placement(os.getpid(), pages_at(address, address + PAGE), n_nodes=4)
        assert [row.on_node.index(1) for row in ours.per_range] == [a, b]
        assert (ours.queried_pages, sum(ours.on_node), ours.by_errno, ours.unwritten_pages) == (2, 2, (), 0)


# Moves


def test_move_from_a_to_b_then_write_keeps_the_contents_and_stays_on_b() -> None:
    address = base_pages(8 * PAGE)
    before = ctypes.string_at(address, 8 * PAGE)
    raw = [address + i * PAGE for i in range(2)]
    assert raw_move_pages(raw, [TARGET] * 2) == (0, 0, [TARGET] * 2)
    done = step(RangeArray([(address, address + 8 * PAGE, PAGE)]))
    assert (done.already_on_target_pages, done.moved_pages, done.from_node) == (2, 6, ((SOURCE, 6),))
    assert ctypes.string_at(address, 8 * PAGE) == before
    ctypes.memset(address, 0x5A, 8 * PAGE)
    assert ctypes.string_at(address, 8 * PAGE) == b"\x5a" * 8 * PAGE
    assert {node_of_address(address + i * PAGE) for i in range(8)} == {TARGET}


@contextlib.contextmanager
def one_shared_and_one_private_page() -> Iterator[tuple[int, int]]:
    """Two pages on the source node; a child maps and has touched the first, too."""
    shared = mmap.mmap(-1, PAGE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    fill(address, PAGE)
    go, ready = os.pipe(), os.pipe()

    def touch() -> None:
        ctypes.string_at(address, PAGE)
        os.write(ready[1], b".")
        os.close(go[1])
        os.read(go[0], 1)

    with child_process(touch) as answer:
        os.read(ready[0], 1)
        yield address, base_pages(PAGE)
        os.close(go[1])
        answer()
    for descriptor in (go[0], *ready):
        os.close(descriptor)


def test_anonymous_map_shared_with_a_child_move_all_as_root_gives_b() -> None:
    with one_shared_and_one_private_page() as (shared, private):
        assert raw_move_pages([shared, private], [TARGET] * 2, flags=MOVE_ALL) == (0, 0, [TARGET] * 2)
    with one_shared_and_one_private_page() as (shared, private):
        done = step(pages_at(shared, private), move_all=True)
        assert (done.moved_pages, done.by_errno, done.error) == (2, (), None)
        assert [node_of_address(shared), node_of_address(private)] == [TARGET, TARGET]


def test_anonymous_map_shared_with_a_child_move_gives_eacces_for_shared_and_b_for_private() -> None:
    with one_shared_and_one_private_page() as (shared, private):
        assert raw_move_pages([shared, private], [TARGET] * 2) == (0, 0, [-errno.EACCES, TARGET])
    with one_shared_and_one_private_page() as (shared, private):
        done = step(pages_at(shared, private))
        assert (done.moved_pages, done.by_errno, done.error) == (1, ((errno.EACCES, 1),), None)
        assert [node_of_address(shared), node_of_address(private)] == [SOURCE, TARGET]


@pytest.mark.parametrize(
    ("make", "error"), [(untouched, UNTOUCHED), (zero_page, errno.EFAULT), (unmapped_page, errno.EFAULT)]
)
def test_untouched_page_zero_page_and_unmapped_page_have_no_node(make: Callable[[], int], error: int) -> None:
    address = make()
    assert raw_move_pages([address]) == (0, 0, [-error])
    assert raw_move_pages([address], [TARGET]) == (0, 0, [-error])
    assert placement(os.getpid(), pages_at(address), n_nodes=4).by_errno == ((error, 1),)
    done = step(pages_at(address))
    absent = int(error == errno.ENOENT)
    assert (done.absent_pages, done.other_before_pages, done.submitted_pages) == (absent, 1 - absent, 0)
    assert (done.calls, done.error) == (0, None)


# Errors of the whole call


def test_node_max_plus_1_is_enodev() -> None:
    address = base_pages(PAGE)
    for node in (NO_NODE, MASK_BITS, -1):
        assert raw_move_pages([address], [node])[:2] == (-1, errno.ENODEV)
    done = step(pages_at(address), node=NO_NODE)
    assert (done.error, done.moved_pages, done.not_attempted_pages) == (errno.ENODEV, 0, 1)
    assert errno_of(lambda: step(pages_at(address), node=-1)) == errno.EINVAL  # ours refuses it before the kernel can
    assert node_of_address(address) == SOURCE


def test_unused_pid_is_esrch() -> None:
    address, pid = base_pages(PAGE), unused_pid()
    assert raw_move_pages([address], pid=pid)[:2] == (-1, errno.ESRCH)
    assert raw_move_pages([address], [TARGET], pid=pid)[:2] == (-1, errno.ESRCH)
    assert errno_of(lambda: placement(pid, pages_at(address), n_nodes=4)) == errno.ESRCH
    done = step(pages_at(address), pid=pid)
    assert (done.error, done.looked_pages, done.is_done) == (errno.ESRCH, 0, False)


def test_flags_mpol_mf_strict_is_einval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours has no parameter for flags; the C function behind it refuses all but MOVE and MOVE_ALL."""
    address = base_pages(PAGE)
    for flags in (STRICT, MOVE | STRICT):
        assert raw_move_pages([address], [TARGET], flags=flags)[:2] == (-1, errno.EINVAL)
    assert "flags" not in inspect.signature(migrate).parameters
    for flags in (STRICT, MOVE | STRICT, 0):
        monkeypatch.setattr(moving, "_MPOL_MF_MOVE", flags)
        assert errno_of(lambda: step(pages_at(address))) == errno.EINVAL
    assert node_of_address(address) == SOURCE


def test_move_all_as_nobody_is_eperm() -> None:
    address = base_pages(PAGE)

    def attempt() -> tuple[object, ...]:
        raw = raw_move_pages([address], [TARGET], flags=MOVE_ALL)[:2]
        done = step(pages_at(address), move_all=True)
        return (*raw, done.error, done.moved_pages, done.not_attempted_pages, node_of_address(address))

    assert as_nobody(attempt) == (-1, errno.EPERM, errno.EPERM, 0, 1, SOURCE)


def test_target_node_outside_the_cpuset_is_eacces_even_for_root() -> None:
    group = Path("/sys/fs/cgroup/code-table")
    with child(4 * PAGE, base_pages) as target:
        group.mkdir()
        try:
            (group / "cpuset.mems").write_text(str(SOURCE))
            (group / "cgroup.procs").write_text(str(target.pid))
            assert raw_move_pages([target.address], [TARGET], pid=target.pid)[:2] == (-1, errno.EACCES)
            done = step(RangeArray([(target.address, target.end, PAGE)]), pid=target.pid)
            assert (done.error, done.moved_pages, done.not_attempted_pages) == (errno.EACCES, 0, 4)
            assert raw_move_pages([target.address], pid=target.pid) == (0, 0, [SOURCE])
        finally:
            target.kill()
            group.rmdir()


def test_another_users_process_without_ptrace_access_is_eperm() -> None:
    address, pid = base_pages(PAGE), os.getpid()

    def attempt() -> tuple[object, ...]:
        raw = raw_move_pages([address], pid=pid)[:2] + raw_move_pages([address], [TARGET], pid=pid)[:2]
        done = step(pages_at(address), pid=pid)
        return (*raw, errno_of(lambda: placement(pid, pages_at(address), n_nodes=4)), done.error, done.looked_pages)

    assert as_nobody(attempt) == (-1, errno.EPERM, -1, errno.EPERM, errno.EPERM, errno.EPERM, 0)
    assert node_of_address(address) == SOURCE


def test_a_kernel_thread_is_einval() -> None:
    assert Path(f"/proc/{KTHREADD}/comm").read_text() == "kthreadd\n"
    address = base_pages(PAGE)
    assert raw_move_pages([address], pid=KTHREADD)[:2] == (-1, errno.EINVAL)
    assert raw_move_pages([address], [TARGET], pid=KTHREADD)[:2] == (-1, errno.EINVAL)
    assert errno_of(lambda: placement(KTHREADD, pages_at(address), n_nodes=4)) == errno.EINVAL
    assert step(pages_at(address), pid=KTHREADD).error == errno.EINVAL


# Huge pages


def test_the_second_address_in_a_queued_thp_is_ebusy_and_ours_counts_the_thp_once_as_moved() -> None:
    def thp() -> int:
        address = map_aligned(HUGE)
        libc.madvise(address, HUGE, MADV_HUGEPAGE)
        fill(address, HUGE)
        return address

    address = thp()
    _, error, statuses = raw_move_pages([address, address + PAGE], [TARGET] * 2)
    assert (error, statuses) == (0, [TARGET, -errno.EBUSY])
    assert raw_move_pages([address, address + PAGE]) == (0, 0, [TARGET] * 2)  # it has moved, whatever the status says
    address = thp()
    done = step(RangeArray([(address, address + HUGE, PAGE)]))
    assert (done.moved_pages, done.whole_folios, done.by_errno, done.calls) == (512, 1, (), 1)
    address = thp()
    done = step(
        RangeArray([(address, address + HUGE, PAGE)]), huge_bytes=0
    )  # every address, as if they were base pages
    assert (done.moved_pages, done.by_errno, done.not_attempted_pages) == (512, (), 0)


def test_two_hugetlb_pages_moved_by_a_child_while_the_parent_maps_and_unmaps_never_crash() -> None:
    """MAP_LOOPS times where a real machine would do 10,000; a crash of the kernel would end the machine."""
    parent, both = os.getpid(), 2 * HUGE
    fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB
    address = map_aligned(both)
    flag = mmap.mmap(-1, PAGE)
    pools = [huge_page_pool(node) for node in (0, 1)]

    def keep_moving() -> tuple[int, int, set[int | None], set[int]]:
        steps, moved = 0, 0
        errors: set[int | None] = set()
        statuses: set[int] = set()
        ranges = RangeArray([(address, address + both, HUGE)])
        while not flag[0]:
            done = step(ranges, pid=parent, node=steps % 2)
            steps, moved = steps + 1, moved + done.moved_pages // 512
            errors.add(done.error)
            statuses.update(number for number, _ in done.by_errno)
        return steps, moved, errors, statuses

    try:
        for pool in pools:
            pool.write_text("4")
            assert pool.read_text() == "4\n"
        with child_process(keep_moving) as answer:
            try:
                for _ in range(MAP_LOOPS):
                    assert libc.mmap(address, both, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0) == address
                    ctypes.memset(address, 1, 1)
                    ctypes.memset(address + HUGE, 1, 1)
                    assert libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(both)) == 0
            finally:
                flag[0] = 1
            steps, moved, errors, statuses = answer()
        assert steps > 10
        assert moved > 0
        assert errors <= {None, errno.ENOMEM}
        assert statuses <= {errno.ENOMEM, errno.EBUSY, errno.ENOENT, errno.EFAULT}
    finally:
        for pool in pools:
            pool.write_text("0")
