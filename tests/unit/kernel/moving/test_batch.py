import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.kernel.moving.batch import MAX_PAGES, MIN_PAGES, START_PAGES, BatchSize

TARGET = 0.005
FAST = [(0.001, 512), (0.001, 1024), (0.002, 2048), *[(0.004, 4096)] * 5]


def after(*calls: tuple[float, int]) -> int:
    batch = BatchSize(TARGET)
    for seconds, pages in calls:
        batch.took(seconds, pages)
    return batch.pages


@pytest.mark.parametrize(
    ("calls", "pages"),
    [
        ([], 512),
        ([(0.001, 512)], 1024),
        ([(0.001, 512), (0.001, 1024)], 2048),
        ([(0.004, 512)], 1024),  # too large at that price per page, which may be that of a call: it is tried
        ([(0.004, 512), (0.008, 1024)], 512),
        ([(0.001, 200)], 512),  # a call that moved little says nothing about larger ones
        ([(0.007, 512)], 256),  # the target allows 347 pages at that price: half a block
        ([(0.011, 512)], 256),
        ([(0.011, 512), (0.011, 256)], 128),
        ([(0.011, 512), (0.011, 256), (0.001, 128)], 170),
        ([(0.011, 10)], 256),  # a slow call is slow however little it moved
        ([(0.002, 512), (0.002, 1024), (0.009, 1024)], 1024),  # one slow call is no reason to shrink
        ([(0.002, 512), (0.002, 1024), *[(0.009, 1024)] * 3], 512),
        ([(0.011, 512)] * 4, 170),  # folios larger than the batch do not make it ever smaller
        ([(9.0 / 2**n, 512) for n in range(6)], MIN_PAGES),
        ([(9.0, 512)] * 7, MIN_PAGES),
        ([(9.0, 512)] * 60, 512),  # no size is any faster: small calls only make more stalls
        ([(9.0, 512)] * 61, 512),  # and it stays so
        ([*FAST, (0.012, 4096)], 2048),
        ([*FAST, (0.012, 4096), (0.0055, 2048)], 2048),  # it does not grow after a slow call, whatever the others say
        ([(0.0, MAX_PAGES)] * 40, MAX_PAGES),
        ([(0.0045, MAX_PAGES)] * 8 + ([(0.0045, MAX_PAGES)] * 3 + [(0.0055, MAX_PAGES)] * 3) * 5, 110 * 512),
    ],
)
def test_the_batch_follows_the_time_that_calls_take(calls: list[tuple[float, int]], pages: int) -> None:
    assert after(*calls) == pages


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 20000)), max_size=80))
def test_the_batch_stays_within_its_bounds(calls: list[tuple[float, int]]) -> None:
    assert MIN_PAGES <= after(*calls) <= MAX_PAGES


@dataclass(frozen=True, slots=True)
class Machine:
    """What a call costs: for itself, of which the target feels `flat_seconds`, and for each page."""

    idle_seconds: float
    flat_seconds: float
    page_seconds: float
    noise_ratio: float = 0.0
    odd_call_ratio: float = 0.0

    def calls(self, seed: int) -> Iterator[tuple[float, float]]:
        """Give the factor and the delay of one call after the other: usual spread, and odd calls of 10 ms at most."""
        chance = random.Random(seed)  # noqa: S311 the same in every run
        while True:
            odd_seconds = 0.010 * chance.random() if chance.random() < self.odd_call_ratio else 0.0
            yield chance.lognormvariate(0.0, self.noise_ratio), odd_seconds


MACHINES = {
    "hardware": Machine(30e-6, 0.0, 1.24e-6),
    "hardware, huge pages": Machine(30e-6, 0.0, 4096 / 11e9),
    "busy hardware": Machine(2e-3, 0.5e-3, 1.24e-6),
    "busy hardware, huge pages": Machine(2e-3, 0.5e-3, 4096 / 11e9),
    "hundreds of busy CPUs": Machine(20e-3, 0.0, 2e-6),
    "emulated": Machine(0.05e-3, 0.0, 28e-6),
    "emulated, odd calls": Machine(0.05e-3, 0.2e-3, 28e-6, 0.2, 0.05),
    "emulated and busy": Machine(1e-3, 1e-3, 45e-6, 0.2, 0.02),
    "every call waits": Machine(0.0, 20e-3, 20e-6, 0.05),
}
FIXED_PAGES = tuple(2**n for n in range(6, 17))


def pages_of_calls(pages: int) -> int:
    """How many pages each call moves when the native core is asked for `pages`: it collects whole blocks of 512."""
    collected = -(-pages // 512) * 512
    return -(-collected // -(-collected // pages))


@dataclass(frozen=True, slots=True)
class Run:
    """Pages in a second, and the calls' stalls, on the way (`all`) and once the batch had settled."""

    all_rate: float
    settled_rate: float
    stalls: tuple[float, ...]


def moved_by(machine: Machine, batch: BatchSize | int, n_calls: int) -> Run:
    """Move with an adaptive batch, or one of so many pages; the first tenth of the calls is not yet settled."""
    calls = machine.calls(1)
    amounts: list[tuple[int, float]] = []
    stalls = []
    for _ in range(n_calls):
        factor, odd_seconds = next(calls)
        pages = pages_of_calls(batch if isinstance(batch, int) else batch.pages)
        stall = (machine.flat_seconds + pages * machine.page_seconds) * factor + odd_seconds
        amounts.append((pages, machine.idle_seconds + stall))
        stalls.append(stall)
        if not isinstance(batch, int):
            batch.idle_call_took(machine.idle_seconds)
            batch.took(machine.idle_seconds + stall, pages)
    tail = n_calls // 10
    return Run(rate(amounts), rate(amounts[tail:]), tuple(stalls[tail:]))


def rate(amounts: list[tuple[int, float]]) -> float:
    return sum(pages for pages, _ in amounts) / sum(seconds for _, seconds in amounts)


@pytest.mark.parametrize("target_seconds", [0.002, 0.005, 0.020, 0.050, 0.200])
@pytest.mark.parametrize("name", MACHINES)
def test_the_batch_is_as_fast_as_the_best_fixed_one_that_respects_the_target(name: str, target_seconds: float) -> None:
    machine = MACHINES[name]
    fixed = [moved_by(machine, pages, 200) for pages in FIXED_PAGES]
    respecting = [run for run in fixed if median(run.stalls) <= target_seconds]
    adaptive = moved_by(machine, BatchSize(target_seconds), 200)
    if respecting:
        best_rate = max(run.settled_rate for run in respecting)
        assert adaptive.settled_rate >= 0.9 * best_rate
        assert adaptive.all_rate >= 0.85 * best_rate
        assert median(adaptive.stalls) <= 1.05 * target_seconds
    else:  # the stall cannot be had below the target: it does not grow much above what it must be, nor does it crawl
        assert median(adaptive.stalls) <= 2 * min(median(run.stalls) for run in fixed)
        assert adaptive.settled_rate >= 0.25 * max(run.settled_rate for run in fixed)


@pytest.mark.parametrize("name", ["hardware", "hardware, huge pages", "emulated"])
def test_a_batch_settles_within_ten_calls(name: str) -> None:
    machine = MACHINES[name]
    batch = BatchSize(0.020)
    moved_by(machine, batch, 10)
    settled = batch.pages
    moved_by(machine, batch, 10)
    assert abs(batch.pages - settled) <= START_PAGES
    assert 0.5 * 0.020 <= batch.pages * machine.page_seconds <= 0.020


def test_a_size_that_shows_to_be_too_slow_is_not_tried_again() -> None:
    run = moved_by(Machine(0.0, 0.0, 0.004 / 512), BatchSize(TARGET), 300)
    assert sum(stall > TARGET for stall in run.stalls) <= 5


def test_a_batch_learnt_on_huge_pages_soon_fits_base_pages() -> None:
    batch = BatchSize(TARGET)
    moved_by(MACHINES["hardware, huge pages"], batch, 20)
    base = moved_by(MACHINES["hardware"], batch, 8)
    assert max(base.stalls) <= 4 * TARGET
    assert sum(stall > 2 * TARGET for stall in base.stalls) <= 1
    assert max(base.stalls[-2:]) <= 1.05 * TARGET


def test_one_odd_idle_call_does_not_count() -> None:
    batch = BatchSize(TARGET)
    for seconds in (0.0001, 0.0001, 5.0):
        batch.idle_call_took(seconds)
    batch.took(0.011, 512)
    assert batch.pages == 256


@pytest.mark.parametrize(("seconds", "batches"), [(0.0001, 8), (0.0012, 4), (0.004, 1), (0.009, 1)])
def test_short_calls_follow_each_other_unchecked_within_the_target(seconds: float, batches: int) -> None:
    batch = BatchSize(TARGET)
    assert batch.batches == 1
    batch.took(seconds, 512)
    assert batch.batches == batches


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        BatchSize(0.0)
