"""Advice and the leases on it, kept by the daemon: asked by HTTP threads, settled by its loop after each tick.

Owns the lock and the bounds. A tick never waits for who asks: while somebody does, leases are settled by the next tick.
What is advised is the business of `engine.advice`.
"""

import threading
from collections.abc import Callable
from typing import Final

from balancerd.engine.advice import Advice, Demand, advise, rooms, without
from balancerd.engine.leases import Lease, still_open
from balancerd.model.report import TickReport

MOST_LEASES: Final = 64


class TooManyLeasesError(Exception):
    """No lease can be given until another one ends."""


class LeaseBook:
    """All leases of one daemon. `now` returns monotonic seconds."""

    def __init__(self, now: Callable[[], float], watermark_ratio: Callable[[], float]) -> None:
        self._now = now
        self._watermark_ratio = watermark_ratio
        self._lock = threading.Lock()
        self._leases: tuple[Lease, ...] = ()
        self._last_id = 0

    def advise(self, report: TickReport, demand: Demand, lease_seconds: float | None) -> tuple[Advice, Lease | None]:
        """Return advice from what the last tick saw, less what is leased; and a lease on it, where it fits.

        None as `lease_seconds` asks for no lease. Raises TooManyLeasesError.
        """
        survey = report.survey
        with self._lock:
            self._leases = still_open(self._leases, (), self._now())
            if lease_seconds is not None and len(self._leases) >= MOST_LEASES:
                raise TooManyLeasesError(f"{MOST_LEASES} leases are open already")
            offered = rooms(survey.topology, survey.memory, survey.machine, self._watermark_ratio())
            taken = (share for lease in self._leases for share in lease.shares)
            advice = advise(demand, without(offered, taken))
            if lease_seconds is None or not advice.fits:
                return advice, None
            self._last_id += 1
            now = self._now()
            lease = Lease(
                id=self._last_id, demand=demand, shares=advice.shares, begun_at=now, ends_at=now + lease_seconds
            )
            self._leases = (*self._leases, lease)
            return advice, lease

    def release(self, lease_id: int) -> bool:
        """Give a lease back; return whether there was one."""
        with self._lock:
            kept = tuple(lease for lease in self._leases if lease.id != lease_id)
            was_there = len(kept) < len(self._leases)
            self._leases = kept
        return was_there

    def all(self) -> tuple[Lease, ...]:
        """Return the leases that hold now, the oldest first."""
        with self._lock:
            self._leases = still_open(self._leases, (), self._now())
            return self._leases

    def emit(self, report: TickReport) -> None:
        """End the leases of those who have come."""
        if not self._leases or not self._lock.acquire(blocking=False):
            return
        try:
            processes = (each.process for each in report.processes)
            self._leases = still_open(self._leases, processes, self._now())
        finally:
            self._lock.release()
