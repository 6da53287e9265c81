"""A process with a part of its memory for each thread; see team.c. Owns starting it, and where its parts lie."""

from balancerd.native import PAGE_BYTES, RangeArray, placement
from tests.lab.workloads import Verifier, binary

MIB = 1 << 20


class Team(Verifier):
    """Thread I runs on CPU I."""

    def __init__(self, kind: str, part_mib: int, *, threads: int = 4, busy_percent: int = 50) -> None:
        super().__init__([binary("team"), kind, str(part_mib), str(threads), str(busy_percent)])
        first = int(self.added, 16)
        self._parts = [
            (first + index * part_mib * MIB, first + (index + 1) * part_mib * MIB, PAGE_BYTES)
            for index in range(threads)
        ]

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """Where each thread's part is, [start, end)."""
        return tuple((start, end) for start, end, _ in self._parts)

    def at_home(self) -> tuple[float, ...]:
        """The share of each part that lies on the node of its thread, by asking for every page."""
        found = placement(self.pid, RangeArray(self._parts), n_nodes=len(self._parts))
        return tuple(row.on_node[index] / sum(row.on_node) for index, row in enumerate(found.per_range))
