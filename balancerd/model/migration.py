"""What will be moved, and what became of every page of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.page_status import PageStatus
from balancerd.model.steering import SteerStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Part of an address space, [start, end), in pages of `page_bytes`.

    With `all_sharers` pages that other processes map move, too: all who are known to map them run where they go.
    """

    start: int
    end: int
    page_bytes: int
    all_sharers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedRun:
    """Neighbouring pages, [start, end) in pages of `page_bytes`, that came from node `source` to node `target`."""

    start: int
    end: int
    page_bytes: int
    source: NodeId
    target: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """Neighbouring pages, [start, end) in pages of `page_bytes`, that were submitted and ended with `status`."""

    start: int
    end: int
    page_bytes: int
    status: PageStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What is true of pages said to have moved: `asked_pages` of them, systematically spread, asked for again.

    asked_pages == on_target_pages + elsewhere_pages + absent_pages + unknown_pages.
    """

    asked_pages: int
    on_target_pages: int
    elsewhere_pages: int
    absent_pages: int
    unknown_pages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStep:
    """Move what is misplaced in `ranges` (ascending) to `target`, starting at address `resume_at`.

    With `target_of`, pages on its keys move to the node it gives, each to its own, and pages on other nodes are left
    alone; without, pages of every other node move to `target`. `move_all` moves pages that other processes map, too.
    `reason` is one of MIGRATION_REASONS. With `is_part` the ranges are all that a decision asked for, which asks anew
    in each tick: no later step goes on where this one ends. Ends after `budget_bytes` submitted or `budget_seconds`
    spent, whichever comes first.
    """

    policy: str
    process: ProcessId
    target: NodeId
    ranges: tuple[Range, ...]
    resume_at: int
    budget_bytes: int
    budget_seconds: float
    reason: Reason
    target_of: Mapping[NodeId, NodeId] | None = None
    move_all: bool = False
    move_id: int = 0
    """The move that this step is part of, for `undo`; 0 for none."""
    is_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionStep:
    """Give memory of `ranges` (ascending) back, from address `resume_at` on, by process_madvise(2).

    MADV_PAGEOUT writes it to swap or to its file at once; with `cold_only`, MADV_COLD only makes it the first to go
    when memory becomes scarce. With `is_part` the next tick may ask for other parts of the process. Ends after
    `budget_bytes` advised or `budget_seconds` spent.
    """

    policy: str
    process: ProcessId
    ranges: tuple[Range, ...]
    resume_at: int
    budget_bytes: int
    budget_seconds: float
    cold_only: bool = False
    reason: Reason = Reason.EVICT
    is_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """The steps of one tick in the order in which they run, and every decision that was turned down.

    `steers` are about threads and come before all others.
    """

    steps: tuple[MigrationStep, ...]
    rejected: tuple[Skip, ...]
    evictions: tuple[EvictionStep, ...] = ()
    steers: tuple[SteerStep, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationOutcome:
    """What one step did, in base pages. The sum over `pages` equals `submitted_pages`, always.

    `looked_pages` were examined: those already on the target, absent or in error before the move were
    not submitted and are counted in `passed_over`. `resume_at` is the address to go on from, None when the
    ranges are done. `stopped_by` says why it ended early; None for the end of ranges or budget.

    A page that was tried again counts once, with its last status; `retried_pages` counts the further tries.
    `moved_runs` and `failed_runs` tell where, up to a bound: `unrecorded_pages` are in none of them.
    `throttled_seconds` is the time spent waiting, by cause; `stalls` counts calls above the stall limit. Of its calls'
    time the process has lost `held_up_ratio` in earlier steps, by its CPU time; 1 as long as nobody knows. `verified`
    is None when nothing moved or the process was gone.
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
    retried_pages: int = 0
    moved_runs: tuple[MovedRun, ...] = ()
    failed_runs: tuple[FailedRun, ...] = ()
    unrecorded_pages: int = 0
    whole_folios: int = 0
    throttled_seconds: Mapping[str, float] = field(default_factory=dict)
    stalls: int = 0
    held_up_ratio: float = 1.0
    verified: Verified | None = None

    @property
    def moved_pages(self) -> int:
        """Pages that changed their node in this step."""
        return self.pages.get(PageStatus.MOVED, 0)

    @property
    def seconds(self) -> float:
        """Time inside move_pages(2), moving and asking."""
        return sum(self.call_seconds) + self.query_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """Ask where the pages of earlier moves are now: up to `asked_pages` of them, spread over all runs."""

    process: ProcessId
    runs: tuple[MovedRun, ...]
    asked_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsNow:
    """Where the pages of some runs are now: one Verified for each run asked for, in its order, and their sum."""

    process: ProcessId
    runs: tuple[Verified, ...]
    total: Verified


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionOutcome:
    """What one step of eviction did, in base pages.

    looked_pages == absent_pages + other_pages + advised_pages, and advised_pages == evicted_pages + kept_pages: present
    before and after. With `cold_only` nothing is expected to leave, and `kept_pages` are those marked.
    """

    step: EvictionStep
    looked_pages: int
    absent_pages: int
    other_pages: int
    advised_pages: int
    evicted_pages: int
    kept_pages: int
    call_seconds: tuple[float, ...]
    query_seconds: float
    resume_at: int | None
    stopped_by: Reason | None = None
    detail: str = ""
    throttled_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeMove:
    """One migrate_pages(2) over a whole process: what it returned, and where the pages were before and after.

    `not_moved_pages` is the call's return value, which is reliable from 6.7 on only; None when it failed.
    """

    process: ProcessId
    target_of: Mapping[NodeId, NodeId]
    not_moved_pages: int | None
    seconds: float
    before_bytes: Mapping[NodeId, int]
    after_bytes: Mapping[NodeId, int]
    stopped_by: Reason | None = None
    detail: str = ""
