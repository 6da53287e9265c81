"""What became of the memory that was to move: bytes, pages by status, calls, waiting, verification, evictions."""

from collections.abc import Mapping

from prometheus_client.core import Metric

from balancerd.metrics.instruments import Counter, Histogram
from balancerd.model.decision import Decision, Eviction, Reason
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, Verified
from balancerd.model.page_status import NEVER_SUBMITTED, PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.steering import SteerKind, ThreadFate

BUDGETS: Mapping[Reason, str] = {
    Reason.PRESSURE: "pressure",
    Reason.MIGRATION_BUDGET: "machine-budget",
    Reason.PROCESS_BUDGET: "process-budget",
    Reason.NODE_PAIR_BUDGET: "node-pair-budget",
}
"""Why the plan lets memory wait until a later tick, as a cause of throttling."""


CALL_BOUNDS_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""migrate.stall_target is 5 ms by default, so it is a bound; operators ask for the share below it."""


class MigrationCounters:
    """Totals over all ticks."""

    def __init__(self) -> None:
        self._bytes = Counter(
            "balancerd_migrated_bytes_total",
            "Bytes whose node changed, by both nodes and why.",
            *("from_node", "to_node", "reason"),
        )
        self._pages = Counter(
            "balancerd_migration_pages_total", "Base pages submitted for migration, by how each one ended.", "status"
        )
        self._failed_pages = Counter(
            "balancerd_migration_failed_pages_total", "Base pages submitted that did not move, by why.", "status"
        )
        self._passed_over = Counter(
            "balancerd_migration_passed_over_pages_total",
            "Base pages that were looked at and not submitted, by what they were; those on the target are not counted.",
            "status",
        )
        self._retried = Counter("balancerd_migration_retried_pages_total", "Further tries of a base page.")
        self._verified = Counter(
            "balancerd_migration_verified_pages_total",
            "Base pages said to have moved and asked for again right after, by where they were.",
            "result",
        )
        self._checked = Counter(
            "balancerd_migration_checked_pages_total",
            "Base pages asked for again seconds to minutes after their move.",
        )
        self._returned = Counter(
            "balancerd_migration_returned_pages_total",
            "Base pages asked for again seconds to minutes after their move that were elsewhere.",
        )
        self._stalls = Counter("balancerd_migration_stalls_total", "Migrating calls above migrate.stall_limit.")
        self._throttled = Counter(
            "balancerd_migration_throttled_seconds_total",
            "Time in which memory was to be moved or evicted and waited, by what for; causes may overlap.",
            "cause",
        )
        self._judged = Counter(
            "balancerd_moves_judged_total",
            "Moves by what they came to when their process was looked at after them; see docs/trust.md.",
            *("policy", "result"),
        )
        self._evicted = Counter("balancerd_evicted_bytes_total", "Bytes that left memory by eviction.")
        self._not_evicted = Counter(
            "balancerd_eviction_kept_bytes_total", "Bytes that were to be evicted and stayed in memory."
        )
        self._calls = Histogram(
            "balancerd_migration_call_duration_seconds",
            "Time in one migrating call to move_pages(2), in which the process may wait for its memory.",
            CALL_BOUNDS_SECONDS,
        )
        for status in PageStatus:
            if status not in NEVER_SUBMITTED:
                self._pages.add(status.value, by=0.0)
            if status not in {*NEVER_SUBMITTED, PageStatus.MOVED}:
                self._failed_pages.add(status.value, by=0.0)
            if status not in {PageStatus.MOVED, PageStatus.NOT_ATTEMPTED, PageStatus.UNWRITTEN}:
                self._passed_over.add(status.value, by=0.0)
        self._threads = Counter(
            "balancerd_thread_moves_total",
            "Threads that were to be moved to memory or let go, by how each one ended.",
            *("kind", "outcome"),
        )
        for kind in SteerKind:
            for fate in ThreadFate:
                self._threads.add(kind.value, fate.value, by=0.0)
        for plain in (self._retried, self._checked, self._returned, self._stalls, self._evicted, self._not_evicted):
            plain.add(by=0.0)
        self._count_verified(Verified(asked_pages=0, on_target_pages=0, elsewhere_pages=0, absent_pages=0))

    def count(self, report: TickReport) -> None:
        """Add what one tick moved, evicted, looked at again and let wait."""
        self._count_throttling(report)
        for outcome in report.outcomes:
            self._count_migration(outcome)
        for eviction in report.evictions:
            self._count_eviction(eviction)
        for move in report.judged:
            self._judged.add(move.policy, move.result.value)
        for steer in report.steers:
            for fate, number in steer.threads.items():
                self._threads.add(steer.step.kind.value, fate.value, by=number)
        self._checked.add(by=sum(found.total.asked_pages for found in report.returns))
        self._returned.add(by=sum(found.total.elsewhere_pages for found in report.returns))

    def families(self) -> list[Metric]:
        """Return what a scrape shows."""
        moved = (self._bytes, self._pages, self._failed_pages, self._passed_over, self._retried, self._verified)
        later = (self._judged, self._checked, self._returned)
        others = (self._stalls, self._throttled, self._evicted, self._not_evicted, self._threads)
        return [self._calls.family(), *(counter.family() for counter in (*moved, *later, *others))]

    def _count_throttling(self, report: TickReport) -> None:
        waits = [o.throttled_seconds for o in report.outcomes] + [o.throttled_seconds for o in report.evictions]
        for waited in waits:
            for cause, seconds in waited.items():
                self._throttled.add(cause, by=seconds)
        moving = {verdict.process for verdict in report.verdicts if isinstance(verdict, Decision)}
        evicting = {verdict.process for verdict in report.verdicts if isinstance(verdict, Eviction)} - moving
        causes = {
            "evict-budget"
            if skip.process in evicting and skip.reason is Reason.MIGRATION_BUDGET
            else BUDGETS[skip.reason]
            for skip in report.plan.rejected
            if skip.reason in BUDGETS
        }
        for cause in causes:
            self._throttled.add(cause, by=report.survey.interval_seconds or 0.0)

    def _count_migration(self, outcome: MigrationOutcome) -> None:
        step = outcome.step
        for node, pages in outcome.moved_from.items():
            target = step.target if step.target_of is None else step.target_of.get(node, step.target)
            self._bytes.add(str(node), str(target), step.reason.value, by=pages * PAGE_BYTES)
        for status, pages in outcome.pages.items():
            self._pages.add(status.value, by=pages)
            if status is not PageStatus.MOVED:
                self._failed_pages.add(status.value, by=pages)
        for status, pages in outcome.passed_over.items():
            self._passed_over.add(status.value, by=pages)
        for seconds in outcome.call_seconds:
            self._calls.observe(seconds)
        self._retried.add(by=outcome.retried_pages)
        self._stalls.add(by=outcome.stalls)
        if outcome.verified is not None:
            self._count_verified(outcome.verified)

    def _count_verified(self, found: Verified) -> None:
        self._verified.add("on-target", by=found.on_target_pages)
        self._verified.add("elsewhere", by=found.elsewhere_pages)
        self._verified.add("absent", by=found.absent_pages)
        self._verified.add("unknown", by=found.unknown_pages)

    def _count_eviction(self, outcome: EvictionOutcome) -> None:
        if not outcome.step.cold_only:
            self._evicted.add(by=outcome.evicted_pages * PAGE_BYTES)
            self._not_evicted.add(by=outcome.kept_pages * PAGE_BYTES)
