"""move, evict, undo and moves against real jobs on a machine in memory: text, JSON, exit codes, progress, Ctrl-C."""

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from balancerd.cli import account
from balancerd.cli.progress import ProgressLine
from balancerd.control import job_api
from balancerd.jobs.record import JobState, MoveRequest
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES, Mempolicy
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED
from tests.unit.control.daemon import Room
from tests.unit.fakes import GIB, N0, N1
from tests.unit.jobs.machine import START, World, a_vma


def test_a_move_ends_with_an_account_of_every_page(room: Room, run: Run) -> None:
    memory = room.world.add(100, *[0] * 600, *[1] * 7, *[None] * 3)
    memory.status_of = {START: PageStatus.SHARED, START + PAGE_BYTES: PageStatus.SHARED}
    done = run("move", "100", "--to", "1", socket=str(room.socket))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "job 1 (move 100 worker): done after 2.3s: moved 2.3MiB",
        "  598 pages moved: 598 from node 0 to 1",
        "  2 pages not moved, eacces: mapped by several processes, left where they are",
        "  7 pages there already",
        "  3 pages passed over, enoent: not in memory any more",
        "  verified: 6 of 6 pages looked at again are there",
        "  waited: 1.5s duty",
        "  6 calls, the longest 2ms",
        "  undo: balancerctl undo 1",
    ]


def test_set_to_set_and_the_way_back(room: Room, run: Run) -> None:
    memory = room.world.add(100, *[0, 1, 2] * 10)
    done = run("move", "100", "--from", "0-1", "--to", "2-3", socket=str(room.socket))
    assert "  20 pages moved: 10 from node 0 to 2, 10 from node 1 to 3" in done.stdout.splitlines()
    assert memory.vmas[a_vma(0, 30)] == [2, 3, 2] * 10
    undone = run("undo", "1", socket=str(room.socket))
    assert undone.exit_code == 0
    assert memory.vmas[a_vma(0, 30)] == [0, 1, 2] * 10
    listed = run("moves", socket=str(room.socket)).stdout.splitlines()
    assert [line.split()[:5] for line in listed[1:]] == [
        ["2", "100", "command", "command", "2:40KiB"],
        ["1", "100", "command", "command", "0:40KiB"],
    ]
    document = json.loads(run("moves", "--json", socket=str(room.socket)).stdout)
    assert [move["undoable_bytes"] for move in document["moves"]] == [20 * PAGE_BYTES] * 2


def test_json_is_the_document_of_the_ended_job(room: Room, run: Run) -> None:
    room.world.add(100, *[0] * 10)
    done = run("move", "100", "--to", "1", "--json", "--all-sharers", "--ignore-mempolicy", socket=str(room.socket))
    document = json.loads(done.stdout)
    assert (document["job"]["state"], document["job"]["pages"]) == ("done", {"moved": 10})
    assert (document["job"]["move_all"], document["job"]["ignore_mempolicy"]) == (True, True)
    assert done.stderr == ""


def test_without_waiting_the_job_goes_on_by_itself(room: Room, run: Run) -> None:
    room.world.add(100, *[0] * 10)
    done = run("move", "100", "--to", "1", "--no-wait", socket=str(room.socket))
    assert (done.exit_code, done.stdout) == (0, "job 1 is queued\n")
    _wait_until(lambda: room.world.job(1).state is JobState.DONE)
    document = json.loads(run("evict", "100", "--no-wait", "--json", socket=str(room.socket)).stdout)
    assert document["job"]["state"] in {"queued", "running", "done"}


def _wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(4000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came")


@pytest.mark.parametrize(
    ("nodes", "status", "options", "exit_code", "head"),
    [
        ([1, 1], None, {}, 0, "done after 0s: nothing to move"),
        ([0, 0], PageStatus.SHARED, {}, 1, "done after 8ms: moved 0"),
        ([0, 0], None, {"mempolicy": Mempolicy(mode="bind", nodes=frozenset({N0}))}, 1, "failed after 0s: nothing"),
        ([0, 0], None, {"mems_allowed": frozenset({N0})}, 1, "failed after 0s: moved 0B; outside-cpuset, its cpuset"),
    ],
)
def test_what_does_not_move_has_a_reason_and_an_exit_code(
    room: Room,
    run: Run,
    nodes: list[int | None],
    status: PageStatus | None,
    options: dict[str, object],
    exit_code: int,
    head: str,
) -> None:
    memory = room.world.add(100, *nodes, **options)  # type: ignore[arg-type]  # whatever the table says
    if status is not None:
        memory.status_of = {START + n * PAGE_BYTES: status for n in range(len(nodes))}
    done = run("move", "100", "--to", "1", socket=str(room.socket))
    assert done.exit_code == exit_code
    assert head.replace("nothing", "moved 0B; mempolicy, its memory") in done.stdout or head in done.stdout


def test_ctrl_c_cancels_waits_for_the_end_and_tells_every_page(room: Room, run: Run) -> None:
    room.world.add(100, *[0] * 1000)
    pages = 0

    def on_page() -> None:
        nonlocal pages
        pages += 1
        if pages == 300:
            os.kill(os.getpid(), signal.SIGINT)
            _wait_until(lambda: room.world.job(1).cancel_requested)

    room.world.kernel.on_page = on_page
    before = signal.getsignal(signal.SIGINT)
    done = run("move", "100", "--to", "1", socket=str(room.socket))
    assert signal.getsignal(signal.SIGINT) is before
    assert done.exit_code == 130
    assert done.stderr == "cancelling: it ends after the call at hand (Ctrl-C again: do not wait)\n"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("job 1 (move 100 worker): cancelled after ")
    assert "  300 pages moved: 300 from node 0 to 1" in lines
    ended = room.world.job(1)
    assert sum(ended.account.pages.values()) == ended.account.submitted_pages == 300


def test_a_second_ctrl_c_does_not_wait(room: Room, run: Run) -> None:
    room.world.add(100, *[0] * 10)
    let_go = threading.Event()

    def on_whole() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        _wait_until(lambda: room.world.job(1).cancel_requested)
        os.kill(os.getpid(), signal.SIGINT)
        let_go.wait(30)

    room.world.kernel.on_whole = on_whole
    done = run("move", "100", "--to", "1", "--whole", socket=str(room.socket))
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "not waited for: /v1/jobs/1 tells how it ends"
    let_go.set()
    _wait_until(lambda: room.world.job(1).state is JobState.DONE)


def test_whole_warns_and_shows_before_and_after(room: Room, run: Run) -> None:
    room.world.add(100, *[0] * 512)
    done = run("move", "100", "--from", "0", "--to", "1", "--whole", socket=str(room.socket))
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: the process may stand still until all of it is copied")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": moved 2MiB")
    assert lines[1:3] == ["  node 0: 2MiB before, 0B after", "  node 1: 0B before, 2MiB after"]
    assert lines[3] == "  not moved: 0 pages; the call took 1.5s"


def test_evict_tells_what_went_and_what_could_not(room: Room, run: Run) -> None:
    memory = room.world.add(100, *[0] * 600, None)
    memory.status_of = {START: PageStatus.LOCKED}
    done = run("evict", "100", socket=str(room.socket))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:4] == [
        "  599 pages evicted: out of memory now",
        "  1 page kept: advised and still there: locked, in use, shared, or without room in swap",
        "  1 page absent: not in memory before",
    ]
    memory.vmas[a_vma(0, 601)] = [0, *[None] * 600]
    assert run("evict", "100", socket=str(room.socket)).exit_code == 1
    cold = run("evict", "100", "--cold-only", socket=str(room.socket))
    assert cold.exit_code == 0
    assert "  1 page first to go when memory becomes scarce" in cold.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["move", "99", "--to", "1"], 1, "balancerctl: there is no process 99"),
        (["move", "100", "--to", "7"], 1, 'balancerctl: "to": node 7 is not online'),
        (["undo", "12"], 1, "balancerctl: there is no move 12, or it is forgotten"),
        (["move", "100"], 2, "Missing option '--to'"),
        (["move", "0", "--to", "1"], 2, "0 is not in the range"),
        (["move", "100", "--to", "1", "--whole", "--all-sharers"], 2, "--whole moves the pages of all sharers anyway"),
        (["undo"], 2, "Either the ID of a move or --since is needed"),
    ],
)
def test_what_is_refused_says_so(room: Room, run: Run, words: list[str], exit_code: int, message: str) -> None:
    room.world.add(100, 0)
    done = run(*words, socket=str(room.socket))
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert message in done.stderr


@pytest.mark.parametrize("words", [["move", "1", "--to", "0"], ["evict", "1"], ["undo", "1"], ["moves"]])
def test_without_a_daemon_or_permission_the_exit_codes_are_the_usual_ones(
    serve: Serve, run: Run, words: list[str]
) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (3, "")
    told = (403, {"schema": 1, "error": "only root"})
    done = run(*words, socket=serve({"/v1/jobs": told, "/v1/moves": told}))
    assert (done.exit_code, done.stdout) == (4, "")


def test_a_daemon_that_ends_in_the_middle_leaves_what_was_known(serve: Serve, run: Run) -> None:
    world = World()
    world.add(100, *[0] * 1000)
    job = world.jobs.submit(MoveRequest(pid=100, targets=frozenset({N1})))
    world.step()
    told = job_api.job(world.job(job.id), now=world.clock.now())
    done = run("move", "100", "--to", "1", socket=serve({"/v1/jobs": (202, told), "/v1/jobs/1": (500, b"gone")}))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "so far: 1MiB of about 3.9MiB (25%)" in done.stderr


def test_a_hostile_process_name_cannot_touch_the_terminal(room: Room, run: Run) -> None:
    room.world.add(100, 0, comm=HOSTILE)
    done = run("move", "100", "--to", "1", socket=str(room.socket))
    assert HOSTILE_ESCAPED in done.stdout
    assert all(line.isprintable() for line in done.stdout.split("\n"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def test_progress_rewrites_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    world = World()
    world.add(100, *[0] * 1000)
    job = world.jobs.submit(MoveRequest(pid=100, targets=frozenset({N1})))
    progress = ProgressLine(quiet=False)
    for _ in range(2):
        progress.show(account.progress(job_api.job(world.job(job.id), now=world.clock.now())["job"]))
        world.step()
    progress.clear()
    assert terminal.getvalue().split("\r\x1b[K") == [
        "",
        "job 1 waits for its turn",
        "1MiB of about 3.9MiB (25%), 1MiB/s, 3s left",
        "",
    ]


def test_progress_names_rate_time_left_failures_and_what_it_waits_for() -> None:
    world = World()
    memory = world.add(100, *[0] * 1000)
    memory.status_of = {START: PageStatus.BUSY}
    job = world.jobs.submit(MoveRequest(pid=100, targets=frozenset({N1})))
    told = job_api.job(world.job(job.id), now=world.clock.now())["job"]
    assert account.progress(told) == "job 1 waits for its turn"
    world.step()
    told = job_api.job(world.job(job.id), now=world.clock.now())["job"]
    assert account.progress(told) == "1MiB of about 3.9MiB (25%), 1MiB/s, 3s left, 1 ebusy"
    told["waiting_for"] = "pressure"
    assert account.progress(told).endswith(", waiting: pressure")
    assert account.progress({**told, "whole": True}).startswith("job 1: one call for the whole process")


def test_lines_of_progress_come_now_and_then_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    world = World(free_bytes={2: GIB})
    world.add(100, 0)
    told = job_api.job(world.jobs.submit(MoveRequest(pid=100, targets=frozenset({N1}))), now=0.0)["job"]
    progress = ProgressLine(quiet=False)
    for at[0] in (100.1, 104.9, 105.1, 106.0, 110.2):
        progress.show(account.progress(told))
    assert capsys.readouterr().err == "job 1 waits for its turn\n" * 2
    silent = ProgressLine(quiet=True)
    at[0] = 1000.0
    silent.show(account.progress(told))
    assert capsys.readouterr().err == ""
