"""status, ps and explain against a server that answers as the daemon does: text, JSON, exit codes."""

import json
import os
from pathlib import Path

import pytest

from balancerd.cli import words
from balancerd.cli.ps import SORT_KEYS
from balancerd.config.loader import load_text
from balancerd.config.places import find_places
from balancerd.model.copying import Copying
from balancerd.model.decision import Reason, Skip
from balancerd.model.judged import MoveResult
from balancerd.model.page_status import STATUS_TEXT, PageStatus
from balancerd.model.report import Failure, PolicyFailure
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED, a_crowd, answers, before_the_first_tick
from tests.unit.reports import a_decision, a_judged_move, a_process, a_process_report, a_report

STATUS = """\
balancerd 0.1.0, pid 812, up 500ms, mode enforce
healthy: tick 7 ended 500ms ago and took 12ms, 2s after the one before
configuration: /etc/balancerd/balancerd.yaml

NODE  CPUS  TOTAL  FREE  AVAILABLE  TO 0  TO 1
   0  0-1    4GiB  2GiB       3GiB    10    21
   1  2-3    4GiB  2GiB       3GiB    21    10

PROCESSES  REASON         MEANING
        1  below-min-cpu  it uses less CPU than select.min_cpu, so remote memory costs it little
        1  mempolicy      its memory has an explicit mempolicy, which is respected
        1  misplaced      its memory is away from the node where its threads run
        1  not-sampled    which node holds its pages is not known yet
        1  well-placed    its memory is where its threads run
not listed: 90 smaller processes, 120 kernel threads

MANAGER    PROCESSES  BALANCERD  SEEN
mempolicy          1  yields     somebody chose a mempolicy for its memory

moved 3.9MiB in 1 tick; 1024 pages submitted
PAGES  STATUS  MEANING
 1000  moved   now on the target node
   24  eacces  mapped by several processes, left where they are
"""

STATUS_AT_START = """\
balancerd 0.1.0, pid 812, up 1s, mode unknown
starting: no tick yet
configuration: built-in defaults

moved 0B in 0 ticks; 0 pages submitted
"""

PS = """\
 PID  COMMAND     RSS  NODE 0  NODE 1  RUNS ON      LOCAL  STATE        REASON
4242  spin     256MiB      0B  256MiB  0               0%  moving       misplaced
  51  bound    256MiB   64MiB  192MiB  0:75% 1:25%    50%  held         mempolicy
   5  home       1GiB      0B    1GiB  1              99%  well-placed  well-placed
  52  new      256MiB       -       -  -                -  unsampled    not-sampled
"""

EXPLAIN_MOVING = """\
Process 4242 (spin)
  user        uid 1000
  cgroup      /system.slice/spin.service
  workload    spin.service (other)
  age         1m
  memory      256MiB resident
  CPU         1.00 cores, 1 thread
  may run on  CPUs 0-1
  may hold    memory on nodes 0-1

Where its memory is (estimated by a sample of 2048 pages, 500ms ago)
  node 1      256MiB, 100%
  the mappings with most memory away from where it runs:
    MAPPING                    KIND  NODE:BYTES  MEMPOLICY  NAME
    7f0000000000-7f0010000000  anon  1:256MiB    not read

Where it runs
  node 0      100% of its run time
  0% of its memory lies where it runs

What was decided in tick 7
  1. select: let it through for a closer look
  2. home: move 256MiB to node 0: misplaced, its memory is away from the node where its threads run \
(home is node 0); costs 0.50 s of CPU time, wins 0.130 cores
  so: moving, misplaced (home is node 0)

What was done
  tick 7, 500ms ago, by home: 1000 of 1024 pages moved to node 0 in 6ms (2 calls, the longest 3ms)
    1000 pages came from node 1
    24 pages eacces: mapped by several processes, left where they are

What happens next
  The move goes on at the next tick until what is misplaced has moved.
"""


def test_status_shows_the_daemon_at_a_glance(serve: Serve, run: Run) -> None:
    done = run("status", socket=serve(answers()))
    assert (done.exit_code, done.stdout, done.stderr) == (0, STATUS, "")


def test_status_in_json_is_the_daemons_answer_and_whether_it_is_healthy(serve: Serve, run: Run) -> None:
    told = answers()
    done = run("status", "--json", socket=serve(told))
    assert json.loads(done.stdout) == {**told["/v1/status"][1], "healthy": True}


@pytest.mark.parametrize(("age_seconds", "word"), [(9.9, "healthy"), (10.1, "stalled")])
def test_a_daemon_whose_last_tick_is_old_is_called_stalled(
    serve: Serve, run: Run, age_seconds: float, word: str
) -> None:
    socket = serve(answers(age_seconds=age_seconds))
    assert run("status", socket=socket).stdout.splitlines()[1].startswith(f"{word}: tick 7 ended")
    assert json.loads(run("status", "--json", socket=socket).stdout)["healthy"] is (word == "healthy")


def test_before_the_first_tick_nothing_is_claimed(serve: Serve, run: Run) -> None:
    socket = serve(before_the_first_tick())
    done = run("status", socket=socket)
    assert (done.exit_code, done.stdout) == (0, STATUS_AT_START)
    assert json.loads(run("status", "--json", socket=socket).stdout)["healthy"] is None
    assert run("ps", socket=socket).stdout == "PID  COMMAND  RSS  RUNS ON  LOCAL  STATE  REASON\n"


def test_status_tells_of_disabled_policies_and_refused_reloads(serve: Serve, run: Run) -> None:
    failure = PolicyFailure(cause=Failure.RAISED, detail="ValueError: \x1b[2J")
    told = answers(a_report(disabled={"home": failure}))
    told["/v1/status"][1]["config"]["last_reload"] = {"succeeded": False, "at_unix_seconds": 1.0, "error": "x:1:1\nbad"}
    lines = run("status", socket=serve(told)).stdout.splitlines()
    assert r"policy disabled until the next reload: home: raised, ValueError: \x1b[2J" in lines
    assert r"reload failed, the old one is in effect: x:1:1\nbad" in lines


def test_ps_lists_candidates_with_most_remote_memory_first(serve: Serve, run: Run) -> None:
    done = run("ps", socket=serve(answers()))
    assert (done.exit_code, done.stdout) == (0, PS)
    assert done.stderr == "1 skipped process not shown (--all)\n"


@pytest.mark.parametrize(
    ("options", "pids"),
    [
        ([], [4242, 51, 5, 52]),
        (["--all"], [4242, 51, 5, 52, 77]),
        (["--sort", "rss"], [5, 51, 52, 4242]),
        (["--sort", "local"], [4242, 51, 5, 52]),
        (["--sort", "cpu", "--all"], [5, 51, 52, 4242, 77]),
        (["--sort", "age"], [5, 51, 52, 4242]),
        (["--sort", "command", "--all"], [51, 5, 77, 52, 4242]),
        (["--sort", "pid", "--limit", "2"], [5, 51]),
        (["--sort", "workload"], [5, 51, 52, 4242]),
    ],
)
def test_ps_sorts_and_limits_text_and_json_alike(serve: Serve, run: Run, options: list[str], pids: list[int]) -> None:
    socket = serve(answers())
    assert [int(line.split()[0]) for line in run("ps", *options, socket=socket).stdout.splitlines()[1:]] == pids
    document = json.loads(run("ps", "--json", *options, socket=socket).stdout)
    assert [each["pid"] for each in document["processes"]] == pids
    assert document["hidden"] == (0 if "--all" in options else 1)


@pytest.mark.parametrize("sort", ["remote", "rss", "cpu", "local", "age"])
def test_what_is_not_known_comes_after_what_is_zero(sort: str) -> None:
    unknown = dict.fromkeys(("remote_bytes", "rss_bytes", "cpu_cores", "local_ratio", "age_seconds"))
    zero = dict.fromkeys(unknown, 0)
    assert SORT_KEYS[sort](zero) < SORT_KEYS[sort](unknown)


def test_ps_in_json_adds_state_and_remote_bytes_to_the_daemons_answer(serve: Serve, run: Run) -> None:
    told = answers()
    document = json.loads(run("ps", "--json", "--all", socket=serve(told)).stdout)
    added = {each["pid"]: (each.pop("state"), each.pop("remote_bytes")) for each in document["processes"]}
    assert added == {
        4242: ("moving", 256 << 20),
        51: ("held", 128 << 20),
        5: ("well-placed", 1073742),
        52: ("unsampled", None),
        77: ("unselected", None),
    }
    assert (document["schema"], document["tick"]) == (1, 7)
    by_pid = {each["pid"]: each for each in told["/v1/processes"][1]["processes"]}
    assert {each["pid"]: each for each in document["processes"]} == by_pid


def test_explain_tells_the_whole_story_of_a_moving_process(serve: Serve, run: Run) -> None:
    done = run("explain", "4242", socket=serve(answers()))
    assert (done.exit_code, done.stdout, done.stderr) == (0, EXPLAIN_MOVING, "")


def test_explain_numbers_what_each_stage_said_in_order(serve: Serve, run: Run) -> None:
    lines = run("explain", "51", socket=serve(answers())).stdout.splitlines()
    start = lines.index("What was decided in tick 7")
    assert [line.split(":")[0] for line in lines[start + 1 : start + 5]] == [
        "  1. select",
        "  2. home",
        "  3. plan",
        "  so",
    ]
    assert lines[start + 3].endswith("which is respected (bind:1 on 1 of 1 mappings)")
    assert "What was done: nothing" in lines
    assert lines[-1] == "  Nothing: whoever set the mempolicy decides where this memory lies."
    assert any("bind:1" in line and line.endswith("/dev/shm/x y") for line in lines)


def test_explain_lists_no_mapping_of_a_process_whose_memory_is_all_at_home(serve: Serve, run: Run) -> None:
    told = run("explain", "5", socket=serve(answers())).stdout
    assert "node 1      1GiB, 100%" in told
    assert "MAPPING" not in told


def test_explain_of_a_skipped_process_says_which_threshold_and_by_how_much(serve: Serve, run: Run) -> None:
    told = run("explain", "77", socket=serve(answers())).stdout
    assert "1. select: leave it alone: below-min-cpu, it uses less CPU" in told
    assert "(0.001 of 0.050 cores)" in told
    assert "Where its memory is: not known" in told


def test_explain_in_json_adds_state_and_what_happens_next(serve: Serve, run: Run) -> None:
    told = answers()
    document = json.loads(run("explain", "4242", "--json", socket=serve(told)).stdout)
    process = document["process"]
    assert process.pop("state") == "moving"
    assert process.pop("next_text") == words.NEXT[Reason.MISPLACED]
    assert document == told["/v1/processes/4242"][1]
    assert sum(process["outcome"]["pages"].values()) == process["outcome"]["submitted_pages"]


@pytest.mark.parametrize("command", [["ps"], ["plan"], ["explain", "4242"]])
def test_a_hostile_process_name_cannot_touch_the_terminal(serve: Serve, run: Run, command: list[str]) -> None:
    done = run(*command, socket=serve(answers(a_crowd(HOSTILE))))
    assert HOSTILE_ESCAPED in done.stdout
    assert all(line.isprintable() for line in done.stdout.split("\n"))


def test_json_carries_a_hostile_name_exactly_and_in_ascii(serve: Serve, run: Run) -> None:
    done = run("ps", "--json", socket=serve(answers(a_crowd(HOSTILE))))
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["processes"][0]["comm"] == HOSTILE


@pytest.mark.parametrize("command", [["status"], ["ps"], ["plan"], ["explain", "1"], ["status", "--json"]])
def test_without_a_daemon_the_exit_code_is_3_and_the_advice_on_stderr(run: Run, command: list[str]) -> None:
    done = run(*command)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "not running" in done.stderr
    assert "systemctl start balancerd" in done.stderr


@pytest.mark.parametrize(
    ("answer", "exit_code", "message"),
    [
        ((403, {"schema": 1, "error": "only root may ask"}), 4, "only root may ask"),
        ((404, {"schema": 1, "error": "there is no process 9\x1b"}), 1, r"there is no process 9\x1b"),
        ((500, b"oops"), 1, "no JSON object"),
        ((200, {"schema": 2}), 1, "another version"),
        ((200, {}), 1, "another version"),
    ],
)
def test_other_answers_have_their_exit_codes(
    serve: Serve, run: Run, answer: tuple[int, object], exit_code: int, message: str
) -> None:
    done = run("explain", "9", socket=serve({"/v1/processes/9": answer}))
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert done.stderr.startswith("balancerctl: ")
    assert message in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_a_socket_that_may_not_be_opened_gives_exit_code_4(serve: Serve, run: Run) -> None:
    socket = serve(answers())
    Path(socket).chmod(0o600)
    os.seteuid(65534)
    try:
        done = run("status", socket=socket)
    finally:
        os.seteuid(0)
    assert (done.exit_code, done.stdout) == (4, "")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["explain"], ["explain", "x"], ["explain", "0"], ["ps", "--sort", "x"], ["ps", "--limit", "0"], ["no"]),
        *(["ps", "--workloads", "--sort", "pid"], ["ps", "--sort", "processes"]),
    ],
)
def test_wrong_usage_gives_exit_code_2(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")


def test_the_socket_is_taken_from_the_option_nearest_to_the_command_or_the_environment(serve: Serve, run: Run) -> None:
    import click.testing

    from balancerd.cli.control import group

    socket = serve(answers())
    assert run("status", "--socket", socket).exit_code == 0
    runner = click.testing.CliRunner()
    assert runner.invoke(group, ["status"], env={"BALANCERD_SOCKET": socket}).exit_code == 0
    assert runner.invoke(group, ["--socket", "/none", "status"], env={"BALANCERD_SOCKET": socket}).exit_code == 3


@pytest.mark.parametrize(
    "command",
    [
        *([], ["status"], ["ps"], ["explain"], ["heat"], ["doctor"], ["config", "check"]),
        *(["move"], ["evict"], ["undo"], ["moves"], ["plan"], ["top"]),
    ],
)
def test_every_help_has_examples(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.exit_code == 0
    assert "  Examples:\n    balancerctl" in done.stdout


def test_every_reason_and_every_page_status_has_words() -> None:
    assert set(words.NEXT) == set(Reason)
    assert set(STATUS_TEXT) == set(PageStatus)


def test_words_from_a_newer_daemon_are_passed_on_and_not_guessed() -> None:
    assert words.state("brand-new") == "unknown"
    assert "Not known" in words.next_step("brand-new")
    assert words.status_text("esomething") == ""


@pytest.mark.parametrize(
    ("ratio", "shown"), [(None, "-"), (0.0, "0%"), (0.29, "29%"), (0.999, "99%"), (1.0, "100%"), (0.57, "57%")]
)
def test_shares_are_rounded_down_so_that_100_percent_means_all(ratio: float | None, shown: str) -> None:
    assert words.percent(ratio) == shown


@pytest.mark.parametrize(
    ("shares", "shown"),
    [
        (None, "-"),
        ({}, "-"),
        ({"0": 1.0}, "0"),
        ({"0": 0.003, "3": 0.997}, "3"),
        ({"0": 0.25, "2": 0.75}, "2:75% 0:25%"),
        ({"10": 0.5, "2": 0.5}, "2:50% 10:50%"),
    ],
)
def test_shares_by_node_name_the_largest_first(shares: dict[str, float] | None, shown: str) -> None:
    assert words.by_node(shares) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (0.0004, "0s"), (0.5, "500ms"), (1.26, "1.3s"), (61.7, "1m2s"), (7200.0, "2h")]
)
def test_ages_are_told_as_exactly_as_they_matter(seconds: float | None, shown: str) -> None:
    assert words.age(seconds) == shown


PLAN = """\
 PID  COMMAND  BY    FROM           TO   BYTES  SECONDS   GAIN  SURE  STATE   REASON     NEEDS
4242  spin     home  1:256MiB       0   256MiB     0.25  0.130     -  moving  misplaced
  51  bound    home  1:192MiB       0   256MiB     0.25  0.130     -  waits   mempolicy
"""


def test_plan_shows_what_would_be_moved_and_sums_it_up(serve: Serve, run: Run) -> None:
    done = run("plan", socket=serve(answers()))
    assert (done.exit_code, [line.split() for line in done.stdout.splitlines()]) == (
        0,
        [line.split() for line in PLAN.splitlines()],
    )
    assert done.stderr == "tick 7, 500ms ago: 1 moving, 1 waits; 512MiB to move, 0.50 s in the kernel's calls\n"


def test_plan_hides_what_is_refused_unless_asked_and_says_what_that_needs(serve: Serve, run: Run) -> None:
    process = a_process()
    refused = Skip(
        by="home",
        process=process.id,
        reason=Reason.HOME_TOO_YOUNG,
        wanted=a_decision(process.id),
        needs="3.1 s more on node 0",
    )
    told = answers(a_report(processes=(a_process_report(process, verdicts=(refused,)),)))
    done = run("plan", socket=serve(told))
    assert done.stdout == ""
    assert "0B to move" in done.stderr
    assert done.stderr.endswith("1 refused move not shown (--all)\n")
    assert "3.1 s more on node 0" in run("plan", "--all", socket=serve(told)).stdout
    document = json.loads(run("plan", "--json", socket=serve(told)).stdout)
    assert document == told["/v1/plan"][1]
    assert [move["state"] for move in document["moves"]] == ["refused"]


def test_plan_before_the_first_tick_says_so(serve: Serve, run: Run) -> None:
    done = run("plan", socket=serve(before_the_first_tick()))
    assert (done.stdout, done.stderr) == ("", "no tick yet\n")


def test_explain_tells_each_policys_word_the_deciding_line_and_what_is_needed(serve: Serve, run: Run) -> None:
    home = "  - name: home\n    kind: follow-cpu\n    min_home_age: 5s\n"
    text = f"policies:\n{home}  - {{name: b, kind: drain, nodes: [1]}}\n"
    process = a_process()
    refused = Skip(
        by="home",
        process=process.id,
        reason=Reason.HOME_TOO_YOUNG,
        wanted=a_decision(process.id),
        needs="3.1 s more on node 0",
    )
    report = a_report(processes=(a_process_report(process, verdicts=(refused,)),))
    told = run("explain", "4242", socket=serve(answers(report, places=find_places(load_text(text, "a.yaml"))))).stdout
    lines = told.splitlines()
    at = lines.index("What each policy said")
    assert lines[at + 1] == "  home (follow-cpu, a.yaml:2)"
    assert lines[at + 2].startswith("    leave it alone: home-too-young")
    assert lines[at + 3 : at + 7] == [
        "    otherwise 256MiB to node 0: gain 0.130 cores, cost 0.50 s",
        "    needs 3.1 s more on node 0",
        "  b (drain, a.yaml:5)",
        "    was not asked about it, or had nothing to say",
    ]
    assert lines[-2:] == [
        "  Decided by home: policies.home.min_home_age, at a.yaml:4.",
        "  Needed: 3.1 s more on node 0.",
    ]


def test_status_tells_how_fast_the_kernel_copies_once_it_was_measured(serve: Serve, run: Run) -> None:
    report = a_report(copying=Copying(copied_bytes=float(3 << 30), seconds=2.0))
    lines = run("status", socket=serve(answers(report))).stdout.splitlines()
    assert "copying: 1.5GiB in a second of the kernel's calls, measured over 3GiB" in lines


def test_status_says_that_moves_rest_and_explain_what_the_last_one_came_to(serve: Serve, run: Run) -> None:
    process = a_process()
    judged = a_judged_move(process.id, result=MoveResult.WORSE, is_trial=True)
    told = answers(a_report(processes=(a_process_report(process),), judged=(judged,), paused="node 1 is full"))
    status = run("status", socket=serve(told)).stdout.splitlines()
    assert status[0].endswith("mode enforce, paused")
    assert status[1] == "paused, nothing moves there for a while: node 1 is full"
    story = run("explain", "4242", socket=serve(told)).stdout
    assert "  the trial by home, judged 1.5s ago: worse (256 of 256 MiB moved to node 0 are there)\n" in story
