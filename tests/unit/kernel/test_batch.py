import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.kernel.batch import MAX_PAGES, MIN_PAGES, BatchSize

TARGET = 0.005


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
        ([(0.001, 512), (0.001, 1024)], 1536),
        ([(0.001, 200)], 512),  # a call that moved little says nothing about larger ones
        ([(0.007, 512)], 512),  # between the target and twice it
        ([(0.011, 512)], 256),
        ([(0.011, 512), (0.011, 256)], 128),
        ([(0.011, 512), (0.011, 256), (0.001, 128)], 256),
        ([(0.011, 10)], 256),  # a slow call is slow however little it moved
        ([(9.0 / 2**n, 512) for n in range(9)], MIN_PAGES),
        ([(9.0, 512)] * 10, MIN_PAGES),
        ([(9.0, 512)] * 60, 512),  # no size is any faster: small calls only make more stalls
        ([(0.0, MAX_PAGES)] * 40, MAX_PAGES),
    ],
)
def test_the_batch_follows_the_time_that_calls_take(calls: list[tuple[float, int]], pages: int) -> None:
    assert after(*calls) == pages


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 20000)), max_size=80))
def test_the_batch_stays_within_its_bounds(calls: list[tuple[float, int]]) -> None:
    assert MIN_PAGES <= after(*calls) <= MAX_PAGES


def test_on_a_machine_of_constant_speed_calls_settle_near_the_target() -> None:
    batch = BatchSize(TARGET)
    seconds = 0.0
    for _ in range(60):
        seconds = 0.0001 + batch.pages * 5e-6
        batch.took(seconds, batch.pages)
    assert TARGET <= seconds <= 2 * TARGET


def test_the_price_of_every_call_is_not_the_stall_of_its_pages() -> None:
    batch = BatchSize(TARGET)
    for _ in range(60):
        batch.idle_call_took(0.030)
        batch.took(0.030 + batch.pages * 5e-6, batch.pages)
    assert TARGET <= batch.pages * 5e-6 <= 2 * TARGET


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
