"""Hint faults: the kernel's balancing takes pages away for a moment, and who faults on one has accessed it.

Needs kernel.numa_balancing and perf_event_open(2), no PMU. The kernel marks at most 256 MiB a scan, and scans every 1 s
to 60 s (sched/fair.c, task_numa_work), so that a page is seen once a scan, however often it is used: counts tell who
uses it and not how much. A huge page gives one fault a scan. Owns which faults are accesses; what becomes of them is
the business of rings.py.
"""

from pathlib import Path

from balancerd import native
from balancerd.kernel.accesses.obstacles import find_balancing_obstacle, find_perf_obstacle
from balancerd.kernel.accesses.rate import ring_pages
from balancerd.kernel.accesses.rings import Drained, RingSource, Surroundings, Watched
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.model.access import AccessMethod, Obstacle
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES

GROWTH_PAGES = (1 << 20) // PAGE_BYTES
"""A process that grew by more has touched memory for the first time; the kernel counts late, by some pages a CPU."""

LARGEST_RING_PAGES = 256
"""One thread may take all faults of a scan: 65,536 of 40 bytes, where this holds 26,214."""


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Look whether the kernel marks pages, and try to watch this very thread's faults; None when both work."""
    return find_balancing_obstacle(root) or find_perf_obstacle(native.PerfKind.FAULTS, root)


class HintFaultSource(RingSource):
    """The AccessSource.

    Every fault is told, and the first one of a page may be its first touch: by who fills memory for others. So while
    a process grows, the first fault of a page that is not known makes it known and is no sample; while it does not, all
    faults are accesses. In memory that comes and goes at the same rate first touches count as accesses, by threads that
    were given the page where they run.
    """

    method = AccessMethod.HINT_FAULTS
    lookback_seconds = 600.0  # a page of a large process waits minutes for the next scan
    forget_seconds = 1800.0

    def __init__(self, around: Surroundings, *, table_bytes: int, budget_ratio: float) -> None:
        super().__init__(around, table_bytes=table_bytes, budget_ratio=budget_ratio)
        self._own_pages: dict[ProcessId, int] = {}

    def _find_obstacle(self) -> Obstacle | None:
        return find_obstacle()

    def _make_rings(self, process: ProcessId, n_threads: int) -> native.ThreadRings:
        self._own_pages[process] = self._read_own_pages(process)
        return native.ThreadRings(
            native.PerfKind.FAULTS, frequency_hz=1, ring_pages=ring_pages(n_threads, LARGEST_RING_PAGES)
        )

    def _drain(self, process: ProcessId, watched: Watched) -> Drained:
        own_pages = self._read_own_pages(process)
        watched.rings.first_is_touch = own_pages - self._own_pages[process] > GROWTH_PAGES
        self._own_pages[process] = own_pages
        touches = watched.table.totals().touches
        reading = watched.rings.read(watched.table, watched.ranges)
        touches = watched.table.totals().touches - touches
        return Drained(
            samples=reading.samples - touches,
            hits=reading.with_access - touches,
            lost=reading.lost,
            throttled=reading.throttled,
        )

    def _forget_closed(self) -> None:
        self._own_pages = {process: n for process, n in self._own_pages.items() if process in self._watched}

    def _read_own_pages(self, process: ProcessId) -> int:
        """Return how many pages it holds that no file holds (proc_pid_statm(5))."""
        path = f"{self._mappings.procfs}/{process.pid}/statm"
        try:
            _, resident, shared, *_ = map(int, read_bytes(path).split())
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"{path} is gone") from error
        return resident - shared
