"""The thread that hears of ticks: the stream, polling in its place, a daemon that goes and comes back."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd.cli.options import Settings
from balancerd.cli.top.feed import POLLS, Feed, top_path
from balancerd.cli.top.frame import Asked, Frame, Lost
from balancerd.control.workload_api import Asked as Wanted
from tests.unit.cli.conftest import Serve
from tests.unit.cli.top.frames import answers_to_top
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report

Heard = queue.Queue[Frame | Lost]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "control.sock")


@contextmanager
def a_feed(socket: str, *, poll_seconds: float = 0.01, again_seconds: float = 0.01) -> Iterator[tuple[Feed, Heard]]:
    heard: Heard = queue.Queue()
    asked = Asked(sort="remote")
    feed = Feed(Settings(socket_path=socket), asked, heard.put, poll_seconds=poll_seconds, again_seconds=again_seconds)
    feed.start()
    try:
        yield feed, heard
    finally:
        feed.stop()
        assert not feed._thread.is_alive()


def a_frame_of(heard: Heard, tick: int) -> Frame:
    """The next frame of that tick, whatever else is heard before."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        told = heard.get(timeout=10)
        if isinstance(told, Frame) and told.top["tick"] == tick:
            return told
    raise AssertionError(f"no tick {tick}")


def a_loss(heard: Heard) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        told = heard.get(timeout=10)
        if isinstance(told, Lost):
            return told.why
    raise AssertionError("the daemon was not lost")


def test_every_tick_is_heard_of(room: Room) -> None:
    with running(room.server()):
        room.tell(a_moving_report(1))
        with a_feed(str(room.socket)) as (_feed, heard):
            assert a_frame_of(heard, 1).missed == 0
            room.tell(a_moving_report(2))
            assert a_frame_of(heard, 2).missed == 0
        room.stream.close()


def test_something_else_that_is_asked_for_comes_without_another_tick(room: Room) -> None:
    with running(room.server()):
        room.tell(a_moving_report(1))
        with a_feed(str(room.socket)) as (feed, heard):
            assert a_frame_of(heard, 1).top["sort"] == "remote"
            feed.ask(Asked(sort="cpu", match="idle"))
            told = a_frame_of(heard, 1)
            assert (told.top["sort"], [each["pid"] for each in told.top["processes"]]) == ("cpu", [77])
        room.stream.close()


def test_a_daemon_that_goes_is_lost_and_found_again_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with a_feed(str(path)) as (_feed, heard):
        assert "balancerd is not running" in a_loss(heard)
        for tick in (1, 2):
            room = Room(socket=path)
            with running(room.server()):
                room.tell(a_moving_report(tick))
                a_frame_of(heard, tick)
                room.stream.close()
            assert a_loss(heard)


def test_a_daemon_without_a_seat_is_polled_until_there_is_one(room: Room) -> None:
    with running(room.server()):
        room.tell(a_moving_report(1))
        taken = [room.stream.open(Wanted(), lambda: False) for _ in range(2)]
        with a_feed(str(room.socket)) as (_feed, heard):
            for _ in range(POLLS + 1):
                assert a_frame_of(heard, 1).status["pid"] == 4711
            assert room.stream._broadcast.listeners == 2
            taken[0].close()
            deadline = time.monotonic() + 10
            while room.stream._broadcast.listeners < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            room.tell(a_moving_report(2))
            a_frame_of(heard, 2)
            assert room.stream._broadcast.listeners == 2
        room.stream.close()


def test_a_daemon_without_streams_is_polled(serve: Serve) -> None:
    with a_feed(serve(answers_to_top())) as (_feed, heard):
        for _ in range(POLLS + 1):
            assert a_frame_of(heard, 7).top["sort"] == "remote"


def test_a_daemon_of_another_version_is_said_to_be_one(serve: Serve) -> None:
    told = answers_to_top()
    told["/v1/status"][1]["schema"] = 2
    with a_feed(serve(told)) as (_feed, heard):
        assert "another version" in a_loss(heard)


def test_what_is_asked_for_is_quoted() -> None:
    assert top_path("/v1/top", Asked(sort="cpu")) == "/v1/top?sort=cpu"
    assert top_path("/v1/top", Asked(sort="rss", match="a b&c\udcff")) == "/v1/top?sort=rss&match=a+b%26c%FF"


def test_stopping_ends_it_while_it_waits_for_a_daemon(tmp_path: Path) -> None:
    started = time.monotonic()
    with a_feed(str(tmp_path / "nobody"), again_seconds=60.0) as (_feed, heard):
        a_loss(heard)
    assert time.monotonic() - started < 5
