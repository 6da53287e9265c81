"""What may be asked of the history over the control socket, and what is answered."""

import json
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from balancerd.control import history_api
from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from balancerd.control.history_api import HistoryDesk, parse_query
from balancerd.control.requests import BadRequest
from balancerd.history.reader import HistoryUnreadableError, Page, Query, read_history
from tests.unit.control.daemon import Room, running
from tests.unit.history.files import a_file, an_event

NOW = 10_000.0


@pytest.fixture
def room(tmp_path: Path) -> Room:
    path = a_file(tmp_path / "history.sqlite", [an_event(number) for number in range(1, 6)])
    return Room(socket=tmp_path / "socket", history=HistoryDesk(lambda query: read_history(path, query), lambda: NOW))


def answer(room: Room, query: str = "", *, uid: int = 0, method: str = "GET") -> tuple[int, Any]:
    codes: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/v1/history",
        "QUERY_STRING": query,
        PEER_KEY: Peer(uid=uid, gid=55),
    }
    told = room.app(reader_gid=55)(environ, lambda status, _headers, _info=None: codes.append(status))  # type: ignore[arg-type]
    return int(codes[0].split()[0]), json.loads(b"".join(told))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query()),
        ("since=&workload=", Query()),
        ("since=1000&until=1002.5", Query(since=1000.0, until=1002.5)),
        ("since=-7200", Query(since=2800.0)),
        ("workload=a%20b%26c&policy=home", Query(workload="a b&c", policy="home")),
        ("workload=%ff", Query(workload="\udcff")),
        ("pid=4242&limit=1000&before=9007199254740991", Query(pid=4242, limit=1000, before=(1 << 53) - 1)),
    ],
)
def test_a_question_is_understood(text: str, query: Query) -> None:
    assert parse_query(text, now=NOW) == query


@pytest.mark.parametrize(
    "text",
    [
        *("pid=0", "pid=x", "pid=-1", "pid=4194305", "pid=1&pid=2", "pid=%d9%a3"),
        *("limit=0", "limit=1001", "limit=1e3", "limit=1_0", "before=99999999999999999999"),
        *("since=yesterday", "since=nan", "since=inf", "since=1e5", "since=--1", "until=9999999999999"),
        *("file=/etc/passwd", "&", "=", "since", f"workload={'x' * 4097}"),
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_query(text, now=NOW)


def test_who_may_read_gets_pages(room: Room) -> None:
    code, page = answer(room, "limit=2", uid=4242)
    assert (code, page["schema"], page["left_off"], page["next_before"]) == (200, 1, 3, 4)
    assert [event["id"] for event in page["events"]] == [5, 4]
    assert [event["id"] for event in answer(room, "before=4")[1]["events"]] == [3, 2, 1]
    assert answer(room, "since=-9000&until=-8999")[1]["events"][0]["id"] == 1


def test_it_is_only_read(room: Room) -> None:
    assert answer(room, method="POST")[0] == HTTPStatus.METHOD_NOT_ALLOWED


def test_a_bad_question_is_a_400_and_no_history_a_404(room: Room, tmp_path: Path) -> None:
    assert answer(room, "limit=0") == (400, {"schema": 1, "error": "limit is a number from 1 to 1000"})
    code, told = answer(Room(socket=tmp_path / "none"))
    assert (code, told["error"]) == (404, "no history is kept: see history in the configuration")


def test_a_history_that_cannot_be_read_is_a_503(tmp_path: Path) -> None:
    desk = HistoryDesk(lambda query: read_history(tmp_path / "none", query), lambda: NOW)
    code, told = answer(Room(socket=tmp_path / "socket", history=desk))
    assert (code, told["error"]) == (503, f"the history cannot be read: there is no {tmp_path / 'none'}")


def test_one_question_is_read_at_a_time_and_the_others_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_api, "_TURN_SECONDS", 0.01)
    reading, done = threading.Event(), threading.Event()

    def read(query: Query) -> Page:
        assert query.limit == 7
        reading.set()
        assert done.wait(20.0)
        return Page(events=(), left_off=0, oldest_at=None, daemons=())

    desk = HistoryDesk(read, lambda: NOW)
    first = threading.Thread(target=desk.answer, args=("limit=7",))
    first.start()
    assert reading.wait(20.0)
    with pytest.raises(HistoryUnreadableError, match="too many ask at once"):
        desk.answer("")
    done.set()
    first.join()
    assert desk.answer("limit=7")["events"] == []


def test_it_is_answered_over_the_socket(room: Room) -> None:
    with running(room.server()):
        page = room.client.get(f"/v1/history?workload={quote('spin.service')}&limit=1")
    assert (page["events"][0]["id"], page["left_off"]) == (5, 4)
