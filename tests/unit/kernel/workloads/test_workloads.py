"""From a process to its workload, and what is remembered on the way."""

from pathlib import Path
from typing import Any

import pytest

from balancerd.config.schema import RuleConfig, WorkloadConfig
from balancerd.engine.rules import compile_groups
from balancerd.kernel.workloads.workloads import Workloads
from balancerd.model.workload import Workload, WorkloadKind
from tests.unit.fakes import FakeClock, make_process
from tests.unit.kernel.trees import write_tree

ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961"
UID = "2c48913c-b29f-11e7-9350-020968147796"
IN_POD = f"/kubepods/burstable/pod{UID}/{ID}"
LOGS = f"var/log/containers/web-0_shop_nginx-{ID}.log"
SHOP = compile_groups([WorkloadConfig(name="shop", match=(RuleConfig(workload="shop/.*"), RuleConfig(comm="php")))])


def unit(name: str) -> Workload:
    return Workload(kind=WorkloadKind.UNIT, name=name, cgroup=f"/system.slice/{name}")


def test_a_process_belongs_to_what_its_cgroup_says(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), root=write_tree(tmp_path, {LOGS: ""}))
    assert workloads.of(make_process(cgroup="/system.slice/ssh.service")) == unit("ssh.service")
    assert workloads.of(make_process(cgroup=IN_POD)) == Workload(
        kind=WorkloadKind.POD, name="shop/web-0/nginx", cgroup=IN_POD
    )
    assert workloads.of(make_process(cgroup="/")) == Workload(kind=WorkloadKind.OTHER, name="/")
    assert workloads.of(make_process(cgroup=None)) is None


def test_without_names_the_short_id_is_the_name(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), root=tmp_path)
    names = [
        None if (found := workloads.of(make_process(cgroup=cgroup))) is None else found.name
        for cgroup in (IN_POD, f"/docker/{ID}", f"/kubepods/burstable/pod{UID}", f"/system.slice:docker:{ID[:20]}")
    ]
    assert names == ["9bca8d63d5fa", "9bca8d63d5fa", f"pod/{UID}", "9bca8d63d5fa"]


def test_the_first_group_that_matches_beats_the_cgroup(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), groups=SHOP, root=write_tree(tmp_path, {LOGS: ""}))
    group = Workload(kind=WorkloadKind.GROUP, name="shop")
    assert workloads.of(make_process(cgroup=IN_POD)) == group
    assert workloads.of(make_process(comm="php", cgroup="/system.slice/php.service")) == group
    assert workloads.of(make_process(comm="php", cgroup=None)) == group
    assert workloads.of(make_process(cgroup="/system.slice/ssh.service")) == unit("ssh.service")
    workloads.use(())
    assert workloads.of(make_process(comm="php", cgroup="/system.slice/php.service")) == unit("php.service")


@pytest.mark.parametrize(
    "change", [{"comm": "nginx"}, {"uid": 1}, {"cgroup": "/"}, {"exe": "/bin/x"}, {"cmdline": "x"}, {"pid": 101}]
)
def test_a_process_that_becomes_something_else_is_judged_again(tmp_path: Path, change: dict[str, Any]) -> None:
    everything: dict[str, Any] = {
        "pid": 100,
        "comm": "php",
        "uid": 0,
        "cgroup": "/batch/a",
        "exe": "/bin/php",
        "cmdline": "php -f",
    }
    rule = RuleConfig(comm="php", uid=(0,), cgroup="/batch/a", exe="/bin/php", cmdline="php -f", workload="/batch/a")
    groups = compile_groups([WorkloadConfig(name="a", match=(rule,))])
    workloads = Workloads(FakeClock(), groups=groups, root=tmp_path)
    assert workloads.of(make_process(**everything)) == Workload(kind=WorkloadKind.GROUP, name="a")
    changed = workloads.of(make_process(**{**everything, **change}))
    assert changed is not None
    assert (changed.kind is WorkloadKind.GROUP) == ("pid" in change)


def test_a_new_configuration_judges_everyone_again(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), groups=SHOP, root=tmp_path)
    php = make_process(comm="php", cgroup="/")
    assert workloads.of(php) == Workload(kind=WorkloadKind.GROUP, name="shop")
    workloads.use(compile_groups([WorkloadConfig(name="web", match=(RuleConfig(comm="php"),))]))
    assert workloads.of(php) == Workload(kind=WorkloadKind.GROUP, name="web")


def test_the_judgement_of_processes_is_bounded(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), groups=SHOP, root=tmp_path)
    for pid in range(17_000):
        workloads.of(make_process(pid, cgroup="/"))
    assert len(workloads._judged) <= 16_384


def test_a_process_is_annotated_with_its_workload(tmp_path: Path) -> None:
    process = make_process(cgroup="/system.slice/ssh.service")
    workloads = Workloads(FakeClock(), root=tmp_path)
    annotated = workloads.annotate(process)
    assert annotated.workload == unit("ssh.service")
    assert annotated.id == process.id
    assert workloads.annotate(annotated) is annotated


def test_a_name_that_was_missing_is_looked_for_again_after_half_a_minute(tmp_path: Path) -> None:
    clock = FakeClock()
    workloads = Workloads(clock, root=tmp_path)
    process = make_process(cgroup=IN_POD)

    def name() -> str:
        found = workloads.of(process)
        assert found is not None
        return found.name

    assert name() == "9bca8d63d5fa"
    write_tree(tmp_path, {LOGS: ""})
    clock.wait_until(clock.now() + 29.0)
    assert name() == "9bca8d63d5fa"
    clock.wait_until(clock.now() + 1.0)
    assert name() == "shop/web-0/nginx"
    (tmp_path / LOGS).unlink()
    clock.wait_until(clock.now() + 299.0)
    assert name() == "shop/web-0/nginx"
    clock.wait_until(clock.now() + 1.0)
    assert name() == "9bca8d63d5fa"


def test_a_cgroup_is_parsed_once(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), root=tmp_path)
    first, second = (workloads.of(make_process(pid, cgroup="/system.slice/ssh.service")) for pid in (1, 2))
    assert first is second


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    workloads = Workloads(FakeClock(), root=tmp_path)
    for index in range(5000):
        workloads.of(make_process(cgroup=f"/batch/job-{index}"))
    assert len(workloads._known) <= 4096


MOUNTINFO = "36 26 0:33 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"


def test_the_memory_of_whole_cgroups_is_read_by_node(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/mountinfo": MOUNTINFO,
            "sys/fs/cgroup/a.service/memory.numa_stat": "anon N0=4096 N1=8192\nfile_mapped N0=0 N1=4096\n",
            "sys/fs/cgroup/broken.service/memory.numa_stat": "anon N0=x\n",
        },
    )
    workloads = Workloads(FakeClock(), procfs=f"{root}/proc", root=root)
    found = workloads.bytes_by_node(["/a.service", "/gone.service", "/broken.service", "/../elsewhere"])
    assert found == {"/a.service": {0: 4096, 1: 12288}}


def test_how_long_the_tasks_of_whole_cgroups_wait_for_memory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_tree(
        tmp_path,
        {
            "proc/self/mountinfo": MOUNTINFO,
            "sys/fs/cgroup/a.service/memory.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=59291\n",
            "sys/fs/cgroup/broken.service/memory.pressure": "some avg10=x\n",
            "None/memory.pressure": "some avg10=2.50 avg60=0.00 avg300=0.00 total=1\n",
        },
    )
    workloads = Workloads(FakeClock(), procfs=f"{root}/proc", root=root)
    cgroups = ["/a.service", "/gone.service", "/broken.service", "/../elsewhere"]
    assert workloads.memory_pressure(cgroups) == {"/a.service": 0.015}


def test_without_a_mount_nothing_is_known_of_memory(tmp_path: Path) -> None:
    assert Workloads(FakeClock(), procfs=str(tmp_path), root=tmp_path).memory_pressure(["/a.service"]) == {}
    assert Workloads(FakeClock(), procfs=str(tmp_path), root=tmp_path).bytes_by_node(["/a.service"]) == {}


def test_what_could_not_be_read_can_be_asked_for(tmp_path: Path) -> None:
    docker = f"var/lib/docker/containers/{ID}/config.v2.json"
    workloads = Workloads(FakeClock(), root=write_tree(tmp_path, {docker: "{"}))
    assert workloads.unreadable == {}
    workloads.of(make_process(cgroup=f"/docker/{ID}"))
    assert list(workloads.unreadable) == [f"{tmp_path}/var/lib/docker/containers"]
