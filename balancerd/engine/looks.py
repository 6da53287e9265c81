"""How soon a process deserves another look: the longer nothing changes, the later.

Remembers of each process when it was looked at last, its size and where its memory lay then. Time is data.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PlacementSample, ProcessSample

SHORTEST_SECONDS = 5.0
LONGEST_SECONDS = 320.0

SIZE_CHANGE = 0.05
"""A process whose resident size changed by this share is looked at again at once."""

SHARE_CHANGE = 0.02
"""What a node's share of the memory must have changed by to count; below it is noise of the sample."""


@dataclass(frozen=True, slots=True)
class _Look:
    taken_at: float
    rss_bytes: int
    shares: Mapping[NodeId, float]
    interval_seconds: float


class Looks:
    """When to look again, by process."""

    def __init__(self) -> None:
        self._looks: dict[ProcessId, _Look] = {}

    def is_due(self, process: ProcessSample, now: float) -> bool:
        """Return whether the process was never looked at, has changed its size, or its interval has passed."""
        last = self._looks.get(process.id)
        if last is None or abs(process.rss_bytes - last.rss_bytes) > SIZE_CHANGE * last.rss_bytes:
            return True
        return now - last.taken_at >= last.interval_seconds

    def note(self, placement: PlacementSample, rss_bytes: int) -> None:
        """Take note of a look: the next one comes after 5 s when something has changed, else after twice as long."""
        held = placement.bytes_by_node
        total = sum(held.values())
        shares = {node: size / total for node, size in held.items()} if total else {}
        last = self._looks.get(placement.process)
        interval = SHORTEST_SECONDS
        if last is not None and all(
            abs(shares.get(node, 0.0) - last.shares.get(node, 0.0)) <= SHARE_CHANGE
            for node in shares.keys() | last.shares.keys()
        ):
            interval = min(LONGEST_SECONDS, 2 * last.interval_seconds)
        self._looks[placement.process] = _Look(placement.taken_at, rss_bytes, shares, interval)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for process in self._looks.keys() - alive:
            del self._looks[process]
