"""Carrying out one step of a plan: claim the memory, move it in bounded calls, try again what failed for a moment.

Owns the order of these and when a step ends. What should move was decided elsewhere; how a page moves is the business
of the native core, and what became of it is in the account.
"""

import errno
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TypeAlias, TypeVar

from balancerd.kernel.errors import BlockedError, ProcessGoneError
from balancerd.kernel.moving.account import Account, page_statuses, status_of
from balancerd.kernel.moving.calls import Calls, MigrateCore, Work
from balancerd.kernel.moving.claims import REFUSALS, Claim, Claims, why_refused
from balancerd.kernel.moving.cpus import CopyingCpus
from balancerd.kernel.moving.legs import Way, parts
from balancerd.kernel.moving.pacing import RETRY, Pacer, finish
from balancerd.kernel.moving.patience import drop
from balancerd.kernel.moving.retry import BACK_OFF_SECONDS
from balancerd.kernel.moving.room import Room
from balancerd.kernel.moving.verify import Verifier, total
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Migration, Run
from balancerd.ports import Clock

T = TypeVar("T")
Waiting: TypeAlias = Generator[float, None, T]
"""Work that yields the time until when it has nothing to do."""

_VERIFIED_PAGES = 256
"""So many pages of a step are asked for again: of 2 % that are not where they should be, one is seen with 99 %."""


class Mover:
    """Carries out steps. What it remembers from one to the next is the size of a batch that suits the stall target.

    `phase` returns numbers in [0, 1): where the samples of a verification begin.
    """

    def __init__(
        self,
        core: MigrateCore,
        clock: Clock,
        pacer: Pacer,
        claims: Claims,
        *,
        sysfs: str = "/sys",
        phase: Callable[[], float] = random.random,
        may_move_all: bool = True,
        copying: CopyingCpus | None = None,
    ) -> None:
        self._clock = clock
        self._pacer = pacer
        self._claims = claims
        self._may_move_all = may_move_all
        self._room = Room(claims.procfs, sysfs)
        self._verifier = Verifier(core, claims.procfs, sysfs, phase)
        self._calls = Calls(core, self._room, pacer.pace, claims.caller, copying or CopyingCpus())

    def relearn(self) -> None:
        """Learn the size of a batch anew: the stall target is another one."""
        self._calls.relearn(self._pacer.pace)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that have ended."""
        self._calls.forget_all_but(alive)

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Carry out one step, as `begin` does, and wait where it waits."""
        return finish(self._clock, self.begin(step, should_stop))

    def begin(self, step: MigrationStep, should_stop: Callable[[], bool]) -> Waiting[MigrationOutcome]:
        """Carry out one step. It ends with the ranges, a budget, a refusal, or when `should_stop` says so.

        Yields the time until when the process rests, and somebody else's memory may move. Raises AccountingError when
        the sums of the native core do not hold, which is a defect. The outcome tells of the step as it was carried out:
        without CAP_SYS_NICE no range of it is for all sharers.
        """
        if not self._may_move_all:
            step = replace(step, ranges=tuple(replace(each, all_sharers=False) for each in step.ranges))
        pace = self._pacer.step(step.process, budget_seconds=step.budget_seconds, should_stop=should_stop)
        account = Account(step)
        work = Work(step, pace, account, Way(step.ranges, step.resume_at, 0))
        for late in self._calls.late.take(step.process):
            account.add(late)
        try:
            with self._claims.claim(step.process, step.ranges) as claim:
                account.note(claim.detail)
                work.way = Way(claim.ranges, step.resume_at, self._room.huge_bytes)
                pace.begin()
                yield from self._run(work, claim)
                pace.end()
                self._verify(account, claim)
        except REFUSALS as error:
            account.stop(*why_refused(error))
        return account.outcome(
            batch_pages=self._calls.batch.pages,
            resume_at=work.way.resume_at,
            throttled_seconds=pace.throttled_seconds,
            stalls=len(pace.stalls),
            held_up_ratio=pace.held_up_ratio,
        )

    def _run(self, work: Work, claim: Claim) -> Waiting[None]:
        """Alternate between going on and trying again until neither is left, or something speaks against it."""
        if not work.has_pages() or not (yield from self._may_go_on(work, claim)):
            return
        self._calls.learn_price(self._clock.now())
        while (yield from self._may_go_on(work, claim)):
            is_moving = work.has_pages() and not work.retries.needs_memory
            retry_at = work.retries.next_at(idle=not is_moving)
            if retry_at is not None and retry_at <= self._clock.now():
                yield from self._retry(work, claim)
            elif is_moving:
                yield from self._go_on(work, claim)
            elif retry_at is not None:
                yield from work.pace.wait_until(retry_at, RETRY)
            else:
                return

    def _go_on(self, work: Work, claim: Claim) -> Waiting[None]:
        """Move what comes next. After a failure the core goes back to the first page that it did not try."""
        before, page_bytes = work.way.resume_at, work.way.leg.page_bytes
        done = self._calls.call(work, work.way, claim.held, work.left_pages)
        waits = done.error == errno.ENOMEM and self._may_have_room_soon(work, done, page_bytes)
        failed = work.account.add(replace(done, error=None) if waits else done)
        self._let_wait(work, failed, done, tries=0)
        at = work.way.resume_at
        if done.not_attempted_pages and work.account.stopped_by is None and at is not None:
            work.account.reopen_behind(at)
            work.retries.forget_behind(at)
            if waits:
                yield from work.pace.wait_until(self._clock.now() + BACK_OFF_SECONDS[work.refusals_for_memory], RETRY)
            elif at == before:
                work.account.stop(Reason.CALL_FAILED, f"too many pages failed around {at:#x}")
        work.refusals_for_memory = work.refusals_for_memory + 1 if waits else 0

    def _may_have_room_soon(self, work: Work, done: Migration, page_bytes: int) -> bool:
        """Return whether a call that found no room may be made again: the target has room after all."""
        if work.refusals_for_memory >= len(BACK_OFF_SECONDS) or done.not_attempted_pages == 0:
            return False
        targets = work.targets if done.error_target is None else (NodeId(done.error_target),)
        n_bytes = done.not_attempted_pages * PAGE_BYTES
        return all(self._room.is_there_for(node, n_bytes, page_bytes) for node in targets)

    def _may_go_on(self, work: Work, claim: Claim) -> Waiting[bool]:
        """Wait for the next call's turn; return whether there is one, and put down why not in the account."""
        if work.account.stopped_by is not None:
            return False
        is_ready = yield from work.pace.wait_ready(claim.held.alive)
        if work.pace.refusal is not None:
            work.account.stop(*work.pace.refusal)
        return is_ready

    def _let_wait(self, work: Work, failed: Sequence[Run], done: Migration, *, tries: int) -> None:
        """Let what failed wait for another try. Pages without room end the step when no try, or no record, is left."""
        given_up = work.retries.add(failed, self._clock.now(), tries)
        no_room_pages = page_statuses(done)[PageStatus.NO_MEMORY]
        waiting_pages = _pages(run for run in failed if status_of(run) is PageStatus.NO_MEMORY and run not in given_up)
        if waiting_pages < no_room_pages and work.account.stopped_by is None:
            work.account.stop(Reason.NO_MEMORY, f"{no_room_pages} pages found no room")

    def _retry(self, work: Work, claim: Claim) -> Waiting[None]:
        """Try again what is due, one sort after the other."""
        for tries, runs in work.retries.take(self._clock.now()):
            if status_of(runs[0]) is PageStatus.NO_MEMORY and not self._has_room_for(runs):
                work.account.stop(Reason.NO_MEMORY, f"{_pages(runs)} pages found no room")
            if not (yield from self._may_go_on(work, claim)):
                return
            yield from self._retry_alike(work, claim, tries, runs)

    def _retry_alike(self, work: Work, claim: Claim, tries: int, runs: Sequence[Run]) -> Waiting[None]:
        """Try runs of one status and source again; what is not reached keeps its status."""
        status, source = status_of(runs[0]), NodeId(runs[0].source)
        for_all = [each for each in work.step.ranges if each.all_sharers]
        ranges = tuple(
            Range(
                start=run.start,
                end=run.end,
                page_bytes=run.page_bytes,
                all_sharers=any(each.start <= run.start < each.end for each in for_all),
            )
            for run in runs
        )
        way = Way(ranges, 0, self._room.huge_bytes)
        if work.huge is not None:
            way.tell_apart(work.huge)
        work.account.reopen(runs)
        done: Migration | None = None
        try:
            while not way.is_done and (yield from self._may_go_on(work, claim)):
                done = self._calls.call(work, way, claim.held, _pages(runs))
                self._let_wait(work, work.account.add_retry(status, source, done), done, tries=tries + 1)
                if done.not_attempted_pages:
                    break
        finally:
            rest = () if way.resume_at is None else _unreached(runs, way.resume_at, () if done is None else done.runs)
            work.account.add_failed(rest)
            work.retries.add(rest, self._clock.now(), tries + 1)

    def _has_room_for(self, runs: Sequence[Run]) -> bool:
        """Return whether every target has room again for all of what is to go there."""
        n_bytes: dict[tuple[int, int], int] = {}
        for run in runs:
            key = (run.target, run.page_bytes)
            n_bytes[key] = n_bytes.get(key, 0) + run.end - run.start
        return all(self._room.is_there_for(NodeId(node), n, page_bytes) for (node, page_bytes), n in n_bytes.items())

    def _verify(self, account: Account, claim: Claim) -> None:
        """Ask again for some of the pages that are said to have moved; unknown when nobody answers."""
        if account.moved_runs and claim.held.alive():
            pid, runs = claim.held.process.pid, tuple(account.moved_runs)
            try:
                found = self._claims.caller.call(
                    claim.held.process, lambda: self._verifier.ask(pid, runs, _VERIFIED_PAGES), drop
                )
            except (BlockedError, ProcessGoneError):
                return
            account.verified = total(found)


def _pages(runs: Iterable[Run]) -> int:
    return sum(run.end - run.start for run in runs) // PAGE_BYTES


def _unreached(runs: Iterable[Run], address: int, reached: Iterable[Run]) -> tuple[Run, ...]:
    """Return what of `runs` lies at `address` or behind and not in `reached`."""
    holes = sorted((run.start, run.end) for run in reached)
    return tuple(
        replace(run, start=part.start, end=part.end)
        for run in runs
        if run.end > address
        for part, is_hole in parts(Range(start=max(run.start, address), end=run.end, page_bytes=run.page_bytes), holes)
        if not is_hole
    )
