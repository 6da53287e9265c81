"""Which mappings are watched, how runs are cut, and where the pages of this very process lie."""

import ctypes
import mmap
import os
import queue
import resource
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.accesses.memory import (
    LEAST_BYTES,
    MOST_RANGES,
    PIECE_BYTES,
    USUAL_STACK_BYTES,
    located,
    located_regions,
    parse_stack_bytes,
    pieces,
    read_stack_bytes,
    watched_ranges,
)
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import ParseError
from balancerd.kernel.placement.mappings import Mappings
from balancerd.model.access import REGION_BYTES, AccessRegion
from balancerd.model.sample import VmaKind
from tests.unit.fakes import MIB, N0, make_access_run, make_vma
from tests.unit.kernel.worlds import OWN


@pytest.mark.parametrize(
    ("changes", "mib", "is_watched"),
    [
        ({}, 64, True),
        ({"kind": VmaKind.HEAP}, 64, True),
        ({"kind": VmaKind.HUGETLB}, 64, True),
        ({"kind": VmaKind.FILE}, 64, False),
        ({"kind": VmaKind.SHMEM}, 64, False),
        ({"kind": VmaKind.STACK}, 64, False),
        ({"kind": VmaKind.SPECIAL}, 64, False),
        ({"shared": True}, 64, False),
        ({"executable": True}, 64, False),
        ({}, 0.05, False),
        ({}, 0.0625, True),
        ({"guarded": True}, 12, False),  # the stack of a thread, of just the limit
        ({"guarded": True}, 8, False),
        ({"guarded": True}, 1, False),  # of a Java thread
        ({"guarded": True}, 13, True),
        ({}, 12, True),  # of the size of a stack, but without a guard
        ({}, 8, True),
        ({"kind": VmaKind.HUGETLB, "guarded": True}, 8, True),
    ],
)
def test_whose_accesses_count(changes: dict[str, Any], mib: float, is_watched: bool) -> None:
    vma = make_vma(mib, **changes)
    assert watched_ranges([vma], 12 * MIB) == (((vma.start, vma.end),) if is_watched else ())


def test_the_stack_of_a_real_thread_is_left_out_and_data_of_its_size_is_not() -> None:
    """Where the stack is tells the thread's stack pointer, in /proc/TID/syscall of proc_pid_syscall(5)."""
    limit = read_stack_bytes(OWN.pid)
    done, tids = threading.Event(), queue.Queue[int]()

    def stay() -> None:
        tids.put(threading.get_native_id())
        done.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    try:
        syscall = Path(f"/proc/self/task/{tids.get()}/syscall")
        while len(words := syscall.read_text(encoding="ascii").split()) < 3:  # "running"
            os.sched_yield()
        stack_pointer = int(words[-2], 16)
        with mmap.mmap(-1, limit or USUAL_STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
            start = ctypes.addressof(ctypes.c_char.from_buffer(area))
            ranges = watched_ranges(Mappings(MonotonicClock()).read(OWN.pid), limit)
    finally:
        done.set()
        thread.join()
    assert any(begin <= start < end for begin, end in ranges)
    assert not any(begin <= stack_pointer < end for begin, end in ranges)


def test_of_very_many_mappings_the_largest_are_watched_in_ascending_order() -> None:
    small = [make_vma(LEAST_BYTES / MIB, index) for index in range(MOST_RANGES)]
    large = make_vma(64, MOST_RANGES)
    found = watched_ranges([*small, large], None)
    assert len(found) == MOST_RANGES
    assert (large.start, large.end) in found
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            b"Limit  Soft Limit  Hard Limit  Units\nMax stack size            8388608              unlimited  bytes\n",
            8 * MIB,
        ),
        (b"Max stack size            unlimited            unlimited            bytes     \n", None),
    ],
)
def test_the_limit_of_stacks(text: bytes, expected: int | None) -> None:
    assert parse_stack_bytes(text, "limits") == expected


def test_the_limit_of_stacks_of_a_real_process() -> None:
    found = parse_stack_bytes(Path("/proc/self/limits").read_bytes(), "/proc/self/limits")
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    assert found == (None if soft == resource.RLIM_INFINITY else soft)


@pytest.mark.parametrize("text", [b"", b"Max stack size\n", b"Max stack size  many  many bytes\n"])
def test_limits_that_do_not_read_as_documented(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse_stack_bytes(text, "limits")


def test_long_runs_are_cut_at_round_addresses_and_nothing_of_them_is_lost() -> None:
    run = make_access_run(80, 1, None, at_mib=20, weight=800.0, node_weight=400.0)
    short = make_access_run(4, 2, None, at_mib=200)
    found = list(pieces([run, short]))
    assert found[-1] is short
    assert [piece.start % PIECE_BYTES for piece in found[1:-1]] == [0] * (len(found) - 2)
    assert sum(piece.end - piece.start for piece in found[:-1]) == 80 * MIB
    assert all(piece.end - piece.start <= PIECE_BYTES for piece in found)
    assert all(a.end == b.start for a, b in pairwise(found[:-1]))
    assert sum(piece.weight for piece in found[:-1]) == pytest.approx(800.0)
    assert sum(piece.node_weight for piece in found[:-1]) == pytest.approx(400.0)


def test_where_runs_lie_is_told_of_each_and_of_memory_never_touched_nothing() -> None:
    with mmap.mmap(-1, 4 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        area[: 2 * MIB] = bytes(2 * MIB)
        view = ctypes.c_char.from_buffer(area)
        at = ctypes.addressof(view)
        del view
        run = make_access_run(2, 1, None)
        runs = [
            type(run)(start=at, end=at + 2 * MIB, node=run.node, weight=1.0, node_weight=1.0),
            type(run)(start=at + 2 * MIB, end=at + 4 * MIB, node=run.node, weight=1.0, node_weight=1.0),
        ]
        found = located(OWN.pid, runs, n_nodes=1, phase=0.0)
    assert [dict(r.pages_by_node or {}) for r in found] == [{0: 512.0}, {}]
    assert located(OWN.pid, (), n_nodes=1, phase=0.0) == ()


def test_where_regions_lie_is_told_of_those_that_belong_to_nobody() -> None:
    with mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        view = ctypes.c_char.from_buffer(area)
        at = -(-ctypes.addressof(view) // REGION_BYTES) * REGION_BYTES
        offset = at - ctypes.addressof(view)
        del view
        area[offset : offset + 3 * MIB] = bytes(3 * MIB)
        starts = [at, at + REGION_BYTES, at + 2 * REGION_BYTES]
        regions = [AccessRegion(start=start, weight_by_node={N0: 4.0}) for start in starts]
        regions[0] = replace(regions[0], node=N0)
        found = located_regions(OWN.pid, regions, n_nodes=1, phase=0.0)
    assert found[0] is regions[0]
    assert [region.pages_by_node for region in found] == [None, {0: 256.0}, {}]
    assert located_regions(OWN.pid, regions[:1], n_nodes=1, phase=0.0) == (regions[0],)


def test_of_more_pages_a_sample_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancerd.kernel.accesses.memory.EVERY_PAGE_PAGES", 100)
    monkeypatch.setattr("balancerd.kernel.accesses.memory.SAMPLES", 64)
    with mmap.mmap(-1, 2 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = bytes(2 * MIB)
        view = ctypes.c_char.from_buffer(area)
        at = ctypes.addressof(view)
        del view
        run = make_access_run(2, 1, None)
        run = type(run)(start=at, end=at + 2 * MIB, node=run.node, weight=1.0, node_weight=1.0)
        (found,) = located(OWN.pid, [run], n_nodes=1, phase=0.5)
    assert dict(found.pages_by_node or {}) == {0: pytest.approx(512.0, rel=0.05)}
