"""Machines that are not four equal nodes: their topology as we read it, and homecoming where node ids have gaps."""

import json
from pathlib import Path

import pytest

from balancerd.kernel.machine.topology import read_topology
from tests.lab import topology
from tests.lab.conftest import INSIDE
from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, mib_by_node

MIB = 72
BRISK = {"select.min_age": "1s", "tick_interval": "1s"}


@pytest.mark.topology(*topology.names())
def test_the_topology_is_read_as_its_file_says() -> None:
    assert INSIDE is not None
    wanted = topology.load(INSIDE)
    read = read_topology(Path("/sys"))
    assert read.node_ids == wanted.node_ids
    assert read.memory_nodes == set(wanted.node_ids)
    assert [len(node.cpus) for node in read.nodes] == [node.cpus for node in wanted.nodes]
    for node, distances in zip(read.nodes, wanted.distances, strict=True):
        assert node.distances == dict(zip(wanted.node_ids, distances, strict=True))
        assert all(read.node_of_cpu[cpu] == node.id for cpu in node.cpus)


@pytest.mark.topology("sparse-nodes", "memory-only-tier")
@pytest.mark.timeout(180)
def test_memory_comes_home_where_nodes_have_gaps_or_no_cpus(tmp_path: Path) -> None:
    assert INSIDE is not None
    away = 2 if INSIDE == "sparse-nodes" else 1
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=1, spin_cpu=0) as hog,
    ):
        assert mib_by_node(hog.pid)[away] >= MIB
        daemon.wait_for_reason(hog.pid, "well-placed")
        assert mib_by_node(hog.pid)[0] >= MIB
        assert daemon.check_accounts()["moved"] >= MIB * 256
        listed = json.loads(daemon.balancerctl("ps", "--json").stdout)["processes"]
        (told,) = [process for process in listed if process["pid"] == hog.pid]
        assert set(told["bytes_by_node"]) <= {str(node) for node in topology.load(INSIDE).node_ids}
        assert hog.end() == Ended(status=0, told=f"verified {MIB * 256} pages")
