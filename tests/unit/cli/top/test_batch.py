"""`balancerctl top --batch` and `--json`: golden text, ends, failures; and what starting them imports."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.cli.exits import CommandError, NotRunningError
from balancerd.cli.options import Settings
from balancerd.cli.top import batch, command
from balancerd.cli.top.frame import Asked
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED, a_crowd, before_the_first_tick
from tests.unit.cli.test_start import loaded_by
from tests.unit.cli.top.frames import a_machine, answers_to_top

FRAME = """\
balancerd 0.1.0, enforce, tick 7, 500ms ago
moved 3.9MiB; processes: 1 moving, 1 held, 1 unsampled, 1 well-placed, 90 small, 1 unselected

NODE  CPUS  LOAD  TOTAL  USED  FREE  AVAILABLE  USED BY
   0  0-1      -   4GiB  2GiB  2GiB       3GiB  web.service 25%
   1  2-3      -   4GiB  2GiB  2GiB       3GiB  web.service 50%

WORKLOAD        PROCS     RSS   CPU  MEMORY       RUNS ON      LOCAL  MOVES                              MOVED/S  KIND
web.service         2    3GiB  2.00  1:67% 0:33%  0:75% 1:25%    25%  1 moving, 1 cooldown, 12MiB to go     2MiB  unit
batch/job/main      1  512MiB  1.50  1            0              75%                                              pod
other               2    1GiB  0.00  -            -                -                                              other

 PID  COMMAND     RSS   CPU  MEMORY       RUNS ON      LOCAL  STATE        NEXT MOVE      MOVED/S  REASON         WORKLOAD
4242  spin     256MiB  1.00  1            0               0%  moving       252.1MiB to 0     2MiB  misplaced      web.service
  51  bound    256MiB  1.00  1:75% 0:25%  0:75% 1:25%    50%  held         256MiB to 0             mempolicy      web.service
   5  home       1GiB  1.00  1            1              99%  well-placed                          well-placed    batch/job/main
  52  new      256MiB  1.00  -            -                -  unsampled                            not-sampled    other
  77  idle     256MiB  0.00  -            -                -  unselected                           below-min-cpu  other
"""  # noqa: E501 -- as it is printed


def test_a_frame_is_plain_text_that_tells_everything(serve: Serve, run: Run) -> None:
    done = run("top", "--batch", "-n", "1", socket=serve(answers_to_top()))
    assert (done.exit_code, done.stdout, done.stderr) == (0, FRAME, "")


def test_frames_come_one_after_the_other_with_a_pause_between(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(socket_path=serve(answers_to_top()))
    naps: list[float] = []
    batch.run(settings, Asked(sort="remote"), frames=3, interval_seconds=7.0, sleep=naps.append)
    assert capsys.readouterr().out == f"{FRAME}\n{FRAME}\n{FRAME}"
    assert naps == [7.0, 7.0]


def test_without_a_number_it_goes_on_until_the_daemon_is_gone(serve: Serve, tmp_path: Path) -> None:
    settings = Settings(socket_path=serve(answers_to_top()))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 4:
            raise EOFError

    with pytest.raises(EOFError):
        batch.run(settings, Asked(sort="remote"), frames=None, interval_seconds=1.0, sleep=nap)
    gone = Settings(socket_path=str(tmp_path / "nobody"))
    with pytest.raises(NotRunningError):
        batch.run(gone, Asked(sort="remote"), frames=None, interval_seconds=1.0, sleep=nap)


def test_sort_and_text_are_asked_of_the_daemon(serve: Serve, run: Run) -> None:
    socket = serve(answers_to_top(query="sort=cpu&match=h%C3%B6+%26"))
    done = run("top", "--batch", "-n", "1", "--sort", "cpu", "--match", "hö &", socket=socket)
    assert done.exit_code == 0
    assert "COMMAND" not in done.stdout  # nobody is called so


def test_what_is_left_out_is_said(serve: Serve, run: Run) -> None:
    told = answers_to_top()
    told["/v1/top?sort=remote"][1]["left_out"] = {"workloads": 3, "processes": 250}
    lines = run("top", "--batch", "-n", "1", socket=serve(told)).stdout.splitlines()
    assert [line for line in lines if line.startswith("and ")] == ["and 3 more workloads", "and 250 more processes"]


def test_what_is_wrong_stands_above_everything(serve: Serve, run: Run) -> None:
    told = answers_to_top()
    told["/v1/status"][1]["paused"], told["/v1/status"][1]["paused_detail"] = True, "node 1 is full"
    lines = run("top", "--batch", "-n", "1", socket=serve(told)).stdout.splitlines()
    assert lines[2] == "! paused: node 1 is full"


def test_before_the_first_tick_there_is_a_line_and_no_table(serve: Serve, run: Run) -> None:
    told = {**answers_to_top(), **before_the_first_tick()}
    done = run("top", "--batch", "-n", "1", socket=serve(told))
    assert (done.exit_code, done.stdout) == (0, "balancerd 0.1.0, starting, no tick yet\nmoved 0B\n")


def test_names_cannot_reach_the_terminal_as_they_are(serve: Serve, run: Run) -> None:
    told = answers_to_top(replace(a_crowd(HOSTILE), workloads=a_machine(HOSTILE).workloads))
    done = run("top", "--batch", "-n", "1", socket=serve(told))
    assert done.stdout.count(HOSTILE_ESCAPED) >= 4  # a command, its workload, the workload itself, who holds a node
    assert "\x1b" not in done.stdout


def test_in_json_it_is_the_daemons_answer(serve: Serve, run: Run) -> None:
    told = answers_to_top()
    done = run("top", "--json", socket=serve(told))
    assert (done.exit_code, json.loads(done.stdout)) == (0, told["/v1/top?sort=remote"][1])


@pytest.mark.parametrize(
    "wrong", [["-n", "3"], ["--batch", "--json"], ["--sort", "pid"], ["--batch", "-n", "0"], ["--interval", "0"]]
)
def test_what_makes_no_sense_is_wrong_usage(run: Run, wrong: list[str]) -> None:
    assert run("top", *wrong).exit_code == 2


def test_without_a_terminal_the_live_view_says_what_to_do(run: Run) -> None:
    done = run("top")
    assert (done.exit_code, done.stderr) == (1, "balancerctl: the live view needs a terminal: use --batch\n")


def test_without_textual_the_live_view_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(CommandError, match=r"pip install 'balancerd\[top\]', or use --batch"):
        command._run_live(Settings(socket_path="/none"), Asked(sort="remote"), 1.0)


def test_a_daemon_that_is_not_there_ends_it(run: Run) -> None:
    for arguments in (["--batch"], ["--json"]):
        assert run("top", *arguments).exit_code == 3


def test_a_daemon_of_another_version_ends_it(serve: Serve, run: Run) -> None:
    told = answers_to_top()
    told["/v1/top?sort=remote"][1]["schema"] = 2
    done = run("top", "--batch", socket=serve(told))
    assert (done.exit_code, "another version" in done.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [["--batch", "-n", "1"], ["--json"]])
def test_neither_text_nor_json_imports_textual_or_anything_heavy(serve: Serve, arguments: list[str]) -> None:
    assert loaded_by("--socket", serve(answers_to_top()), "top", *arguments) == (0, set())
