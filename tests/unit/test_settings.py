"""What the engine gets of a configuration."""

import pytest

from balancerd import plugins
from balancerd.config.schema import (
    AccessesConfig,
    Config,
    MigrateConfig,
    PlanConfig,
    PolicyConfig,
    RuleConfig,
    SelectConfig,
    WorkloadConfig,
)
from balancerd.kernel.accesses.watch import AccessSettings
from balancerd.model.decision import Decision, Reason, Verdict
from balancerd.model.heat import HeatMethod
from balancerd.model.ids import CpuId
from balancerd.model.sample import Window
from balancerd.settings import build_accesses, build_pace, build_policies, build_settings
from tests.unit.fakes import GIB, MIB, make_placement, make_process, make_snapshot, make_survey


def test_the_rules_of_the_configuration_reach_the_criteria() -> None:
    select = SelectConfig(include=(RuleConfig(uid=(0,)),), exclude=(RuleConfig(comm="a"), RuleConfig(comm="b")))
    criteria = build_settings(Config(select=select)).criteria
    assert criteria.rules.objection(make_process(comm="b")) == (Reason.EXCLUDED, "select.exclude[1]: comm 'b'")
    assert criteria.rules.objection(make_process(uid=1)) == (Reason.NOT_INCLUDED, "uid 1")
    assert criteria.rules.objection(make_process()) is None
    assert not criteria.scope.read_exe


def test_what_workloads_ask_for_is_read_too() -> None:
    groups = (WorkloadConfig(name="gcc", match=(RuleConfig(exe="/usr/bin/gcc"), RuleConfig(cmdline="make.*"))),)
    scope = build_settings(Config(workloads=groups)).criteria.scope
    assert (scope.read_exe, scope.read_cmdline) == (True, True)
    assert not build_settings(Config(workloads=groups)).criteria.rules.include


@pytest.mark.parametrize(("version", "seconds"), [((6, 2), 0.5), ((6, 3), 0.25), ((7, 0), 0.25)])
def test_a_lower_rate_makes_moves_slower_but_not_dearer(version: tuple[int, int], seconds: float) -> None:
    policies = (PolicyConfig(name="home", kind="follow-cpu"),)
    found = plugins.discover()
    prices = set()
    verdict: Verdict | None = None
    for rate_bytes in (16 * MIB, 16 * GIB):
        migrate = MigrateConfig(rate_limit_bytes_per_second=rate_bytes)
        (home,) = build_policies(Config(policies=policies, migrate=migrate), found, version)
        for at in (2.0, 4.0, 6.0):
            survey = make_survey(make_process(), at=at)
            (verdict,) = home.decide(Window(now=make_snapshot(survey, make_placement({2: 256})), before=None))
        assert isinstance(verdict, Decision)
        prices.add(verdict.cost_seconds)
    assert prices == {seconds}


def test_how_accesses_are_watched_is_what_the_configuration_says() -> None:
    assert build_accesses(Config()) == AccessSettings()
    changed = AccessesConfig(
        sources=(), max_processes=7, budget_ratio=0.02, table_size_bytes=1 << 20, log_directory="/x", heat="soft-dirty"
    )
    assert build_accesses(Config(accesses=changed)) == AccessSettings(
        methods=(),
        most_processes=7,
        budget_ratio=0.02,
        table_bytes=1 << 20,
        log_directory="/x",
        heat=HeatMethod.SOFT_DIRTY,
    )


@pytest.mark.parametrize("moves", [False, True])
def test_what_several_processes_map_moves_as_configured(*, moves: bool) -> None:
    limits = build_settings(Config(migrate=MigrateConfig(move_all=moves, move_shared=not moves))).limits
    assert (limits.move_all, limits.move_shared) == (moves, not moves)


def test_the_cpus_that_copy_are_configured() -> None:
    assert build_pace(Config()).copying_cpus is None
    assert build_pace(Config.from_text({"migrate": {"copy_on": "0-2,8"}})).copying_cpus == frozenset(
        map(CpuId, (0, 1, 2, 8))
    )
    assert build_pace(Config.from_text({"migrate": {"copy_on": 4}})).copying_cpus == frozenset({CpuId(4)})


@pytest.mark.parametrize("canary", [True, False])
def test_whether_a_move_begins_with_a_part_is_configured(*, canary: bool) -> None:
    assert Config().plan.canary
    assert build_settings(Config(plan=PlanConfig(canary=canary))).canary is canary
