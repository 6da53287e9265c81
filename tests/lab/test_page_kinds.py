"""Kinds of pages that need care, through our own functions: what moves, what stays, and the count it is given.

Inside the guest; test_native_lab.py has base, huge, hugetlb, 64 KiB, shared, mlocked, zero and pipe-pinned pages.
Hugetlb pages of 1 GiB have no room here: no node of the lab has that much contiguous memory left at boot.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from balancerd.native import RangeArray, placement
from tests.lab import kernel
from tests.lab.native_targets import (
    HUGE,
    MADV_HUGEPAGE,
    MAP_FIXED,
    PAGE,
    SOURCE,
    TARGET,
    IoVector,
    base_pages,
    bind_new_pages_to,
    fill,
    huge_pages,
    libc,
    map_aligned,
    vmstat,
)
from tests.lab.syscalls import KSM, merged_pages, merging, raw_move_pages, settled_step, step

pytestmark = pytest.mark.kernel(*kernel.SERIES)

IO_URING_SETUP, IO_URING_REGISTER = 425, 427  # arch/x86/entry/syscalls/syscall_64.tbl
IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS = 0, 1  # include/uapi/linux/io_uring.h
IO_URING_PARAMS_BYTES = 120
SHMEM_HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


# Asked where the pages of such a mapping are, 6.12 answers as for absent pages, and 6.1 with EFAULT for those that are
# mapped.  Asked to move them, both answer EFAULT.
NOT_MEMORY = {errno.ENOENT, errno.EFAULT}


def range_of(address: int, length: int) -> RangeArray:
    return RangeArray([(address, address + length, PAGE)])


def nodes_at(address: int, length: int) -> tuple[int, ...]:
    return placement(os.getpid(), range_of(address, length), n_nodes=4).on_node


# Merged by the kernel (KSM)


def test_merged_pages_count_as_shared_and_move_together_with_move_all() -> None:
    with merging():
        address = merged_pages(64)
        done = step(range_of(address, 64 * PAGE))
        assert (done.moved_pages, done.by_errno) == (0, ((errno.EACCES, 64),))
        assert nodes_at(address, 64 * PAGE) == (0, 0, 64, 0)
        done = settled_step(range_of(address, 64 * PAGE), move_all=True)
        assert (done.moved_pages, done.by_errno, done.from_node) == (64, (), ((SOURCE, 64),))
        assert nodes_at(address, 64 * PAGE) == (64, 0, 0, 0)
        assert int((KSM / "pages_sharing").read_text()) >= 62  # moved, not unmerged
        assert ctypes.string_at(address, 64 * PAGE) == b"\x3c" * 64 * PAGE


# Not memory of ours: VM_IO, VM_PFNMAP


def mapping_named(name: str) -> tuple[int, int]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    (line,) = [line for line in lines if line.endswith(name)]
    start, end = (int(word, 16) for word in line.split()[0].split("-"))
    return start, end - start


@contextlib.contextmanager
def kernel_data() -> Iterator[tuple[int, int]]:
    """Pages of the kernel's that every process maps to read the clock (VM_PFNMAP)."""
    yield mapping_named("[vvar]")


@contextlib.contextmanager
def device_registers() -> Iterator[tuple[int, int]]:
    """Registers of a PCI device that no driver has claimed (VM_IO)."""
    for device in sorted(Path("/sys/bus/pci/devices").iterdir()):
        for number, line in enumerate((device / "resource").read_text().splitlines()[:6]):
            start, end, flags = (int(word, 16) for word in line.split())
            if flags & 0x200 and not (device / "driver").exists():  # IORESOURCE_MEM
                with (
                    (device / f"resource{number}").open("r+b") as file,
                    mmap.mmap(file.fileno(), end + 1 - start) as area,
                ):
                    view = ctypes.c_char.from_buffer(area)
                    try:
                        yield ctypes.addressof(view), len(area)
                    finally:
                        del view
                return
    pytest.fail("no PCI device without a driver has memory to map")


@pytest.mark.parametrize("make", [kernel_data, device_registers])
def test_mappings_of_devices_and_of_the_kernel_are_never_submitted(
    make: Callable[[], contextlib.AbstractContextManager[tuple[int, int]]],
) -> None:
    with make() as (address, length):
        flags = re.search(rf"(?ms)^{address:x}-.*?^VmFlags:(.*?)$", Path("/proc/self/smaps").read_text())
        assert flags is not None
        assert {"pf", "io"} <= set(flags[1].split())  # VM_PFNMAP, VM_IO
        assert raw_move_pages([address], [TARGET]) == (0, 0, [-errno.EFAULT])
        n_pages = length // PAGE
        found = placement(os.getpid(), range_of(address, length), n_nodes=4)
        assert sum(found.on_node) == 0
        assert {number for number, _ in found.by_errno} <= NOT_MEMORY
        done = step(range_of(address, length))
        assert (done.looked_pages, done.absent_pages + done.other_before_pages) == (n_pages, n_pages)
        assert (done.submitted_pages, done.calls, done.is_done) == (0, 0, True)


# Pinned for a device (io_uring's registered buffers)


@contextlib.contextmanager
def registered_buffer(address: int, length: int) -> Iterator[None]:
    """A buffer that io_uring holds for as long as it is registered: a long-term pin, as of RDMA and VFIO."""
    parameters = ctypes.create_string_buffer(IO_URING_PARAMS_BYTES)
    ring = libc.syscall(IO_URING_SETUP, 8, parameters)
    assert ring >= 0, os.strerror(ctypes.get_errno())
    try:
        vector = IoVector(address, length)
        rc = libc.syscall(IO_URING_REGISTER, ring, IORING_REGISTER_BUFFERS, ctypes.byref(vector), 1)
        assert rc == 0, os.strerror(ctypes.get_errno())
        yield
        assert libc.syscall(IO_URING_REGISTER, ring, IORING_UNREGISTER_BUFFERS, None, 0) == 0
    finally:
        os.close(ring)


def test_pages_registered_with_io_uring_stay_busy_until_they_are_released() -> None:
    address, length = base_pages(64 * PAGE), 64 * PAGE
    before = ctypes.string_at(address, length)
    with registered_buffer(address + 8 * PAGE, 16 * PAGE):
        assert nodes_at(address, length) == (0, 0, 64, 0)  # every node takes movable pages: the pin itself moves none
        done = step(range_of(address, length))
        assert (done.moved_pages, done.by_errno, done.refused_pages) == (48, ((errno.EBUSY, 16),), 16)
        assert nodes_at(address + 8 * PAGE, 16 * PAGE) == (0, 0, 16, 0)
    done = step(range_of(address, length))
    assert (done.moved_pages, done.already_on_target_pages, done.by_errno) == (16, 48, ())
    assert ctypes.string_at(address, length) == before


def test_a_huge_page_with_one_registered_page_stays_whole_until_it_is_released() -> None:
    address, length = huge_pages(2 * HUGE), 2 * HUGE
    splits = vmstat("thp_migration_split"), vmstat("thp_split_page")
    with registered_buffer(address + 5 * PAGE, PAGE):
        done = step(range_of(address, length))
        assert (done.moved_pages, done.whole_folios, done.by_errno) == (512, 1, ((errno.EBUSY, 512),))
        assert done.stuck_pages > 500  # not tried by every address
        assert nodes_at(address, length) == (512, 0, 512, 0)
    done = step(range_of(address, length))
    assert (done.moved_pages, done.already_on_target_pages, done.whole_folios) == (512, 512, 1)
    assert (vmstat("thp_migration_split"), vmstat("thp_split_page")) == splits


# Shared memory and files


@contextlib.contextmanager
def memory_file(length: int) -> Iterator[int]:
    """Shared memory without a name that this process alone maps, at a multiple of 2 MiB."""
    file = os.memfd_create("kinds")
    os.ftruncate(file, length)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = int(libc.mmap(map_aligned(length), length, protection, mmap.MAP_SHARED | MAP_FIXED, file, 0))
    try:
        yield address
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
        os.close(file)


def test_shmem_of_one_process_moves_like_its_own_memory() -> None:
    with memory_file(64 * PAGE) as address:
        fill(address, 64 * PAGE)
        before = ctypes.string_at(address, 64 * PAGE)
        done = step(range_of(address, 64 * PAGE))
        assert (done.moved_pages, done.by_errno, done.from_node) == (64, (), ((SOURCE, 64),))
        assert nodes_at(address, 64 * PAGE) == (64, 0, 0, 0)
        assert ctypes.string_at(address, 64 * PAGE) == before


def test_shmem_in_huge_pages_moves_whole_and_by_one_address_each() -> None:
    setting = SHMEM_HUGE.read_text().partition("[")[2].partition("]")[0]
    SHMEM_HUGE.write_text("advise")
    try:
        with memory_file(2 * HUGE) as address:
            libc.madvise(address, 2 * HUGE, MADV_HUGEPAGE)
            fill(address, 2 * HUGE)
            before = ctypes.string_at(address, 2 * HUGE)
            assert huge_shmem_kib(address) == 4096
            done = step(range_of(address, 2 * HUGE))
            assert (done.moved_pages, done.whole_folios, done.by_errno) == (1024, 2, ())
            assert nodes_at(address, 2 * HUGE) == (1024, 0, 0, 0)
            assert ctypes.string_at(address, 2 * HUGE) == before
    finally:
        SHMEM_HUGE.write_text(setting)


def huge_shmem_kib(address: int) -> int:
    found = re.search(rf"(?ms)^{address:x}-.*?^ShmemPmdMapped: +(\d+) kB$", Path("/proc/self/smaps").read_text())
    assert found is not None
    return int(found[1])


def test_pages_of_a_file_that_nobody_else_maps_move() -> None:
    length = 64 * PAGE
    file = os.open("/usr/bin/qemu-system-x86_64", os.O_RDONLY)  # on the host's file system; nothing inside runs it
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        bind_new_pages_to(SOURCE)
        address = int(libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, file, 0))
        before = ctypes.string_at(address, length)
        bind_new_pages_to(None)
        assert nodes_at(address, length) == (0, 0, 64, 0)
        done = step(range_of(address, length))
        assert (done.moved_pages, done.by_errno) == (64, ())
        assert nodes_at(address, length) == (64, 0, 0, 0)
        assert ctypes.string_at(address, length) == before
    finally:
        os.close(file)
