"""The rate of sampling by table, and when judging comes again."""

import pytest

from balancerd.kernel.accesses.rate import (
    FIRST_HZ,
    LEAST_HZ,
    MOST_HZ,
    RINGS_BYTES,
    SAMPLE_SECONDS,
    Governor,
    Turns,
    most_hz,
    ring_pages,
)
from balancerd.model.ids import ProcessId


@pytest.mark.parametrize(
    ("running", "budget", "most_hz", "expected"),
    [
        pytest.param(2, 0.01, 2000, MOST_HZ, id="few threads"),
        pytest.param(4, 0.01, 1000, 781, id="some threads"),
        pytest.param(31.25, 0.01, 1000, FIRST_HZ, id="just as many as the first rate allows"),
        pytest.param(100, 0.01, 1000, 31, id="many"),
        pytest.param(10_000, 0.01, 1000, LEAST_HZ, id="very many"),
        pytest.param(35, 0.01, 1000, FIRST_HZ, id="nearly right"),
        pytest.param(4, 0.01, 160, 160, id="the ring bounds it"),
        pytest.param(31.25, 0.01, 80, 80, id="the ring bounds what is nearly right, too"),
        pytest.param(4, 0.0001, 1000, 7, id="a small budget"),
        pytest.param(0, 0.01, 1000, FIRST_HZ, id="nobody runs"),
    ],
)
def test_the_rate_that_keeps_the_budget(running: float, budget: float, most_hz: float, expected: int) -> None:
    governor = Governor(budget)
    governor.note(ProcessId(1, 1), samples=round(running * 2.0 * FIRST_HZ), seconds=2.0, at_hz=FIRST_HZ)
    rate = governor.choose(most_hz)
    assert rate == expected
    if rate not in {LEAST_HZ, FIRST_HZ}:
        assert rate * running * SAMPLE_SECONDS <= budget


def test_all_processes_share_the_budget_and_one_that_is_not_watched_any_more_needs_nothing() -> None:
    governor = Governor(0.01)
    for pid in (1, 2):
        governor.note(ProcessId(pid, 1), samples=10_000, seconds=2.0, at_hz=100)
    assert governor.choose(1000) == 31
    governor.forget_all_but({ProcessId(1, 1)})
    assert governor.choose(1000) == 62


def test_of_a_new_process_all_threads_are_expected_to_run_until_more_is_known() -> None:
    governor, process = Governor(0.01), ProcessId(1, 1)
    governor.expect(process, 128)
    assert governor.choose(1000) == 24
    governor.note(process, samples=round(4 * 2.0 * 24), seconds=2.0, at_hz=24)
    assert governor.choose(1000) == 781


def test_a_rate_once_changed_is_what_later_samples_are_counted_by() -> None:
    governor = Governor(0.01)
    rate = FIRST_HZ
    rates = []
    for _ in range(5):
        governor.note(ProcessId(1, 1), samples=round(100 * 2.0 * rate), seconds=2.0, at_hz=rate)
        rate = governor.choose(1000)
        rates.append(rate)
    assert rates == [31] * 5


def test_a_reading_of_no_time_says_nothing() -> None:
    governor = Governor(0.01)
    governor.note(ProcessId(1, 1), samples=0, seconds=0.0, at_hz=100)
    assert governor.choose(1000) == FIRST_HZ


@pytest.mark.parametrize(("threads", "pages"), [(0, 64), (1, 64), (7, 64), (8, 32), (30, 16), (128, 4), (4096, 4)])
def test_the_rings_of_a_process_share_what_a_user_may_lock(threads: int, pages: int) -> None:
    assert ring_pages(threads) == pages
    assert threads * (pages + 1) * 4096 <= RINGS_BYTES or pages == 4


def test_no_ring_fills_before_it_is_read() -> None:
    assert most_hz(64, 2.0) * 2.0 * 1.25 * 168 == pytest.approx(64 * 4096)
    assert most_hz(64, 0.0) == FIRST_HZ


def test_judging_waits_for_as_long_as_its_cost_needs_to_fit_the_budget() -> None:
    turns = Turns()
    assert turns.is_due(0.0)
    turns.note(10.0, 0.05, 0.01)
    assert not turns.is_due(14.9)
    assert turns.is_due(15.0)
