"""Whole ticks over a machine in memory: from misplaced to home, and every way of being left alone."""

import itertools
from collections.abc import Iterable

import pytest

from balancerd.engine.plan import PlanLimits
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Engine, Settings
from balancerd.model.decision import Reason, Verdict
from balancerd.model.ids import ProcessId
from balancerd.model.migration import PageStatus
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import Mempolicy, Window
from balancerd.policies.follow_cpu import FollowCpuOptions, plugin
from balancerd.ports import Policy, PolicyContext
from tests.unit.fakes import GIB, MIB, N0, N2, FakeClock, FakeKernel, make_process

PID = ProcessId(100, 1)


class Run:
    """An engine over a FakeKernel, ticking every two seconds."""

    def __init__(self, *, policies: list[Policy] | None = None, observing: Iterable[str] = ()) -> None:
        self.clock = FakeClock()
        self.kernel = FakeKernel(self.clock)
        home = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
        self.stopping = False
        self.engine = Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=[home] if policies is None else policies,
            settings=Settings(
                criteria=Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=1),
                scan_budget_seconds=0.01,
                limits=PlanLimits(budget_bytes=2 * GIB, budget_seconds=1.0, watermark_ratio=0.02),
                cooldown_seconds=60.0,
                observing=frozenset(observing),
            ),
            should_stop=lambda: self.stopping,
        )

    def ticks(self, number: int) -> list[TickReport]:
        reports = []
        for _ in range(number):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports

    def last(self, number: int) -> ProcessReport:
        return next(p for p in self.ticks(number)[-1].processes if p.process.id == PID)


def misplaced() -> Run:
    run = Run()
    run.kernel.add(make_process(), {2: 256})
    return run


def test_misplaced_memory_goes_home_after_its_mempolicies_were_read() -> None:
    run = misplaced()
    reasons = [report.processes[0].reason for report in run.ticks(8)]
    assert reasons == [
        Reason.NO_HOME,  # no interval yet
        *[Reason.HOME_TOO_YOUNG] * 3,
        Reason.MISPLACED,
        *[Reason.WELL_PLACED] * 3,  # sampled again at once
    ]
    assert run.kernel.mib[PID] == {2: 0.0, 0: 256.0}
    assert len(run.kernel.steps) == 1


def test_a_move_larger_than_a_tick_goes_on_where_it_stopped() -> None:
    run = misplaced()
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(12)
    starts = [step.resume_at for step in run.kernel.steps]
    assert len(starts) == 3
    assert starts[0] == 0
    assert starts[1] < starts[2]
    assert run.kernel.mib[PID][N0] == 256.0


def test_a_move_is_finished_though_the_rest_alone_would_not_be_worth_one() -> None:
    run = misplaced()
    run.kernel.migrate_bytes_per_step = 254 * MIB
    run.ticks(8)
    assert run.kernel.mib[PID][N0] == 256.0
    assert run.last(1).reason is Reason.WELL_PLACED


def test_a_pass_that_nobody_wants_any_more_is_not_looked_at_again_and_again() -> None:
    run = misplaced()
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(5)
    assert run.engine._ledger.moving() == {PID}
    run.kernel.mib[PID] = {N0: 256.0}
    run.ticks(1)
    assert run.engine._ledger.moving() == frozenset()


def test_pages_that_cannot_move_put_the_process_in_quarantine_with_their_status() -> None:
    run = misplaced()
    run.kernel.stuck_mib[PID] = 256.0
    told = run.last(9)
    assert told.reason is Reason.QUARANTINE
    assert told.detail.startswith("65536 pages eacces; again in ")
    assert len(run.kernel.steps) == 1


def test_quarantine_doubles() -> None:
    run = misplaced()
    run.kernel.stuck_mib[PID] = 256.0
    moves = [i for i, report in enumerate(run.ticks(200)) if report.outcomes]
    gaps = [b - a for a, b in itertools.pairwise(moves)]
    assert gaps[0] == pytest.approx(30, abs=3)
    assert gaps[1] == pytest.approx(60, abs=3)


def test_a_moved_process_cools_down_before_it_may_move_again() -> None:
    run = misplaced()
    run.kernel.stuck_mib[PID] = 100.0
    told = run.last(9)
    assert told.reason is Reason.COOLDOWN
    assert told.detail.startswith("moved 156 MiB to node 0; left over: 25600 pages eacces; again in ")


def test_a_bound_process_is_respected_and_not_asked_again_at_once() -> None:
    run = misplaced()
    run.kernel.mempolicy = Mempolicy(mode="bind", nodes=frozenset({N2}))
    told = run.last(20)
    assert told.reason is Reason.MEMPOLICY
    assert told.detail.startswith("bind:2")
    assert run.kernel.steps == []
    assert len(run.kernel.read_mempolicies) == 1


def test_a_process_that_may_not_be_read_says_so() -> None:
    run = misplaced()
    run.kernel.missed[PID] = Reason.NO_ACCESS
    assert run.last(4).reason is Reason.NO_ACCESS


def test_first_sight_comes_before_any_judgement() -> None:
    run = Run()
    run.kernel.add(make_process(cpu_cores=None), {2: 256})
    assert run.last(1).reason is Reason.FIRST_SIGHT


def test_a_policy_in_observe_mode_decides_and_nothing_moves() -> None:
    run = Run(observing=["home"])
    run.kernel.add(make_process(), {2: 256})
    told = run.last(8)
    assert told.reason is Reason.OBSERVE_MODE
    assert run.kernel.steps == []


class Raising:
    name = "broken"

    def decide(self, window: Window) -> Iterable[Verdict]:
        raise ZeroDivisionError(f"at {window.now.taken_at}")


def test_a_policy_that_raises_is_reported_and_the_others_go_on() -> None:
    home = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    run = Run(policies=[Raising(), home])
    run.kernel.add(make_process(), {2: 256})
    report = run.ticks(8)[0]
    assert report.policy_errors == {"broken": "ZeroDivisionError: at 1000.0"}
    assert run.kernel.mib[PID][N0] == 256.0


def test_stopping_starts_no_step() -> None:
    run = misplaced()
    run.ticks(4)
    run.stopping = True
    run.ticks(3)
    assert run.kernel.steps == []
    assert run.last(1).reason is Reason.STOPPING


def test_every_surveyed_process_has_a_reason_and_every_page_a_status() -> None:
    run = misplaced()
    run.kernel.add(make_process(2, rss_bytes=MIB), {0: 1})
    run.kernel.add(make_process(3, cpu_cores=0.0), {0: 100})
    for report in run.ticks(10):
        assert {p.process.id for p in report.processes} == {p.id for p in report.survey.processes}
        assert all(p.reason for p in report.processes)
        for outcome in report.outcomes:
            assert sum(outcome.pages.values()) == outcome.submitted_pages
            assert outcome.pages[PageStatus.MOVED] == 65536


def test_local_ratio_is_the_share_of_memory_where_it_runs() -> None:
    run = misplaced()
    run.kernel.mib[PID] = {N0: 192.0, N2: 64.0}
    assert run.last(2).local_ratio == pytest.approx(0.75)


def test_a_process_that_ends_is_forgotten() -> None:
    run = misplaced()
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(6)
    del run.kernel.processes[PID]
    report = run.ticks(1)[0]
    assert report.processes == ()
    assert run.engine._ledger.moving() == frozenset()
