"""Which parts of a process were moved on their own a moment ago, and to which node: they do not go elsewhere at once.

A process that moves whole rests for a cooldown. Parts move as soon as it is known who uses them, and each rests by
itself, in blocks of 2 MiB: one minute, twice as long each further time, an hour at most. More of a block may follow to
the same node at any time. It must not know who decides.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from balancerd.engine.quarantine import Quarantine, Span
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MovedRun


class MovedParts:
    """The parts by the node to which they went."""

    def __init__(self) -> None:
        self._moved_to: dict[NodeId, Quarantine] = {}

    def note(self, process: ProcessId, runs: Iterable[MovedRun], now: float) -> None:
        """Take note of what moved."""
        by_target: dict[NodeId, list[MovedRun]] = {}
        for run in runs:
            by_target.setdefault(run.target, []).append(run)
        for target, moved in by_target.items():
            self._moved_to.setdefault(target, Quarantine()).note_moved(process, moved, now)

    def elsewhere(self, process: ProcessId, target: NodeId, now: float) -> tuple[Span, ...]:
        """Return the parts that rest at time `now` on nodes other than `target`; they may overlap."""
        return tuple(
            span
            for node, quarantine in sorted(self._moved_to.items())
            if node != target
            for span in quarantine.held(process, now)
        )

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for quarantine in self._moved_to.values():
            quarantine.forget_all_but(alive)
