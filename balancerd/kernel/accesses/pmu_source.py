"""What sources have in common that rest on a PMU: it tells the address of each so many loads and stores.

Owns how many pass for each sample, and what of the samples is told on. Which events they are, and why they cannot be
had here, is for each source to say; what becomes of the accesses is the business of rings.py.
"""

import abc
import errno
from pathlib import Path
from typing import ClassVar

from balancerd import native
from balancerd.kernel.accesses.obstacles import explain_refusal
from balancerd.kernel.accesses.period import PeriodBounds, PeriodGovernor
from balancerd.kernel.accesses.rate import MOST_HZ, SAMPLE_SECONDS, most_hz, ring_pages
from balancerd.kernel.accesses.rings import EXPECTED_SECONDS, Drained, RingSource, Surroundings, Watched
from balancerd.model.access import Obstacle
from balancerd.model.ids import ProcessId

SAMPLE_BYTES = 64
"""What a sample takes of a ring; see native/perf.py."""

STORES_RATIO = 0.25
"""Of the samples where stores are events of their own: threads wait for loads and seldom for stores."""

STORES = PeriodBounds(first=1_000_003, least=100_003)
"""Of Intel's event all stores are counted, of which nearly all hit L1."""

_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENOSYS})


def openable(events: tuple[native.MemoryEvent, ...]) -> tuple[native.MemoryEvent, ...]:
    """Try to open the events on this very thread; return them, without those of stores where these cannot be had.

    Raises OSError when the others cannot be had, either.
    """
    try:
        native.probe(native.PerfKind.MEMORY, events=events)
    except OSError:
        loads = tuple(event for event in events if not event.is_stores)
        if loads == events:
            raise
        native.probe(native.PerfKind.MEMORY, events=loads)
        return loads
    return events


def explain(error: OSError, what: str, fix: str, root: Path) -> Obstacle:
    """Return why the events `what` cannot be opened: what is in the way of all perf events, or of these, with `fix`."""
    if error.errno in _REFUSALS:
        return explain_refusal(error, root)
    name = errno.errorcode.get(error.errno or 0, error.errno)
    return Obstacle(seen=f"perf_event_open(2) of {what}: {name} ({error.strerror})", fix=fix)


class PmuSource(RingSource):
    """An AccessSource but for its events. Its `budget_ratio` is for sampling, too, here and in who is watched.

    What counts is what memory answered, of whatever node. A page that a node's threads find in their caches may lie
    anywhere; it belongs to those that have to go to memory for it. Samples of the core's own caches are left out
    altogether, as if not taken; those that other caches answered are told as samples without an address.
    """

    bounds: ClassVar[PeriodBounds]
    """The periods of loads, or of loads and stores where these are one event."""

    def __init__(self, around: Surroundings, *, table_bytes: int, budget_ratio: float) -> None:
        super().__init__(around, table_bytes=table_bytes, budget_ratio=budget_ratio)
        self._loads = PeriodGovernor(self.bounds)
        self._stores = PeriodGovernor(STORES)

    @abc.abstractmethod
    def _look(self) -> tuple[native.MemoryEvent, ...] | Obstacle:
        """Return the events, which can be opened, or what is in the way. Raises ParseError, OSError."""

    def _find_obstacle(self) -> Obstacle | None:
        try:
            found = self._look()
        except (OSError, ValueError) as error:
            return Obstacle(seen=str(error), fix=f"none: take {self.method} out of accesses.sources")
        return found if isinstance(found, Obstacle) else None

    def _make_rings(self, process: ProcessId, n_threads: int) -> native.ThreadRings:
        events = self._look()
        if isinstance(events, Obstacle):
            raise OSError(errno.ENODEV, events.seen)
        for governor in (self._loads, self._stores):
            governor.expect(process)
        return native.ThreadRings(
            native.PerfKind.MEMORY,
            ring_pages=ring_pages(n_threads),
            events=events,
            period=self._loads.period,
            store_period=self._stores.period,
        )

    def _drain(self, process: ProcessId, watched: Watched) -> Drained:
        rings = watched.rings
        reading = rings.read(watched.table, watched.ranges)
        told = reading.samples - reading.no_address - reading.near
        gone = reading.lost + reading.cut
        if rings.tids:  # else this is the first reading, before which none was open
            self._note(process, watched, reading)
        periods = self._choose_periods(rings, watched.seconds or EXPECTED_SECONDS)
        if periods != (rings.period, rings.store_period):
            rings.set_periods(*periods)
        return Drained(
            samples=told,
            hits=reading.with_access,
            cut=round(gone * told / reading.samples) if reading.samples else gone,
            throttled=reading.throttled,
        )

    def _forget_closed(self) -> None:
        for governor in (self._loads, self._stores):
            governor.forget_all_but(self._watched.keys())

    def _note(self, process: ProcessId, watched: Watched, reading: native.PerfReading) -> None:
        """Have both governors know how often their events happen. Of lost samples nobody knows which they were."""
        rings = watched.rings
        taken = reading.samples + reading.lost + reading.cut
        stores = reading.stores / reading.samples if reading.samples and _has_stores(rings) else 0.0
        for governor, share, period in (
            (self._loads, 1.0 - stores, rings.period),
            (self._stores, stores, rings.store_period),
        ):
            governor.note(
                process,
                samples=share * taken,
                busiest=share * reading.busiest,
                seconds=watched.seconds,
                at_period=period,
                is_throttled=reading.throttled > 0,
            )

    def _choose_periods(self, rings: native.ThreadRings, seconds: float) -> tuple[int, int]:
        rate_hz = self.budget_ratio / SAMPLE_SECONDS
        thread_hz = min(MOST_HZ, most_hz(rings.ring_pages, seconds, SAMPLE_BYTES))
        stores = STORES_RATIO if _has_stores(rings) else 0.0
        return (
            self._loads.choose((1.0 - stores) * rate_hz, (1.0 - stores) * thread_hz),
            self._stores.choose(stores * rate_hz, stores * thread_hz) if stores else rings.store_period,
        )


def _has_stores(rings: native.ThreadRings) -> bool:
    return any(event.is_stores for event in rings.events)
