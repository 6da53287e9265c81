"""What was moved lately and from where, so that it can be put back: one record for each move, bounded in all.

It must not know who undoes, or how. Times are monotonic seconds, handed in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MovedRun
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES

Key = TypeVar("Key")

MOST_MOVES = 128
MOST_RUNS = 4096
"""Runs kept of one move; what does not fit cannot be undone, and is counted."""

MOST_RUNS_IN_ALL = 32_768
"""About 5 MB; when there are more, the oldest moves can no longer be undone."""

_GOING_ON = frozenset({None, Reason.STOPPING, Reason.PRESSURE, Reason.CHANGED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One pass over a process, or one command, in however many steps.

    `pages` counts base pages by their last status, `moved_from` those that moved by the node they left; `runs` tell
    where, and which way back. `ended_at` is None while it goes on; `stopped_by` says why the last step ended early.
    """

    id: int
    process: ProcessId
    policy: str
    target: NodeId
    reason: Reason
    started_at: float
    ended_at: float | None = None
    stopped_by: Reason | None = None
    pages: Mapping[PageStatus, int] = field(default_factory=dict)
    moved_from: Mapping[NodeId, int] = field(default_factory=dict)
    runs: tuple[MovedRun, ...] = ()
    move_all: bool = False
    """Whether pages that other processes map, too, were moved where they could be."""

    @property
    def moved_pages(self) -> int:
        """Base pages that changed their node."""
        return self.pages.get(PageStatus.MOVED, 0)

    @property
    def moved_bytes(self) -> int:
        """Bytes that changed their node."""
        return self.moved_pages * PAGE_BYTES

    @property
    def lost_pages(self) -> int:
        """Base pages that moved and are in no run: where they came from is not known any more."""
        return max(0, self.moved_pages - sum((run.end - run.start) // PAGE_BYTES for run in self.runs))


class MoveLog:
    """The latest moves by their id, which counts from 1."""

    def __init__(self) -> None:
        self._moves: dict[int, Move] = {}
        self._last_id = 0

    def open(self, process: ProcessId, policy: str, target: NodeId, reason: Reason, now: float) -> int:
        """Begin a move and return its id."""
        self._last_id += 1
        self._moves[self._last_id] = Move(
            id=self._last_id, process=process, policy=policy, target=target, reason=reason, started_at=now
        )
        return self._last_id

    def record(self, move_id: int, outcome: MigrationOutcome, now: float) -> None:
        """Add what one step did; a move that is not remembered any more, or that was only observed, leaves nothing."""
        move = self._moves.get(move_id)
        if move is None:
            return
        if outcome.stopped_by is Reason.OBSERVE_MODE:
            del self._moves[move_id]
            return
        goes_on = outcome.resume_at is not None and outcome.stopped_by in _GOING_ON and not outcome.step.is_part
        self._moves[move_id] = replace(
            move,
            ended_at=None if goes_on else now,
            stopped_by=outcome.stopped_by,
            pages=_sum(move.pages, outcome.pages),
            moved_from=_sum(move.moved_from, outcome.moved_from),
            runs=_joined(move.runs, outcome.moved_runs)[:MOST_RUNS],
            move_all=move.move_all or outcome.step.move_all or any(r.all_sharers for r in outcome.step.ranges),
        )
        self._make_room()

    def end(self, move_id: int, now: float) -> None:
        """Take note that a move does not go on."""
        move = self._moves.get(move_id)
        if move is not None and move.ended_at is None:
            self._moves[move_id] = replace(move, ended_at=now)

    def find(self, move_id: int) -> Move | None:
        """Return a move, None when it is not known (any more)."""
        return self._moves.get(move_id)

    def recent(self) -> tuple[Move, ...]:
        """Return the moves that submitted anything, the oldest first."""
        return tuple(move for move in self._moves.values() if move.pages)

    def _make_room(self) -> None:
        too_many = max(0, len(self._moves) - MOST_MOVES)
        ended = sorted((m for m in self._moves.values() if m.ended_at is not None), key=lambda m: (bool(m.pages), m.id))
        for move in ended[:too_many]:
            del self._moves[move.id]
        runs = sum(len(move.runs) for move in self._moves.values())
        for move in tuple(self._moves.values()):
            if runs <= MOST_RUNS_IN_ALL:
                break
            runs -= len(move.runs)
            self._moves[move.id] = replace(move, runs=())


def _sum(first: Mapping[Key, int], second: Mapping[Key, int]) -> dict[Key, int]:
    return {key: first.get(key, 0) + second.get(key, 0) for key in (*first, *second)}


def _joined(runs: tuple[MovedRun, ...], more: Iterable[MovedRun]) -> tuple[MovedRun, ...]:
    """Append runs; those that go on where the one before ends become one with it."""
    joined = list(runs)
    for run in more:
        last = joined[-1] if joined else None
        if last is not None and last.end == run.start and _way(last) == _way(run):
            joined[-1] = replace(last, end=run.end)
        else:
            joined.append(run)
    return tuple(joined)


def _way(run: MovedRun) -> tuple[NodeId, NodeId, int]:
    return run.source, run.target, run.page_bytes
