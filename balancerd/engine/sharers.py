"""Which shared memory may move for all who map it: when all of them run where it is to go. Pure.

Pages that several processes map stay where they are otherwise, since they would become remote for some of them. Who is
not watched, or hardly runs, has a say only where somebody placed it: it hardly reads memory. Must not know how anything
moves.
"""

from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.manager import Manager
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot

HOME_SHARE = 0.9
"""Of the run time between two looks: who ran less on a node is not at home there."""


class Sharers:
    """Who shares memory at one tick. Objections are gathered once for each target."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._objected: dict[NodeId, frozenset[str]] = {}

    def agreed(self, process: ProcessId, target: NodeId) -> frozenset[str]:
        """Return the backings (Vma.backing) of the shared memory of `process` that may move to `target` for all."""
        backings = _backings(self._snapshot.placements[process])
        return backings and backings - self._objected_to(target)

    def _objected_to(self, target: NodeId) -> frozenset[str]:
        if target not in self._objected:
            eligible = {each.id for each in self._snapshot.eligible}
            self._objected[target] = frozenset().union(
                *(
                    _backings(self._snapshot.placements[each.id])
                    for each in self._snapshot.survey.processes
                    if each.id in self._snapshot.placements and _objects(each, target, is_eligible=each.id in eligible)
                )
            )
        return self._objected[target]


def _objects(process: ProcessSample, target: NodeId, *, is_eligible: bool) -> bool:
    """Return whether its memory is not to be moved there: it runs elsewhere, may not be there, or is left alone."""
    if process.opt_out is not None or process.manager not in (None, Manager.AFFINITY):
        return True
    if process.mems_allowed is not None and target not in process.mems_allowed:
        return True
    run = process.run_seconds or {}
    seconds = sum(run.values())
    return seconds > 0 and (not is_eligible or run.get(target, 0.0) < HOME_SHARE * seconds)


def _backings(placement: PlacementSample) -> frozenset[str]:
    return frozenset(placed.vma.backing for placed in placement.vmas if placed.vma.backing)
