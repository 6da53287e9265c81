"""Commands that switch a real daemon on this machine: pause, mode, reload, advise, and what status tells of it."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.cli.conftest import SCHEMAS
from tests.unit.cli.validation import faults
from tests.unit.test_daemon import BIN, PATIENCE_SECONDS, QUIET, Daemon, running


def ask(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    words = [str(BIN / "balancerctl"), "--socket", str(daemon.socket), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout


def ask_json(daemon: Daemon, *arguments: str, code: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ask(daemon, *arguments, "--json", code=code))
    words = " ".join(arguments[:2]) if " ".join(arguments[:2]) in SCHEMAS else arguments[0]
    assert list(faults(SCHEMAS[words], document)) == []
    return document


def status(daemon: Daemon) -> dict[str, Any]:
    return daemon.client.get("/v1/status")


def wait(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_daemon_is_paused_switched_reloaded_and_asked_for_advice(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        told = ask_json(daemon, "status")
        assert (told["paused"], told["pause"], told["mode"]) == (False, None, "observe")

        assert round(ask_json(daemon, "pause", "--for", "1h")["pause"]["left_seconds"]) == 3600
        told = ask_json(daemon, "status")
        assert told["paused"]
        assert 3590 < told["pause"]["left_seconds"] < 3600
        tick = told["tick"]["number"]
        wait(lambda: status(daemon)["tick"]["number"] >= tick + 2)  # it goes on to look
        assert status(daemon)["paused_detail"].startswith(
            ("paused by an operator, for 59m", "paused by an operator, for 1h")
        )
        ask(daemon, "record", str(tmp_path / "none.gz"), code=1)
        assert ask_json(daemon, "resume")["was_paused"]
        wait(lambda: not status(daemon)["paused"])

        assert ask(daemon, "mode") == "observe\n"
        assert ask_json(daemon, "mode", "enforce")["mode"] == "enforce"
        wait(lambda: status(daemon)["mode"] == "enforce")
        assert daemon.wait_for("mode changed")["mode_summary"] == "enforce: home, every 200ms"
        different = ask_json(daemon, "config", "diff", str(daemon.config), code=5)["differences"]
        assert {each["key"]: (each["before"], each["after"]) for each in different}["mode"] == ("enforce", "observe")

        daemon.config.write_text(QUIET + "selct: {}\n")
        finding = f"{daemon.config}:4:1: error: unknown key 'selct' (did you mean 'select'?)"
        assert ask(daemon, "reload", code=5) == f"{finding}\n"
        assert status(daemon)["mode"] == "enforce"
        daemon.config.write_text(QUIET)
        assert ask_json(daemon, "reload")["reloaded"]
        wait(lambda: status(daemon)["mode"] == "observe")

        advised = ask_json(daemon, "advise", "0:1")
        assert (advised["advice"]["source"], advised["advice"]["fits"]) == ("daemon", True)
        assert ask_json(daemon, "advise", "--list")["leases"][0]["id"] == advised["lease"]["id"] == 1
        assert ask_json(daemon, "advise", "--release", "1")["released"]
        ask_json(daemon, "undo", "--since", "1h")
        assert daemon.stop() == 0
