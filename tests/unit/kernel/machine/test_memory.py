from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.memory import (
    parse_node_memory,
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
