"""Whole ticks over a machine in memory: from misplaced to home, and every way of being left alone."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.budgets import Rates
from balancerd.engine.memory import new_memory
from balancerd.engine.plan import PlanLimits
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Engine, Settings
from balancerd.engine.trust import TRIAL_SECONDS
from balancerd.model.decision import Decision, Eviction, Reason, Verdict
from balancerd.model.ids import ProcessId
from balancerd.model.migration import EvictionOutcome, EvictionStep, VerifyRequest
from balancerd.model.page_status import PageStatus
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import Mempolicy, Pressure, SampleRequest, Sampling, Survey, Window
from balancerd.policies.follow_cpu import FollowCpuOptions, plugin
from balancerd.ports import Policy, PolicyContext, SurveyScope
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N1,
    N2,
    VMA_START,
    FakeClock,
    FakeHeatWatch,
    FakeKernel,
    make_process,
    make_rates,
    make_run,
)
from tests.unit.reports import an_outcome

PID = ProcessId(100, 1)


class Run:
    """An engine over a FakeKernel, ticking every two seconds."""

    def __init__(
        self,
        *,
        policies: list[Policy] | None = None,
        observing: Iterable[str] = (),
        rates: Rates | None = None,
        cooldown: float = 60.0,
        scan_budget: float = 0.01,
    ) -> None:
        self.clock = FakeClock()
        self.kernel = FakeKernel(self.clock)
        self.stopping = False
        self.claimed: frozenset[ProcessId] = frozenset()
        self.settings = Settings(
            criteria=Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=1),
            scan_budget_ratio=scan_budget,
            limits=PlanLimits(budget_seconds=1.0, watermark_ratio=0.02, max_memory_pressure_ratio=0.1),
            rates=rates or make_rates(),
            cooldown_seconds=cooldown,
            observing=frozenset(observing),
        )
        self.memory = new_memory(cooldown_seconds=cooldown, rates=self.settings.rates, scan_budget_ratio=scan_budget)
        self.engine = self.load(policies)

    def load(self, policies: list[Policy] | None = None, heat_watch: FakeHeatWatch | None = None) -> Engine:
        """Return another engine with the same memory, as a reload does."""
        home = plugin.build(
            "home", FollowCpuOptions(min_home_age_seconds=5.0), PolicyContext(migration_bytes_per_second=GIB)
        )
        return Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=[home] if policies is None else policies,
            settings=self.settings,
            should_stop=lambda: self.stopping,
            memory=self.memory,
            claimed=lambda: self.claimed,
            heat_watch=heat_watch,
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
        *[Reason.HOME_TOO_YOUNG] * 2,
        Reason.MISPLACED,
        *[Reason.WELL_PLACED] * 4,  # sampled again at once
    ]
    assert run.kernel.mib[PID] == {2: 0.0, 0: 256.0}
    assert len(run.kernel.steps) == 1
    assert run.kernel.read_mempolicies == [PID]


def test_a_process_that_was_at_home_for_long_is_looked_at_at_once_when_it_moves_and_followed_in_three_ticks() -> None:
    run = Run()
    run.kernel.add(make_process(run={0: 2.0}), {0: 256})
    settled = run.ticks(400)
    assert not any(report.sampled for report in settled[-60:])  # looked at every 320 s by now
    run.kernel.processes[PID] = make_process(run={1: 2.0})
    reports = run.ticks(4)
    assert [len(report.sampled) for report in reports[:2]] == [1, 1]  # is it moving by itself?
    assert reasons(reports) == [*[Reason.WELL_PLACED] * 2, Reason.MISPLACED, Reason.WELL_PLACED]
    assert run.kernel.mib[PID][N1] == 256.0


def test_what_somebody_else_brings_home_is_left_to_them_until_they_stop() -> None:
    run = Run()
    run.kernel.add(make_process(run={0: 2.0}), {0: 256})
    run.ticks(40)
    run.kernel.processes[PID] = make_process(run={1: 2.0})
    told = []
    for at_home in (0, 60, 120, 180, *[200] * 8):
        run.kernel.mib[PID] = {N0: 256.0 - at_home, N1: float(at_home)}
        told.append(run.last(1).reason)
        if run.kernel.steps:
            break
    assert told[2:4] == [Reason.LOSS_BELOW_COST] * 2  # one stay says little of the next
    assert told[4:] == [*[Reason.COMING_HOME] * (len(told) - 5), Reason.MISPLACED]
    assert 7 <= len(told) <= 10


def test_a_move_larger_than_a_tick_goes_on_where_it_stopped() -> None:
    run = misplaced()
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(12)
    starts = [step.resume_at for step in run.kernel.steps]
    assert len(starts) == 3
    assert starts[0] == 0
    assert starts[1] < starts[2]
    assert run.kernel.mib[PID][N0] == 256.0


@pytest.mark.parametrize(("looking", "moving"), [(0.01, 1.0), (0.5, 2.0)])
def test_where_looking_is_slow_moving_gets_four_times_as_long(looking: float, moving: float) -> None:
    run = misplaced()
    survey = run.kernel.survey

    def slow(scope: SurveyScope) -> Survey:
        run.clock.time += looking
        return survey(scope)

    run.kernel.survey = slow  # type: ignore[method-assign]
    run.ticks(8)
    assert [step.budget_seconds for step in run.kernel.steps] == [pytest.approx(moving)]


def test_what_the_home_cannot_take_goes_to_its_neighbour_and_comes_home_when_there_is_room() -> None:
    run = Run(cooldown=10.0)
    run.kernel.add(make_process(), {2: 256})
    run.kernel.migrate_bytes_per_step = 60 * MIB
    reserve_bytes = 8 * GIB // 10 + 16 * MIB  # a tenth of the node, and its watermark

    def live(ticks: int, room_mib: int) -> dict[int, int]:
        for _ in range(ticks):
            room = room_mib - run.kernel.mib[PID].get(N0, 0.0)
            run.kernel.free_bytes = {0: reserve_bytes + round(room * MIB)}
            run.ticks(1)
        return {int(node): round(mib) for node, mib in run.kernel.mib[PID].items() if mib}

    assert live(40, room_mib=100) == {0: 100, 1: 156}
    assert live(20, room_mib=300) == {0: 256}
    assert all(move.ended_at is not None for move in run.memory.moves.recent())


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
    assert run.memory.ledger.moving() == {PID}
    run.kernel.mib[PID] = {N0: 256.0}
    run.ticks(1)
    assert run.memory.ledger.moving() == frozenset()


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


def test_what_cannot_be_looked_at_in_time_is_not_moved_until_it_can() -> None:
    run = misplaced()
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(4)
    assert len(run.kernel.steps) == 1
    run.kernel.missed[PID] = Reason.BLOCKED
    blocked = run.ticks(3)
    assert len(run.kernel.steps) == 1
    assert {report.processes[0].reason for report in blocked} == {Reason.BLOCKED}
    del run.kernel.missed[PID]
    run.ticks(3)
    assert run.kernel.mib[PID][N0] == 256.0
    assert run.kernel.steps[1].resume_at > 0


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
    home = plugin.build(
        "home", FollowCpuOptions(min_home_age_seconds=5.0), PolicyContext(migration_bytes_per_second=GIB)
    )
    run = Run(policies=[Raising(), home])
    run.kernel.add(make_process(), {2: 256})
    report = run.ticks(8)[0]
    assert report.policy_errors == {"broken": "ZeroDivisionError: at 1000.0"}
    assert run.kernel.mib[PID][N0] == 256.0


def test_heat_is_read_of_the_busiest_first() -> None:
    run = Run()
    for pid, cores in ((103, 0.5), (100, 0.2), (102, 0.5)):
        run.kernel.add(make_process(pid, cpu_cores=cores), {0: 256})
    watch = FakeHeatWatch(PID)
    run.engine = run.load(heat_watch=watch)
    run.ticks(1)
    asked, others = watch.asked[-1]
    assert (asked, [process.pid for process in others]) == ((), [102, 103, 100])


def test_stopping_starts_no_step() -> None:
    run = misplaced()
    run.ticks(3)
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
    assert run.memory.ledger.moving() == frozenset()


class Wanting:
    """A policy that wants the same of each process at every tick until it is told otherwise."""

    name = "test"

    def __init__(self, verdict: Verdict | None) -> None:
        self.verdict = verdict

    def decide(self, window: Window) -> Iterable[Verdict]:
        if self.verdict is None:
            return ()
        return tuple(replace(self.verdict, process=process.id) for process in window.now.eligible)


MOVE = Decision(policy="test", process=PID, target=N0, misplaced_bytes=256 * MIB, gain_cores=0.1, cost_seconds=0.5)
EVICT = Eviction(policy="test", process=PID, evict_bytes=512 * MIB)


def wanting(verdict: Verdict, *, mib: float = 256, **settings: Any) -> Run:
    run = Run(policies=[Wanting(verdict)], **settings)
    run.kernel.add(make_process(), {2: mib})
    return run


def reasons(reports: list[TickReport]) -> list[Reason]:
    return [report.processes[0].reason for report in reports]


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ("process_mib", Reason.PROCESS_BUDGET),
        ("pair_mib", Reason.NODE_PAIR_BUDGET),
        ("machine_mib", Reason.MIGRATION_BUDGET),
    ],
)
def test_over_many_ticks_a_process_moves_no_faster_than_each_rate(rates: str, reason: Reason) -> None:
    run = wanting(MOVE, mib=256, rates=make_rates(**{rates: 10}))
    reports = run.ticks(8)  # full at first: 20 MiB, and 10 MiB/s come in
    moved = [sum(o.moved_pages for o in r.outcomes) * 4096 // MIB for r in reports]
    assert moved == [20] * 8
    assert {step.move_id for step in run.kernel.steps} == {1}
    run.memory.budgets.spend_bytes(PID, 100 * MIB, {(N2, N0): 100 * MIB}, run.clock.now())
    assert reasons(run.ticks(4)) == [reason] * 4


def test_under_pressure_nothing_moves_and_afterwards_the_pass_goes_on() -> None:
    run = wanting(MOVE)
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(1)
    run.kernel.pressure = Pressure(cpu_ratio=0.0, memory_ratio=0.2)
    assert reasons(run.ticks(2)) == [Reason.PRESSURE] * 2
    run.kernel.pressure = Pressure(cpu_ratio=0.0, memory_ratio=0.0)
    run.ticks(2)
    assert [step.resume_at != 0 for step in run.kernel.steps] == [False, True, True]
    assert len({step.move_id for step in run.kernel.steps}) == 1


def test_a_process_claimed_by_a_command_is_left_to_it() -> None:
    run = wanting(MOVE)
    run.claimed = frozenset({PID})
    told = run.last(1)
    assert (told.reason, told.detail) == (Reason.CLAIMED, "by a command")
    run.claimed = frozenset()
    assert run.last(1).reason is Reason.MISPLACED


def test_the_full_target_costs_no_reading_of_mempolicies() -> None:
    run = wanting(MOVE)
    run.kernel.free_bytes = {0: 0}
    assert reasons(run.ticks(40)) == [Reason.TARGET_FULL] * 40
    assert run.kernel.read_mempolicies == []


def test_a_reload_keeps_cooldowns_budgets_and_what_can_be_undone() -> None:
    run = wanting(MOVE)
    run.kernel.stuck_mib[PID] = 100.0
    run.ticks(1)
    run.engine = run.load([Wanting(MOVE)])
    assert run.last(1).reason is Reason.COOLDOWN
    (move,) = run.memory.moves.recent()
    assert (move.id, move.process, move.policy, move.reason) == (1, PID, "test", Reason.MISPLACED)
    assert (move.started_at, move.ended_at) == (1000.0, 1000.0)
    assert move.moved_bytes == 156 * MIB
    assert move.lost_pages == 0


def test_a_pass_that_nobody_wants_any_more_is_a_move_that_ended() -> None:
    policy = Wanting(MOVE)
    run = Run(policies=[policy])
    run.kernel.add(make_process(), {2: 256})
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(1)
    assert run.memory.moves.recent()[0].ended_at is None
    policy.verdict = None
    run.ticks(1)
    assert run.memory.moves.recent()[0].ended_at == 1002.0


@pytest.mark.parametrize(("stopped_by", "gaps"), [(Reason.STALLED, (30, 60, 120)), (Reason.NO_MEMORY, (30, 60, 120))])
def test_a_step_that_was_stopped_backs_off_and_doubles(stopped_by: Reason, gaps: tuple[int, ...]) -> None:
    run = wanting(MOVE)
    run.kernel.stopped_by = stopped_by
    run.kernel.migrate_bytes_per_step = MIB
    reports = run.ticks(230)
    tried = [i for i, report in enumerate(reports) if report.outcomes]
    assert [b - a for a, b in itertools.pairwise(tried)] == list(gaps)
    assert reasons(reports)[1] is (Reason.PAUSED if stopped_by is Reason.NO_MEMORY else stopped_by)


def test_a_step_stopped_by_pressure_is_no_failure() -> None:
    run = wanting(MOVE)
    run.kernel.stopped_by = Reason.PRESSURE
    run.kernel.migrate_bytes_per_step = 100 * MIB
    run.ticks(2)
    assert [step.resume_at != 0 for step in run.kernel.steps] == [False, True]


def test_ranges_that_failed_are_left_out_when_the_process_moves_again() -> None:
    run = wanting(MOVE, cooldown=10.0)
    run.kernel.stuck_status = PageStatus.BUSY
    run.kernel.stuck_mib[PID] = 100.0
    run.ticks(2)  # the second finds that what was moved is there
    run.clock.time += 8.0
    run.kernel.mib[PID] = {N2: 256.0}  # as if all of it had come back: 100 MiB are stuck still
    run.ticks(1)
    first, second = run.kernel.steps
    assert [(r.end - r.start) // MIB for r in first.ranges] == [256]
    assert [(r.end - r.start) // MIB for r in second.ranges] == [156]


def test_when_all_that_is_left_is_stuck_nobody_walks_there_again_until_its_time() -> None:
    run = wanting(MOVE, cooldown=0.0)
    run.kernel.stuck_mib[PID] = 100.0
    reports = run.ticks(100)
    assert [i for i, report in enumerate(reports) if report.outcomes] == [0, 30, 90]
    assert (reports[1].processes[0].reason, reports[1].processes[0].detail) == (
        Reason.QUARANTINE,
        "100 MiB eacces in 1 ranges; again in 58 s",
    )


def test_moved_pages_are_looked_at_three_times_and_then_no_more() -> None:
    run = wanting(MOVE)
    reports = run.ticks(200)
    looked = [(1000 + 2 * i, r.returns[0].total.asked_pages) for i, r in enumerate(reports) if r.returns]
    moved_at = 1000 + 2 * next(i for i, r in enumerate(reports) if r.outcomes)
    assert [at - moved_at for at, _ in looked] == [10, 60, 300]
    assert {pages for _, pages in looked} == {256}


def revocations(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[ProcessId]:
    """Return the processes whose program is trusted no longer, as they become known."""
    revoked: list[ProcessId] = []
    monkeypatch.setattr(run.memory.trust, "revoke", revoked.append)
    return revoked


def test_pages_that_come_back_hold_the_process_and_lock_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    run = wanting(MOVE)
    revoked = revocations(run, monkeypatch)
    run.kernel.returned_ratio[PID] = 0.1
    told = run.last(7)
    assert told.reason is Reason.PING_PONG
    assert told.detail == "10% of what was moved to node 0 is elsewhere again; again in 58 s"
    assert [span.cause for span in run.memory.ledger.held_ranges(PID, run.clock.now())] == ["came back"]
    run.ticks(30)
    assert len(run.kernel.verified) == 1  # what came back counts once
    assert revoked == [PID]


@pytest.mark.parametrize(("returned", "absent"), [(0.0, 1.0), (0.04, 0.0)])
def test_few_pages_elsewhere_or_pages_gone_are_no_ping_pong(
    returned: float, absent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = wanting(MOVE)
    revoked = revocations(run, monkeypatch)
    run.kernel.returned_ratio[PID] = returned
    run.kernel.absent_ratio[PID] = absent
    run.ticks(32)
    assert len(run.kernel.verified) == 2
    assert run.memory.ledger.held_ranges(PID, run.clock.now()) == ()
    hold = run.memory.ledger.hold(PID, run.clock.now())
    assert hold is None or hold.reason is not Reason.PING_PONG
    assert revoked == []


@pytest.mark.parametrize(("scan_budget", "looks"), [(0.1, [4, 3, 0]), (0.0, [1, 1, 1])])
def test_at_most_four_processes_are_looked_at_in_one_tick_within_the_scan_budget_but_one_always(
    scan_budget: float, looks: list[int]
) -> None:
    run = wanting(MOVE, scan_budget=scan_budget)
    for pid in range(100, 107):
        run.memory.returns.note(
            replace(an_outcome(ProcessId(pid, 1)), moved_runs=(make_run(VMA_START, 1),)), run.clock.now() - 20.0
        )
        run.kernel.add(make_process(pid), {0: 16})
    reports = run.ticks(3)
    assert [len(report.returns) for report in reports] == looks
    assert run.kernel.verified[0].process == PID


def test_looking_at_what_moved_earlier_ends_when_the_scan_budget_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = wanting(MOVE, scan_budget=0.25)  # 7.5 s at most
    for pid in range(100, 104):
        run.memory.returns.note(
            replace(an_outcome(ProcessId(pid, 1)), moved_runs=(make_run(VMA_START, 1),)), run.clock.now() - 20.0
        )
        run.kernel.add(make_process(pid), {0: 16})
    verify = run.kernel.verify

    def slow(request: VerifyRequest) -> Any:
        run.clock.time += 2.5
        return verify(request)

    monkeypatch.setattr(run.kernel, "verify", slow)
    assert len(run.ticks(1)[0].returns) == 3


def test_whose_mempolicies_cannot_be_read_takes_no_budget_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    run = wanting(MOVE, rates=make_rates(machine_mib=10))
    other = make_process(pid=101)
    run.kernel.add(other, {2: 256})
    asked: list[ProcessId] = []
    sample = run.kernel.sample

    def only_of_the_other(requests: tuple[SampleRequest, ...]) -> Sampling:
        asked.extend(request.process for request in requests if request.read_mempolicies)
        return sample(tuple(replace(r, read_mempolicies=r.process == other.id) for r in requests))

    monkeypatch.setattr(run.kernel, "sample", only_of_the_other)
    (report,) = run.ticks(1)
    assert asked == [PID]
    assert [step.process for step in run.kernel.steps] == [other.id]
    assert [(skip.process, skip.reason) for skip in report.plan.rejected] == [(PID, Reason.MEMPOLICY_UNREAD)]


def test_an_eviction_is_carried_out_and_told() -> None:
    run = wanting(replace(EVICT, evict_bytes=100 * MIB))
    run.kernel.stuck_mib[PID] = 200.0
    (report,) = run.ticks(1)
    assert [(o.evicted_pages * 4096 // MIB, o.kept_pages * 4096 // MIB) for o in report.evictions] == [(56, 44)]
    told = report.processes[0]
    assert (told.reason, told.detail) == (Reason.EVICT, "evicted 56 MiB; 11264 pages stayed")
    assert report.outcomes == ()


def test_evictions_for_which_no_time_is_left_are_told_and_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    run = wanting(replace(EVICT, evict_bytes=50 * MIB))
    run.kernel.add(make_process(101), {2: 256})
    evict = run.kernel.evict

    def slowly(step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        run.clock.time += 30.0
        return evict(step, should_stop)

    monkeypatch.setattr(run.kernel, "evict", slowly)
    (report,) = run.ticks(1)
    first, second = report.processes
    assert (first.reason, len(report.evictions)) == (Reason.EVICT, 1)
    assert (second.reason, second.detail) == (Reason.MIGRATION_BUDGET, "no time was left for it")


def test_an_eviction_goes_on_at_its_rate_and_rests_when_it_is_done() -> None:
    run = wanting(EVICT)
    reports = run.ticks(4)
    assert [step.budget_bytes // MIB for step in run.kernel.evictions] == [128, 128]
    assert [step.resume_at != 0 for step in run.kernel.evictions] == [False, True]
    assert reasons(reports)[2:] == [Reason.COOLDOWN] * 2
    assert reports[2].processes[0].detail == "256 MiB evicted; again in 58 s"


def test_an_eviction_that_takes_nothing_away_backs_off() -> None:
    run = wanting(EVICT, mib=100)
    run.kernel.stuck_mib[PID] = 100.0
    told = run.last(2)
    assert (told.reason, told.detail) == (Reason.QUARANTINE, "0 of 25600 pages could be evicted; again in 58 s")


def test_an_eviction_of_a_policy_that_observes_is_told_only() -> None:
    run = wanting(EVICT, observing=["test"])
    assert run.last(1).reason is Reason.OBSERVE_MODE
    assert run.kernel.evictions == []


def test_a_policy_must_give_a_reason_for_which_memory_moves() -> None:
    run = wanting(replace(MOVE, reason=Reason.COOLDOWN))
    (report,) = run.ticks(1)
    assert report.policy_errors == {"test": "cooldown is no reason to move memory"}
    assert run.kernel.steps == []


def test_observing_leaves_no_move_behind() -> None:
    run = wanting(MOVE)
    run.kernel.stopped_by = Reason.OBSERVE_MODE
    run.kernel.migrate_bytes_per_step = 0
    run.ticks(3)
    assert len(run.kernel.steps) == 3
    assert run.memory.moves.recent() == ()
    assert run.memory.moves.find(1) is None


def test_observing_is_paid_for_and_the_next_tick_waits_for_the_budget() -> None:
    run = Run(scan_budget=0.01)
    run.clock.cpu += 7.0
    run.ticks(1)
    assert run.engine.next_tick_at(0.0) <= run.clock.now(), "the start is not paid for"
    run.clock.cpu += 0.5
    due_at = run.clock.now() + 1.0
    assert run.engine.next_tick_at(due_at) == pytest.approx(run.clock.now() + (0.5 - 0.3) / 0.01)
    (report,) = run.ticks(1)
    assert report.scan_cpu_seconds == pytest.approx(0.5)
    assert report.scan_budget_ratio == 0.01
    run.clock.time += 60.0
    assert run.engine.next_tick_at(run.clock.now() + 1.0) == run.clock.now() + 1.0


def test_the_first_look_at_everybody_belongs_to_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(scan_budget=0.01)
    survey = run.kernel.survey

    def dear(scope: SurveyScope) -> Survey:
        run.clock.cpu += 7.0
        return survey(scope)

    monkeypatch.setattr(run.kernel, "survey", dear)
    run.ticks(1)
    assert run.engine.next_tick_at(0.0) <= run.clock.now()
    run.ticks(1)
    assert run.engine.next_tick_at(0.0) > run.clock.now(), "later ones do not"


def test_behind_a_part_that_is_tried_the_next_tick_is_due_early_and_behind_all_else_regularly() -> None:
    run = Run()
    run.settings = replace(run.settings, canary=True)
    run.engine = run.load()
    run.kernel.add(make_process(rss_bytes=1024 * MIB, cpu_cores=4.0), {2: 1024.0})
    found = []
    for (report,) in (run.ticks(1) for _ in range(7)):
        began_at, tried_at = report.survey.taken_at, run.memory.trust.tried_at
        due_at = run.engine.due_at(began_at, began_at + 300.0)
        assert due_at == (began_at + 300.0 if tried_at is None else tried_at + TRIAL_SECONDS)
        assert run.engine.due_at(began_at, began_at + 0.1) == began_at + 0.1
        assert run.engine.due_at(run.clock.time + 1.0, run.clock.time + 300.0) == run.clock.time + 300.0
        found.append((sum(outcome.moved_pages for outcome in report.outcomes) // 256, due_at < began_at + 300.0))
    assert found == [(0, False), (0, False), (0, False), (64, True), (192, True), (768, False), (0, False)]


def test_the_cpu_time_of_moving_memory_is_not_observing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = misplaced()
    migrate = run.kernel.migrate

    def dear(*given: Any) -> Any:
        run.clock.cpu += 3.0
        return migrate(*given)

    monkeypatch.setattr(run.kernel, "migrate", dear)
    reports = run.ticks(8)
    assert len(run.kernel.steps) == 1
    assert sum(report.scan_cpu_seconds for report in reports) == 0.0
    run.clock.cpu += 0.25
    run.engine.note_moving(0.25)
    assert run.engine.next_tick_at(0.0) <= run.clock.now()
