"""On which CPU a call copies: an idle one of the node that pages go to, or of the one that they come from.

The kernel copies on the CPU of the thread that makes the call. On a third node each line would cross the links between
nodes on its way in and again on its way out, as often as a copy takes at the least and as often again.

Owns that choice, and the affinity of the calling thread while its call lasts. Must not know what moves.
Source: sched_setaffinity(2); migrate_pages() in the kernel's mm/migrate.c copies where it is called.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

from balancerd.kernel.affinity.steerer import AffinityCalls
from balancerd.kernel.machine.cpu_load import CpuTicks
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Topology

IDLE_RATIO = 0.75
"""A CPU that was idle for so much of the time between two surveys has time for copies."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


class CopyingCpus:
    """Runs calls near memory. `learn` and `run` may be called by different threads.

    `permitted` are the CPUs to choose from; None: those that the main thread may run on.
    """

    def __init__(
        self,
        permitted: AbstractSet[CpuId] | None = None,
        calls: AffinityCalls = os,
        thread_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        self.permitted = permitted
        self._calls = calls
        self._thread_seconds = thread_seconds
        self._pid = os.getpid()
        self._idle_by_node: Mapping[NodeId, frozenset[CpuId]] = {}
        self._own_ticks: dict[CpuId, float] = {}
        self._lock = threading.Lock()

    def learn(self, topology: Topology, ticks: Mapping[CpuId, CpuTicks]) -> None:
        """Learn which CPUs are idle, from what each has counted since the last time. Own copies do not make it busy."""
        with self._lock:
            own_ticks, self._own_ticks = self._own_ticks, {}
        idle = {cpu for cpu, counted in ticks.items() if _is_idle(counted, own_ticks.get(cpu, 0.0))}
        self._idle_by_node = {node.id: node.cpus & idle for node in topology.nodes}

    def run(self, nodes: Sequence[NodeId], make: Callable[[], T]) -> T:
        """Make a call in this thread, on an idle CPU of the first of `nodes` that has one; without one, where it is.

        Returns what the call returns, and raises what it raises. Afterwards the thread may run where the main one may.
        """
        own = self._calls.sched_getaffinity(self._pid)
        cpus = self._choose(nodes, own)
        if cpus == own or not self._move_to(cpus):
            return make()
        began = self._thread_seconds()
        try:
            return make()
        finally:
            self._count(cpus, self._thread_seconds() - began)
            self._move_to(own)

    def _choose(self, nodes: Sequence[NodeId], own: AbstractSet[int]) -> AbstractSet[int]:
        permitted = own if self.permitted is None else self.permitted
        idle = (self._idle_by_node.get(node, frozenset()) & permitted for node in nodes)
        return next(filter(None, idle), own)

    def _move_to(self, cpus: AbstractSet[int]) -> bool:
        """Return whether the thread runs on `cpus` from now on; it cannot when they are offline, or by a cpuset."""
        with contextlib.suppress(OSError):
            self._calls.sched_setaffinity(0, cpus)
            return True
        return False

    def _count(self, cpus: AbstractSet[int], seconds: float) -> None:
        """Count for every CPU of the choice, since nobody tells which it was; the others were idle anyway."""
        with self._lock:
            for cpu in cpus:
                self._own_ticks[CpuId(cpu)] = self._own_ticks.get(CpuId(cpu), 0.0) + seconds * _TICKS_PER_SECOND


def _is_idle(counted: CpuTicks, own_ticks: float) -> bool:
    busy, idle = counted
    return busy + idle > 0 and busy - own_ticks <= (1 - IDLE_RATIO) * (busy + idle)
