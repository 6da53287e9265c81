"""The last hour in minutes: what moved between which nodes, what did not move and why, what was evicted.

Owns how much is kept: one Minute for each of the last 60, whatever happens in it. Pure.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from balancerd.model.ids import NodeId
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES

MINUTES: Final = 60
MINUTE_SECONDS: Final = 60.0

Flows = Mapping[tuple[NodeId, NodeId], int]
"""Bytes by the node they came from and the one they went to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """One minute, or several of them added up. `number` counts minutes of the monotonic clock."""

    number: int
    flows: Flows = field(default_factory=dict)
    pages: Mapping[PageStatus, int] = field(default_factory=dict)
    evicted_bytes: int = 0

    @property
    def moved_bytes(self) -> int:
        """What changed its node."""
        return sum(self.flows.values())

    @property
    def failed_pages(self) -> int:
        """Base pages that were submitted and did not move."""
        return sum(pages for status, pages in self.pages.items() if status is not PageStatus.MOVED)


class Hour:
    """The minutes of the last hour in which anything happened, oldest first."""

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def add(self, report: TickReport, at: float) -> None:
        """Add what one tick did, at monotonic second `at`."""
        if not report.outcomes and not report.evictions:
            return
        done = _of_report(report, int(at // MINUTE_SECONDS))
        if self._minutes and self._minutes[-1].number == done.number:
            self._minutes[-1] = add_up((self._minutes[-1], done), done.number)
        else:
            self._minutes.append(done)

    def minutes(self) -> tuple[Minute, ...]:
        """Return the minutes kept."""
        return tuple(self._minutes)


def last_hour(minutes: Iterable[Minute], now: float, started_at: float) -> tuple[Minute | None, ...]:
    """Return the 60 minutes until `now`, the oldest first; None for one that ended before the daemon was there."""
    known = {minute.number: minute for minute in minutes}
    last, first = int(now // MINUTE_SECONDS), int(started_at // MINUTE_SECONDS)
    return tuple(
        None if number < first else known.get(number, Minute(number=number))
        for number in range(last - MINUTES + 1, last + 1)
    )


def add_up(minutes: Iterable[Minute | None], number: int = 0) -> Minute:
    """Return the sum of some minutes."""
    flows: dict[tuple[NodeId, NodeId], int] = {}
    pages: dict[PageStatus, int] = {}
    evicted = 0
    for minute in minutes:
        if minute is None:
            continue
        for pair, moved in minute.flows.items():
            flows[pair] = flows.get(pair, 0) + moved
        for status, count in minute.pages.items():
            pages[status] = pages.get(status, 0) + count
        evicted += minute.evicted_bytes
    return Minute(number=number, flows=flows, pages=pages, evicted_bytes=evicted)


def flows_of(report: TickReport) -> dict[tuple[NodeId, NodeId], int]:
    """Return what one tick moved between nodes."""
    flows: dict[tuple[NodeId, NodeId], int] = {}
    for outcome in report.outcomes:
        step = outcome.step
        for node, pages in outcome.moved_from.items():
            target = step.target if step.target_of is None else step.target_of.get(node, step.target)
            flows[node, target] = flows.get((node, target), 0) + pages * PAGE_BYTES
    return flows


def evicted_bytes_of(report: TickReport) -> int:
    """Return what one tick took out of memory."""
    return sum(done.evicted_pages for done in report.evictions if not done.step.cold_only) * PAGE_BYTES


def _of_report(report: TickReport, number: int) -> Minute:
    pages: dict[PageStatus, int] = {}
    for outcome in report.outcomes:
        for status, count in outcome.pages.items():
            pages[status] = pages.get(status, 0) + count
    return Minute(number=number, flows=flows_of(report), pages=pages, evicted_bytes=evicted_bytes_of(report))
