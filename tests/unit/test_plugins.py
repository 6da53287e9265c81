"""Policies by entry point: our own, one from another installed package, and what is said of broken ones."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Self

import pytest

from balancerd import plugins
from balancerd.engine.deciding import LATE_ANSWERS
from balancerd.policies import follow_cpu

OUTSIDE = Path(__file__).parent / "outside"
BIN = Path(sys.executable).parent


def test_our_own_policy_is_found_like_anyone_elses() -> None:
    assert plugins.discover()["follow-cpu"] is follow_cpu.plugin


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the outside package is installed."""
    folder = tmp_path_factory.mktemp("outside")
    source = folder / "source"
    shutil.copytree(OUTSIDE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    target = folder / "site"
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def test_a_policy_of_another_package_is_listed(installed: dict[str, str]) -> None:
    listed = subprocess.run(
        [BIN / "balancerctl", "policies", "list", "--json"], env=installed, check=True, capture_output=True
    )
    kinds = {policy["kind"]: policy["summary"] for policy in json.loads(listed.stdout)["policies"]}
    assert kinds["never"] == "Never moves anything."
    assert "follow-cpu" in kinds


def test_a_policy_of_another_package_decides_in_the_real_daemon(installed: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "balancerd.yaml"
    config.write_text(
        "mode: observe\ntick_interval: 300ms\nselect: {min_rss: 1MiB, min_cpu: 0, min_age: 0s}\n"
        "log: {level: debug}\nmetrics: {listen: null}\n"
        f"control: {{socket: {tmp_path}/control.sock}}\n"
        "policies:\n  - {name: mine, kind: never, because: I said so}\n",
        encoding="utf-8",
    )
    with subprocess.Popen(
        [BIN / "balancerd", "--config", config], env=installed, stderr=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stderr is not None
        lines: Iterable[str] = iter(daemon.stderr.readline, "")
        try:
            told = next(line for line in lines if "I said so" in line)
        finally:
            daemon.terminate()
            daemon.communicate(timeout=20)
    assert json.loads(told)["reason"] == "gain-below-cost"


def test_an_option_that_its_policy_does_not_know_is_a_finding(installed: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "balancerd.yaml"
    config.write_text("policies:\n  - {name: mine, kind: never, because: [1]}\n  - {name: b, kind: nevre}\n")
    checked = subprocess.run(
        [BIN / "balancerctl", "config", "check", str(config)],
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 5
    assert f"{config}:2:40: error: " in checked.stdout
    assert "did you mean 'never'?" in checked.stdout


class Daemon:
    """A daemon that only observes, with these policies; its lines are read as they come."""

    def __init__(self, env: dict[str, str], folder: Path, policies: str) -> None:
        config = folder / "balancerd.yaml"
        config.write_text(
            "mode: observe\ntick_interval: 300ms\nselect: {min_rss: 1MiB, min_cpu: 0, min_age: 0s}\n"
            "log: {level: debug}\nmetrics: {listen: 127.0.0.1:0}\n"
            f"control: {{socket: {folder}/control.sock}}\npolicies:\n{policies}\n",
            encoding="utf-8",
        )
        self.folder = folder
        self.process = subprocess.Popen(
            [BIN / "balancerd", "--config", config], env=env, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.lines = map(json.loads, iter(self.process.stderr.readline, ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)

    def first(self, event: str, **values: object) -> dict[str, Any]:
        return next(
            line for line in self.lines if line["event"] == event and all(line.get(k) == v for k, v in values.items())
        )

    def status(self) -> dict[str, Any]:
        socket = self.folder / "control.sock"
        done = subprocess.run(
            [BIN / "balancerctl", "status", "--json", "--socket", socket], check=True, capture_output=True
        )
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.mark.parametrize(
    ("how", "cause", "error"),
    [
        ("raise", "raised", "LookupError: wild"),
        ("exit", "raised", "SystemExit: 7"),
        ("node", "nonsense", "node 1000, which is not online"),
        ("process", "nonsense", f"pid {1 << 30}, about which it was not asked"),
        ("sleep", "slow", "it took 6.0 s to answer, of 5 s allowed"),
    ],
)
def test_a_policy_of_another_package_that_misbehaves_is_disabled_and_the_daemon_goes_on(
    installed: dict[str, str], tmp_path: Path, how: str, cause: str, error: str
) -> None:
    policies = f"  - {{name: bad, kind: wild, how: {how}}}\n  - {{name: good, kind: never, because: I said so}}"
    with Daemon(installed, tmp_path, policies) as daemon:
        if how == "sleep":
            hanging = daemon.first("policy hangs")
            assert (hanging["policy"], hanging["seconds"], hanging["level"]) == ("bad", 5.0, "warning")
        for _ in range(LATE_ANSWERS if how == "sleep" else 1):
            failed = next(line for line in daemon.lines if line.get("policy_errors"))
            assert failed["level"] == "warning"
            assert failed["policy_errors"] == {"bad": error}
        after = [daemon.first("tick") for _ in range(3)]
        assert not any(line.get("policy_errors") for line in after), "no more lines tell it"
        assert {line["level"] for line in after} == {"info"}
        assert daemon.status()["disabled_policies"] == {"bad": {"cause": cause, "detail": error}}
        assert daemon.process.poll() is None


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package of docs/policies.md is installed, as it stands there."""
    folder = tmp_path_factory.mktemp("template")
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    source = folder / "source"
    source.mkdir()
    for name, language in (("pyproject.toml", "toml"), ("balancerd_gather.py", "python")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        (source / name).write_text(block, encoding="utf-8")
    target = folder / "site"
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def test_the_template_of_the_docs_is_a_package_that_decides_in_the_real_daemon(
    template: dict[str, str], tmp_path: Path
) -> None:
    with Daemon(template, tmp_path, "  - {name: mine, kind: gather, least_share: 70%, mode: observe}") as daemon:
        daemon.first("reason changed", reason="well-placed", detail="node 0")
        assert daemon.status()["disabled_policies"] == {}


def test_the_template_of_the_docs_gathers_what_pays_and_tells_the_rest(template: dict[str, str]) -> None:
    code = """
from balancerd import plugins
from balancerd.model.sample import Window
from balancerd.ports import PolicyContext
from tests.unit.fakes import GIB, make_placement, make_process, make_snapshot, make_survey
plugin = plugins.discover()["gather"]
policy = plugin.build("mine", plugin.options(), PolicyContext(migration_bytes_per_second=GIB))
for held, run in (({0: 220, 2: 36}, {0: 2.0}), ({0: 220, 2: 36}, {2: 2.0}), ({0: 150, 2: 106}, {0: 2.0}),
                  ({0: 256}, {0: 2.0}), ({}, {0: 2.0}), ({0: 256}, {})):
    now = make_snapshot(make_survey(make_process(run=run)), make_placement(held))
    (verdict,) = policy.decide(Window(now=now, before=None))
    print(verdict.reason, getattr(verdict, "target", "-"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=template,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "misplaced 0",
        "gain-below-cost -",
        "several-homes -",
        "well-placed -",
        "nothing-present -",
        "no-home -",
    ]


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=plugins.GROUP)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("a", "x:1"), entry("a", "y:2")], "policy kind 'a' is offered twice: by x:1 and by y:2"),
        ([entry("a", "no_such_module:plugin")], r"policy 'a' \(no_such_module:plugin\) cannot be loaded"),
        ([entry("a", "json:dumps")], "policy 'a' \\(json:dumps\\) has no 'options'"),
    ],
)
def test_a_broken_plugin_is_named(entries: list[EntryPoint], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda **_: entries)
    with pytest.raises(plugins.PluginError, match=message):
        plugins.discover()


def test_an_unknown_kind_lists_what_there_is() -> None:
    with pytest.raises(plugins.PluginError, match="did you mean 'follow-cpu'"):
        plugins.pick(plugins.discover(), "folow-cpu")
