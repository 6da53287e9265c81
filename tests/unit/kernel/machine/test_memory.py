from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.memory import (
    parse_node_memory,
    read_hugetlb_in_use,
    read_memory,
)
from balancerd.model.ids import NodeId
from tests.unit.kernel.trees import sys_tree


def test_memory_is_read_for_each_node_and_one_that_went_offline_is_left_out(tmp_path: Path) -> None:
    sysfs = sys_tree(tmp_path, nodes={0: ("0", 1024)}, distances={0: "10"}, online_cpus="0", has_memory="0")
    memory = read_memory(sysfs, [NodeId(0), NodeId(1)], {NodeId(0): 4096})
    assert set(memory) == {0}
    assert memory[NodeId(0)].total_bytes == 1024 << 20
    assert memory[NodeId(0)].available_bytes == (512 << 20) + (64 << 20)
    assert memory[NodeId(0)].high_watermark_bytes == 4096


def test_meminfo_without_what_a_migration_needs_is_an_error() -> None:
    with pytest.raises(ParseError, match=r"no Inactive\(file\) and no MemFree"):
        parse_node_memory(b"Node 0 MemTotal: 5 kB\n", "meminfo", NodeId(0), 0)


@pytest.mark.parametrize(("total", "free", "in_use"), [(0, 0, False), (8, 8, False), (8, 7, True)])
def test_hugetlb_is_in_use_when_a_pool_has_pages_that_are_not_free(
    tmp_path: Path, total: int, free: int, in_use: bool
) -> None:
    for size, n_total, n_free in ((2048, total, free), (1048576, 0, 0)):
        pool = tmp_path / f"kernel/mm/hugepages/hugepages-{size}kB"
        pool.mkdir(parents=True)
        (pool / "nr_hugepages").write_text(f"{n_total}\n")
        (pool / "free_hugepages").write_text(f"{n_free}\n")
    assert read_hugetlb_in_use(tmp_path) is in_use


def test_a_kernel_without_hugetlb_uses_none(tmp_path: Path) -> None:
    assert read_hugetlb_in_use(tmp_path) is False
