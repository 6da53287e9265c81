"""What all sources together say of the machine and of a process, how often each is read, and what a failure does."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.neighbours.watch import Neighbours
from balancerd.model.ids import CpuId
from balancerd.model.manager import MACHINE_WIDE, Manager, ManagerFinding
from balancerd.model.sample import ProcessSample
from tests.unit.fakes import make_process, make_topology
from tests.unit.kernel.neighbours.test_damon import kdamond
from tests.unit.kernel.neighbours.test_kubelet import CPU_STATIC, MEMORY_STATIC, UID
from tests.unit.kernel.neighbours.test_libvirt import status
from tests.unit.kernel.trees import stat_line, write_tree

TOPOLOGY = make_topology()
SCOPE = r"/machine.slice/machine-qemu\x2d3\x2dweb.scope"
POD = f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-3f1e.scope"
UNIT = "etc/systemd/system/a.service"
BIND = "[Service]\nNUMAPolicy=bind\nNUMAMask=0\n"
GUEST = {"run/libvirt/qemu/web.xml": status("<vcpu cpuset='1'>1</vcpu>", pid="100")}
ONE_CPU = frozenset({CpuId(1)})


def neighbours(root: Path, files: Mapping[str, str | bytes] | None = None) -> Neighbours:
    write_tree(root, {"proc/1/comm": "systemd\n", **(files or {})})
    return Neighbours(procfs=root / "proc", sysfs=root / "sys", root=root, cgroupfs=root / "sys/fs/cgroup")


def look(watch: Neighbours, now: float = 0.0) -> dict[Manager, ManagerFinding]:
    return {found.manager: found for found in watch.look(TOPOLOGY, now)}


def program(pid: int, name: str) -> dict[str, str]:
    uids = f"Name:\t{name}\nUid:\t0\t0\t0\t0\n"
    return {f"proc/{pid}/comm": f"{name}\n", f"proc/{pid}/cmdline": f"{name}\0", f"proc/{pid}/status": uids}


def test_on_a_quiet_machine_every_manager_is_told_of_and_none_is_active(tmp_path: Path) -> None:
    found = look(neighbours(tmp_path))
    assert set(found) == set(Manager) - {Manager.MEMPOLICY, Manager.AFFINITY}
    for manager, finding in found.items():
        assert finding == ManagerFinding(manager=manager, active=False)


@pytest.mark.parametrize(
    ("files", "manager", "detail"),
    [
        (program(7, "numad"), Manager.NUMAD, "running with pid 7"),
        (program(7, "memtierd") | program(9, "memtierd"), Manager.MEMTIERD, "running with pid 7, 9"),
        (program(7, "katalyst-agent"), Manager.KATALYST, "running with pid 7"),
        ({f"sys/{k}": v for k, v in kdamond(0, "on", "migrate_hot").items()}, Manager.DAMOS, "kdamond 0: migrate_hot"),
        ({"proc/sys/kernel/numa_balancing": "2\n"}, Manager.KERNEL_BALANCING, "kernel.numa_balancing=2"),
        (
            {"var/lib/kubelet/cpu_manager_state": CPU_STATIC},
            Manager.KUBELET_CPU,
            "policy static; placed: containers 2, pods 1",
        ),
        (
            {"var/lib/kubelet/memory_manager_state": MEMORY_STATIC},
            Manager.KUBELET_MEMORY,
            "policy Static; placed: containers 1, pods 1",
        ),
        (GUEST, Manager.LIBVIRT, "1 of 1 guests: web"),
        (
            {f"etc/systemd/system/{name}.service": BIND for name in "abcdefg"},
            Manager.NUMA_POLICY,
            "set for a.service, b.service, c.service, d.service, e.service and 2 more",
        ),
    ],
)
def test_each_manager_is_found_with_its_detail_and_its_fix_and_no_other_is(
    tmp_path: Path, files: dict[str, str | bytes], manager: Manager, detail: str
) -> None:
    write_tree(tmp_path, files)
    for pid in (7, 9):
        if (tmp_path / f"proc/{pid}").exists():
            (tmp_path / f"proc/{pid}/exe").symlink_to("/usr/bin/" + (tmp_path / f"proc/{pid}/comm").read_text().strip())
    found = look(neighbours(tmp_path))
    assert [each for each, finding in found.items() if finding.active] == [manager]
    assert found[manager].detail == detail
    assert found[manager].fix
    assert found[manager].unreadable is None


@pytest.mark.parametrize(
    ("changes", "manager", "detail"),
    [
        ({}, None, ""),
        ({"cgroup": "/system.slice/b.service"}, None, ""),
        ({"cgroup": "/system.slice/a.service"}, Manager.NUMA_POLICY, "unit a.service: NUMAPolicy=bind NUMAMask=0 in "),
        (
            {"cgroup": "/system.slice/a.service/sub"},
            Manager.NUMA_POLICY,
            "unit a.service: NUMAPolicy=bind NUMAMask=0 in ",
        ),
        ({"cgroup": "/bound.slice/c.service"}, Manager.NUMA_POLICY, "unit bound.slice: AllowedMemoryNodes=0 in "),
        ({"cgroup": "/x.slice/x.service/a.service"}, None, ""),  # somebody else's a.service
        ({"cgroup": f"{SCOPE}/libvirt/emulator"}, Manager.LIBVIRT, "guest web: libvirt pins its virtual CPUs: <vcpu "),
        ({"comm": "qemu-system-x86", "cgroup": None}, Manager.LIBVIRT, "guest web: libvirt pins its virtual CPUs: "),
        ({"id": make_process(101).id, "cgroup": SCOPE}, None, ""),
        (
            {"cgroup": POD, "cpus_allowed": ONE_CPU},
            Manager.KUBELET_CPU,
            f"pod {UID}: the kubelet's CPU manager gave it ",
        ),
        ({"cgroup": POD}, None, ""),  # a container beside it that may run everywhere
        ({"cpus_allowed": ONE_CPU}, Manager.AFFINITY, "it may run on CPUs 1 of 0-3"),
        ({"cpus_allowed": frozenset(map(CpuId, range(256)))}, None, ""),  # the mask of a machine with room for more
        ({"cpus_allowed": None, "cgroup": None}, None, ""),
    ],
)
def test_who_holds_a_process_and_how(
    tmp_path: Path, changes: dict[str, Any], manager: Manager | None, detail: str
) -> None:
    files: dict[str, str | bytes] = {UNIT: BIND, "var/lib/kubelet/cpu_manager_state": CPU_STATIC, **GUEST}
    files["etc/systemd/system/bound.slice.d/x.conf"] = "[Slice]\nAllowedMemoryNodes=0\n"
    watch = neighbours(tmp_path, files)
    look(watch)
    process = make_process(**changes)
    for _ in range(2):  # the second answer is remembered
        told = watch.annotate(process)
        assert told.manager == manager
        assert told.manager_detail.startswith(detail)
        assert bool(told.manager_detail) == bool(detail)


def test_a_process_of_which_nothing_is_to_be_said_stays_the_very_same(tmp_path: Path) -> None:
    watch = neighbours(tmp_path, {UNIT: BIND})
    look(watch)
    plain, placed = make_process(), make_process(cgroup="/system.slice/a.service")
    assert watch.annotate(plain) is plain
    told = watch.annotate(placed)
    assert watch.annotate(told) is told
    assert watch.annotate(replace(plain, manager=Manager.LIBVIRT, manager_detail="x")) == plain


def test_a_manager_that_goes_lets_its_processes_go(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {UNIT: BIND, "var/lib/kubelet/cpu_manager_state": CPU_STATIC, **GUEST}
    watch = neighbours(tmp_path, files)
    look(watch)
    placed: tuple[ProcessSample, ...] = (
        make_process(cgroup="/system.slice/a.service"),
        make_process(cgroup=POD, cpus_allowed=frozenset({CpuId(1), CpuId(2)})),
        make_process(cgroup=SCOPE),
    )
    assert [hold and hold.manager for hold in map(watch.of, placed)] == [
        Manager.NUMA_POLICY,
        Manager.KUBELET_CPU,
        Manager.LIBVIRT,
    ]
    for path in files:
        (tmp_path / path).unlink()
    look(watch, 60.0)
    assert [hold and hold.manager for hold in map(watch.of, placed)] == [None, Manager.AFFINITY, None]


def test_guests_whose_files_may_not_be_read_are_told_by_their_cgroups(tmp_path: Path) -> None:
    cgroup = f"sys/fs/cgroup{SCOPE}/libvirt/vcpu0/cpuset.cpus"
    watch = neighbours(tmp_path, {"run/libvirt/qemu/web.xml": "<", cgroup: "2\n"})
    assert (look(watch)[Manager.LIBVIRT].unreadable or "").startswith(f"{tmp_path}/run/libvirt/qemu/web.xml")
    hold = watch.of(make_process(cgroup=f"{SCOPE}/libvirt/emulator"))
    assert hold is not None
    assert hold.detail == "guest web: libvirt pins its virtual CPUs: cpuset.cpus 2"
    (tmp_path / cgroup).write_text("\n")
    look(watch, 30.0)
    assert watch.of(make_process(cgroup=f"{SCOPE}/libvirt/emulator")) is None


def test_a_thread_of_damon_whose_schemes_are_hidden_counts_as_one_that_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from balancerd.kernel.neighbours import watch as module
    from balancerd.kernel.neighbours.damon import Schemes

    hidden = Schemes(unreadable="/sys/.../state", suspect=True)
    monkeypatch.setattr(module, "read_schemes", lambda _sysfs: hidden)
    assert not look(neighbours(tmp_path))[Manager.DAMOS].active
    write_tree(
        tmp_path,
        {"proc/77/comm": "kdamond.0\n", "proc/77/stat": stat_line(77, "kdamond.0", start_ticks=1, flags=0x200000)},
    )
    found = look(neighbours(tmp_path))[Manager.DAMOS]
    assert (found.active, found.pids, found.unreadable) == (True, (77,), "/sys/.../state")
    monkeypatch.setattr(module, "read_schemes", lambda _sysfs: replace(hidden, suspect=False))
    assert not look(neighbours(tmp_path))[Manager.DAMOS].active


def test_each_source_is_read_on_its_own_time(tmp_path: Path) -> None:
    watch = neighbours(tmp_path, {"proc/sys/kernel/numa_balancing": "0\n"})
    read: dict[str, list[float]] = {}
    now = 0.0

    def note(key: str) -> None:
        read.setdefault(key, []).append(now)

    for index, source in enumerate(watch._sources):
        key = "/".join(manager.value for manager in source.managers) or f"verify{index}"
        source.read = partial(note, key)
    while now < 120.0:
        watch.look(TOPOLOGY, now)
        now += 2.0
    assert {key: len(times) for key, times in read.items()} == {
        "numad/memtierd/katalyst/damos": 2,
        "verify1": 12,
        "kernel-balancing": 60,
        "damos": 6,
        "kubelet-cpu/kubelet-memory": 6,
        "libvirt": 4,
        "numa-policy": 2,
    }


def test_a_source_that_fails_is_told_of_and_stops_nothing(tmp_path: Path) -> None:
    watch = neighbours(tmp_path, {"proc/sys/kernel/numa_balancing": "1\n", UNIT: BIND})
    (tmp_path / "proc/sys/kernel/numa_balancing").unlink()
    (tmp_path / "proc/sys/kernel/numa_balancing").mkdir()
    found = look(watch)
    assert "Is a directory" in (found[Manager.KERNEL_BALANCING].unreadable or "")
    assert found[Manager.NUMA_POLICY].active
    (tmp_path / "proc/sys/kernel/numa_balancing").rmdir()
    (tmp_path / "proc/sys/kernel/numa_balancing").write_text("1\n")
    found = look(watch, 0.1)
    assert (found[Manager.KERNEL_BALANCING].active, found[Manager.KERNEL_BALANCING].unreadable) == (True, None)


def test_nodes_that_come_or_go_change_what_a_narrowed_affinity_is(tmp_path: Path) -> None:
    watch = neighbours(tmp_path)
    look(watch)
    process = make_process(cpus_allowed=frozenset({CpuId(0), CpuId(1)}))
    assert watch.annotate(process).manager is Manager.AFFINITY
    watch.look(make_topology(((10, 20), (20, 10))), 1.0)
    assert watch.annotate(process).manager is None


def test_this_machine_can_be_looked_at() -> None:
    watch = Neighbours()
    found = {finding.manager for finding in watch.look(TOPOLOGY, 0.0)}
    assert found == set(Manager) - {Manager.MEMPOLICY, Manager.AFFINITY}
    assert found >= MACHINE_WIDE
