"""The doctor's line for each other manager: how bad it is, what is seen, and the exact fix."""

import subprocess
from pathlib import Path

import pytest

from balancerd.kernel.doctor.files import CheckStatus
from balancerd.kernel.doctor.managers import check_name, narrowed_affinities, other_managers
from balancerd.model.manager import REMEDY, Manager
from tests.unit.kernel.neighbours.test_damon import kdamond
from tests.unit.kernel.neighbours.test_kubelet import CPU_STATIC
from tests.unit.kernel.trees import write_tree

ONLINE = {"sys/devices/system/cpu/online": "0-3\n"}
USER = "Name:\tx\nUid:\t0\t0\t0\t0\nVmRSS:\t    1000 kB\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t0\n"
KERNEL = USER.replace("VmRSS:\t    1000 kB\n", "")
QUIET = {"proc/1/comm": "init\n", "proc/1/status": USER.format(cpus="0-255"), **ONLINE}


def test_on_a_quiet_machine_each_has_a_line_and_all_are_fine(tmp_path: Path) -> None:
    checks = other_managers(write_tree(tmp_path, QUIET))
    elsewhere = {Manager.KERNEL_BALANCING, Manager.MEMPOLICY}
    assert [check.name for check in checks] == [check_name(each) for each in Manager if each not in elsewhere]
    assert {(check.status, check.fix) for check in checks} == {(CheckStatus.OK, None)}


@pytest.mark.parametrize(
    ("files", "manager", "status", "seen"),
    [
        (
            {"proc/7/comm": "numad\n", "proc/7/status": "Name:\tnumad\nUid:\t0\t0\t0\t0\n"},
            Manager.NUMAD,
            "warning",
            "running with pid 7: two managers undo each other's work",
        ),
        (
            {f"sys/{name}": text for name, text in kdamond(0, "on", "pageout").items()},
            Manager.DAMOS,
            "warning",
            "kdamond 0: pageout: two managers undo each other's work",
        ),
        (
            {"var/lib/kubelet/cpu_manager_state": CPU_STATIC},
            Manager.KUBELET_CPU,
            "info",
            "policy static; placed: containers 2, pods 1",
        ),
        (
            {"etc/systemd/system/a.service": "NUMAPolicy=bind\n"},
            Manager.NUMA_POLICY,
            "info",
            "set for a.service",
        ),
        (
            {"proc/8/status": USER.format(cpus="1"), "proc/9/status": KERNEL.format(cpus="1")},
            Manager.AFFINITY,
            "info",
            "processes that may run on some of the CPUs 0-3 only: 1 (pid 8)",
        ),
    ],
)
def test_one_that_is_at_work_is_told_of_with_its_fix(
    tmp_path: Path, files: dict[str, str], manager: Manager, status: str, seen: str
) -> None:
    write_tree(tmp_path, {**QUIET, **files})
    if (tmp_path / "proc/7").exists():
        (tmp_path / "proc/7/exe").symlink_to("/usr/bin/numad")
    checks = {check.name: check for check in other_managers(tmp_path)}
    check = checks.pop(check_name(manager))
    assert (check.status, check.seen, check.fix) == (status, seen, REMEDY[manager])
    assert {other.status for other in checks.values()} == {CheckStatus.OK}


def test_what_cannot_be_read_is_unknown_and_not_fine(tmp_path: Path) -> None:
    write_tree(tmp_path, {**QUIET, "var/lib/kubelet/cpu_manager_state": "{"})
    checks = {check.name: check for check in other_managers(tmp_path)}
    assert checks["manager-kubelet-cpu"].status is CheckStatus.UNKNOWN
    assert "var/lib/kubelet/cpu_manager_state" in checks["manager-kubelet-cpu"].seen
    assert narrowed_affinities(tmp_path / "nowhere").status is CheckStatus.UNKNOWN


def test_many_narrowed_processes_are_counted_and_a_few_named(tmp_path: Path) -> None:
    write_tree(tmp_path, ONLINE | {f"proc/{pid}/status": USER.format(cpus="0-2") for pid in range(20, 30)})
    assert narrowed_affinities(tmp_path).seen.endswith("only: 10 (pid 20, 21, 22, 23, 24, ...)")


def test_a_process_started_by_taskset_is_seen_on_this_machine() -> None:
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    if online == "0":
        pytest.skip("this machine has one CPU: nothing can be narrowed")
    before = narrowed_affinities().seen
    with subprocess.Popen(["taskset", "-c", "0", "sleep", "100"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            assert process.poll() is None
        after = narrowed_affinities().seen
        process.kill()
    assert before != after
