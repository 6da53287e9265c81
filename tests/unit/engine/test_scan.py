"""What observing uses is paid from a bucket that the configured share of time fills."""

import pytest

from balancerd.engine.scan import FULL_SECONDS, ScanBudget


def test_nothing_is_paid_for_before_the_first_settling() -> None:
    budget = ScanBudget(0.01)
    assert budget.ready_at() == float("-inf")
    budget.settle(100.0, 7.0)
    assert budget.left_seconds == 0.01 * FULL_SECONDS
    assert budget.take_used() == 0.0


def test_what_was_used_is_paid_for_and_told_once() -> None:
    budget = ScanBudget(0.01)
    budget.settle(100.0, 7.0)
    budget.settle(101.0, 7.1)
    assert budget.left_seconds == pytest.approx(0.3 - 0.1)
    budget.settle(102.0, 7.15)
    assert budget.take_used() == pytest.approx(0.15)
    assert budget.take_used() == 0.0


def test_a_debt_is_made_up_for_by_waiting() -> None:
    budget = ScanBudget(0.01)
    budget.settle(100.0, 0.0)
    budget.settle(102.0, 0.5)
    assert budget.left_seconds == pytest.approx(-0.2)
    assert budget.ready_at() == pytest.approx(122.0)
    budget.settle(122.0, 0.5)
    assert budget.left_seconds == pytest.approx(0.0)
    assert budget.ready_at() == pytest.approx(122.0)


def test_moving_is_not_observing() -> None:
    budget = ScanBudget(0.01)
    budget.settle(100.0, 0.0)
    budget.exclude(0.4)
    budget.settle(102.0, 0.5)
    assert budget.take_used() == pytest.approx(0.1)
    budget.exclude(5.0)
    budget.settle(104.0, 0.6)
    assert budget.take_used() == 0.0, "time excluded twice gives nothing back"


@pytest.mark.parametrize("seconds", [30, 600, 3600])
@pytest.mark.parametrize("cost", [0.004, 0.05, 0.2])
def test_over_any_time_the_share_holds_but_for_the_savings_of_half_a_minute(seconds: int, cost: float) -> None:
    budget, now, cpu = ScanBudget(0.005), 0.0, 0.0
    budget.settle(now, cpu)
    while now < seconds:
        cpu += cost
        now += 2.0
        budget.settle(now, cpu)
        now = max(now, budget.ready_at())
        budget.settle(now, cpu)
    assert cpu <= 0.005 * (now + FULL_SECONDS) + 1e-9


def test_savings_end_at_half_a_minute_and_another_ratio_keeps_debts() -> None:
    budget = ScanBudget(0.01)
    budget.settle(0.0, 0.0)
    budget.settle(1e6, 0.0)
    assert budget.left_seconds == pytest.approx(0.3)
    budget.set_ratio(0.001)
    assert budget.left_seconds == pytest.approx(0.03)
    budget.settle(1e6, 1.0)
    budget.set_ratio(0.5)
    assert budget.left_seconds == pytest.approx(-0.97)
    assert budget.ready_at() == pytest.approx(1e6 + 1.94)
