"""What the tests of return codes and page kinds share: the raw system calls, one step of ours, and other processes.

Inside the guest.  The raw calls say what the kernel answers, so that our functions can be held against it.
"""

import contextlib
import ctypes
import errno
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from balancerd.native import Cursor, Migration, RangeArray, migrate
from tests.lab.native_targets import (
    HUGE,
    MADV_NOHUGEPAGE,
    PAGE,
    TARGET,
    assert_sums_hold,
    base_pages,
    libc,
    map_aligned,
)

T = TypeVar("T")

MOVE_PAGES, MIGRATE_PAGES, GET_MEMPOLICY = 279, 256, 239  # arch/x86/entry/syscalls/syscall_64.tbl
MPOL_F_NODE, MPOL_F_ADDR = 1, 2  # include/uapi/linux/mempolicy.h
STRICT, MOVE, MOVE_ALL = 1, 2, 4
MADV_MERGEABLE = 12
NOBODY = 65534
MASK_BITS = 1024  # MAX_NUMNODES of Debian's kernels
KSM = Path("/sys/kernel/mm/ksm")
UNWRITTEN = 999


def raw_move_pages(
    addresses: Sequence[int], nodes: Sequence[int] | None = None, *, pid: int = 0, flags: int = MOVE
) -> tuple[int, int, list[int]]:
    """move_pages(2) itself: what it returns, errno (0 without an error), and statuses (UNWRITTEN: none was written)."""
    n = len(addresses)
    status = (ctypes.c_int * n)(*[UNWRITTEN] * n)
    wanted = None if nodes is None else (ctypes.c_int * n)(*nodes)
    ctypes.set_errno(0)
    pages = (ctypes.c_void_p * n)(*addresses)
    rc = libc.syscall(MOVE_PAGES, pid, ctypes.c_ulong(n), pages, wanted, status, 0 if nodes is None else flags)
    return rc, ctypes.get_errno() if rc < 0 else 0, list(status)


def raw_migrate_pages(pid: int, bits: int, old: object, new: object) -> tuple[int, int]:
    """migrate_pages(2) itself: what it returns, and errno (0 without an error)."""
    ctypes.set_errno(0)
    rc = libc.syscall(MIGRATE_PAGES, pid, ctypes.c_ulong(bits & (1 << 64) - 1), old, new)
    return rc, ctypes.get_errno() if rc < 0 else 0


def mask(*nodes: int) -> object:
    words = (ctypes.c_ulong * (MASK_BITS // 64))()
    for node in nodes:
        words[node // 64] |= 1 << node % 64
    return words


def node_of_address(address: int) -> int:
    """get_mempolicy(2) with MPOL_F_NODE | MPOL_F_ADDR."""
    node = ctypes.c_int(-1)
    flags = MPOL_F_NODE | MPOL_F_ADDR
    assert libc.syscall(GET_MEMPOLICY, ctypes.byref(node), None, 0, ctypes.c_void_p(address), flags) == 0
    return node.value


def pages_at(*addresses: int, step_bytes: int = PAGE) -> RangeArray:
    return RangeArray([(address, address + step_bytes, step_bytes) for address in addresses])


def step(
    ranges: RangeArray, *, node: int = TARGET, pid: int | None = None, move_all: bool = False, huge_bytes: int = HUGE
) -> Migration:
    """One step of ours over all of the ranges."""
    done = migrate(
        pid or os.getpid(),
        ranges,
        node=node,
        cursor=Cursor(),
        batch_pages=4096,
        look_pages=1 << 20,
        move_all=move_all,
        huge_bytes=huge_bytes,
    )
    assert_sums_hold(done)
    return done


def settled_step(ranges: RangeArray, *, move_all: bool = False) -> Migration:
    """One step, taken again as long as all that kept pages is EBUSY: ksmd or kcompactd holds them for a moment."""
    deadline = time.monotonic() + 10
    while True:
        done = step(ranges, move_all=move_all)
        if done.moved_pages or {error for error, _ in done.by_errno} != {errno.EBUSY} or time.monotonic() > deadline:
            return done
        time.sleep(0.05)


def errno_of(call: Callable[[], object]) -> int | None:
    """The errno that a call raises; 0 if it returns."""
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


@contextlib.contextmanager
def child_process(do: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Fork a process that does something; yields the function that waits for its answer."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(write, "wb") as stream:
                pickle.dump(do(), stream)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        yield lambda: pickle.load(stream)  # noqa: S301 our own child wrote it
    os.waitpid(pid, 0)


def as_nobody(do: Callable[[], T]) -> T:
    """Do something in a child process that has given up root."""

    def fallen() -> T:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return do()

    with child_process(fallen) as answer:
        return answer()


def untouched(length: int = PAGE) -> int:
    """A mapping that only takes base pages, and has none yet."""
    address = map_aligned(length)
    libc.madvise(address, length, MADV_NOHUGEPAGE)
    return address


def zero_page() -> int:
    """A page that was only read: the kernel's one page of zeros."""
    address = untouched()
    assert ctypes.string_at(address, 1) == b"\0"
    return address


def unmapped_page() -> int:
    """An address where nothing is mapped, and nothing will be."""
    address = untouched()
    assert libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(PAGE)) == 0
    return address


def unused_pid() -> int:
    with child_process(os.getpid) as answer:
        return answer()


@contextlib.contextmanager
def merging() -> Iterator[None]:
    """The kernel's same-page merging, in a hurry; afterwards everything is unmerged."""
    (KSM / "sleep_millisecs").write_text("10")
    (KSM / "pages_to_scan").write_text("2000")
    (KSM / "run").write_text("1")
    try:
        yield
    finally:
        (KSM / "run").write_text("2")


def merged_pages(n: int) -> int:
    """n pages of one content on the source node, after KSM has merged nearly all of them."""
    address = base_pages(n * PAGE)
    for at in range(address, address + n * PAGE, PAGE):
        ctypes.memset(at, 0x3C, PAGE)
    before = int((KSM / "pages_sharing").read_text())
    assert libc.madvise(address, n * PAGE, MADV_MERGEABLE) == 0
    deadline = time.monotonic() + 30
    while int((KSM / "pages_sharing").read_text()) - before < n - 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return address
