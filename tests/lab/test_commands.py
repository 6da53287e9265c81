"""What operators ask for, on a real kernel: move, set to set, whole, undo, Ctrl-C, evict; judged by numastat."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.service import BIN, Balancerd
from tests.lab.workloads import Ended, Hog, mib_by_node

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

NO_POLICY = "policies: []\n"
CALM = {"tick_interval": "1s", "migrate.max_cpu_pressure": "null", "migrate.duty_cycle": "100%"}
"""An emulated machine is always short of CPU time, and slow."""

MIB = 64
ZRAM = Path("/sys/block/zram0")


def verified(mib: int) -> Ended:
    return Ended(status=0, told=f"verified {mib * 256} pages")


def job_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The document that a command with --json printed, its sums checked."""
    print(done.stdout, done.stderr)
    job: dict[str, Any] = json.loads(done.stdout)["job"]
    check_sums(job)
    return job


def told_of(daemon: Balancerd, pid: int) -> list[dict[str, Any]]:
    """What the history has of a process, newest first."""
    events: list[dict[str, Any]] = daemon.client.get(f"/v1/history?pid={pid}")["events"]
    return events


def told_pages(daemon: Balancerd, pid: int) -> int:
    """How many pages of a process have moved, as the history tells."""
    return sum(event["counts"].get("moved", 0) for event in told_of(daemon, pid))


def check_sums(job: dict[str, Any]) -> None:
    assert job["submitted_pages"] == sum(job["pages"].values()), job
    if job["eviction"] is None:
        passed_over = sum(job["passed_over"].values())
        assert job["looked_pages"] == job["on_target_pages"] + passed_over + job["submitted_pages"], job
    else:
        evicted = job["eviction"]
        assert job["looked_pages"] == evicted["absent_pages"] + evicted["other_pages"] + evicted["advised_pages"], job
        assert evicted["advised_pages"] == evicted["evicted_pages"] + evicted["kept_pages"], job


@pytest.fixture
def swap() -> Iterator[None]:
    subprocess.run(["modprobe", "zram"], check=True)
    (ZRAM / "disksize").write_text("256M")
    subprocess.run(["mkswap", "/dev/zram0"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", "/dev/zram0"], check=True)
    yield
    subprocess.run(["swapoff", "/dev/zram0"], check=True)
    (ZRAM / "reset").write_text("1")


def swapped_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmSwap")).split()[1])


def test_move_takes_memory_to_a_node_and_undo_takes_it_back(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, NO_POLICY, overrides={**CALM, "state_directory": str(tmp_path)}) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0, busy_percent=10) as hog,
    ):
        before = mib_by_node(hog.pid)
        done = daemon.balancerctl("move", str(hog.pid), "--to", "2")
        print(done.stdout, done.stderr)
        assert done.returncode == 0
        assert mib_by_node(hog.pid)[2] >= MIB
        assert "verified: " in done.stdout
        assert "undo: balancerctl undo 1" in done.stdout
        assert daemon.balancerctl("moves").stdout.splitlines()[1].split()[:4] == [
            "1",
            str(hog.pid),
            "command",
            "command",
        ]
        job = job_of(daemon.balancerctl("undo", "1", "--json"))
        assert job["state"] == "done"
        assert job["pages"]["moved"] >= MIB * 256
        after = mib_by_node(hog.pid)
        assert after[0] == pytest.approx(before[0], abs=0.5)
        assert after.get(2, 0.0) == pytest.approx(before.get(2, 0.0), abs=0.5)
        daemon.wait_ticks(2)  # totals count jobs from the next tick on
        assert daemon.check_accounts()["moved"] >= 2 * MIB * 256
        daemon.wait_for(lambda: told_pages(daemon, hog.pid) >= 2 * MIB * 256, 10.0, "the history of both")
        events = told_of(daemon, hog.pid)
        oldest = events[-1]
        assert [oldest["kind"], oldest["policy"], oldest["decision"], oldest["move"]] == ["move", "command", None, 1]
        assert {0, 2} <= {event["to"] for event in events}
        assert hog.end() == verified(MIB)


def test_from_set_to_set_the_relative_position_is_kept_and_mempolicies_unless_told_otherwise(tmp_path: Path) -> None:
    interleaved = ("numactl", "--interleave=0-1")
    with (
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0, busy_percent=10, prefix=interleaved) as hog,
    ):
        before = mib_by_node(hog.pid)
        assert before[0] >= MIB / 2 - 1
        assert before[1] >= MIB / 2 - 1
        words = ("move", str(hog.pid), "--from", "0-1", "--to", "3,2", "--json")
        held = daemon.balancerctl(*words)
        assert held.returncode == 1
        assert job_of(held)["reason"] == "mempolicy"
        assert mib_by_node(hog.pid) == pytest.approx(before, abs=0.5)
        job = job_of(daemon.balancerctl(*words, "--ignore-mempolicy"))
        assert job["target_of"] == {"0": 2, "1": 3}
        after = mib_by_node(hog.pid)
        assert after[2] - before.get(2, 0.0) == pytest.approx(job["moved_from"]["0"] / 256, abs=0.5)
        assert after[3] - before.get(3, 0.0) == pytest.approx(job["moved_from"]["1"] / 256, abs=0.5)
        assert min(after[2], after[3]) >= MIB / 2 - 1
        assert hog.end() == verified(MIB)


def test_whole_is_one_call_and_tells_before_and_after(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("thp", MIB, touch_cpu=1, spin_cpu=1, busy_percent=10) as hog,
    ):
        done = daemon.balancerctl("move", str(hog.pid), "--from", "0-1", "--to", "2-3", "--whole", "--json")
        assert done.stderr.startswith("warning: the process may stand still")
        job = job_of(done)
        assert job["state"] == "done"
        assert job["whole_move"]["before_bytes"]["1"] >= MIB << 20
        assert job["whole_move"]["after_bytes"]["3"] >= MIB << 20
        assert mib_by_node(hog.pid)[3] >= MIB
        assert hog.end() == verified(MIB)


def test_a_policys_move_can_be_undone_and_the_policy_leaves_it_alone_then(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides={**CALM, "select.min_age": "1s"}) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        daemon.wait_for(lambda: mib_by_node(hog.pid).get(0, 0.0) >= MIB, 90.0, "homecoming")
        daemon.wait_for_reason(hog.pid, "well-placed")
        (move,) = daemon.client.get("/v1/moves")["moves"]
        assert (move["policy"], move["undoable_bytes"]) == ("home", move["moved_bytes"])
        assert job_of(daemon.balancerctl("undo", str(move["id"]), "--json"))["state"] == "done"
        assert mib_by_node(hog.pid)[2] >= MIB
        told = daemon.wait_for_reason(hog.pid, "cooldown")
        assert f"move {move['id']} was undone by an operator" in told["detail"]
        assert told["history"][0]["policy"] == "command"
        assert hog.end() == verified(MIB)


@pytest.mark.thorough
def test_ctrl_c_leaves_every_page_accounted_for(tmp_path: Path) -> None:
    slow = {**CALM, "migrate.rate_limit": "8MiB/s", "migrate.process_rate_limit": "8MiB/s"}
    with (
        Balancerd(tmp_path, NO_POLICY, overrides=slow) as daemon,
        Hog("base", 3 * MIB, touch_cpu=0, spin_cpu=0, busy_percent=10) as hog,
    ):
        command = [str(BIN / "balancerctl"), "--socket", str(daemon.socket), "move", str(hog.pid), "--to", "2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asked:
            daemon.wait_for(lambda: mib_by_node(hog.pid).get(2, 0.0) > 8, 90.0, "first pages")
            asked.send_signal(signal.SIGINT)
            began = time.monotonic()
            stdout, stderr = asked.communicate(timeout=60)
            print(f"ended {time.monotonic() - began:.1f} s after the signal", stdout, stderr)
        assert asked.returncode == 130
        assert "cancelling" in stderr
        job = daemon.client.get("/v1/jobs/1")["job"]
        check_sums(job)
        assert (job["state"], job["reason"]) == ("cancelled", None)
        assert f"{job['pages']['moved']} pages moved" in stdout
        moved_mib = job["pages"]["moved"] / 256
        assert 8 < moved_mib < 3 * MIB
        assert mib_by_node(hog.pid)[2] == pytest.approx(moved_mib, abs=2.0)  # and what libraries had there before
        assert job["throttled_seconds"]
        pages = daemon.client.get("/v1/jobs/1")["job"]["pages"]
        daemon.wait_ticks(2)
        assert daemon.check_accounts() == pages
        assert hog.end() == verified(3 * MIB)


@pytest.mark.usefixtures("swap")
def test_evict_takes_memory_out_and_counts_what_is_locked(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, NO_POLICY, overrides={**CALM, "migrate.max_memory_pressure": "null"}) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0, busy_percent=1) as hog,
        Hog("mlock", MIB, touch_cpu=1, spin_cpu=1, busy_percent=1) as locked,
    ):
        subprocess.run(["kill", "-STOP", str(hog.pid)], check=True)  # who reads its memory brings it back
        job = job_of(daemon.balancerctl("evict", str(hog.pid), "--json"))
        assert job["state"] == "done"
        assert job["eviction"]["evicted_pages"] > 0.8 * MIB * 256
        assert swapped_kib(hog.pid) > 0.8 * MIB * 1024
        subprocess.run(["kill", "-CONT", str(hog.pid)], check=True)
        marked = job_of(daemon.balancerctl("evict", str(hog.pid), "--cold-only", "--json"))
        assert marked["eviction"]["evicted_pages"] == 0
        stuck = job_of(daemon.balancerctl("evict", str(locked.pid), "--json"))
        assert stuck["eviction"]["kept_pages"] >= MIB * 256
        assert swapped_kib(locked.pid) < 1024
        assert hog.end() == verified(MIB)
        assert locked.end() == verified(MIB)


def test_without_swap_there_is_no_eviction_and_the_reason_says_so(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0, busy_percent=10) as hog,
    ):
        done = daemon.balancerctl("evict", str(hog.pid), "--json")
        job = job_of(done)
        print(job)
        assert swapped_kib(hog.pid) == 0
        assert "swap" in (job["reason"] or "") + job["detail"]
        assert hog.end() == verified(MIB)
