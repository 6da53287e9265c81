"""What the oracle's counters say of one boot: remote share, modelled memory time, balance, and how they went over time.

Owns the definitions of these figures. Pure: must not know files, rivals, nor other boots.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.locality.plan import BEGIN, DONE, THREE_QUARTERS
from tests.lab.oracle.counters import Counters, Header, Reading, difference

WORKLOAD_CPUS = (0, 1, 2, 3)
OWN_CPU = 4
"""The house-keeper of machine.toml: the harness and the rival's daemon run there, and no workload."""

LOCAL_DISTANCE = 10
SERIES_POINTS = 200
WINDOW_SECONDS = 2.0
CLOSED_RATIO = 0.9
SLOW_RATIO = 0.75
"""A stretch in which less than this share of the usual was done is told as slow: a busy host alone gets less below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One boot between the markers. An access is one that reached memory; a cost is in accesses to local memory.

    The workload's are those of the user class on WORKLOAD_CPUS, the own ones those of the user class on OWN_CPU; the
    kernel's are those of all CPUs. `balance_ratio` is the busiest workload CPU's accesses over the mean of all four,
    cached ones too. A share is None where there was no access.
    """

    seconds: float
    accesses: int
    workload_cost: float
    own_cost: float
    kernel_cost: float
    remote_ratio: float | None
    last_quarter_remote_ratio: float | None
    balance_ratio: float | None

    @property
    def memory_time(self) -> float:
        """T: what all accesses cost together, user and kernel, on all CPUs."""
        return self.workload_cost + self.own_cost + self.kernel_cost

    @property
    def time_without_own(self) -> float:
        """T less what user code on OWN_CPU costs: the harness's, and the daemon's own."""
        return self.workload_cost + self.kernel_cost

    @property
    def cost_per_access(self) -> float | None:
        """What one of the workload's accesses costs; 1 when all are local."""
        return self.workload_cost / self.accesses if self.accesses else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A stretch of the workload's accesses that ended `seconds` after the measured work began."""

    seconds: float
    accesses: int
    remote: int
    cost: float


def figures(counters: Counters) -> Figures:
    """Work out the figures between the markers; ValueError when one of them is missing."""
    begin, late, done = (_marker(counters, number) for number in (BEGIN, THREE_QUARTERS, DONE))
    whole, last = difference(begin, done), difference(late, done)
    workload = _tally(counters.header, whole, WORKLOAD_CPUS, is_kernel=False)
    cached_too = [whole.counts[cpu, False].accesses for cpu in WORKLOAD_CPUS]
    return Figures(
        seconds=whole.at_seconds,
        accesses=workload.accesses,
        workload_cost=workload.cost,
        own_cost=_tally(counters.header, whole, (OWN_CPU,), is_kernel=False).cost,
        kernel_cost=_tally(counters.header, whole, (*WORKLOAD_CPUS, OWN_CPU), is_kernel=True).cost,
        remote_ratio=workload.remote_ratio,
        last_quarter_remote_ratio=_tally(counters.header, last, WORKLOAD_CPUS, is_kernel=False).remote_ratio,
        balance_ratio=max(cached_too) * len(cached_too) / sum(cached_too) if any(cached_too) else None,
    )


def series(counters: Counters) -> tuple[Point, ...]:
    """Return the workload's accesses over time, between the first marker and the last, one point a reading."""
    begin, done = _marker(counters, BEGIN), _marker(counters, DONE)
    between = [tick for tick in counters.ticks() if begin.at_seconds < tick.at_seconds < done.at_seconds]
    points = []
    for before, now in itertools.pairwise([begin, *between, done]):
        tally = _tally(counters.header, difference(before, now), WORKLOAD_CPUS, is_kernel=False)
        seconds = round(now.at_seconds - begin.at_seconds, 3)
        points.append(Point(seconds=seconds, accesses=tally.accesses, remote=tally.remote, cost=tally.cost))
    return tuple(points)


def thinned(points: Sequence[Point], at_most: int = SERIES_POINTS) -> tuple[Point, ...]:
    """Join neighbours until so few are left; nothing is lost but when within a point it happened."""
    step = -(-len(points) // at_most) or 1
    return tuple(_joined(points[i : i + step]) for i in range(0, len(points), step))


def seconds_to_close(points: Sequence[Point], *, nothing: float, bound: float) -> float | None:
    """Return t90: when the cost per access over WINDOW_SECONDS came to CLOSED_RATIO of the way to `bound`, for good.

    `nothing` and `bound` are what an access costs under these two. Told is the end of the first window of those that
    stay below; 0 when none was ever above. None: it was still above at the end. A window without an access says
    nothing, and without any that has one the answer is None, too.
    """
    ceiling = bound + (1 - CLOSED_RATIO) * (nothing - bound)
    closed_at: float | None = None
    was_above = False
    first = 0
    for i, point in enumerate(points):
        while points[first].seconds <= point.seconds - WINDOW_SECONDS:
            first += 1
        window = _joined(points[first : i + 1])
        if not window.accesses:
            continue
        if window.cost > ceiling * window.accesses:
            closed_at, was_above = None, True
        elif closed_at is None:
            closed_at = point.seconds if was_above else 0.0
    return closed_at


def lost_seconds(points: Sequence[Point]) -> float:
    """Return the seconds of work that were lost in stretches with less than SLOW_RATIO of the usual accesses a second.

    Usual is the median over the points. What makes a thread wait, and no access that is counted, shows here.
    """
    began = [0.0, *(point.seconds for point in points)]
    spans = [point.seconds - start for point, start in zip(points, began, strict=False)]
    rates = [point.accesses / span for point, span in zip(points, spans, strict=True) if span > 0]
    usual = statistics.median(rates) if rates else 0.0
    if not usual:
        return 0.0
    done = [point.accesses / (usual * span) if span > 0 else 1.0 for point, span in zip(points, spans, strict=True)]
    return sum(span * (1 - ratio) for span, ratio in zip(spans, done, strict=True) if ratio < SLOW_RATIO)


def late_rate(points: Sequence[Point]) -> float | None:
    """Return the workload's accesses to memory a second in the last quarter of the time; None without any point.

    Nodes are all alike to an emulated CPU, so that this tells how fast the host was, if nobody hinders the workload.
    """
    if not points:
        return None
    late = [point for point in points if point.seconds > 0.75 * points[-1].seconds]
    began = max((point.seconds for point in points if point.seconds < late[0].seconds), default=0.0)
    return sum(point.accesses for point in late) / (points[-1].seconds - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tally:
    """What some CPUs did in one class: accesses that reached memory, those of another node's memory, and their cost."""

    accesses: int
    remote: int
    cost: float

    @property
    def remote_ratio(self) -> float | None:
        return self.remote / self.accesses if self.accesses else None


def _tally(header: Header, reading: Reading, cpus: Sequence[int], *, is_kernel: bool) -> _Tally:
    accesses = remote = cost = 0
    for cpu in cpus:
        counts, home = reading.counts[cpu, is_kernel], header.node_of_cpu[cpu]
        for node, (reads, writes) in enumerate(zip(counts.reads_by_node, counts.writes_by_node, strict=True)):
            accesses += reads + writes
            remote += reads + writes if node != home else 0
            cost += (reads + writes) * header.distances[home][node]
    return _Tally(accesses=accesses, remote=remote, cost=cost / LOCAL_DISTANCE)


def _joined(points: Sequence[Point]) -> Point:
    return Point(
        seconds=points[-1].seconds,
        accesses=sum(point.accesses for point in points),
        remote=sum(point.remote for point in points),
        cost=sum(point.cost for point in points),
    )


def _marker(counters: Counters, number: int) -> Reading:
    reading = counters.mark(number)
    if reading is None:
        raise ValueError(f"marker {number} was never executed")
    return reading
