"""What became of the pages of one step: every page that was looked at ends in exactly one count.

Owns the words for the core's numbers and the sums that must hold. Must not know why pages move, nor call anything.
"""

import errno
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from balancerd.kernel.errors import AccountingError
from balancerd.kernel.processes.identity import GONE
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.migration import FailedRun, MigrationOutcome, MigrationStep, MovedRun, Verified
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Migration, Run

MOST_RUNS = 4096
"""Runs that one step records of each sort; the pages of others are only counted."""

STATUS_OF_ERRNO = {
    errno.ENOENT: PageStatus.ABSENT,
    errno.EACCES: PageStatus.SHARED,
    errno.EPERM: PageStatus.LOCKED,
    errno.EBUSY: PageStatus.BUSY,
    errno.EFAULT: PageStatus.FAULT,
    errno.ENOMEM: PageStatus.NO_MEMORY,
    errno.EIO: PageStatus.IO_ERROR,
    errno.EINVAL: PageStatus.INVALID,
    -1: PageStatus.UNWRITTEN,  # a run's, balancerd.native.records.Run
}
"""The statuses of move_pages(2); any other errno is PageStatus.OTHER_ERROR."""

REASON_OF_ERRNO = {
    errno.ESRCH: Reason.EXITED,
    errno.ENOMEM: Reason.NO_MEMORY,
    errno.EPERM: Reason.NO_ACCESS,
    errno.EACCES: Reason.OUTSIDE_CPUSET,
}
"""Why a call as a whole was refused, move_pages(2): EACCES is a node outside of the cpuset; others are CALL_FAILED."""

_REASON_OF_MOVE = REASON_OF_ERRNO | dict.fromkeys(GONE, Reason.EXITED)
"""The same of a call for pages."""


def explain_errno(call: str, number: int) -> str:
    """Return an errno of `call` for people, as "move_pages: EPERM (Operation not permitted)"."""
    return f"{call}: {errno.errorcode.get(number, str(number))} ({os.strerror(number)})"


class Account:
    """The account of one step, summed over its calls. `failed` are the runs that did not move, by their last try."""

    def __init__(self, step: MigrationStep) -> None:
        self.stopped_by: Reason | None = None
        self.detail = ""
        self.submitted_pages = 0
        self.moved_runs: list[MovedRun] = []
        self.failed: list[Run] = []
        self.verified: Verified | None = None
        self._step = step
        self._looked_pages = 0
        self._on_target_pages = 0
        self._passed_over: Counter[PageStatus] = Counter()
        self._pages: Counter[PageStatus] = Counter()
        self._moved_from: Counter[NodeId] = Counter()
        self._call_seconds: list[float] = []
        self._query_seconds = 0.0
        self._whole_folios = 0
        self._retried_pages = 0

    @property
    def main_source(self) -> NodeId | None:
        """The node that most of the moved pages were on; None before any has moved."""
        return max(self._moved_from, key=self._moved_from.__getitem__, default=None)

    def stop(self, reason: Reason, detail: str = "") -> None:
        """Say why the step ends early."""
        self.stopped_by = reason
        self.note(detail)

    def note(self, detail: str) -> None:
        """Add something for people."""
        self.detail = "; ".join(filter(None, (self.detail, detail)))

    def add(self, done: Migration) -> tuple[Run, ...]:
        """Add a call that went on where the one before it ended; return the runs that failed in it.

        What a call without an error left unattempted lies ahead, and counts when it is looked at again. Raises
        AccountingError when the sums of the core do not hold.
        """
        pages, passed_over = page_statuses(done), statuses_before(done)
        again = pages.pop(PageStatus.NOT_ATTEMPTED) if done.error is None else 0
        self.submitted_pages += done.submitted_pages - again
        self._looked_pages += done.looked_pages - again
        self._on_target_pages += done.already_on_target_pages
        self._passed_over.update(passed_over)
        self._pages.update(pages)
        return self._add_calls(done)

    def add_retry(self, status: PageStatus, source: NodeId, done: Migration) -> tuple[Run, ...]:
        """Add a call over pages of `source` that ended with `status` before; return the runs that failed again.

        Pages that were not reached keep that status, and so do those that are to be left alone by now. A page that is
        found on its target has moved after all. Raises AccountingError.
        """
        pages, found = page_statuses(done), statuses_before(done)
        kept = found.pop(PageStatus.LEFT_ALONE, 0) + found.pop(PageStatus.NO_HUGE_PAGE, 0)
        kept += pages.pop(PageStatus.NOT_ATTEMPTED, 0)
        reached = done.looked_pages - kept
        if reached > self._pages[status]:
            raise AccountingError(f"{reached} pages were tried again and only {self._pages[status]} had failed: {done}")
        self._pages[status] -= reached
        self._pages.update(pages + found)
        self._pages[PageStatus.MOVED] += done.already_on_target_pages
        self._moved_from[source] += done.already_on_target_pages
        self._retried_pages += done.submitted_pages - done.not_attempted_pages
        return self._add_calls(done)

    def reopen(self, runs: Collection[Run]) -> None:
        """Take back where pages failed: they are about to be tried again, and keep their status until then."""
        reopened = set(runs)
        self.failed = [run for run in self.failed if run not in reopened]

    def reopen_behind(self, address: int) -> None:
        """Take back what failed at `address` or behind: it lies ahead again, and counts when it is looked at."""
        front: list[Run] = []
        for run in self.failed:
            if run.start < address:
                front.append(replace(run, end=min(run.end, address)))
            pages = max(0, run.end - max(run.start, address)) // PAGE_BYTES
            self._pages[status_of(run)] -= pages
            self.submitted_pages -= pages
            self._looked_pages -= pages
        self.failed = front

    def add_failed(self, runs: Iterable[Run]) -> None:
        """Say where pages are that did not move."""
        self.failed.extend(runs)
        del self.failed[MOST_RUNS:]

    def outcome(
        self,
        *,
        batch_pages: int,
        resume_at: int | None,
        throttled_seconds: Mapping[str, float],
        stalls: int,
        held_up_ratio: float = 1.0,
    ) -> MigrationOutcome:
        """Return the account as a record; statuses that no page has are left out. Raises AccountingError."""
        pages = dict(+self._pages)
        if sum(pages.values()) != self.submitted_pages:
            raise AccountingError(f"{self.submitted_pages} pages were submitted and {pages} came out")
        recorded_bytes = sum(run.end - run.start for run in self.moved_runs)
        recorded_bytes += sum(run.end - run.start for run in self.failed)
        return MigrationOutcome(
            step=self._step,
            looked_pages=self._looked_pages,
            on_target_pages=self._on_target_pages,
            passed_over=dict(+self._passed_over),
            submitted_pages=self.submitted_pages,
            pages=pages,
            moved_from=dict(+self._moved_from),
            call_seconds=tuple(self._call_seconds),
            query_seconds=self._query_seconds,
            batch_pages=batch_pages,
            resume_at=resume_at,
            stopped_by=self.stopped_by,
            detail=self.detail,
            retried_pages=self._retried_pages,
            moved_runs=tuple(self.moved_runs),
            failed_runs=tuple(
                FailedRun(start=run.start, end=run.end, page_bytes=run.page_bytes, status=status_of(run))
                for run in self.failed
            ),
            unrecorded_pages=self.submitted_pages
            - pages.get(PageStatus.NOT_ATTEMPTED, 0)
            - recorded_bytes // PAGE_BYTES,
            whole_folios=self._whole_folios,
            throttled_seconds=dict(throttled_seconds),
            stalls=stalls,
            held_up_ratio=held_up_ratio,
            verified=self.verified,
        )

    def _add_calls(self, done: Migration) -> tuple[Run, ...]:
        self._moved_from.update({NodeId(node): n for node, n in done.from_node})
        self._call_seconds.extend(seconds_of_calls(done))
        self._query_seconds += done.query_seconds
        self._whole_folios += done.whole_folios
        for run in done.runs:
            if run.error == 0:
                self._add_moved(run)
        failed = tuple(run for run in done.runs if run.error)
        self.add_failed(failed)
        if done.error is not None:
            reason = _REASON_OF_MOVE.get(done.error, Reason.CALL_FAILED)
            where = "" if done.error_target is None else f" for node {done.error_target}"
            self.stop(reason, explain_errno("move_pages", done.error) + where)
        return failed

    def _add_moved(self, run: Run) -> None:
        """Record a run, as one with the run before it where they are neighbours."""
        source, target = NodeId(run.source), NodeId(run.target)
        last = self.moved_runs[-1] if self.moved_runs else None
        start = run.start
        if last is not None and (last.end, last.page_bytes, last.source, last.target) == (
            *(start, run.page_bytes),
            *(source, target),
        ):
            start = self.moved_runs.pop().start
        if len(self.moved_runs) < MOST_RUNS:
            moved = MovedRun(start=start, end=run.end, page_bytes=run.page_bytes, source=source, target=target)
            self.moved_runs.append(moved)


def status_of(run: Run) -> PageStatus:
    """Return the status of a run that failed."""
    return STATUS_OF_ERRNO.get(run.error, PageStatus.OTHER_ERROR)


def page_statuses(done: Migration) -> Counter[PageStatus]:
    """Count the submitted pages of one call of the core by their statuses. Raises AccountingError."""
    pages = Counter({PageStatus.MOVED: done.moved_pages})
    for number, n in done.by_errno:
        pages[STATUS_OF_ERRNO.get(number, PageStatus.OTHER_ERROR)] += n
    pages[PageStatus.NOT_ATTEMPTED] += done.not_attempted_pages
    pages[PageStatus.UNWRITTEN] += done.unwritten_pages
    if pages.total() != done.submitted_pages:
        raise AccountingError(f"{done.submitted_pages} pages were submitted and {pages.total()} came out: {done}")
    if sum(n for _, n in done.from_node) != done.moved_pages:
        raise AccountingError(f"not every page that moved came from somewhere: {done}")
    return pages


def statuses_before(done: Migration) -> Counter[PageStatus]:
    """Count the pages that one call of the core looked at and did not submit, by why. Raises AccountingError."""
    if done.looked_pages == 0 and not done.is_done and done.error is None:
        raise AccountingError(f"a call looked at no page: {done}")
    pages = Counter(
        {
            PageStatus.ABSENT: done.absent_pages,
            PageStatus.LEFT_ALONE: done.left_alone_pages,
            PageStatus.NO_HUGE_PAGE: done.no_room_pages,
        }
    )
    for number, n in done.before_errno:
        pages[STATUS_OF_ERRNO.get(number, PageStatus.OTHER_ERROR)] += n
    if sum(n for _, n in done.before_errno) != done.other_before_pages:
        raise AccountingError(f"not every page in error has its errno: {done}")
    if done.looked_pages != done.already_on_target_pages + pages.total() + done.submitted_pages:
        raise AccountingError(f"not every page that was looked at is accounted for: {done}")
    return pages


def seconds_of_calls(done: Migration) -> list[float]:
    """Return the time of each call of the core; of calls beyond those that it tells, equal shares of the rest."""
    told = list(done.call_seconds)
    others = done.calls - len(told)
    return told + [(done.moving_seconds - sum(told)) / others] * others if others > 0 else told
