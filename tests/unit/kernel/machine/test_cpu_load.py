from collections.abc import Mapping

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.cpu_load import CpuTicks, load_by_node, parse_stat, read_cpu_ticks, ticks_between
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Node
from tests.unit.kernel.trees import MACHINES

STAT = b"""\
cpu  1000 20 300 4000 500 6 7 8 9 10
cpu0 100 1 10 2000 50 2 3 4 90 5
cpu17 5 0 5 90 0 0 0 0 0 0
intr 1 2 3
cpu18 1 1 1 1 1 1 1 1 1 1
"""


def node(number: int, *cpus: int) -> Node:
    return Node(id=NodeId(number), cpus=frozenset(map(CpuId, cpus)), total_bytes=1, distances={})


def readings(ticks: Mapping[int, tuple[int, int]]) -> dict[CpuId, CpuTicks]:
    return {CpuId(cpu): busy_and_idle for cpu, busy_and_idle in ticks.items()}


def test_idle_and_iowait_are_idle_guests_are_not_counted_twice_and_stolen_time_is_busy() -> None:
    assert parse_stat(STAT, "stat") == readings({0: (120, 2050), 17: (10, 90)})


def test_the_captured_stat_has_the_online_cpus_and_their_times_add_up() -> None:
    ticks = read_cpu_ticks(str(MACHINES / "memory-only-tier-6.12/proc"))
    assert ticks == readings({0: (118 + 243 + 5, 279), 1: (94 + 258 + 4, 296)})


@pytest.mark.parametrize("line", [b"cpu0 1 2 3", b"cpux 1 2 3 4 5 6 7 8", b"cpu0 1 2 3 many 5 6 7 8"])
def test_a_line_that_is_none_of_a_cpu_names_itself(line: bytes) -> None:
    with pytest.raises(ParseError, match=r"^stat:2: "):
        parse_stat(b"cpu  1 2 3 4 5 6 7 8\n" + line, "stat")


def test_without_the_file_no_times_are_known() -> None:
    assert read_cpu_ticks(str(MACHINES / "one-node-6.18/proc")) == {}


@pytest.mark.parametrize(
    ("before", "now", "loads"),
    [
        ({0: (0, 0), 1: (0, 0), 2: (0, 0)}, {0: (100, 0), 1: (50, 50), 2: (0, 100)}, {0: 0.75, 1: 0.0}),
        ({0: (10, 90), 1: (10, 90)}, {0: (20, 180), 1: (40, 160)}, {0: 0.2}),
        ({0: (10, 90)}, {0: (30, 110), 1: (999, 0)}, {0: 0.5}),  # CPU 1 came, CPU 2 was never there
        ({0: (10, 90), 1: (999, 0)}, {0: (30, 110)}, {0: 0.5}),  # CPU 1 went
        ({0: (10, 90), 2: (5, 836)}, {0: (10, 100), 2: (15, 684)}, {0: 0.0, 1: 1.0}),  # its idle time went back
        ({0: (10, 90)}, {0: (10, 90)}, {}),  # too soon
        ({}, {0: (10, 90)}, {}),  # the first reading
    ],
)
def test_load_is_the_busy_share_of_what_the_cpus_of_both_readings_have_counted(
    before: Mapping[int, tuple[int, int]], now: Mapping[int, tuple[int, int]], loads: Mapping[int, float]
) -> None:
    nodes = [node(0, 0, 1), node(1, 2), node(2)]
    assert load_by_node(nodes, ticks_between(readings(before), readings(now))) == pytest.approx(loads)
