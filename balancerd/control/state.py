"""What the last ticks left to be told: the last report, totals since the start, and the latest migrations.

Owns the memory of the control socket, bounded whatever happens: migrations are kept without their ranges. The loop
writes and HTTP threads read, so readers get one consistent, immutable View. It must not know HTTP or JSON.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from balancerd.config.places import Places
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.judged import JudgedMove
from balancerd.model.migration import MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES

KEPT_OUTCOMES = 1000
"""About 1 KiB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOutcome:
    """What remains of a MigrationOutcome: one step of tick number `tick`, told at monotonic second `told_at`.

    `move_id` is the move that it is part of, None for none.
    """

    tick: int
    told_at: float
    policy: str
    process: ProcessId
    target: NodeId
    move_id: int | None
    submitted_pages: int
    pages: Mapping[PageStatus, int]
    moved_from: Mapping[NodeId, int]
    calls: int
    longest_call_seconds: float | None
    seconds: float
    stopped_by: Reason | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums since the daemon started, in base pages and bytes. The sum over `pages` equals `submitted_pages`."""

    ticks: int = 0
    failed_ticks: int = 0
    submitted_pages: int = 0
    moved_bytes: int = 0
    pages: Mapping[PageStatus, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """How the last reading of the configuration went, at unix second `at`; `error` is empty when it succeeded."""

    succeeded: bool
    at: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that can be asked at one moment; times are monotonic seconds."""

    started_at: float
    report: TickReport | None
    told_at: float | None
    totals: Totals
    outcomes: tuple[PastOutcome, ...]
    config_path: str | None
    reload: Reload | None
    places: Places = field(default_factory=Places)
    """Where the settings that are in effect are written."""
    judged: tuple[JudgedMove, ...] = ()
    """What the latest moves came to, the oldest first."""


class ControlState:
    """The sink behind the control socket. `now` returns monotonic seconds (Clock.now)."""

    def __init__(self, now: Callable[[], float], *, kept_outcomes: int = KEPT_OUTCOMES) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._started_at = now()
        self._report: TickReport | None = None
        self._told_at: float | None = None
        self._totals = Totals(pages={})
        self._outcomes: deque[PastOutcome] = deque(maxlen=kept_outcomes)
        self._config_path: str | None = None
        self._reload: Reload | None = None
        self._places = Places()
        self._judged: deque[JudgedMove] = deque(maxlen=kept_outcomes)

    def emit(self, report: TickReport) -> None:
        """Take one finished tick."""
        told_at = self._now()
        with self._lock:
            self._report = report
            self._told_at = told_at
            self._totals = _add(self._totals, report)
            self._judged.extend(report.judged)
            self._outcomes.extend(_shorten(outcome, report.number, told_at) for outcome in report.outcomes)

    def tick_failed(self) -> None:
        """Count a tick that ended with an exception."""
        with self._lock:
            self._totals = replace(self._totals, failed_ticks=self._totals.failed_ticks + 1)

    def reloaded(
        self, *, path: str | None, succeeded: bool, at: float, error: str = "", places: Places | None = None
    ) -> None:
        """Note that the configuration was read (the first time, too) at unix time `at`; `path` None is the defaults.

        `places` tells where what is in effect from now on is written; None: what was in effect stays so.
        """
        with self._lock:
            self._config_path = path
            self._places = self._places if places is None else places
            self._reload = Reload(succeeded=succeeded, at=at, error=error)

    def view(self) -> View:
        """Return what is known now."""
        with self._lock:
            return View(
                started_at=self._started_at,
                report=self._report,
                told_at=self._told_at,
                totals=self._totals,
                outcomes=tuple(self._outcomes),
                config_path=self._config_path,
                reload=self._reload,
                places=self._places,
                judged=tuple(self._judged),
            )


def _add(totals: Totals, report: TickReport) -> Totals:
    pages = dict(totals.pages)
    for outcome in report.outcomes:
        for status, count in outcome.pages.items():
            pages[status] = pages.get(status, 0) + count
    return replace(
        totals,
        ticks=totals.ticks + 1,
        submitted_pages=totals.submitted_pages + sum(o.submitted_pages for o in report.outcomes),
        moved_bytes=totals.moved_bytes + sum(o.moved_pages for o in report.outcomes) * PAGE_BYTES,
        pages=pages,
    )


def _shorten(outcome: MigrationOutcome, tick: int, told_at: float) -> PastOutcome:
    return PastOutcome(
        tick=tick,
        told_at=told_at,
        policy=outcome.step.policy,
        process=outcome.step.process,
        target=outcome.step.target,
        move_id=outcome.step.move_id or None,
        submitted_pages=outcome.submitted_pages,
        pages=dict(outcome.pages),
        moved_from=dict(outcome.moved_from),
        calls=len(outcome.call_seconds),
        longest_call_seconds=max(outcome.call_seconds, default=None),
        seconds=outcome.seconds,
        stopped_by=outcome.stopped_by,
        detail=outcome.detail,
    )
