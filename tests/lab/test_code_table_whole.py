"""The rows about migrate_pages(2) of the table that test_code_table.py begins: whole processes.

Inside the guest, on each kernel.
"""

import ctypes
import errno
import inspect
import os

import pytest

from balancerd.native import RangeArray, migrate_process, placement
from tests.lab import kernel
from tests.lab.native_targets import HUGE, MIB, PAGE, SOURCE, TARGET, base_pages, child, fill, huge_pages, pin
from tests.lab.syscalls import (
    MASK_BITS,
    as_nobody,
    errno_of,
    mask,
    merged_pages,
    merging,
    node_of_address,
    raw_migrate_pages,
    unmapped_page,
    untouched,
    unused_pid,
)

pytestmark = pytest.mark.kernel(*kernel.SERIES)

NO_NODE = 4  # the first behind the four
KSM_LOOPS = 60  # natively 600


def test_migrate_pages_with_the_same_mask_is_0() -> None:
    address = base_pages(PAGE)
    assert raw_migrate_pages(0, MASK_BITS, mask(SOURCE), mask(SOURCE)) == (0, 0)
    assert migrate_process(os.getpid(), [SOURCE], [SOURCE]) == 0
    assert node_of_address(address) == SOURCE


def test_migrate_pages_moves_a_process_between_sets_and_keeps_the_relative_position() -> None:
    def on_two_nodes(length: int) -> int:
        address = untouched(length)
        fill(address, length // 2, 0)
        fill(address + length // 2, length // 2, 1)
        return address

    with child(MIB, on_two_nodes) as target:
        ranges = RangeArray([(target.address, target.end, PAGE)])
        assert placement(target.pid, ranges, n_nodes=4).on_node == (128, 128, 0, 0)
        migrate_process(target.pid, [0, 1], [2, 3])
        assert placement(target.pid, ranges, n_nodes=4).on_node == (0, 0, 128, 128)
        assert target.checksum() == target.sum_before


def test_migrate_pages_returns_the_pages_that_stayed_behind() -> None:
    def two_pinned(length: int) -> int:
        address = base_pages(length)
        pin(address + 3 * PAGE)
        pin(address + 99 * PAGE)
        return address

    with child(MIB, two_pinned) as target:
        stayed = migrate_process(target.pid, [SOURCE], [TARGET])
        assert 2 <= stayed < 254  # of the whole process, which has other pages that may be busy at this moment
        ranges = RangeArray([(target.address, target.end, PAGE)])
        assert placement(target.pid, ranges, n_nodes=4).on_node == (254, 0, 2, 0)
        assert target.checksum() == target.sum_before


def test_migrate_pages_counts_a_huge_page_that_stayed_behind_as_one() -> None:
    def one_pinned(length: int) -> int:
        address = huge_pages(length)
        pin(address + 3 * PAGE)
        return address

    with child(2 * HUGE, one_pinned) as target:
        assert 1 <= migrate_process(target.pid, [SOURCE], [TARGET]) < HUGE // PAGE
        ranges = RangeArray([(target.address, target.end, PAGE)])
        assert placement(target.pid, ranges, n_nodes=4).on_node == (512, 0, 512, 0)


def test_migrate_pages_of_pid_minus_1_or_unused_is_esrch() -> None:
    """Ours refuses -1 by itself, with EINVAL: no pid is negative, and 0 would mean the caller."""
    pid = unused_pid()
    for missing in (-1, pid):
        assert raw_migrate_pages(missing, MASK_BITS, mask(0), mask(1)) == (-1, errno.ESRCH)
    assert errno_of(lambda: migrate_process(pid, [0], [1])) == errno.ESRCH
    assert errno_of(lambda: migrate_process(-1, [0], [1])) == errno.EINVAL
    assert errno_of(lambda: migrate_process(0, [0], [1])) == errno.EINVAL


def test_migrate_pages_with_maxnode_minus_1_is_einval_and_ours_cannot_ask_for_it() -> None:
    assert raw_migrate_pages(0, -1, mask(0), mask(1)) == (-1, errno.EINVAL)
    assert list(inspect.signature(migrate_process).parameters) == ["pid", "sources", "targets"]
    assert errno_of(lambda: migrate_process(os.getpid(), [0], [MASK_BITS])) == errno.EINVAL
    assert errno_of(lambda: migrate_process(os.getpid(), [MASK_BITS], [0])) == errno.EINVAL
    assert errno_of(lambda: migrate_process(os.getpid(), [0], [-1])) == errno.EINVAL


def test_migrate_pages_with_bad_pointers_is_efault_and_ours_cannot_pass_one() -> None:
    bad = ctypes.c_void_p(unmapped_page())
    assert raw_migrate_pages(0, MASK_BITS, bad, mask(1)) == (-1, errno.EFAULT)
    assert raw_migrate_pages(0, MASK_BITS, mask(0), bad) == (-1, errno.EFAULT)
    assert not {"mask", "nodes", "maxnode"} & set(inspect.signature(migrate_process).parameters)
    with pytest.raises(TypeError):
        migrate_process(os.getpid(), bad, [1])  # type: ignore[arg-type]


def test_migrate_pages_to_an_absent_node_is_einval() -> None:
    assert raw_migrate_pages(0, MASK_BITS, mask(0), mask(NO_NODE)) == (-1, errno.EINVAL)
    assert errno_of(lambda: migrate_process(os.getpid(), [0], [NO_NODE])) == errno.EINVAL


def test_migrate_pages_as_nobody_on_roots_pid_is_eperm() -> None:
    pid = os.getpid()
    raw = as_nobody(lambda: raw_migrate_pages(pid, MASK_BITS, mask(0), mask(1)))
    assert raw == (-1, errno.EPERM)
    assert as_nobody(lambda: errno_of(lambda: migrate_process(pid, [0], [1]))) == errno.EPERM


def test_migrate_pages_on_ksm_pages_in_a_loop_as_nobody_never_fails() -> None:
    """KSM_LOOPS times where a real machine would do 600."""

    def loop() -> list[int]:
        address = merged_pages(64)
        answers = [migrate_process(os.getpid(), [(2, 3)[i % 2]], [(3, 2)[i % 2]]) for i in range(KSM_LOOPS)]
        assert ctypes.string_at(address, 64 * PAGE) == b"\x3c" * 64 * PAGE
        return answers

    with merging():
        answers = as_nobody(loop)
    assert len(answers) == KSM_LOOPS
    assert min(answers) >= 0
