"""What the engine gets of a configuration."""

from balancerd.config.schema import Config, RuleConfig, SelectConfig, WorkloadConfig
from balancerd.model.decision import Reason
from balancerd.wiring import build_settings
from tests.unit.fakes import make_process


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
