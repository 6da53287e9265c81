"""Outcomes of steps that nobody carried out: no page was looked at, and a Reason says why."""

from collections.abc import Mapping

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationStep,
    WholeMove,
)


def nothing_moved(step: MigrationStep, reason: Reason, detail: str = "") -> MigrationOutcome:
    """Return the outcome of a step of which nothing was submitted."""
    return MigrationOutcome(
        step=step,
        looked_pages=0,
        on_target_pages=0,
        passed_over={},
        submitted_pages=0,
        pages={},
        moved_from={},
        call_seconds=(),
        query_seconds=0.0,
        batch_pages=0,
        resume_at=step.resume_at,
        stopped_by=reason,
        detail=detail,
    )


def nothing_evicted(step: EvictionStep, reason: Reason, detail: str = "") -> EvictionOutcome:
    """Return the outcome of a step of which nothing was advised."""
    return EvictionOutcome(
        step=step,
        looked_pages=0,
        absent_pages=0,
        other_pages=0,
        advised_pages=0,
        evicted_pages=0,
        kept_pages=0,
        call_seconds=(),
        query_seconds=0.0,
        resume_at=step.resume_at,
        stopped_by=reason,
        detail=detail,
    )


def stayed_whole(process: ProcessId, target_of: Mapping[NodeId, NodeId], reason: Reason, detail: str = "") -> WholeMove:
    """Return what became of a process that was not moved as a whole."""
    return WholeMove(
        process=process,
        target_of=target_of,
        not_moved_pages=None,
        seconds=0.0,
        before_bytes={},
        after_bytes={},
        stopped_by=reason,
        detail=detail,
    )
