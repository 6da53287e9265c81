"""The real daemon and its history: begun, read beside it, told in metrics, and no reason not to start."""

import signal
import sqlite3
from pathlib import Path

import pytest

from tests.unit.history.files import a_file, an_event
from tests.unit.test_daemon import running


def test_a_history_goes_on_where_the_last_daemon_ended(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    file = a_file(state / "history.sqlite", [an_event(1), an_event(2)])
    with running(tmp_path, "--set", f"state_directory={state}") as daemon:
        page = daemon.client.get("/v1/history?limit=1")
        assert ([event["id"] for event in page["events"]], page["left_off"]) == ([2], 1)
        assert '"event": "history"' not in daemon.log.read_text()
        assert daemon.stop() == 0
    assert [each.name for each in state.iterdir()] == ["history.sqlite"]
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM daemons").fetchone() == (2,)
    connection.close()


def test_a_damaged_history_is_put_aside_and_the_daemon_ticks(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").write_bytes(b"no database at all" * 1000)
    with running(tmp_path, "--set", f"state_directory={tmp_path}") as daemon:
        told = daemon.wait_for("history")
        assert "is damaged" in str(told["told"])
        daemon.wait_for("tick", number=3)
        assert daemon.client.get("/v1/history")["events"] == []
        assert daemon.stop() == 0
    assert len(list(tmp_path.glob("history.sqlite.bad-*"))) == 1


@pytest.mark.parametrize(
    "arguments", [("--set", "history.enabled=false"), ("--set", "state_directory=/nowhere/at/all")]
)
def test_without_a_history_the_daemon_says_nothing_of_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    directory = () if "state_directory" in arguments[1] else ("--set", f"state_directory={tmp_path}")
    with running(tmp_path, *directory, *arguments) as daemon:
        daemon.wait_for("tick", number=2)
        assert '"event": "history"' not in daemon.log.read_text()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20.0) == 0
    assert not list(tmp_path.glob("history*"))
