"""What was in use within so many seconds, by address, and that it stays bounded."""

from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.uses import EPOCHS, MOST_EXTENTS, Uses
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatRegion

SECONDS = 80.0


def told(*regions: tuple[int, int, float]) -> list[HeatRegion]:
    return [HeatRegion(start=start, end=end, ratio=ratio) for start, end, ratio in regions]


def test_only_what_was_used_counts_and_as_long_as_it_must() -> None:
    uses = Uses(SECONDS)
    assert uses.extents() == ()
    uses.observe(told((0, 10, 0.5), (10, 20, 0.0), (20, 30, 0.05)), 9.0)
    assert uses.extents() == (Extent(0, 10), Extent(20, 30))
    uses.observe(told((0, 12, 0.0), (12, 30, 0.1)), 60.0)
    assert uses.extents() == (Extent(0, 10), Extent(12, 30))
    uses.observe(told((0, 30, 0.0)), 89.0)
    assert uses.extents() == (Extent(0, 10), Extent(12, 30)), "80 s after the first window, to the second"
    uses.observe(told((0, 30, 0.0)), 90.0)
    assert uses.extents() == (Extent(12, 30),)


def test_a_window_shown_again_changes_nothing_and_a_break_ends_all() -> None:
    uses = Uses(SECONDS)
    for _ in range(2):
        uses.observe(told((0, 10, 0.5)), 1.0)
        assert uses.extents() == (Extent(0, 10),)
    uses.observe([], 1000.0)
    assert uses.extents() == ()


def test_a_second_has_epochs_too() -> None:
    uses = Uses(1.0)
    uses.observe(told((0, 10, 0.5)), 7.3)
    uses.observe(told((10, 20, 0.5)), 8.3)
    assert uses.extents() == (Extent(0, 20),)
    uses.observe([], 8.5)
    assert uses.extents() == (Extent(10, 20),)


@given(
    windows=st.lists(
        st.tuples(
            st.floats(0.0, 300.0),
            st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from([0.0, 0.05])), max_size=4),
        ),
        max_size=20,
    )
)
def test_nothing_used_within_the_time_is_missing_and_nothing_older_than_an_epoch_more_is_left(
    windows: list[tuple[float, list[tuple[int, int, float]]]],
) -> None:
    uses, last = Uses(SECONDS), {}
    now = 0.0
    for now, regions in sorted(windows, key=lambda window: window[0]):
        uses.observe(told(*((start, start + size, ratio) for start, size, ratio in regions)), now)
        for start, size, ratio in regions:
            if ratio:
                last.update(dict.fromkeys(range(start, start + size), now))
    counted = {address for extent in uses.extents() for address in range(*extent)}
    assert {address for address, at in last.items() if now - at <= SECONDS} <= counted
    assert counted <= {address for address, at in last.items() if now - at <= SECONDS * (EPOCHS + 1) / EPOCHS}


def test_of_too_many_parts_those_with_the_smallest_gaps_count_as_one() -> None:
    uses, n = Uses(SECONDS), MOST_EXTENTS + 10
    gaps = [2 if number % 100 == 7 else 100 for number in range(n)]  # 11 small ones, the last of them not needed
    starts = [sum(gaps[:number]) + number for number in range(n)]
    uses.observe(told(*((start, start + 1, 0.1) for start in starts)), 0.0)
    found = uses.extents()
    assert len(found) == MOST_EXTENTS
    assert sum(extent.end - extent.start for extent in found) == n + 10 * 2
