"""From what policies want to what will be done in this tick: one arbitration for all of them.

Whatever is turned down stays in the plan with its reason. The plan only reads the ledger and the budgets.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from balancerd.engine import quarantine, ranges
from balancerd.engine.budgets import Budgets, NodePair
from balancerd.engine.circumstances import explain_other_manager, explain_pressure
from balancerd.engine.ledger import Ledger
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.owners import Owners, step_of
from balancerd.engine.quarantine import Span
from balancerd.engine.room import SMALLEST_STEP_BYTES, room_bytes
from balancerd.engine.sharers import Sharers
from balancerd.model.decision import Decision, Eviction, Reason, Skip, Steer, Wanted
from balancerd.model.extent import Extent, do_meet
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.manager import Manager
from balancerd.model.migration import EvictionStep, MigrationPlan, MigrationStep, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES, PlacementSample, Snapshot
from balancerd.model.steering import SteerStep

BY = "plan"

MEMPOLICY_FRESH_SECONDS = 60.0
"""How long a reading of numa_maps is trusted; reading it costs time in proportion to the RSS."""

ONLY_WAITS = frozenset(
    {Reason.MIGRATION_BUDGET, Reason.PROCESS_BUDGET, Reason.NODE_PAIR_BUDGET, Reason.MEMPOLICY_UNREAD}
)
"""A decision that is turned down for one of these keeps its process: it is carried out before long. One that cannot be
carried out, as when the target is full, lets the policy of the next place have its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """What one tick may do beside its budgets. `watermark_ratio` is the share of the target to leave available.

    Above a pressure ratio (PSI, some avg10) nothing moves; None never waits. `move_all` moves shared pages, too,
    `move_shared` shared memory when all who map it run where it goes.
    While a machine-wide manager of `yield_to` is at work nothing moves at all. `places` are the policies' by name: a
    lower one comes first, and those without one come last. To policies below place 0 a node that is being emptied is
    open like any other.
    """

    budget_seconds: float
    watermark_ratio: float
    max_memory_pressure_ratio: float | None = None
    max_cpu_pressure_ratio: float | None = None
    move_all: bool = False
    move_shared: bool = False
    yield_to: frozenset[Manager] = frozenset()
    places: Mapping[str, int] = field(default_factory=dict)

    def place(self, policy: str) -> int:
        """Return the place of a policy."""
        return self.places.get(policy, len(self.places))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan; the processes whose mempolicies must be read first; and what the ledger should hold back."""

    plan: MigrationPlan
    read_mempolicies: frozenset[ProcessId]
    turn_down: tuple[Skip, ...]


def make_plan(
    snapshot: Snapshot,
    wanted: Iterable[Wanted],
    ledger: Ledger,
    budgets: Budgets,
    limits: PlanLimits,
    *,
    claimed: AbstractSet[ProcessId] = frozenset(),
    kept: Iterable[Skip] = (),
    closed: Mapping[NodeId, str] | None = None,
    may_read: bool = True,
    owners: Owners | None = None,
) -> Planned:
    """Arbitrate by the places of policies, then unfinished passes first, then by gain for cost; evictions come last.

    Each becomes a step or a skip; of equals the one that was told first comes first. `claimed` are processes whose
    memory someone else is moving, `kept` are skips that hold their process, and `closed` are nodes that are being
    emptied, with the policy that does. With `may_read` a process whose mempolicies are not known is set aside its share
    of the budgets, for they are read and the plan is made again. `owners` knows whose threads or memory must stay, and
    which threads are held: these are let go unless a policy still wants that.
    """
    arbiter = _Arbiter(snapshot, ledger, budgets, limits, Owners() if owners is None else owners)
    arbiter.claimed = dict.fromkeys(claimed, "by a command")
    arbiter.closed = {} if closed is None else closed
    arbiter.may_read = may_read
    arbiter.keep(kept)
    asked = tuple(wanted)
    moving = ledger.moving()
    moves = [want for want in asked if not isinstance(want, Eviction)]
    for move in sorted(moves, key=lambda m: (limits.place(m.policy), m.process not in moving, -_merit(m))):
        if isinstance(move, Steer):
            arbiter.judge_steer(move)
        else:
            arbiter.judge(move)
    evictions = [e for e in asked if isinstance(e, Eviction)]
    for eviction in sorted(evictions, key=lambda e: limits.place(e.policy)):
        arbiter.judge_eviction(eviction)
    return Planned(
        plan=MigrationPlan(
            steps=tuple(arbiter.steps),
            rejected=tuple(arbiter.rejected),
            evictions=tuple(arbiter.evictions),
            steers=(*arbiter.owners.releases(arbiter.pinned), *arbiter.steers),
        ),
        read_mempolicies=frozenset(arbiter.read),
        turn_down=tuple(arbiter.turn_down),
    )


class _Arbiter:
    """What is left of room and budgets while one decision after the other is judged."""

    def __init__(
        self, snapshot: Snapshot, ledger: Ledger, budgets: Budgets, limits: PlanLimits, owners: Owners
    ) -> None:
        self._snapshot, self._ledger, self._limits, self.owners = snapshot, ledger, limits, owners
        self._now = snapshot.taken_at
        self._processes = {process.id: process for process in snapshot.survey.processes}
        self._room = {m.node: room_bytes(m, limits.watermark_ratio) for m in snapshot.survey.memory.values()}
        self._draft = budgets.draft(self._now)
        self._evict_bytes = budgets.allowed_eviction_bytes(self._now)
        self._other_manager = explain_other_manager(snapshot.survey.managers, limits.yield_to)
        self.claimed: dict[ProcessId, str] = {}
        self.closed: Mapping[NodeId, str] = {}
        self._kept: dict[ProcessId, Skip] = {}
        self._wanted: dict[ProcessId, str] = {}
        self._parts: dict[ProcessId, list[Decision]] = {}
        self._sharers = Sharers(snapshot)
        self.may_read = True
        self.steps: list[MigrationStep] = []
        self.evictions: list[EvictionStep] = []
        self.steers: list[SteerStep] = []
        self.pinned: set[ProcessId] = set()
        self.rejected: list[Skip] = []
        self.read: set[ProcessId] = set()
        self.turn_down: list[Skip] = []

    def keep(self, skips: Iterable[Skip]) -> None:
        """Let nobody of a later place have these processes; of several skips the first place's counts."""
        for skip in sorted(skips, key=lambda skip: self._limits.place(skip.by)):
            self._kept.setdefault(skip.process, skip)

    def judge(self, decision: Decision) -> None:
        """Make it a step or a skip, and take from room and budgets what the step is expected to need."""
        n_rejected = len(self.rejected)
        self._judge(decision)
        only_waits = any(skip.reason in ONLY_WAITS for skip in self.rejected[n_rejected:])
        if decision.holds or only_waits:
            self._wanted.setdefault(decision.process, decision.policy)

    def _judge(self, decision: Decision) -> None:
        skip = self._standing_objection(decision) or self._objection_to_target(decision)
        if skip is not None:
            self.rejected.append(skip)
            return
        placement = self._snapshot.placements[decision.process]
        pairs = _wanted_pairs(decision, placement)
        allowance = self._draft.allow(decision.process, pairs)
        smallest = min(decision.misplaced_bytes, SMALLEST_STEP_BYTES)
        budget_bytes = min(allowance.budget_bytes, self._room.get(decision.target, 0))
        if decision.most_bytes is not None:
            budget_bytes = min(budget_bytes, decision.most_bytes)
        if allowance.budget_bytes < smallest:
            self.rejected.append(_no(decision, allowance.reason, allowance.detail))
            return
        found: tuple[Range, ...] | Skip
        if not self._are_mempolicies_fresh(placement):
            self.read.add(decision.process)
            found = _no(decision, Reason.MEMPOLICY_UNREAD)
        else:
            found = self._ranges(decision, placement)
        if isinstance(found, Skip):
            self.rejected.append(found)
            if found.reason is not Reason.MEMPOLICY_UNREAD or not self.may_read:
                return
        else:
            self.steps.append(self._step(decision, found, budget_bytes))
        self.claimed[decision.process] = f"by policy {decision.policy}"
        if decision.extents is not None and not decision.is_pass:
            self._parts.setdefault(decision.process, []).append(decision)
        taken = min(budget_bytes, decision.misplaced_bytes)
        self._draft.promise(decision.process, pairs, taken)
        self._room[decision.target] = self._room.get(decision.target, 0) - taken

    def judge_steer(self, steer: Steer) -> None:
        """Make it a step or a skip. Of threads that are held as wanted it is only asked who has the process."""
        is_pinned = self.owners.is_pinned(steer)
        skip = self._claim_of_others(steer)
        if skip is None and not is_pinned:
            skip = self._circumstances(steer) or self._threads_objection(steer)
        if skip is not None:
            self.rejected.append(skip)
        elif is_pinned:
            self.pinned.add(steer.process)
        else:
            self.claimed[steer.process] = f"by policy {steer.policy}"
            self.steers.append(step_of(steer))

    def _threads_objection(self, steer: Steer) -> Skip | None:
        closed_by = self.closed.get(steer.target)
        if closed_by is not None and self._limits.place(steer.policy) >= 0:
            return _no(steer, Reason.NODE_CLOSED, f"node {steer.target}, by policy {closed_by}")
        found = self.owners.explain_hold(steer, self._now)
        return None if found is None else _no(steer, *found)

    def judge_eviction(self, eviction: Eviction) -> None:
        """Make it a step or a skip, and take from the budget what the step may need."""
        skip = self._standing_objection(eviction)
        smallest = min(eviction.evict_bytes, SMALLEST_STEP_BYTES)
        found = ranges.evictable_ranges(self._snapshot.placements[eviction.process])
        if eviction.extents is not None:
            found = ranges.within(found, eviction.extents)
        if skip is None and self._evict_bytes < smallest:
            skip = _no(eviction, Reason.MIGRATION_BUDGET, "evict.rate_limit")
        if skip is None and not found:
            skip = _no(eviction, Reason.NOTHING_PRESENT, "no private mapping holds any memory")
        if skip is not None:
            self.rejected.append(skip)
            return
        budget_bytes = min(self._evict_bytes, eviction.evict_bytes)
        self._evict_bytes -= budget_bytes
        self.claimed[eviction.process] = f"by policy {eviction.policy}"
        self.evictions.append(
            EvictionStep(
                policy=eviction.policy,
                process=eviction.process,
                ranges=found,
                resume_at=self._ledger.eviction_resume_at(eviction.process),
                budget_bytes=budget_bytes,
                budget_seconds=self._limits.budget_seconds,
                cold_only=eviction.cold_only,
                reason=eviction.reason,
                is_part=eviction.extents is not None,
            )
        )

    def _standing_objection(self, wanted: Decision | Eviction) -> Skip | None:
        skip = self._claim_of_others(wanted) or self._circumstances(wanted)
        if skip is not None:
            return skip
        hold = self._ledger.hold(wanted.process, self._now)
        if hold is None and isinstance(wanted, Decision):
            hold = self.owners.memory_hold(wanted.process, self._now)
        return None if hold is None else _no(wanted, hold.reason, hold.tell(self._now), hold.tell_rest(self._now))

    def _claim_of_others(self, wanted: Wanted) -> Skip | None:
        if wanted.process in self.claimed and not self._is_further_part(wanted):
            return _no(wanted, Reason.CLAIMED, self.claimed[wanted.process])
        first = self._wanted.get(wanted.process, wanted.policy)
        if first != wanted.policy:
            return _no(wanted, Reason.CLAIMED, f"by policy {first}, which wants to move it")
        kept = self._kept.get(wanted.process)
        if kept is not None and self._limits.place(kept.by) < self._limits.place(wanted.policy):
            told = f": {kept.detail}" if kept.detail else ""
            return _no(wanted, Reason.CLAIMED, f"by policy {kept.by}, {kept.reason.value}{told}")
        return None

    def _circumstances(self, wanted: Wanted) -> Skip | None:
        if self._other_manager is not None:
            return _no(wanted, Reason.OTHER_MANAGER, self._other_manager)
        limits, memory_only = self._limits, isinstance(wanted, Eviction)
        pressure = explain_pressure(
            self._snapshot.survey.pressure,
            limits.max_memory_pressure_ratio,
            None if memory_only else limits.max_cpu_pressure_ratio,
        )
        if pressure is not None:
            return _no(wanted, Reason.PRESSURE, pressure)
        return None

    def _is_further_part(self, wanted: Wanted) -> bool:
        """Return whether all that was granted of the process are parts that the same policy wanted, and others."""
        granted = self._parts.get(wanted.process)
        if granted is None or not isinstance(wanted, Decision) or wanted.extents is None:
            return False
        return all(part.policy == wanted.policy and not do_meet(part.extents or (), wanted.extents) for part in granted)

    def _objection_to_target(self, decision: Decision) -> Skip | None:
        target, allowed = decision.target, self._processes[decision.process].mems_allowed
        closed_by = self.closed.get(target)
        if closed_by is not None and self._limits.place(decision.policy) >= 0:
            return _no(decision, Reason.NODE_CLOSED, f"node {target}, by policy {closed_by}")
        if allowed is None:
            return _no(decision, Reason.OUTSIDE_CPUSET, "its Mems_allowed could not be read")
        if target not in allowed:
            told = f"node {target} is not in its Mems_allowed {format_id_list(allowed)}"
            return _no(decision, Reason.OUTSIDE_CPUSET, told)
        held = self._held(decision)
        if held and self._is_all_held(decision, held):
            return _no(decision, Reason.QUARANTINE, quarantine.explain(held, self._now))
        if self._room.get(target, 0) < min(decision.misplaced_bytes, SMALLEST_STEP_BYTES):
            memory = self._snapshot.survey.memory.get(target)
            available = 0 if memory is None else memory.available_bytes
            told = f"node {target}: {available >> 20} MiB available"
            return _no(decision, Reason.TARGET_FULL, told, f"free memory on node {target}")
        return None

    def _held(self, decision: Decision) -> tuple[Span, ...]:
        """Return what must stay: what is in quarantine, and of parts what was moved elsewhere a moment ago."""
        elsewhere = decision.target if decision.extents is not None else None
        held = self._ledger.held_ranges(decision.process, self._now, target=elsewhere)
        if not any(span.cause == PageStatus.SHARED.value for span in held):
            return held
        placed, for_all = self._snapshot.placements[decision.process].vmas, self._agreed(decision)
        shared = [each.vma for each in placed if each.vma.backing in for_all]
        return tuple(
            span
            for span in held
            if span.cause != PageStatus.SHARED.value
            or not any(vma.start < span.end and span.start < vma.end for vma in shared)
        )

    def _agreed(self, decision: Decision) -> frozenset[str]:
        """Return which shared memory of the process moves for all who map it; of parts none does."""
        if not self._limits.move_shared or self._limits.move_all or decision.extents is not None:
            return frozenset()
        return self._sharers.agreed(decision.process, decision.target)

    def _is_all_held(self, decision: Decision, held: tuple[Span, ...]) -> bool:
        if decision.extents is not None:
            wanted = (Range(start=e.start, end=e.end, page_bytes=PAGE_BYTES) for e in decision.extents)
            return not quarantine.cut(wanted, held)
        found = ranges.candidates(self._snapshot.placements[decision.process], decision.target, decision.sources)
        return bool(found) and not ranges.outside_quarantine(found, decision.target, held, decision.sources)

    def _are_mempolicies_fresh(self, placement: PlacementSample) -> bool:
        read_at = placement.mempolicies_at
        return placement.complete and read_at is not None and self._now - read_at <= MEMPOLICY_FRESH_SECONDS

    def _ranges(self, decision: Decision, placement: PlacementSample) -> tuple[Range, ...] | Skip:
        """Return where to move from. A process whose mempolicies forbid it all is to be left alone for a while."""
        if decision.extents is not None:
            return self._ranges_of_part(decision, decision.extents, placement)
        found = ranges.candidates(placement, decision.target, decision.sources)
        free = ranges.without_mempolicy(found)
        if not ranges.to_ranges(free, ()):
            skip = _no(decision, Reason.MEMPOLICY, ranges.explain_mempolicies(found))
            if decision.sources is None:  # of some nodes' pages they say nothing of the rest of the process
                self.turn_down.append(skip)
            return skip
        held = self._held(decision)
        left = ranges.to_ranges(
            ranges.outside_quarantine(free, decision.target, held, decision.sources), held, self._agreed(decision)
        )
        return left or _no(decision, Reason.QUARANTINE, quarantine.explain(held, self._now))

    def _ranges_of_part(
        self, decision: Decision, extents: tuple[Extent, ...], placement: PlacementSample
    ) -> tuple[Range, ...] | Skip:
        """Return what of the extents may move. Mempolicies of a part say nothing of the rest of the process."""
        found = ranges.around(placement, extents)
        free = ranges.within(ranges.to_ranges(ranges.without_mempolicy(found), ()), extents)
        if not found:
            return _no(decision, Reason.CHANGED, "nothing that may move is mapped there any more")
        if not free:
            return _no(decision, Reason.MEMPOLICY, ranges.explain_mempolicies(found))
        held = self._held(decision)
        return quarantine.cut(free, held) or _no(decision, Reason.QUARANTINE, quarantine.explain(held, self._now))

    def _step(self, decision: Decision, found: tuple[Range, ...], budget_bytes: int) -> MigrationStep:
        process, target = decision.process, decision.target
        return MigrationStep(
            policy=decision.policy,
            process=process,
            target=target,
            ranges=found,
            resume_at=self._ledger.resume_at(process, target),
            budget_bytes=budget_bytes,
            budget_seconds=self._limits.budget_seconds,
            reason=decision.reason,
            move_all=self._limits.move_all,
            move_id=self._ledger.move_id(process, target),
            is_part=decision.extents is not None and not decision.is_pass,
            target_of=_target_of(decision),
        )


def _wanted_pairs(decision: Decision, placement: PlacementSample) -> dict[NodePair, int]:
    """Return the misplaced bytes by pair of nodes, as far as the decision or the sample tells."""
    held = movable_bytes_by_node(placement) if decision.source_bytes is None else decision.source_bytes
    sources = held.keys() if decision.sources is None else decision.sources
    return {(s, decision.target): size for s, size in held.items() if s != decision.target and s in sources}


def _target_of(decision: Decision) -> Mapping[NodeId, NodeId] | None:
    """Return where pages of each node go, when not all go to the target; those on it count as there."""
    if decision.sources is None:
        return None
    return dict.fromkeys((decision.target, *sorted(decision.sources)), decision.target)


def _merit(move: Decision | Steer) -> float:
    return move.gain_cores / move.cost_seconds if move.cost_seconds > 0 else move.gain_cores


def _no(wanted: Wanted, reason: Reason, detail: str = "", needs: str = "") -> Skip:
    return Skip(by=BY, process=wanted.process, reason=reason, detail=detail, needs=needs)
