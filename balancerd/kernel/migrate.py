"""Carrying out one step of a plan: bounded calls of move_pages(2), one after the other, and an account of every page.

Owns how long calls may take, when to stop, and the words for what became of the pages. What should move
was decided elsewhere; how a page moves is the business of the native core.
"""

import errno
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from balancerd import native
from balancerd.kernel.batch import BatchSize
from balancerd.kernel.errors import AccountingError, ParseError, ProcessGoneError
from balancerd.kernel.identity import HeldProcess
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.migration import MigrationOutcome, MigrationStep, PageStatus
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Cursor, Migration
from balancerd.ports import Clock

_LOOKS_PER_BATCH = 8
"""Pages looked at in search of one batch: asking is cheaper than moving, and a call with few pages is dear."""

_MOST_LOOK_PAGES = 32768

_IDLE_CALLS_PER_STEP = 3
"""About 30 us each on an idle machine, and so few that their sum hardly counts where CPUs are busy."""

STATUS_OF_ERRNO = {
    errno.ENOENT: PageStatus.ABSENT,
    errno.EACCES: PageStatus.SHARED,
    errno.EPERM: PageStatus.LOCKED,
    errno.EBUSY: PageStatus.BUSY,
    errno.EFAULT: PageStatus.FAULT,
    errno.ENOMEM: PageStatus.NO_MEMORY,
    errno.EIO: PageStatus.IO_ERROR,
    errno.EINVAL: PageStatus.INVALID,
}
"""The statuses of move_pages(2); any other errno is PageStatus.OTHER_ERROR."""

REASON_OF_ERRNO = {
    errno.ESRCH: Reason.EXITED,
    errno.ENOMEM: Reason.NO_MEMORY,
    errno.EPERM: Reason.NO_ACCESS,
    errno.EACCES: Reason.CPUSET,
}
"""Why a call as a whole was refused, move_pages(2): EACCES is a node outside of the cpuset; others are CALL_FAILED."""


class MigrateCore(Protocol):
    """The native functions that move pages; balancerd.native has them."""

    def idle_call(self) -> float:
        """Return the seconds of a call that moves nothing. Raises OSError."""
        ...

    def migrate(
        self,
        pid: int,
        ranges: native.RangeArray,
        *,
        node: int,
        cursor: Cursor,
        batch_pages: int,
        look_pages: int,
        step_pages: int,
    ) -> Migration:
        """Move batches from the cursor on until `step_pages` were submitted; errors of the call are in the result."""
        ...


class Mover:
    """Carries out steps. What it remembers from one to the next is the size of a batch that suits `stall_target`."""

    def __init__(self, core: MigrateCore, clock: Clock, stall_target_seconds: float, procfs: str = "/proc") -> None:
        self._core = core
        self._clock = clock
        self._procfs = procfs
        self._batch = BatchSize(stall_target_seconds)

    def set_stall_target(self, seconds: float) -> None:
        """Learn the size of a batch anew, for another duration of calls."""
        self._batch = BatchSize(seconds)

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Carry out one step. It ends with the ranges, a budget, a refusal, or when `should_stop` says so.

        Raises AccountingError when the sums of the native core do not hold, which is a defect.
        """
        account = _Account(step)
        try:
            with HeldProcess(step.process, self._procfs) as held:
                self._run(step, should_stop, held, account)
        except ProcessGoneError as error:
            account.stop(Reason.EXITED, str(error))
        except ParseError as error:
            account.stop(Reason.UNREADABLE, str(error))
        except OSError as error:
            account.stop(Reason.CALL_FAILED, str(error))
        return account.outcome(self._batch.pages)

    def _run(
        self, step: MigrationStep, should_stop: Callable[[], bool], held: HeldProcess, account: "_Account"
    ) -> None:
        deadline = self._clock.now() + step.budget_seconds
        for _ in range(_IDLE_CALLS_PER_STEP):
            self._batch.idle_call_took(self._core.idle_call())
        ranges = native.RangeArray((r.start, r.end, r.page_bytes) for r in step.ranges)
        while not account.is_done and account.stopped_by is None:
            left_pages = step.budget_bytes // PAGE_BYTES - account.submitted_pages
            if left_pages <= 0 or self._clock.now() >= deadline:
                return
            if should_stop():
                account.stop(Reason.STOPPING)
            elif not held.alive():
                account.stop(Reason.EXITED)
            else:
                batch_pages = min(self._batch.pages, left_pages)
                step_pages = min(self._batch.batches * batch_pages, left_pages)
                done = self._core.migrate(
                    step.process.pid,
                    ranges,
                    node=step.target,
                    cursor=account.cursor,
                    batch_pages=batch_pages,
                    look_pages=min(_LOOKS_PER_BATCH * step_pages, _MOST_LOOK_PAGES),
                    step_pages=step_pages,
                )
                account.add(done)
                if done.calls:
                    self._batch.took(done.longest_call_seconds, done.largest_call_pages)


class _Account:
    """What became of the pages of one step, summed over its calls."""

    def __init__(self, step: MigrationStep) -> None:
        first = bisect_right([r.end for r in step.ranges], step.resume_at)
        self.cursor = Cursor(range_index=first, address=step.resume_at)
        self.is_done = first == len(step.ranges)
        self.stopped_by: Reason | None = None
        self.submitted_pages = 0
        self._step = step
        self._detail = ""
        self._looked_pages = 0
        self._on_target_pages = 0
        self._passed_over: Counter[PageStatus] = Counter()
        self._pages: Counter[PageStatus] = Counter()
        self._moved_from: Counter[NodeId] = Counter()
        self._call_seconds: list[float] = []
        self._query_seconds = 0.0

    def stop(self, reason: Reason, detail: str = "") -> None:
        """Say why the step ends early."""
        self.stopped_by, self._detail = reason, detail

    def add(self, done: Migration) -> None:
        """Add one call of the native core. Raises AccountingError when its sums do not hold."""
        pages = Counter({PageStatus.MOVED: done.moved_pages})
        for number, n in done.by_errno:
            pages[STATUS_OF_ERRNO.get(number, PageStatus.OTHER_ERROR)] += n
        pages[PageStatus.NOT_ATTEMPTED] += done.not_attempted_pages
        pages[PageStatus.UNWRITTEN] += done.unwritten_pages
        passed_over = done.absent_pages + done.other_before_pages
        if pages.total() != done.submitted_pages:
            raise AccountingError(f"{done.submitted_pages} pages were submitted and {pages.total()} came out: {done}")
        if done.looked_pages != done.already_on_target_pages + passed_over + done.submitted_pages:
            raise AccountingError(f"not every page that was looked at is accounted for: {done}")
        if done.looked_pages == 0 and not done.is_done and done.error is None:
            raise AccountingError(f"a call looked at no page: {done}")
        self.cursor, self.is_done = done.cursor, done.is_done
        self.submitted_pages += done.submitted_pages
        self._looked_pages += done.looked_pages
        self._on_target_pages += done.already_on_target_pages
        self._passed_over[PageStatus.ABSENT] += done.absent_pages
        self._passed_over[PageStatus.OTHER_ERROR] += done.other_before_pages
        self._pages += pages
        self._moved_from.update({NodeId(node): n for node, n in done.from_node})
        self._call_seconds.extend(_call_seconds(done))
        self._query_seconds += done.query_seconds
        if done.error is not None:
            name = errno.errorcode.get(done.error, str(done.error))
            reason = REASON_OF_ERRNO.get(done.error, Reason.CALL_FAILED)
            self.stop(reason, f"move_pages: {name} ({os.strerror(done.error)})")
        elif pages[PageStatus.NO_MEMORY]:
            self.stop(Reason.NO_MEMORY, f"{pages[PageStatus.NO_MEMORY]} pages found no room")

    def outcome(self, batch_pages: int) -> MigrationOutcome:
        """Return the account as a record; statuses that no page has are left out."""
        return MigrationOutcome(
            step=self._step,
            looked_pages=self._looked_pages,
            on_target_pages=self._on_target_pages,
            passed_over=dict(+self._passed_over),
            submitted_pages=self.submitted_pages,
            pages=dict(+self._pages),
            moved_from=dict(+self._moved_from),
            call_seconds=tuple(self._call_seconds),
            query_seconds=self._query_seconds,
            batch_pages=batch_pages,
            resume_at=None if self.is_done else self._resume_at(),
            stopped_by=self.stopped_by,
            detail=self._detail,
        )

    def _resume_at(self) -> int:
        return max(self.cursor.address, self._step.ranges[self.cursor.range_index].start)


def _call_seconds(done: Migration) -> list[float]:
    """Return the time of each call: of several, the longest and the sum are known, and the others get equal shares."""
    if done.calls <= 1:
        return [done.moving_seconds] * done.calls
    others = done.calls - 1
    return [done.longest_call_seconds, *[(done.moving_seconds - done.longest_call_seconds) / others] * others]
