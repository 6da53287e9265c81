from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.topology import parse_distance, parse_node_meminfo, read_online_sets, read_topology
from balancerd.model.ids import NodeId
from tests.unit.kernel.trees import MACHINES, sys_tree


def test_the_captured_machine_with_one_node_is_read() -> None:
    topology = read_topology(MACHINES / "one-node-6.18/sys")
    assert topology.node_ids == (0,)
    assert topology.node_of_cpu == {0: 0, 1: 0}
    assert topology.nodes[0].distances == {0: 10}
    assert topology.memory_nodes == {0}


def test_the_captured_ring_of_four_nodes_is_read() -> None:
    topology = read_topology(MACHINES / "four-nodes-6.12/sys")
    assert topology.node_ids == (0, 1, 2, 3)
    assert [topology.distance(NodeId(1), n) for n in topology.node_ids] == [12, 10, 31, 21]
    assert topology.node_of_cpu == {0: 0, 1: 1, 2: 2, 3: 3}


def test_the_captured_sparse_nodes_leave_possible_ones_out() -> None:
    topology = read_topology(MACHINES / "sparse-nodes-6.12/sys")
    assert topology.node_ids == (0, 2, 5)
    assert topology.nodes[1].distances == {0: 21, 2: 10, 5: 31}
    assert topology.node_of_cpu == {0: 0, 1: 2}


def test_the_captured_memory_only_node_has_memory_and_no_cpu() -> None:
    topology = read_topology(MACHINES / "memory-only-tier-6.12/sys")
    assert topology.nodes[2].cpus == frozenset()
    assert topology.memory_nodes == {0, 1, 2}
    assert topology.nodes[2].total_bytes > 900 << 20


def test_sparse_nodes_take_their_distances_in_the_order_of_the_online_ones(tmp_path: Path) -> None:
    sysfs = sys_tree(
        tmp_path,
        nodes={0: ("0-1", 1024), 3: ("2", 512), 10: ("", 256)},
        distances={0: "10 20 40", 3: "20 10 60", 10: "40 60 10"},
        online_cpus="0-2",
        has_memory="0,3,10",
    )
    topology = read_topology(sysfs)
    assert topology.node_ids == (0, 3, 10)
    assert topology.distance(NodeId(3), NodeId(10)) == 60
    assert topology.nodes[2].cpus == frozenset(), "a memory-only node has no CPU"
    assert topology.node_of_cpu == {0: 0, 1: 0, 2: 3}


def test_a_memoryless_node_is_no_place_for_pages(tmp_path: Path) -> None:
    sysfs = sys_tree(
        tmp_path,
        nodes={0: ("0", 1024), 1: ("1", 0)},
        distances={0: "10 20", 1: "20 10"},
        online_cpus="0-1",
        has_memory="0",
    )
    topology = read_topology(sysfs)
    assert topology.memory_nodes == {0}
    assert topology.node_of_cpu == {0: 0, 1: 1}


def test_an_offline_node_and_an_offline_cpu_are_not_in_the_topology(tmp_path: Path) -> None:
    sysfs = sys_tree(
        tmp_path,
        nodes={0: ("0", 1024), 2: ("3", 1024)},
        distances={0: "10 20", 2: "20 10"},
        online_cpus="0,3",
        has_memory="0,2",
    )
    (sysfs / "devices/system/node/node1").mkdir()  # possible, known to sysfs, not online: it has no files we read
    topology = read_topology(sysfs)
    assert topology.node_ids == (0, 2)
    assert topology.node_of_cpu == {0: 0, 3: 2}


def test_a_cpu_going_offline_changes_the_online_sets(tmp_path: Path) -> None:
    sysfs = sys_tree(tmp_path, nodes={0: ("0-1", 1024)}, distances={0: "10"}, online_cpus="0-1", has_memory="0")
    before = read_online_sets(sysfs)
    assert read_online_sets(sysfs) == before
    (sysfs / "devices/system/cpu/online").write_text("0\n")
    assert read_online_sets(sysfs) != before


def test_distances_that_do_not_fit_the_online_nodes_are_an_error_with_its_file() -> None:
    with pytest.raises(ParseError, match=r"node0/distance:1: 2 distances for 3 online nodes"):
        parse_distance(b"10 20\n", "node0/distance", (NodeId(0), NodeId(1), NodeId(2)))


def test_a_topology_that_stays_inconsistent_is_an_error(tmp_path: Path) -> None:
    sysfs = sys_tree(tmp_path, nodes={0: ("0", 1)}, distances={0: "10 20"}, online_cpus="0", has_memory="0")
    with pytest.raises(ParseError, match="2 distances for 1 online nodes"):
        read_topology(sysfs)


def test_meminfo_leaves_counters_without_a_unit_out() -> None:
    text = (MACHINES / "one-node-6.18/sys/devices/system/node/node0/meminfo").read_bytes()
    found = parse_node_meminfo(text, "meminfo")
    assert found["MemTotal"] % 1024 == 0
    assert found["MemTotal"] > found["MemFree"] > 0
    assert not any(name.startswith("HugePages") for name in found)


def test_meminfo_without_a_total_is_an_error() -> None:
    with pytest.raises(ParseError, match="no MemTotal"):
        parse_node_meminfo(b"Node 0 MemFree: 1 kB\n", "meminfo")
