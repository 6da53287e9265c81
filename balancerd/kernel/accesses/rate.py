"""How often threads are sampled and their samples judged, so that both stay within a share of one core. Pure.

And how large their rings are: they must hold what comes between two reads.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from balancerd.model.access import AccessRegion, AccessRun
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES

MOST_HZ = 1000
"""The sooner enough is known, the sooner it pays; a thread feels 0.3 % of this."""

LEAST_HZ = 5

FIRST_HZ = 100

SAMPLE_SECONDS = 3.2e-6
"""What one sample is taken to cost: the timer's interrupt, the copying of registers, and 0.1 us to count it."""

SAMPLE_BYTES = 168
"""What a sample takes of a ring; see native/perf.py."""

RINGS_BYTES = 2 << 20
"""What all rings of a process may take: a user without CAP_IPC_LOCK has kernel.perf_event_mlock_kb for each CPU."""

MOST_RING_PAGES = 64
LEAST_RING_PAGES = 4

WORTH_CHANGING = 1.25
"""A rate that is nearly right stays: changing it means a system call for each thread."""


CALM_SECONDS = 10.0
"""After each so many seconds in which nothing was out of place, a process is sampled half as often."""

LEAST_INTEREST = 1 / 8

ASTRAY_RATIO = 0.01
"""More than this share of what is used by threads of other nodes than it lies on is out of place."""

KNOWN_RATIO = 0.9
"""So much of all samples must be of memory of which it is known where it belongs and where it lies."""


def is_all_in_place(runs: Iterable[AccessRun], regions: Iterable[AccessRegion]) -> bool:
    """Return whether nearly all accesses are to memory that belongs to one node, and lies there."""
    known = astray = ran = 0.0
    for run in runs:
        ran += run.weight
        held = run.pages_by_node or {}
        if (present := sum(held.values())) > 0:
            known += run.weight
            astray += run.weight * (1.0 - held.get(run.node, 0.0) / present)
    total = max(ran, sum(weight for region in regions for weight in region.weight_by_node.values()))
    return total > 0 and known >= KNOWN_RATIO * total and astray <= ASTRAY_RATIO * known


class Interest:
    """Which share of the samples that the budget allows a process is worth: the longer all is in place, the less."""

    def __init__(self) -> None:
        self.ratio = 1.0
        self._since: float | None = None

    def note(self, now: float, *, is_in_place: bool) -> None:
        """Take note of what was judged: is_all_in_place. As soon as something is not, all samples are taken again."""
        if not is_in_place:
            self.ratio, self._since = 1.0, None
        elif self._since is None:
            self._since = now
        elif now - self._since >= CALM_SECONDS:
            self.ratio, self._since = max(LEAST_INTEREST, self.ratio / 2), now


class Governor:
    """One rate for all threads, from how many of them are running. `budget_ratio` is the share of one core."""

    def __init__(self, budget_ratio: float) -> None:
        self.budget_ratio = budget_ratio
        self.frequency_hz = FIRST_HZ
        self._running: dict[ProcessId, float] = {}

    def expect(self, process: ProcessId, threads: int) -> None:
        """Take note of a process of which nothing is known: all of its threads may be running."""
        self._running[process] = float(threads)

    def note(self, process: ProcessId, *, samples: int, seconds: float, at_hz: int) -> None:
        """Take note of how many samples came in some seconds at a rate, lost ones included."""
        if seconds > 0:
            self._running[process] = samples / (seconds * at_hz)

    def forget_all_but(self, watched: AbstractSet[ProcessId]) -> None:
        """Count no longer who is not watched any more."""
        for process in self._running.keys() - watched:
            del self._running[process]

    def choose(self, most_hz: float) -> int:
        """Return the rate from now on, at most `most_hz`; the rings' room may bound it, too."""
        running = sum(self._running.values())
        right = self.budget_ratio / (SAMPLE_SECONDS * running) if running > 0 else float(FIRST_HZ)
        wanted = max(LEAST_HZ, int(min(right, most_hz, MOST_HZ)))
        is_near = self.frequency_hz / WORTH_CHANGING <= wanted <= self.frequency_hz * WORTH_CHANGING
        if not is_near or self.frequency_hz > max(LEAST_HZ, most_hz):
            self.frequency_hz = wanted
        return self.frequency_hz


def ring_pages(threads: int, most: int = MOST_RING_PAGES) -> int:
    """Return how many pages, a power of two, the ring of each of so many threads may have."""
    pages = most
    while pages > LEAST_RING_PAGES and threads * (pages + 1) * PAGE_BYTES > RINGS_BYTES:
        pages //= 2
    return pages


def most_hz(pages: int, seconds: float, sample_bytes: int = SAMPLE_BYTES) -> float:
    """Return the rate at which a ring does not fill within 1.25 times the seconds between two reads."""
    return 0.8 * pages * PAGE_BYTES / sample_bytes / seconds if seconds > 0 else float(FIRST_HZ)


class Turns:
    """When runs are judged and located anew: the dearer it was, the later, so that this keeps within the same share."""

    def __init__(self) -> None:
        self._again_at = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether it is time."""
        return now >= self._again_at

    def note(self, now: float, cpu_seconds: float, budget_ratio: float) -> None:
        """Take note of what judging has just cost."""
        self._again_at = now + cpu_seconds / budget_ratio
