"""Threads that go to their memory, on a real kernel: kicked, pinned, and given back after SIGTERM and after a crash."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, share

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

MIB = 96
"""Moving it costs 0.09 s, moving one thread 0.01 s."""

VERIFIED = Ended(status=0, told=f"verified {MIB * 256} pages")
ALL = {0, 1, 2, 3}
NODE = 1
"""Where the memory is, and the number of its only CPU."""


def cpu_of(pid: int) -> int:
    """The CPU on which the main thread of a process ran last, field 39 of proc_pid_stat(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[36])


def keep_to(pid: int, cpu: int) -> None:
    """Keep all threads of somebody else off the CPUs that matter."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {cpu})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """This process shall not use the CPUs that matter, either."""
    os.sched_setaffinity(0, {2})
    yield
    os.sched_setaffinity(0, ALL)


def a_daemon(folder: Path, method: str) -> Balancerd:
    (folder / "state").mkdir(exist_ok=True)
    daemon = Balancerd(
        folder,
        f"policies: [{{name: threads, kind: threads, method: {method}}}, {{name: home, kind: follow-cpu}}]\n",
        overrides={"select.min_age": "1s", "tick_interval": "1s", "state_directory": str(folder / "state")},
    )
    keep_to(daemon.process.pid, 3)
    return daemon


def a_hog() -> Hog:
    """A sixth of a core, too little to crowd a node, runs on node 0, with memory on node 1 and no affinity."""
    hog = Hog("base", MIB, touch_cpu=NODE, spin_cpu=0, busy_percent=16)
    os.sched_setaffinity(hog.pid, ALL)
    return hog


def put_back(pid: int) -> None:
    """Put a thread on node 0 again that the scheduler has taken to its memory before the daemon did."""
    if cpu_of(pid) == NODE and os.sched_getaffinity(pid) == ALL:
        os.sched_setaffinity(pid, {0})
        os.sched_setaffinity(pid, ALL)


def wait_for_pin(daemon: Balancerd, pid: int) -> None:
    def is_pinned() -> bool:
        put_back(pid)
        return os.sched_getaffinity(pid) == {NODE}

    daemon.wait_for(is_pinned, 120.0, "pinned thread")


def test_a_thread_is_kicked_to_its_memory_and_is_free_afterwards(tmp_path: Path) -> None:
    def is_kicked() -> bool:
        told = [line["threads"] for line in daemon.log_lines("tick")]
        moved = sum(threads.get("moved", 0) + threads.get("restored", 0) for threads in told)
        if not moved:
            put_back(hog.pid)
        return bool(moved) and os.sched_getaffinity(hog.pid) == ALL

    with a_daemon(tmp_path, "kick") as daemon, a_hog() as hog:
        assert cpu_of(hog.pid) != NODE
        daemon.wait_for(is_kicked, 120.0, "kicked thread")
        daemon.wait_for_reason(hog.pid, "well-placed", 60.0)
        assert cpu_of(hog.pid) == NODE
        assert share(hog.pid, NODE) > 0.95, "its memory was left where it was"
        assert daemon.moved_pages(hog.pid) == 0
        assert not (tmp_path / "state/threads.json").exists()
        assert hog.end() == VERIFIED


def test_a_pinned_thread_is_given_back_at_the_end_and_after_a_crash(tmp_path: Path) -> None:
    with a_hog() as hog:
        with a_daemon(tmp_path, "pin") as daemon:
            wait_for_pin(daemon, hog.pid)
            assert (tmp_path / "state/threads.json").exists()
            assert daemon.stop(signal.SIGTERM) == 0
            assert os.sched_getaffinity(hog.pid) == ALL
            assert not (tmp_path / "state/threads.json").exists()
        os.sched_setaffinity(hog.pid, {0})
        os.sched_setaffinity(hog.pid, ALL)
        with a_daemon(tmp_path, "pin") as daemon:
            wait_for_pin(daemon, hog.pid)
            daemon.stop(signal.SIGKILL)
            assert os.sched_getaffinity(hog.pid) == {NODE}
            assert (tmp_path / "state/threads.json").exists()
        with Balancerd(tmp_path, "", overrides={"state_directory": str(tmp_path / "state")}) as daemon:
            assert os.sched_getaffinity(hog.pid) == ALL, "the configuration need not move threads any more"
            assert not (tmp_path / "state/threads.json").exists()
            assert "a daemon before has left" in daemon.log_text()
        assert hog.end() == VERIFIED
