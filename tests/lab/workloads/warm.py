"""Starting `warm` processes, and where their two parts lie; see warm.c."""

from pathlib import Path

from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId
from balancerd.native import RangeArray, placement
from tests.lab.workloads import Program, binary

MIB = 1 << 20
PAGE = 4096

Part = tuple[int, int]
"""Start and end address."""


class Warm(Program):
    """One `warm` process, ended with the block."""

    def __init__(self, hot_mib: int, cold_mib: int, *, busy_percent: int) -> None:
        super().__init__([binary("warm"), str(hot_mib), str(cold_mib), str(busy_percent)])
        start = int(self.added, 16)
        middle = start + hot_mib * MIB
        self.hot: Part = (start, middle)
        self.cold: Part = (middle, middle + cold_mib * MIB)
        self.id = ProcessId(self.pid, read_start_ticks(self.pid))

    def mib_on(self, part: Part, *nodes: int) -> float:
        """How much of a part lies on some nodes, on all of them when none is named; every page is asked for."""
        n_nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
        rows = placement(self.pid, RangeArray([(*part, PAGE)]), n_nodes=n_nodes, samples=0, phase=0.0).per_range
        return sum(row.on_node[node] for row in rows for node in nodes or range(n_nodes)) * PAGE / MIB
