"""balancerctl simulate: a scenario from the file to the table, the document and the picture."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from balancerd.cli import simulate_svg
from balancerd.simulation import optimum
from tests.unit.cli.conftest import Run

SCENARIO = """title: a short one
duration: 120s
machine: {nodes: 2, cpus: 4, memory: 8GiB}
groups:
  - {name: stray, memory: 512MiB, lies_on: [1]}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(SCENARIO)
    return str(path)


def test_without_a_scenario_those_that_came_along_are_listed(run: Run) -> None:
    lines = run("simulate").stdout.splitlines()
    assert lines[0].split() == ["SCENARIO", "WHAT", "IT", "SHOWS"]
    assert any(line.startswith("crossed  ") for line in lines)
    told = json.loads(run("simulate", "--json").stdout)
    assert (told["schema"], len(told["scenarios"])) == (1, len(lines) - 1)


def test_the_table_has_a_row_for_balancerd_and_one_for_nothing_and_says_how_they_compare(
    run: Run, scenario: str
) -> None:
    done = run("simulate", scenario, "--no-optimum")
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert lines[0].endswith("short.yaml: a short one; 2 nodes, 2m, scheduler sticky, seed 1")
    assert [line.split()[0] for line in lines[1:4]] == ["LOST", "balancerd", "nothing"]
    assert lines[3].split()[1:3] == ["15.8", "s"]  # 120 s at 13.2 %
    assert lines[4].startswith("the work takes 0.8")
    assert lines[5] == "the optimum is left out: not asked for"
    assert lines[6].startswith("moved: 512MiB, 15GiB an hour")


def test_the_optimum_is_in_the_table_or_it_says_what_to_install(
    run: Run, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimum, "find_spec", lambda _name: None)
    told = run("simulate", scenario).stdout
    assert "the optimum is left out: SciPy is not installed: pip install 'balancerd[optimum]'" in told
    monkeypatch.undo()
    pytest.importorskip("scipy", reason="the optimum needs SciPy: the extra `optimum`")
    rows = [line.split() for line in run("simulate", scenario).stdout.splitlines()]
    assert ["optimum", "0.0", "s", "0.00%", "-", "-", "-", "-"] in rows


def test_the_document_is_the_same_for_the_same_seed_and_has_the_course(run: Run, scenario: str) -> None:
    arguments = ("simulate", scenario, "--no-optimum", "--json", "--scheduler", "random", "--seed", "7")
    first = run(*arguments).stdout
    assert first == run(*arguments).stdout
    told = json.loads(first)
    assert (told["schema"], told["scheduler"], told["seed"], told["to_optimum_ratio"]) == (1, "random", 7, None)
    assert len(told["engine"]["course"]) == 201
    assert told["engine"]["moved_bytes"] == 512 << 20
    assert told["engine"]["lost_seconds"] < told["nothing"]["lost_seconds"]


def test_the_configuration_rules_what_is_done(run: Run, scenario: str, tmp_path: Path) -> None:
    path = tmp_path / "balancerd.yaml"
    path.write_text("mode: observe\n")
    told = json.loads(run("simulate", scenario, "--no-optimum", "--json", "--config", str(path)).stdout)
    assert (told["engine"]["moved_bytes"], told["to_nothing_ratio"]) == (0, 1.0)


def test_a_policy_that_judges_by_accesses_is_said_to_do_nothing(run: Run, scenario: str, tmp_path: Path) -> None:
    path = tmp_path / "balancerd.yaml"
    path.write_text("policies:\n  - {name: parts, kind: access}\n")
    done = run("simulate", scenario, "--no-optimum", "--config", str(path))
    assert done.stderr == "policy parts judges by accesses, which are not simulated: it does nothing\n"
    assert "moved: 0B" in done.stdout


def test_errors_are_told_with_their_place_and_exit_5(run: Run, scenario: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("groups:\n  - {nmae: a}\n")
    done = run("simulate", str(bad))
    assert (done.exit_code, done.stdout) == (5, "")
    assert f"{bad}:2:6: error: unknown key 'nmae' (did you mean 'name'?)" in done.stderr.splitlines()
    config = tmp_path / "balancerd.yaml"
    config.write_text("mode: maybe\n")
    done = run("simulate", scenario, "--config", str(config))
    assert (done.exit_code, done.stderr.startswith(f"{config}:1:7: error: ")) == (5, True)


def test_the_picture_is_xml_and_has_a_line_for_each_curve(run: Run, scenario: str, tmp_path: Path) -> None:
    path = tmp_path / "short.svg"
    done = run("simulate", scenario, "--no-optimum", "--plot", str(path))
    assert done.stderr == f"written to {path}\n"
    root = ET.parse(path).getroot()  # noqa: S314 the file is our own
    lines = [each for each in root if each.tag.endswith("polyline")]
    assert len(lines) == 2 + 1 + 2
    height = float(root.attrib["height"])
    points = [tuple(map(float, point.split(","))) for line in lines for point in line.attrib["points"].split()]
    assert all(0 <= x <= float(root.attrib["width"]) and 0 <= y <= height for x, y in points)
    refused = run("simulate", scenario, "--no-optimum", "--plot", str(tmp_path / "no" / "short.svg"))
    assert (refused.exit_code, "cannot be written" in refused.stderr) == (1, True)


def test_a_machine_with_many_nodes_says_that_colours_begin_anew() -> None:
    nodes = [str(node) for node in range(32)]
    course = [
        {"at_seconds": at, "local_ratio": None, "moved_bytes": 0, "free_bytes": dict.fromkeys(nodes, 1)}
        for at in (0.0, 1.0)
    ]
    document = {"duration_seconds": 1.0, "engine": {"course": course}, "nothing": {"course": course}}
    drawn = simulate_svg.draw(document, ("a < b",))
    assert "and 24 more, in the same colours" in drawn
    assert "a &lt; b" in drawn
