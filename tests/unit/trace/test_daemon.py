"""The real daemon on this machine, recorded by the real command."""

import json
import signal
import subprocess
import time
from pathlib import Path

from tests.traces.golden import replay
from tests.unit.test_daemon import BIN, QUIET, Daemon, running


def record(daemon: Daemon, path: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [BIN / "balancerctl", "--socket", str(daemon.socket), "record", str(path), "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_there(path: Path) -> None:
    end = time.monotonic() + 20.0
    while not path.exists() or path.stat().st_size < 200:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_daemon_is_recorded_and_decided_anew_as_it_did(tmp_path: Path) -> None:
    with running(tmp_path, "--set", "select.min_rss=1MiB", "--set", "select.min_cpu=64") as daemon:
        done = record(daemon, tmp_path / "t", "--for", "2s")
        told, complained = done.communicate(timeout=60)
        assert done.returncode == 0, complained
        assert json.loads(told)["ended"] == "its time is over"
        ticks = json.loads(told)["ticks"]
        daemon.wait_for("tick", number=ticks)
        assert "tick failed" not in daemon.log.read_text()
    run = replay(tmp_path / "t")
    numbers = [tick.number for tick in run.ticks()]
    assert numbers == list(range(numbers[0], numbers[0] + ticks))
    assert ticks >= 3
    assert (run.summary.compared, run.summary.as_recorded) == (ticks, ticks)
    assert run.summary.reasons["below-min-cpu"] >= ticks
    assert run.summary.ended == "its time is over"


def test_a_reload_ends_a_recording_and_ctrl_c_another_one(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        done = record(daemon, tmp_path / "one")
        wait_until_there(tmp_path / "one")
        daemon.config.write_text(QUIET)
        daemon.process.send_signal(signal.SIGHUP)
        told, _ = done.communicate(timeout=60)
        assert (done.returncode, json.loads(told)["ended"]) == (1, "the configuration was loaded again")

        done = record(daemon, tmp_path / "two")
        wait_until_there(tmp_path / "two")
        done.send_signal(signal.SIGINT)
        told, _ = done.communicate(timeout=60)
        assert (done.returncode, json.loads(told)["ended"]) == (130, "interrupted")
        assert len(list(replay(tmp_path / "two").ticks())) == json.loads(told)["ticks"]


def test_a_command_that_is_killed_leaves_what_it_has_fetched_and_the_daemon_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        done = record(daemon, tmp_path / "t")
        wait_until_there(tmp_path / "t")
        done.kill()
        done.communicate(timeout=60)
        before = daemon.client.get("/v1/status")["tick"]["number"]
        daemon.wait_for("tick", number=before + 2)
    run = replay(tmp_path / "t")
    assert list(run.ticks())
    assert run.summary.ended is None
