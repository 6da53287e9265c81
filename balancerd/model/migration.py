"""What will be moved, and what became of every page of it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId


class PageStatus(enum.StrEnum):
    """How a submitted page ended: the statuses of move_pages(2), one to one, and two of our own.

    `NOT_ATTEMPTED` pages belong to a call that failed before the kernel reached them; `UNWRITTEN`
    ones kept the sentinel through every query.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Part of an address space, [start, end), in pages of `page_bytes`."""

    start: int
    end: int
    page_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStep:
    """Move what is misplaced in `ranges` (ascending) to `target`, starting at address `resume_at`.

    Ends after `budget_bytes` submitted or `budget_seconds` spent, whichever comes first.
    """

    policy: str
    process: ProcessId
    target: NodeId
    ranges: tuple[Range, ...]
    resume_at: int
    budget_bytes: int
    budget_seconds: float
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """The steps of one tick in the order in which they run, and every decision that was turned down."""

    steps: tuple[MigrationStep, ...]
    rejected: tuple[Skip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationOutcome:
    """What one step did, in base pages. The sum over `pages` equals `submitted_pages`, always.

    `looked_pages` were examined: those already on the target, absent or in error before the move were
    not submitted and are counted in `passed_over`. `resume_at` is the address to go on from, None when the
    ranges are done. `stopped_by` says why it ended early; None for the end of ranges or budget.
    """

    step: MigrationStep
    looked_pages: int
    on_target_pages: int
    passed_over: Mapping[PageStatus, int]
    submitted_pages: int
    pages: Mapping[PageStatus, int]
    moved_from: Mapping[NodeId, int]
    call_seconds: tuple[float, ...]
    query_seconds: float
    batch_pages: int
    resume_at: int | None
    stopped_by: Reason | None = None
    detail: str = ""

    @property
    def moved_pages(self) -> int:
        """Pages that changed their node in this step."""
        return self.pages.get(PageStatus.MOVED, 0)

    @property
    def seconds(self) -> float:
        """Time inside move_pages(2), moving and asking."""
        return sum(self.call_seconds) + self.query_seconds
