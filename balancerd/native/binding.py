"""Typed Python functions over the C functions of cdef.h.

Owns the crossing: packs arguments, raises OSError for -errno, unpacks results into records. Any, the type of C data,
stops here. Must not know policies, the model, or procfs beyond a descriptor of its root. Every call releases the GIL.
"""

import os
from collections.abc import Iterable
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.records import (
    Counts,
    Cursor,
    Migration,
    Placement,
    ProcessRow,
    ProcessSurvey,
    RangePlacement,
    ThreadRow,
    ThreadSurvey,
)

PAGE_BYTES = 4096
HUGE_BYTES = 2 << 20
_MPOL_MF_MOVE = 2  # include/uapi/linux/mempolicy.h
_MPOL_MF_MOVE_ALL = 4


class RangeArray:
    """Address ranges in the form that the C functions read: pack once, use for many calls.

    Each range is (start, end, step_bytes): [start, end) of addresses, both multiples of step_bytes, which is 4096 or
    the huge page size of a hugetlb mapping.
    """

    __slots__ = ("_data", "_length")

    def __init__(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        packed = list(ranges)
        self._data: Any = ffi.new("struct bal_range[]", packed)
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
    _check(lib.bal_placement(pid, ranges._data, len(ranges), samples, phase, n_nodes, per_range, ret), pid)  # noqa: SLF001 the array is this module's own
    cells = ffi.unpack(per_range, len(ranges) * (n_nodes + 2)) if len(ranges) else []
    rows = [cells[at : at + n_nodes + 2] for at in range(0, len(cells), n_nodes + 2)]
    in_use = len(bytes(ffi.buffer(ret.on_node)).rstrip(b"\0"))  # one above n_nodes is hardly ever
    nothing = [0] * (n_nodes + 2)
    nowhere = RangePlacement(on_node=(0,) * n_nodes, absent_pages=0, other_pages=0)
    return Placement(
        on_node=tuple(ffi.unpack(ret.on_node, max(n_nodes, -(-in_use // 8)))),
        by_errno=_counts(ret.by_errno, lib.BAL_ERRNOS),
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


def migrate(
    pid: int,
    ranges: RangeArray,
    *,
    node: int,
    cursor: Cursor,
    batch_pages: int,
    look_pages: int,
    step_pages: int | None = None,
    move_all: bool = False,
    huge_bytes: int = HUGE_BYTES,
) -> Migration:
    """Move pages of the ranges to a node: one bounded step from the cursor on; the result holds the next cursor.

    Looks at up to look_pages pages (and on to the end of a block of huge_bytes), and submits those that are present on
    other nodes once batch_pages are together; one call moves at most batch_pages, though never less than one folio. The
    step ends with the first batch, or with the one that brings the submitted pages to step_pages.
    move_all moves pages that other processes map too (MPOL_MF_MOVE_ALL, needs CAP_SYS_NICE). huge_bytes is the size of
    a transparent huge page, 0 to never try to move one by its first address. An error of a system call is not raised
    but told in the result, so that no count is lost: ESRCH, EPERM, EACCES (the target's cpuset excludes the node),
    ENODEV, ENOMEM, EINVAL (kernel thread). Raises OSError EINVAL for an argument out of bounds, ENOMEM.
    """
    flags = _MPOL_MF_MOVE_ALL if move_all else _MPOL_MF_MOVE
    args = ffi.new(
        "struct bal_migrate_args *", (node, flags, batch_pages, step_pages or batch_pages, look_pages, huge_bytes)
    )
    at = ffi.new("struct bal_cursor *", (cursor.range_index, cursor.address, cursor.base_pages))
    ret = ffi.new("struct bal_migration *")
    _check(lib.bal_migrate(pid, ranges._data, len(ranges), args, at, ret), pid)  # noqa: SLF001 the array is this module's own
    return Migration(
        cursor=Cursor(range_index=at.range, address=at.address, base_pages=bool(at.base)),
        is_done=bool(ret.done),
        error=ret.error or None,
        looked_pages=ret.looked,
        already_on_target_pages=ret.already_on_target,
        absent_pages=ret.absent,
        other_before_pages=ret.other_before,
        submitted_pages=ret.submitted,
        moved_pages=ret.moved,
        by_errno=_counts(ret.by_errno, lib.BAL_ERRNOS) if ret.moved < ret.submitted else (),
        not_attempted_pages=ret.not_attempted,
        unwritten_pages=ret.unwritten,
        from_node=_counts(ret.from_node, ret.highest_node + 1),
        refused_pages=ret.refused,
        whole_folios=ret.whole_folios,
        calls=ret.calls,
        resubmissions=ret.resubmissions,
        query_calls=ret.query_calls,
        moving_seconds=ret.seconds,
        query_seconds=ret.query_seconds,
        largest_call_pages=ret.largest_call_pages,
        longest_call_seconds=ret.longest_call_seconds,
    )


def idle_call() -> float:
    """Return the seconds of a call that moves nothing: the price of each call that does not grow with its pages.

    Raises OSError when move_pages(2) is refused even on a page of our own.
    """
    ret = ffi.new("double *")
    _check(lib.bal_idle_call(ret), os.getpid())
    return float(ret[0])


def survey(proc_fd: int, *, min_rss_pages: int, capacity: int = 1024) -> ProcessSurvey:
    """Read PID/stat of every process below proc_fd, a descriptor (O_PATH will do) of the root of a procfs.

    Kernel threads and processes with fewer than min_rss_pages resident are counted and have no row; 0 gives rows for
    all. capacity is the first guess at the number of rows. Raises OSError when the root cannot be listed.
    """
    ret = ffi.new("struct bal_survey *")
    while True:
        rows = ffi.new("struct bal_process[]", capacity)
        _check(lib.bal_survey(proc_fd, min_rss_pages, rows, capacity, ret), None)
        if ret.needed <= capacity:
            break
        capacity = ret.needed + ret.needed // 8  # some room for those that start in between
    return ProcessSurvey(
        rows=tuple(
            ProcessRow(
                pid=row.pid,
                ppid=row.ppid,
                start_ticks=row.start_ticks,
                cpu_ticks=row.cpu_ticks,
                rss_pages=row.rss_pages,
                minor_faults=row.minor_faults,
                major_faults=row.major_faults,
                n_threads=row.n_threads,
                last_cpu=row.last_cpu,
                flags=row.flags,
                state=row.state.decode("ascii", "backslashreplace"),
                comm=ffi.string(row.comm).decode("utf-8", "backslashreplace"),
            )
            for row in rows[0 : ret.n_rows]
        ),
        processes=ret.processes,
        kernel_threads=ret.kernel_threads,
        vanished=ret.vanished,
        unreadable=ret.unreadable,
        duration_seconds=ret.seconds,
    )


def threads(proc_fd: int, pid: int, *, capacity: int = 64) -> ThreadSurvey:
    """Read task/TID/stat of every thread of a process; parameters as for survey(). Raises OSError ESRCH: it is gone."""
    ret = ffi.new("struct bal_survey *")
    while True:
        rows = ffi.new("struct bal_thread[]", capacity)
        _check(lib.bal_threads(proc_fd, pid, rows, capacity, ret), pid)
        if ret.needed <= capacity:
            break
        capacity = ret.needed + ret.needed // 8
    return ThreadSurvey(
        rows=tuple(
            ThreadRow(
                tid=row.tid,
                start_ticks=row.start_ticks,
                cpu_ticks=row.cpu_ticks,
                last_cpu=row.last_cpu,
                state=row.state.decode("ascii", "backslashreplace"),
            )
            for row in rows[0 : ret.n_rows]
        ),
        vanished=ret.vanished,
        unreadable=ret.unreadable,
        duration_seconds=ret.seconds,
    )


def _check(rc: int, pid: int | None) -> None:
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc), None if pid is None else f"process {pid}")


def _counts(array: Any, length: int) -> Counts:
    return tuple((i, pages) for i, pages in enumerate(ffi.unpack(array, length)) if pages) if length > 0 else ()
