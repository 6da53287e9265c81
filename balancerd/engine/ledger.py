"""What the engine remembers of its own moves: how far a pass has come, and who is left alone until when.

It knows nothing of policies; all times are those of the snapshots and outcomes handed in.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, PageStatus
from balancerd.model.sample import PAGE_BYTES

LONGEST_HOLD_SECONDS = 3600.0
"""Holds double with each failure in a row, up to this."""

STUCK_RATIO = 0.1
"""A finished pass that moved less than this share of what it submitted met pages that cannot move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A process is left alone until `until`, for `reason`; `strikes` counts failures in a row."""

    until: float
    reason: Reason
    detail: str
    strikes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One walk over a process's ranges towards `target`, spread over as many ticks as the budgets need."""

    target: NodeId
    resume_at: int
    submitted_pages: int
    moved_pages: int
    failed: Mapping[PageStatus, int]


class Ledger:
    """Progress and holds by process. Mutated only by the engine, after the facts."""

    def __init__(self, cooldown_seconds: float) -> None:
        self._cooldown_seconds = cooldown_seconds
        self._passes: dict[ProcessId, Pass] = {}
        self._holds: dict[ProcessId, Hold] = {}

    def hold(self, process: ProcessId, now: float) -> Hold | None:
        """Return what holds the process at time `now`, or None."""
        hold = self._holds.get(process)
        return hold if hold is not None and now < hold.until else None

    def resume_at(self, process: ProcessId, target: NodeId) -> int:
        """Return the address where an unfinished pass towards `target` goes on; 0 for a new one."""
        going = self._passes.get(process)
        return going.resume_at if going is not None and going.target == target else 0

    def moving(self) -> frozenset[ProcessId]:
        """Return the processes with an unfinished pass."""
        return frozenset(self._passes)

    def turn_down(self, process: ProcessId, reason: Reason, detail: str, now: float) -> None:
        """Leave a process alone for a while because asking again soon would give the same answer."""
        self._strike(process, reason, detail, now)

    def record(self, outcome: MigrationOutcome, now: float) -> None:
        """Take note of what one step did."""
        step = outcome.step
        if outcome.stopped_by is Reason.OBSERVE_MODE:
            return
        if outcome.stopped_by is Reason.EXITED:
            self._passes.pop(step.process, None)
            return
        before = self._passes.get(step.process)
        if before is None or before.target != step.target or step.resume_at == 0:
            before = Pass(target=step.target, resume_at=0, submitted_pages=0, moved_pages=0, failed={})
        failed = dict(before.failed)
        for status, pages in outcome.pages.items():
            if status is not PageStatus.MOVED and pages:
                failed[status] = failed.get(status, 0) + pages
        after = replace(
            before,
            resume_at=outcome.resume_at or 0,
            submitted_pages=before.submitted_pages + outcome.submitted_pages,
            moved_pages=before.moved_pages + outcome.moved_pages,
            failed=failed,
        )
        if outcome.stopped_by not in {None, Reason.STOPPING}:
            self._passes.pop(step.process, None)
            self._strike(step.process, outcome.stopped_by, outcome.detail, now)
        elif outcome.resume_at is not None:
            self._passes[step.process] = after
        else:
            self._passes.pop(step.process, None)
            self._finish(step.process, after, now)

    def abandon_all_but(self, wanted: AbstractSet[ProcessId]) -> None:
        """End the unfinished passes of processes that no policy wants to move any more."""
        for process in self._passes.keys() - wanted:
            del self._passes[process]

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for book in (self._passes, self._holds):
            for process in [p for p in book if p not in alive]:
                del book[process]

    def _finish(self, process: ProcessId, done: Pass, now: float) -> None:
        told = ", ".join(f"{pages} pages {status}" for status, pages in sorted(done.failed.items()))
        if done.moved_pages < STUCK_RATIO * done.submitted_pages:
            self._strike(process, Reason.QUARANTINE, told, now)
            return
        moved = f"moved {done.moved_pages * PAGE_BYTES >> 20} MiB to node {done.target}"
        self._holds[process] = Hold(
            until=now + self._cooldown_seconds,
            reason=Reason.COOLDOWN,
            detail=f"{moved}; left over: {told}" if told else moved,
            strikes=0,
        )

    def _strike(self, process: ProcessId, reason: Reason, detail: str, now: float) -> None:
        last = self._holds.get(process)
        strikes = last.strikes + 1 if last is not None and last.reason is reason else 1
        seconds = min(self._cooldown_seconds * 2 ** (strikes - 1), LONGEST_HOLD_SECONDS)
        self._holds[process] = Hold(until=now + seconds, reason=reason, detail=detail, strikes=strikes)
