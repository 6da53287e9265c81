"""Does memory stay where it was moved? Runs of the last minutes, and when to look at them again.

A process whose pages come back is being moved by someone else, or by us in a circle; either way more moves only cost.
It must not know how pages are asked for, or what is done about those that came back.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.model.decision import Reason
from balancerd.model.extent import Extent, do_meet, joined
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationOutcome, MovedRun, RunsNow, Verified, VerifyRequest

CHECK_AFTER_SECONDS = (10.0, 60.0, 300.0)
"""Soon, for a balancer that works against us; later, for a scheduler that brings the threads back."""

WINDOW_SECONDS = 600.0
"""What was moved longer ago may well be wanted elsewhere by now."""

MOST_RUNS = 256
ASKED_PAGES = 256
MOST_CHECKS = 4
"""Processes looked at in one tick."""

RETURNED_RATIO = 0.05
"""More than this share of the pages asked for is not chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a check found: the runs that came back; `ping_pong` tells of it when the process as a whole did.

    `is_settled` when the last check of a move found everything in its place.
    """

    returned: tuple[MovedRun, ...]
    ping_pong: str | None
    is_settled: bool


@dataclass(frozen=True, slots=True)
class _Watched:
    runs: tuple[tuple[float, MovedRun], ...]
    due: tuple[float, ...]


class Returns:
    """Moved runs and the checks that are due, by process."""

    def __init__(self) -> None:
        self._watched: dict[ProcessId, _Watched] = {}

    def note(self, outcome: MigrationOutcome, now: float) -> None:
        """Watch what one step moved. What was moved to other nodes before is watched no longer: we took it away.

        A step over parts takes nothing else away.
        """
        if not outcome.moved_runs:
            return
        process = outcome.step.process
        targets = {run.target for run in outcome.moved_runs}
        before = self._watched.get(process)
        taken = joined(Extent(run.start, run.end) for run in outcome.moved_runs) if outcome.step.is_part else None
        kept = [
            (at, run)
            for at, run in (() if before is None else before.runs)
            if run.target in targets or (taken is not None and not do_meet((Extent(run.start, run.end),), taken))
        ]
        runs = [(at, run) for at, run in kept if now - at < WINDOW_SECONDS] + [(now, run) for run in outcome.moved_runs]
        runs = runs[:: -(-len(runs) // MOST_RUNS)]  # every n-th
        self._watched[process] = _Watched(tuple(runs), tuple(now + seconds for seconds in CHECK_AFTER_SECONDS))

    def due(self, now: float) -> tuple[VerifyRequest, ...]:
        """Return the checks to make now, the longest due first."""
        waiting = sorted((w.due[0], process) for process, w in self._watched.items() if w.due and w.due[0] <= now)
        return tuple(
            VerifyRequest(
                process=process,
                runs=tuple(run for at, run in self._watched[process].runs if now - at < WINDOW_SECONDS),
                asked_pages=ASKED_PAGES,
            )
            for _, process in waiting[:MOST_CHECKS]
        )

    def judge(self, request: VerifyRequest, answer: RunsNow, now: float) -> Judgement:
        """Take note of a check. Runs that came back are watched no longer, so that they count once."""
        returned = tuple(run for run, found in zip(request.runs, answer.runs, strict=True) if _came_back(found))
        watched = self._watched.pop(request.process)
        due = tuple(at for at in watched.due if at > now)
        gone = set(returned)
        runs = tuple((at, run) for at, run in watched.runs if run not in gone and now - at < WINDOW_SECONDS)
        if runs:
            self._watched[request.process] = _Watched(runs, due)
        ping_pong = None
        if _came_back(answer.total):
            share = answer.total.elsewhere_pages / answer.total.asked_pages
            nodes = sorted({run.target for run in returned or request.runs})
            ping_pong = f"{share:.0%} of what was moved to node {', '.join(map(str, nodes))} is elsewhere again"
        return Judgement(returned=returned, ping_pong=ping_pong, is_settled=not due and ping_pong is None)

    def put_off(self, process: ProcessId, reason: Reason, now: float) -> None:
        """Take note that a check could not be made; a process that is gone is watched no longer."""
        watched = self._watched.pop(process)
        due = tuple(at for at in watched.due if at > now)
        if reason is not Reason.EXITED and due:
            self._watched[process] = _Watched(watched.runs, due)

    def forget(self, process: ProcessId) -> None:
        """Watch a process no longer: an operator has moved it."""
        self._watched.pop(process, None)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for process in self._watched.keys() - alive:
            del self._watched[process]


def _came_back(found: Verified) -> bool:
    return found.elsewhere_pages > RETURNED_RATIO * found.asked_pages
