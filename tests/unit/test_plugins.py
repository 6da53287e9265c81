"""Policies by entry point: our own, one from another installed package, and what is said of broken ones."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from balancerd import plugins
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
