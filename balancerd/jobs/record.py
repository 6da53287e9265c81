"""What a job is, as it is told to whoever asks: the request, how far it has come, and the account. Pure."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import Verified, WholeMove
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRequest:
    """Move memory of process `pid` from a set of nodes (None: every other one) to a set of nodes, see `jobs.nodes`.

    `move_all` moves pages that other processes map, too; `ignore_mempolicy` moves mappings with an explicit mempolicy,
    too. `whole` is one migrate_pages(2), which knows neither pace nor budgets.
    """

    kind: ClassVar[str] = "move"
    pid: int
    targets: frozenset[NodeId]
    sources: frozenset[NodeId] | None = None
    move_all: bool = False
    ignore_mempolicy: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictRequest:
    """Give memory of process `pid` back to swap or its files; with `cold_only`, only make it the first to go."""

    kind: ClassVar[str] = "evict"
    pid: int
    cold_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoRequest:
    """Put back what move `move_id` moved."""

    kind: ClassVar[str] = "undo"
    move_id: int


JobRequest = MoveRequest | EvictRequest | UndoRequest


class JobState(enum.StrEnum):
    """How far a job has come; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in {JobState.DONE, JobState.CANCELLED, JobState.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the pages of a job, in base pages, summed over its slices.

    looked_pages == on_target_pages + the sum of passed_over + submitted_pages, and submitted_pages is the sum of pages.
    Of an eviction, looked_pages == absent_pages + other_pages + advised_pages, and advised_pages == evicted_pages +
    kept_pages. `held_back_bytes` were left out for their mempolicy, as far as a sample tells.
    """

    looked_pages: int = 0
    on_target_pages: int = 0
    passed_over: Mapping[PageStatus, int] = field(default_factory=dict)
    submitted_pages: int = 0
    pages: Mapping[PageStatus, int] = field(default_factory=dict)
    moved_from: Mapping[NodeId, int] = field(default_factory=dict)
    retried_pages: int = 0
    verified: Verified | None = None
    held_back_bytes: int = 0
    absent_pages: int = 0
    other_pages: int = 0
    advised_pages: int = 0
    evicted_pages: int = 0
    kept_pages: int = 0
    calls: int = 0
    longest_call_seconds: float | None = None
    call_seconds: float = 0.0
    stalls: int = 0
    throttled_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def moved_bytes(self) -> int:
        """What changed its node."""
        return self.pages.get(PageStatus.MOVED, 0) * PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job at one moment; times are monotonic seconds.

    `target_of` is known from the start of a move, `move_id` once it runs and can be undone. `total_bytes` estimates the
    work, None before it runs; `done_bytes` is the part of it that was dealt with, moved or not. `waiting_for` says why
    a running job rests. `reason` is why it did not do all of it.
    """

    id: int
    request: JobRequest
    process: ProcessId
    comm: str
    state: JobState
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    cancel_requested: bool = False
    reason: Reason | None = None
    detail: str = ""
    target_of: Mapping[NodeId, NodeId] = field(default_factory=dict)
    move_id: int | None = None
    total_bytes: int | None = None
    done_bytes: int = 0
    waiting_for: Reason | None = None
    account: Account = Account()
    whole: WholeMove | None = None

    def seconds(self, now: float) -> float | None:
        """Return for how long it has run at time `now`, None before it runs."""
        return None if self.started_at is None else (now if self.ended_at is None else self.ended_at) - self.started_at

    def rate_bytes_per_second(self, now: float) -> float | None:
        """Return bytes dealt with per second since it runs; None when nothing can be said yet."""
        seconds = self.seconds(now)
        return self.done_bytes / seconds if seconds and self.done_bytes else None

    def eta_seconds(self, now: float) -> float | None:
        """Return how long the rest will take at that rate, None when it is not known or nothing is left."""
        rate = self.rate_bytes_per_second(now)
        if self.state is not JobState.RUNNING or self.total_bytes is None or rate is None:
            return None
        return max(0, self.total_bytes - self.done_bytes) / rate
