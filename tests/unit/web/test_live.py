"""Streams for real: sockets, the server that hands them over, and clients that are slow, rude or many."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from balancerd.config.schema import Config
from balancerd.control.server import OPEN_BOUNDS
from balancerd.control.taking import TAKE_KEY
from balancerd.kernel.clock import MonotonicClock
from balancerd.web.live import Live
from balancerd.web.page import render
from balancerd.web.room import Page
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report, a_report

PATIENCE_SECONDS = 10.0


class Served:
    """A room whose address has the page, too."""

    def __init__(self, room: Room, most_clients: int) -> None:
        self.room = room
        self.page = Page(
            now=lambda: room.now,
            version="1.2.3",
            host="db-7",
            config=Config(),
            hosts=(),
            take_key=TAKE_KEY,
            most_clients=most_clients,
        )
        self.server = room.metrics_server(pages=self.page.applications)

    def ask(self, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(*self.server.address, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def listen(self) -> "Listener":
        return Listener(self.server.address)


class Listener:
    """A client of /events."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self.socket.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        self.seen = b""
        self.read_until(b"\r\n\r\n")
        self.code = int(self.seen.split()[1])

    def read_until(self, text: bytes) -> None:
        """Read until this came, or raise EOFError at the end of the stream."""
        while text not in self.seen:
            piece = self.socket.recv(4096)
            if not piece:
                raise EOFError(self.seen)
            self.seen += piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextmanager
def served(tmp_path: Path, most_clients: int = 16) -> Iterator[Served]:
    room = Room(socket=tmp_path / "control.sock")
    found = Served(room, most_clients)
    found.page.start()
    with running(found.server):
        yield found
    found.page.stop()
    assert room.errors == []


def eventually(what: str, ask: Callable[[], bool]) -> None:
    """Wait until `ask()` is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not ask():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def test_an_open_page_hears_of_every_tick(tmp_path: Path) -> None:
    with served(tmp_path) as found, found.listen() as client:
        assert b"\r\nContent-Type: text/event-stream\r\n" in client.seen
        assert b"Transfer-Encoding" not in client.seen
        client.read_until(b"retry: 3000\n\n")
        for number in (1, 2, 3):
            found.page.emit(a_moving_report(number))
            client.read_until(b"event: tick\ndata: %d\n\n" % number)


def test_who_comes_later_hears_of_the_newest_tick_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as found:
        found.page.emit(a_moving_report(7))
        with found.listen() as client:
            client.read_until(b"data: 7\n\n")


def test_streams_hold_no_thread_of_the_server(tmp_path: Path) -> None:
    before = threading.active_count()
    with served(tmp_path) as found, ExitStack() as clients:
        started = threading.active_count()
        for _ in range(4 * OPEN_BOUNDS.answering):
            assert clients.enter_context(found.listen()).code == 200
        assert threading.active_count() == started
        assert found.ask("/metrics")[0] == 200
        assert found.ask("/")[0] == 200
    assert threading.active_count() <= before + 1


def test_one_too_many_is_told_so_and_a_seat_is_free_again_when_somebody_leaves(tmp_path: Path) -> None:
    with served(tmp_path, most_clients=2) as found, found.listen() as first:
        with found.listen() as second:
            eventually("both have come", lambda: not found.page.live.has_room)
            with found.listen() as third:
                assert (first.code, second.code, third.code) == (200, 200, 503)
        eventually("one has left", lambda: found.page.live.has_room)
        with found.listen() as third:
            assert third.code == 200


def test_of_those_who_come_at_the_same_time_no_more_stay_than_there_are_seats() -> None:
    live = Live(most_clients=2)
    pairs = [socket.socketpair() for _ in range(5)]
    for ours, _ in pairs:
        live.join(ours)
    live.start()
    eventually("all have been seen", lambda: sum(ours.fileno() < 0 for ours, _ in pairs) == 3)
    live.emit(a_report(number=1))
    for at, (_, theirs) in enumerate(pairs):
        theirs.settimeout(PATIENCE_SECONDS)
        assert (theirs.recv(4096) == b"") == (at >= 2)
    live.stop()
    for _, theirs in pairs:
        theirs.close()


def test_who_sends_anything_more_is_dropped(tmp_path: Path) -> None:
    with served(tmp_path) as found, found.listen() as client:
        client.read_until(b"retry: 3000\n\n")
        client.socket.sendall(b"x" * 100_000)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_until(b"never")
        assert found.ask("/")[0] == 200


def test_a_client_that_reads_nothing_is_dropped_and_delays_nobody() -> None:
    live = Live(heartbeat_seconds=0.05)
    live.start()
    ours, theirs = socket.socketpair()
    good, listener = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    live.join(ours)
    live.join(good)
    listener.settimeout(PATIENCE_SECONDS)
    slowest, number = 0.0, 0
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while ours.fileno() >= 0:
            assert time.monotonic() < end
            number += 1
            started = time.monotonic()
            live.emit(a_report(number=number))
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.001)
            listener.recv(65536)
        live.emit(a_report(number=10**6))
        seen = b""
        while b"data: 1000000\n\n" not in seen:
            seen += listener.recv(65536)
    finally:
        live.stop()
        theirs.close()
        listener.close()
    assert slowest < 0.1  # one write to an eventfd, on a busy machine


def test_ticks_that_come_faster_than_they_are_told_leave_the_newest() -> None:
    live = Live()
    ours, theirs = socket.socketpair()
    for number in range(1, 5001):
        live.emit(a_report(number=number))
    live.join(ours)
    live.start()
    theirs.settimeout(PATIENCE_SECONDS)
    seen = b""
    while b"5000\n\n" not in seen:
        seen += theirs.recv(65536)
    live.stop()
    theirs.close()
    assert seen == b"retry: 3000\n\nevent: tick\ndata: 5000\n\n"


def test_silence_is_broken_now_and_then() -> None:
    live = Live(heartbeat_seconds=0.02)
    live.start()
    ours, theirs = socket.socketpair()
    live.join(ours)
    theirs.settimeout(PATIENCE_SECONDS)
    seen = b""
    while b"\n\n:\n\n" not in seen:
        seen += theirs.recv(65536)
    live.stop()
    assert theirs.recv(65536) in {b"", b":\n\n"}
    theirs.close()


def test_all_are_let_go_at_the_end(tmp_path: Path) -> None:
    with served(tmp_path) as found:
        client = found.listen()
        client.read_until(b"retry: 3000\n\n")
    with client, pytest.raises(EOFError):
        client.read_until(b"never")


def test_what_readers_cost_is_not_counted_as_observing(tmp_path: Path) -> None:
    with served(tmp_path) as found, found.listen():
        clock = MonotonicClock()
        clock.leave_out(lambda: [*found.server.thread_ids, *found.page.thread_ids])
        for number in range(50):
            found.page.emit(a_moving_report(number))
            assert found.ask("/")[0] == 200
        left_out = time.process_time() - clock.cpu_seconds()
        clock.close()
        started = time.thread_time()
        for _ in range(50):
            render(found.page.memory.view(), 100.0)
        assert left_out > 0.5 * (time.thread_time() - started) > 0.0


def test_without_a_page_there_is_none(tmp_path: Path) -> None:
    room = Room(socket=tmp_path / "control.sock")
    server = room.metrics_server()
    with running(server):
        connection = http.client.HTTPConnection(*server.address, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/events")
            assert connection.getresponse().status == 404
