"""What the engine remembers of its own moves: how far a pass has come, and what is left alone until when.

Owns the verdict on a finished pass; holds of processes and the quarantine of ranges have their own books. It knows
nothing of policies; all times are those of the snapshots and outcomes handed in.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from balancerd.engine.holds import Hold, Holds
from balancerd.engine.parts import MovedParts
from balancerd.engine.quarantine import PERMANENT, Quarantine, Span, merged
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, MovedRun
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES

STUCK_RATIO = 0.1
"""A finished pass that moved less than this share of what it met, huge pages without room included, met pages that
cannot move."""

FIRST_HOLD_SECONDS = 60.0
"""The first hold for stalls and for ping-pong, whatever migrate.cooldown says."""

_INTERRUPTED = frozenset({None, Reason.STOPPING, Reason.PRESSURE})
"""Ends of a step after which its pass goes on where it stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One walk over a process's ranges towards `target`, spread over as many ticks as the budgets need.

    With `is_part`, a row of steps over parts of it, each of which was asked for anew; then nothing is resumed.
    """

    target: NodeId
    move_id: int
    resume_at: int = 0
    submitted_pages: int = 0
    moved_pages: int = 0
    failed: Mapping[PageStatus, int] = field(default_factory=dict)
    is_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionPass:
    """One walk over a process's ranges that gives memory back."""

    resume_at: int = 0
    advised_pages: int = 0
    evicted_pages: int = 0


class Ledger:
    """Progress and holds by process. Mutated only by the engine, after the facts."""

    def __init__(self, cooldown_seconds: float) -> None:
        self._cooldown_seconds = cooldown_seconds
        self._passes: dict[ProcessId, dict[NodeId, Pass]] = {}
        self._evictions: dict[ProcessId, EvictionPass] = {}
        self._holds = Holds()
        self._quarantine = Quarantine()
        self._parts = MovedParts()

    def set_cooldown(self, seconds: float) -> None:
        """Let processes rest so long after a move from now on; holds that are under way stay as they are."""
        self._cooldown_seconds = seconds

    def hold(self, process: ProcessId, now: float) -> Hold | None:
        """Return what holds the process at time `now`, or None."""
        return self._holds.find(process, now)

    def held_ranges(self, process: ProcessId, now: float, *, target: NodeId | None = None) -> tuple[Span, ...]:
        """Return the parts of its memory that are in quarantine at time `now`, ascending and apart.

        With a `target`, also those parts that were moved on their own a moment ago, and not to that node.
        """
        held = self._quarantine.held(process, now)
        return held if target is None else merged((*held, *self._parts.elsewhere(process, target, now)))

    def resume_at(self, process: ProcessId, target: NodeId) -> int:
        """Return the address where an unfinished pass towards `target` goes on; 0 for a new one."""
        going = self._passes.get(process, {}).get(target)
        return going.resume_at if going is not None else 0

    def move_id(self, process: ProcessId, target: NodeId) -> int:
        """Return the move that an unfinished pass towards `target` is; 0 for a new one."""
        going = self._passes.get(process, {}).get(target)
        return going.move_id if going is not None else 0

    def eviction_resume_at(self, process: ProcessId) -> int:
        """Return the address where an unfinished eviction goes on; 0 for a new one."""
        going = self._evictions.get(process)
        return 0 if going is None else going.resume_at

    def moving(self) -> frozenset[ProcessId]:
        """Return the processes with an unfinished pass."""
        return frozenset(self._passes)

    def rest(self, process: ProcessId, detail: str, now: float) -> None:
        """Leave a process alone for one cooldown: its memory has just been moved."""
        self._holds.rest(process, Reason.COOLDOWN, detail, now + self._cooldown_seconds)

    def turn_down(self, process: ProcessId, reason: Reason, detail: str, now: float) -> None:
        """Leave a process alone for a while because asking again soon would give the same answer."""
        self._holds.strike(process, reason, detail, now, self._cooldown_seconds)

    def record(self, outcome: MigrationOutcome, now: float) -> tuple[int, ...]:
        """Take note of what one step did; returns the moves that it puts an end to: those to other nodes."""
        process, stopped_by = outcome.step.process, outcome.stopped_by
        if stopped_by is Reason.OBSERVE_MODE:
            return ()
        after = self._pass_after(outcome)
        others = [each for target, each in self._passes.get(process, {}).items() if target != after.target]
        if not outcome.step.is_part:
            self._passes.pop(process, None)
        if stopped_by is Reason.EXITED:
            self._passes.pop(process, None)
            return tuple(each.move_id for each in others)
        self._quarantine.note_failed(process, outcome.failed_runs, now)
        got_on = stopped_by is Reason.CHANGED and outcome.submitted_pages > 0
        if stopped_by is not None and stopped_by not in _INTERRUPTED and not got_on:
            self._passes.pop(process, None)
            self._strike(process, stopped_by, outcome.detail, now)
        elif outcome.step.is_part:
            self._record_part(outcome, after, now)
        elif outcome.resume_at is not None:
            self._passes[process] = {after.target: after}
        else:
            self._finish(process, after, now)
        kept = self._passes.get(process, {}).values()
        return tuple(each.move_id for each in others if each not in kept)

    def record_eviction(self, outcome: EvictionOutcome, now: float) -> None:
        """Take note of what one step of eviction did."""
        step, stopped_by = outcome.step, outcome.stopped_by
        if stopped_by is Reason.OBSERVE_MODE:
            return
        before = self._evictions.pop(step.process, None)
        if before is None or step.resume_at == 0:
            before = EvictionPass()
        after = EvictionPass(
            resume_at=outcome.resume_at or 0,
            advised_pages=before.advised_pages + outcome.advised_pages,
            evicted_pages=before.evicted_pages + (0 if step.cold_only else outcome.evicted_pages),
        )
        if stopped_by is Reason.EXITED:
            return
        if stopped_by is not None and stopped_by not in _INTERRUPTED:
            self._strike(step.process, stopped_by, outcome.detail, now)
        elif outcome.resume_at is not None:
            self._evictions[step.process] = after
        elif step.is_part and not after.advised_pages:
            return  # nothing of these parts was there; others may be
        elif not step.cold_only and after.evicted_pages <= STUCK_RATIO * after.advised_pages:
            told = f"{after.evicted_pages} of {after.advised_pages} pages could be evicted"
            self._strike(step.process, Reason.QUARANTINE, told, now)
        elif not step.is_part:
            told = f"{after.advised_pages * PAGE_BYTES >> 20} MiB {'marked as cold' if step.cold_only else 'evicted'}"
            self.rest(step.process, told, now)

    def record_return(self, process: ProcessId, runs: Iterable[MovedRun], *, ping_pong: str | None, now: float) -> None:
        """Lock `runs`, which came back after they were moved; `ping_pong` tells why the whole process is held, too."""
        self._quarantine.note_returned(process, runs, now)
        if ping_pong is not None:
            self._holds.strike(process, Reason.PING_PONG, ping_pong, now, FIRST_HOLD_SECONDS)

    def stayed(self, process: ProcessId) -> None:
        """Take note that what was moved is still where it was moved: the next ping-pong is the first again."""
        self._holds.forgive_one(process, Reason.PING_PONG)

    def release_shared(self) -> None:
        """Try pages again that were left because other processes map them: now they may be moved."""
        self._quarantine.release(PageStatus.SHARED.value)

    def abandon_all_but(self, moving: AbstractSet[ProcessId], evicting: AbstractSet[ProcessId]) -> tuple[int, ...]:
        """End the unfinished passes of processes that no policy wants to move, or evict, any more; return the moves."""
        for process in self._evictions.keys() - evicting:
            del self._evictions[process]
        ended = [self._passes.pop(process) for process in self._passes.keys() - moving]
        return tuple(each.move_id for passes in ended for each in passes.values())

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> tuple[int, ...]:
        """Drop what is known of processes that are gone; return the moves that were under way."""
        self._holds.forget_all_but(alive)
        self._quarantine.forget_all_but(alive)
        self._parts.forget_all_but(alive)
        return self.abandon_all_but(alive, alive)

    def _pass_after(self, outcome: MigrationOutcome) -> Pass:
        step = outcome.step
        before = self._passes.get(step.process, {}).get(step.target)
        if before is None or before.is_part != step.is_part or (step.resume_at == 0 and not step.is_part):
            before = Pass(target=step.target, move_id=step.move_id, is_part=step.is_part)
        failed = dict(before.failed)
        no_huge_page = {PageStatus.NO_HUGE_PAGE: outcome.passed_over.get(PageStatus.NO_HUGE_PAGE, 0)}
        for status, pages in (*outcome.pages.items(), *no_huge_page.items()):
            if status is not PageStatus.MOVED and pages:
                failed[status] = failed.get(status, 0) + pages
        return replace(
            before,
            resume_at=0 if step.is_part else outcome.resume_at or 0,
            submitted_pages=before.submitted_pages + outcome.submitted_pages,
            moved_pages=before.moved_pages + outcome.moved_pages,
            failed=failed,
        )

    def _record_part(self, outcome: MigrationOutcome, after: Pass, now: float) -> None:
        """Go on, with a hold for the parts that moved but not for the process: others of its parts wait for nothing.

        A step that moved nothing of what it submitted, and of which nothing is in quarantine, would be asked for again.
        """
        process = outcome.step.process
        self._parts.note(process, outcome.moved_runs, now)
        self._passes.setdefault(process, {})[after.target] = after
        if outcome.submitted_pages and not outcome.moved_pages and outcome.resume_at is None:
            told = ", ".join(f"{pages} pages {status}" for status, pages in sorted(outcome.pages.items()) if pages)
            if not any(run.status in PERMANENT for run in outcome.failed_runs):
                self._strike(process, Reason.QUARANTINE, told, now)

    def _finish(self, process: ProcessId, done: Pass, now: float) -> None:
        told = ", ".join(f"{pages} pages {status}" for status, pages in sorted(done.failed.items()))
        met_pages = done.submitted_pages + done.failed.get(PageStatus.NO_HUGE_PAGE, 0)
        if done.moved_pages < STUCK_RATIO * met_pages or not done.moved_pages:
            self._strike(process, Reason.QUARANTINE, told or "nothing was found that could be moved", now)
            return
        moved = f"moved {done.moved_pages * PAGE_BYTES >> 20} MiB to node {done.target}"
        self._holds.forgive(process, but={Reason.PING_PONG})
        self.rest(process, f"{moved}; left over: {told}" if told else moved, now)

    def _strike(self, process: ProcessId, reason: Reason, detail: str, now: float) -> None:
        first_seconds = FIRST_HOLD_SECONDS if reason is Reason.STALLED else self._cooldown_seconds
        self._holds.strike(process, reason, detail, now, first_seconds)
