"""Whether balancerd does what is asked of it: each requirement on each workload, yes, no, or unknown.

Owns the requirements and their limits. Pure: must not know how boots are made or tables drawn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.bench.locality.compare import (
    BOUND,
    KERNEL,
    NOTHING,
    NUMAD,
    OURS,
    OURS_AND_KERNEL,
    OURS_WITH_ACCESS,
    Cell,
    Comparison,
    Spread,
)

COSTS_NOTHING_RATIO = 1.01
NEAR_BOUND_RATIO = 1.05
LONG_RUN_SECONDS = 120
CLOSED_RATIO = 0.9
AS_GOOD_AS_KERNEL_RATIO = 1.02
CLEARLY_BELOW_RATIO = 0.95
SLOWER_HOST_RATIO = 1.25
"""Gaps are compared only where the host was about as fast: the time for which it takes a CPU away is in them."""

_LONG = f"in a run of {LONG_RUN_SECONDS} s or more, on one node for so long"
_WELL = f"the kernel closes {CLOSED_RATIO:.0%} of the gap or there is none"
QUICK_LAST_QUARTER_RATIO = 0.05
QUICK_NOTHING_RATIO = 0.40


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One requirement on one workload. `holds` is None when it was not measured; `told` is the figure it rests on."""

    holds: bool | None
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One requirement on all workloads that it is about, by name."""

    requirement: str
    outcomes: Mapping[str, Outcome]

    @property
    def holds(self) -> bool | None:
        """False as soon as it fails somewhere; None when it was measured nowhere."""
        known = [outcome.holds for outcome in self.outcomes.values() if outcome.holds is not None]
        return all(known) if known else None


UNKNOWN = Outcome(holds=None, told="")


def verdicts(comparisons: Sequence[Comparison]) -> tuple[Verdict, ...]:
    """Judge balancerd by medians, in the order of what it must show; its defaults, and with the policy access."""
    once = list(comparisons)
    every = [each for it in once for each in (it, *_with_access(it))]
    misplaced, misplaced_once = ([it for it in some if it.is_misplaced] for some in (every, once))
    short = [it for it in every if _kernel_falls_short(it)]
    rest = [it for it in every if it not in short]
    told = (
        (f"T(balancerd) ≤ {COSTS_NOTHING_RATIO} T(nothing), on every workload", every, _costs_nothing),
        (f"T(balancerd) ≤ {NEAR_BOUND_RATIO} T(bound), on misplacement workloads, {_LONG}", misplaced, _near_bound),
        ("T(balancerd) < T(numad), on misplacement workloads", misplaced, _below_numad),
        (f"balancerd closes {CLOSED_RATIO:.0%} of the gap or more, on misplacement workloads", misplaced, _closes),
        (f"T(balancerd) ≤ {AS_GOOD_AS_KERNEL_RATIO} T(kernel), where {_WELL}", rest, _as_good_as_kernel),
        (f"T(balancerd) ≤ {CLEARLY_BELOW_RATIO} T(kernel), where the kernel closes less", short, _clearly_below_kernel),
        ("p99.9 of the gaps of the worst thread: balancerd ≤ kernel", every, _shorter_p999),
        ("longest gap of the worst thread: balancerd ≤ kernel", every, _shorter_longest),
        (f"T(balancerd+kernel) ≤ {COSTS_NOTHING_RATIO} T(kernel), on every workload", once, _adds_nothing_to_kernel),
        ("numad had its chance: it logged moves in each boot of a misplacement workload", misplaced_once, _numad_moved),
    )
    return tuple(
        Verdict(requirement=requirement, outcomes={it.workload: judge(it) for it in among})
        for requirement, among, judge in told
    )


def quick_faults(comparisons: Iterable[Comparison]) -> tuple[str, ...]:
    """Judge a short run with wide bands, by the remote share of the last quarter; returns what is wrong."""
    faults = []
    for it in comparisons:
        for rival in (NOTHING, OURS, BOUND):
            cell = it.cells.get(rival)
            share = cell.last_quarter_remote_ratio if cell else None
            if share is None:
                faults.append(f"{it.workload} under {rival}: not measured")
                continue
            told = f"{it.workload} under {rival}: {share.median:.1%} remote in the last quarter"
            if rival == NOTHING and share.median <= QUICK_NOTHING_RATIO:
                faults.append(f"{told}, not more than {QUICK_NOTHING_RATIO:.0%}")
            if rival != NOTHING and share.median >= QUICK_LAST_QUARTER_RATIO:
                faults.append(f"{told}, not less than {QUICK_LAST_QUARTER_RATIO:.0%}")
    return tuple(faults)


def _with_access(it: Comparison) -> Iterable[Comparison]:
    """Give the workload once more, as if balancerd with the policy access were balancerd, where that was measured."""
    cell = it.cells.get(OURS_WITH_ACCESS)
    if cell is not None:
        yield replace(it, workload=f"{it.workload} with access", cells={**it.cells, OURS: cell})


def _ratio(it: Comparison, rival: str, other: str, figure: Callable[[Cell], Spread | None]) -> float | None:
    cells = it.cells.get(rival), it.cells.get(other)
    spreads = [figure(cell) for cell in cells if cell is not None]
    if len(spreads) < 2 or spreads[0] is None or spreads[1] is None or not spreads[1].median:
        return None
    return spreads[0].median / spreads[1].median


def _at_most(it: Comparison, rival: str, other: str, limit: float, figure: Callable[[Cell], Spread | None]) -> Outcome:
    ratio = _ratio(it, rival, other, figure)
    return UNKNOWN if ratio is None else Outcome(holds=ratio <= limit, told=f"{ratio:.3f}")


def _time(cell: Cell) -> Spread:
    return cell.memory_time


def _costs_nothing(it: Comparison) -> Outcome:
    return _at_most(it, OURS, NOTHING, COSTS_NOTHING_RATIO, _time)


def _near_bound(it: Comparison) -> Outcome:
    """A run that was too short refutes nothing, nor does one that was misplaced anew before long."""
    outcome = _at_most(it, OURS, BOUND, NEAR_BOUND_RATIO, _time)
    if outcome.holds is not False:
        return outcome
    seconds = it.cells[OURS].seconds.median
    if it.stays_seconds is not None and it.stays_seconds < LONG_RUN_SECONDS:
        return Outcome(holds=None, told=f"{outcome.told}, {it.stays_seconds:.0f} s on a node")
    return outcome if seconds >= LONG_RUN_SECONDS else Outcome(holds=None, told=f"{outcome.told} in {seconds:.0f} s")


def _below_numad(it: Comparison) -> Outcome:
    ratio = _ratio(it, OURS, NUMAD, _time)
    return UNKNOWN if ratio is None else Outcome(holds=ratio < 1, told=f"{ratio:.3f}")


def _closes(it: Comparison) -> Outcome:
    cell = it.cells.get(OURS)
    if cell is None or cell.closed_ratio is None:
        return UNKNOWN
    return Outcome(holds=cell.closed_ratio.median >= CLOSED_RATIO, told=f"{cell.closed_ratio.median:.1%}")


def _kernel_falls_short(it: Comparison) -> bool:
    cell = it.cells.get(KERNEL)
    return cell is not None and cell.closed_ratio is not None and cell.closed_ratio.median < CLOSED_RATIO


def _as_good_as_kernel(it: Comparison) -> Outcome:
    return _at_most(it, OURS, KERNEL, AS_GOOD_AS_KERNEL_RATIO, _time)


def _clearly_below_kernel(it: Comparison) -> Outcome:
    return _at_most(it, OURS, KERNEL, CLEARLY_BELOW_RATIO, _time)


def _shorter_p999(it: Comparison) -> Outcome:
    return _shorter(it, lambda cell: cell.p999_ns)


def _shorter_longest(it: Comparison) -> Outcome:
    return _shorter(it, lambda cell: cell.longest_ns)


def _shorter(it: Comparison, figure: Callable[[Cell], Spread | None]) -> Outcome:
    """Judge a gap; where whoever has the longer one was on a slower host, that may be why, and nothing is shown."""
    outcome = _at_most(it, OURS, KERNEL, 1, figure)
    rates = _ratio(it, KERNEL, OURS, lambda cell: cell.late_rate)
    slower = rates if outcome.holds is False else 1 / rates if rates else None
    if outcome.holds is None or slower is None or slower <= SLOWER_HOST_RATIO:
        return outcome
    whose = "balancerd" if outcome.holds is False else "kernel"
    return Outcome(holds=None, told=f"{outcome.told} ({whose} {slower:.1f} times slower)")


def _adds_nothing_to_kernel(it: Comparison) -> Outcome:
    return _at_most(it, OURS_AND_KERNEL, KERNEL, COSTS_NOTHING_RATIO, _time)


def _numad_moved(it: Comparison) -> Outcome:
    cell = it.cells.get(NUMAD)
    if cell is None:
        return UNKNOWN
    moves = sorted(boot.result.moves for boot in cell.boots)
    return Outcome(holds=moves[0] > 0, told="-".join(map(str, dict.fromkeys((moves[0], moves[-1])))))
