"""What follow-cpu costs a process that wanders, by simulation: never one percent more than doing nothing."""

import pytest

from tests.bench.bench_dwell import HABITS, lost_by_habit, lost_by_wandering, seconds_to_follow

BYTES_PER_SECOND = 3.3e9
HALF_AN_HOUR = 1800.0


def is_no_worse(lost: dict[str, float]) -> bool:
    return 100 + lost["follow-cpu"] <= 1.01 * (100 + lost["never"])


@pytest.mark.parametrize(
    ("stay_seconds", "n_nodes", "gib", "saved"),
    [
        pytest.param(5.0, 2, 1.0, None, id="too quick to follow"),
        pytest.param(5.0, 4, 10.0, None, id="much too quick"),
        pytest.param(60.0, 2, 1.0, 0.5, id="a minute is long enough for 1 GiB"),
        pytest.param(300.0, 4, 1.0, 0.85, id="five minutes all the more"),
    ],
)
def test_a_wanderer_is_no_worse_off_and_a_slow_one_better(
    stay_seconds: float, n_nodes: int, gib: float, saved: float | None
) -> None:
    lost = lost_by_wandering(
        stay_seconds, n_nodes, gib, seconds=max(HALF_AN_HOUR, 20 * stay_seconds), bytes_per_second=BYTES_PER_SECOND
    )
    assert lost["never"] > 3.0
    assert is_no_worse(lost)
    if saved is not None:
        assert lost["follow-cpu"] < (1.0 - saved) * lost["never"]


@pytest.mark.parametrize("name", HABITS)
@pytest.mark.parametrize("gib", [0.4, 4.0])
def test_no_habit_costs_more_than_leaving_the_memory_alone(name: str, gib: float) -> None:
    lost = lost_by_habit(name, gib, is_misplaced=False, seconds=HALF_AN_HOUR, bytes_per_second=BYTES_PER_SECOND)
    assert is_no_worse(lost)


@pytest.mark.parametrize("first_seconds", [20.0, 60.0, 600.0])
def test_memory_has_followed_eight_seconds_after_a_process_moved(first_seconds: float) -> None:
    took = seconds_to_follow(1.0, first_seconds, BYTES_PER_SECOND)
    assert took is not None
    assert took <= 8.0
