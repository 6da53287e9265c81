"""What a workload of the locality benchmark promises: how it is started, works, is measured, and ends.

Owns the protocol between the guest's main, the workloads and the rivals. Must not know any of them.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.victim import Gaps

BEGIN, THREE_QUARTERS, DONE = 1, 2, 3
"""The markers: the measured work begins, three quarters of it are done, all of it is."""

Mark = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. The work is fixed, so that who wastes time on the way does not do less of it.

    work: how many units, of the workload's own kind
    mib: the memory of each process that has memory worth placing
    is_bound: the best static binding from the start, instead of the misplacement that is the workload's point
    cpus: the CPU that workloads use on each node, by node; what else runs keeps away from these
    folder: for scratch files; in memory
    """

    work: int
    mib: int
    is_bound: bool
    cpus: Mapping[int, int]
    folder: Path


class Running(Protocol):
    """A workload under way. Its memory is touched where the placement, good or bad, wants it; it does not work yet."""

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes whose pages and threads matter; none where they live too short to be looked at."""

    @property
    def gaps(self) -> Mapping[str, Gaps]:
        """How long it took from one round of its loops to the next, by thread; known after the work."""

    def work(self, mark: Mark) -> None:
        """Do all the work, and mark BEGIN, THREE_QUARTERS and DONE. Memory and processes are still there afterwards.

        Raises RuntimeError when it ended too early or said something else than it should.
        """

    def finish(self) -> str:
        """End it, with every word of its memory checked where that can be; returns what it said.

        Raises RuntimeError when something is wrong.
        """


class Workload(Protocol):
    """One kind of workload. The block of `start` ends all its processes, however they fare.

    mib: what Plan.mib is unless somebody asks for something else
    is_misplaced: whether its memory begins, or gets, somewhere else than where it is used, and so can be won back
    stays_seconds: how long it stays on a node until it is misplaced anew; None: for good
    units_per_second: about what all of it does in the emulator; with it seconds become Plan.work
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def mib(self) -> int: ...

    @property
    def is_misplaced(self) -> bool: ...

    @property
    def stays_seconds(self) -> float | None: ...

    @property
    def units_per_second(self) -> int: ...

    def start(self, plan: Plan) -> AbstractContextManager[Running]:
        """Start it; when the block is entered, it is ready to work."""
