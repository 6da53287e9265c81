"""Other managers of placement, really at work: balancerd sees them, yields or goes on, and says so everywhere."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab import topology
from tests.lab.conftest import MachinePool
from tests.lab.machine import Machine, Options
from tests.lab.service import BIN, Balancerd
from tests.lab.state import LabDirectory, lab_directory
from tests.lab.workloads import Hog, mib_by_node

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(150)]

MIB = 72
BRISK = {"select.min_age": "1s", "tick_interval": "1s", "migrate.cooldown": "1s"}
METRICS = "127.0.0.1:9924"
LATER = ("unshare", "--time", "--fork", "--monotonic", "1000", "--boottime", "1000")
"""numad passes over everything in the first 300 s of uptime, so its clock is set ahead."""

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
NUMAD_PID = Path("/var/run/numad.pid")
KDAMONDS = Path("/sys/kernel/mm/damon/admin/kdamonds")
BALANCING = Path("/proc/sys/kernel/numa_balancing")
KUBELET = Path("/var/lib/kubelet")
POD = "8f5cbd4b-1234-4d66-8c02-ba91f0b7f5a5"
POD_CGROUP = Path(f"/sys/fs/cgroup/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice")


@contextmanager
def numad() -> Iterator[int]:
    """Run Debian's numad, which goes to the background by itself; gives its pid."""
    subprocess.run([*LATER, "numad", "-S", "1", "-i", "5"], check=True)
    end = time.monotonic() + 10.0
    while not NUMAD_PID.exists() and time.monotonic() < end:
        time.sleep(0.1)
    pid = int(NUMAD_PID.read_text(encoding="ascii"))
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@contextmanager
def damon_scheme(pid: int, action: str) -> Iterator[None]:
    """Let DAMON watch a process with a scheme that matches no region; see DAMON's usage.rst."""
    context, scheme = KDAMONDS / "0/contexts/0", KDAMONDS / "0/contexts/0/schemes/0"
    write(KDAMONDS / "nr_kdamonds", 1)
    write(KDAMONDS / "0/contexts/nr_contexts", 1)
    write(context / "operations", "vaddr")
    write(context / "targets/nr_targets", 1)
    write(context / "targets/0/pid_target", pid)
    write(context / "schemes/nr_schemes", 1)
    write(scheme / "action", action)
    for what, least in (("sz", 1 << 50), ("nr_accesses", 0), ("age", 0)):
        write(scheme / f"access_pattern/{what}/min", least)
        write(scheme / f"access_pattern/{what}/max", 1 << 51)
    write(KDAMONDS / "0/state", "on")
    try:
        yield
    finally:
        with suppress(PermissionError):  # it ended with the process
            write(KDAMONDS / "0/state", "off")
        write(KDAMONDS / "nr_kdamonds", 0)


@contextmanager
def kernel_balancing(mode: int) -> Iterator[None]:
    write(BALANCING, mode)
    try:
        yield
    finally:
        write(BALANCING, 0)


@contextmanager
def exclusive_pod() -> Iterator[Path]:
    """Place a container as a kubelet with the static CPU manager does: a cgroup with its CPUs, and the checkpoint."""
    container = POD_CGROUP / "cri-containerd-3f1e.scope"
    container.mkdir(parents=True)
    write(Path("/sys/fs/cgroup/cgroup.subtree_control"), "+cpuset")
    write(POD_CGROUP.parent / "cgroup.subtree_control", "+cpuset")
    write(POD_CGROUP / "cgroup.subtree_control", "+cpuset")
    write(container / "cpuset.cpus", 0)
    KUBELET.mkdir(parents=True, exist_ok=True)
    state = {"policyName": "static", "defaultCpuSet": "1-3", "entries": {POD: {"db": "0"}}, "checksum": 1354180}
    write(KUBELET / "cpu_manager_state", json.dumps(state))
    try:
        yield container
    finally:
        (KUBELET / "cpu_manager_state").unlink(missing_ok=True)
        for cgroup in (container, POD_CGROUP, POD_CGROUP.parent):
            cgroup.rmdir()


@contextmanager
def pinned_by_taskset() -> Iterator[int]:
    with subprocess.Popen(["taskset", "-c", "3", "sleep", "1000"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def write(path: Path, value: object) -> None:
    path.write_text(str(value), encoding="ascii")


def managers(daemon: Balancerd) -> dict[str, dict[str, Any]]:
    return {each["manager"]: each for each in daemon.status()["managers"]}


def metric(name: str) -> dict[str, float]:
    """The values of a metric by the label manager, as a scrape shows them."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.removeprefix(f'{name}{{manager="') for line in lines if line.startswith(f"{name}{{")]
    return {line.partition('"')[0]: float(line.rpartition(" ")[2]) for line in found}


def doctor(daemon: Balancerd, prefix: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """The doctor's checks by name."""
    command = [*prefix, str(BIN / "balancerctl"), "--socket", str(daemon.socket), "doctor", "--json"]
    ran = subprocess.run(command, capture_output=True, check=False, timeout=180)
    return {check["name"]: check for check in json.loads(ran.stdout)["checks"]}


@pytest.mark.thorough
def test_while_rivals_are_at_work_nothing_moves_and_when_they_have_gone_the_daemon_goes_on(tmp_path: Path) -> None:
    with ExitStack() as rivals, Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=30) as hog:
        pid = rivals.enter_context(numad())
        rivals.enter_context(damon_scheme(hog.pid, "pageout"))
        rivals.enter_context(kernel_balancing(2))  # moves to faster memory only, of which there is none: the hog stays
        config = "yield_to: [numad, damos, kernel-balancing]\n"
        with Balancerd(tmp_path, config, overrides={**BRISK, "metrics.listen": METRICS}) as daemon:
            told = daemon.wait_for_reason(hog.pid, "other-manager")["detail"].split("; ")
            seen = ["damos: kdamond 0: pageout", "kernel-balancing: kernel.numa_balancing=2"]
            assert told == [f"numad: running with pid {pid}", *seen]
            told_managers = managers(daemon)
            names = {"numad", "damos", "kernel-balancing"}
            assert {name for name, each in told_managers.items() if each["active"]} == names | {"affinity"}  # the hog's
            assert {name for name, each in told_managers.items() if each["yields"]} == names
            values = metric("balancerd_conflicting_manager_active")
            assert {name for name, value in values.items() if value} == names | {"affinity"}
            checks = doctor(daemon, NOBODY)
            warnings = {name for name, check in checks.items() if check["status"] == "warning"}
            assert {"manager-numad", "manager-damos", "kernel-numa-balancing"} <= warnings
            assert "what it does cannot be read" in checks["manager-damos"]["seen"]
            assert checks["manager-numad"]["fix"] == "as root: systemctl disable --now numad"
            assert daemon.status()["totals"]["submitted_pages"] == 0
            rivals.close()
            daemon.wait_for_reason(hog.pid, "well-placed")
            assert {name for name, each in managers(daemon).items() if each["active"]} == {"affinity"}
            assert mib_by_node(hog.pid)[0] >= MIB


def test_who_has_been_placed_on_purpose_is_left_alone_and_counted_by_whom(tmp_path: Path) -> None:
    with exclusive_pod() as container, kernel_balancing(1), pinned_by_taskset() as pinned:
        join = ("sh", "-c", f'echo $$ > {container}/cgroup.procs; exec "$@"', "sh")
        with (
            Hog("base", MIB, touch_cpu=0, spin_cpu=0, busy_percent=30, prefix=join) as pod,
            Hog("base", MIB, touch_cpu=2, spin_cpu=1, busy_percent=30, prefix=("numactl", "--membind=2")) as bound,
            Balancerd(tmp_path, overrides={**BRISK, "metrics.listen": METRICS}) as daemon,
        ):
            told = daemon.wait_for_reason(pod.pid, "managed")
            assert told["detail"] == f"kubelet-cpu: pod {POD}: the kubelet's CPU manager gave it CPUs 0"
            daemon.wait_for_reason(bound.pid, "mempolicy")
            told_managers = managers(daemon)
            held = {name: each["processes"] for name, each in told_managers.items() if each["active"]}
            assert held == {"kubelet-cpu": 1, "mempolicy": 1, "affinity": 1, "kernel-balancing": None}
            assert not told_managers["kernel-balancing"]["yields"]
            assert metric("balancerd_managed_processes")["kubelet-cpu"] == 1.0
            assert metric("balancerd_conflicting_manager_active")["kernel-balancing"] == 1.0
            checks = doctor(daemon)
            assert checks["manager-kubelet-cpu"]["seen"] == "policy static; placed: containers 1, pods 1"
            assert checks["manager-mempolicy"]["seen"].endswith(": 1")
            assert str(pinned) in checks["manager-affinity"]["seen"]
            assert checks["kernel-numa-balancing"]["status"] == "warning"
            (KUBELET / "cpu_manager_state").unlink()
            daemon.wait_for_reason(pod.pid, "well-placed")


@pytest.mark.thorough
@pytest.mark.host
def test_a_unit_with_a_numa_policy_is_left_alone_by_name(tmp_path: Path, machine_pool: MachinePool) -> None:
    machine_pool.shutdown()
    tmp_path.joinpath("packages").symlink_to(lab_directory().packages)
    lab, options = LabDirectory(root=tmp_path), Options(systemd_unit="basic.target")
    with Machine(topology.load("two-nodes"), lab=lab, options=options) as machine:
        ended = machine.run([sys.executable, "-m", "tests.lab.placed_unit", "/run/placed"], timeout_seconds=140.0)
    assert ended.exit_status == 0, ended.stderr.decode()[-4000:]
    told = json.loads(ended.stdout)
    assert told.pop("bound_mib") >= MIB
    said = "unit placed.service: NUMAPolicy=bind NUMAMask=1 in /run/systemd/system/placed.service"
    assert told == {
        "reason": "managed",
        "detail": f"numa-policy: {said}",
        "managers": ["numa-policy"],
        "doctor": "set for placed.service",
    }
