"""Whole ticks with rules: they win over the other policies, reach idle processes, and spread what they say."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.config.schema import RuleConfig
from balancerd.engine.tick import Engine
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import ProcessSample
from balancerd.policies import follow_cpu, rule
from balancerd.policies.rule import PlaceConfig
from balancerd.ports import Policy, PolicyContext
from tests.unit.engine.test_tick import Run
from tests.unit.fakes import GIB, MIB, N0, N1, N2, make_process

PID = ProcessId(100, 1)
CONTEXT = PolicyContext(migration_bytes_per_second=GIB)
WORKER = (RuleConfig(comm="worker"),)


def stack(*places: PlaceConfig) -> list[Policy]:
    """follow-cpu first, to see that it does not help to stand first."""
    home = follow_cpu.plugin.build("home", follow_cpu.FollowCpuOptions(min_home_age_seconds=2.0), CONTEXT)
    return [home, rule.plugin.build("fixed", rule.RuleOptions(rules=places), CONTEXT)]


def running(*places: PlaceConfig, process: ProcessSample | None = None, observing: tuple[str, ...] = ()) -> Run:
    run = Run(cooldown=4.0)
    criteria = replace(run.settings.criteria, placing=True)
    limits = replace(run.settings.limits, places={"home": 0, "fixed": -2})
    settings = replace(run.settings, criteria=criteria, limits=limits, observing=frozenset(observing))
    run.engine = Engine(
        kernel=run.kernel,
        clock=run.clock,
        policies=stack(*places),
        settings=settings,
        should_stop=lambda: False,
        memory=run.memory,
    )
    run.kernel.add(make_process() if process is None else process, {2: 256})
    return run


def test_a_rule_wins_over_follow_cpu_and_the_move_is_told_by_its_reason() -> None:
    run = running(PlaceConfig(match=WORKER, nodes=(N1,)))
    run.ticks(30)
    assert {step.reason for step in run.kernel.steps} == {Reason.RULE}
    assert run.kernel.mib[PID][N1] == 256.0
    last = run.last(1)
    assert last.reason is Reason.AS_RULED
    assert {verdict.reason for verdict in last.verdicts} >= {Reason.MISPLACED, Reason.CLAIMED, Reason.AS_RULED}


def test_never_keeps_every_policy_away() -> None:
    run = running(PlaceConfig(match=WORKER, never=True))
    last = run.last(30)
    assert not run.kernel.steps
    assert (last.reason, last.detail) == (Reason.NEVER, "fixed.rules[0].match[0]: comm 'worker'")
    claimed = next(verdict for verdict in last.verdicts if verdict.reason is Reason.CLAIMED)
    assert claimed.detail.startswith("by policy fixed, never: ")


def test_a_rule_that_only_observes_keeps_nobody_away() -> None:
    run = running(PlaceConfig(match=WORKER, never=True), observing=("fixed",))
    last = run.last(30)
    assert {step.policy for step in run.kernel.steps} == {"home"}
    assert not any(isinstance(verdict, Skip) and verdict.holds for verdict in last.verdicts)


def test_an_idle_process_is_moved_by_a_rule_and_by_nobody_else() -> None:
    idle = make_process(cpu_cores=0.0, run={})
    run = running(PlaceConfig(match=WORKER, nodes=(N1,)), process=idle)
    reports = run.ticks(30)
    assert run.kernel.mib[PID][N1] == 256.0
    assert {step.policy for step in run.kernel.steps} == {"fixed"}
    assert not any(verdict.by == "home" for report in reports for verdict in report.verdicts if hasattr(verdict, "by"))
    other = running(PlaceConfig(match=(RuleConfig(comm="other"),), nodes=(N1,)), process=idle)
    assert other.last(30).reason is Reason.BELOW_MIN_CPU
    assert not other.kernel.steps


@pytest.mark.parametrize("change", [{"opt_out": "BALANCERD=off"}, {"rss_bytes": MIB}, {"age_seconds": 1.0}])
def test_a_rule_reaches_nobody_who_is_not_selected(change: dict[str, Any]) -> None:
    run = running(PlaceConfig(match=WORKER, nodes=(N1,)), process=replace(make_process(cpu_cores=0.0), **change))
    run.ticks(30)
    assert not run.kernel.steps


def test_what_is_interleaved_ends_spread_over_the_nodes_and_stays() -> None:
    run = running(PlaceConfig(match=WORKER, interleave=(N0, N1)))
    run.kernel.migrate_bytes_per_step = 50 * MIB
    run.ticks(40)
    held = run.kernel.mib[PID]
    assert held[N0] == pytest.approx(128, rel=0.11)
    assert held[N1] == pytest.approx(128, rel=0.11)
    assert held[N2] == pytest.approx(0, abs=13)
    steps = len(run.kernel.steps)
    assert run.last(30).reason is Reason.AS_RULED
    assert len(run.kernel.steps) == steps, "nothing moves to and fro"
    targets = [step.target for step in run.kernel.steps]
    assert targets == sorted(targets), "one node after the other"


def test_a_node_that_goes_offline_is_told_and_nobody_moves_there() -> None:
    run = running(PlaceConfig(match=WORKER, nodes=(NodeId(3),)))
    run.kernel.topology = replace(
        run.kernel.topology,
        nodes=tuple(
            replace(n, distances={k: d for k, d in n.distances.items() if k != 3})
            for n in run.kernel.topology.nodes
            if n.id != 3
        ),
    )
    last = run.last(30)
    assert last.reason is Reason.NODE_MISSING
    assert not run.kernel.steps
