"""From what policies want to what will be done in this tick: one arbitration for all of them.

Whatever is turned down stays in the plan with its reason. The plan only reads the ledger.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from balancerd.engine.ledger import Ledger
from balancerd.engine.movable import movable
from balancerd.model.decision import Decision, Reason, Skip
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.migration import MigrationPlan, MigrationStep, Range
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot, Vma, VmaKind, VmaPlacement
from balancerd.model.topology import NodeMemory

BY = "plan"

MEMPOLICY_FRESH_SECONDS = 60.0
"""How long a reading of numa_maps is trusted; reading it costs time in proportion to the RSS."""

SMALLEST_STEP_BYTES = 2 << 20
"""Not worth starting for less: one call of 512 base pages, or one THP."""

RESERVE_BYTES = 1 << 30
"""Memory kept available on the target beside its high watermark, on a node large enough for it."""

RESERVE_RATIO = 0.1
"""On a small node the reserve is this share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """What one tick may move. `watermark_ratio` is the share of the target's memory to leave available."""

    budget_bytes: int
    budget_seconds: float
    watermark_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan; the processes whose mempolicies must be read first; and what the ledger should hold back."""

    plan: MigrationPlan
    read_mempolicies: frozenset[ProcessId]
    turn_down: tuple[Skip, ...]


def make_plan(snapshot: Snapshot, decisions: Iterable[Decision], ledger: Ledger, limits: PlanLimits) -> Planned:
    """Arbitrate: unfinished passes first, then by gain for cost. Every decision becomes a step or a skip."""
    processes = {process.id: process for process in snapshot.survey.processes}
    moving = ledger.moving()
    room = {memory.node: _room_bytes(memory, limits) for memory in snapshot.survey.memory.values()}
    left_bytes = limits.budget_bytes
    steps: list[MigrationStep] = []
    rejected: list[Skip] = []
    read: set[ProcessId] = set()
    turn_down: list[Skip] = []
    claimed: dict[ProcessId, str] = {}

    for decision in sorted(decisions, key=lambda d: (d.process not in moving, -_merit(d), d.process)):
        process = processes[decision.process]
        placement = snapshot.placements[decision.process]
        skip = _standing_objection(decision, process, ledger, snapshot.taken_at, claimed)
        if skip is None and (
            placement.mempolicies_at is None or snapshot.taken_at - placement.mempolicies_at > MEMPOLICY_FRESH_SECONDS
        ):
            read.add(decision.process)
            skip = _no(decision, Reason.MEMPOLICY_UNREAD)
        ranges: tuple[Range, ...] = ()
        if skip is None:
            ranges = movable_ranges(placement, decision.target)
            if not ranges:
                skip = _no(decision, Reason.MEMPOLICY, _explain_policies(placement, decision.target))
                turn_down.append(skip)
        allowed_bytes = min(left_bytes, room.get(decision.target, 0))
        if skip is None and room.get(decision.target, 0) < min(decision.misplaced_bytes, SMALLEST_STEP_BYTES):
            memory = snapshot.survey.memory.get(decision.target)
            available = 0 if memory is None else memory.available_bytes
            skip = _no(decision, Reason.TARGET_FULL, f"node {decision.target}: {available >> 20} MiB available")
        elif skip is None and left_bytes < min(decision.misplaced_bytes, SMALLEST_STEP_BYTES):
            skip = _no(decision, Reason.MIGRATION_BUDGET)
        if skip is not None:
            rejected.append(skip)
            continue
        claimed[decision.process] = decision.policy
        taken = min(allowed_bytes, decision.misplaced_bytes)
        left_bytes -= taken
        room[decision.target] -= taken
        steps.append(
            MigrationStep(
                policy=decision.policy,
                process=decision.process,
                target=decision.target,
                ranges=ranges,
                resume_at=ledger.resume_at(decision.process, decision.target),
                budget_bytes=allowed_bytes,
                budget_seconds=limits.budget_seconds,
                reason=decision.reason,
            )
        )
    return Planned(
        plan=MigrationPlan(steps=tuple(steps), rejected=tuple(rejected)),
        read_mempolicies=frozenset(read),
        turn_down=tuple(turn_down),
    )


def movable_ranges(placement: PlacementSample, target: NodeId) -> tuple[Range, ...]:
    """Return the ranges, ascending, that may hold pages to move: sampled off the target, or too small to be sampled.

    Left out: mappings with an explicit mempolicy or one not read yet, and those that are not movable at all.
    """
    return tuple(
        Range(start=vma.start, end=vma.end, page_bytes=vma.page_bytes)
        for placed in sorted(movable(placement), key=lambda p: p.vma.start)
        if (vma := placed.vma).page_bytes is not None
        and vma.mempolicy is not None
        and not vma.mempolicy.explicit
        and _is_candidate(placed, target)
    )


def _is_candidate(placed: VmaPlacement, target: NodeId) -> bool:
    if any(pages > 0 for node, pages in placed.pages_by_node.items() if node != target):
        return True
    unsampled = not placed.absent_pages and not any(placed.pages_by_node.values())
    return unsampled and placed.vma.kind is not VmaKind.FILE


def _standing_objection(
    decision: Decision, process: ProcessSample, ledger: Ledger, now: float, claimed: Mapping[ProcessId, str]
) -> Skip | None:
    if decision.process in claimed:
        return _no(decision, Reason.CLAIMED, f"by policy {claimed[decision.process]}")
    hold = ledger.hold(decision.process, now)
    if hold is not None:
        wait = f"again in {hold.until - now:.0f} s"
        return _no(decision, hold.reason, f"{hold.detail}; {wait}" if hold.detail else wait)
    if process.mems_allowed is None:
        return _no(decision, Reason.CPUSET, "its Mems_allowed could not be read")
    if decision.target not in process.mems_allowed:
        allowed = format_id_list(process.mems_allowed)
        return _no(decision, Reason.CPUSET, f"node {decision.target} is not in its Mems_allowed {allowed}")
    return None


def _room_bytes(memory: NodeMemory, limits: PlanLimits) -> int:
    reserve = min(RESERVE_BYTES, int(RESERVE_RATIO * memory.total_bytes))
    kept = memory.high_watermark_bytes + max(int(limits.watermark_ratio * memory.total_bytes), reserve)
    return max(0, memory.available_bytes - kept)


def _merit(decision: Decision) -> float:
    return decision.gain_cores / decision.cost_seconds if decision.cost_seconds > 0 else decision.gain_cores


def _no(decision: Decision, reason: Reason, detail: str = "") -> Skip:
    return Skip(by=BY, process=decision.process, reason=reason, detail=detail)


def _explain_policies(placement: PlacementSample, target: NodeId) -> str:
    modes = sorted(
        {
            _policy_text(vma)
            for placed in movable(placement)
            if (vma := placed.vma).mempolicy is not None and vma.mempolicy.explicit and _is_candidate(placed, target)
        }
    )
    return ", ".join(modes) or "no mapping that may be moved holds any of it"


def _policy_text(vma: Vma) -> str:
    if vma.mempolicy is None:
        return "unread"
    nodes = format_id_list(vma.mempolicy.nodes)
    return f"{vma.mempolicy.mode}:{nodes}" if nodes else vma.mempolicy.mode
