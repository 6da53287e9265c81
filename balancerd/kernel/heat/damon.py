"""Heat by DAMON: a thread of the kernel for each watched process looks which of its memory is accessed.

Needs CONFIG_DAMON_VADDR and the right to write DAMON's files, neither a PMU nor kernel.numa_balancing. Owns which
process each thread watches, and how often the threads look, so that they keep within their share of a core. The
files are the business of kdamonds.py.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from balancerd.kernel.accesses.rate import Turns
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.heat.damon_obstacles import NO_VADDR, find_tree_obstacle
from balancerd.kernel.heat.kdamonds import Intervals, Kdamonds, Owner, Region, TakenError
from balancerd.kernel.processes.identity import check_identity
from balancerd.kernel.processes.status import parse_stat
from balancerd.model.access import Obstacle
from balancerd.model.heat import HeatMethod, HeatRegion, HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.ports import Clock

INTERVALS: Final = Intervals()

LEAST_REGIONS: Final = 10
MOST_REGIONS: Final = 200
"""Of each process; DAMON's own default of 1000 takes a fifth of a core at worst, and 30 ms to read."""

MOST_FACTOR: Final = 32
"""Intervals grow to 160 ms and 3.2 s: then the most regions take 0.1 % of a core."""

FIRST_AGGREGATIONS: Final = 10
"""Regions are split and merged at each aggregation, so that the first few say little."""

LEAST_SECONDS: Final = 5.0
"""Heat is not read more often."""

RATE_SECONDS: Final = 15.0
"""For so long CPU time, which is counted in hundredths of a second, is measured before intervals are changed."""

WORTH_SHORTENING: Final = 4.0
"""Intervals become shorter only where that leaves half of the share unused."""


@dataclass(slots=True)
class _Watched:
    """One process. `ticks` is the CPU time of its thread when it was measured last."""

    slot: int
    since: float
    started_at: float
    factor: int = 1
    ticks: int = 0
    ticks_at: float = 0.0
    cpu_ratio: float | None = None
    turns: Turns = field(default_factory=Turns)


class DamonHeat:
    """The HeatSource. At most `slots` processes are open at once; `budget_ratio` is the share of a core of all threads.

    `thread_seconds` returns the CPU time of the calling thread.
    """

    method = HeatMethod.DAMON

    def __init__(
        self,
        clock: Clock,
        kdamonds: Kdamonds,
        *,
        slots: int,
        budget_ratio: float,
        sysfs: str = "/sys",
        procfs: str = "/proc",
        thread_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        self.slots = slots
        self.budget_ratio = budget_ratio
        self._clock = clock
        self._kdamonds = kdamonds
        self._sysfs = sysfs
        self._procfs = procfs
        self._thread_seconds = thread_seconds
        self._watched: dict[ProcessId, _Watched] = {}

    def probe(self) -> Obstacle | None:
        """See HeatSource. Sets the tree up unless that is done."""
        obstacle = find_tree_obstacle(self._kdamonds, self._sysfs, may_be_peers=False)
        if obstacle is not None:
            return obstacle
        try:
            if self._kdamonds.owner() is not Owner.THIS or self._kdamonds.count() < self.slots:
                self._watched.clear()
                self._kdamonds.set_up(self.slots, least_regions=LEAST_REGIONS, most_regions=MOST_REGIONS)
            if not self._kdamonds.offers_vaddr():
                self._kdamonds.take_down()
                return NO_VADDR
        except OSError as error:
            return Obstacle(seen=f"DAMON cannot be set up: {error}", fix="dmesg | grep -i damon")
        return None

    def open(self, process: ProcessId) -> None:
        """See HeatSource. Raises LookupError when all threads are in use."""
        if process in self._watched:
            return
        check_identity(process, self._procfs)
        used = {watched.slot for watched in self._watched.values()}
        slot = next((slot for slot in range(self.slots) if slot not in used), None)
        if slot is None:
            raise LookupError(f"all {self.slots} threads of DAMON are in use")
        now = self._clock.now()
        self._start(process, slot, factor=1)
        self._watched[process] = _Watched(slot, since=now, started_at=now, ticks_at=now)

    def read(self, process: ProcessId) -> HeatWindow | None:
        """See HeatSource. Raises KeyError for a process that is not open."""
        watched, now = self._watched[process], self._clock.now()
        check_identity(process, self._procfs)
        self._check_owner()
        intervals = INTERVALS.times(watched.factor)
        seconds = intervals.aggregation_us / 1e6
        if now - watched.started_at < FIRST_AGGREGATIONS * seconds or not watched.turns.is_due(now):
            return None
        before = self._thread_seconds()
        regions = self._kdamonds.regions(watched.slot)
        taken_at = self._clock.now()
        most = intervals.aggregation_us // intervals.sample_us
        window = HeatWindow(
            process=process,
            taken_at=taken_at,
            seconds=seconds,
            watched_seconds=taken_at - watched.since,
            method=self.method,
            regions=tuple(_told(region, most, seconds) for region in regions),
            cpu_ratio=self._measure(watched, now),
        )
        took = self._thread_seconds() - before
        watched.turns.note(taken_at, max(took, LEAST_SECONDS * self.budget_ratio), self.budget_ratio)
        self._adapt(process, watched, now)
        return window

    def close(self, process: ProcessId) -> None:
        """See HeatSource. A tree that has become another's is left as it is."""
        watched = self._watched.pop(process, None)
        if watched is not None and self._kdamonds.owner() is Owner.THIS:
            self._kdamonds.stop(watched.slot)

    def shut(self) -> None:
        """See HeatSource."""
        self._watched.clear()
        if self._kdamonds.owner() is Owner.THIS:
            self._kdamonds.take_down()

    def recover(self) -> None:
        """See HeatSource."""
        if self._kdamonds.owner() is Owner.CRASHED:
            self._kdamonds.take_down()

    def _check_owner(self) -> None:
        if self._kdamonds.owner() is not Owner.THIS:
            raise TakenError(0, "somebody else has taken DAMON")

    def _start(self, process: ProcessId, slot: int, *, factor: int) -> None:
        """Start a thread for a process, and see to it that it is for this one. Raises ProcessGoneError, OSError."""
        self._check_owner()
        self._kdamonds.stop(slot)
        try:
            self._kdamonds.start(slot, process.pid, INTERVALS.times(factor))
        except OSError:
            check_identity(process, self._procfs)
            raise
        try:
            check_identity(process, self._procfs)
        except ProcessGoneError:
            self._kdamonds.stop(slot)
            raise

    def _measure(self, watched: _Watched, now: float) -> float | None:
        """Return the share of a core that a thread takes, measured anew when it is time."""
        if now - watched.ticks_at < RATE_SECONDS:
            return watched.cpu_ratio
        thread = self._kdamonds.thread(watched.slot)
        if thread is None:
            return None
        path = f"{self._procfs}/{thread}/stat"
        try:
            ticks = parse_stat(read_bytes(path), path).cpu_ticks
        except (FileNotFoundError, ProcessLookupError):
            return None
        ran_seconds = (ticks - watched.ticks) / os.sysconf("SC_CLK_TCK")
        watched.cpu_ratio = ran_seconds / (now - watched.ticks_at)
        watched.ticks, watched.ticks_at = ticks, now
        return watched.cpu_ratio

    def _adapt(self, process: ProcessId, watched: _Watched, now: float) -> None:
        """Choose other intervals when a thread takes more or much less than its share; it begins anew with them.

        They could be changed while it runs ("commit"), but what that does to targets differs between releases.
        """
        if watched.cpu_ratio is None or watched.ticks_at != now:
            return
        factor = choose_factor(watched.factor, watched.cpu_ratio, self.budget_ratio / self.slots)
        if factor != watched.factor:
            self._start(process, watched.slot, factor=factor)
            watched.factor, watched.started_at = factor, now
            watched.ticks, watched.ticks_at = 0, now


def choose_factor(factor: int, cpu_ratio: float, allowed_ratio: float) -> int:
    """Return by which power of two intervals are to be longer than the shortest ones, given what a factor takes."""
    while factor < MOST_FACTOR and cpu_ratio > allowed_ratio:
        factor, cpu_ratio = 2 * factor, cpu_ratio / 2
    while factor > 1 and cpu_ratio * WORTH_SHORTENING < allowed_ratio:
        factor, cpu_ratio = factor // 2, cpu_ratio * 2
    return factor


def _told(region: Region, most_accesses: int, seconds: float) -> HeatRegion:
    """Return a region as the share of looks that found it accessed, and its age in seconds."""
    return HeatRegion(
        start=region.start,
        end=region.end,
        ratio=min(1.0, region.accesses / most_accesses),
        age_seconds=region.age * seconds,
    )
