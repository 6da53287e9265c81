"""Giving back the pages of a file, which needs no swap; memory that goes to swap is in tests/lab."""

import ctypes
import errno
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from balancerd.native import Cursor, Eviction, RangeArray, evict
from tests.unit.native.memory import PAGE, address_of, child, map_pages, needs_root, touch, without_privileges

MIB = 1 << 20
PAGES = 1500

libc = ctypes.CDLL(None, use_errno=True)
libc.mlock2.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]

needs_capability = pytest.mark.skipif(os.geteuid() != 0, reason="process_madvise(2) needs CAP_SYS_NICE")


@contextmanager
def file_in_memory(pages: int = PAGES) -> Iterator[mmap.mmap]:
    """A private mapping of a file on disk (a tmpfs would need swap); every page has been read and none is dirty."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(os.urandom(PAGE) * pages)
        file.flush()
        os.fsync(file.fileno())
        area = mmap.mmap(file.fileno(), pages * PAGE, flags=mmap.MAP_PRIVATE)
        for page in range(pages):
            assert isinstance(area[page * PAGE], int)
        yield area


def rss_pages(area: mmap.mmap) -> int:
    """Pages of the mappings in an area that are present, by smaps."""
    start = address_of(area)
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]
    inside = [part for part in parts if start <= int(part.partition("-")[0], 16) < start + len(area)]
    return sum(int(re.findall(r"(?m)^Rss: +(\d+) kB", part)[0]) for part in inside) // 4


def range_of(area: mmap.mmap) -> RangeArray:
    start = address_of(area)
    return RangeArray([(start, start + len(area), PAGE)])


def assert_sums_hold(step: Eviction) -> None:
    assert step.looked_pages == step.absent_pages + step.other_pages + step.advised_pages
    assert step.advised_pages == step.evicted_pages + step.kept_pages
    assert step.refused_pages <= step.kept_pages
    assert len(step.call_seconds) == step.calls
    assert sum(step.call_seconds) == pytest.approx(step.advising_seconds)


def one_step(pid: int, ranges: RangeArray, *, cursor: Cursor | None = None, **changes: Any) -> Eviction:
    arguments: dict[str, Any] = {"batch_pages": 4096, "look_pages": 8192, **changes}
    pidfd = os.pidfd_open(pid)
    try:
        step = evict(pid, pidfd, ranges, cursor=cursor or Cursor(), **arguments)
    finally:
        os.close(pidfd)
    assert_sums_hold(step)
    return step


@needs_capability
def test_pages_of_a_file_that_are_said_to_be_evicted_are_not_present_any_more() -> None:
    with file_in_memory() as area:
        before = rss_pages(area)
        step = one_step(os.getpid(), range_of(area))
        assert (step.is_done, step.error, step.looked_pages, step.advised_pages) == (True, None, PAGES, before)
        assert rss_pages(area) == step.kept_pages
        assert step.evicted_pages > PAGES // 2
        again = one_step(os.getpid(), range_of(area))
        assert (again.absent_pages, again.advised_pages) == (step.evicted_pages, step.kept_pages)


@needs_capability
def test_cold_pages_stay() -> None:
    with file_in_memory() as area:
        step = one_step(os.getpid(), range_of(area), cold_only=True)
        assert (step.advised_pages, step.kept_pages, step.refused_pages) == (PAGES, PAGES, 0)
        assert rss_pages(area) == PAGES


@needs_capability
def test_locked_pages_are_refused_and_those_behind_them_go() -> None:
    with file_in_memory(3000) as area:
        start = address_of(area)
        first = start + 1000 * PAGE
        assert libc.mlock2(first, PAGE, 0) == 0
        locked_block = first & -(2 * MIB)
        step = one_step(os.getpid(), range_of(area))
        assert step.error is None
        assert rss_pages(area) == step.kept_pages
        assert 1 <= step.refused_pages <= 512
        behind = RangeArray([(locked_block + 2 * MIB, start + 3000 * PAGE, PAGE)])
        assert one_step(os.getpid(), behind).absent_pages > 500


@needs_capability
@pytest.mark.parametrize("batch_pages", [1, 100, 512, 700])
def test_steps_advise_no_more_than_a_batch_and_reach_every_page_once(batch_pages: int) -> None:
    area = map_pages(PAGES)
    touch(area, 0, 300)
    touch(area, 600, 900)
    steps = [one_step(os.getpid(), range_of(area), batch_pages=batch_pages, look_pages=256, cold_only=True)]
    while not steps[-1].is_done:
        cursor = steps[-1].cursor
        steps.append(
            one_step(
                os.getpid(), range_of(area), cursor=cursor, batch_pages=batch_pages, look_pages=256, cold_only=True
            )
        )
        assert steps[-1].cursor != cursor
    assert max(step.advised_pages for step in steps) <= batch_pages
    assert all(step.looked_pages < 256 + 512 for step in steps)
    assert sum(step.advised_pages for step in steps) == 600
    assert sum(step.looked_pages for step in steps) == PAGES


@needs_capability
def test_without_swap_or_file_pages_are_kept() -> None:
    area = map_pages(100)
    touch(area, 0, 100)
    step = one_step(os.getpid(), range_of(area), cold_only=True)
    assert (step.evicted_pages, step.kept_pages, step.refused_pages) == (0, 100, 0)
    assert rss_pages(area) == 100


@needs_capability
def test_a_descriptor_that_is_none_ends_with_ebadf_and_nothing_advised() -> None:
    area = map_pages(1000)
    touch(area, 600, 1000)
    with tempfile.TemporaryFile() as file:
        step = evict(os.getpid(), file.fileno(), range_of(area), cursor=Cursor(), batch_pages=1000, look_pages=1000)
    assert_sums_hold(step)
    assert (step.error, step.is_done, step.looked_pages, step.advised_pages) == (errno.EBADF, False, 600, 0)
    assert step.cursor == Cursor(range_index=0, address=address_of(area) + 600 * PAGE)


def test_a_process_that_is_gone_ends_with_esrch_at_the_same_place() -> None:
    with child(pages=600, touched=600) as other:
        pid, ranges = other.process.pid, RangeArray([(other.start, other.end, PAGE)])
        pidfd = os.pidfd_open(pid)
    cursor = Cursor(range_index=0, address=other.start + 3 * PAGE)
    step = evict(pid, pidfd, ranges, cursor=cursor, batch_pages=512, look_pages=512)
    os.close(pidfd)
    assert_sums_hold(step)
    assert (step.error, step.is_done, step.looked_pages, step.cursor) == (errno.ESRCH, False, 0, cursor)


@needs_root
def test_a_process_of_another_user_ends_with_eperm_without_privileges() -> None:
    with child(pages=8, touched=8) as other:
        pid, ranges = other.process.pid, RangeArray([(other.start, other.end, PAGE)])
        step = without_privileges(lambda: one_step(pid, ranges))
    assert (step.error, step.looked_pages) == (errno.EPERM, 0)


def test_no_ranges_are_done_at_once() -> None:
    step = one_step(os.getpid(), RangeArray([]))
    assert (step.is_done, step.looked_pages, step.calls) == (True, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_pages": 0},
        {"batch_pages": (1 << 18) + 1},
        {"look_pages": 0},
        {"cursor": Cursor(range_index=2)},
        {"pid": 0},
        {"pidfd": -1},
        {"ranges": RangeArray([(0x10001, 0x20000, PAGE)])},
    ],
)
def test_arguments_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"pid": os.getpid(), "pidfd": 0, "cursor": Cursor()}
    arguments |= {"ranges": RangeArray([(0x10000, 0x20000, PAGE)]), "batch_pages": 512, "look_pages": 512}
    with pytest.raises(OSError, match="Invalid argument"):
        evict(**{**arguments, **changes})
