"""What serving may cost: bursts from savings, debts that are waited for, and never more than the share over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.control.allowance import Allowance


class Time:
    def __init__(self) -> None:
        self.seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


def test_the_burst_may_be_used_at_once_and_a_debt_is_waited_for(time: Time) -> None:
    allowance = Allowance(ratio=0.1, burst_seconds=2.0, now=time)
    allowance.charge(2.0)
    assert allowance.wait_seconds() == 0.0
    allowance.charge(0.5)
    assert allowance.wait_seconds() == pytest.approx(5.0)
    time.seconds += 4.0
    assert allowance.wait_seconds() == pytest.approx(1.0)
    time.seconds += 1.5
    assert allowance.wait_seconds() == 0.0


def test_no_more_than_the_burst_is_saved(time: Time) -> None:
    allowance = Allowance(ratio=0.1, burst_seconds=2.0, now=time)
    time.seconds += 1000.0
    allowance.charge(2.1)
    assert allowance.wait_seconds() == pytest.approx(1.0)


@given(st.lists(st.floats(min_value=0.0, max_value=0.3), max_size=50))
def test_over_any_time_no_more_is_used_than_the_share_the_burst_and_one_answer(answers: list[float]) -> None:
    time = Time()
    allowance, used = Allowance(ratio=0.1, burst_seconds=1.0, now=time), 0.0
    for seconds in answers:
        time.seconds += allowance.wait_seconds() + 1e-9
        used += seconds
        allowance.charge(seconds)
        assert used <= 0.1 * (time.seconds - 50.0) + 1.0 + 0.3 + 1e-6
