"""Moves that went wrong stop moving for a while: to a node that ran out of memory, or everywhere when calls fail.

So does an operator's pause, in which nothing begins at all. Pressure is not its business, see plan.py: nothing moves
while it lasts, and it is an average over ten seconds already. Times are those of snapshots.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from balancerd.engine.holds import doubled
from balancerd.model.decision import Decision, Reason, Skip, Wanted
from balancerd.model.ids import NodeId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import Survey

BY = "plan"

FIRST_SECONDS = 60.0

CALM_SECONDS = 600.0
"""After a pause and so long without a cause the next one is the first again."""

FAILED_RATIO = 0.05
LEAST_PAGES = 512
"""More of the pages submitted in a tick, of so many at least, are no chance."""

FAILURES = frozenset({PageStatus.IO_ERROR, PageStatus.OTHER_ERROR, PageStatus.NOT_ATTEMPTED, PageStatus.UNWRITTEN})
"""Pages that something went wrong with; shared, locked and busy ones are what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    until: float
    strikes: int
    detail: str


class Pause:
    """What went wrong since it was last asked, and what rests for that: nodes, and None for all of them."""

    def __init__(self) -> None:
        self._rests: dict[NodeId | None, _Rest] = {}
        self._full: set[NodeId] = set()
        self._moved_to: set[NodeId] = set()
        self._submitted_pages = self._failed_pages = 0
        self._at = 0.0
        self._halt: str | None = None

    def halt(self, detail: str | None) -> None:
        """Have nothing begin any more, for an operator wants it so; None ends that."""
        self._halt = detail

    def note(self, outcome: MigrationOutcome, now: float) -> None:
        """Take note of one step."""
        self._at, step = now, outcome.step
        targets = {step.target} if step.target_of is None else set(step.target_of.values())
        if outcome.stopped_by is Reason.NO_MEMORY or outcome.pages.get(PageStatus.NO_MEMORY):
            self._full |= targets
        if outcome.moved_pages:
            self._moved_to |= targets
        self._submitted_pages += outcome.submitted_pages
        self._failed_pages += sum(outcome.pages.get(status, 0) for status in FAILURES)

    def look(self, survey: Survey) -> None:
        """Begin the pauses for which the latest steps, and what the nodes have left after them, give cause.

        They count from the steps.
        """
        for node in sorted(self._full):
            self._begin(node, f"node {node} ran out of memory during a move")
        for node in sorted(self._moved_to - self._full):
            memory = survey.memory.get(node)
            if memory is not None and memory.available_bytes < memory.high_watermark_bytes:
                told = f"node {node} has {memory.available_bytes >> 20} MiB left after a move, less than its watermark"
                self._begin(node, told)
        failed, submitted = self._failed_pages, self._submitted_pages
        if submitted >= LEAST_PAGES and failed > FAILED_RATIO * submitted:
            self._begin(None, f"{failed} of {submitted} pages failed")
        self._full.clear()
        self._moved_to.clear()
        self._submitted_pages = self._failed_pages = 0

    def part(self, wanted: Iterable[Wanted], now: float) -> tuple[tuple[Wanted, ...], tuple[Skip, ...]]:
        """Part what may move from what must wait."""
        if self._halt is not None:
            needs = "balancerctl resume"
            return (), tuple(
                Skip(by=BY, process=process, reason=Reason.HALTED, detail=self._halt, needs=needs)
                for process in dict.fromkeys(each.process for each in wanted)
            )
        able: list[Wanted] = []
        skips: list[Skip] = []
        for each in wanted:
            rest = self._resting(each.target, now) if isinstance(each, Decision) else None
            if rest is None:
                able.append(each)
            else:
                wait = f"{rest.until - now:.0f} s"
                detail = f"{rest.detail}; again in {wait}"
                skips.append(
                    Skip(by=BY, process=each.process, reason=Reason.PAUSED, detail=detail, needs=f"{wait} more of rest")
                )
        return tuple(able), tuple(skips)

    def tell(self, now: float) -> str | None:
        """Return what rests, None when nothing does."""
        resting = (rest.detail for rest in self._rests.values() if now < rest.until)
        return "; ".join((*(() if self._halt is None else (self._halt,)), *resting)) or None

    def _resting(self, target: NodeId, now: float) -> _Rest | None:
        found = [rest for rest in (self._rests.get(None), self._rests.get(target)) if rest and now < rest.until]
        return max(found, key=lambda rest: rest.until, default=None)

    def _begin(self, node: NodeId | None, detail: str) -> None:
        last, now = self._rests.get(node), self._at
        strikes = 1 if last is None or now >= last.until + CALM_SECONDS else last.strikes + 1
        self._rests[node] = _Rest(until=now + doubled(FIRST_SECONDS, strikes), strikes=strikes, detail=detail)
