"""The kubelet's checkpoints, and who they hold: texts with the keys and types of Kubernetes 1.29."""

import os
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.neighbours.cgroup_names import PodCgroup
from balancerd.kernel.neighbours.kubelet import parse_cpu_manager_state, parse_memory_manager_state
from balancerd.kernel.neighbours.kubelet_files import KubeletFiles
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.manager import Hold, Manager
from tests.unit.fakes import make_process
from tests.unit.kernel.trees import write_tree

UID = "8f5cbd4b-1234-4d66-8c02-ba91f0b7f5a5"
POD = PodCgroup(uid=UID, guaranteed=True)
ONLINE = frozenset(map(CpuId, range(4)))
CPU_STATIC = (
    '{"policyName":"static","defaultCpuSet":"0,3","entries":{"' + UID + '":{"db":"1-2","side":"3"}},"checksum":1354180}'
)
CPU_EMPTY = '{"policyName":"static","defaultCpuSet":"1,3-15,17,19-31","checksum":1902567528}'
CPU_NONE = '{"policyName":"none","defaultCpuSet":"","checksum":1353318690}'
MEMORY_STATIC = (
    '{"policyName":"Static","machineState":{"0":{"numberOfAssignments":1,"memoryMap":{"memory":{"total":99759243264,'
    '"systemReserved":10538188800,"allocatable":78483636224,"reserved":536870912,"free":77946765312}},"cells":[0]}},'
    '"entries":{"' + UID + '":{"db":[{"numaAffinity":[0],"type":"memory","size":536870912},'
    '{"numaAffinity":[1],"type":"hugepages-2Mi","size":2097152}]}},"checksum":2552710201}'
)


def test_the_cpus_of_each_container_are_read_by_pod() -> None:
    state = parse_cpu_manager_state(CPU_STATIC.encode(), "x")
    assert state.is_static
    assert state.own_by_pod == {UID: (frozenset({1, 2}), frozenset({3}))}


def test_the_nodes_of_a_container_are_those_of_all_its_blocks() -> None:
    state = parse_memory_manager_state(MEMORY_STATIC.encode(), "x")
    assert state.is_static
    assert state.own_by_pod == {UID: (frozenset({0, 1}),)}


@pytest.mark.parametrize(("text", "is_static"), [(CPU_EMPTY, True), (CPU_NONE, False)])
def test_a_checkpoint_without_entries_has_a_policy_all_the_same(text: str, is_static: bool) -> None:
    state = parse_cpu_manager_state(text.encode(), "x")
    assert (state.is_static, state.own_by_pod) == (is_static, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        "{}",
        '{"policyName":1}',
        '{"policyName":"static","entries":{"a":"0-1"}}',
        CPU_STATIC.replace("1-2", "two"),
    ],
)
def test_what_is_no_checkpoint_is_an_error_with_its_path(text: str) -> None:
    with pytest.raises(ParseError, match=r"^state:0: not a checkpoint"):
        parse_cpu_manager_state(text.encode(), "state")


def files(root: Path, *, cpu: str | None = None, memory: str | None = None) -> KubeletFiles:
    given = {"cpu_manager_state": cpu, "memory_manager_state": memory}
    write_tree(root, {name: text for name, text in given.items() if text is not None})
    kubelet = KubeletFiles(root)
    kubelet.look()
    return kubelet


@pytest.mark.parametrize(
    ("cpus", "mems", "manager"),
    [
        ({1, 2}, {0, 1, 2}, Manager.KUBELET_CPU),
        ({3}, {0, 1, 2}, Manager.KUBELET_CPU),
        ({0, 3}, {0, 1, 2}, None),  # what all share
        ({1, 2}, {0, 1}, Manager.KUBELET_MEMORY),
        ({0, 3}, {1}, Manager.KUBELET_MEMORY),
        (None, {0, 1, 2}, Manager.KUBELET_CPU),
    ],
)
def test_a_container_is_held_when_it_may_use_nothing_but_its_own(
    tmp_path: Path, cpus: set[int] | None, mems: set[int], manager: Manager | None
) -> None:
    process = make_process(
        cpus_allowed=None if cpus is None else frozenset(map(CpuId, cpus)), mems_allowed=frozenset(map(NodeId, mems))
    )
    hold = files(tmp_path, cpu=CPU_STATIC, memory=MEMORY_STATIC).hold(process, POD, ONLINE)
    assert (None if hold is None else hold.manager) == manager
    other = PodCgroup(uid="0", guaranteed=True)
    assert files(tmp_path, cpu=CPU_STATIC, memory=MEMORY_STATIC).hold(process, other, ONLINE) is None


def test_the_text_names_the_pod_and_its_cpus(tmp_path: Path) -> None:
    process = make_process(cpus_allowed=frozenset({CpuId(1)}))
    told = f"pod {UID}: the kubelet's CPU manager gave it CPUs 1-2"
    assert files(tmp_path, cpu=CPU_STATIC).hold(process, POD, ONLINE) == Hold(manager=Manager.KUBELET_CPU, detail=told)


def test_a_checkpoint_that_changes_is_read_again_and_one_that_goes_is_forgotten(tmp_path: Path) -> None:
    kubelet = files(tmp_path, cpu=CPU_NONE)
    assert kubelet.cpu.explain() == "policy none; placed: containers 0, pods 0"
    write_tree(tmp_path, {"cpu_manager_state": CPU_STATIC})
    kubelet.look()
    assert kubelet.cpu.explain() == "policy static; placed: containers 2, pods 1"
    write_tree(tmp_path, {"cpu_manager_state": "{"})
    kubelet.look()
    assert kubelet.cpu.state is None
    assert "not a checkpoint" in (kubelet.cpu.unreadable or "")
    (tmp_path / "cpu_manager_state").unlink()
    kubelet.look()
    assert (kubelet.cpu.state, kubelet.cpu.unreadable) == (None, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(
    ("changes", "guaranteed", "held"),
    [
        ({"cpus_allowed": frozenset({CpuId(1)})}, True, True),
        ({"cpus_allowed": frozenset({CpuId(1)})}, False, False),
        ({"cpus_allowed": ONLINE}, True, False),
        ({"cpus_allowed": None}, True, False),
    ],
)
def test_who_may_not_read_the_checkpoint_takes_narrowed_guaranteed_pods_for_placed(
    tmp_path: Path, changes: dict[str, Any], guaranteed: bool, held: bool
) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o755)
    write_tree(tmp_path, {"cpu_manager_state": CPU_STATIC})
    (tmp_path / "cpu_manager_state").chmod(0o600)
    os.seteuid(65534)
    try:
        kubelet = KubeletFiles(tmp_path)
        kubelet.look()
    finally:
        os.seteuid(0)
    assert kubelet.cpu.unreadable == str(tmp_path / "cpu_manager_state")
    hold = kubelet.hold(make_process(**changes), PodCgroup(uid="0", guaranteed=guaranteed), ONLINE)
    assert (hold is not None) == held
