"""The boots of each workload side by side: medians and ranges under each rival, beside nothing's and bound's.

Owns how boots are grouped and which figures are told relative to what. Pure: must not know how a table looks.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.locality.figures import Point, late_rate, lost_seconds, seconds_to_close
from tests.bench.locality.record import Boot

NOTHING, KERNEL, NUMAD, OURS, OURS_WITH_ACCESS, OURS_WITH_HINTS, OURS_AND_KERNEL, BOUND = RIVALS = (
    "nothing",
    "kernel",
    "numad",
    "balancerd",
    "balancerd+access",
    "balancerd+hints",
    "balancerd+kernel",
    "bound",
)
MIB = 1 << 20
LEAST_GAP_RATIO = 0.02
"""Nothing and bound that differ by less leave no gap to close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median and range of a figure over `n` boots; infinite where it never came to pass."""

    median: float
    low: float
    high: float
    n: int

    def over(self, divisor: float) -> "Spread":
        """Return it relative to something."""
        return Spread(median=self.median / divisor, low=self.low / divisor, high=self.high / divisor, n=self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A workload under a rival. None: not measured, or there is nothing to compare with.

    memory_time: T, in accesses to local memory
    to_bound, to_bound_without_own: T, and T less what user code on the house-keeper costs, over the median T of bound
    closed_ratio: of the gap between nothing and bound, in what an access of the workload costs
    closed_time_ratio: the same of T, with all that closing it costs
    closed_seconds: t90
    lost_seconds: of work, in stretches in which the workload was slow
    late_rate: see figures.late_rate()
    kernel_to_bound: what the kernel class costs more than with nothing, over the median T of bound
    p999_ns, longest_ns: of the gaps of the thread that fares worst
    """

    rival: str
    seconds: Spread
    memory_time: Spread
    to_bound: Spread | None
    to_bound_without_own: Spread | None
    remote_ratio: Spread | None
    last_quarter_remote_ratio: Spread | None
    closed_ratio: Spread | None
    closed_time_ratio: Spread | None
    closed_seconds: Spread | None
    lost_seconds: Spread
    late_rate: Spread | None
    balance_ratio: Spread | None
    cpu_seconds: Spread | None
    kernel_to_bound: Spread | None
    moved_bytes: Spread | None
    moved_twice_bytes: Spread | None
    p999_ns: Spread | None
    longest_ns: Spread | None
    accesses: Spread
    boots: tuple[Boot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One workload: its cells by rival, in the order of RIVALS; boots with other work compare with none."""

    workload: str
    summary: str
    is_misplaced: bool
    stays_seconds: float | None
    work: int
    mib: int
    cells: Mapping[str, Cell]
    left_out: tuple[Boot, ...]


def compare(boots: Sequence[Boot]) -> tuple[Comparison, ...]:
    """Return a comparison of each workload, misplaced ones first, and by name."""
    by_workload: dict[str, list[Boot]] = {}
    for boot in boots:
        by_workload.setdefault(boot.workload, []).append(boot)
    compared = [_comparison(group) for group in by_workload.values()]
    return tuple(sorted(compared, key=lambda it: (not it.is_misplaced, it.workload)))


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the median and range of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(median=statistics.median(known), low=min(known), high=max(known), n=len(known))


def _comparison(boots: Sequence[Boot]) -> Comparison:
    """Compare boots of one workload: those of the work and memory that most of them have, the larger if it is a tie."""
    n_by_size = Counter((boot.work, boot.mib) for boot in boots)
    work, mib = max(n_by_size, key=lambda size: (n_by_size[size], size))
    alike = [boot for boot in boots if (boot.work, boot.mib) == (work, mib)]
    by_rival = {rival: [boot for boot in alike if boot.rival == rival] for rival in _ordered(alike)}
    base = _Base(nothing=by_rival.get(NOTHING, []), bound=by_rival.get(BOUND, []))
    return Comparison(
        workload=boots[0].workload,
        summary=alike[0].summary,
        is_misplaced=alike[0].is_misplaced,
        stays_seconds=alike[0].stays_seconds,
        work=work,
        mib=mib,
        cells={rival: _cell(rival, group, base) for rival, group in by_rival.items()},
        left_out=tuple(boot for boot in boots if (boot.work, boot.mib) != (work, mib)),
    )


def _ordered(boots: Iterable[Boot]) -> list[str]:
    there = {boot.rival for boot in boots}
    return [*(rival for rival in RIVALS if rival in there), *sorted(there - set(RIVALS))]


class _Base:
    """What everybody is told relative to: the medians of nothing and of bound; None without boots of theirs."""

    def __init__(self, nothing: Sequence[Boot], bound: Sequence[Boot]) -> None:
        self.nothing_time = _median(boot.figures.memory_time for boot in nothing)
        self.bound_time = _median(boot.figures.memory_time for boot in bound)
        self.nothing_cost = _median(boot.figures.cost_per_access for boot in nothing)
        self.bound_cost = _median(boot.figures.cost_per_access for boot in bound)
        self.nothing_kernel_cost = _median(boot.figures.kernel_cost for boot in nothing)

    def to_bound(self, cost: float | None) -> float | None:
        return None if cost is None or self.bound_time is None else cost / self.bound_time

    def closed(self, boot: Boot) -> float | None:
        return _closed(boot.figures.cost_per_access, self.nothing_cost, self.bound_cost)

    def closed_time(self, boot: Boot) -> float | None:
        return _closed(boot.figures.memory_time, self.nothing_time, self.bound_time)

    def closed_seconds(self, points: Sequence[Point]) -> float | None:
        """Return t90, infinite for never; None when there is no gap."""
        if self.nothing_cost is None or self.bound_cost is None or not _is_gap(self.nothing_cost, self.bound_cost):
            return None
        seconds = seconds_to_close(points, nothing=self.nothing_cost, bound=self.bound_cost)
        return float("inf") if seconds is None else seconds

    def kernel_extra(self, boot: Boot) -> float | None:
        return None if self.nothing_kernel_cost is None else boot.figures.kernel_cost - self.nothing_kernel_cost


def _cell(rival: str, boots: Sequence[Boot], base: _Base) -> Cell:
    def over(figure: Callable[[Boot], float | None]) -> Spread | None:
        return spread(map(figure, boots))

    def known(figure: Callable[[Boot], float]) -> Spread:
        values = list(map(figure, boots))
        return Spread(median=statistics.median(values), low=min(values), high=max(values), n=len(values))

    return Cell(
        rival=rival,
        seconds=known(lambda it: it.figures.seconds),
        memory_time=known(lambda it: it.figures.memory_time),
        to_bound=over(lambda it: base.to_bound(it.figures.memory_time)),
        to_bound_without_own=over(lambda it: base.to_bound(it.figures.time_without_own)),
        remote_ratio=over(lambda it: it.figures.remote_ratio),
        last_quarter_remote_ratio=over(lambda it: it.figures.last_quarter_remote_ratio),
        closed_ratio=over(base.closed),
        closed_time_ratio=over(base.closed_time),
        closed_seconds=over(lambda it: base.closed_seconds(it.series)),
        lost_seconds=known(lambda it: lost_seconds(it.series)),
        late_rate=over(lambda it: late_rate(it.series)),
        balance_ratio=over(lambda it: it.figures.balance_ratio),
        cpu_seconds=over(lambda it: it.result.cpu_seconds),
        kernel_to_bound=over(lambda it: base.to_bound(base.kernel_extra(it))),
        moved_bytes=over(lambda it: it.result.moved_bytes),
        moved_twice_bytes=over(lambda it: it.result.moved_twice_bytes),
        p999_ns=over(lambda it: max((stalls.p999_ns for stalls in it.result.stalls.values()), default=None)),
        longest_ns=over(lambda it: max((stalls.longest_ns for stalls in it.result.stalls.values()), default=None)),
        accesses=known(lambda it: it.figures.accesses),
        boots=tuple(boots),
    )


def _closed(cost: float | None, nothing: float | None, bound: float | None) -> float | None:
    if cost is None or nothing is None or bound is None or not _is_gap(nothing, bound):
        return None
    return (nothing - cost) / (nothing - bound)


def _is_gap(nothing: float, bound: float) -> bool:
    return nothing > bound * (1 + LEAST_GAP_RATIO)


def _median(values: Iterable[float | None]) -> float | None:
    found = spread(values)
    return None if found is None else found.median
