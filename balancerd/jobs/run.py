"""One job at work: what it has found out and done so far, kept by the loop alone.

Works change it and yield; the board reads it. It must not know threads or who asked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from balancerd.jobs.account import add_eviction, add_migration
from balancerd.jobs.ending import GO_ON, Ending, Pause, cancelled, failed
from balancerd.jobs.means import Means
from balancerd.jobs.record import Account, JobRequest, JobState
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, WholeMove

STRIKES = 5
"""So many slices in a row may end badly before a job is given up."""

FIRST_BACK_OFF_SECONDS = 1.0

IDLE_SECONDS = 0.1
MOST_IDLE_SLICES = 600
"""A slice in which nothing happens may be too short for the turn of its first call; so many in a row are a defect."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What a running job knows. `means` are those of the present configuration: ask again after each pause.

    `deadline` is the monotonic second at which the slice at hand should end.
    """

    means: Callable[[], Means]
    should_stop: Callable[[], bool]
    request: JobRequest
    process: ProcessId
    target_of: dict[NodeId, NodeId] = field(default_factory=dict)
    move_id: int | None = None
    total_bytes: int | None = None
    done_bytes: int = 0
    deadline: float = 0.0
    account: Account = field(default_factory=Account)
    whole: WholeMove | None = None
    notes: list[str] = field(default_factory=list)
    strikes: int = 0
    idle_slices: int = 0
    outcomes: list[MigrationOutcome] = field(default_factory=list)
    evictions: list[EvictionOutcome] = field(default_factory=list)

    def note_migration(self, outcome: MigrationOutcome) -> None:
        """Add one slice to the account and to what the next tick will tell, which needs no runs."""
        self.account = add_migration(self.account, outcome)
        self.outcomes.append(replace(outcome, moved_runs=(), failed_runs=()))

    def note_eviction(self, outcome: EvictionOutcome) -> None:
        """Add one slice of eviction to the account and to what the next tick will tell."""
        self.account = add_eviction(self.account, outcome)
        self.evictions.append(outcome)

    def after(self, stopped_by: Reason | None, detail: str, *, got_on: bool) -> Pause | Ending:
        """Return what follows a slice that ended so: the next one, a pause that doubles with each failure, or the end.

        `got_on` is whether it got any further than the slice before.
        """
        if self.should_stop() or stopped_by is Reason.STOPPING:
            return cancelled()
        if stopped_by is None and got_on:
            self.strikes = self.idle_slices = 0
            return GO_ON
        if stopped_by is None:
            self.idle_slices += 1
            if self.idle_slices >= MOST_IDLE_SLICES:
                return Ending(state=JobState.FAILED, detail=detail or "it did not get any further")
            return Pause(seconds=IDLE_SECONDS)
        if stopped_by not in _PASSING:
            return failed(stopped_by, detail)
        if stopped_by is Reason.PRESSURE:  # not this job's fault: it waits as long as that takes
            return Pause(seconds=FIRST_BACK_OFF_SECONDS, reason=Reason.PRESSURE)
        self.strikes += 1
        if self.strikes >= STRIKES:
            return failed(stopped_by, detail)
        return Pause(seconds=FIRST_BACK_OFF_SECONDS * 2 ** (self.strikes - 1), reason=stopped_by)


_PASSING = {Reason.PRESSURE, Reason.STALLED, Reason.NO_MEMORY, Reason.CHANGED, Reason.CLAIMED}
"""Reasons that may be gone a moment later."""
