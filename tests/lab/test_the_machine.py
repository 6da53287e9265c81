"""What is read of the machine, on kernels that have it; and hotplug under a daemon that ticks on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.machine.reader import MachineReader
from balancerd.kernel.machine.topology import read_topology
from balancerd.model.ids import NodeId
from balancerd.model.machine import Machine
from tests.lab import topology
from tests.lab.hotplug import (
    DIMM,
    SECONDS,
    SYSTEM,
    bring_everything_back,
    mem_total_bytes,
    memory_blocks,
    node_numbers,
    node_of,
    set_blocks,
    set_cpu,
)
from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, mib_by_node

pytestmark = pytest.mark.timeout(240)

BRISK = {"tick_interval": "500ms", "select.min_age": "1s"}
MIB = 48


def read_machine() -> Machine:
    return MachineReader(MonotonicClock()).read(read_topology(Path("/sys")))


def assert_no_tick_failed(daemon: Balancerd) -> None:
    status = daemon.status()
    assert status["totals"]["failed_ticks"] == 0, daemon.log_text()
    assert daemon.log_lines("tick failed") == []
    assert [line["policy_errors"] for line in daemon.log_lines("tick") if line.get("policy_errors")] == []
    assert status["policy_errors"] == {}


@pytest.fixture
def everything_online() -> Iterator[None]:
    yield
    bring_everything_back()


@pytest.mark.topology("memory-only-tier")
def test_links_and_tiers_are_what_the_hmat_says() -> None:
    wanted = topology.load("memory-only-tier")
    machine = read_machine()
    for node in wanted.nodes:
        best = min((hop for hop in wanted.localities if hop.target == node.id), key=lambda hop: hop.latency_ns)
        link = machine.nodes[NodeId(node.id)].link
        assert link is not None
        assert link.read_latency_seconds == link.write_latency_seconds == best.latency_ns / 1e9
        assert link.read_bytes_per_second == link.write_bytes_per_second == best.bandwidth_mib_per_second << 20
        assert link.initiators == {best.initiator}
    tiers = [state.tier for state in machine.nodes.values() if state.tier is not None]
    assert tiers[0] == tiers[1] < tiers[2]


@pytest.mark.topology("four-nodes")
def test_free_blocks_watermarks_and_settings_are_those_of_this_kernel() -> None:
    machine = read_machine()
    for node, state in machine.nodes.items():
        assert state.free_blocks is not None
        free_bytes = sum(count << order for order, count in enumerate(state.free_blocks)) * 4096
        free_line = (SYSTEM / f"node/node{node}/meminfo").read_text(encoding="ascii").splitlines()[1]
        # the zone DMA of node 0 is left out, and pages on the lists of CPUs are in no block
        assert free_bytes == pytest.approx(int(free_line.split()[3]) << 10, abs=32 << 20)
        marks = (state.min_watermark_bytes, state.low_watermark_bytes, state.high_watermark_bytes)
        assert None not in marks
        assert sorted(marks, key=lambda mark: mark or 0) == list(marks)
        assert (state.link, state.load_ratio) == (None, None)
    assert machine.numa_balancing == 0
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    assert f"[{machine.transparent_huge_pages}]" in enabled


@pytest.mark.topology("four-nodes")
def test_the_load_of_a_node_is_that_of_its_cpus() -> None:
    reader, nodes = MachineReader(MonotonicClock()), read_topology(Path("/sys"))
    with Hog("base", 16, touch_cpu=2, spin_cpu=2, busy_percent=95):
        reader.read(nodes)
        time.sleep(3.0)
        loads = {int(node): state.load_ratio for node, state in reader.read(nodes).nodes.items()}
    print(loads)
    busy = loads.pop(2)
    assert busy is not None
    assert busy > 0.3  # all virtual CPUs share one core, which a busy host takes away for a while
    assert all(load is not None and load < busy for load in loads.values())


@pytest.mark.topology("four-nodes")
def test_pools_are_told_by_node_and_size() -> None:
    pool = SYSTEM / "node/node1/hugepages/hugepages-2048kB/nr_hugepages"
    assert all(pool_.total_pages == 0 for state in read_machine().nodes.values() for pool_ in state.hugetlb)
    pool.write_text("4")
    try:
        told = read_machine()
    finally:
        pool.write_text("0")
    pages = {int(node): [(p.total_pages, p.free_pages) for p in state.hugetlb] for node, state in told.nodes.items()}
    assert pages == {0: [(0, 0)] * 2, 1: [(4, 4), (0, 0)], 2: [(0, 0)] * 2, 3: [(0, 0)] * 2}


@pytest.mark.topology("four-nodes")
@pytest.mark.usefixtures("everything_online")
def test_cpus_and_blocks_of_memory_come_and_go_and_no_tick_fails(tmp_path: Path) -> None:
    with Balancerd(tmp_path, overrides=BRISK) as daemon, Hog("base", MIB, touch_cpu=3, spin_cpu=2) as hog:
        assert node_of(daemon, 3)["cpus"] == "3"
        for _ in range(3):
            set_cpu(3, online=False)
            daemon.wait_for(lambda: node_of(daemon, 3)["cpus"] == "", SECONDS, "node without a CPU")
            daemon.wait_for(lambda: node_of(daemon, 3)["load_ratio"] is None, SECONDS, "node without a load")
            set_cpu(3, online=True)
            daemon.wait_for(lambda: node_of(daemon, 3)["cpus"] == "3", SECONDS, "CPU that is back")
        whole_bytes = mem_total_bytes(3)
        offline = set_blocks(3, "offline")
        print(f"{offline} of {len(memory_blocks(3))} blocks went offline")
        assert offline > 0
        assert mem_total_bytes(3) < whole_bytes
        daemon.wait_for(lambda: node_of(daemon, 3)["total_bytes"] == mem_total_bytes(3), SECONDS, "smaller node")
        assert {each["node"]: each for each in daemon.status()["nodes"]}[3]["total_bytes"] == mem_total_bytes(3)
        set_blocks(3, "online")
        assert mem_total_bytes(3) == whole_bytes
        daemon.wait_for(lambda: node_of(daemon, 3)["total_bytes"] == whole_bytes, SECONDS, "node as it was")
        assert_no_tick_failed(daemon)
        assert hog.end() == Ended(status=0, told=f"verified {MIB * 256} pages")


@pytest.mark.topology("removable-node")
@pytest.mark.usefixtures("everything_online")
def test_a_node_loses_all_memory_gets_it_back_and_goes_for_good_and_no_tick_fails(tmp_path: Path) -> None:
    # The last test of its machine: nothing brings the DIMM back.
    preferred = ("numactl", "--preferred=2")
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0, prefix=preferred) as hog,
    ):
        assert mib_by_node(hog.pid)[2] >= MIB
        there = node_of(daemon, 2)
        assert (there["cpus"], there["total_bytes"]) == ("", mem_total_bytes(2))
        assert there["total_bytes"] == 512 << 20
        assert set_blocks(2, "offline") == len(memory_blocks(2))
        daemon.wait_for(lambda: node_of(daemon, 2)["total_bytes"] == 0, SECONDS, "node without memory")
        assert mib_by_node(hog.pid).get(2, 0.0) == 0.0
        refused = daemon.balancerctl("move", str(hog.pid), "--to", "2")
        assert refused.returncode != 0, refused.stdout
        print(refused.stderr)
        set_blocks(2, "online_movable")
        daemon.wait_for(lambda: node_of(daemon, 2)["total_bytes"] == there["total_bytes"], SECONDS, "memory again")
        (DIMM / "eject").write_text("1")
        daemon.wait_for(lambda: node_numbers(daemon) == [0, 1], SECONDS, "end of the node")
        assert not (SYSTEM / "node/node2").exists()
        lines = daemon.balancerctl("nodes").stdout.splitlines()
        assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
        assert json.loads(daemon.balancerctl("nodes", "--json").stdout)["nodes"][0]["distances"] == {"0": 10, "1": 20}
        daemon.wait_ticks(2)
        assert_no_tick_failed(daemon)
        assert hog.end() == Ended(status=0, told=f"verified {MIB * 256} pages")
