"""Processes whose memory is of a known kind on a known node, moved by the native core, and what the kernel tells.

Inside the guest. The truth comes from numa_maps, smaps and vmstat, never from move_pages itself.
"""

import ctypes
import errno
import mmap
import os
import re
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from balancerd.native import Cursor, Migration, RangeArray, migrate

MIB = 1 << 20
PAGE = 4096
HUGE = 2 * MIB
SOURCE, TARGET = 2, 0
MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 4, 14, 15  # include/uapi/asm-generic/mman-common.h
MADV_POPULATE_WRITE = 23
MAP_FIXED, MAP_NORESERVE, MAP_HUGETLB = 0x10, 0x4000, 0x40000
MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND = 0, 1, 2
SET_MEMPOLICY = 238  # arch/x86/entry/syscalls/syscall_64.tbl
VMSPLICE = 278
THP = Path("/sys/kernel/mm/transparent_hugepage")

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class IoVector(ctypes.Structure):
    """struct iovec of vmsplice(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def bind_new_pages_to(node: int | None) -> None:
    mask = ctypes.c_ulong(0 if node is None else 1 << node)
    mode, pointer = (MPOL_DEFAULT, None) if node is None else (MPOL_BIND, ctypes.byref(mask))
    assert libc.syscall(SET_MEMPOLICY, mode, pointer, 64 if pointer else 0) == 0, os.strerror(ctypes.get_errno())


def map_aligned(length: int, flags: int = 0) -> int:
    """An anonymous private mapping that begins at a multiple of 2 MiB, between unmapped pages; its address."""
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags
    if flags & MAP_HUGETLB:
        address = libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1, 0)
        assert address != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
        return int(address)
    spare = int(libc.mmap(None, length + 2 * HUGE, 0, anonymous | MAP_NORESERVE, -1, 0))
    address = (spare + HUGE) & -HUGE
    fixed = anonymous | MAP_FIXED
    assert libc.mmap(address, length, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0) == address
    return address


def fill(address: int, length: int, node: int = SOURCE) -> None:
    """Touch a mapping on a node: every page with contents of its own."""
    bind_new_pages_to(node)
    page = os.urandom(PAGE - 8)
    for at in range(address, address + length, PAGE):
        ctypes.memmove(at, at.to_bytes(8, "little") + page, PAGE)
    bind_new_pages_to(None)


def checksum(address: int, length: int) -> int:
    return zlib.crc32((ctypes.c_char * length).from_address(address))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A child process with one mapping of interest."""

    pid: int
    address: int
    length: int
    sum_before: int
    commands: int
    answers: int

    @property
    def end(self) -> int:
        return self.address + self.length

    def checksum(self) -> int:
        os.write(self.commands, b"sum\n")
        return int(os.read(self.answers, 64))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextmanager
def child(length: int, make: Callable[[int], int]) -> Iterator[Target]:
    """Fork a process that runs make(length), which returns an address, then gives checksums until it is killed."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            address = make(length)
            os.write(answer_write, b"%d %d\n" % (address, checksum(address, length)))
            while os.read(command_read, 4):
                os.write(answer_write, b"%d\n" % checksum(address, length))
        except BaseException as error:  # noqa: BLE001 the child of a fork must not come back into pytest
            print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os.close(answer_write)
    os.close(command_read)
    try:
        words = os.read(answer_read, 64).split()
        assert words, "the child failed: see its standard error"
        yield Target(
            pid=pid,
            address=int(words[0]),
            length=length,
            sum_before=int(words[1]),
            commands=command_write,
            answers=answer_read,
        )
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(command_write)
        os.close(answer_read)


def pin(address: int) -> None:
    """Hold a reference to a page, by a pipe that nobody reads: it cannot move while this process lives."""
    _, write = os.pipe()
    vector = IoVector(address, PAGE)
    assert libc.syscall(VMSPLICE, write, ctypes.byref(vector), 1, 0) == PAGE


def share(pages: list[int], node: int = SOURCE) -> None:
    """Touch pages on a node and let another process map them too, until this one is gone."""
    for address in pages:
        fill(address, PAGE, node)
    if os.fork() == 0:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        signal.pause()


def base_pages(length: int) -> int:
    address = map_aligned(length)
    libc.madvise(address, length, MADV_NOHUGEPAGE)
    fill(address, length)
    return address


def huge_pages(length: int) -> int:
    address = map_aligned(length)
    libc.madvise(address, length, MADV_HUGEPAGE)
    fill(address, length)
    return address


def mixed_pages(length: int) -> int:
    """Blocks of 2 MiB: two huge, two of base pages, and so on."""
    address = map_aligned(length)
    for number, at in enumerate(range(address, address + length, HUGE)):
        libc.madvise(at, HUGE, MADV_HUGEPAGE if number % 4 < 2 else MADV_NOHUGEPAGE)
    fill(address, length)
    return address


def nodes_of(target: Target) -> dict[int, int]:
    """Pages of the kernel's own page size on each node, over all mappings inside the target's range."""
    nodes: dict[int, int] = {}
    for line in Path(f"/proc/{target.pid}/numa_maps").read_text().splitlines():
        if target.address <= int(line.split()[0], 16) < target.end:
            for node, pages in re.findall(r" N(\d+)=(\d+)", line):
                nodes[int(node)] = nodes.get(int(node), 0) + int(pages)
    return nodes


def nodes_at_rest(target: Target, n_pages: int) -> dict[int, int]:
    """What nodes_of() says once it knows n_pages, or after 10 s: those that the kernel is compacting are on no node."""
    end = time.monotonic() + 10.0
    while sum((nodes := nodes_of(target)).values()) != n_pages and time.monotonic() < end:
        time.sleep(0.05)
    return nodes


def huge_page_pool(node: int) -> Path:
    return Path(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages")


def free_mib(node: int) -> int:
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text(encoding="ascii")
    return int(text.partition("MemFree:")[2].split()[0]) >> 10


def take_free(node: int) -> tuple[int, int]:
    """Take all that is free on a node down to its watermarks, in base pages; where they are mapped, and how much.

    What the node has no room for lies on others: nobody is killed for it.
    """
    length = free_mib(node) * MIB
    mask = ctypes.c_ulong(1 << node)
    assert libc.syscall(SET_MEMPOLICY, MPOL_PREFERRED, ctypes.byref(mask), 64) == 0
    address = map_aligned(length)
    assert libc.madvise(address, length, MADV_NOHUGEPAGE) == 0
    assert libc.madvise(address, length, MADV_POPULATE_WRITE) == 0
    return address, length


@contextmanager
def full(node: int) -> Iterator[None]:
    """A node without room: its free huge blocks are in the pool, and the fragments between them are taken too."""
    pool = huge_page_pool(node)
    try:
        pool.write_text("600", encoding="ascii")
        assert int(pool.read_text(encoding="ascii")) > 300
        with child(PAGE, lambda _: take_free(node)[0]):
            yield
    finally:
        pool.write_text("0", encoding="ascii")


def found(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return int(match[1])


def sum_in_smaps(target: Target, name: str) -> int:
    """A field of smaps in KiB, over all mappings inside the target's range."""
    text = Path(f"/proc/{target.pid}/smaps").read_text()
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text)[1:]
    inside = (part for part in parts if target.address <= int(part.split("-")[0], 16) < target.end)
    return sum(found(rf"(?m)^{name}: +(\d+)", part) for part in inside)


def anon_huge_kib(target: Target) -> int:
    return sum_in_smaps(target, "AnonHugePages")


def vmstat(name: str) -> int:
    return found(rf"(?m)^{name} (\d+)$", Path("/proc/vmstat").read_text())


@contextmanager
def groups_of_the_kernel() -> Iterator[Callable[[], list[int]]]:
    """Tell how many base pages each group had that the kernel migrated for this process, by its tracepoint."""
    folder = Path("/sys/kernel/tracing/instances/groups")
    folder.mkdir()
    try:
        (folder / "set_event_pid").write_text(str(os.getpid()), encoding="ascii")
        (folder / "events/migrate/mm_migrate_pages/enable").write_text("1", encoding="ascii")
        yield lambda: [int(pages) for pages in re.findall(r"nr_succeeded=(\d+)", (folder / "trace").read_text())]
    finally:
        folder.rmdir()  # which ends its events, too


def assert_sums_hold(step: Migration) -> None:
    errors = sum(pages for _, pages in step.by_errno)
    before = step.already_on_target_pages + step.left_alone_pages + step.absent_pages + step.other_before_pages
    assert step.looked_pages == before + step.no_room_pages + step.submitted_pages
    assert step.submitted_pages == step.moved_pages + errors + step.not_attempted_pages + step.unwritten_pages
    assert step.moved_pages == sum(pages for _, pages in step.from_node)
    assert step.other_before_pages == sum(pages for _, pages in step.before_errno)
    assert step.refused_pages + step.stuck_pages <= dict(step.by_errno).get(errno.EBUSY, 0)
    recorded = sum(run.end - run.start for run in step.runs) // PAGE
    assert recorded + step.unrecorded_pages == step.moved_pages + errors + step.unwritten_pages
    assert len(step.call_seconds) == min(step.calls, 64)
    assert step.calls > 64 or abs(sum(step.call_seconds) - step.moving_seconds) < 1e-6


def move(
    target: Target,
    *,
    step_bytes: int = PAGE,
    batch_pages: int = 512,
    look_pages: int = 8192,
    node: int | None = TARGET,
    target_of: Mapping[int, int] | None = None,
    large_room_pages: int | None = None,
    group_pages: int = 0,
) -> list[Migration]:
    """Every step until the range is done or a call fails."""
    ranges = RangeArray([(target.address, target.end, step_bytes)])
    steps: list[Migration] = []
    cursor = Cursor()
    while not steps or not (steps[-1].is_done or steps[-1].error):
        step = migrate(
            target.pid,
            ranges,
            node=node,
            target_of=target_of,
            cursor=cursor,
            batch_pages=batch_pages,
            look_pages=look_pages,
            large_room_pages=large_room_pages,
            group_pages=group_pages,
        )
        assert_sums_hold(step)
        assert step.cursor != cursor or step.error
        cursor = step.cursor
        if large_room_pages is not None:
            large_room_pages -= HUGE // PAGE * step.whole_folios
        steps.append(step)
    return steps


def total(steps: list[Migration], name: str) -> int:
    assert name in {field.name for field in fields(Migration)}
    return sum(getattr(step, name) for step in steps)


def errors_of(steps: list[Migration]) -> dict[int, int]:
    errors: dict[int, int] = {}
    for step in steps:
        for number, pages in step.by_errno:
            errors[number] = errors.get(number, 0) + pages
    return errors
