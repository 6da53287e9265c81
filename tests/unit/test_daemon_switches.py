"""Commands that switch a real daemon on this machine: pause, mode, reload, advise, and what status tells of it."""

import grp
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_members_of_the_group_that_may_change_switch_it_and_others_may_not_even_look() -> None:
    changers, others = grp.getgrnam("nogroup").gr_gid, grp.getgrnam("daemon").gr_gid
    with tempfile.TemporaryDirectory(prefix="balancerd-test-") as name:
        Path(name).chmod(0o755)
        with running(Path(name), "--set", "control.change_group=nogroup") as daemon:
            said = [as_member(daemon, gid, path) for gid in (changers, others) for path in ("/v1/pause", "/v1/resume")]
            assert said == ["answered", "answered", "NotPermitted", "NotPermitted"]


def as_member(daemon: Daemon, gid: int, path: str) -> str:
    """Post to a path as an ordinary user who is in one group only; return what came of it."""
    program = f"""
import os
from balancerd.control.client import ControlClient, ControlFailure
os.setgroups([]); os.setresgid({gid}, {gid}, {gid}); os.setresuid(1234, 1234, 1234)
try:
    ControlClient({str(daemon.socket)!r}).post({path!r})
except ControlFailure as failure:
    print(type(failure).__name__)
else:
    print("answered")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()
