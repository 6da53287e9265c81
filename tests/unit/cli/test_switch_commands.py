"""pause, resume, mode, reload and undo --since against a real control socket."""

import json
from pathlib import Path

import pytest

from balancerd.cli import switches
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import answers
from tests.unit.control.daemon import Room, running


def test_a_pause_is_begun_and_ended(room: Room, run: Run) -> None:
    socket = str(room.socket)
    done = run("pause", socket=socket)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "paused until balancerctl resume\n")
    assert room.switches.is_halted()
    assert json.loads(run("resume", "--json", socket=socket).stdout) == {"schema": 1, "was_paused": True}
    assert not room.switches.is_halted()
    assert run("resume", socket=socket).stderr == "was not paused\n"
    assert run("pause", "--for", "30m", socket=socket).stderr == "paused for 30m\n"
    halt = room.switches.halt()
    assert halt is not None
    assert halt.ends_at == halt.begun_at + 1800.0


@pytest.mark.parametrize("text", ["30", "x", "", "0s"])
def test_a_pause_of_no_length_is_refused(room: Room, run: Run, text: str) -> None:
    done = run("pause", "--for", text, socket=str(room.socket))
    assert done.exit_code == (1 if text == "0s" else 2)
    assert not room.switches.is_halted()


def test_the_mode_is_shown_and_changed(room: Room, run: Run, serve: Serve) -> None:
    assert run("mode", socket=str(room.socket)).stdout == "unknown before the first tick\n"
    assert run("mode", socket=serve(answers())).stdout == "enforce\n"
    assert json.loads(run("mode", "--json", socket=serve(answers())).stdout) == {"schema": 1, "mode": "enforce"}
    done = run("mode", "observe", socket=str(room.socket))
    assert (done.exit_code, room.switches.take_mode()) == (0, "observe")
    assert run("mode", "balance", socket=str(room.socket)).exit_code == 2


def test_status_tells_of_a_pause_at_once(tmp_path: Path, run: Run) -> None:
    room = Room(socket=tmp_path / "still.sock")  # whose clock stands still
    with running(room.server()):
        room.switches.pause(None)
        lines = run("status", socket=str(room.socket)).stdout.splitlines()
        assert lines[0].endswith(", paused")
        assert lines[1] == "paused by an operator: nothing moves until balancerctl resume"
        room.switches.pause(90.0)
        told = run("status", socket=str(room.socket)).stdout.splitlines()[1]
        assert told == "paused by an operator: nothing moves until balancerctl resume, or for 1m30s more"


@pytest.mark.parametrize("error", ["", "a.yaml:3:1: error: no\na.yaml:4:1: error: no, neither"])
def test_a_reload_is_waited_for_and_its_findings_are_told(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    room = Room(socket=tmp_path / "reloading.sock")
    room.state.reloaded(path="/a.yaml", succeeded=True, at=1.0)

    def reload() -> None:
        room.reloads += 1
        room.state.reloaded(path="/a.yaml", succeeded=not error, at=1.0 + room.reloads, error=error)

    monkeypatch.setattr(room, "_reload", reload)
    with running(room.server()):
        done = run("reload", socket=str(room.socket))
        told = json.loads(run("reload", "--json", socket=str(room.socket)).stdout)
    assert (done.exit_code, done.stdout.splitlines()) == (5 if error else 0, error.splitlines())
    last = "refused: the old configuration stays in effect" if error else "reloaded /a.yaml"
    assert done.stderr == f"{last}\n"
    assert told == {"schema": 1, "reloaded": not error, "path": "/a.yaml", "findings": error.splitlines()}


def test_a_reload_that_never_comes_is_a_failure(room: Room, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "RELOAD_SECONDS", 0.1)
    room.state.reloaded(path=None, succeeded=True, at=1.0)
    done = run("reload", socket=str(room.socket))
    assert (done.exit_code, room.reloads) == (1, 1)
    assert "has not read its configuration within" in done.stderr
    assert run("reload", "--no-wait", socket=str(room.socket)).exit_code == 0


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["mode"], ["reload"], ["undo", "--since", "1m"]])
def test_without_a_daemon_they_exit_with_3(run: Run, command: list[str]) -> None:
    assert run(*command).exit_code == 3


def test_undo_since_takes_back_the_latest_moves_and_no_undo(room: Room, run: Run) -> None:
    socket = str(room.socket)
    first, second = room.world.add(100, *[0] * 600), room.world.add(101, *[0] * 600)
    assert run("move", "100", "--to", "1", socket=socket).exit_code == 0
    assert run("move", "101", "--to", "2", socket=socket).exit_code == 0
    assert run("undo", "2", socket=socket).exit_code == 0
    assert (first.nodes(), second.nodes()) == ({1: 600}, {0: 600})
    done = run("undo", "--since", "-1h", "--json", socket=socket)
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert [job["undone_move"] for job in told["jobs"]] == [1]
    assert (told["left_out"], first.nodes(), second.nodes()) == ([], {0: 600}, {0: 600})
    done = run("undo", "--since", "1h", socket=socket)
    assert (done.exit_code, done.stderr) == (0, "0B moved back, of 0 moves; 0 left out\n")


def test_undo_since_goes_on_where_a_process_is_gone(room: Room, run: Run) -> None:
    socket = str(room.socket)
    kept = room.world.add(100, *[0] * 600)
    room.world.add(101, *[0] * 600)
    assert run("move", "100", "--to", "1", socket=socket).exit_code == 0
    assert run("move", "101", "--to", "1", socket=socket).exit_code == 0
    room.world.remove(101)
    done = run("undo", "--since", "1h", socket=socket)
    assert (done.exit_code, kept.nodes()) == (0, {0: 600})
    assert "move 2 of process 101 is left out: there is no process 101" in done.stderr
    assert "2.3MiB moved back, of 1 move; 1 left out" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["1", "--since", "1m"], ["--since", "1m", "--no-wait"], ["--since", "5"]])
def test_undo_needs_one_of_two(run: Run, arguments: list[str]) -> None:
    assert run("undo", *arguments).exit_code == 2
