"""Switches and advice over the control socket: who may, what is answered, and what is refused."""

import io
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from balancerd.control.lease_book import MOST_LEASES, LeaseBook
from balancerd.engine.advice import Demand
from tests.unit.control.daemon import Room
from tests.unit.reports import GIB, a_process, a_process_report, a_report

CHANGES = ("/v1/pause", "/v1/resume", "/v1/mode", "/v1/advice/1/release")
ASKED = b'{"cpus": 1, "memory_bytes": 1073741824, "lease_seconds": 60}'


def answer(
    room: Room, path: str, body: bytes = b"{}", *, uid: int = 0, method: str = "POST", length: str | None = None
) -> tuple[int, Any, dict[str, str]]:
    codes: list[str] = []
    headers: dict[str, str] = {}

    def start(status: str, told: list[tuple[str, str]], _info: object = None) -> None:
        codes.append(status)
        headers.update(told)

    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)) if length is None else length,
        "wsgi.input": io.BytesIO(body),
        PEER_KEY: Peer(uid=uid, gid=55),
    }
    told = room.app(reader_gid=55)(environ, start)  # type: ignore[arg-type]  # whatever takes status and headers
    return int(codes[0].split()[0]), json.loads(b"".join(told)), headers


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "none")


@pytest.mark.parametrize("path", CHANGES)
def test_who_may_only_read_switches_nothing(room: Room, path: str) -> None:
    assert answer(room, path, uid=4242)[0] == HTTPStatus.FORBIDDEN
    assert not room.switches.is_halted()
    assert room.switches.take_mode() is None


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [*((path, "GET", "POST") for path in CHANGES), ("/v1/config", "POST", "GET"), ("/v1/advice", "PUT", "GET, POST")],
)
def test_a_wrong_method_is_told_the_right_one(room: Room, path: str, method: str, allowed: str) -> None:
    code, _, headers = answer(room, path, method=method)
    assert (code, headers["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, allowed)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/pause", b"[]"),
        ("/v1/pause", b'{"seconds": 0}'),
        ("/v1/pause", b'{"seconds": -1}'),
        ("/v1/pause", b'{"seconds": NaN}'),
        ("/v1/pause", b'{"seconds": true}'),
        ("/v1/pause", b'{"seconds": 1e99}'),
        ("/v1/pause", b'{"until": 5}'),
        ("/v1/resume", b'{"now": true}'),
        ("/v1/mode", b"{}"),
        ("/v1/mode", b'{"mode": "balance"}'),
        ("/v1/mode", b'{"mode": ["observe"]}'),
        ("/v1/advice", b"{}"),
        ("/v1/advice", b'{"cpus": 1}'),
        ("/v1/advice", b'{"cpus": "1", "memory_bytes": 0}'),
        ("/v1/advice", b'{"cpus": 1, "memory_bytes": Infinity}'),
        ("/v1/advice", b'{"cpus": 1, "memory_bytes": 1, "lease_seconds": 3601}'),
        ("/v1/advice", b'{"cpus": 1, "memory_bytes": 1, "pid": 1}'),
    ],
)
def test_what_is_not_understood_changes_nothing(room: Room, path: str, body: bytes) -> None:
    code, told, _ = answer(room, path, body)
    assert (code, told["schema"]) == (HTTPStatus.BAD_REQUEST, 1)
    assert not room.switches.is_halted()
    assert room.switches.take_mode() is None


@pytest.mark.parametrize(
    ("length", "code"), [("", 400), *((each, 400) for each in ("x", "-1", "²", "99")), ("4097", 413)]
)
def test_a_length_that_is_none_is_refused_or_read_as_nothing(room: Room, length: str, code: int) -> None:
    assert answer(room, "/v1/mode", b'{"mode": "observe"}', length=length)[0] == code
    assert room.switches.take_mode() is None


def test_a_pause_is_told_at_once_and_ends_by_itself_or_by_resume(room: Room) -> None:
    assert answer(room, "/v1/status", method="GET")[1]["pause"] is None
    assert answer(room, "/v1/resume")[:2] == (HTTPStatus.ACCEPTED, {"schema": 1, "was_paused": False})
    told = {"schema": 1, "pause": {"since_seconds": 0.0, "left_seconds": 600.0}}
    assert answer(room, "/v1/pause", b'{"seconds": 600}')[:2] == (HTTPStatus.ACCEPTED, told)
    room.now += 90.0
    status = answer(room, "/v1/status", method="GET")[1]
    assert status["pause"] == {"since_seconds": 90.0, "left_seconds": 510.0}
    assert (status["paused"], status["paused_detail"]) == (True, "paused by an operator, for 8m30s more")
    room.now += 510.0
    assert not room.switches.is_halted()
    assert answer(room, "/v1/status", method="GET")[1]["paused"] is False
    assert answer(room, "/v1/pause", b"")[1]["pause"]["left_seconds"] is None
    assert room.switches.tell() == "paused by an operator"
    assert answer(room, "/v1/resume", b"")[1]["was_paused"] is True
    assert room.switches.tell() is None


def test_nothing_is_recorded_during_a_pause(room: Room) -> None:
    room.switches.pause(None)
    code, told, _ = answer(room, "/v1/recordings", b'{"seconds": 1}')
    assert code == HTTPStatus.CONFLICT
    assert "paused" in told["error"]


def test_a_mode_is_left_for_the_loop_to_take_once(room: Room) -> None:
    told = answer(room, "/v1/mode", b'{"mode": "observe"}')
    assert told[:2] == (HTTPStatus.ACCEPTED, {"schema": 1, "mode": "observe"})
    assert (room.switches.take_mode(), room.switches.take_mode()) == ("observe", None)


def test_the_configuration_in_effect_can_be_read(room: Room) -> None:
    code, told, _ = answer(room, "/v1/config", method="GET", uid=4242)
    assert (code, told) == (HTTPStatus.OK, {"schema": 1, "path": None, "config": {"mode": "enforce"}, "origins": {}})


def test_advice_needs_a_tick_and_leases_what_it_gives(room: Room) -> None:
    assert answer(room, "/v1/advice", ASKED)[0] == HTTPStatus.CONFLICT
    room.state.emit(a_report())
    room.now += 0.5
    code, told, _ = answer(room, "/v1/advice", ASKED)
    assert code == HTTPStatus.OK
    assert told["advice"] == {
        "nodes": "0",
        "fits": True,
        "detail": told["advice"]["detail"],
        "cpus": 1.0,
        "memory_bytes": GIB,
        "shares": [{"node": 0, "cpus": 1.0, "memory_bytes": GIB}],
        "age_seconds": 0.5,
        "source": "daemon",
    }
    lease = {"id": 1, "nodes": "0", "cpus": 1.0, "memory_bytes": GIB, "age_seconds": 0.0, "left_seconds": 60.0}
    assert (told["lease"], told["lease_detail"]) == (lease, "")
    places = [answer(room, "/v1/advice", ASKED)[1]["advice"]["nodes"] for _ in range(4)]
    assert places == ["0", "1", "1", "0-1"]
    assert len(answer(room, "/v1/advice", method="GET", uid=4242)[1]["leases"]) == 4  # the fifth did not fit
    assert answer(room, "/v1/advice/1/release")[:2] == (HTTPStatus.OK, {"schema": 1, "released": True})
    assert answer(room, "/v1/advice/1/release")[0] == HTTPStatus.NOT_FOUND
    room.now += 60.0
    assert answer(room, "/v1/advice", method="GET")[1]["leases"] == []


def test_who_may_only_read_gets_advice_and_no_lease(room: Room) -> None:
    room.state.emit(a_report())
    _, told, _ = answer(room, "/v1/advice", ASKED, uid=4242)
    assert told["advice"]["nodes"] == "0"
    assert (told["lease"], told["lease_detail"]) == (
        None,
        "only root, the daemon's user and control.change_group get one",
    )
    assert room.leases.all() == ()


def test_what_does_not_fit_is_not_leased(room: Room) -> None:
    room.state.emit(a_report())
    _, told, _ = answer(room, "/v1/advice", b'{"cpus": 99, "memory_bytes": 0, "lease_seconds": 60}')
    assert (told["advice"]["fits"], told["lease"], told["lease_detail"]) == (False, None, "it does not fit")


def test_leases_are_bounded() -> None:
    book = LeaseBook(lambda: 100.0, lambda: 0.02)
    report = a_report()
    given = 0
    while book.advise(report, Demand(cpus=0.0, memory_bytes=0), 60.0)[1] is not None:
        given += 1
        if given == MOST_LEASES:
            break
    assert given == MOST_LEASES
    with pytest.raises(Exception, match="64 leases are open"):
        book.advise(report, Demand(cpus=0.0, memory_bytes=0), 60.0)
    assert book.advise(report, Demand(cpus=0.0, memory_bytes=0), None)[0].fits


def test_a_tick_ends_the_lease_of_who_has_come_and_never_waits() -> None:
    now = [100.0]
    book = LeaseBook(lambda: now[0], lambda: 0.02)
    advice, lease = book.advise(a_report(), Demand(cpus=1.0, memory_bytes=GIB), 60.0)
    assert lease is not None
    assert advice.nodes == (0,)
    now[0] = 110.0
    newcomer = a_process_report(a_process(7, rss_bytes=GIB, age_seconds=5.0), verdicts=())
    with book._lock:
        book.emit(a_report(processes=(newcomer,)))  # somebody asks just now
    assert book.all() == (lease,)
    book.emit(a_report(processes=(newcomer,)))
    assert book.all() == ()
