from pathlib import Path

import pytest

from balancerd.config.findings import ConfigError
from balancerd.simulation import loading
from balancerd.simulation.loading import parse_scenario


@pytest.mark.parametrize("name", loading.shipped())
def test_every_shipped_scenario_loads_and_says_what_it_shows(name: str) -> None:
    scenario = loading.load(name)
    assert scenario.title
    assert not scenario.title.endswith(".")


def test_there_are_scenarios_of_every_size() -> None:
    scenarios = {name: loading.load(name) for name in loading.shipped()}
    assert {2, 4, 8, 16, 32} <= {scenario.machine.nodes for scenario in scenarios.values()}
    assert sum(group.count for group in scenarios["ten-thousand"].groups) == 10_000
    assert {"wander-5", "wander-60", "wander-300", "wander-1200"} <= scenarios.keys()


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        pytest.param("{}", "1:1", "missing key 'groups'", id="nothing"),
        pytest.param("groups: []", "1:9", "without a group there are no processes: write at least one", id="no group"),
        pytest.param("groups:\n  - {name: a, memroy: 1GiB}", "2:15", "did you mean 'memory'?", id="a typo"),
        pytest.param("groups:\n  - {name: a, memory: 12}", "2:23", "unit", id="no unit"),
        pytest.param("groups:\n  - {name: a, cpu: 2}", "2:20", "must lie between", id="a thread is one core at most"),
        pytest.param(
            "machine: {nodes: 3, distances: [[10, 20], [20, 10]]}\ngroups: [{name: a}]",
            "1:10",
            "distances must have 3 rows of 3 numbers",
            id="not square",
        ),
        pytest.param(
            "machine: {nodes: 2, distances: [[10, 20], [20, 11]]}\ngroups: [{name: a}]",
            "1:10",
            "the distance of a node to itself is 10",
            id="far from itself",
        ),
        pytest.param("groups: [{name: a, runs_on: [2]}]", "1:1", "runs_on names node 2", id="no such node"),
        pytest.param(
            "groups: [{name: a, runs_on: [1], allowed: [0]}]", "1:1", "names a node that is not allowed", id="affinity"
        ),
        pytest.param("groups: [{name: a}, {name: a}]", "1:1", "two groups have the same name", id="same name"),
        pytest.param("groups: [{name: a, every: 5s}]", "1:10", "must leave again: set lives", id="ever more"),
        pytest.param(
            "groups: [{name: a, private: 60%, foreign: 60%}]", "1:10", "are 120% of the memory together", id="too much"
        ),
        pytest.param(
            "groups: [{name: a, phases: [{lasts: 5s, cpu: 1, from: 50%, to: 50%}]}]",
            "1:29",
            "from must be below to",
            id="a phase without memory",
        ),
        pytest.param("groups: [{name: a, lies_on: []}]", "1:10", "lies_on names no node", id="nowhere"),
        pytest.param("groups: [", "2:1", "not YAML", id="not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, line: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text.encode(), "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml:{line}: error: ")
    assert told in str(caught.value)


def test_a_file_is_read_and_one_that_is_missing_is_a_finding_that_names_the_shipped_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("title: mine\ngroups: [{name: a}]\n")
    assert loading.load(str(path)).title == "mine"
    with pytest.raises(ConfigError, match=r"no shipped scenario of that name \(there are: crossed, "):
        loading.load(str(tmp_path / "other.yaml"))
