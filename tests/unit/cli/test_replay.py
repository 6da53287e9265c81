"""`balancerctl replay` over the golden traces."""

import gzip
import json
from pathlib import Path

import pytest

from tests.traces.golden import path_of, text_of
from tests.unit.cli.conftest import Run

TRACE = str(path_of("follow-cpu"))


@pytest.fixture
def recorded(run: Run, tmp_path: Path) -> Path:
    """The recorded configuration as a file."""
    path = tmp_path / "old.yaml"
    path.write_text(run("replay", TRACE, "--show-config").stdout)
    return path


def test_it_tells_what_was_decided_and_the_digest(run: Run) -> None:
    done = run("replay", TRACE)
    assert done.exit_code == 0
    assert "60 ticks of balancerd 1.2.3, Linux 6.12" in done.stdout
    assert "decided as the daemon did in 60 of 60 ticks" in done.stdout
    assert text_of("follow-cpu").read_text().splitlines()[-1] in done.stdout


def test_the_decisions_are_the_golden_text(run: Run) -> None:
    done = run("replay", TRACE, "--decisions")
    assert done.stdout.startswith("\n".join(text_of("follow-cpu").read_text().splitlines()[:-1]))


def test_the_recorded_configuration_can_be_given_back(run: Run, recorded: Path) -> None:
    one = json.loads(run("replay", TRACE, "--json").stdout)
    other = json.loads(run("replay", TRACE, "--json", "--config", str(recorded)).stdout)
    assert one["replays"][0]["digest"] == other["replays"][0]["digest"]
    assert other["replays"][0]["without_effect"] == []
    assert json.loads(run("replay", TRACE, "--show-config", "--json").stdout)["config"]["mode"] == "enforce"


def test_two_configurations_are_compared_process_by_process(run: Run, recorded: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(recorded.read_text().replace("mode: enforce", "mode: observe", 1))
    done = run("replay", TRACE, "--config", str(recorded), "--config", str(new))
    assert done.exit_code == 0
    assert f"under {recorded}:" in done.stdout
    assert f"under {new}:" in done.stdout
    assert "TICKS" in done.stdout
    told = json.loads(run("replay", TRACE, "--config", str(recorded), "--config", str(new), "--json").stdout)
    comparison = told["comparison"]
    assert [each["config"] for each in told["replays"]] == [str(recorded), str(new)]
    assert 0 < comparison["different_ticks"] <= comparison["ticks"] == 60
    first = comparison["differences"][0]
    assert first["verdicts"][0]["what"].startswith("misplaced: moves to node")
    assert first["verdicts"][1]["what"].startswith("observe-mode: moves to node")
    assert f"{first['first_tick']}" in done.stdout


def test_the_same_configuration_twice_differs_in_nothing(run: Run, recorded: Path) -> None:
    done = run("replay", TRACE, "--config", str(recorded), "--config", str(recorded))
    assert "they differ in 0 of 60 ticks, on 0 processes" in done.stdout


def test_what_has_no_effect_is_said(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("select: {min_age: 30s, exclude: [{comm: postgres}]}\nmigrate: {stall_target: 1ms}\n")
    done = run("replay", TRACE, "--config", str(mine))
    assert done.exit_code == 0
    assert "without effect: select.exclude[0]: comm is a name" in done.stdout
    assert "without effect: migrate.stall_target" in done.stdout
    assert "not in the trace" in done.stdout


def test_json_can_hold_the_decisions(run: Run) -> None:
    told = json.loads(run("replay", TRACE, "--json", "--decisions").stdout)
    (replayed,) = told["replays"]
    assert [each["tick"] for each in replayed["decisions"]] == list(range(1, 61))
    assert told["comparison"] is None
    assert told["trace"] == {
        "file": TRACE,
        "balancerd": "1.2.3",
        "kernel": "6.12",
        "ticks": 60,
        "ended": "as asked",
        "broken": None,
    }


def test_a_trace_that_broke_off_is_used_as_far_as_it_goes_and_told(run: Run, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(path_of("follow-cpu").read_bytes()[:4000])
    done = run("replay", str(cut))
    assert done.exit_code == 0
    assert "the trace is not whole: it breaks off" in done.stdout
    cut.write_bytes(gzip.compress(b"".join(gzip.decompress(path_of("access").read_bytes()).splitlines(True)[:6])))
    assert "the trace has no end" in run("replay", str(cut)).stdout


def test_what_is_no_trace_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    done = run("replay", str(tmp_path / "x"))
    assert done.exit_code == 1
    assert "is no trace of balancerd" in done.stderr
    assert run("replay", str(tmp_path / "none")).exit_code == 2


def test_a_configuration_with_an_error_is_status_5(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("mode: sometimes\n")
    done = run("replay", TRACE, "--config", str(tmp_path / "bad.yaml"))
    assert done.exit_code == 5
    assert "bad.yaml:1:7" in done.stderr


def test_three_configurations_are_too_many(run: Run, recorded: Path) -> None:
    assert run("replay", TRACE, *["--config", str(recorded)] * 3).exit_code == 2
