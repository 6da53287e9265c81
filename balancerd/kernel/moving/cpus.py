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
from dataclasses import dataclass
from typing import TypeVar

from balancerd.kernel.affinity.steerer import AffinityCalls
from balancerd.kernel.machine.cpu_load import CpuTicks
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Topology

IDLE_RATIO = 0.75
"""A CPU that was idle for so much of the time between two surveys has time for copies."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Latest:
    """What was learnt last, of which nothing is worked out before something moves."""

    topology: Topology
    ticks: Mapping[CpuId, CpuTicks]
    own_ticks: Mapping[CpuId, float]

    def idle_cpus(self, node_id: NodeId) -> frozenset[CpuId]:
        """Return the CPUs of a node that were idle; none of a node that is not online."""
        cpus = next((node.cpus for node in self.topology.nodes if node.id == node_id), frozenset[CpuId]())
        return frozenset(cpu for cpu in cpus if self._is_idle(cpu))

    def _is_idle(self, cpu: CpuId) -> bool:
        busy, idle = self.ticks.get(cpu, (0, 0))
        return busy + idle > 0 and busy - self.own_ticks.get(cpu, 0.0) <= (1 - IDLE_RATIO) * (busy + idle)


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
        self._latest: _Latest | None = None
        self._own_ticks: dict[CpuId, float] = {}
        self._lock = threading.Lock()

    def learn(self, topology: Topology, ticks: Mapping[CpuId, CpuTicks]) -> None:
        """Learn what each CPU has counted since the last time. Own copies do not make it busy."""
        with self._lock:
            own_ticks, self._own_ticks = self._own_ticks, {}
        self._latest = _Latest(topology, ticks, own_ticks)

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
        if self._latest is None:
            return own
        idle, permitted = self._latest.idle_cpus, own if self.permitted is None else self.permitted
        return next(filter(None, (idle(node) & permitted for node in nodes)), own)

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
