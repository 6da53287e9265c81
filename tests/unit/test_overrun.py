"""Somebody who tells that something hangs while it hangs."""

import threading
from collections.abc import Callable

from balancerd.overrun import Overrun


class Told:
    """What was told, and an event for it."""

    def __init__(self) -> None:
        self.names: list[tuple[str, float]] = []
        self.event = threading.Event()

    def __call__(self, name: str, seconds: float) -> None:
        self.names.append((name, seconds))
        self.event.set()


def wait_for(told: Told) -> Callable[[], bool]:
    return lambda: told.event.wait(20)


def test_what_lasts_too_long_is_named_once_while_it_lasts() -> None:
    told = Told()
    overrun = Overrun(0.02, told)
    overrun("slow")
    assert wait_for(told)()
    told.event.clear()
    assert not told.event.wait(0.1)
    overrun(None)
    overrun("again")
    assert wait_for(told)()
    overrun(None)
    assert told.names == [("slow", 0.02), ("again", 0.02)]


def test_what_ends_in_time_is_not_named_and_nothing_runs_before_the_first_name() -> None:
    told = Told()
    overrun = Overrun(30.0, told)
    before = threading.active_count()
    overrun(None)
    assert threading.active_count() == before
    for _ in range(100):
        overrun("quick")
        overrun(None)
    assert told.names == []
