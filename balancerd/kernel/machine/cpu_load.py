"""How busy the CPUs of each node are, from two readings of /proc/stat. Knows nothing of what they run.

Source: proc_stat(5). The lines of CPUs that are offline are missing, and idle and iowait may go back: both are counted
while no tick comes, and iowait moves with the task that waits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_if_there
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Node

_USER, _IDLE, _IOWAIT, _STEAL = 1, 4, 5, 8
"""Columns of a line of a CPU. Those after steal are part of user and nice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTicks:
    """What one CPU has done since boot, in clock ticks. Time that a hypervisor took from it counts as busy."""

    busy_ticks: int
    idle_ticks: int


def read_cpu_ticks(procfs: str) -> dict[CpuId, CpuTicks]:
    """Read all online CPUs; empty where the file is missing. Raises ParseError."""
    path = f"{procfs}/stat"
    text = read_if_there(path)
    return {} if text is None else parse_stat(text, path)


def parse_stat(text: bytes, path: str) -> dict[CpuId, CpuTicks]:
    """Parse the lines "cpuN ..." of /proc/stat, which come first."""
    found: dict[CpuId, CpuTicks] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.startswith(b"cpu"):
            break
        words = line.split()
        if words[0] == b"cpu":
            continue
        try:
            cpu = CpuId(int(words[0][3:]))
            idle = int(words[_IDLE]) + int(words[_IOWAIT])
            found[cpu] = CpuTicks(busy_ticks=sum(map(int, words[_USER : _STEAL + 1])) - idle, idle_ticks=idle)
        except (ValueError, IndexError) as error:
            raise ParseError(path, number, line, "not the times of a CPU") from error
    return found


def load_by_node(
    nodes: Iterable[Node], before: Mapping[CpuId, CpuTicks], now: Mapping[CpuId, CpuTicks]
) -> dict[NodeId, float]:
    """Return the busy share, 0 to 1, of the time between two readings over those CPUs of a node that are in both.

    A node without such CPUs, or whose CPUs have not counted a tick since, is not listed.
    """
    loads: dict[NodeId, float] = {}
    for node in nodes:
        busy = idle = 0
        for cpu in node.cpus & before.keys() & now.keys():
            busy += max(0, now[cpu].busy_ticks - before[cpu].busy_ticks)
            idle += max(0, now[cpu].idle_ticks - before[cpu].idle_ticks)
        if busy + idle:
            loads[node.id] = busy / (busy + idle)
    return loads
