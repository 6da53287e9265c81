"""Carrying out one step of eviction: claim the memory, and give it back in bounded calls of process_madvise(2).

Owns what of a step can leave memory at all, and when it ends. What should go was decided elsewhere.
"""

import errno
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from balancerd import native
from balancerd.kernel.errors import AccountingError
from balancerd.kernel.machine.memory import read_swap_room
from balancerd.kernel.moving.account import explain_errno
from balancerd.kernel.moving.batch import BatchSize
from balancerd.kernel.moving.claims import REFUSALS, Claim, Claims, why_refused
from balancerd.kernel.moving.legs import Way
from balancerd.kernel.moving.pacing import Pacer, StepPace, finish
from balancerd.kernel.moving.patience import LateAnswers, call_holding
from balancerd.kernel.processes.identity import GONE
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import EvictionOutcome, EvictionStep, Range
from balancerd.model.sample import PAGE_BYTES, Vma, VmaKind
from balancerd.native.records import Cursor, Eviction

_LOOKS_PER_BATCH = 8
"""Pages looked at in search of one batch, as for a migration."""

_ENOUGH_LOOK_PAGES = 32768

_NEEDS_SWAP = frozenset({VmaKind.ANON, VmaKind.HEAP, VmaKind.STACK, VmaKind.SHMEM})


_REASON_OF_ERRNO = {**dict.fromkeys(GONE, Reason.EXITED), errno.EPERM: Reason.NO_ACCESS}
"""Why a call was refused; others are CALL_FAILED. EINVAL of process_madvise(2) is a mapping's own, and counted."""


class EvictCore(Protocol):
    """The native function that gives memory back; balancerd.native has it."""

    def evict(
        self,
        pid: int,
        pidfd: int,
        ranges: native.RangeArray,
        *,
        cursor: Cursor,
        batch_pages: int,
        look_pages: int,
        cold_only: bool,
    ) -> Eviction:
        """Advise one batch from the cursor on; errors of the call are in the result."""
        ...


@dataclass(slots=True)
class _Work:
    """One step on its way, and what became of its pages."""

    step: EvictionStep
    pace: StepPace
    way: Way
    needs_swap: bool = False
    stopped_by: Reason | None = None
    details: list[str] = field(default_factory=list)
    looked_pages: int = 0
    absent_pages: int = 0
    other_pages: int = 0
    advised_pages: int = 0
    evicted_pages: int = 0
    kept_pages: int = 0
    refused_pages: int = 0
    call_seconds: list[float] = field(default_factory=list)
    query_seconds: float = 0.0

    def stop(self, reason: Reason, detail: str = "") -> None:
        """Say why the step ends early."""
        self.stopped_by = reason
        self.details.append(detail)

    def add(self, done: Eviction) -> None:
        """Go on behind one call of the core. Raises AccountingError when its sums do not hold."""
        self.count(done)
        self.way.went(done.cursor, is_done=done.is_done)

    def count(self, done: Eviction) -> None:
        """Count what became of the pages of one call, of an earlier step, too. Raises AccountingError."""
        if (
            done.looked_pages != done.absent_pages + done.other_pages + done.advised_pages
            or done.advised_pages != done.evicted_pages + done.kept_pages
            or (done.looked_pages == 0 and not done.is_done and done.error is None)
        ):
            raise AccountingError(f"not every page that was to be evicted is accounted for: {done}")
        self.looked_pages += done.looked_pages
        self.absent_pages += done.absent_pages
        self.other_pages += done.other_pages
        self.advised_pages += done.advised_pages
        self.evicted_pages += done.evicted_pages
        self.kept_pages += done.kept_pages
        self.refused_pages += done.refused_pages
        self.call_seconds.extend(done.call_seconds)
        self.query_seconds += done.query_seconds
        if done.error is not None:
            reason = _REASON_OF_ERRNO.get(done.error, Reason.CALL_FAILED)
            self.stop(reason, explain_errno("process_madvise", done.error))

    def outcome(self) -> EvictionOutcome:
        """Return the account as a record."""
        if self.refused_pages:
            self.details.append(f"{self.refused_pages} pages are locked, or of a device, and take no such advice")
        return EvictionOutcome(
            step=self.step,
            looked_pages=self.looked_pages,
            absent_pages=self.absent_pages,
            other_pages=self.other_pages,
            advised_pages=self.advised_pages,
            evicted_pages=self.evicted_pages,
            kept_pages=self.kept_pages,
            call_seconds=tuple(self.call_seconds),
            query_seconds=self.query_seconds,
            resume_at=self.way.resume_at,
            stopped_by=self.stopped_by,
            detail="; ".join(filter(None, self.details)),
            throttled_seconds=dict(self.pace.throttled_seconds),
        )


class Evictor:
    """Carries out steps of eviction, at the same pace as migrations but with batches of its own."""

    def __init__(self, core: EvictCore, pacer: Pacer, claims: Claims) -> None:
        self._core = core
        self._pacer = pacer
        self._claims = claims
        self._batch = BatchSize(pacer.pace.stall_target_seconds, pacer.pace.first_batch_pages)
        self._late: LateAnswers[Eviction] = LateAnswers()

    def relearn(self) -> None:
        """Learn the size of a batch anew: the stall target is another one."""
        self._batch = BatchSize(self._pacer.pace.stall_target_seconds, self._pacer.pace.first_batch_pages)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that have ended."""
        self._late.forget_all_but(alive)

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Carry out one step. It ends with the ranges, a budget, a refusal, or when `should_stop` says so.

        Raises AccountingError when the sums of the native core do not hold, which is a defect.
        """
        pace = self._pacer.step(
            step.process, budget_seconds=step.budget_seconds, should_stop=should_stop, for_cpu=False
        )
        work = _Work(step, pace, Way(step.ranges, step.resume_at, 0))
        for late in self._late.take(step.process):
            work.count(late)
        try:
            with self._claims.claim(step.process, step.ranges) as claim:
                work.details.append(claim.detail)
                self._run(work, claim)
        except REFUSALS as error:
            work.stop(*why_refused(error))
        return work.outcome()

    def _run(self, work: _Work, claim: Claim) -> None:
        ranges = self._able_to_leave(work, claim)
        if not ranges:
            return
        work.way = Way(ranges, work.step.resume_at, 0)
        while not work.way.is_done and self._may_go_on(work, claim):
            left_pages = work.step.budget_bytes // PAGE_BYTES - work.advised_pages
            if left_pages <= 0:
                return
            batch_pages = min(self._batch.pages, left_pages)
            make = partial(
                self._core.evict,
                work.step.process.pid,
                ranges=work.way.array,
                cursor=work.way.cursor,
                batch_pages=batch_pages,
                look_pages=max(batch_pages, min(_LOOKS_PER_BATCH * batch_pages, _ENOUGH_LOOK_PAGES)),
                cold_only=work.step.cold_only,
            )
            keep = partial(self._late.keep, work.step.process)
            done = call_holding(self._claims.caller, claim.held, lambda pidfd: make(pidfd=pidfd), keep)  # noqa: B023
            work.add(done)
            if done.calls:
                work.pace.called(done.call_seconds, 0.0, batch_pages)
                self._batch.took(max(done.call_seconds), done.advised_pages)

    def _may_go_on(self, work: _Work, claim: Claim) -> bool:
        """Wait for the next call's turn; return whether there is one, and put down why not."""
        if work.stopped_by is not None:
            return False
        is_ready = finish(self._pacer.clock, work.pace.wait_ready(claim.held.alive))
        if work.pace.refusal is not None:
            work.stop(*work.pace.refusal)
        elif is_ready and work.needs_swap and not self._has_swap():
            work.stop(Reason.NO_SWAP, f"{self._pacer.pace.max_swap_used_ratio:.0%} of the swap space is used")
            return False
        return is_ready

    def _able_to_leave(self, work: _Work, claim: Claim) -> tuple[Range, ...]:
        """Return the ranges that can leave memory: no huge pages of a pool, and without swap only pages of files."""
        ranges = [r for r in claim.ranges if r.page_bytes == PAGE_BYTES]
        if len(ranges) < len(claim.ranges):
            work.details.append("hugetlb pages never leave memory")
        if not work.step.cold_only:
            of_files = overlaps(ranges, [vma for vma in claim.vmas if vma.kind not in _NEEDS_SWAP and not vma.own])
            work.needs_swap = of_files != ranges
            if work.needs_swap and not self._has_swap():
                if of_files:
                    work.details.append("there is no swap space for what is not of a file")
                elif ranges:
                    work.stop(Reason.NO_SWAP)
                ranges, work.needs_swap = of_files, False
        return tuple(ranges)

    def _has_swap(self) -> bool:
        return read_swap_room(self._claims.procfs, self._pacer.pace.max_swap_used_ratio) > 0


def overlaps(ranges: Sequence[Range], vmas: Sequence[Vma]) -> list[Range]:
    """Return the parts of `ranges` that lie in `vmas`; both ascending."""
    return [
        Range(start=max(r.start, vma.start), end=min(r.end, vma.end), page_bytes=r.page_bytes)
        for r in ranges
        for vma in vmas
        if r.start < vma.end and vma.start < r.end
    ]
