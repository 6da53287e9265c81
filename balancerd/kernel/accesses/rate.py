"""How often threads are sampled and their samples judged, so that both stay within a share of one core. Pure.

And how large their rings are: they must hold what comes between two reads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from balancerd.model.access import REGION_BYTES, AccessRegion, AccessRun
from balancerd.model.ids import NodeId, ProcessId
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

LEAST_INTEREST = 1 / 16

ASTRAY_RATIO = 0.01
"""More than this share of what is used by threads of other nodes than it lies on is out of place."""

KNOWN_RATIO = 0.9
"""So much of all samples must be of memory of which it is known who uses it, one node or several, and where it lies."""

SHARED_MOVED_RATIO = 0.05
"""If more than this share of the accesses to what is shared goes to other nodes than before, it has moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What was judged, in short. `is_in_place`: who uses nearly all is known, and what one node uses lies there.

    `shared_on` tells where the rest lies, that several nodes share: by node, as a share of all accesses. Whether it is
    well there is the policies' affair; while they move it, it changes.
    """

    is_in_place: bool
    shared_on: Mapping[NodeId, float] = field(default_factory=dict)


def standing(runs: Iterable[AccessRun], regions: Sequence[AccessRegion]) -> Standing:
    """Return how much of what is used is known, and whether it is in place; runs that are not sure tell nothing."""
    known = astray = ran = 0.0
    shared = {region.start: region for region in regions if region.is_shared}
    shared_weight = {start: region.weight for start, region in shared.items()}
    for run in runs:
        ran += run.weight
        if not run.is_sure:
            continue
        for start, weight in _by_region(run) if shared else ():
            if start in shared_weight:
                shared_weight[start] -= weight
        held = run.pages_by_node or {}
        if (present := sum(held.values())) > 0:
            known += run.weight
            astray += run.weight * (1.0 - held.get(run.node, 0.0) / present)
    shared_on: dict[NodeId, float] = {}
    for start, weight in shared_weight.items():
        held = shared[start].pages_by_node or {}
        if weight > 0 and (present := sum(held.values())) > 0:
            known += weight
            for node, pages in held.items():
                shared_on[node] = shared_on.get(node, 0.0) + weight * pages / present
    total = max(ran, sum(region.weight for region in regions))
    return Standing(
        is_in_place=total > 0 and known >= KNOWN_RATIO * total and astray <= ASTRAY_RATIO * known,
        shared_on={node: weight / total for node, weight in shared_on.items()},
    )


def _by_region(run: AccessRun) -> Iterator[tuple[int, float]]:
    """Yield the regions that a run lies in, and the weight of what of it does, as if it were spread evenly."""
    for start in range(run.start // REGION_BYTES * REGION_BYTES, run.end, REGION_BYTES):
        n_bytes = min(run.end, start + REGION_BYTES) - max(run.start, start)
        yield start, run.weight * n_bytes / (run.end - run.start)


class Interest:
    """Which share of the samples that the budget allows a process is worth: the longer all is in place, the less."""

    def __init__(self) -> None:
        self.ratio = 1.0
        self._since: float | None = None
        self._shared_on: Mapping[NodeId, float] = {}

    def note(self, now: float, found: Standing) -> None:
        """Take note of what was judged. As soon as something is out of place, or moves, all samples are taken again."""
        if not found.is_in_place or self._since is None or self._has_moved(found.shared_on):
            self.ratio, self._since = 1.0, now if found.is_in_place else None
            self._shared_on = found.shared_on
        elif now - self._since >= CALM_SECONDS:
            self.ratio, self._since = max(LEAST_INTEREST, self.ratio / 2), now

    def _has_moved(self, shared_on: Mapping[NodeId, float]) -> bool:
        nodes = self._shared_on.keys() | shared_on.keys()
        gone = sum(max(0.0, self._shared_on.get(node, 0.0) - shared_on.get(node, 0.0)) for node in nodes)
        return gone > SHARED_MOVED_RATIO


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
