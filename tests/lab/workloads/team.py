"""A process with a part of its memory for each thread; see team.c. Owns starting it, and where its parts lie."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from balancerd.native import PAGE_BYTES, RangeArray, placement
from tests.lab.workloads import Verifier, binary

MIB = 1 << 20


class Team(Verifier):
    """Thread I runs on CPU I, and reads its part; `how` "calm": with longer naps; "shared": so, too, and all parts."""

    def __init__(
        self,
        kind: str,
        part_mib: int,
        *,
        threads: int = 4,
        busy_percent: int = 50,
        how: Literal["shared", "calm"] | None = None,
    ) -> None:
        words = [kind, str(part_mib), str(threads), str(busy_percent), *([] if how is None else [how])]
        super().__init__([binary("team"), *words])
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
        found = self.pages_by_node(self.parts)
        return tuple(held[index] / sum(held) for index, held in enumerate(found))

    def pages_by_node(self, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
        """How many pages of each span, [start, end), are on each node, by asking for every page."""
        array = RangeArray((start, end, PAGE_BYTES) for start, end in spans)
        found = placement(self.pid, array, n_nodes=len(self._parts))
        return tuple(tuple(row.on_node) for row in found.per_range)

    @property
    def tids(self) -> tuple[int, ...]:
        """Its threads but for the main one, in the order in which they began: that of their parts."""
        return tuple(sorted(int(path.name) for path in Path(f"/proc/{self.pid}/task").iterdir())[1:])

    def gather(self, cpu: int) -> None:
        """Let all of its threads run on one CPU from now on."""
        for tid in (self.pid, *self.tids):
            os.sched_setaffinity(tid, {cpu})
