"""One tick: survey, select, sample, verify, decide, plan, migrate, report. The world is reached through ports only."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from balancerd.engine.budgets import Rates
from balancerd.engine.deciding import Deciding
from balancerd.engine.laps import Laps
from balancerd.engine.looks import Looks
from balancerd.engine.matching import Matches, Matching
from balancerd.engine.memory import EngineMemory, new_memory
from balancerd.engine.owners import steer_all
from balancerd.engine.plan import PlanLimits, Planned, make_plan
from balancerd.engine.select import Criteria, Objections, select
from balancerd.engine.story import Storyteller
from balancerd.engine.together import Work, carry_out
from balancerd.engine.trust import TRIAL_SECONDS
from balancerd.model.decision import Decision, Eviction, Reason, Skip, Steer, Verdict, Wanted
from balancerd.model.ids import ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, MigrationPlan, MigrationStep, RunsNow
from balancerd.model.report import TickReport
from balancerd.model.sample import PlacementSample, SampleRequest, Snapshot, Window
from balancerd.ports import AccessWatch, Clock, HeatWatch, Kernel, Policy

MOVING_RATIO = 4.0
"""Moving may take so many times as long as looking has in the same tick, whatever the interval of ticks: else, where
looking is slow, as it is emulated, memory would hardly move between two looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers of one configuration that the engine itself obeys.

    `scan_budget_ratio` bounds the share of one core that looking may use; `limits` and `rates` what is moved.
    """

    criteria: Criteria
    scan_budget_ratio: float
    limits: PlanLimits
    rates: Rates
    cooldown_seconds: float
    observing: frozenset[str] = frozenset()
    """Names of the policies whose decisions are told but never acted on."""
    matches: Matches = field(default_factory=Matches)
    canary: bool = False
    """Whether the first move of a process begins with a part of it."""

    def new_memory(self) -> EngineMemory:
        """Return a memory in which nothing has happened yet."""
        return new_memory(
            cooldown_seconds=self.cooldown_seconds,
            rates=self.rates,
            scan_budget_ratio=self.scan_budget_ratio,
            canary=self.canary,
        )


class Engine:
    """Runs ticks under one configuration.

    `memory` outlives it; its own are the last snapshot, and who could not be read, and why. `claimed` tells whose
    memory someone else is moving at the moment; without an `access_watch` policies learn of no accesses, without a
    `heat_watch` of no heat. `on_policy` is told which policy is being asked, and None when it has answered.
    """

    def __init__(
        self,
        *,
        kernel: Kernel,
        clock: Clock,
        policies: Sequence[Policy],
        settings: Settings,
        should_stop: Callable[[], bool],
        memory: EngineMemory,
        claimed: Callable[[], frozenset[ProcessId]] = frozenset,
        access_watch: AccessWatch | None = None,
        heat_watch: HeatWatch | None = None,
        on_policy: Callable[[str | None], None] = lambda _name: None,
    ) -> None:
        self._kernel = kernel
        self._clock = clock
        self._settings = settings
        self._should_stop = should_stop
        self._claimed = claimed
        self._access_watch = access_watch
        self._heat_watch = heat_watch
        self._watching = True  # an engine before this one may have been
        self._memory = memory
        memory.obey(
            cooldown_seconds=settings.cooldown_seconds,
            rates=settings.rates,
            move_all=settings.limits.move_all,
            scan_budget_ratio=settings.scan_budget_ratio,
            canary=settings.canary,
        )
        self._before: Snapshot | None = None
        self._missed: dict[ProcessId, Skip] = {}
        self._looks = Looks()
        self._objections = Objections(settings.criteria)
        self._matching = Matching([policy.name for policy in policies], settings.matches, settings.observing)
        self._deciding = Deciding(policies, self._matching, clock, on_policy)
        self._storyteller = Storyteller()
        self._moved: frozenset[ProcessId] = frozenset()
        self._number = 0

    def note_moving(self, cpu_seconds: float) -> None:
        """Take note of CPU time that somebody else's moving took: it does not count as observing."""
        self._memory.scan.exclude(cpu_seconds)

    def due_at(self, began_at: float, regular_at: float) -> float:
        """Return when the next tick is due: regularly, or sooner where a part has moved in the tick that began then."""
        tried_at = self._memory.trust.tried_at
        return regular_at if tried_at is None or tried_at < began_at else min(regular_at, tried_at + TRIAL_SECONDS)

    def next_tick_at(self, due_at: float) -> float:
        """Return when the next tick may begin: as soon as it is due, and the scan budget allows it."""
        self._memory.scan.settle(self._clock.now(), self._clock.cpu_seconds())
        return max(due_at, self._memory.scan.ready_at())

    def tick(self) -> TickReport:
        """Run one tick and return what it saw, decided and did.

        What a policy did that it may not is kept in the report, and the engine goes on without that policy; an
        exception of the kernel's ports ends the tick and is the caller's.
        """
        watch = Laps(self._clock)
        settings = self._settings
        self._number += 1
        scan = self._memory.scan
        if self._number > 1:  # the first look at everybody belongs to the start of the daemon
            scan.settle(self._clock.now(), self._clock.cpu_seconds())

        survey = self._kernel.survey(replace(settings.criteria.scope, scan_budget_ratio=settings.scan_budget_ratio))
        alive = frozenset(process.id for process in survey.processes)
        known = {} if self._before is None else {p: s for p, s in self._before.placements.items() if p in alive}
        self._memory.forget_all_but(alive, survey.taken_at)
        self._looks.forget_all_but(alive)
        self._objections.forget_all_but(alive)
        self._matching.forget_all_but(alive)
        watch.lap("survey")

        selection = select(
            survey,
            self._objections,
            known=known,
            wanted=self._memory.ledger.moving() | self._moved,
            looks=self._looks,
            budget_seconds=scan.left_seconds,
        )
        watch.lap("select")

        sampling = self._kernel.sample(selection.requests)
        known |= {placement.process: placement for placement in sampling.placements}
        self._note_missed(sampling.placements, sampling.missed, alive)
        for placement in sampling.placements:
            self._looks.note(placement, selection.seen[placement.process])
        for skip in sampling.missed:
            self._looks.note_miss(skip.process, survey.taken_at)
        snapshot = Snapshot(
            taken_at=survey.taken_at,
            survey=survey,
            placements=known,
            eligible=selection.eligible,
            idle=selection.idle,
            copying=self._memory.copying.told(),
        )
        watch.lap("sample")

        snapshot = self._read_accesses(snapshot)
        watch.lap("accesses")

        spent_seconds = sum(placement.seconds for placement in sampling.placements)
        returns = self._look_at_returns(scan.left_seconds - spent_seconds)
        watch.lap("verify")

        verdicts = tuple(
            replace(v, holds=False) if isinstance(v, Skip) and v.holds and v.by in settings.observing else v
            for v in self._deciding.decide(Window(now=snapshot, before=self._before))
        )
        unknown = {skip.process for skip in (*selection.skips, *self._missed.values())}
        verdicts = tuple(v for v in verdicts if not (_is_not_sampled(v) and v.process in unknown))
        watch.lap("decide")

        wanted = [v for v in verdicts if not isinstance(v, Skip) and v.process in known]
        observed = tuple(
            Skip(by="tick", process=v.process, reason=Reason.OBSERVE_MODE, detail=f"policy {v.policy}; {v.detail}")
            for v in wanted
            if v.policy in settings.observing
        )
        able, blocked = self._part([v for v in wanted if v.policy not in settings.observing])
        kept = tuple(v for v in verdicts if isinstance(v, Skip) and v.holds)
        reviewed = self._memory.review(snapshot, able)
        snapshot, planned = self._plan(snapshot, reviewed.wanted, kept + reviewed.kept)
        self._take_note(reviewed.without_waiting(wanted), planned.turn_down, survey.taken_at)
        watch.lap("plan")

        end = self._clock.now() + max(settings.limits.budget_seconds, MOVING_RATIO * sum(watch.seconds.values()))
        cpu_before = self._clock.cpu_seconds()
        steers = steer_all(self._kernel, planned.plan, self._memory.owners, self._clock.now, self._should_stop)
        outcomes, unstarted = self._migrate(planned.plan, end)
        evictions, unstarted_evictions = self._evict(planned.plan, end)
        scan.exclude(self._clock.cpu_seconds() - cpu_before)
        self._moved = frozenset(outcome.step.process for outcome in outcomes if outcome.submitted_pages)
        held = observed + blocked + reviewed.skips
        plan = replace(planned.plan, rejected=held + planned.plan.rejected + unstarted + unstarted_evictions)
        watch.lap("migrate")

        self._before = snapshot
        everything: tuple[Verdict, ...] = (*selection.skips, *self._missed.values(), *verdicts, *plan.rejected)
        return TickReport(
            number=self._number,
            mode=self._kernel.mode,
            survey=survey,
            sampled=sampling.placements,
            verdicts=everything,
            plan=plan,
            outcomes=outcomes,
            evictions=evictions,
            steers=steers,
            returns=returns,
            processes=self._storyteller.tell(snapshot, everything, outcomes, evictions, steers),
            phase_seconds=watch.seconds,
            copying=snapshot.copying,
            judged=reviewed.judged,
            paused=self._memory.pause.tell(survey.taken_at),
            policy_errors=self._deciding.take_errors(),
            disabled_policies=self._deciding.disabled,
            accesses=tuple(snapshot.accesses.values()),
            heats=snapshot.heats,
            scan_cpu_seconds=scan.take_used(),
            scan_budget_ratio=scan.ratio,
            workloads=self._memory.workloads.tell(
                snapshot, wanted=wanted, rejected=plan.rejected, outcomes=outcomes, evictions=evictions, steers=steers
            ),
            next_looks={
                p.id: at for p in (*selection.eligible, *selection.idle) if (at := self._looks.due_at(p.id)) is not None
            },
            yield_to=settings.limits.yield_to,
        )

    def _read_accesses(self, snapshot: Snapshot) -> Snapshot:
        """Watch whom policies want watched. What that costs has a bound of its own, beside that of observing."""
        asked = {} if self._access_watch is None else self._deciding.watch(snapshot)
        cpu_before = self._clock.cpu_seconds()
        if self._heat_watch is not None:
            heats = self._heat_watch.read(tuple(asked), _busiest(snapshot))
            snapshot = replace(snapshot, heats=heats)
        if self._access_watch is not None and (asked or self._watching):
            self._watching = bool(asked)
            found = self._access_watch.read(tuple(asked))
            snapshot = replace(snapshot, accesses=found.windows, unwatched=found.missed)
        self._memory.scan.exclude(self._clock.cpu_seconds() - cpu_before)
        return snapshot

    def _part(self, wanted: Iterable[Wanted]) -> tuple[list[Wanted], tuple[Skip, ...]]:
        """Part what can be done from what must wait: moving would wait for the lock that looking met, without bound."""
        able: list[Wanted] = []
        blocked: list[Skip] = []
        for verdict in wanted:
            missed = self._missed.get(verdict.process)
            if missed is not None and missed.reason is Reason.BLOCKED and not isinstance(verdict, Steer):
                blocked.append(replace(missed, by="tick"))
            else:
                able.append(verdict)
        return able, tuple(blocked)

    def _plan(self, snapshot: Snapshot, wanted: Sequence[Wanted], kept: tuple[Skip, ...]) -> tuple[Snapshot, Planned]:
        """Plan; what is to move needs its mempolicies, which are dear: read them, and plan again."""
        memory, limits, claimed, closed = (
            self._memory,
            self._settings.limits,
            self._claimed(),
            self._deciding.closed_nodes(self._settings.observing),
        )

        def plan(snapshot: Snapshot, *, may_read: bool) -> Planned:
            return make_plan(
                snapshot,
                wanted,
                memory.ledger,
                memory.budgets,
                limits,
                claimed=claimed,
                kept=kept,
                closed=closed,
                may_read=may_read,
                owners=memory.owners,
            )

        planned = plan(snapshot, may_read=True)
        if planned.read_mempolicies:
            snapshot = self._read_mempolicies(snapshot, planned.read_mempolicies)
            planned = plan(snapshot, may_read=False)
        return snapshot, planned

    def _take_note(self, wanted: Iterable[Wanted], turn_down: Iterable[Skip], now: float) -> None:
        """End the passes that nobody wants any more, and hold back whom asking again would not change."""
        wanted = tuple(wanted)
        self._memory.owners.expect(wanted)
        moving = {v.process for v in wanted if isinstance(v, Decision)}
        evicting = {v.process for v in wanted if isinstance(v, Eviction)}
        for move_id in self._memory.ledger.abandon_all_but(moving, evicting):
            self._memory.moves.end(move_id, now)
        for skip in turn_down:
            self._memory.ledger.turn_down(skip.process, skip.reason, skip.detail, now)

    def _look_at_returns(self, budget_seconds: float) -> tuple[RunsNow, ...]:
        """Ask where pages moved earlier are now, for as long as the budget lasts, but for one process always."""
        found: list[RunsNow] = []
        returns, ledger = self._memory.returns, self._memory.ledger
        begin = now = self._clock.now()
        for index, request in enumerate(returns.due(now)):
            now = self._clock.now()
            if index and now - begin >= budget_seconds:
                break
            answer = self._kernel.verify(request)
            if isinstance(answer, Skip):
                returns.put_off(request.process, answer.reason, now)
                continue
            found.append(answer)
            judgement = returns.judge(request, answer, now)
            ledger.record_return(request.process, judgement.returned, ping_pong=judgement.ping_pong, now=now)
            if judgement.is_settled:
                ledger.stayed(request.process)
            if judgement.ping_pong is not None:
                self._memory.trust.revoke(request.process)
        return tuple(found)

    def _read_mempolicies(self, snapshot: Snapshot, processes: frozenset[ProcessId]) -> Snapshot:
        """Return the snapshot with these processes sampled again, their mempolicies this time included."""
        sampling = self._kernel.sample(
            tuple(
                SampleRequest(process=process.id, rss_bytes=process.rss_bytes, read_mempolicies=True)
                for process in (*snapshot.eligible, *snapshot.idle)
                if process.id in processes
            )
        )
        self._note_missed(sampling.placements, sampling.missed, {process.id for process in snapshot.survey.processes})
        placements = {placement.process: placement for placement in sampling.placements}
        return replace(snapshot, placements={**snapshot.placements, **placements})

    def _note_missed(
        self, placements: Iterable[PlacementSample], missed: Iterable[Skip], alive: AbstractSet[ProcessId]
    ) -> None:
        for placement in placements:
            self._missed.pop(placement.process, None)
        self._missed |= {skip.process: skip for skip in missed}
        self._missed = {process: skip for process, skip in self._missed.items() if process in alive}

    def _migrate(self, plan: MigrationPlan, end: float) -> tuple[tuple[MigrationOutcome, ...], tuple[Skip, ...]]:
        outcomes: list[MigrationOutcome] = []
        unstarted: list[Skip] = []

        def begin(step: MigrationStep) -> Work | None:
            left = end - self._clock.now()
            skip = self._reason_not_to_start(step.process, left)
            if skip is not None:
                unstarted.append(skip)
                return None
            return self._kernel.begin_migration(replace(self._with_move(step), budget_seconds=left), self._should_stop)

        for outcome in carry_out(plan.steps, begin, self._clock, self._should_stop):
            self._memory.record(outcome, self._clock.now())
            outcomes.append(outcome)
        return tuple(outcomes), tuple(unstarted)

    def _evict(self, plan: MigrationPlan, end: float) -> tuple[tuple[EvictionOutcome, ...], tuple[Skip, ...]]:
        outcomes: list[EvictionOutcome] = []
        unstarted: list[Skip] = []
        for step in plan.evictions:
            left = end - self._clock.now()
            skip = self._reason_not_to_start(step.process, left)
            if skip is not None:
                unstarted.append(skip)
                continue
            outcome = self._kernel.evict(replace(step, budget_seconds=left), self._should_stop)
            self._memory.record_eviction(outcome, self._clock.now())
            outcomes.append(outcome)
        return tuple(outcomes), tuple(unstarted)

    def _reason_not_to_start(self, process: ProcessId, left_seconds: float) -> Skip | None:
        if self._should_stop():
            return Skip(by="tick", process=process, reason=Reason.STOPPING)
        if left_seconds <= 0:
            return Skip(by="tick", process=process, reason=Reason.MIGRATION_BUDGET, detail="no time was left for it")
        return None

    def _with_move(self, step: MigrationStep) -> MigrationStep:
        """Return the step as part of a move: the one under way, or a new one."""
        if step.move_id:
            return step
        now = self._clock.now()
        return replace(step, move_id=self._memory.moves.open(step.process, step.policy, step.target, step.reason, now))


def _busiest(snapshot: Snapshot) -> Iterator[ProcessId]:
    """Yield the eligible processes, the busiest first; they are sorted when the first one is asked for."""
    for process in sorted(snapshot.eligible, key=lambda process: (-(process.cpu_cores or 0.0), process.id)):
        yield process.id


def _is_not_sampled(verdict: Verdict) -> bool:
    return isinstance(verdict, Skip) and verdict.reason is Reason.NOT_SAMPLED
