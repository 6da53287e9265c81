"""The real daemon, started as root, refuses what others may write to: its files, and the directories it works in."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from balancerd.config import loader
from balancerd.config.custody import check_kept, open_kept
from balancerd.config.findings import ConfigError
from tests.unit.test_daemon import BIN, running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="who is not privileged reads whatever it may")

STRANGER = 4242
SETTINGS = "mode: observe\nselect: {min_rss: 1GiB}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "own/balancerd.yaml"
    path.parent.mkdir()
    path.write_text(SETTINGS)
    path.chmod(0o644)
    return path


def start(config: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    given = (f"control.socket={config.parent.parent}/s", "metrics.listen=null", *settings)
    command = [str(BIN / "balancerd"), "--config", str(config), "--once", *(f"--set={each}" for each in given)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("open_up", "fix"),
    [
        (lambda path: path.chmod(0o664), "chmod go-w {file}"),
        (lambda path: path.parent.chmod(0o777), "chmod go-w {directory}"),
        (lambda path: os.chown(path, STRANGER, STRANGER), "chown root {file}"),
        (lambda path: os.chown(path.parent, STRANGER, STRANGER), "chown root {directory}"),
    ],
)
def test_a_configuration_of_others_is_refused_with_the_fix(
    config: Path, open_up: Callable[[Path], None], fix: str
) -> None:
    open_up(config)
    refused = start(config)
    command = fix.format(file=config, directory=config.parent)
    assert refused.returncode == 5
    assert refused.stderr.startswith(f"{config}: error: cannot read it: ")
    assert refused.stderr.endswith(f": {command}\n")
    subprocess.run(command.split(), check=True)
    check_kept(config.parent)
    os.close(open_kept(config))


def test_so_is_nothing_else(config: Path, tmp_path: Path) -> None:
    (tmp_path / "works").mkdir(mode=0o755)
    settings = (each.format(tmp_path / "works") for each, _ in DIRECTORIES)
    done = start(config, *settings)
    assert done.returncode == 0, done.stderr


DIRECTORIES = (
    ("state_directory={}", "state_directory"),
    ("history.path={}/history.sqlite", "history.path"),
    ("accesses.log_directory={}", "accesses.log_directory"),
    ("control.socket={}/s", "control.socket"),
)


@pytest.mark.parametrize(("setting", "key"), DIRECTORIES)
def test_so_are_the_directories_that_it_works_in(config: Path, tmp_path: Path, setting: str, key: str) -> None:
    directory = tmp_path / "works"
    directory.mkdir()
    directory.chmod(0o777)
    refused = start(config, setting.format(directory))
    assert refused.returncode == 5
    assert key in refused.stderr
    assert refused.stderr.endswith(f": chmod go-w {directory}\n")
    assert list(directory.iterdir()) == []


def test_at_a_reload_the_old_configuration_stays(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.config.chmod(0o666)
        daemon.process.send_signal(signal.SIGHUP)
        refused = daemon.wait_for("configuration refused, the old one stays")
        assert str(refused["finding"]).endswith(f"chmod go-w {daemon.config}")
        assert not daemon.client.get("/v1/status")["config"]["last_reload"]["succeeded"]


def test_one_bad_fragment_keeps_the_daemon_from_obeying_any(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf.d").mkdir(mode=0o755)
    bad = tmp_path / "conf.d/50-mode.yaml"
    bad.write_text("mode: enforce\n")
    monkeypatch.setattr(loader, "DEFAULT_PATH", config)
    monkeypatch.setattr(loader, "FRAGMENTS", (bad.parent,))
    bad.chmod(0o646)
    (found,) = loader.check()
    assert str(found).startswith(f"{bad}: error: cannot read it: {bad}: others than root")
    with pytest.raises(ConfigError, match="others than root"):
        loader.load(obeyed=True)
    assert loader.load().config.mode == "enforce"  # for whoever only looks
    bad.chmod(0o644)
    bad.parent.chmod(0o1777)
    with pytest.raises(ConfigError, match=f"chmod go-w {bad.parent}$"):
        loader.load(obeyed=True)
    bad.parent.chmod(0o755)
    assert loader.load(obeyed=True).config.mode == "enforce"
