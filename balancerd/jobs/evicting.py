"""The work that gives memory back to swap or its files, in slices paced by evict.rate_limit."""

from balancerd.engine.ranges import evictable_ranges
from balancerd.engine.room import SMALLEST_STEP_BYTES
from balancerd.jobs.ending import DONE, Ending, Pause, cancelled, failed
from balancerd.jobs.means import REFILL_SECONDS
from balancerd.jobs.moving import POLICY, SHORTEST_SLICE_SECONDS, Work, examine
from balancerd.jobs.record import EvictRequest
from balancerd.jobs.run import Run
from balancerd.model.decision import Reason
from balancerd.model.migration import EvictionStep
from balancerd.model.sample import PAGE_BYTES, bytes_by_node


def evict(run: Run, request: EvictRequest) -> Work:
    """Evict all that may leave memory; mempolicies say where memory lies, not whether, so they are not asked."""
    found = examine(run)
    if isinstance(found, Ending):
        return found
    placement = found[1]
    ranges = evictable_ranges(placement)
    if not ranges:
        return failed(Reason.NOTHING_PRESENT, "no private memory of it is there that could go")
    starts = {each.start for each in ranges}
    run.total_bytes = sum(bytes_by_node(p for p in placement.vmas if p.vma.start in starts).values())
    resume_at, is_done = 0, False
    while not is_done:
        if run.should_stop():
            return cancelled()
        means = run.means()
        budget_bytes = means.memory.budgets.allowed_eviction_bytes(means.clock.now())
        if budget_bytes < SMALLEST_STEP_BYTES:
            yield Pause(seconds=REFILL_SECONDS, reason=Reason.MIGRATION_BUDGET)
            continue
        step = EvictionStep(
            policy=POLICY,
            process=run.process,
            ranges=ranges,
            resume_at=resume_at,
            budget_bytes=budget_bytes,
            budget_seconds=max(run.deadline - means.clock.now(), SHORTEST_SLICE_SECONDS),
            cold_only=request.cold_only,
            reason=Reason.COMMAND,
        )
        outcome = means.kernel.evict(step, run.should_stop)
        run.note_eviction(outcome)
        means.memory.budgets.spend_eviction(outcome, means.clock.now())
        run.done_bytes = run.account.advised_pages * PAGE_BYTES
        is_done = outcome.resume_at is None
        got_on = is_done or bool(outcome.looked_pages) or (outcome.resume_at or 0) > resume_at
        follows = run.after(outcome.stopped_by, outcome.detail, got_on=got_on)
        resume_at = outcome.resume_at or resume_at
        if isinstance(follows, Ending):
            return follows
        yield follows
    return DONE
