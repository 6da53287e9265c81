"""Which processes run on several nodes at the same time: the largest share of one node, averaged over some seconds.

Owns what counts as spread, so that all policies that judge by accesses agree. Time is data. It must not know what is
concluded from that.
"""

import math
from dataclasses import dataclass

from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample, Snapshot

SPREAD_WINDOW_SECONDS = 20.0
"""Time constant of the average that tells whether a process runs on several nodes at once."""


@dataclass(slots=True)
class _Runs:
    """How one process ran; `largest` and `weight` make the average of the largest share of one node.

    `latest` is that share in the last interval in which it ran.
    """

    seen_at: float
    latest: float = 0.0
    largest: float = 0.0
    weight: float = 0.0
    is_spread: bool = False


class Spread:
    """The eligible processes of the snapshots shown to it. `home_share` is the share on one node that makes a home."""

    def __init__(self, home_share: float) -> None:
        self._home_share = home_share
        self._runs: dict[ProcessId, _Runs] = {}

    def observe(self, now: Snapshot) -> None:
        """Take note of a snapshot, which must be shown once."""
        alive = {process.id for process in now.survey.processes}
        self._runs = {process: runs for process, runs in self._runs.items() if process in alive}
        for process in now.eligible:
            self._note(process, now)

    def largest_share(self, process: ProcessId) -> float | None:
        """Return the average share of the node on which an eligible process runs most; None: it has not run yet."""
        runs = self._runs[process]
        return runs.largest / runs.weight if runs.weight > 0 else None

    def is_spread(self, process: ProcessId) -> bool:
        """Return whether an eligible process runs on several nodes at the same time."""
        return self._runs[process].is_spread

    def gathered_share(self, process: ProcessId) -> float | None:
        """Return the share of the node on which an eligible process runs now, if that has become its home; else None.

        The average says so a minute later. Until then what is known of its accesses is of when it ran on several nodes.
        """
        latest = self._runs[process].latest
        return latest if latest >= self._home_share else None

    def _note(self, process: ProcessSample, now: Snapshot) -> None:
        first = _Runs(seen_at=now.taken_at - (now.survey.interval_seconds or 0.0))
        runs = self._runs.setdefault(process.id, first)
        elapsed, runs.seen_at = now.taken_at - runs.seen_at, now.taken_at
        ran = [s for node, s in (process.run_seconds or {}).items() if node in now.survey.topology.node_ids]
        if sum(ran) > 0 and elapsed > 0:
            keep = math.exp(-elapsed / SPREAD_WINDOW_SECONDS)
            runs.latest = max(ran) / sum(ran)
            runs.weight = runs.weight * keep + 1.0 - keep
            runs.largest = runs.largest * keep + (1.0 - keep) * runs.latest
        # once spread, half-way to one node is not enough: what was learnt is forgotten when watching ends
        limit = (1.0 + self._home_share) / 2 if runs.is_spread else self._home_share
        runs.is_spread = runs.weight > 0 and runs.largest / runs.weight < limit
