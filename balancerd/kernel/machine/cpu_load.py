"""How busy the CPUs of each node are, from two readings of /proc/stat. Knows nothing of what they run.

Source: proc_stat(5). The lines of CPUs that are offline are missing, and idle and iowait may go back: both are counted
while no tick comes, and iowait moves with the task that waits.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_if_there
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Node

_USER, _STEAL = 1, 8
"""The first and the last column of a CPU's line that count: those after steal are part of user and nice."""

_IDLE, _IOWAIT = 3, 4
"""Counted from user."""

CpuTicks: TypeAlias = tuple[int, int]
"""Busy and idle clock ticks of one CPU since boot; what a hypervisor took from it is busy.

No record: there may be hundreds at each tick.
"""


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
            ticks = [int(word) for word in words[_USER : _STEAL + 1]]
            idle = ticks[_IDLE] + ticks[_IOWAIT]
            found[CpuId(int(words[0][3:]))] = (sum(ticks) - idle, idle)
        except (ValueError, IndexError) as error:
            raise ParseError(path, number, line, "not the times of a CPU") from error
    return found


def ticks_between(before: Mapping[CpuId, CpuTicks], now: Mapping[CpuId, CpuTicks]) -> dict[CpuId, CpuTicks]:
    """Return what each CPU that is in both readings has counted between them."""
    return {
        cpu: (max(0, busy - before[cpu][0]), max(0, idle - before[cpu][1]))
        for cpu, (busy, idle) in now.items()
        if cpu in before
    }


def load_by_node(nodes: Iterable[Node], ticks: Mapping[CpuId, CpuTicks]) -> dict[NodeId, float]:
    """Return the busy share, 0 to 1, of the ticks that the CPUs of each node have counted between two readings.

    A node without such CPUs, or whose CPUs have not counted a tick, is not listed.
    """
    loads: dict[NodeId, float] = {}
    for node in nodes:
        known = [ticks[cpu] for cpu in node.cpus if cpu in ticks]
        busy, idle = (sum(column) for column in zip(*known, strict=True)) if known else (0, 0)
        if busy + idle:
            loads[node.id] = busy / (busy + idle)
    return loads
