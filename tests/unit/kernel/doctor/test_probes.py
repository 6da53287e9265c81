"""The doctor's probes: for real on this machine, on fake roots, and against a kernel that refuses."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from balancerd.kernel.doctor import files as doctor_files
from balancerd.kernel.doctor import probes as doctor
from balancerd.kernel.doctor.files import Check, CheckStatus
from balancerd.model.access import Obstacle

ALL_CAPABILITIES = "CapEff:\t000001ffffffffff\n"
NO_CAPABILITY = "CapEff:\t0000000000000000\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


class Kernel:
    """Answers like move_pages(2): a node or -errno for a page, or an errno that the call fails with."""

    def __init__(self, *, page: int = 0, ask: dict[int, int] | None = None, move: dict[int, int] | None = None) -> None:
        self.page = page
        self.ask_errors = ask or {}
        self.move_errors = move or {}
        self.asked: list[int] = []

    def ask(self, pid: int) -> int:
        self.asked.append(pid)
        _fail(self.ask_errors.get(pid))
        return self.page

    def move(self, node: int, flags: int) -> int:
        _fail(self.move_errors.get(flags))
        return node


def _fail(number: int | None) -> None:
    if number is not None:
        raise OSError(number, os.strerror(number))


NODE = "sys/devices/system/node"


@pytest.mark.parametrize(
    ("probe", "files", "status", "seen"),
    [
        (
            doctor_files.numa_nodes,
            {f"{NODE}/online": "0-3\n", f"{NODE}/has_memory": "0-3\n", f"{NODE}/has_cpu": "0-1\n"},
            "ok",
            "4 online (0-3), 4 with memory, 2 with CPUs",
        ),
        (
            doctor_files.numa_nodes,
            {f"{NODE}/online": "0,8\n", f"{NODE}/has_memory": "8\n", f"{NODE}/has_cpu": "0,8\n"},
            "warning",
            "2 online (0,8), 1 with memory, 2 with CPUs: there is nothing to balance",
        ),
        (doctor_files.numa_nodes, {}, "failure", "node/online does not exist"),
        (
            doctor_files.numa_nodes,
            {f"{NODE}/online": "none\n", f"{NODE}/has_memory": "0\n", f"{NODE}/has_cpu": "0\n"},
            "unknown",
            "'none' is not a number",
        ),
        (doctor_files.numa_maps, {"proc/self/numa_maps": "55d default\n7ff default\n"}, "ok", "2 mappings"),
        (doctor_files.numa_maps, {}, "failure", "does not exist"),
        (doctor_files.other_processes, {"proc/1/stat": "1 (systemd) S"}, "ok", "can be seen"),
        (
            doctor_files.other_processes,
            {"proc/self/mountinfo": "23 28 0:22 / /proc rw,nosuid shared:13 - proc proc rw,hidepid=invisible\n"},
            "warning",
            "mounted rw,hidepid=invisible",
        ),
        (doctor_files.other_processes, {}, "warning", "mounted with unknown options"),
        (doctor_files.kernel_balancing, {"proc/sys/kernel/numa_balancing": "0\n"}, "ok", "off"),
        (doctor_files.kernel_balancing, {"proc/sys/kernel/numa_balancing": "2\n"}, "warning", "numa_balancing=2"),
        (doctor_files.kernel_balancing, {}, "info", "not built into this kernel"),
        (
            doctor_files.transparent_huge_pages,
            {"sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"},
            "info",
            "madvise",
        ),
        (doctor_files.transparent_huge_pages, {}, "info", "not built into this kernel"),
        (
            doctor_files.hugetlb_pools,
            {
                "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "1\n",
                "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64\n",
            },
            "info",
            "64 pages of 2048kB, 1 pages of 1048576kB",
        ),
        (
            doctor_files.hugetlb_pools,
            {"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n"},
            "info",
            "empty",
        ),
        (
            doctor_files.hugetlb_pools,
            {"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "?\n"},
            "unknown",
            "unknown",
        ),
        (doctor_files.cgroup_version, {"sys/fs/cgroup/cgroup.controllers": "cpu\n"}, "ok", "version 2"),
        (
            doctor_files.cgroup_version,
            {"sys/fs/cgroup/unified/cgroup.procs": "", "sys/fs/cgroup/memory/tasks": ""},
            "info",
            "versions 1 and 2 (hybrid)",
        ),
        (doctor_files.cgroup_version, {"sys/fs/cgroup/memory/tasks": ""}, "info", "version 1"),
        (doctor_files.cgroup_version, {"sys/fs/cgroup/x": ""}, "unknown", "no hierarchy"),
        (doctor_files.cgroup_version, {}, "unknown", "No such file"),
        (doctor_files.seccomp, {"proc/self/status": "Name:\tx\nSeccomp:\t0\n"}, "ok", "no filter"),
        (doctor_files.seccomp, {"proc/self/status": "Name:\tx\nSeccomp:\t2\n"}, "info", "mode 2"),
        (doctor_files.seccomp, {"proc/self/status": "Name:\tx\n"}, "unknown", "unknown"),
        (doctor_files.perf_paranoia, {"proc/sys/kernel/perf_event_paranoid": "3\n"}, "info", "3"),
        (doctor_files.perf_paranoia, {}, "info", "not built"),
    ],
)
def test_a_probe_reports_what_a_file_says(
    tmp_path: Path, probe: Callable[[Path], Check], files: dict[str, str], status: str, seen: str
) -> None:
    check = probe(tree(tmp_path, files))
    assert check.status == status
    assert seen in check.seen
    assert (check.fix is not None) == (status in {"warning", "failure"})


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.EPERM, "seccomp=unconfined"), (errno.ENOSYS, "CONFIG_NUMA"), (errno.EACCES, "seccomp")]
)
def test_a_refusal_of_ones_own_page_is_a_failure_with_its_remedy(number: int, hint: str) -> None:
    for check in (doctor.query_self(Kernel(ask={0: number})), doctor.move_self(Kernel(move={2: number}))):
        assert check.status is CheckStatus.FAILURE
        assert errno.errorcode[number] in check.seen
        assert hint in (check.fix or "")


def test_a_page_that_the_kernel_cannot_place_is_unknown_not_node_zero() -> None:
    absent = Kernel(page=-errno.ENOENT)
    assert doctor.query_self(absent) == Check(
        name="move-pages-query", status=CheckStatus.UNKNOWN, seen="unknown: the kernel answers ENOENT"
    )


@pytest.mark.parametrize(
    ("status_file", "uid", "status", "fix"),
    [
        (NO_CAPABILITY, 1000, "warning", "sudo balancerctl doctor"),
        (NO_CAPABILITY, 0, "failure", "--cap-add=SYS_NICE"),
        (ALL_CAPABILITIES, 0, "failure", "user namespace"),
        ("CapEff:\tnonsense\n", 0, "failure", "--cap-add=SYS_NICE"),
    ],
)
def test_a_missing_capability_is_told_from_a_missing_privilege(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status_file: str, uid: int, status: str, fix: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    root = tree(tmp_path, {"proc/self/status": status_file})
    shared = doctor.move_all(Kernel(move={4: errno.EPERM}), root)
    assert (shared.name, shared.status) == ("move-pages-shared", status)
    assert fix in (shared.fix or "")
    other = doctor.query_other(Kernel(ask={7: errno.EPERM}), [7], root)
    assert (other.name, other.status) == ("other-processes", status)
    assert fix.replace("NICE", "PTRACE") in (other.fix or "")


@pytest.mark.parametrize(
    ("mask", "ptrace", "nice"),
    [("0000000000080000", True, False), ("0000000000800000", False, True), ("000001ffffffffff", True, True)],
)
def test_each_capability_is_read_from_its_own_bit(tmp_path: Path, mask: str, ptrace: bool, nice: bool) -> None:
    root = tree(tmp_path, {"proc/self/status": f"CapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n"})
    assert doctor_files.has_capability(root, doctor_files.CAP_SYS_PTRACE) is ptrace
    assert doctor_files.has_capability(root, doctor_files.CAP_SYS_NICE) is nice


def test_kernel_threads_and_exited_processes_are_passed_over(tmp_path: Path) -> None:
    kernel = Kernel(ask={2: errno.EINVAL, 3: errno.ESRCH})
    assert doctor.query_other(kernel, [2, 3, 4, 5], tmp_path).status is CheckStatus.OK
    assert kernel.asked == [2, 3, 4]


def test_with_no_process_to_ask_about_the_answer_is_unknown(tmp_path: Path) -> None:
    assert doctor.query_other(Kernel(), [], tmp_path).status is CheckStatus.UNKNOWN


def test_the_kernel_tells_where_a_touched_page_is_and_moves_it_to_its_own_node() -> None:
    page = doctor.OnePage()
    node = page.ask(0)
    assert (Path("/sys/devices/system/node") / f"node{node}").is_dir()
    assert page.move(node, doctor.MPOL_MF_MOVE) == node


def test_the_kernel_refuses_a_node_that_does_not_exist() -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        doctor.OnePage().move(1023, doctor.MPOL_MF_MOVE)
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(("uid", "status"), [(0, CheckStatus.WARNING), (998, CheckStatus.INFO)])
def test_register_sampling_that_is_refused_is_told_with_its_fix(
    monkeypatch: pytest.MonkeyPatch, uid: int, status: CheckStatus
) -> None:
    obstacle = Obstacle(seen="refused", fix="allow it")
    monkeypatch.setattr("balancerd.kernel.accesses.registers.find_obstacle", lambda _root: obstacle)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    check = doctor.register_sampling()
    assert (check.name, check.status, check.seen, check.fix) == ("accesses-registers", status, "refused", "allow it")
    monkeypatch.setattr("balancerd.kernel.accesses.registers.find_obstacle", lambda _root: None)
    assert doctor.register_sampling().status is CheckStatus.OK


@pytest.mark.parametrize("probe", [doctor.hint_faults, doctor.kernel_counters])
@pytest.mark.parametrize(("mode", "status"), [("0", CheckStatus.INFO), ("1", CheckStatus.OK)])
def test_sources_that_rest_on_the_kernels_balancing(
    tmp_path: Path, probe: Callable[[Path], Check], mode: str, status: CheckStatus
) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/numa_balancing").write_text(f"{mode}\n")
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/sched").write_bytes(Path("/proc/self/sched").read_bytes())
    check = probe(tmp_path)
    assert check.status is status
    assert (check.fix is None) == (status is CheckStatus.OK)
    assert check.fix is None or check.fix.startswith("as root: sysctl -w kernel.numa_balancing=1")


def test_every_probe_runs_on_this_machine_and_none_has_the_same_name() -> None:
    checks = doctor.examine()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names) == 45
    by_name = {check.name: check for check in checks}
    assert by_name["move-pages-query"].status is CheckStatus.OK
    assert by_name["move-pages-move"].status is CheckStatus.OK
    assert by_name["pidfd-open"].status is CheckStatus.OK
    assert os.uname().release in by_name["kernel"].seen
    assert all(check.fix for check in checks if check.status in {CheckStatus.WARNING, CheckStatus.FAILURE})


def test_an_empty_root_makes_no_probe_raise(tmp_path: Path) -> None:
    assert {check.name for check in doctor.examine(tmp_path)} == {check.name for check in doctor.examine()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process of another user")
def test_the_foreign_process_made_for_the_test_belongs_to_nobody_and_is_gone_afterwards() -> None:
    pids = doctor.foreign_pids()
    pid = next(pids)
    assert Path(f"/proc/{pid}").stat().st_uid == doctor.NOBODY
    pids.close()
    assert not Path(f"/proc/{pid}").exists()
