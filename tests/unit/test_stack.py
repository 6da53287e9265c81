"""The stack of policies: who comes first, what is read for them, and nodes that are not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from balancerd import plugins, stack
from balancerd.config import loader
from balancerd.config.schema import Config, PolicyConfig, RuleConfig
from balancerd.settings import build_settings, options_by_kind
from tests.unit.fakes import make_topology

FOUND = plugins.discover()
TWO_NODES = make_topology(((10, 21), (21, 10)), memoryless=(1,))


def test_rules_and_cpusets_come_first_and_the_others_as_they_are_written() -> None:
    config = Config(
        policies=tuple(
            PolicyConfig(name=name, kind=kind)
            for name, kind in (
                ("a", "follow-cpu"),
                ("b", "rule"),
                ("c", "access"),
                ("d", "cpuset-follow"),
                ("e", "rule"),
            )
        )
    )
    places = stack.places(config)
    assert sorted(places, key=lambda name: places[name]) == ["b", "e", "d", "a", "c"]
    assert {name for name, place in places.items() if place < 0} == {"b", "d", "e"}
    assert build_settings(config).limits.places == places


@pytest.mark.parametrize(
    ("policies", "exe", "cmdline", "placing"),
    [
        ("[{name: a, kind: follow-cpu}]", False, False, False),
        ("[{name: a, kind: follow-cpu, match: [{exe: /x}]}]", True, False, False),
        ("[{name: a, kind: rule, rules: [{match: [{cmdline: x}], nodes: 0}]}]", False, True, True),
        ("[{name: a, kind: rule, rules: [{match: [{comm: x}], never: true}]}]", False, False, True),
    ],
)
def test_what_rules_of_policies_ask_for_is_read(policies: str, exe: bool, cmdline: bool, placing: bool) -> None:
    config = loader.load_text(f"policies: {policies}\n", plugins=options_by_kind(FOUND)).config
    criteria = build_settings(config, FOUND).criteria
    assert (criteria.scope.read_exe, criteria.scope.read_cmdline) == (exe, cmdline)
    assert (criteria.placing, criteria.scope.read_idle) == (placing, placing)


@pytest.mark.parametrize("kind", ["follow-cpu", "cold-eviction"])
def test_the_pressure_of_workloads_is_read_only_for_a_policy_that_goes_by_it(kind: str) -> None:
    config = loader.load_text(f"policies: [{{name: a, kind: {kind}}}]\n", plugins=options_by_kind(FOUND)).config
    scope = build_settings(config, FOUND).criteria.scope
    assert (scope.read_workload_pressure, scope.read_idle) == ((kind == "cold-eviction"),) * 2


@pytest.mark.parametrize(
    ("nodes", "messages"),
    [
        ("nodes: 0", []),
        ("nodes: [0, 7]", ["x.yaml:4:18: error: there is no node 7 on this machine, or it is offline"]),
        ("nodes: '0,7'", ["x.yaml:4:14: error: there is no node 7 on this machine, or it is offline"]),
        ("interleave: [1]", ["x.yaml:4:20: error: node 1 of this machine has no memory"]),
        ("never: true", []),
    ],
)
def test_a_node_that_is_not_there_is_an_error_where_it_stands(nodes: str, messages: list[str]) -> None:
    text = f"policies:\n  - {{name: a, kind: rule, rules: [\n    {{match: [{{uid: root}}],\n      {nodes}}}]}}\n"
    loaded = loader.load_text(text, "x.yaml", plugins=options_by_kind(FOUND))
    told = [str(finding) for finding in stack.find_missing_nodes(loaded, FOUND, lambda: TWO_NODES)]
    assert [each.partition(": write")[0] for each in told] == messages
    assert all(each.endswith(": write one of those that have memory, 0") for each in told)


def test_nodes_are_not_read_where_no_policy_names_one() -> None:
    def read() -> None:
        raise AssertionError

    assert stack.find_missing_nodes(loader.load_text(""), FOUND, read) == []


def test_where_the_nodes_cannot_be_read_nothing_is_said() -> None:
    text = "policies: [{name: a, kind: rule, rules: [{match: [{comm: x}], nodes: 7}]}]"
    assert stack.find_missing_nodes(loader.load_text(text), FOUND, lambda: None) == []


def test_the_check_of_a_file_and_the_daemon_tell_of_a_node_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "b.yaml"
    config.write_text("policies:\n  - {name: a, kind: rule, rules: [{match: [{comm: x}], nodes: 1023}]}\n")
    bin_ = Path(sys.executable).parent
    checked, started = (
        subprocess.run(command, capture_output=True, text=True, check=False)
        for command in (
            [f"{bin_}/balancerctl", "config", "check", str(config)],
            [f"{bin_}/balancerd", "--config", str(config)],
        )
    )
    told = f"{config}:2:63: error: there is no node 1023 on this machine"
    assert checked.returncode == 5
    assert told in checked.stdout
    assert started.returncode == 5
    assert told in started.stderr


def test_a_rule_of_a_policy_with_three_wildcards_is_advised_against() -> None:
    config = "policies: [{name: a, kind: follow-cpu, match: [{cmdline: '.*a.*b.*c'}]}]"
    (finding,) = loader.load_text(config).findings
    assert "more than 2 of .*" in finding.message
    assert (
        RuleConfig(comm="a")
        == loader.load_text("policies: [{name: a, kind: x, match: [{comm: a}]}]").config.policies[0].match[0]
    )


def test_the_match_of_a_policy_reaches_the_engine() -> None:
    text = "policies: [{name: a, kind: follow-cpu, match: [{comm: x}]}, {name: b, kind: follow-cpu}]"
    matches = build_settings(loader.load_text(text).config, FOUND).matches
    assert matches.kinds == {"a": "follow-cpu", "b": "follow-cpu"}
    assert [str(rule) for rule in matches.rules["a"]] == ["policies.a.match[0]: comm 'x'"]
    assert set(matches.rules) == {"a"}


def test_a_rule_in_the_options_with_three_wildcards_is_advised_against_where_it_stands(tmp_path: Path) -> None:
    config = tmp_path / "b.yaml"
    rules = "[{match: [{comm: a}], never: true}, {match: [{comm: b}, {cmdline: '.*a.*b.*c'}], never: true}]"
    config.write_text(f"policies:\n  - name: a\n    kind: rule\n    rules: {rules}\n")
    loaded = loader.load(config, plugins=options_by_kind(FOUND))
    assert loaded.findings == ()
    (finding,) = stack.advise_on_options(loaded, FOUND)
    assert (finding.severity, finding.line, finding.column) == ("warning", 4, 78)
    assert "more than 2 of .*" in finding.message
    command = [f"{Path(sys.executable).parent}/balancerctl", "config", "check", str(config)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (5, f"{finding}\n")


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ("policies: [{name: a, kind: follow-cpu}]", False),
        ("policies: [{name: a, kind: threads}]", True),
        ("policies: [{name: a, kind: threads, mode: observe}]", False),
        ("mode: observe\npolicies: [{name: a, kind: threads}]", False),
    ],
)
def test_who_moves_threads_needs_a_directory_for_the_journal(tmp_path: Path, config: str, refused: bool) -> None:
    loaded = loader.load_text(config, "x.yaml", plugins=options_by_kind(FOUND))
    assert stack.find_missing_journal(loaded, FOUND, tmp_path) == []
    found = stack.find_missing_journal(loaded, FOUND, tmp_path / "none")
    assert len(found) == refused
    for finding in found:
        told = str(finding)
        assert told.startswith("x.yaml:1:28: error: it needs a directory for its journal, and nothing can be written")
        assert f"{tmp_path}/none: No such file or directory: make it" in told
        assert "state_directory" in told
