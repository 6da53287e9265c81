"""Where the threads of loud processes ran: how many threads a pass reads, and what is remembered of them.

A process with many threads is read in shares, one at each pass, and idle threads are read less often: each counts all
that it ran since it was last read itself, so that nothing is lost, only late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Topology
from balancerd.native import NodeOfCpu, ThreadSeats
from balancerd.native.records import ProcessRow, ThreadSurvey

THREADS_OF_ONE = 512
THREADS_OF_ALL = 4096
"""Some 10 us each."""
_REMEMBERED_SECONDS = 60.0
"""A process that is loud again within a minute is not new: what its threads ran meanwhile counts."""
_FEWEST_OF_ONE = 8
"""With so many loud processes that not even this many of each can be read, the least busy ones wait."""


class ThreadCore(Protocol):
    """The native function that reads threads."""

    def threads(
        self,
        proc_fd: int,
        pid: int,
        seats: ThreadSeats,
        nodes: NodeOfCpu,
        *,
        expected_ticks: int,
        turn: int = 0,
        shares: int = 1,
    ) -> ThreadSurvey:
        """Read a share of the threads of one process. Raises ProcessLookupError when it is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadPass:
    """Run ticks by node of each process whose threads were read, and the pids of those that are gone.

    `n_read` counts the threads of which a file was read.
    """

    run_ticks: Mapping[int, Mapping[NodeId, int]]
    gone: frozenset[int]
    n_read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The threads of a process when they were last read: `alone` (tid, start_ticks, cpu_ticks), or in seats."""

    start_ticks: int
    at: float
    alone: tuple[int, int, int] | None = None
    seats: ThreadSeats | None = None


class ThreadReader:
    """Reads the threads of the processes that are loud in a pass, and forgets those that were not for a minute."""

    def __init__(
        self, core: ThreadCore, proc_fd: int, *, of_one: int = THREADS_OF_ONE, of_all: int = THREADS_OF_ALL
    ) -> None:
        self._core = core
        self._proc_fd = proc_fd
        self._of_one = of_one
        self._of_all = of_all
        self._passes = 0
        self._known: dict[int, _Known] = {}
        self._nodes: tuple[Topology, NodeOfCpu] | None = None

    def read(
        self, rows: Sequence[ProcessRow], topology: Topology, now: float, *, most_threads: int | None = None
    ) -> ThreadPass:
        """Read threads of these processes, all of them where `most_threads` allows it.

        Who waited longest comes first, then the busiest.
        """
        self._passes += 1
        of_all = self._of_all if most_threads is None else min(self._of_all, most_threads)
        most = threads_of_each([row.n_threads for row in rows if row.n_threads > 1], self._of_one, of_all)
        run_ticks: dict[int, Mapping[NodeId, int]] = {}
        gone: set[int] = set()
        known = {pid: known for pid, known in self._known.items() if now - known.at < _REMEMBERED_SECONDS}

        def turn(row: ProcessRow) -> tuple[float, float]:
            return known[row.pid].at if row.pid in known else float("-inf"), -(row.cpu_cores or 0.0)

        left = of_all
        for row in sorted(rows, key=turn):
            before = known.get(row.pid)
            if before is not None and before.start_ticks != row.start_ticks:
                before = None
            if row.n_threads == 1:
                run_ticks[row.pid] = _of_the_only_thread(row, before, topology)
                alone = (row.pid, row.start_ticks, row.cpu_ticks)
                known[row.pid] = _Known(start_ticks=row.start_ticks, at=now, alone=alone)
                continue
            seats = _seats(row, before)
            shares = -(-row.n_threads // most)
            is_read = left >= row.n_threads // shares
            waits_since = now if before is None else before.at
            known[row.pid] = _Known(start_ticks=row.start_ticks, at=now if is_read else waits_since, seats=seats)
            if not is_read:
                continue
            try:
                found = self._core.threads(
                    self._proc_fd,
                    row.pid,
                    seats,
                    self._node_of_cpu(topology),
                    expected_ticks=row.run_ticks or 0,
                    turn=self._passes,
                    shares=shares,
                )
            except (FileNotFoundError, ProcessLookupError):
                gone.add(row.pid)
                del known[row.pid]
                continue
            left -= found.read
            run_ticks[row.pid] = {NodeId(node): ticks for node, ticks in found.run_ticks}
        self._known = known
        return ThreadPass(run_ticks=run_ticks, gone=frozenset(gone), n_read=of_all - left)

    def _node_of_cpu(self, topology: Topology) -> NodeOfCpu:
        if self._nodes is None or self._nodes[0] is not topology:
            self._nodes = (topology, NodeOfCpu(topology.node_of_cpu.items()))
        return self._nodes[1]


def threads_of_each(n_threads: Sequence[int], of_one: int, of_all: int) -> int:
    """Return how many threads of each process may be read so that those with few are read whole, and all fit."""
    most = of_one
    while most > _FEWEST_OF_ONE and sum(min(n, most) for n in n_threads) > of_all:
        most //= 2
    return most


def _seats(row: ProcessRow, before: _Known | None) -> ThreadSeats:
    """Return what is remembered of its threads; at first nothing is, but that some are newer than its last reading.

    A thread that was alone had all that its process had.
    """
    if before is not None and before.seats is not None:
        return before.seats
    since_ticks = row.start_ticks if row.before_ticks is None else row.before_ticks
    alone = None if before is None else before.alone
    return ThreadSeats(since_ticks, alone=alone, capacity=row.n_threads + 8)


def _of_the_only_thread(row: ProcessRow, before: _Known | None, topology: Topology) -> dict[NodeId, int]:
    node = topology.node_of_cpu.get(CpuId(row.last_cpu))
    ran = row.run_ticks
    if before is not None and before.alone is not None:
        ran = max(0, row.cpu_ticks - before.alone[2])
    return {} if node is None or ran is None else {node: ran}
