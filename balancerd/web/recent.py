"""The newest decisions and what became of them, bounded.

Owns which verdicts of several ticks are one line: the same policy wants the same done with the same process, and never
rested for longer than a minute. Pure.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from balancerd.model.decision import Decision, Reason, Skip, Steer, Wanted
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, EvictionStep, MigrationOutcome, MigrationStep
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.steering import SteerOutcome

KEPT: Final = 50
PAUSE_SECONDS: Final = 60.0

Key = tuple[ProcessId, str, str, NodeId | None]
"""Process, policy, what is to be done, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """What a policy, or an operator, wanted of a process in `ticks` ticks, the last at monotonic second `last_at`.

    `action` is "move", "evict" or "steer". `done_bytes` were moved or evicted, `failed_pages` tried in vain.
    `held_by` is what turned it down or ended it early in the last tick, None when nothing did. `comm` is None for a
    process that the surveys pass over.
    """

    process: ProcessId
    comm: str | None
    policy: str
    action: str
    target: NodeId | None
    reason: Reason
    detail: str
    last_at: float
    ticks: int = 1
    done_bytes: int = 0
    failed_pages: int = 0
    held_by: Reason | None = None
    held_detail: str = ""


class Recent:
    """The newest decisions, the oldest first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, PastDecision] = OrderedDict()

    def add(self, report: TickReport, at: float) -> None:
        """Add the decisions of one tick, and what it did without one, as for operators' commands.

        Of too many those are kept of which anything was done.
        """
        found = sorted(_of_report(report, at), key=lambda each: each.done_bytes > 0)[-KEPT:]
        names = _names(report, {each.process for each in found})
        for each in found:
            key = (each.process, each.policy, each.action, each.target)
            known = self._kept.pop(key, None)
            named = replace(each, comm=names.get(each.process))
            if known is not None and at - known.last_at <= PAUSE_SECONDS:
                named = replace(
                    named,
                    comm=named.comm or known.comm,
                    ticks=known.ticks + 1,
                    done_bytes=known.done_bytes + each.done_bytes,
                    failed_pages=known.failed_pages + each.failed_pages,
                )
            self._kept[key] = named
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def decisions(self) -> tuple[PastDecision, ...]:
        """Return what is kept."""
        return tuple(self._kept.values())


def _names(report: TickReport, processes: set[ProcessId]) -> dict[ProcessId, str]:
    if not processes:
        return {}
    return {each.id: each.comm for each in report.survey.processes if each.id in processes}


def _of_report(report: TickReport, at: float) -> Iterator[PastDecision]:
    moves: dict[tuple[ProcessId, str, NodeId], list[MigrationOutcome]] = {}
    for outcome in report.outcomes:
        step = outcome.step
        moves.setdefault((step.process, step.policy, step.target), []).append(outcome)
    evictions = {(done.step.process, done.step.policy): done for done in report.evictions}
    steers = {(done.step.process, done.step.policy): done for done in report.steers if not done.is_release}
    refusals: dict[ProcessId, list[Skip]] = {}
    for skip in report.plan.rejected:
        refusals.setdefault(skip.process, []).append(skip)
    for verdict in report.verdicts:
        if isinstance(verdict, Skip):
            continue
        wanted = _start(verdict, at)
        key = (verdict.process, verdict.policy)
        if isinstance(verdict, Decision) and (*key, verdict.target) in moves:
            yield _with_moves(wanted, moves.pop((*key, verdict.target)))
        elif wanted.action == "evict" and key in evictions:
            yield _with_eviction(wanted, evictions.pop(key))
        elif isinstance(verdict, Steer) and key in steers:
            yield _with_steer(wanted, steers.pop(key))
        elif refusals.get(verdict.process):
            skip = refusals[verdict.process].pop(0)
            yield replace(wanted, held_by=skip.reason, held_detail=skip.detail)
        else:
            yield wanted
    for outcomes in moves.values():
        yield _with_moves(_unasked(outcomes[0].step, at), outcomes)
    for eviction in evictions.values():
        yield _with_eviction(_unasked(eviction.step, at), eviction)


def _start(wanted: Wanted, at: float) -> PastDecision:
    action = "move" if isinstance(wanted, Decision) else "steer" if isinstance(wanted, Steer) else "evict"
    return PastDecision(
        process=wanted.process,
        comm=None,
        policy=wanted.policy,
        action=action,
        target=wanted.target if isinstance(wanted, Decision | Steer) else None,
        reason=wanted.reason,
        detail=wanted.detail,
        last_at=at,
    )


def _unasked(step: MigrationStep | EvictionStep, at: float) -> PastDecision:
    return PastDecision(
        process=step.process,
        comm=None,
        policy=step.policy,
        action="move" if isinstance(step, MigrationStep) else "evict",
        target=step.target if isinstance(step, MigrationStep) else None,
        reason=step.reason,
        detail="",
        last_at=at,
    )


def _with_moves(wanted: PastDecision, outcomes: list[MigrationOutcome]) -> PastDecision:
    stopped = next((done for done in outcomes if done.stopped_by is not None), None)
    moved = sum(done.moved_pages for done in outcomes)
    return replace(
        wanted,
        done_bytes=moved * PAGE_BYTES,
        failed_pages=sum(done.submitted_pages for done in outcomes) - moved,
        held_by=None if stopped is None else stopped.stopped_by,
        held_detail="" if stopped is None else stopped.detail,
    )


def _with_eviction(wanted: PastDecision, done: EvictionOutcome) -> PastDecision:
    evicted = 0 if done.step.cold_only else done.evicted_pages
    return replace(wanted, done_bytes=evicted * PAGE_BYTES, held_by=done.stopped_by, held_detail=done.detail)


def _with_steer(wanted: PastDecision, done: SteerOutcome) -> PastDecision:
    return replace(wanted, held_by=done.stopped_by, held_detail=done.detail)
