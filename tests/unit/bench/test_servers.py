import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.bench.locality import servers

SPAWNER = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "1000"])
print("up", flush=True)
signal.pause()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_all_threads_are_moved_with_those_that_appear_meanwhile() -> None:
    allowed = os.sched_getaffinity(0)
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(3)]
    asked = 0

    def pids() -> tuple[int, ...]:
        nonlocal asked
        asked += 1
        if asked == 2:
            threads[-1].start()
        return (os.getpid(), 2**22 + 1)  # the second never exists: PID_MAX_LIMIT

    for thread in threads[:-1]:
        thread.start()
    before = {int(task.name): os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()}
    try:
        servers.move(pids, min(allowed))
        native_ids = [thread.native_id for thread in (threading.main_thread(), *threads)]
        assert all(os.sched_getaffinity(tid or 0) == {min(allowed)} for tid in native_ids)
    finally:
        for tid in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(tid.name), before.get(int(tid.name), allowed))
        done.set()
        for thread in threads:
            thread.join()


def test_a_server_that_does_not_end_is_ended_by_force_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "END_SECONDS", 0.2)
    log = tmp_path / "log"
    with servers.running([sys.executable, "-c", SPAWNER], os.environ, log, signal.SIGTERM) as process:
        servers.wait_until(lambda: "up" in log.read_text(encoding="utf-8"), process, log)
        family = servers.descendants(process.pid)
        assert len(family) == 2
    assert not any(map(is_alive, family))


def test_a_server_is_ended_when_the_block_fails(tmp_path: Path) -> None:
    class FailedError(Exception):
        pass

    with (
        pytest.raises(FailedError),
        servers.running(["sleep", "1000"], os.environ, tmp_path / "log") as process,
    ):
        raise FailedError
    assert process.returncode == -signal.SIGKILL


def test_a_server_that_ends_before_it_answers_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(RuntimeError, match="ended with 3: no room"),
        servers.running(["sh", "-c", "echo no room; exit 3"], os.environ, log) as process,
    ):
        servers.wait_until(lambda: False, process, log)


def test_a_server_that_ends_badly_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        servers.running(["sh", "-c", "exit 1"], os.environ, log) as process,
        pytest.raises(RuntimeError, match="ended with 1"),
    ):
        servers.wait_for_end(process, log)


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    assert servers.output(["echo", "yes"], os.environ, tmp_path) == "yes\n"
    with pytest.raises(RuntimeError, match="ended with 2: refused"):
        servers.output(["sh", "-c", "echo refused >&2; exit 2"], os.environ, tmp_path)


def test_a_pinned_command_runs_on_its_cpu_under_its_own_pid() -> None:
    cpu = max(os.sched_getaffinity(0))
    told = subprocess.run(
        servers.pinned(cpu, ["taskset", "-p", "-c", str(os.getpid())]), check=True, capture_output=True
    )
    assert told.stdout
    script = "import os; print(os.getpid(), *os.sched_getaffinity(0))"
    with subprocess.Popen(
        servers.pinned(cpu, [sys.executable, "-c", script]), stdout=subprocess.PIPE, text=True
    ) as done:
        text, _ = done.communicate()
    assert text.split() == [str(done.pid), str(cpu)]
