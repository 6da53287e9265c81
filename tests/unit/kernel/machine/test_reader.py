import shutil
from pathlib import Path

import pytest

from balancerd.kernel.machine.reader import MachineReader
from balancerd.kernel.machine.topology import read_topology
from balancerd.model.ids import NodeId
from balancerd.model.machine import HugetlbPool, Machine
from tests.unit.fakes import FakeClock
from tests.unit.kernel.trees import MACHINES, sys_tree, write_tree

ZONEINFO = "Node {0}, zone Normal\n        min {1}\n        low {1}\n        high {1}\n"
N0, N1 = NodeId(0), NodeId(1)
SMALL, LARGE = 2 << 20, 1 << 30


class World:
    """Two nodes of one CPU each below a directory, and a reader of them."""

    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.procfs, self.sysfs = root / "proc", root / "sys"
        sys_tree(
            self.sysfs,
            nodes={0: ("0", 1024), 1: ("1", 512)},
            distances={0: "10 20", 1: "20 10"},
            online_cpus="0-1",
            has_memory="0-1",
        )
        self.mark(1)
        self.topology = read_topology(self.sysfs)
        self.reader = MachineReader(self.clock, str(self.procfs), str(self.sysfs))

    def mark(self, pages: int) -> None:
        write_tree(self.procfs, {"zoneinfo": ZONEINFO.format(0, pages) + ZONEINFO.format(1, 2 * pages)})

    def pool(self, node: int, page_bytes: int, total: int, free: int) -> None:
        name = f"hugepages-{page_bytes >> 10}kB"
        folder = f"devices/system/node/node{node}/hugepages/{name}"
        write_tree(self.sysfs, {f"{folder}/nr_hugepages": f"{total}\n", f"{folder}/free_hugepages": f"{free}\n"})
        every = sum(int(path.read_text()) for path in self.sysfs.glob(f"devices/system/node/*/*/{name}/nr_hugepages"))
        write_tree(self.sysfs, {f"kernel/mm/hugepages/{name}/nr_hugepages": f"{every}\n"})

    def read(self) -> Machine:
        return self.reader.read(self.topology)


@pytest.fixture
def machine(tmp_path: Path) -> World:
    return World(tmp_path)


def pool(page_bytes: int, total: int, free: int) -> HugetlbPool:
    return HugetlbPool(page_bytes=page_bytes, total_pages=total, free_pages=free)


def test_the_captured_machine_is_read_whole() -> None:
    captured = MACHINES / "memory-only-tier-6.12"
    topology = read_topology(captured / "sys")
    machine = MachineReader(FakeClock(), str(captured / "proc"), str(captured / "sys")).read(topology)
    assert list(machine.nodes) == [0, 1, 2]
    slow = machine.nodes[NodeId(2)]
    assert slow.free_blocks == (1, 3, 1, 3, 2, 2, 0, 1, 2, 2, 234)
    assert (slow.tier, machine.nodes[N0].tier) == (180, 4)
    assert slow.link is not None
    assert slow.link.initiators == {0}
    assert slow.min_watermark_bytes is not None
    assert slow.low_watermark_bytes is not None
    assert slow.high_watermark_bytes is not None
    assert 0 < slow.min_watermark_bytes < slow.low_watermark_bytes < slow.high_watermark_bytes
    assert slow.hugetlb == (pool(SMALL, 0, 0), pool(LARGE, 0, 0))
    assert [state.load_ratio for state in machine.nodes.values()] == [None, None, None]
    assert (machine.numa_balancing, machine.demotion) == (0, False)
    assert (machine.transparent_huge_pages, machine.transparent_huge_defrag) == ("always", "madvise")


def test_what_the_kernel_does_not_tell_is_not_known(machine: World) -> None:
    state = machine.read().nodes[N1]
    assert (state.load_ratio, state.free_blocks, state.link, state.tier, state.hugetlb) == (None, None, None, None, ())
    told = machine.read()
    assert (told.numa_balancing, told.demotion, told.transparent_huge_pages) == (None, None, None)


def test_load_is_since_the_reading_before(machine: World) -> None:
    seen = []
    for busy, idle in ((0, 0), (30, 70), (130, 70)):
        write_tree(machine.procfs, {"stat": f"cpu 0\ncpu0 {busy} 0 0 {idle} 0 0 0 0\ncpu1 0 0 0 {idle} 0 0 0 0\n"})
        seen.append([state.load_ratio for state in machine.read().nodes.values()])
    assert seen == [[None, None], [0.3, 0.0], [1.0, None]]


def test_free_blocks_are_read_each_time_and_watermarks_once_a_minute(machine: World) -> None:
    seen = []
    for number in range(1, 5):
        machine.mark(number)
        write_tree(machine.procfs, {"buddyinfo": f"Node 0, zone Normal {number}\n"})
        state = machine.read().nodes[N0]
        seen.append((state.free_blocks, state.high_watermark_bytes, machine.reader.high_watermarks(machine.topology)))
        machine.clock.time += 30
    assert seen == [
        ((1,), 4096, {0: 4096, 1: 8192}),
        ((2,), 4096, {0: 4096, 1: 8192}),
        ((3,), 3 * 4096, {0: 3 * 4096, 1: 6 * 4096}),
        ((4,), 3 * 4096, {0: 3 * 4096, 1: 6 * 4096}),
    ]


def test_a_new_topology_has_everything_read_anew(machine: World) -> None:
    assert machine.read().nodes[N0].high_watermark_bytes == 4096
    machine.mark(5)
    write_tree(machine.sysfs, {"devices/system/node/online": "0\n", "devices/system/node/node0/distance": "10\n"})
    machine.topology = read_topology(machine.sysfs)
    assert {node: state.high_watermark_bytes for node, state in machine.read().nodes.items()} == {0: 5 * 4096}


def test_hugetlb_pools_are_up_to_date_whether_they_had_pages_before_or_not(machine: World) -> None:
    for node, page_bytes in ((0, SMALL), (1, SMALL), (0, LARGE)):
        machine.pool(node, page_bytes, 0, 0)
    assert machine.read().nodes[N0].hugetlb == (pool(SMALL, 0, 0), pool(LARGE, 0, 0))
    machine.pool(1, SMALL, 8, 5)
    told = machine.read()
    assert told.nodes[N0].hugetlb == (pool(SMALL, 0, 0), pool(LARGE, 0, 0))
    assert told.nodes[N1].hugetlb == (pool(SMALL, 8, 5),)
    machine.pool(1, SMALL, 8, 0)
    assert machine.read().nodes[N1].hugetlb == (pool(SMALL, 8, 0),)


@pytest.mark.parametrize(("total", "free", "in_use"), [(0, 0, False), (8, 8, False), (8, 7, True)])
@pytest.mark.parametrize("node", [0, 1])
def test_hugetlb_is_in_use_when_a_pool_has_pages_that_are_not_free(
    machine: World, node: int, total: int, free: int, in_use: bool
) -> None:
    machine.pool(node, SMALL, total, free)
    machine.pool(node, LARGE, 0, 0)
    assert machine.read().is_hugetlb_in_use is in_use


def test_a_kernel_without_hugetlb_uses_none(machine: World) -> None:
    assert machine.read().is_hugetlb_in_use is False


def test_a_node_that_vanishes_between_two_files_has_no_pools(machine: World) -> None:
    for node in (0, 1):
        machine.pool(node, SMALL, 4, 4)
    machine.read()
    shutil.rmtree(machine.sysfs / "devices/system/node/node1")
    told = machine.read()
    assert told.nodes[N0].hugetlb == (pool(SMALL, 4, 4),)
    assert told.nodes[N1].hugetlb == ()
