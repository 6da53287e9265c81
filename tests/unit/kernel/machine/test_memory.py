from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.memory import (
    parse_node_memory,
    parse_zoneinfo,
    read_high_watermarks,
    read_hugetlb_in_use,
    read_memory,
)
from balancerd.model.ids import NodeId
from tests.unit.kernel.trees import MACHINES, sys_tree

ZONEINFO = b"""\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 2225
  pages free     2814
        boost    0
        min      18
        low      22
        high     26
        spanned  4095
  pagesets
    cpu: 0
              count:    0
              high:     14
              batch:    1
              high_min: 14
              high_max: 1000
Node 0, zone   Normal
  pages free     99999
        high     1000
Node 3, zone   Normal
  pages free     99999
        high     500
Node 3, zone  Movable
  pages free     0
        high     0
"""
"""Composed in the format of the captures: two nodes, one of them with two zones."""


def test_watermarks_are_summed_over_the_zones_of_a_node_and_page_lists_are_not_taken_for_them() -> None:
    assert parse_zoneinfo(ZONEINFO, "zoneinfo") == {0: 1026 * 4096, 3: 500 * 4096}


def test_the_captured_zoneinfo_has_a_watermark_for_each_node() -> None:
    watermarks = read_high_watermarks(MACHINES / "sparse-nodes-6.12/proc")
    assert set(watermarks) == {0, 2, 5}
    assert all(1 << 20 < high_bytes < 64 << 20 for high_bytes in watermarks.values())


def test_the_captured_zoneinfo_gives_the_sum_of_its_bare_high_lines() -> None:
    path = MACHINES / "one-node-6.18/proc"
    high = [line.split() for line in (path / "zoneinfo").read_text().splitlines()]
    expected = sum(int(words[1]) for words in high if len(words) == 2 and words[0] == "high")
    assert expected > 0
    assert read_high_watermarks(path) == {0: expected * 4096}


def test_a_watermark_that_is_no_number_names_its_line() -> None:
    with pytest.raises(ParseError, match=r"^zoneinfo:3: "):
        parse_zoneinfo(b"Node 0, zone DMA\n  pages free 1\n   high many\n", "zoneinfo")


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
