"""How a slice of a job ends: with a pause, or for good. Pure."""

from dataclasses import dataclass

from balancerd.jobs.record import JobState
from balancerd.model.decision import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A slice is over: go on in `seconds`, because of `reason` when that is not at once."""

    seconds: float = 0.0
    reason: Reason | None = None


GO_ON = Pause()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a job ended, and why when it did not do all of it."""

    state: JobState
    reason: Reason | None = None
    detail: str = ""


DONE = Ending(state=JobState.DONE)


def failed(reason: Reason, detail: str = "") -> Ending:
    """Return the ending of a job that cannot go on."""
    return Ending(state=JobState.FAILED, reason=reason, detail=detail)


def cancelled() -> Ending:
    """Return the ending of a job that somebody, or the daemon's stop, put an end to."""
    return Ending(state=JobState.CANCELLED, reason=Reason.STOPPING)
