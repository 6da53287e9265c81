"""Runs of pages that may move at another try: which, when, and how often. Pure: time and tries come from outside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from balancerd.kernel.moving.account import status_of
from balancerd.model.page_status import TRANSIENT, PageStatus
from balancerd.native.records import Run

BACK_OFF_SECONDS = (0.010, 0.040, 0.160)
"""How long to wait before each further try; what keeps a page busy is short (an isolation, a lock, a write)."""

_PASS_SECONDS = 0.25
"""Between two passes while there is other work: each is a call at least, and a call has its price."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that has been tried `tries` times again, and is due at `due_at`."""

    due_at: float
    tries: int
    run: Run


class Retries:
    """What waits for another try."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._last_pass_at = float("-inf")

    @property
    def needs_memory(self) -> bool:
        """Whether the target had no room for something that waits: nothing else need be tried before it."""
        return any(status_of(waiting.run) is PageStatus.NO_MEMORY for waiting in self._waiting)

    def add(self, runs: Iterable[Run], now: float, tries: int = 0) -> tuple[Run, ...]:
        """Let runs with a transient status wait; return those that have been tried often enough."""
        transient = [run for run in runs if status_of(run) in TRANSIENT]
        if tries >= len(BACK_OFF_SECONDS):
            return tuple(transient)
        due_at = now + BACK_OFF_SECONDS[tries]
        self._waiting += [Waiting(due_at, tries, run) for run in transient]
        return ()

    def forget_behind(self, address: int) -> None:
        """Drop what lies at `address` or behind: it is looked at again anyway."""
        self._waiting = [
            replace(waiting, run=replace(waiting.run, end=min(waiting.run.end, address)))
            for waiting in self._waiting
            if waiting.run.start < address
        ]

    def next_at(self, *, idle: bool) -> float | None:
        """Return when the next pass is due, None when nothing waits; unless `idle`, passes keep a distance."""
        if not self._waiting:
            return None
        due_at = min(waiting.due_at for waiting in self._waiting)
        return due_at if idle else max(due_at, self._last_pass_at + _PASS_SECONDS)

    def take(self, now: float) -> tuple[tuple[int, Sequence[Run]], ...]:
        """Take out what is due, grouped by tries, status and source: (tries, runs) for each group, in order."""
        self._last_pass_at = now
        groups: dict[tuple[int, PageStatus, int], list[Run]] = {}
        for waiting in self._waiting:
            if waiting.due_at <= now:
                run = waiting.run
                groups.setdefault((waiting.tries, status_of(run), run.source), []).append(run)
        self._waiting = [waiting for waiting in self._waiting if waiting.due_at > now]
        return tuple((key[0], sorted(groups[key], key=lambda run: run.start)) for key in sorted(groups))
