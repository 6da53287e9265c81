"""The period of a PMU's event by table."""

import pytest

from balancerd.kernel.accesses.period import PeriodBounds, PeriodGovernor
from balancerd.model.ids import ProcessId

A, B = ProcessId(1, 1), ProcessId(2, 1)
BOUNDS = PeriodBounds(first=10_007, least=2_003, most=1_000_001)


def governor(bounds: PeriodBounds = BOUNDS) -> PeriodGovernor:
    return PeriodGovernor(bounds)


def note(
    known: PeriodGovernor, process: ProcessId, events_hz: float, busiest_hz: float = 0.0, *, throttled: bool = False
) -> None:
    """Two seconds in which so many events happened, as their samples tell at the present period."""
    per_sample = known.period / 2.0
    known.note(
        process,
        samples=events_hz / per_sample,
        busiest=busiest_hz / per_sample,
        seconds=2.0,
        at_period=known.period,
        is_throttled=throttled,
    )


@pytest.mark.parametrize(
    ("events_hz", "busiest_hz", "expected"),
    [
        pytest.param(30e6, 1e6, 30_001, id="many events"),
        pytest.param(30e6, 30e6, 60_001, id="all from one thread, whose ring must not fill"),
        pytest.param(10.1e6, 1e6, 10_007, id="nearly right"),
        pytest.param(10.1e6, 5.5e6, 11_001, id="nearly right, but the ring of one thread would fill"),
        pytest.param(3e6, 1e6, 3_001, id="few"),
        pytest.param(1e3, 1e3, 2_003, id="very few"),
        pytest.param(0, 0, 2_003, id="none"),
        pytest.param(1e12, 1e9, 1_000_001, id="more than can be counted"),
    ],
)
def test_the_period_that_keeps_the_budget(events_hz: float, busiest_hz: float, expected: int) -> None:
    known = governor()
    note(known, A, events_hz, busiest_hz)
    assert known.choose(1000.0, 500.0) == expected


def test_the_samples_of_all_processes_are_within_the_budget() -> None:
    known = governor()
    note(known, A, 30e6)
    note(known, B, 20e6)
    period = known.choose(1000.0, 500.0)
    assert 50e6 / period <= 1000.0
    known.forget_all_but({A})
    assert known.choose(1000.0, 500.0) == 30_001


def test_it_settles_at_once() -> None:
    known, periods = governor(), []
    for _ in range(4):
        note(known, A, 30e6, 30e6)
        periods.append(known.choose(1000.0, 500.0))
    assert periods == [60_001] * 4


def test_a_new_process_begins_with_no_shorter_period_than_the_first() -> None:
    known = governor()
    note(known, A, 1e3)
    assert known.choose(1000.0, 500.0) == 2_003
    known.expect(B)
    assert known.period == 10_007
    note(known, A, 1e3)
    assert known.choose(1000.0, 500.0) == 10_007
    note(known, B, 1e3)
    assert known.choose(1000.0, 500.0) == 2_003
    known.expect(B)
    known.forget_all_but({A})
    assert known.choose(1000.0, 500.0) == 2_003
    note(known, A, 100e6)
    period = known.choose(1000.0, 500.0)
    known.expect(B)
    assert known.period == period == 100_001


def test_what_the_kernel_throttled_was_too_much_and_it_is_tried_again_later() -> None:
    known = governor()
    note(known, A, 10e6, throttled=True)
    assert known.choose(1000.0, 500.0) == 20_015  # twice as long
    after = []
    for _ in range(12):
        note(known, A, 10e6)
        after.append(known.choose(1000.0, 500.0))
    assert after[0] == 20_015
    assert sorted(after, reverse=True) == after
    assert after[-1] == pytest.approx(10_001, rel=0.25)


def test_the_period_stays_within_what_can_be_counted_however_often_it_is_throttled() -> None:
    known = governor()
    for _ in range(30):
        note(known, A, 1e6, throttled=True)
        known.choose(1000.0, 500.0)
    assert known.period == 1_000_001


def test_a_reading_of_no_time_says_nothing() -> None:
    known = governor()
    known.note(A, samples=100, busiest=100, seconds=0.0, at_period=10_007, is_throttled=True)
    assert known.choose(1000.0, 500.0) == 2_003


@pytest.mark.parametrize("events_hz", [0, 5e6, 777e6, 1e9, 123456789, 1e15])
def test_periods_are_multiples_of_what_the_pmu_can_set(events_hz: float) -> None:
    known = governor(PeriodBounds(first=1 << 22, least=1 << 20, most=1 << 26, step=16))
    note(known, A, events_hz)
    period = known.choose(1000.0, 500.0)
    assert period % 16 == 0
    assert 1 << 20 <= period <= 1 << 26
