"""Who goes first: the tick, before those who serve people, but not for long."""

import threading
import time

import pytest

from balancerd import precedence
from balancerd.precedence import LEAD_SECONDS, MOST_SECONDS, Precedence

LONG_SECONDS = 60.0
"""Longer than any test takes, where what is waited for must come from something else."""


class Server:
    """A thread that gives way once."""

    def __init__(self, ticks: Precedence) -> None:
        self._thread = threading.Thread(target=ticks.give_way, daemon=True)
        self._thread.start()

    def goes_on_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def test_nobody_waits_while_no_tick_is_near() -> None:
    ticks = Precedence()
    assert Server(ticks).goes_on_within(LONG_SECONDS)
    ticks.expect(time.monotonic() + LONG_SECONDS)
    assert Server(ticks).goes_on_within(LONG_SECONDS / 2)


def test_whoever_comes_during_a_tick_goes_on_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "MOST_SECONDS", 2 * LONG_SECONDS)
    ticks = Precedence()
    with ticks.hold():
        server = Server(ticks)
        assert not server.goes_on_within(0.2)
    assert server.goes_on_within(LONG_SECONDS)


def test_a_tick_that_fails_has_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "MOST_SECONDS", 2 * LONG_SECONDS)
    ticks = Precedence()
    with pytest.raises(ZeroDivisionError), ticks.hold():
        raise ZeroDivisionError
    assert Server(ticks).goes_on_within(LONG_SECONDS)


def test_a_long_tick_shares_what_is_left_of_its_time() -> None:
    ticks = Precedence()
    with ticks.hold():
        assert Server(ticks).goes_on_within(LONG_SECONDS)


def test_whoever_comes_just_before_a_tick_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "LEAD_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(precedence, "MOST_SECONDS", 2 * LONG_SECONDS)
    ticks = Precedence()
    ticks.expect(time.monotonic() + LONG_SECONDS / 2)
    server = Server(ticks)
    assert not server.goes_on_within(0.2)
    with ticks.hold():
        assert not server.goes_on_within(0.2)
    assert server.goes_on_within(LONG_SECONDS)


@pytest.mark.parametrize(
    ("now", "is_to_wait"),
    [
        (100.0 - 1.1 * LEAD_SECONDS, False),
        (100.0 - 0.9 * LEAD_SECONDS, True),
        (100.0 + 0.9 * MOST_SECONDS, True),
        (100.0 + 1.1 * MOST_SECONDS, False),
    ],
)
def test_a_tick_that_does_not_come_is_not_waited_for_long(now: float, is_to_wait: bool) -> None:
    ticks = Precedence(lambda: now)
    ticks.expect(100.0)
    assert (ticks._wait_seconds() > 0) == is_to_wait


def test_after_a_tick_nothing_is_waited_for_until_the_next_is_expected() -> None:
    ticks = Precedence(lambda: 100.0)
    with ticks.hold():
        assert ticks._wait_seconds() == pytest.approx(MOST_SECONDS)
    assert ticks._wait_seconds() == 0.0
