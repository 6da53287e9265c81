"""The TCP listener for real: metrics, liveness and readiness over HTTP."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.control.listening import ServerError
from balancerd.control.server import MetricsServer
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "control.sock")


@pytest.fixture
def server(room: Room) -> Iterator[MetricsServer]:
    server = room.metrics_server()
    with running(server):
        yield server


def ask(server: MetricsServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    host, port = server.address
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def test_port_0_takes_a_free_port_and_tells_it(server: MetricsServer) -> None:
    host, port = server.address
    assert host == "127.0.0.1"
    assert port > 0


def test_metrics_are_what_the_sink_renders(room: Room, server: MetricsServer) -> None:
    room.metrics.emit(a_moving_report())
    code, content_type, body = ask(server, "/metrics")
    assert (code, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'balancerd_migrated_bytes_total{from_node="1",reason="misplaced",to_node="0"} 4.096e+06' in body
    assert ask(server, "/metrics", Accept="application/openmetrics-text;version=1.0.0")[2].endswith(b"# EOF\n")


def test_the_daemon_is_ready_after_its_first_tick(room: Room, server: MetricsServer) -> None:
    assert ask(server, "/readyz")[0] == 503
    room.state.emit(a_moving_report())
    code, content_type, body = ask(server, "/readyz")
    assert (code, content_type, json.loads(body)) == (200, "application/json", {"schema": 1, "ready": True})


def test_the_daemon_is_healthy_while_it_ticks(room: Room, server: MetricsServer) -> None:
    assert ask(server, "/healthz")[0] == 200
    room.now += 61
    assert ask(server, "/healthz")[0] == 503
    room.state.emit(a_moving_report())
    room.now += 59
    code, _, body = ask(server, "/healthz")
    assert (code, json.loads(body)) == (200, {"schema": 1, "healthy": True, "tick_age_seconds": 59.0})
    room.now += 1
    assert ask(server, "/healthz")[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/", 404), ("GET", "/v1/status", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405)],
)
def test_everything_else_is_refused_in_json(server: MetricsServer, method: str, path: str, code: int) -> None:
    got, content_type, body = ask(server, path, method)
    assert (got, content_type) == (code, "application/json")
    assert json.loads(body)["error"]


def test_an_answer_to_head_has_no_body(server: MetricsServer) -> None:
    heard = b""
    with socket.create_connection(server.address, timeout=10) as caller:
        caller.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while piece := caller.recv(4096):
            heard += piece
    assert heard.startswith(b"HTTP/1.1 405 ")
    assert heard.endswith(b"\r\n\r\n")


def test_a_port_that_is_taken_is_said_so(room: Room, server: MetricsServer) -> None:
    _, port = server.address
    with pytest.raises(ServerError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*Address already in use"):
        room.metrics_server(port=port).start()


def test_it_listens_on_ipv6_too(room: Room) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        with pytest.raises(ServerError):
            room.metrics_server("::1").start()
        return
    server = room.metrics_server("::1")
    with running(server):
        assert ask(server, "/healthz")[0] == 200


def test_stopped_and_started_again_on_the_same_port_at_once(room: Room) -> None:
    first = room.metrics_server()
    with running(first):
        assert ask(first, "/healthz")[0] == 200
    second = room.metrics_server(port=first.address[1])
    with running(second):
        assert ask(second, "/healthz")[0] == 200


def test_scraping_over_http_while_the_loop_writes(room: Room, server: MetricsServer) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            room.metrics.emit(a_moving_report(number, moved_pages=1, shared_pages=0))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            code, _, body = ask(server, "/metrics")
            samples = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
            assert code == 200
            ticks = float(samples['balancerd_ticks_total{outcome="success"}'])
            assert (
                float(samples.get('balancerd_migrated_bytes_total{from_node="1",reason="misplaced",to_node="0"}', 0))
                == 4096 * ticks
            )
    finally:
        stop.set()
        writer.join()
    assert room.errors == []
