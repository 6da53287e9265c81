"""Everything that must not be moved: none is harmed, and `balancerctl explain` says why for each."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, mib_by_node

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

MIB = 72
VERIFIED = Ended(status=0, told=f"verified {MIB * 256} pages")
YOUNG = {"select.min_age": "1s", "tick_interval": "1s"}
CGROUP = Path("/sys/fs/cgroup/balancerd-test")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def explained(daemon: Balancerd, pid: int, reason: str) -> str:
    """Wait for the reason, then have the real command say it; return its detail."""
    daemon.wait_for_reason(pid, reason)
    ran = daemon.balancerctl("explain", str(pid), "--json")
    assert ran.returncode == 0, ran.stderr
    process = json.loads(ran.stdout)["process"]
    assert process["reason"] == reason
    detail: str = process["detail"]
    return detail


@pytest.fixture
def cpuset_without_node_0() -> Iterator[Path]:
    CGROUP.mkdir()
    (CGROUP / "cpuset.mems").write_text("1-3")
    yield CGROUP
    CGROUP.rmdir()


@pytest.mark.thorough
def test_a_process_bound_by_numactl_keeps_its_memory(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides=YOUNG) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, prefix=("numactl", "--membind=2")) as hog,
    ):
        assert explained(daemon, hog.pid, "mempolicy").startswith("bind:2")
        assert mib_by_node(hog.pid)[2] >= MIB
        assert daemon.status()["totals"]["submitted_pages"] == 0
        assert hog.end() == VERIFIED


def test_a_cpuset_that_excludes_the_home_node_is_respected(tmp_path: Path, cpuset_without_node_0: Path) -> None:
    join = ("sh", "-c", f'echo $$ > {cpuset_without_node_0}/cgroup.procs; exec "$@"', "sh")
    with (
        Balancerd(tmp_path, overrides=YOUNG) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, prefix=join) as hog,
    ):
        assert explained(daemon, hog.pid, "outside-cpuset") == "node 0 is not in its Mems_allowed 1-3"
        assert daemon.status()["totals"]["submitted_pages"] == 0
        assert hog.end() == VERIFIED


def test_a_process_of_another_user_needs_the_capability(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o755)
    with (
        Balancerd(tmp_path, overrides=YOUNG, prefix=NOBODY) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        explained(daemon, hog.pid, "no-access")
        assert mib_by_node(hog.pid)[2] >= MIB
        assert hog.end() == VERIFIED


@pytest.mark.thorough
def test_the_young_the_small_and_kernel_threads_are_passed_over(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides={"select.min_age": "1h"}) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        assert explained(daemon, hog.pid, "below-min-age").endswith(" of 3600 s")
        explained(daemon, 2, "kernel-thread")
        explained(daemon, os.getppid(), "below-min-rss")
        explained(daemon, daemon.process.pid, "self")
        daemon.wait_ticks(2)
        assert mib_by_node(hog.pid)[2] >= MIB
        assert hog.end() == VERIFIED


def test_a_process_that_exits_in_the_middle_of_its_move_is_nobodys_harm(tmp_path: Path) -> None:
    with Balancerd(tmp_path, overrides=YOUNG) as daemon:
        with Hog("base", 192, touch_cpu=2, spin_cpu=0) as hog:
            daemon.wait_for(lambda: mib_by_node(hog.pid).get(0, 0.0) > 5.0, 60.0, "beginning of the move")
            hog.process.kill()
            hog.process.wait()
        daemon.wait_ticks(2)
        pages = daemon.check_accounts()
        assert 0 < pages["moved"] < 192 * 256
        assert daemon.status()["totals"]["failed_ticks"] == 0
        gone = daemon.balancerctl("explain", str(hog.pid))
        assert gone.returncode == 1
        assert f"no process {hog.pid}" in gone.stderr


def test_a_bad_reload_keeps_the_old_configuration_and_a_good_one_takes_over(tmp_path: Path) -> None:
    with Balancerd(tmp_path, "mode: observe\n", overrides=YOUNG) as daemon:
        daemon.config.write_text("mode: obsrve\n", encoding="utf-8")
        checked = daemon.balancerctl("config", "check", str(daemon.config))
        assert checked.returncode == 5
        assert f"{daemon.config}:1:7: error: " in checked.stdout + checked.stderr
        daemon.process.send_signal(1)
        daemon.wait_for(lambda: not daemon.status()["config"]["last_reload"]["succeeded"], 30.0, "refusal")
        daemon.wait_ticks(1)
        assert daemon.status()["mode"] == "observe"
        daemon.config.write_text("mode: enforce\n", encoding="utf-8")
        daemon.process.send_signal(1)
        daemon.wait_for(lambda: daemon.status()["mode"] == "enforce", 30.0, "the new mode")
        assert daemon.status()["config"]["last_reload"]["succeeded"]


def test_status_ps_and_doctor_answer(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides=YOUNG) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "well-placed")
        status = json.loads(daemon.balancerctl("status", "--json").stdout)
        assert [node["node"] for node in status["nodes"]] == [0, 1, 2, 3]
        listed = json.loads(daemon.balancerctl("ps", "--json").stdout)["processes"]
        assert hog.pid in [process["pid"] for process in listed]
        assert str(hog.pid) in daemon.balancerctl("ps").stdout
        examined = json.loads(daemon.balancerctl("doctor", "--json").stdout)
        verdicts = {check["name"]: check["status"] for check in examined["checks"]}
        assert "failure" not in verdicts.values(), examined
    down = subprocess.run([*daemon.balancerctl("status").args], capture_output=True, text=True, check=False, timeout=60)
    assert down.returncode == 3
