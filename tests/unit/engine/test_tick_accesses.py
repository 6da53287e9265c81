"""Whole ticks of the policy access over a machine that knows every page: parts of one process go to their threads."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from balancerd.engine.budgets import Rates
from balancerd.engine.memory import new_memory
from balancerd.engine.plan import PlanLimits
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Engine, Settings
from balancerd.model.access import Accesses, AccessRun
from balancerd.model.decision import Decision, Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import RunsNow, VerifyRequest
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES, SampleRequest, Sampling, Snapshot, Survey
from balancerd.policies import access, follow_cpu
from balancerd.ports import Policy, PolicyContext, SurveyScope
from tests.unit.fakes import (
    GIB,
    MIB,
    FakeAccessWatch,
    FakeClock,
    FakeHeatWatch,
    make_access_window,
    make_process,
    make_rates,
    make_survey,
    make_verified,
)
from tests.unit.jobs.machine import START, Memory, PagedKernel, a_vma

PID = ProcessId(100, 1)
PART_PAGES = 1024
SPREAD = make_process(run=dict.fromkeys(range(4), 2.0), cpu_cores=4.0, rss_bytes=256 * MIB)
CONTEXT = PolicyContext(migration_bytes_per_second=GIB)


class Machine(PagedKernel):
    """A PagedKernel that can be surveyed, and tells where what it moved is now."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.process = SPREAD
        self.page_seconds = 0.0

    def survey(self, scope: SurveyScope) -> Survey:  # noqa: ARG002 - there is one process
        return make_survey(self.process, at=self.clock.now())

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        placements = [super(Machine, self).sample((replace(r, read_mempolicies=True),)).placements for r in requests]
        return Sampling(placements=tuple(p for found in placements for p in found))

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        (pages,) = self.memories[request.process].vmas.values()
        elsewhere = [pages[(run.start - START) // PAGE_BYTES] != run.target for run in request.runs]
        return RunsNow(
            process=request.process,
            runs=tuple(make_verified(1, int(is_elsewhere)) for is_elsewhere in elsewhere),
            total=make_verified(len(elsewhere), sum(elsewhere)),
        )


class Watch(FakeAccessWatch):
    """Knows whose part each page is, and where it lies; judges parts of `judged_pages` pages."""

    def __init__(self, kernel: Machine, owners: list[int]) -> None:
        super().__init__()
        self.kernel, self.owners = kernel, owners
        self.judged_pages = PART_PAGES

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        now = self.kernel.clock.now()
        self.windows = {PID: make_access_window(*self._runs(), at=now)}
        return super().read(processes)

    def _runs(self) -> list[AccessRun]:
        (pages,) = self.kernel.memories[PID].vmas.values()
        runs = []
        for index, owner in enumerate(self.owners):
            first = index * PART_PAGES
            held = Counter(pages[first : first + self.judged_pages])
            runs.append(
                AccessRun(
                    start=START + first * PAGE_BYTES,
                    end=START + (first + self.judged_pages) * PAGE_BYTES,
                    node=NodeId(owner),
                    weight=100.0,
                    node_weight=100.0,
                    pages_by_node={NodeId(n): float(c) for n, c in held.items() if n is not None},
                )
            )
        return runs


class Run:
    """An engine with both policies; the process was filled by a main thread on node 0."""

    def __init__(self, *, rates: Rates | None = None, observing: frozenset[str] = frozenset()) -> None:
        self.clock = FakeClock()
        self.kernel = Machine(self.clock)
        self.kernel.memories[PID] = Memory(vmas={a_vma(0, 4 * PART_PAGES): [0] * (4 * PART_PAGES)})
        self.watch = Watch(self.kernel, [0, 1, 2, 3])
        self.heat = FakeHeatWatch(PID)
        self.policies: list[Policy] = [
            follow_cpu.plugin.build("home", follow_cpu.FollowCpuOptions(), CONTEXT),
            access.plugin.build("parts", access.AccessOptions(), CONTEXT),
        ]
        settings = Settings(
            criteria=Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=1),
            scan_budget_ratio=0.01,
            limits=PlanLimits(budget_seconds=1.0, watermark_ratio=0.02),
            rates=rates or make_rates(),
            cooldown_seconds=60.0,
            observing=observing,
        )
        self.memory = new_memory(cooldown_seconds=60.0, rates=settings.rates, scan_budget_ratio=0.01)
        self.engine = Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=self.policies,
            settings=settings,
            should_stop=lambda: False,
            memory=self.memory,
            access_watch=self.watch,
            heat_watch=self.heat,
        )

    def ticks(self, number: int) -> list[TickReport]:
        reports = []
        for _ in range(number):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports

    def at_home(self) -> list[float]:
        """The share of each part that lies on its thread's node."""
        (pages,) = self.kernel.memories[PID].vmas.values()
        parts = [pages[i * PART_PAGES : (i + 1) * PART_PAGES] for i in range(4)]
        return [part.count(owner) / PART_PAGES for part, owner in zip(parts, self.watch.owners, strict=True)]


def test_parts_that_main_touched_go_to_their_threads_and_every_page_is_accounted_for() -> None:
    run = Run()
    reports = run.ticks(6)
    assert run.at_home() == [1.0] * 4
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    assert sum(outcome.moved_pages for outcome in outcomes) == 3 * PART_PAGES
    assert all(sum(o.pages.values()) == o.submitted_pages for o in outcomes)
    assert all(o.looked_pages == o.submitted_pages + o.on_target_pages + sum(o.passed_over.values()) for o in outcomes)
    assert {o.step.target for o in outcomes} == {1, 2, 3}
    told = [report.processes[0] for report in reports]
    assert told[-1].reason is Reason.WELL_PLACED
    moving = next(t for t in told if t.reason is Reason.MISPLACED)
    assert moving.detail == "moved 4 MiB to node 3; moved 4 MiB to node 2; moved 4 MiB to node 1"
    assert all(sum(1 for d in report.verdicts if isinstance(d, Decision)) in {0, 3} for report in reports)


def test_steps_of_a_slow_budget_go_on_until_all_has_moved() -> None:
    run = Run(rates=make_rates(process_mib=1.5))
    reports = run.ticks(16)
    assert run.at_home() == [1.0] * 4
    steps = [outcome.step for report in reports for outcome in report.outcomes]
    assert len(steps) > 3
    assert len({step.move_id for step in steps}) == 3  # one move for each node, however many steps
    assert all(step.resume_at == 0 for step in steps)
    moves = run.memory.moves.recent()
    assert sorted((move.target, move.moved_pages) for move in moves) == [(n, PART_PAGES) for n in (1, 2, 3)]
    assert all(move.ended_at is not None for move in moves)


def test_evidence_that_comes_bit_by_bit_is_acted_on_without_a_cooldown_between() -> None:
    run = Run()
    for judged in (PART_PAGES // 4, PART_PAGES // 2, PART_PAGES):
        run.watch.judged_pages = judged
        run.ticks(2)
    assert run.at_home() == [1.0] * 4


def test_threads_that_trade_places_take_their_parts_along_but_not_at_once_again() -> None:
    run = Run()
    run.ticks(4)
    run.watch.owners = [0, 2, 1, 3]
    (report,) = run.ticks(1)
    assert {skip.reason for skip in report.plan.rejected} == {Reason.QUARANTINE}
    run.ticks(35)
    assert run.at_home() == [1.0] * 4


def test_pages_that_refuse_stay_and_the_rest_moves() -> None:
    run = Run()
    refusing = range(START + PART_PAGES * PAGE_BYTES, START + (PART_PAGES + 64) * PAGE_BYTES, PAGE_BYTES)
    run.kernel.memories[PID].status_of = dict.fromkeys(refusing, PageStatus.SHARED)
    run.ticks(6)
    assert run.at_home() == [1.0, 1 - 64 / PART_PAGES, 1.0, 1.0]


def test_a_policy_that_only_observes_watches_and_tells_and_moves_nothing() -> None:
    run = Run(observing=frozenset({"parts"}))
    reports = run.ticks(4)
    assert run.at_home() == [1.0, 0.0, 0.0, 0.0]
    assert [skip.reason for skip in reports[-1].plan.rejected] == [Reason.OBSERVE_MODE] * 3


def test_whom_nobody_wants_watched_any_more_is_given_up_once_and_not_asked_for_again() -> None:
    run = Run()
    run.ticks(3)
    assert run.watch.asked == [(PID,)] * 3
    run.kernel.process = replace(SPREAD, cpu_cores=0.1)
    run.ticks(3)
    assert run.watch.asked[3:] == [()]


def test_an_engine_without_such_a_policy_gives_up_once_what_one_before_it_may_have_watched() -> None:
    run = Run()
    run.policies.pop()
    engine = Engine(
        kernel=run.kernel,
        clock=run.clock,
        policies=run.policies,
        settings=run.engine._settings,
        should_stop=lambda: False,
        memory=run.memory,
        access_watch=run.watch,
    )
    reports = []
    for _ in range(3):
        reports.append(engine.tick())
        run.clock.time += 2.0
    assert run.watch.asked == [()]
    assert reports[-1].processes[0].reason is Reason.SEVERAL_HOMES


def test_a_policy_whose_wish_raises_is_told_of_and_the_tick_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(_self: access.Access, _snapshot: Snapshot) -> tuple[ProcessId, ...]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(access.Access, "watch", raises)
    (report,) = Run().ticks(1)
    assert report.policy_errors == {"parts": "RuntimeError: a defect"}


def test_what_watching_costs_is_no_part_of_the_scan_budget() -> None:
    run = Run()
    read = run.watch.read

    def dear(processes: Sequence[ProcessId]) -> Accesses:
        run.clock.cpu += 0.5
        return read(processes)

    run.watch.read = dear  # type: ignore[method-assign]
    reports = run.ticks(3)
    assert sum(report.scan_cpu_seconds for report in reports) == 0.0
    assert run.clock.cpu == 1.5


def test_heat_is_asked_of_whom_policies_want_watched_then_of_the_others_and_reported() -> None:
    run = Run()
    reports = run.ticks(3)
    assert [report.heats for report in reports] == [run.heat.heats] * 3
    assert run.heat.asked[-1] == ((PID,), (PID,))
    run.kernel.process = replace(SPREAD, run_seconds={NodeId(0): 8.0}, cpu_cores=0.2)
    run.ticks(1)
    asked, others = run.heat.asked[-1]
    assert (len(asked), others) == (0, (PID,))
