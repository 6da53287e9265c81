"""One tick: survey, select, sample, decide, plan, migrate, report. The world is reached through ports only."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from balancerd.engine.ledger import Ledger
from balancerd.engine.looks import Looks
from balancerd.engine.plan import PlanLimits, make_plan
from balancerd.engine.select import Criteria, select
from balancerd.engine.story import tell
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationPlan
from balancerd.model.report import TickReport
from balancerd.model.sample import PlacementSample, SampleRequest, Snapshot, Window
from balancerd.ports import Clock, Kernel, Policy, SurveyScope


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers of one configuration that the engine itself obeys.

    `scan_budget_seconds` bounds the sampling of one tick; `limits` the migration of one tick.
    """

    criteria: Criteria
    scan_budget_seconds: float
    limits: PlanLimits
    cooldown_seconds: float
    observing: frozenset[str] = frozenset()
    """Names of the policies whose decisions are told but never acted on."""


class Engine:
    """Runs ticks. Its memory is the last snapshot, the ledger, and who could not be read, and why."""

    def __init__(
        self,
        *,
        kernel: Kernel,
        clock: Clock,
        policies: Sequence[Policy],
        settings: Settings,
        should_stop: Callable[[], bool],
    ) -> None:
        self._kernel = kernel
        self._clock = clock
        self._policies = tuple(policies)
        self._settings = settings
        self._should_stop = should_stop
        self._ledger = Ledger(settings.cooldown_seconds)
        self._before: Snapshot | None = None
        self._missed: dict[ProcessId, Skip] = {}
        self._looks = Looks()
        self._moved: frozenset[ProcessId] = frozenset()
        self._number = 0

    def tick(self) -> TickReport:
        """Run one tick and return what it saw, decided and did.

        An exception of a policy is kept in the report and the tick goes on without that policy;
        an exception of the kernel's ports ends the tick and is the caller's.
        """
        watch = _Watch(self._clock)
        settings = self._settings
        self._number += 1

        survey = self._kernel.survey(
            SurveyScope(min_rss_bytes=settings.criteria.min_rss_bytes, min_cpu_cores=settings.criteria.min_cpu_cores)
        )
        alive = {process.id for process in survey.processes}
        known = {} if self._before is None else {p: s for p, s in self._before.placements.items() if p in alive}
        self._ledger.forget_all_but(alive)
        self._looks.forget_all_but(alive)
        watch.lap("survey")

        selection = select(
            survey,
            settings.criteria,
            known=known,
            wanted=self._ledger.moving() | self._moved,
            looks=self._looks,
            budget_seconds=settings.scan_budget_seconds,
        )
        watch.lap("select")

        sampling = self._kernel.sample(selection.requests)
        known |= {placement.process: placement for placement in sampling.placements}
        self._note_missed(sampling.placements, sampling.missed, alive)
        sizes = {request.process: request.rss_bytes for request in selection.requests}
        for placement in sampling.placements:
            self._looks.note(placement, sizes[placement.process])
        snapshot = Snapshot(taken_at=survey.taken_at, survey=survey, placements=known, eligible=selection.eligible)
        watch.lap("sample")

        verdicts, policy_errors = self._decide(Window(now=snapshot, before=self._before))
        unknown = {skip.process for skip in (*selection.skips, *self._missed.values())}
        verdicts = tuple(v for v in verdicts if not (_is_not_sampled(v) and v.process in unknown))
        watch.lap("decide")

        decisions = [v for v in verdicts if isinstance(v, Decision) and v.process in known]
        observed = tuple(
            Skip(by="tick", process=v.process, reason=Reason.OBSERVE_MODE, detail=f"policy {v.policy}; {v.detail}")
            for v in decisions
            if v.policy in settings.observing
        )
        acting = [v for v in decisions if v.policy not in settings.observing]
        planned = make_plan(snapshot, acting, self._ledger, settings.limits)
        if planned.read_mempolicies:  # dear, so only for what would move now, and then at once
            snapshot = self._read_mempolicies(snapshot, planned.read_mempolicies)
            planned = make_plan(snapshot, acting, self._ledger, settings.limits)
        self._ledger.abandon_all_but({decision.process for decision in decisions})
        for skip in planned.turn_down:
            self._ledger.turn_down(skip.process, skip.reason, skip.detail, survey.taken_at)
        watch.lap("plan")

        outcomes, unstarted = self._migrate(planned.plan)
        self._moved = frozenset(outcome.step.process for outcome in outcomes if outcome.submitted_pages)
        plan = MigrationPlan(steps=planned.plan.steps, rejected=observed + planned.plan.rejected + unstarted)
        watch.lap("migrate")

        self._before = snapshot
        everything: tuple[Verdict, ...] = (
            *selection.skips,
            *self._missed.values(),
            *verdicts,
            *plan.rejected,
        )
        return TickReport(
            number=self._number,
            mode=self._kernel.mode,
            survey=survey,
            sampled=sampling.placements,
            verdicts=everything,
            plan=plan,
            outcomes=outcomes,
            processes=tell(snapshot, everything, outcomes),
            phase_seconds=watch.laps,
            policy_errors=policy_errors,
        )

    def _read_mempolicies(self, snapshot: Snapshot, processes: frozenset[ProcessId]) -> Snapshot:
        """Return the snapshot with these processes sampled again, their mempolicies this time included."""
        sampling = self._kernel.sample(
            tuple(
                SampleRequest(process=process.id, rss_bytes=process.rss_bytes, read_mempolicies=True)
                for process in snapshot.eligible
                if process.id in processes
            )
        )
        self._note_missed(sampling.placements, sampling.missed, {process.id for process in snapshot.survey.processes})
        placements = {placement.process: placement for placement in sampling.placements}
        return replace(snapshot, placements={**snapshot.placements, **placements})

    def _note_missed(
        self, placements: Iterable[PlacementSample], missed: Iterable[Skip], alive: set[ProcessId]
    ) -> None:
        for placement in placements:
            self._missed.pop(placement.process, None)
        self._missed |= {skip.process: skip for skip in missed}
        self._missed = {process: skip for process, skip in self._missed.items() if process in alive}

    def _decide(self, window: Window) -> tuple[tuple[Verdict, ...], Mapping[str, str]]:
        verdicts: list[Verdict] = []
        errors: dict[str, str] = {}
        for policy in self._policies:
            try:
                verdicts += policy.decide(window)
            except Exception as error:  # noqa: BLE001 - a policy may come from anyone; the tick goes on without it
                errors[policy.name] = f"{type(error).__name__}: {error}"
        return tuple(verdicts), errors

    def _migrate(self, plan: MigrationPlan) -> tuple[tuple[MigrationOutcome, ...], tuple[Skip, ...]]:
        outcomes: list[MigrationOutcome] = []
        unstarted: list[Skip] = []
        end = self._clock.now() + self._settings.limits.budget_seconds
        for step in plan.steps:
            left = end - self._clock.now()
            if self._should_stop():
                unstarted.append(Skip(by="tick", process=step.process, reason=Reason.STOPPING))
            elif left <= 0:
                unstarted.append(Skip(by="tick", process=step.process, reason=Reason.MIGRATION_BUDGET))
            else:
                outcome = self._kernel.migrate(replace(step, budget_seconds=left), self._should_stop)
                self._ledger.record(outcome, self._clock.now())
                outcomes.append(outcome)
        return tuple(outcomes), tuple(unstarted)


class _Watch:
    """Wall time by phase."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.now()
        self.laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = self._clock.now()
        self.laps[phase] = now - self._last
        self._last = now


def _is_not_sampled(verdict: Verdict) -> bool:
    return isinstance(verdict, Skip) and verdict.reason is Reason.NOT_SAMPLED
