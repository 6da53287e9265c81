"""Clients that are slow, broken or hostile, on both listeners: an honest one is answered, and all is bounded."""

import contextlib
import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from balancerd import precedence
from balancerd.control.caller import Caller
from balancerd.control.door import Bounds
from balancerd.control.server import (
    ANSWER_BURST_SECONDS,
    ANSWER_RATIO,
    CONTROL_BOUNDS,
    DOOR_BURST_SECONDS,
    DOOR_RATIO,
    OPEN_BOUNDS,
    ControlServer,
    MetricsServer,
)
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_process, a_process_report, a_report

PATIENCE_SECONDS = 10.0
PROMPTLY_SECONDS = 2.0
"""Far below what the bounds give a client, on a busy machine."""

HASTE = 0.4
"""Seconds that clients are given where they are to run out."""


@dataclass
class Front:
    """One listener, besieged. `path` has an answer there."""

    name: str
    room: Room
    server: ControlServer | MetricsServer

    @property
    def path(self) -> str:
        return "/metrics" if isinstance(self.server, MetricsServer) else "/v1/processes"

    @property
    def get(self) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    def connect(self, *, receive_bytes: int | None = None) -> socket.socket:
        is_tcp = isinstance(self.server, MetricsServer)
        caller = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX, socket.SOCK_STREAM)
        if receive_bytes is not None:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        caller.settimeout(PATIENCE_SECONDS)
        caller.connect(self.server.address if isinstance(self.server, MetricsServer) else str(self.room.socket))
        return caller

    def send(self, *pieces: bytes) -> socket.socket:
        """Connect and send, as far as it is taken."""
        caller = self.connect()
        with contextlib.suppress(OSError):
            for piece in pieces:
                caller.sendall(piece)
        return caller

    def ask(self) -> float:
        """Ask honestly; gives the seconds until the whole answer was there."""
        began = time.monotonic()
        with self.send(self.get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as caller:
            assert read_to_the_end(caller).startswith(b"HTTP/1.1 200 OK\r\n")
        return time.monotonic() - began

    def wait_until_left(self, reason: str, n: int = 1) -> None:
        wait_until(f"{n} left for {reason}: {self.room.turned_away}", lambda: self.room.turned_away.count(reason) >= n)


def read_to_the_end(caller: socket.socket) -> bytes:
    heard = b""
    with contextlib.suppress(ConnectionResetError):  # what it sent was not read to the end
        while piece := caller.recv(65536):
            heard += piece
    return heard


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- as cheap as can be


@contextlib.contextmanager
def front(name: str, tmp_path: Path, **changed: Any) -> Iterator[Front]:
    room = Room(socket=tmp_path / "control.sock")
    room.tell(a_report(processes=[a_process_report(a_process(pid)) for pid in range(1, 301)]))
    server: ControlServer | MetricsServer
    if name == "metrics":
        server = room.metrics_server(bounds=replace(OPEN_BOUNDS, **changed))
    else:
        server = room.server(bounds=replace(CONTROL_BOUNDS, **changed))
    with running(server):
        yield Front(name, room, server)
    assert room.errors == []


@pytest.fixture(params=["control", "metrics"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


BEGINNINGS = {
    "silent": b"",
    "first line": b"GET /metr",
    "head without end": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 4000,
    "body missing": b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{",
    "second request": b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET /",
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_who_is_not_whole_in_time_is_let_go_and_holds_up_nobody_until_then(
    name: str, tmp_path: Path, beginning: bytes
) -> None:
    with front(name, tmp_path) as here, contextlib.ExitStack() as stack:
        for _ in range(4 * here.server._bounds.answering):
            stack.enter_context(here.send(beginning))
        assert here.ask() < PROMPTLY_SECONDS
    with front(name, tmp_path, request_seconds=HASTE) as here, here.send(beginning) as caller:
        began = time.monotonic()
        read_to_the_end(caller)
        assert time.monotonic() - began > HASTE / 2
        assert here.room.turned_away == ["slow-request"]


def test_a_byte_now_and_then_does_not_prolong_the_time(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path, request_seconds=HASTE) as here, here.connect() as caller:
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in here.get[:-4] + b"\r\nX: " + b"y" * 1000:
                caller.sendall(bytes([byte]))
                time.sleep(HASTE / 20)
        assert HASTE / 2 < time.monotonic() - began < 4 * HASTE
        assert here.room.turned_away == ["slow-request"]


def test_a_connection_that_rests_between_requests_is_closed_and_not_counted(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path, request_seconds=HASTE) as here, here.send(here.get) as caller:
        assert read_to_the_end(caller).startswith(b"HTTP/1.1 200 OK\r\n")
        assert here.room.turned_away == []


REFUSED = {
    "huge head": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000, b"413"),
    "huge first line": (b"GET /" + b"y" * 100_000, b"414"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, b"413"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
    "no HTTP at all": (b"\n", b"400"),
    "huge body": (b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
    "length that is none": (b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400"),
}


@pytest.mark.parametrize(("sent", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_http_or_too_long_is_refused_at_once(name: str, tmp_path: Path, sent: bytes, code: bytes) -> None:
    with front(name, tmp_path) as here, here.send(sent) as caller:
        began = time.monotonic()
        assert caller.recv(12) == b"HTTP/1.1 " + code
        assert time.monotonic() - began < PROMPTLY_SECONDS
        read_to_the_end(caller)
        here.wait_until_left("not-http")
        assert not here.room.switches.is_halted()


def test_chunks_are_not_read_and_end_the_connection(name: str, tmp_path: Path) -> None:
    head = b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with front(name, tmp_path) as here, here.send(head, b"10\r\n" + b"{" * 16 + b"\r\n" + here.get) as caller:
        heard = read_to_the_end(caller)
        assert heard[:12] == (b"HTTP/1.1 411" if name == "control" else b"HTTP/1.1 404")
        assert b"\r\nConnection: close\r\n" in heard
        assert heard.count(b"HTTP/1.1") == 1


def test_requests_sent_at_once_are_answered_one_after_the_other_in_their_order(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here:
        paths = [f"/nowhere{number}" for number in range(20)] + [here.path]
        sent = b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths)
        with here.send(sent[:50], sent[50:]) as caller, caller.makefile("rb") as reader:
            codes = []
            for _ in paths:
                codes.append(reader.readline()[9:12])
                length = int(http.client.parse_headers(reader)["Content-Length"])
                assert len(reader.read(length)) == length
        assert codes == [b"404"] * 20 + [b"200"]


def test_a_client_that_closes_its_own_end_still_gets_its_answer(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here, here.connect() as caller:
        caller.sendall(here.get)
        caller.shutdown(socket.SHUT_WR)
        assert read_to_the_end(caller).startswith(b"HTTP/1.1 200 OK\r\n")


def test_those_who_hang_up_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here:
        assert here.ask() < PROMPTLY_SECONDS
        before, threads = descriptors(), threading.active_count()
        for n_bytes in [*range(0, len(here.get), 5), len(here.get)] * 5:
            here.send(here.get[:n_bytes]).close()
        assert here.ask() < PROMPTLY_SECONDS
        wait_until("their descriptors are given back", lambda: descriptors() <= before)
        assert threading.active_count() <= threads


def test_a_client_that_waits_to_be_told_to_continue_is_told_so_once(tmp_path: Path) -> None:
    with front("control", tmp_path) as here:
        head = b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\nExpect: 100-continue\r\n"
        with here.send(head + b"Connection: close\r\n\r\n") as caller:
            assert caller.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            caller.sendall(b'{"seconds": 600}')
            assert read_to_the_end(caller).startswith(b"HTTP/1.1 202 Accepted\r\n")
        assert here.room.switches.is_halted()


def test_who_does_not_read_its_answer_holds_no_thread_and_is_let_go(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here, contextlib.ExitStack() as stack:
        for _ in range(4 * here.server._bounds.answering):
            caller = stack.enter_context(here.connect(receive_bytes=4096))
            caller.sendall(here.get * 200)  # far more than the kernel holds
        assert here.ask() < PROMPTLY_SECONDS
    with front(name, tmp_path, answer_seconds=HASTE) as here, here.connect(receive_bytes=4096) as caller:
        caller.settimeout(None)
        sender = threading.Thread(target=send_on, args=(caller, here.get))
        sender.start()
        here.wait_until_left("slow-reader")
        sender.join(PATIENCE_SECONDS)
        assert not sender.is_alive()


def send_on(caller: socket.socket, request: bytes) -> None:
    """Send until the other end has closed."""
    with contextlib.suppress(OSError):
        while True:
            caller.sendall(request)


def test_answers_that_nobody_reads_are_bounded_in_memory_and_the_oldest_goes_first(tmp_path: Path) -> None:
    body = bytes(12 << 20)  # more than the kernel holds, see tcp_wmem in tcp(7)

    def answer(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    room = Room(socket=tmp_path / "control.sock")
    bounds = replace(OPEN_BOUNDS, unread_bytes=2 * len(body), answer_seconds=60.0)
    server = room.metrics_server(pages={"/large": answer}, bounds=bounds)
    with running(server), contextlib.ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection(server.address)) for _ in range(8)]
        for caller in callers:
            caller.settimeout(PATIENCE_SECONDS)
            caller.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            assert caller.recv(1) == b"H"
        wait_until("two have left", lambda: room.turned_away.count("too-much-unread") >= 2)
        door = server._door
        assert door is not None
        wait_until("the bound holds", lambda: door._unread_bytes <= 2 * len(body))
        assert door._unread_bytes > 0
        assert len(read_to_the_end(callers[0])) < len(body)


def test_when_all_seats_are_taken_whoever_has_been_waited_for_longest_goes_first(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path, seats=4, seats_each=9) as here, contextlib.ExitStack() as stack:
        callers = [stack.enter_context(here.send(b"GET /")) for _ in range(4)]
        time.sleep(0.1)
        assert here.ask() < PROMPTLY_SECONDS
        assert here.room.turned_away == ["no-seat"]
        assert callers[0].recv(1) == b""
        callers[1].sendall(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert callers[1].recv(9) == b"HTTP/1.1 "


def test_who_is_one_address_leaves_seats_to_others(tmp_path: Path) -> None:
    with front("metrics", tmp_path, seats=8, seats_each=5) as here, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(here.send(b"GET /"))
        here.wait_until_left("no-seat", 15)
        assert isinstance(here.server, MetricsServer)
        others = [
            stack.enter_context(socket.create_connection(here.server.address, source_address=("127.0.0.2", 0)))
            for _ in range(3)
        ]
        for other in others:
            other.sendall(here.get)
            assert other.recv(9) == b"HTTP/1.1 "
        assert here.room.turned_away.count("no-seat") == 15


def test_in_a_flood_of_requests_everybody_gets_a_turn_and_answers_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancerd.control.server.ANSWER_BURST_SECONDS", 0.0)
    with front("metrics", tmp_path) as here, contextlib.ExitStack() as stack:
        assert isinstance(here.server, MetricsServer)
        for _ in range(20):
            caller = stack.enter_context(here.connect())
            caller.sendall(here.get * 100)
            stack.enter_context(reading(caller))
        other = stack.enter_context(socket.create_connection(here.server.address, source_address=("127.0.0.2", 0)))
        other.settimeout(PATIENCE_SECONDS)
        other.sendall(here.get)
        assert other.recv(9) == b"HTTP/1.1 "  # long before the others' 2000
        assert here.server._answers.wait_seconds() > 0.0


def test_so_many_are_answered_at_a_time_and_the_others_have_not_begun(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with front(name, tmp_path, answering=2) as here, contextlib.ExitStack() as stack:
        door, called = here.server._door, list[Caller]()
        assert door is not None
        monkeypatch.setattr(door, "_answer", called.append)
        for _ in range(5):
            stack.enter_context(here.send(here.get))
        wait_until("all are heard", lambda: len(door._callers) == 5 and not door._unheard)
        assert len(called) == 2
        door.told(called[0], (), stays=False)
        wait_until("the next one has its turn", lambda: len(called) == 3)


def test_while_the_allowance_is_used_up_answers_wait(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here:
        here.server._answers.charge(ANSWER_BURST_SECONDS + ANSWER_RATIO * 0.5)
        assert here.ask() > 0.4
        assert here.ask() < PROMPTLY_SECONDS


def test_while_the_doors_allowance_is_used_up_nobody_is_heard(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here:
        assert here.server._door is not None
        here.server._door._own.charge(DOOR_BURST_SECONDS + DOOR_RATIO * 0.5)
        here.ask()  # the round at hand may hear it still
        assert here.server._door._own.wait_seconds() < 0.1


def test_while_a_tick_is_at_work_nobody_is_answered_and_then_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precedence, "MOST_SECONDS", 10 * PATIENCE_SECONDS)
    with front(name, tmp_path) as here:
        with here.room.precedence.hold(), here.send(here.get) as caller:
            caller.settimeout(HASTE)
            with pytest.raises(TimeoutError):
                caller.recv(1)
        assert here.ask() < PROMPTLY_SECONDS
        assert here.room.gave_way == {name, f"{name}-door"}


def test_who_has_closed_its_end_waits_for_those_who_have_not_and_who_is_gone_is_forgotten(tmp_path: Path) -> None:
    answered: list[str] = []

    def note(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answered.append(str(environ["PATH_INFO"]))
        start_response("200 OK", [("Content-Length", "0")])
        return ()

    room = Room(socket=tmp_path / "control.sock")
    server = room.metrics_server(pages=dict.fromkeys(("/parting", "/broken", "/staying"), note))
    with running(server), contextlib.ExitStack() as stack:
        server._answers.charge(ANSWER_BURST_SECONDS + ANSWER_RATIO * 1.0)
        callers = {}
        for path in ("/parting", "/broken", "/staying"):
            callers[path] = stack.enter_context(socket.create_connection(server.address, timeout=PATIENCE_SECONDS))
            callers[path].sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        callers["/parting"].shutdown(socket.SHUT_WR)
        callers["/broken"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so it is a reset
        callers["/broken"].close()
        for path in ("/staying", "/parting"):
            assert callers[path].recv(12) == b"HTTP/1.1 200"
    assert answered == ["/staying", "/parting"]


@contextlib.contextmanager
def reading(caller: socket.socket) -> Iterator[None]:
    """Read for the length of a block."""
    thread = threading.Thread(target=read_to_the_end, args=(caller,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            caller.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_SECONDS)


def test_an_error_that_nobody_expected_is_told_and_the_door_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(socket=tmp_path / "control.sock")
    server = room.server()
    with running(server), monkeypatch.context() as broken:
        assert room.client.get("/v1/status")["schema"] == 1
        broken.setattr("balancerd.control.door.measure", lambda _heard, **_bounds: 1 / 0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(room.socket))
            caller.sendall(b"GET")
            wait_until("it is told", lambda: bool(room.errors))
        broken.undo()
        assert room.client.get("/v1/status")["schema"] == 1
    assert "ZeroDivisionError" in room.errors[0]


def test_two_hundred_of_every_kind_change_nothing_for_an_honest_client(name: str, tmp_path: Path) -> None:
    with front(name, tmp_path) as here, contextlib.ExitStack() as stack:
        assert here.ask() < PROMPTLY_SECONDS
        threads = threading.active_count()
        sent = [*BEGINNINGS.values(), *(what for what, _ in REFUSED.values()), here.get * 10]
        for number in range(200):
            stack.enter_context(here.send(sent[number % len(sent)]))
            if number % 20 == 0:
                assert here.ask() < PROMPTLY_SECONDS
        assert threading.active_count() == threads
        assert here.server._door is not None
        assert len(here.server._door._callers) <= Bounds(body_bytes=0).seats
    assert not here.room.switches.is_halted()
