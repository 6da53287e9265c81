"""What was wanted up and down too soon, and what was wanted in vain."""

import pytest

from balancerd.engine.swings import (
    FIRST_PAUSE_SECONDS,
    GROWTH_RATIO,
    PATIENCE_SECONDS,
    PROGRESS_RATIO,
    SWING_SECONDS,
    InVain,
    Swings,
)
from balancerd.model.extent import Extent

A, B, TENTH = Extent(0, 100), Extent(100, 200), Extent(90, 100)


@pytest.mark.parametrize(
    ("down", "after", "pauses"),
    [
        pytest.param(A, 10.0, True, id="all of it"),
        pytest.param(B, 10.0, False, id="something else"),
        pytest.param(TENTH, 10.0, False, id="a tenth of it"),
        pytest.param(Extent(89, 100), 10.0, True, id="more than a tenth"),
        pytest.param(A, SWING_SECONDS, True, id="just soon enough"),
        pytest.param(A, SWING_SECONDS + 1.0, False, id="a minute later"),
    ],
)
def test_who_is_wanted_up_and_then_down_too_soon_pauses(down: Extent, after: float, pauses: bool) -> None:
    swings = Swings()
    assert swings.want([A], [], 0.0) == 0.0
    assert swings.want([], [down], after) == (FIRST_PAUSE_SECONDS if pauses else 0.0)


def test_a_pause_is_twice_as_long_each_time_until_it_was_calm_for_as_long() -> None:
    swings, now, found = Swings(), 0.0, []
    for calm in (0.0, 0.0, 0.0, 1000.0, 0.0):
        now += calm
        swings.want([A], [], now)
        found.append(swings.want([], [A], now + 1.0))
        now += 1.0 + found[-1]
        assert swings.want([A], [A], now - 1.0) == pytest.approx(1.0), "what is wanted meanwhile does not count"
    assert found == [60.0, 120.0, 240.0, 60.0, 120.0]
    assert "within 60 s" in swings.told


def test_what_was_wanted_in_vain_is_cut_out_for_a_while() -> None:
    vain = InVain()
    vain.want([A], 1000, 0.0, PATIENCE_SECONDS)
    vain.want([A], 1000, PATIENCE_SECONDS - 1.0, PATIENCE_SECONDS)
    assert vain.without([A, B]) == (Extent(0, 200),)
    vain.want([A], 1000, PATIENCE_SECONDS, PATIENCE_SECONDS)
    assert vain.without([Extent(50, 150), Extent(300, 400)]) == (Extent(100, 150), Extent(300, 400))
    vain.look(1000, 1000, PATIENCE_SECONDS + FIRST_PAUSE_SECONDS - 1.0)
    assert vain.without([A]) == ()
    vain.look(1000, 1000, PATIENCE_SECONDS + FIRST_PAUSE_SECONDS)
    assert vain.without([A]) == (A,)


def test_asking_for_nothing_ends_patience() -> None:
    vain = InVain()
    vain.want([A], 1000, 0.0, PATIENCE_SECONDS)
    vain.want([], 1000, 10.0, PATIENCE_SECONDS)
    vain.want([A], 1000, PATIENCE_SECONDS, PATIENCE_SECONDS)
    assert vain.without([A]) == (A,)


def test_how_much_swings_is_told() -> None:
    swings = Swings()
    swings.want([Extent(0, 4 << 20)], [], 0.0)
    assert swings.want([], [Extent(1 << 20, 4 << 20)], 1.0) == FIRST_PAUSE_SECONDS
    assert swings.told == "3 of 4 MiB were to go up and down within 60 s"


@pytest.mark.parametrize(
    ("left_bytes", "after", "is_cut_out"),
    [
        pytest.param(1000, 1.0, True, id="as much is left"),
        pytest.param(1000 + round(GROWTH_RATIO * 10_000), 1.0, True, id="a little more"),
        pytest.param(1001 + round(GROWTH_RATIO * 10_000), 1.0, False, id="so much more that it is another situation"),
        pytest.param(1000, 10 * FIRST_PAUSE_SECONDS, False, id="a look long after the wait has ended"),
    ],
)
def test_what_ends_a_wait(left_bytes: int, after: float, *, is_cut_out: bool) -> None:
    vain = InVain()
    for at in (0.0, PATIENCE_SECONDS):
        vain.want([A], 1000, at, PATIENCE_SECONDS)
    vain.look(left_bytes, 10_000, PATIENCE_SECONDS + after)
    assert (vain.without([A]) == ()) is is_cut_out


@pytest.mark.parametrize(("less", "gives_up"), [(PROGRESS_RATIO, True), (2 * PROGRESS_RATIO, False)])
def test_progress_begins_patience_anew(less: float, *, gives_up: bool) -> None:
    vain = InVain()
    vain.want([A], 5000, 0.0, PATIENCE_SECONDS)
    vain.look(5000 - round(less * 10_000), 10_000, 10.0)
    vain.want([A], 5000, PATIENCE_SECONDS, PATIENCE_SECONDS)
    assert (vain.without([A]) == ()) is gives_up
