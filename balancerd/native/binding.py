"""Typed Python functions over the C functions of cdef.h that say where pages are; see moving.py and surveying.py, too.

Owns the crossing: packs arguments, raises OSError for -errno, unpacks results into records. Any, the type of C data,
stops here. Must not know policies, the model, or procfs beyond a descriptor of its root. Every call releases the GIL.
"""

import os
from collections.abc import Iterable
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.records import Counts, Placement, RangePlacement

PAGE_BYTES = 4096


class RangeArray:
    """Address ranges in the form that the C functions read: pack once, use for many calls.

    Each range is (start, end, step_bytes): [start, end) of addresses, both multiples of step_bytes, which is 4096 or
    the huge page size of a hugetlb mapping.
    """

    __slots__ = ("_length", "data")

    def __init__(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        packed = list(ranges)
        self.data: Any = ffi.new("struct bal_range[]", packed)
        self._length = len(packed)

    def __len__(self) -> int:
        return self._length


def placement(pid: int, ranges: RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0) -> Placement:
    """Count which node holds the pages of the ranges, by move_pages(2) with nodes=NULL.

    samples=0 asks for every page; otherwise `samples` single pages at equal distances over the pages of all ranges in
    a row, starting at `phase` (0 <= phase < 1) of one distance; no fewer than all pages once samples reaches them.
    n_nodes is the highest node id + 1. Raises OSError: ESRCH (no such process), EPERM (no ptrace access), EINVAL (an
    argument, or a process without memory of its own such as a kernel thread).
    """
    ret = ffi.new("struct bal_placement *")
    per_range = ffi.new("uint64_t[]", len(ranges) * (n_nodes + 2))
    check(lib.bal_placement(pid, ranges.data, len(ranges), samples, phase, n_nodes, per_range, ret), pid)
    cells = ffi.unpack(per_range, len(ranges) * (n_nodes + 2)) if len(ranges) else []
    rows = [cells[at : at + n_nodes + 2] for at in range(0, len(cells), n_nodes + 2)]
    in_use = len(bytes(ffi.buffer(ret.on_node)).rstrip(b"\0"))  # one above n_nodes is hardly ever
    nothing = [0] * (n_nodes + 2)
    nowhere = RangePlacement(on_node=(0,) * n_nodes, absent_pages=0, other_pages=0)
    return Placement(
        on_node=tuple(ffi.unpack(ret.on_node, max(n_nodes, -(-in_use // 8)))),
        by_errno=counts(ret.by_errno, lib.BAL_ERRNOS),
        queried_pages=ret.queried,
        unwritten_pages=ret.unwritten,
        per_range=tuple(
            nowhere
            if row == nothing  # most small mappings are hit by no sample
            else RangePlacement(on_node=tuple(row[:n_nodes]), absent_pages=row[n_nodes], other_pages=row[n_nodes + 1])
            for row in rows
        ),
        calls=ret.calls,
        duration_seconds=ret.seconds,
        longest_call_seconds=ret.longest_call_seconds,
    )


def check(rc: int, pid: int | None) -> None:
    """Raise the OSError that a C function's return value stands for."""
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc), None if pid is None else f"process {pid}")


def counts(array: Any, length: int) -> Counts:
    """Return what is not zero in the first `length` elements of a C array, with their indices."""
    return tuple((i, pages) for i, pages in enumerate(ffi.unpack(array, length)) if pages) if length > 0 else ()
