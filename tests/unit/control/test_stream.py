"""The live view for real: a unix socket, the reader; slow, broken and too many clients."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from balancerd.control import api, machine_api, workload_api
from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from balancerd.control.client import ControlFailure, NotRunning
from balancerd.control.event_client import EventReader
from balancerd.control.server import CONTROL_BOUNDS
from balancerd.control.state import View
from balancerd.control.stream_api import EVENT, MOST_MOVES, Stream
from balancerd.kernel.clock import MonotonicClock
from balancerd.model.page_status import PageStatus
from balancerd.streaming import PREAMBLE
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report, a_process, a_process_report, a_report, an_outcome

REQUEST = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "run" / "control.sock")


@pytest.fixture
def served(room: Room) -> Iterator[Room]:
    with running(room.server()):
        yield room
        room.stream.close()


def parse(chunk: bytes) -> Any:
    lines = chunk.decode().splitlines()
    assert lines[1] == f"event: {EVENT}"
    return json.loads(lines[2].removeprefix("data: "))


def the_event(room: Room, asked: workload_api.Asked | None = None) -> Any:
    """The event that a client which comes now is told first."""
    stream = room.stream.open(asked or workload_api.Asked(), lambda: False)
    chunks = iter(stream)
    assert next(chunks) == PREAMBLE
    event = parse(next(chunks))
    stream.close()
    return event


def wait_until_nobody_listens(room: Room, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while room.stream._broadcast.listeners and time.monotonic() < deadline:
        time.sleep(0.01)
    assert room.stream._broadcast.listeners == 0


def test_an_event_tells_what_status_nodes_and_top_tell_and_what_moved(room: Room) -> None:
    report = a_moving_report(5)
    room.tell(report)
    room.now = 101.5
    view = room.state.view()
    event = the_event(room)
    assert event == json.loads(
        json.dumps(
            {
                "schema": 1,
                "missed": 0,
                "age_seconds": 1.5,
                "tick": 5,
                "status": api.status(view, version="1.2.3", pid=4711, now=101.5),
                "nodes": machine_api.nodes(view, now=101.5),
                "top": workload_api.top(view, workload_api.Asked(), now=101.5),
                "moved": [
                    {
                        "pid": 4242,
                        "policy": "home",
                        "reason": "misplaced",
                        "target": 0,
                        "moved_bytes": 1000 * 4096,
                        "from": {"1": 1000 * 4096},
                        "submitted_pages": 1024,
                        "pages": {"moved": 1000, "eacces": 24},
                        "detail": "",
                        "comm": "spin",
                    }
                ],
                "moved_left_out": 0,
            }
        )
    )


def test_an_event_made_once_for_all_has_its_age_of_when_it_is_sent(room: Room) -> None:
    room.tell(a_moving_report(5))
    assert the_event(room)["age_seconds"] == 0
    room.now = 130.0
    late = the_event(room)
    assert (late["age_seconds"], late["status"]["tick"]["age_seconds"]) == (30.0, 0.0)


def test_each_client_gets_its_own_sort_and_match(room: Room) -> None:
    room.tell(a_moving_report(5))
    assert the_event(room, workload_api.Asked(sort="cpu", match="idle"))["top"]["processes"][0]["pid"] == 77
    told = the_event(room, workload_api.Asked(sort="rss"))["top"]
    assert (told["sort"], told["match"], len(told["processes"])) == ("rss", "", 2)


def test_the_moves_of_a_tick_are_bounded_largest_first(room: Room) -> None:
    outcomes = [an_outcome(a_process(pid).id, pages={PageStatus.MOVED: pid}) for pid in range(1, MOST_MOVES + 6)]
    room.tell(a_report(outcomes=outcomes, processes=(a_process_report(a_process(MOST_MOVES)),)))
    event = the_event(room)
    assert [each["pid"] for each in event["moved"]] == list(range(MOST_MOVES + 5, 5, -1))
    assert event["moved_left_out"] == 5
    assert {each["pid"] for each in event["moved"] if each["comm"]} == {MOST_MOVES}


def test_a_name_that_is_no_text_does_not_break_the_stream(room: Room) -> None:
    room.tell(a_report(processes=(a_process_report(a_process(comm="a\n\ndata: b\udcff")),)))
    assert the_event(room)["top"]["processes"][0]["comm"] == "a\n\ndata: b\udcff"


def test_the_reader_hears_of_each_tick_as_it_ends(served: Room) -> None:
    served.tell(a_moving_report(1))
    events = EventReader(str(served.socket), "/v1/stream?sort=cpu").read()
    first = next(event for event in events if event is not None)
    assert (first["tick"], first["missed"], first["top"]["sort"]) == (1, 0, "cpu")
    served.tell(a_moving_report(2))
    second = next(event for event in events if event is not None)
    assert (second["tick"], second["missed"]) == (2, 0)
    served.stream.close()
    with pytest.raises(ControlFailure, match="has ended the stream"):
        next(events)
    assert served.errors == []


def test_before_the_first_tick_a_stream_is_open_and_silent(served: Room) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(10)
        caller.connect(str(served.socket))
        caller.sendall(REQUEST)
        head = caller.recv(4096)
        while PREAMBLE not in head:
            head += caller.recv(4096)
        assert b"200 OK" in head
        assert b"Content-Type: text/event-stream" in head
        served.tell(a_moving_report(1))
        body = b""
        while b"\n\n" not in body:
            body += caller.recv(65536)
        assert b"event: tick" in body
    wait_until_nobody_listens(served)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_comes_in_chunks_to_its_very_end_for_those_who_know_them(served: Room, version: str) -> None:
    served.tell(a_moving_report(1))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(10)
        caller.connect(str(served.socket))
        caller.sendall(REQUEST.replace(b"1.1", version.encode()))
        heard = b""
        while b"event: tick" not in heard:
            heard += caller.recv(65536)
        served.stream.close()
        while piece := caller.recv(65536):
            heard += piece
    head, _, body = heard.partition(b"\r\n\r\n")
    assert (b"\r\nTransfer-Encoding: chunked" in head) == (version == "1.1")
    if version == "1.1":
        assert body.startswith(b"%x\r\n%b\r\n" % (len(PREAMBLE), PREAMBLE))
        assert body.endswith(b"\r\n0\r\n\r\n")
    else:
        assert body.startswith(PREAMBLE + b"id: 1\n")


def test_too_many_are_turned_away_and_a_seat_is_free_once_its_client_has_gone(served: Room) -> None:
    served.tell(a_moving_report(1))
    readers = [EventReader(str(served.socket), "/v1/stream") for _ in range(2)]
    streams = [reader.read() for reader in readers]
    assert [next(event for event in stream if event)["tick"] for stream in streams] == [1, 1]
    with pytest.raises(ControlFailure, match="too many listen") as failure:
        next(EventReader(str(served.socket), "/v1/stream").read())
    assert failure.value.code == 503
    assert served.client.get("/v1/status")["schema"] == 1
    for reader, stream in zip(readers, streams, strict=True):
        reader.close()
        assert [event for event in stream if event] == []
    wait_until_nobody_listens(served)  # without another tick
    assert next(event for event in EventReader(str(served.socket), "/v1/stream").read() if event)["tick"] == 1


def test_clients_that_read_nothing_delay_no_tick_and_leave_the_others_an_answer(served: Room) -> None:
    many = a_report(processes=[a_process_report(a_process(pid, comm="x" * 15)) for pid in range(1, 101)])
    served.tell(many)
    mute = []
    for _ in range(2):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(str(served.socket))
        caller.sendall(REQUEST)
        assert caller.recv(1)
        mute.append(caller)
    took = []
    for _ in range(50):  # far more than the sockets hold
        started = time.monotonic()
        served.stream.emit(many)
        took.append(time.monotonic() - started)
    assert sorted(took)[len(took) // 2] < 0.01
    for _ in range(CONTROL_BOUNDS.answering + 1):
        assert served.client.get("/v1/status")["schema"] == 1
    for caller in mute:
        caller.close()
    wait_until_nobody_listens(served)
    assert served.errors == []


def test_a_client_that_reads_nothing_loses_its_seat_after_a_while(room: Room) -> None:
    server = room.server()
    server._lasting._send_seconds = 0.1
    many = a_report(processes=[a_process_report(a_process(pid, comm="x" * 15)) for pid in range(1, 1001)])
    with running(server), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(room.socket))
        caller.sendall(REQUEST)
        assert caller.recv(1)
        deadline = time.monotonic() + 10
        while room.stream._broadcast.listeners and time.monotonic() < deadline:
            room.tell(many)
            time.sleep(0.01)
        assert room.stream._broadcast.listeners == 0
    assert room.errors == []


def test_closing_the_reader_ends_it_wherever_it_waits(served: Room) -> None:
    served.tell(a_moving_report(1))
    reader = EventReader(str(served.socket), "/v1/stream")
    heard: list[int] = []
    told = threading.Event()

    def listen() -> None:
        for event in reader.read():
            if event is not None:
                heard.append(event["tick"])
                told.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert told.wait(10)
    reader.close()
    thread.join(10)
    assert not thread.is_alive()
    assert heard == [1]


def ask(room: Room, peer: Peer | None, reader_gid: int | None = None, path: str = "/v1/stream") -> str:
    """The status of GET `path` for a peer."""
    statuses: list[str] = []

    def start_response(status: str, _headers: list[tuple[str, str]], _error: object = None) -> Any:
        statuses.append(status)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", PEER_KEY: peer}
    body = room.app(reader_gid)(environ, start_response)
    getattr(body, "close", lambda: None)()
    return statuses[0].split()[0]


@pytest.mark.parametrize(
    ("peer", "code"),
    [
        (None, "403"),
        (Peer(uid=12345, gid=12345), "403"),
        (Peer(uid=12345, gid=7), "200"),
        (Peer(uid=12345, gid=12345, groups=frozenset({7})), "200"),
        (Peer(uid=0, gid=0), "200"),
    ],
)
def test_only_who_may_read_may_listen(room: Room, peer: Peer | None, code: str) -> None:
    assert ask(room, peer, reader_gid=7) == code
    assert room.stream._broadcast.listeners == 0


def test_the_reader_says_when_there_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        next(EventReader(str(tmp_path / "nobody"), "/v1/stream").read())


def test_a_daemon_without_streams_has_no_such_path(room: Room) -> None:
    app = room.app()
    app._stream = None
    with running(room.server(app=app)):
        with pytest.raises(ControlFailure) as failure:
            room.client.get("/v1/stream")
        assert failure.value.code == 404


def test_the_reader_gives_up_on_a_daemon_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(1)
        with pytest.raises(ControlFailure, match="timed out"):
            next(EventReader(str(path), "/v1/stream", silence_seconds=0.05).read())


def test_stopping_ends_the_streams(room: Room) -> None:
    with running(room.server()):
        room.tell(a_moving_report(1))
        events = EventReader(str(room.socket), "/v1/stream").read()
        assert next(event for event in events if event)["tick"] == 1
        room.stream.close()
    with pytest.raises(ControlFailure):
        list(events)


def test_an_event_is_rendered_once_however_many_listen(room: Room) -> None:
    rendered: list[int] = []

    def status(view: View, *, now: float) -> api.Json:
        rendered.append(1)
        return api.status(view, version="1.2.3", pid=4711, now=now)

    room.stream._status = status
    room.tell(a_moving_report(5))
    assert [the_event(room)["tick"] for _ in range(3)] == [5, 5, 5]
    assert len(rendered) == 1
    the_event(room, workload_api.Asked(sort="cpu"))
    assert len(rendered) == 2


def test_what_answering_and_streams_cost_is_not_counted_as_observing(room: Room) -> None:
    clock, server = MonotonicClock(), room.server()
    clock.leave_out(lambda: server.thread_ids)
    room.tell(a_report(processes=[a_process_report(a_process(pid)) for pid in range(1, 1001)]))
    with running(server), contextlib.closing(EventReader(str(room.socket), "/v1/stream")) as reader:
        assert next(event for event in reader.read() if event is not None)
        for _ in range(3):
            room.client.get("/v1/processes")
        left_out = time.process_time() - clock.cpu_seconds()
        room.stream.close()
    clock.close()
    begin = time.thread_time()
    for _ in range(3):
        api.processes(room.state.view())
    assert left_out > 0.5 * (time.thread_time() - begin) > 0.0


def test_a_stream_is_a_sink_that_tells_the_states_view(room: Room) -> None:
    other = Stream(room.state, status=partial(api.status, version="1", pid=1), now=lambda: 0.0)
    room.state.emit(a_moving_report(3))
    other.emit(a_moving_report(3))
    stream = other.open(workload_api.Asked(), lambda: False)
    chunks = iter(stream)
    next(chunks)
    room.state.emit(a_moving_report(4))  # what is known by now does not change what was published
    assert parse(next(chunks))["tick"] == 3
    stream.close()
