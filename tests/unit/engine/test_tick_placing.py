"""Whole ticks with drain and cpuset-follow beside follow-cpu: who gets its way, what is told, and how it ends."""

from dataclasses import replace

from balancerd.engine.tick import Engine
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.policies import cpuset_follow, drain, follow_cpu
from balancerd.ports import Policy, PolicyContext
from tests.unit.engine.test_tick import Run
from tests.unit.fakes import GIB, N0, N1, N2, N3, make_process, make_rates

PID = ProcessId(100, 1)
CONTEXT = PolicyContext(migration_bytes_per_second=GIB)


def home() -> Policy:
    return follow_cpu.plugin.build("home", follow_cpu.FollowCpuOptions(min_home_age_seconds=2.0), CONTEXT)


def emptying(*nodes: int) -> Policy:
    return drain.plugin.build("empty", drain.DrainOptions(nodes=tuple(NodeId(n) for n in nodes)), CONTEXT)


def following() -> Policy:
    return cpuset_follow.plugin.build("cpusets", cpuset_follow.CpusetFollowOptions(), CONTEXT)


def running(*policies: Policy, observing: tuple[str, ...] = (), process_mib: float = 1024) -> Run:
    run = Run(cooldown=4.0, rates=make_rates(process_mib=process_mib))
    limits = replace(run.settings.limits, places={"cpusets": -1, "home": 0, "empty": 1})
    settings = replace(
        run.settings,
        criteria=replace(run.settings.criteria, placing=True),
        limits=limits,
        observing=frozenset(observing),
    )
    run.engine = Engine(
        kernel=run.kernel,
        clock=run.clock,
        policies=policies,
        settings=settings,
        should_stop=lambda: False,
        memory=run.memory,
    )
    return run


def test_a_node_is_emptied_of_busy_and_idle_processes_and_stays_empty_though_threads_run_there() -> None:
    run = running(home(), emptying(2))
    run.kernel.add(make_process(100, run={2: 2.0}), {2: 256})
    run.kernel.add(make_process(101, cpu_cores=0.0, run={}), {0: 100, 2: 156})
    run.ticks(30)
    assert run.kernel.mib[PID] == {N2: 0.0, N3: 256.0}
    assert run.kernel.mib[ProcessId(101, 1)] == {N0: 100.0, N2: 0.0, N3: 156.0}
    assert {(step.policy, step.reason) for step in run.kernel.steps} == {("empty", Reason.DRAIN)}
    steps = len(run.kernel.steps)
    (report,) = run.ticks(1)
    assert len(run.kernel.steps) == steps
    closed = [v for v in report.plan.rejected if v.reason is Reason.NODE_CLOSED]
    assert [(skip.process, skip.detail) for skip in closed] == [(PID, "node 2, by policy empty")]
    drained = [v for v in report.verdicts if v.reason is Reason.DRAINED]
    assert {v.process.pid for v in drained} == {100, 101}


def test_a_drain_obeys_the_budgets_and_tells_at_each_tick_how_much_is_left() -> None:
    run = running(emptying(2), process_mib=50)
    run.kernel.add(make_process(100), {2: 256})
    told = [v.detail for report in run.ticks(4) for v in report.verdicts if v.reason is Reason.DRAIN]
    assert told == [f"{left}.0 MiB left on node 2; node 2: {left} MiB of 1 processes left" for left in (256, 156, 56)]


def test_a_drain_that_only_observes_closes_nothing() -> None:
    run = running(home(), emptying(2), observing=("empty",))
    run.kernel.add(make_process(100, run={2: 2.0}), {0: 256})
    run.ticks(30)
    assert run.kernel.mib[PID][N2] == 256.0


def test_memory_outside_a_cpuset_follows_before_anybody_else_moves_the_process() -> None:
    run = running(home(), following())
    run.kernel.add(make_process(100, run={3: 2.0}, mems_allowed=frozenset({N0, N1})), {2: 256})
    run.ticks(10)
    assert run.kernel.mib[PID] == {N2: 0.0, N0: 256.0}
    assert {(step.policy, step.reason) for step in run.kernel.steps} == {("cpusets", Reason.CPUSET)}


def test_a_cpuset_may_bring_memory_to_a_node_that_is_being_emptied_and_then_it_is_told_that_it_must_stay() -> None:
    run = running(following(), emptying(2))
    run.kernel.add(make_process(100, mems_allowed=frozenset({N2})), {0: 256})
    reports = run.ticks(10)
    assert run.kernel.mib[PID][N2] == 256.0
    stuck = [v for v in reports[-1].verdicts if isinstance(v, Skip) and v.by == "empty"]
    assert [v.reason for v in stuck] == [Reason.OUTSIDE_CPUSET]
