"""Who is left alone until when, and how often in a row it gave cause.

Each cause has strikes of its own: a process that stalled keeps them through a cooldown. All times are handed in.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId

LONGEST_HOLD_SECONDS = 3600.0
"""Holds double with each failure in a row, up to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A process is left alone until `until`, for `reason`; `strikes` counts failures in a row."""

    until: float
    reason: Reason
    detail: str
    strikes: int

    def tell_rest(self, now: float) -> str:
        """Say what must happen until it ends, at time `now`."""
        return f"{self.until - now:.0f} s more of rest"

    def tell(self, now: float) -> str:
        """Say why, and when it ends, at time `now`."""
        wait = f"again in {self.until - now:.0f} s"
        return f"{self.detail}; {wait}" if self.detail else wait


class Holds:
    """One hold for each process at most: the one that lasts longest."""

    def __init__(self) -> None:
        self._holds: dict[ProcessId, Hold] = {}
        self._strikes: dict[ProcessId, dict[Reason, int]] = {}

    def find(self, process: ProcessId, now: float) -> Hold | None:
        """Return what holds the process at time `now`, or None."""
        hold = self._holds.get(process)
        return hold if hold is not None and now < hold.until else None

    def rest(self, process: ProcessId, reason: Reason, detail: str, until: float) -> None:
        """Leave a process alone that has given no cause."""
        self._keep(process, Hold(until=until, reason=reason, detail=detail, strikes=0))

    def strike(self, process: ProcessId, reason: Reason, detail: str, now: float, first_seconds: float) -> None:
        """Leave a process alone for `first_seconds`, and twice as long each further time for the same reason."""
        strikes = self._strikes.setdefault(process, {})
        strikes[reason] = strikes.get(reason, 0) + 1
        until = now + doubled(first_seconds, strikes[reason])
        self._keep(process, Hold(until=until, reason=reason, detail=detail, strikes=strikes[reason]))

    def forgive(self, process: ProcessId, *, but: AbstractSet[Reason] = frozenset()) -> None:
        """Count strikes anew, except for the reasons `but`: something went well."""
        kept = {reason: count for reason, count in self._strikes.pop(process, {}).items() if reason in but}
        if kept:
            self._strikes[process] = kept

    def forgive_one(self, process: ProcessId, reason: Reason) -> None:
        """Count the strikes for one reason anew."""
        self._strikes.get(process, {}).pop(reason, None)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for process in self._holds.keys() - alive:
            del self._holds[process]
        for process in self._strikes.keys() - alive:
            del self._strikes[process]

    def _keep(self, process: ProcessId, hold: Hold) -> None:
        last = self._holds.get(process)
        if last is None or hold.until >= last.until:
            self._holds[process] = hold


def doubled(first_seconds: float, strikes: int) -> float:
    """Return how long the hold after so many strikes in a row lasts."""
    return float(min(first_seconds * 2 ** min(strikes - 1, 32), LONGEST_HOLD_SECONDS))
