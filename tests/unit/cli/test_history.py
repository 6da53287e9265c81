"""`balancerctl history`: what it asks for, page by page, and what it prints."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from balancerd.cli import history as history_module
from balancerd.history.reader import Query, read_history
from balancerd.model.event import EventKind
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED
from tests.unit.history.files import a_file, an_event

NOW = 1_795_600_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("balancerd.cli.history.time.time", lambda: NOW)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    events = [
        an_event(1, kind=EventKind.DECISION),
        an_event(2, comm=HOSTILE, workload=HOSTILE, detail=HOSTILE),
        an_event(3, comm=None, workload=None, detail="a,b"),
    ]
    return a_file(tmp_path / "history.sqlite", events, at=NOW - 100)


def page(file: Path, **asked: Any) -> tuple[str, tuple[int, dict[str, Any]]]:
    """The path that asks for a page, and the daemon's answer to it."""
    return f"/v1/history?{urlencode(asked)}", (200, {"schema": 1, **read_history(file, Query(**asked)).document()})


def test_events_are_listed_newest_first_and_hostile_names_are_harmless(serve: Serve, run: Run, file: Path) -> None:
    done = run("history", socket=serve(dict([page(file, limit=50)])))
    assert done.exit_code == 0
    titles, newest, hostile, decision = done.stdout.splitlines()
    assert titles.split() == [
        *("TIME", "DECISION", "EVENT", "PID", "COMMAND", "WORKLOAD", "BY", "FROM", "TO", "BYTES", "REASON", "DETAIL")
    ]
    assert newest.split() == [
        *("2026-11-25", "09:45:02", "1", "move", "4242", "-", "-", "home", "1:1MiB", "0", "1MiB", "misplaced", "a,b")
    ]
    assert hostile.count(HOSTILE_ESCAPED) == 3
    assert decision.split()[3] == "decision"
    assert done.stderr == ""


def test_what_is_asked_for_is_passed_on(serve: Serve, run: Run, file: Path) -> None:
    path, answer = page(
        file, since=NOW - 7200.0, until=NOW - 97.5, workload="spin.service", policy="home", pid=4242, limit=7
    )
    done = run(
        *("history", "--since", "-2h", "--until", "97500ms", "--workload", "spin.service", "--policy", "home"),
        *("--pid", "4242", "--limit", "7"),
        socket=serve({path: answer}),
    )
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "the oldest event that is kept is of 2026-11-25 09:45:00\n"


def test_pages_are_put_together_and_what_is_left_off_is_told(
    serve: Serve, run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_OF_A_PAGE", 1)
    socket = serve(dict([page(file, limit=1), page(file, limit=1, before=3)]))
    done = run("history", "--limit", "2", "--json", socket=socket)
    document = json.loads(done.stdout)
    assert [event["id"] for event in document["events"]] == [3, 2]
    assert (document["schema"], document["left_off"], document["next_before"]) == (1, 1, 2)
    assert [daemon["id"] for daemon in document["daemons"]] == [1]
    assert document["events"][1]["comm"] == HOSTILE
    assert run("history", "--limit", "2", socket=socket).stderr == "1 older event not shown (--limit)\n"


def test_csv_has_one_line_for_each_event_whatever_the_names_are(serve: Serve, run: Run, file: Path) -> None:
    done = run("history", "--csv", socket=serve(dict([page(file, limit=50)])))
    assert len(done.stdout.splitlines()) == 4
    newest, hostile, _ = csv.DictReader(io.StringIO(done.stdout))
    assert newest == {
        "id": "3",
        "time": "2026-11-25T09:45:02.000Z",
        "decision": "1",
        "kind": "move",
        "policy": "home",
        "action": "migrate",
        "pid": "4242",
        "start_ticks": "1000",
        "comm": "",
        "workload": "",
        "from": "1:1048576",
        "to": "0",
        "bytes": "1048576",
        "reason": "misplaced",
        "detail": "a,b",
        "move": "3",
        "counts": "moved:256",
        "tick": "7",
        "daemon": "1",
    }
    assert hostile["comm"] == HOSTILE_ESCAPED


@pytest.mark.parametrize("comm", ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)"])
def test_a_name_is_no_formula_to_a_spreadsheet(run: Run, tmp_path: Path, comm: str) -> None:
    file = a_file(tmp_path / "history.sqlite", [an_event(1, comm=comm, workload="a=b")], at=NOW)
    (told,) = csv.DictReader(io.StringIO(run("history", "--file", str(file), "--csv").stdout))
    assert (told["comm"], told["pid"], told["workload"]) == (f"'{comm}", "4242", "a=b")


def test_without_the_daemon_its_file_is_read_and_that_is_said(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "DEFAULT_FILE", str(file))
    done = run("history", "--workload", "spin.service", "--json")
    assert done.exit_code == 0
    assert [event["id"] for event in json.loads(done.stdout)["events"]] == [1]
    assert done.stderr == f"balancerd is not running: this is from {file}\n"


def test_without_the_daemon_and_its_file_it_is_the_daemon_that_is_missed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "DEFAULT_FILE", str(tmp_path / "none"))
    done = run("history")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "is not running" in done.stderr


def test_a_file_is_read_when_it_is_named(run: Run, file: Path) -> None:
    assert len(run("history", "--file", str(file)).stdout.splitlines()) == 4
    assert run("history", "--file", str(file), "--pid", "1").stderr == "no events that fit\n"


def test_a_file_that_cannot_be_read_is_a_failure_that_says_why(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nonsense" * 100)
    done = run("history", "--file", str(tmp_path / "x"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "cannot be read: it is damaged" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--since", "yesterday"),
        ("--since", "2"),
        ("--pid", "0"),
        ("--pid", "99999999999999999999"),
        ("--limit", "0"),
        ("--csv", "--json"),
    ],
)
def test_wrong_usage_is_told(run: Run, words: tuple[str, ...]) -> None:
    assert run("history", *words).exit_code == 2


def test_a_refusal_of_the_daemon_is_told(serve: Serve, run: Run) -> None:
    answer = (404, {"schema": 1, "error": "no history is kept: see history in the configuration"})
    done = run("history", socket=serve({"/v1/history?limit=50": answer}))
    assert done.exit_code == 1
    assert done.stderr == "balancerctl: no history is kept: see history in the configuration\n"
