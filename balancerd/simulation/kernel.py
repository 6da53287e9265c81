"""The machine in memory as a Kernel of ports.py: what the daemon asks and what it does, at simulated cost.

Owns how a move goes on: in calls, by bandwidth, with rests, until the target is full. Every page that was submitted is
in the outcome. It must not know why anything moves.
"""

from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from balancerd.engine.gate import REFILL_SECONDS
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    FailedRun,
    MigrationOutcome,
    MigrationStep,
    MovedRun,
    RunsNow,
    Verified,
    VerifyRequest,
    WholeMove,
)
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES, SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, ThreadFate, nothing_steered
from balancerd.model.untouched import nothing_evicted, stayed_whole
from balancerd.ports import SurveyScope
from balancerd.simulation.clock import SimClock
from balancerd.simulation.looking import Looker
from balancerd.simulation.machine import Machine
from balancerd.simulation.process import Part, SimProcess

TURN_PAGES: Final = (64 << 20) // PAGE_BYTES
"""Moved in one turn, before others have theirs. The real one makes calls of a few milliseconds."""

BATCH_PAGES: Final = 512
VERIFIED_PAGES: Final = 256


@dataclass(slots=True)
class _Account:
    """What became of the pages of one step."""

    looked: int = 0
    on_target: int = 0
    pages: dict[PageStatus, int] = field(default_factory=dict)
    moved_from: dict[NodeId, int] = field(default_factory=dict)
    moved_runs: list[MovedRun] = field(default_factory=list)
    failed_runs: list[FailedRun] = field(default_factory=list)
    call_seconds: list[float] = field(default_factory=list)
    untimed_pages: int = 0
    """Moved pages of which the time was not taken yet."""
    rested_seconds: float = 0.0
    stopped_by: Reason | None = None
    detail: str = ""

    @property
    def submitted(self) -> int:
        return sum(self.pages.values())

    def count(self, status: PageStatus, pages: int) -> None:
        if pages:
            self.pages[status] = self.pages.get(status, 0) + pages


class SimKernel:
    """A Kernel over a simulated machine. `duty_ratio` is as migrate.duty_cycle, `call_seconds` as stall_target."""

    mode = "enforce"

    def __init__(
        self,
        machine: Machine,
        clock: SimClock,
        chance: Random,
        *,
        duty_ratio: float = 0.5,
        call_seconds: float = 0.005,
        exact: bool = False,
    ) -> None:
        self._machine, self._clock = machine, clock
        self._duty_ratio, self._call_seconds = duty_ratio, call_seconds
        self._looker = Looker(machine, clock, chance, exact=exact)
        self._page_seconds = PAGE_BYTES / machine.section.bandwidth_bytes_per_second

    def survey(self, scope: SurveyScope) -> Survey:
        """See `Looker`."""
        self._machine.advance(self._clock.now())
        return self._looker.survey(scope)

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """See `Looker`."""
        return self._looker.sample(requests)

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Carry out one step, and wait where it rests."""
        work = self.begin_migration(step, should_stop)
        while True:
            try:
                self._clock.wait_until(next(work))
            except StopIteration as ended:
                outcome: MigrationOutcome = ended.value
                return outcome

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        """Move in turns: each takes its time by bandwidth, and then the process rests."""
        account, at, is_done = _Account(), step.resume_at, False
        began = self._clock.now()
        for each in step.ranges:
            at = max(at, each.start)
            while at < each.end:
                process = self._ready(step, account, began, should_stop)
                if process is None:
                    break
                part = _part_at(process, at)
                if part is None:
                    at = _next_start(process, at, each.end)
                    continue
                at = self._turn(step, process, part, (at, min(each.end, part.end)), account)
                if account.untimed_pages:
                    seconds = self._work(account)
                    if account.stopped_by is None and self._duty_ratio < 1.0:
                        rest = seconds * (1.0 / self._duty_ratio - 1.0)
                        account.rested_seconds += rest
                        yield self._clock.now() + rest
            if at < each.end:
                break
        else:
            is_done = True
        return _outcome(step, account, None if is_done else at)

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Move threads at once, each at the cost of cold caches, and hold them there if that is wanted."""
        self._machine.advance(self._clock.now())
        process = self._machine.processes.get(step.process)
        if process is None:
            return nothing_steered(step, Reason.EXITED)
        n_threads = len(process.threads)
        if step.kind is SteerKind.RELEASE:
            process.held_on = None
            return SteerOutcome(step=step, threads={ThreadFate.RESTORED: n_threads})
        if process.group.allowed is not None and step.target not in process.group.allowed:
            return SteerOutcome(step=step, threads={ThreadFate.OUTSIDE: n_threads}, stopped_by=Reason.OUTSIDE_AFFINITY)
        away = [thread for thread in process.threads if thread.node != step.target]
        for thread in away:
            self._machine.move_thread(thread, step.target)
        self._machine.accounts.moving_seconds += REFILL_SECONDS * len(away)
        if step.kind is SteerKind.PIN:
            process.held_on = step.target
            return SteerOutcome(step=step, threads={ThreadFate.PINNED: n_threads}, held_threads=n_threads)
        fates = {ThreadFate.MOVED: len(away), ThreadFate.THERE: n_threads - len(away)}
        return SteerOutcome(step=step, threads={fate: number for fate, number in fates.items() if number})

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Evict nothing: the machine has no swap."""
        del should_stop
        return nothing_evicted(step, Reason.NO_SWAP)

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        """Move what lies on some nodes to others, as far as there is room, in one call."""
        self._machine.advance(self._clock.now())
        found = self._machine.processes.get(process)
        if found is None:
            return stayed_whole(process, target_of, Reason.EXITED)
        before, moved = found.pages_on(), 0
        for part in found.parts:
            at = 0
            for pages, node, _ in [] if part.is_foreign else tuple(part.layout.runs):
                target = target_of.get(node, node)
                if target != node:
                    room = self._machine.room_for(target, pages)
                    moved += self._machine.move_pages(found, part, range(at, at + pages), target, room).moved_pages
                at += pages
        seconds = moved * self._page_seconds
        self._clock.work(seconds)
        wanted = sum(pages for node, pages in before.items() if target_of.get(node, node) != node)
        return WholeMove(
            process=process,
            target_of=target_of,
            not_moved_pages=wanted - moved,
            seconds=seconds,
            before_bytes={node: pages * PAGE_BYTES for node, pages in before.items()},
            after_bytes={node: pages * PAGE_BYTES for node, pages in found.pages_on().items()},
        )

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Tell where pages moved earlier are now: of each run as many as its part of those asked for, at least one."""
        self._machine.advance(self._clock.now())
        process = self._machine.processes.get(request.process)
        if process is None:
            return Skip(by="kernel", process=request.process, reason=Reason.EXITED)
        total = sum(run.end - run.start for run in request.runs)
        found = tuple(
            _look(process, run, max(1, request.asked_pages * (run.end - run.start) // total)) for run in request.runs
        )
        return RunsNow(process=request.process, runs=found, total=_sum(found))

    def _ready(
        self, step: MigrationStep, account: _Account, began: float, should_stop: Callable[[], bool]
    ) -> SimProcess | None:
        """Return the process if the step may go on, else None; a reason, if there is one, is put down."""
        self._machine.advance(self._clock.now())
        process = self._machine.processes.get(step.process)
        if account.stopped_by is not None:
            return None
        if process is None:
            account.stopped_by = Reason.EXITED
        elif should_stop():
            account.stopped_by = Reason.STOPPING
        elif account.submitted * PAGE_BYTES < step.budget_bytes and self._clock.now() - began < step.budget_seconds:
            return process
        return None

    def _turn(
        self, step: MigrationStep, process: SimProcess, part: Part, place: tuple[int, int], account: _Account
    ) -> int:
        """Submit what lies off its target between two addresses of one mapping; return the address to go on from."""
        first, end = ((address - part.start) // PAGE_BYTES for address in place)
        most_pages = max(1, min(TURN_PAGES, step.budget_bytes // PAGE_BYTES - account.submitted))
        target: NodeId | None
        if step.target_of is not None:
            first, end, target = _leg(part, first, end, step.target_of)
            if target is None:
                account.looked += end - first
                return part.start + end * PAGE_BYTES
        else:
            target = step.target
        if part.is_foreign and not step.move_all:
            return _refuse(part, first, min(end, first + most_pages), target, account)
        room = self._machine.room_for(target, most_pages)
        moved = self._machine.move_pages(process, part, range(first, end), target, room)
        account.looked += moved.looked_pages
        account.on_target += moved.on_target_pages
        account.count(PageStatus.MOVED, moved.moved_pages)
        account.untimed_pages += moved.moved_pages
        for begin, pages, source in moved.runs:
            account.moved_from[source] = account.moved_from.get(source, 0) + pages
            start = part.start + begin * PAGE_BYTES
            account.moved_runs.append(
                MovedRun(
                    start=start, end=start + pages * PAGE_BYTES, page_bytes=PAGE_BYTES, source=source, target=target
                )
            )
        if moved.next_page is None:
            return part.start + end * PAGE_BYTES
        if room < most_pages and moved.moved_pages >= room:
            _run_out(part, range(moved.next_page, end), target, most_pages - room, account)
        return part.start + moved.next_page * PAGE_BYTES

    def _work(self, account: _Account) -> float:
        """Let the time pass that copying took."""
        seconds, account.untimed_pages = account.untimed_pages * self._page_seconds, 0
        n_calls = max(1, round(seconds / self._call_seconds))
        account.call_seconds += [seconds / n_calls] * n_calls
        self._clock.work(seconds)
        return seconds


def _refuse(part: Part, first: int, end: int, target: NodeId, account: _Account) -> int:
    """Refuse pages that other processes map, each with its status."""
    held = part.layout.pages_within(first, end)
    refused = sum(pages for node, pages in held.items() if node != target)
    account.looked += end - first
    account.on_target += held.get(target, 0)
    account.count(PageStatus.SHARED, refused)
    stop = part.start + end * PAGE_BYTES
    if refused:
        start = part.start + first * PAGE_BYTES
        account.failed_runs.append(FailedRun(start=start, end=stop, page_bytes=PAGE_BYTES, status=PageStatus.SHARED))
    return stop


def _run_out(part: Part, rest: range, target: NodeId, most_pages: int, account: _Account) -> None:
    """End the step: the rest of a call finds no room."""
    held = part.layout.pages_within(rest.start, min(rest.stop, rest.start + BATCH_PAGES))
    failed = min(most_pages, sum(pages for node, pages in held.items() if node != target))
    account.looked += failed
    account.count(PageStatus.NO_MEMORY, failed)
    start = part.start + rest.start * PAGE_BYTES
    account.failed_runs.append(
        FailedRun(start=start, end=start + failed * PAGE_BYTES, page_bytes=PAGE_BYTES, status=PageStatus.NO_MEMORY)
    )
    account.stopped_by, account.detail = Reason.NO_MEMORY, f"{failed} pages found no room"


def _outcome(step: MigrationStep, account: _Account, resume_at: int | None) -> MigrationOutcome:
    asked = min(VERIFIED_PAGES, account.pages.get(PageStatus.MOVED, 0))
    is_verified = asked and account.stopped_by is not Reason.EXITED
    return MigrationOutcome(
        step=step,
        looked_pages=account.looked,
        on_target_pages=account.on_target,
        passed_over={},
        submitted_pages=account.submitted,
        pages=account.pages,
        moved_from=account.moved_from,
        call_seconds=tuple(account.call_seconds),
        query_seconds=0.0,
        batch_pages=BATCH_PAGES,
        resume_at=resume_at,
        stopped_by=account.stopped_by,
        detail=account.detail,
        moved_runs=tuple(account.moved_runs),
        failed_runs=tuple(account.failed_runs),
        throttled_seconds={"duty-cycle": account.rested_seconds} if account.rested_seconds else {},
        verified=Verified(asked_pages=asked, on_target_pages=asked, elsewhere_pages=0, absent_pages=0)
        if is_verified
        else None,
    )


def _part_at(process: SimProcess, address: int) -> Part | None:
    """Return the mapping that holds an address, None for a hole."""
    number = bisect_right(process.parts, address, key=lambda part: part.start) - 1
    part = process.parts[number] if number >= 0 else None
    return part if part is not None and address < part.end else None


def _next_start(process: SimProcess, address: int, end: int) -> int:
    """Return where the next mapping behind an address begins, or `end` if there is none before."""
    return next((part.start for part in process.parts if address < part.start < end), end)


def _leg(part: Part, first: int, end: int, target_of: Mapping[NodeId, NodeId]) -> tuple[int, int, NodeId | None]:
    """Return the first pages of [first, end) that lie on one node, and where that node's pages go; None: nowhere."""
    at = 0
    for run in part.layout.runs:
        if at + run.pages > first:
            return first, min(end, at + run.pages), target_of.get(run.node)
        at += run.pages
    return first, end, None


def _look(process: SimProcess, run: MovedRun, asked: int) -> Verified:
    part = _part_at(process, run.start)
    pages = (run.end - run.start) // PAGE_BYTES
    if part is None:
        return Verified(asked_pages=asked, on_target_pages=0, elsewhere_pages=0, absent_pages=asked)
    first = (run.start - part.start) // PAGE_BYTES
    held = part.layout.pages_within(first, first + pages)
    on_target = round(asked * held.get(run.target, 0) / pages)
    return Verified(asked_pages=asked, on_target_pages=on_target, elsewhere_pages=asked - on_target, absent_pages=0)


def _sum(found: tuple[Verified, ...]) -> Verified:
    return Verified(
        asked_pages=sum(each.asked_pages for each in found),
        on_target_pages=sum(each.on_target_pages for each in found),
        elsewhere_pages=sum(each.elsewhere_pages for each in found),
        absent_pages=sum(each.absent_pages for each in found),
    )
