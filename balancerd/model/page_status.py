"""How a page of a migration ends. Cheap to import: commands that only ask the daemon say it to people."""

import enum
from collections.abc import Mapping


class PageStatus(enum.StrEnum):
    """How a submitted page ended: the statuses of move_pages(2), one to one, and some of our own.

    `NOT_ATTEMPTED` pages belong to a call that failed before the kernel reached them; `UNWRITTEN`
    ones kept the sentinel through every query. `LEFT_ALONE` pages are on a node that is not to be emptied,
    `NO_HUGE_PAGE` ones are part of a huge page for which the target has no free one.
    """

    MOVED = "moved"
    ABSENT = "enoent"
    SHARED = "eacces"
    LOCKED = "eperm"
    BUSY = "ebusy"
    FAULT = "efault"
    NO_MEMORY = "enomem"
    IO_ERROR = "eio"
    INVALID = "einval"
    OTHER_ERROR = "other"
    NOT_ATTEMPTED = "not-attempted"
    UNWRITTEN = "unwritten"
    # never submitted, so only in `passed_over`
    LEFT_ALONE = "left-alone"
    NO_HUGE_PAGE = "no-huge-page"


TRANSIENT = frozenset({PageStatus.BUSY, PageStatus.NO_MEMORY, PageStatus.IO_ERROR, PageStatus.UNWRITTEN})
"""Statuses that may be others a moment later: such pages are tried again, others are not; see move_pages(2)."""

NEVER_SUBMITTED = frozenset({PageStatus.LEFT_ALONE, PageStatus.NO_HUGE_PAGE})

STATUS_TEXT: Mapping[PageStatus, str] = {
    PageStatus.MOVED: "now on the target node",
    PageStatus.ABSENT: "not in memory any more",
    PageStatus.SHARED: "mapped by several processes, left where they are",
    PageStatus.LOCKED: "locked by a process or driver, cannot move",
    PageStatus.BUSY: "in use at that moment, tried again later",
    PageStatus.FAULT: "no memory of the process: the zero page, or a device's",
    PageStatus.NO_MEMORY: "no free memory on the target node",
    PageStatus.IO_ERROR: "dirty and could not be written back",
    PageStatus.INVALID: "dirty, on a filesystem that can neither move nor write them",
    PageStatus.OTHER_ERROR: "refused with a status that move_pages(2) does not document",
    PageStatus.NOT_ATTEMPTED: "not reached: the call ended before them",
    PageStatus.UNWRITTEN: "the kernel did not tell what became of them",
    PageStatus.LEFT_ALONE: "on a node that nothing was to be moved from",
    PageStatus.NO_HUGE_PAGE: "part of a huge page, for which the target node has no free one",
}
"""What became of pages of each status, for people; see move_pages(2)."""
