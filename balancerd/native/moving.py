"""Typed Python functions over the C functions of cdef.h that move pages or give them back.

Owns the same crossing as binding.py: a call refused for its arguments raises OSError, one refused by the kernel in the
middle of the work is told in the result, so that no count is lost. Every call releases the GIL.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.binding import RangeArray, check, counts
from balancerd.native.records import Cursor, Eviction, Migration, Run

HUGE_BYTES = 2 << 20
_MPOL_MF_MOVE = 2  # include/uapi/linux/mempolicy.h
_MPOL_MF_MOVE_ALL = 4
_MADV_COLD = 20  # include/uapi/asm-generic/mman-common.h
_MADV_PAGEOUT = 21
_NO_LIMIT = (1 << 64) - 1


def migrate(
    pid: int,
    ranges: RangeArray,
    *,
    node: int | None = None,
    target_of: Mapping[int, int] | None = None,
    cursor: Cursor,
    batch_pages: int,
    look_pages: int,
    step_pages: int | None = None,
    group_pages: int = 0,
    move_all: bool = False,
    huge_bytes: int = HUGE_BYTES,
    large_room_pages: int | None = None,
    run_capacity: int = 4096,
    pidfd: int = 0,
) -> Migration:
    """Move pages of the ranges to a node: one bounded step from the cursor on; the result holds the next cursor.

    With `target_of` (`node` then does not count) each page moves to the node that its own is mapped to: pages on nodes
    that are not in it are left alone, and those on a node mapped to itself are there already. A page is looked at once,
    so {0: 1, 1: 0} swaps; but a folio that lies across a multiple of huge_bytes, or is mapped twice, may go back.

    Looks at up to look_pages pages (and on to the end of a block of huge_bytes), and submits those that are present on
    other nodes once batch_pages are together; one call moves at most batch_pages, though never less than one folio. The
    step ends with the first batch, or with the one that brings the submitted pages to step_pages.
    Of a call's pages the kernel unmaps about group_pages together and copies them before it takes the next ones; 0: as
    many as it likes, 512.
    move_all moves pages that other processes map too (MPOL_MF_MOVE_ALL, needs CAP_SYS_NICE). huge_bytes is the size of
    a transparent huge page; 0 says that there are none, and never tries to move one by its first address.

    large_room_pages is how many base pages hugetlb and transparent huge pages may take of the targets in this call:
    what may be huge and exceeds it is not submitted, since without room the kernel would split it. A block that could
    be one transparent huge page counts as one until it is tried, so pass huge_bytes=0 for mappings known to hold none.

    run_capacity is the most runs that the result tells. With a `pidfd` above 0 no call is made once that tells that the
    process has ended. An error of a system call is not raised but told in the result:
    ESRCH, EPERM, EACCES (the target's cpuset excludes the node), ENODEV, ENOMEM, EINVAL (kernel thread). Raises OSError
    EINVAL for an argument out of bounds, ENOMEM.
    """
    targets, n_targets = _targets(target_of)
    runs = ffi.new("struct bal_run[]", run_capacity)
    args = ffi.new(
        "struct bal_migrate_args *",
        {
            "node": -1 if node is None else node,
            "flags": _MPOL_MF_MOVE_ALL if move_all else _MPOL_MF_MOVE,
            "pidfd": pidfd,
            "batch_pages": batch_pages,
            "group_pages": group_pages,
            "step_pages": step_pages or batch_pages,
            "look_pages": look_pages,
            "huge_bytes": huge_bytes,
            "large_room": _NO_LIMIT if large_room_pages is None else max(0, large_room_pages),
            "target_of": targets,
            "n_target_of": n_targets,
            "runs": runs,
            "run_capacity": run_capacity,
        },
    )
    at = ffi.new("struct bal_cursor *", (cursor.range_index, cursor.address, cursor.base_pages))
    ret = ffi.new("struct bal_migration *")
    check(lib.bal_migrate(pid, ranges.data, len(ranges), args, at, ret), pid)
    return Migration(
        cursor=Cursor(range_index=at.range, address=at.address, base_pages=bool(at.base)),
        is_done=bool(ret.done),
        error=ret.error or None,
        error_target=ret.error_target if ret.error_target >= 0 else None,
        looked_pages=ret.looked,
        already_on_target_pages=ret.already_on_target,
        left_alone_pages=ret.left_alone,
        absent_pages=ret.absent,
        other_before_pages=ret.other_before,
        before_errno=counts(ret.before_errno, lib.BAL_ERRNOS) if ret.other_before else (),
        no_room_pages=ret.no_room,
        submitted_pages=ret.submitted,
        moved_pages=ret.moved,
        by_errno=counts(ret.by_errno, lib.BAL_ERRNOS) if ret.moved < ret.submitted else (),
        not_attempted_pages=ret.not_attempted,
        unwritten_pages=ret.unwritten,
        from_node=counts(ret.from_node, ret.highest_node + 1),
        refused_pages=ret.refused,
        stuck_pages=ret.stuck,
        whole_folios=ret.whole_folios,
        calls=ret.calls,
        resubmissions=ret.resubmissions,
        query_calls=ret.query_calls,
        moving_seconds=ret.seconds,
        query_seconds=ret.query_seconds,
        largest_call_pages=ret.largest_call_pages,
        longest_call_seconds=ret.longest_call_seconds,
        call_seconds=_call_seconds(ret),
        runs=tuple(
            Run(
                start=run.start,
                end=run.end,
                page_bytes=run.page_bytes,
                source=run.source,
                target=run.target,
                error=run.error,
            )
            for run in runs[0 : ret.n_runs]
        ),
        unrecorded_pages=ret.unrecorded,
    )


def migrate_process(pid: int, sources: Iterable[int], targets: Iterable[int]) -> int:
    """Move all pages of a process from one set of nodes to another by one migrate_pages(2); returns how many stayed.

    Relative positions are kept: a page on the n-th source goes to the n-th target. The process may stand still until
    the last page is copied, and the number returned is reliable from Linux 6.7 on only. Raises OSError: ESRCH, EPERM,
    EINVAL (a node id out of bounds, a target that the process may not use or that has no memory, a kernel thread).
    """
    ret = ffi.new("int64_t *")
    check(lib.bal_migrate_process(pid, _mask(sources), _mask(targets), ret), pid)
    return int(ret[0])


def evict(
    pid: int,
    pidfd: int,
    ranges: RangeArray,
    *,
    cursor: Cursor,
    batch_pages: int,
    look_pages: int,
    cold_only: bool = False,
) -> Eviction:
    """Give memory of the ranges back: one bounded step from the cursor on; the result holds the next cursor.

    Looks at up to look_pages pages (and on to the end of a block of 2 MiB), advises at most batch_pages of those
    present (never less than one hugetlb page) by process_madvise(2), and looks again. MADV_PAGEOUT writes pages to swap
    or to their file at once; with cold_only, MADV_COLD only makes them the first to go. pidfd is a descriptor of the
    process `pid`, see pidfd_open(2). An error of a system call is told in the result: ESRCH, EPERM (needs ptrace access
    and CAP_SYS_NICE), EBADF, ENOSYS (before Linux 5.10). Raises OSError EINVAL for an argument out of bounds, ENOMEM.
    """
    advice = _MADV_COLD if cold_only else _MADV_PAGEOUT
    args = ffi.new("struct bal_evict_args *", (advice, batch_pages, look_pages))
    at = ffi.new("struct bal_cursor *", (cursor.range_index, cursor.address, False))
    ret = ffi.new("struct bal_eviction *")
    check(lib.bal_evict(pid, pidfd, ranges.data, len(ranges), args, at, ret), pid)
    return Eviction(
        cursor=Cursor(range_index=at.range, address=at.address),
        is_done=bool(ret.done),
        error=ret.error or None,
        looked_pages=ret.looked,
        absent_pages=ret.absent,
        other_pages=ret.other,
        advised_pages=ret.advised,
        evicted_pages=ret.evicted,
        kept_pages=ret.kept,
        refused_pages=ret.refused,
        calls=ret.calls,
        call_seconds=_call_seconds(ret),
        advising_seconds=ret.seconds,
        query_seconds=ret.query_seconds,
    )


def idle_call() -> float:
    """Return the seconds of a call that moves nothing: the price of each call that does not grow with its pages.

    Raises OSError when move_pages(2) is refused even on a page of our own.
    """
    ret = ffi.new("double *")
    check(lib.bal_idle_call(ret), os.getpid())
    return float(ret[0])


def _targets(target_of: Mapping[int, int] | None) -> tuple[Any, int]:
    if target_of is None:
        return ffi.NULL, 0
    if not all(0 <= node < lib.BAL_NODES for node in (*target_of, *target_of.values())):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "target_of")
    n_targets = max(target_of, default=-1) + 1
    return ffi.new("int32_t[]", [target_of.get(node, -1) for node in range(n_targets)]), n_targets


def _mask(nodes: Iterable[int]) -> Any:
    bits = 0
    for node in nodes:
        if not 0 <= node < lib.BAL_NODES:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), f"node {node}")
        bits |= 1 << node
    return ffi.new("uint64_t[]", [bits >> at & (1 << 64) - 1 for at in range(0, lib.BAL_NODES, 64)])


def _call_seconds(ret: Any) -> tuple[float, ...]:
    return tuple(ffi.unpack(ret.call_seconds, min(ret.calls, lib.BAL_CALL_TIMES))) if ret.calls else ()
