"""Space that was promised to somebody who is about to come: leases on advice, until they run out or he is there. Pure.

A lease ends when its time is over, when it is given back, or when a process that is younger than it has come to its
nodes and holds at least half of what was asked for: from then on, the figures of the nodes tell of it themselves.
It must not know who holds the leases.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from balancerd.engine.advice import Demand, Share
from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample

ARRIVED_RATIO: Final = 0.5
"""Who holds so much of what was asked for has arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One promise, from monotonic second `begun_at` until `ends_at`."""

    id: int
    demand: Demand
    shares: tuple[Share, ...]
    begun_at: float
    ends_at: float

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Where the space is."""
        return frozenset(share.node for share in self.shares)


def still_open(leases: Iterable[Lease], processes: Iterable[ProcessSample], now: float) -> tuple[Lease, ...]:
    """Return the leases that still hold at monotonic second `now`; each process takes up one of them at most."""
    running = sorted((lease for lease in leases if now < lease.ends_at), key=lambda lease: lease.id)
    if not running:
        return ()
    first = running[0].begun_at
    arrived = [process for process in processes if process.age_seconds <= now - first]
    kept: list[Lease] = []
    for lease in running:
        newcomer = next((process for process in arrived if _takes_up(process, lease, now)), None)
        if newcomer is None:
            kept.append(lease)
        else:
            arrived.remove(newcomer)
    return tuple(kept)


def _takes_up(process: ProcessSample, lease: Lease, now: float) -> bool:
    if process.kernel_thread or process.age_seconds > now - lease.begun_at:
        return False
    wanted = lease.demand
    if process.rss_bytes < ARRIVED_RATIO * wanted.memory_bytes:
        return False
    if not wanted.memory_bytes and (process.cpu_cores or 0.0) < ARRIVED_RATIO * wanted.cpus:
        return False
    return _is_there(process, lease.nodes)


def _is_there(process: ProcessSample, nodes: frozenset[NodeId]) -> bool:
    """Whether it may have memory there only, or has run mostly there."""
    if process.mems_allowed is not None and process.mems_allowed <= nodes:
        return True
    ran = process.run_seconds or {}
    total = sum(ran.values())
    return total > 0 and sum(seconds for node, seconds in ran.items() if node in nodes) > total / 2
