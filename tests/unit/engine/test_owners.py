"""Threads against memory: who was moved last, how long the other one stays, and what becomes of held threads."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.config.schema import Config, PolicyConfig, SelectConfig
from balancerd.engine.budgets import Budgets
from balancerd.engine.ledger import Ledger
from balancerd.engine.owners import Owners, lock_seconds, step_of
from balancerd.engine.plan import PlanLimits, Planned, make_plan
from balancerd.engine.tick import Engine
from balancerd.kernel.observe import ObserveKernel
from balancerd.model.decision import Decision, Reason, Skip, Steer, Wanted
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import Pressure
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, ThreadFate, nothing_steered
from balancerd.plugins import discover
from balancerd.ports import Kernel
from balancerd.settings import build_policies, build_settings
from tests.unit.fakes import (
    MIB,
    N0,
    N1,
    FakeClock,
    FakeKernel,
    make_placement,
    make_process,
    make_rates,
    make_snapshot,
    make_survey,
)

PID = ProcessId(100, 1)
LIMITS = PlanLimits(budget_seconds=1.0, watermark_ratio=0.0, places={"rules": -2, "first": 0, "threads": 1, "home": 2})


def a_steer(policy: str = "threads", **changes: Any) -> Steer:
    steer = Steer(policy=policy, process=PID, target=N1, cpus=frozenset({CpuId(1)}), gain_cores=0.1, cost_seconds=0.01)
    return replace(steer, **changes)


def a_move(policy: str = "home", **changes: Any) -> Decision:
    move = Decision(policy=policy, process=PID, target=N0, misplaced_bytes=64 * MIB, gain_cores=0.1, cost_seconds=0.1)
    return replace(move, **changes)


def an_outcome(step: SteerStep, *, moved: int = 0, held: int = 0, stopped_by: Reason | None = None) -> SteerOutcome:
    fate = ThreadFate.PINNED if held else ThreadFate.MOVED
    return SteerOutcome(step=step, threads={fate: moved} if moved else {}, held_threads=held, stopped_by=stopped_by)


def plan(owners: Owners, *wanted: Wanted, at: float = 0.0, **changes: Any) -> Planned:
    pressure = changes.pop("pressure", None)
    survey = make_survey(make_process(), at=at, pressure=pressure)
    snapshot = make_snapshot(survey, make_placement({1: 256.0}, mempolicies_at=at))
    budgets = Budgets(make_rates())
    return make_plan(snapshot, wanted, Ledger(20.0), budgets, LIMITS, owners=owners, **changes)


def reasons(planned: Planned) -> list[tuple[Reason, str]]:
    return [(skip.reason, skip.detail) for skip in planned.plan.rejected]


def test_a_wanted_steer_becomes_a_step_and_keeps_memory_of_later_policies_away() -> None:
    planned = plan(Owners(), a_move(), a_steer())
    assert planned.plan.steers == (step_of(a_steer()),)
    assert planned.plan.steps == ()
    assert reasons(planned) == [(Reason.CLAIMED, "by policy threads")]


@pytest.mark.parametrize(
    ("wanted", "changes", "reason"),
    [
        ((a_move("first"),), {}, Reason.CLAIMED),
        ((), {"kept": [Skip(by="rules", process=PID, reason=Reason.NEVER, holds=True)]}, Reason.CLAIMED),
        ((), {"claimed": {PID}}, Reason.CLAIMED),
        ((), {"closed": {N1: "empty"}}, Reason.NODE_CLOSED),
        ((), {"pressure": Pressure(cpu_ratio=None, memory_ratio=None)}, None),
    ],
)
def test_what_speaks_against_moving_threads(wanted: tuple[Wanted, ...], changes: Any, reason: Reason | None) -> None:
    planned = plan(Owners(), *wanted, a_steer(), **changes)
    assert [skip.reason for skip in planned.plan.rejected] == ([] if reason is None else [reason])
    assert len(planned.plan.steers) == (reason is None)


def test_a_rule_comes_before_and_is_not_kept_away() -> None:
    planned = plan(Owners(), a_steer(), a_move("rules"))
    assert len(planned.plan.steps) == 1
    assert planned.plan.steers == ()


@pytest.mark.parametrize(
    ("gain", "cost", "seconds"),
    [(1.0, 1.0, 60.0), (0.1, 4.0, 80.0), (0.001, 100.0, 3600.0), (0.0, 10.0, 60.0)],
)
def test_the_other_one_stays_for_a_minute_or_twice_as_long_as_it_takes_to_pay(
    gain: float, cost: float, seconds: float
) -> None:
    assert lock_seconds(gain, cost) == seconds


def test_memory_stays_after_threads_were_moved() -> None:
    owners = Owners()
    owners.expect([a_steer(gain_cores=0.1, cost_seconds=4.0)])
    owners.note(an_outcome(step_of(a_steer()), moved=3), 100.0)
    for policy in ("rules", "home"):
        planned = plan(owners, a_move(policy), at=179.0)
        assert reasons(planned) == [(Reason.THREADS_MOVED, "3 to node 1 by policy threads; again in 1 s")]
    assert len(plan(owners, a_move(), at=180.0).plan.steps) == 1


def test_threads_stay_after_memory_was_moved() -> None:
    owners = Owners()
    owners.expect([a_move(gain_cores=0.1, cost_seconds=4.0)])
    owners.note_memory(PID, 100.0)
    assert reasons(plan(owners, a_steer(), at=170.0)) == [(Reason.MEMORY_MOVED, "again in 10 s")]
    assert len(plan(owners, a_steer(), at=180.0).plan.steers) == 1


def test_threads_that_come_back_are_left_alone_for_longer_each_time_so_that_memory_has_its_turn() -> None:
    owners, at = Owners(), 0.0
    for rest in (60.0, 120.0, 240.0):
        owners.note(an_outcome(step_of(a_steer()), moved=1), at)
        assert [reason for reason, _ in reasons(plan(owners, a_steer(), at=at + rest - 1.0))] == [
            Reason.THREADS_RETURNED
        ]
        assert len(plan(owners, a_steer(), at=at + rest).plan.steers) == 1
        at += rest
    owners.note(an_outcome(step_of(a_steer()), moved=1), at + 601.0)
    assert len(plan(owners, a_steer(), at=at + 661.0).plan.steers) == 1, "they had stayed"


def test_what_was_refused_is_asked_for_again_later() -> None:
    owners = Owners()
    owners.note(nothing_steered(step_of(a_steer()), Reason.OWN_AFFINITY, "all"), 0.0)
    assert reasons(plan(owners, a_steer(), at=59.0)) == [(Reason.OWN_AFFINITY, "all; again in 1 s")]
    assert len(plan(owners, a_move(), at=1.0).plan.steps) == 1, "memory may move"
    owners.note(nothing_steered(step_of(a_steer()), Reason.OBSERVE_MODE), 100.0)
    assert len(plan(owners, a_steer(), at=100.0).plan.steers) == 1


def test_pinned_threads_stay_as_long_as_they_are_wanted_and_are_let_go_then() -> None:
    owners = Owners()
    pin = a_steer(pin=True)
    owners.note(an_outcome(step_of(pin), moved=2, held=2), 0.0)
    high = Pressure(cpu_ratio=0.9, memory_ratio=0.9)
    limits = {"pressure": high}
    kept = plan(owners, pin, at=1.0, **limits)
    assert (kept.plan.steers, kept.plan.rejected) == ((), ())
    release = replace(step_of(pin), kind=SteerKind.RELEASE)
    assert plan(owners, at=1.0).plan.steers == (release,)
    assert plan(owners, pin, a_move("rules"), at=61.0).plan.steers == (release,), "a rule has the process"
    other = replace(pin, target=N0, cpus=frozenset({CpuId(0)}))
    planned = plan(owners, other, at=61.0)
    assert planned.plan.steers == (release,)
    assert reasons(planned) == [(Reason.COOLDOWN, "its threads are still held on node 1")]
    owners.note(an_outcome(release, moved=0), 70.0)
    assert plan(owners, at=71.0).plan.steers == ()
    assert reasons(plan(owners, pin, at=71.0)) == [(Reason.COOLDOWN, "its threads were let go; again in 59 s")]


def test_memory_follows_pinned_threads_once_their_lock_is_over() -> None:
    owners = Owners()
    pin = a_steer(pin=True)
    owners.note(an_outcome(step_of(pin), moved=2, held=2), 0.0)
    planned = plan(owners, pin, a_move(), at=60.0)
    assert (planned.plan.steers, len(planned.plan.steps)) == ((), 1)


def test_threads_that_slept_are_let_go_in_the_next_tick() -> None:
    owners = Owners()
    owners.note(an_outcome(step_of(a_steer()), moved=1, held=1), 0.0)
    assert [step.kind for step in plan(owners, a_steer(), at=2.0).plan.steers] == [SteerKind.RELEASE]


CONFIG = Config(
    select=SelectConfig(min_age_seconds=1.0),
    policies=(
        PolicyConfig.model_validate({"name": "threads", "kind": "threads"}),
        PolicyConfig(name="home", kind="follow-cpu"),
    ),
)


class Ticks:
    """An engine with both policies over a machine in memory: one process, whose memory is dear to move."""

    def __init__(self, config: Config = CONFIG, *, observe: bool = False, mib: int = 4096) -> None:
        self.clock = FakeClock()
        self.kernel = FakeKernel(self.clock)
        self.kernel.loads = {0: 0.5, 1: 0.0, 2: 0.0, 3: 0.0}
        self.kernel.add(make_process(rss_bytes=mib * MIB, cpu_cores=0.5), {1: mib})
        kernel: Kernel = ObserveKernel(self.kernel) if observe else self.kernel
        settings = build_settings(config, discover())
        self.memory = settings.new_memory()
        self.engine = Engine(
            kernel=kernel,
            clock=self.clock,
            policies=build_policies(config, discover(), (6, 12)),
            settings=settings,
            should_stop=lambda: False,
            memory=self.memory,
        )

    def tick(self, ticks: int = 1) -> TickReport:
        reports = []
        for _ in range(ticks):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports[-1]

    def process(self, report: TickReport) -> ProcessReport:
        return report.processes[0]


def pinning(**options: Any) -> Config:
    policy = PolicyConfig.model_validate({"name": "threads", "kind": "threads", "method": "pin", **options})
    return CONFIG.model_copy(update={"policies": (policy, CONFIG.policies[1])})


def test_threads_are_kicked_and_memory_does_not_follow_them_meanwhile() -> None:
    ticks = Ticks()
    reports = [ticks.tick() for _ in range(30)]
    assert [step.kind for step in ticks.kernel.steers] == [SteerKind.KICK]
    assert ticks.kernel.steps == []
    (kicked,) = [report for report in reports if report.steers]
    assert ticks.process(kicked).reason is Reason.STEER
    assert ticks.process(kicked).detail == "1 threads moved to node 1"
    assert ticks.process(reports[-1]).reason is Reason.WELL_PLACED


def test_a_thread_that_sleeps_is_let_go_by_the_next_tick() -> None:
    ticks = Ticks()
    ticks.kernel.asleep.add(PID)
    ticks.tick(10)
    assert [step.kind for step in ticks.kernel.steers] == [SteerKind.KICK, SteerKind.RELEASE]


def test_pinned_threads_are_let_go_when_the_process_idles() -> None:
    ticks = Ticks(pinning())
    report = ticks.tick(20)
    assert [step.kind for step in ticks.kernel.steers] == [SteerKind.PIN]
    assert ticks.process(report).reason is Reason.STEER
    assert "held" in ticks.process(report).detail
    idle = replace(ticks.kernel.processes[PID], cpu_cores=0.0, run_seconds=None)
    ticks.kernel.processes[PID] = idle
    ticks.tick(2)
    assert [step.kind for step in ticks.kernel.steers] == [SteerKind.PIN, SteerKind.RELEASE]


def test_in_mode_observe_nothing_is_steered_but_what_is_held_is_let_go() -> None:
    ticks = Ticks(observe=True)
    report = ticks.tick(5)
    assert ticks.kernel.steers == []
    assert ticks.process(report).reason is Reason.OBSERVE_MODE
    assert ticks.process(report).detail == "would move its threads to node 1"
    step = step_of(a_steer(pin=True))
    ticks.memory.owners.note(an_outcome(step, moved=1, held=1), ticks.clock.now())
    ticks.tick()
    assert [step.kind for step in ticks.kernel.steers] == [SteerKind.RELEASE]


def test_where_threads_are_refused_memory_comes_to_them() -> None:
    ticks = Ticks(mib=512)
    ticks.kernel.steering_refused = Reason.OWN_AFFINITY
    ticks.tick(400)
    assert [step.kind for step in ticks.kernel.steers][:1] == [SteerKind.KICK]
    assert ticks.kernel.mib[PID] == {NodeId(1): 0.0, NodeId(0): 512.0}


def test_pinned_threads_are_not_let_go_while_the_address_space_is_locked() -> None:
    ticks = Ticks(pinning())
    ticks.tick(10)
    ticks.kernel.missed[PID] = Reason.BLOCKED
    ticks.tick(10)
    assert [step.kind for step in ticks.kernel.steers] == [SteerKind.PIN]


def test_threads_that_were_there_already_are_not_asked_of_for_a_minute() -> None:
    owners = Owners()
    owners.note(an_outcome(step_of(a_steer())), 100.0)
    assert owners.explain_hold(a_steer(), 130.0) == (Reason.COOLDOWN, "its threads were there already; again in 30 s")
    assert owners.explain_hold(a_steer(), 160.0) is None
    assert owners.memory_hold(PID, 101.0) is None


@pytest.mark.parametrize(("kind", "rests"), [(SteerKind.PIN, True), (SteerKind.KICK, False)])
def test_threads_rest_after_they_were_let_go_if_they_were_held_on_purpose(kind: SteerKind, *, rests: bool) -> None:
    owners = Owners()
    step = replace(step_of(a_steer(pin=True)), kind=kind)
    owners.note(an_outcome(step, held=1), 0.0)
    assert owners.explain_hold(a_steer(), 1.0) == (Reason.COOLDOWN, "its threads are still held on node 1")
    (release,) = owners.releases(set())
    assert release == replace(step, kind=SteerKind.RELEASE)
    assert owners.releases({PID}) == ()
    owners.note(an_outcome(release), 2000.0)
    told = owners.explain_hold(a_steer(), 2010.0)
    assert told == ((Reason.COOLDOWN, "its threads were let go; again in 50 s") if rests else None)


@pytest.mark.parametrize(
    ("held", "asked", "is_pinned"),
    [
        (a_steer(pin=True), a_steer(pin=True), True),
        (a_steer(pin=True), a_steer(pin=False), False),
        (a_steer(pin=False), a_steer(pin=True), False),
        (a_steer(pin=True), a_steer("other", pin=True), False),
        (a_steer(pin=True), a_steer(pin=True, cpus=frozenset({CpuId(2)})), False),
    ],
)
def test_threads_are_held_as_wanted_by_the_same_policy_and_on_the_same_cpus(
    held: Steer, asked: Steer, *, is_pinned: bool
) -> None:
    owners = Owners()
    assert not owners.is_pinned(asked)
    owners.note(an_outcome(step_of(held), held=1), 0.0)
    assert owners.is_pinned(asked) is is_pinned
