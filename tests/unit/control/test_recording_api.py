"""Who may record over the control socket, and what is answered."""

import io
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from balancerd.config.schema import Config
from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from balancerd.trace.recorder import Recorder, Source
from balancerd.trace.tap import RawTick
from tests.unit.control.daemon import Room
from tests.unit.reports import a_moving_report

BODY = b'{"seconds": 60}'
PATHS = ("/v1/recordings", "/v1/recordings/1/fetch", "/v1/recordings/1/stop")


def answer(
    room: Room, path: str, *, uid: int = 0, method: str = "POST", body: bytes = BODY, length: str | None = None
) -> tuple[int, Any]:
    codes: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)) if length is None else length,
        "wsgi.input": io.BytesIO(body),
        PEER_KEY: Peer(uid=uid, gid=55),
    }
    told = room.app(reader_gid=55)(environ, lambda status, _headers, _info=None: codes.append(status))  # type: ignore[arg-type]
    return int(codes[0].split()[0]), json.loads(b"".join(told))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    source = Source(version="1", kernel=(6, 1), config=Config(), own_pid=1)
    return Room(socket=tmp_path / "none", recorder=Recorder(lambda: source, lambda: 0.0))


@pytest.mark.parametrize("path", PATHS)
def test_who_may_only_read_may_not_record(room: Room, path: str) -> None:
    assert answer(room, path, uid=4242)[0] == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("path", PATHS)
def test_a_recording_is_only_posted_to(room: Room, path: str) -> None:
    assert answer(room, path, method="GET")[0] == HTTPStatus.METHOD_NOT_ALLOWED


def test_root_records_fetches_and_ends_it(room: Room) -> None:
    assert answer(room, PATHS[0]) == (HTTPStatus.ACCEPTED, {"schema": 1, "recording": {"number": 1}})
    assert answer(room, PATHS[0])[0] == HTTPStatus.CONFLICT
    nothing = {"schema": 1, "recording": {"number": 1, "ticks": 0, "ended": None}, "lines": []}
    assert answer(room, PATHS[1], body=b"") == (HTTPStatus.OK, nothing)
    assert room.recorder is not None
    room.recorder.offer(RawTick(events=(), report=a_moving_report(7)))
    _, told = answer(room, PATHS[1])
    assert [min(line) for line in told["lines"]] == ["balancerd", "known", "digest"]
    assert told["recording"]["ticks"] == 1
    assert answer(room, PATHS[2]) == (HTTPStatus.OK, {"schema": 1})
    assert answer(room, PATHS[1])[1]["recording"] == {"number": 1, "ticks": 1, "ended": "as asked"}
    assert answer(room, PATHS[0])[1]["recording"] == {"number": 2}
    assert answer(room, PATHS[1])[0] == HTTPStatus.CONFLICT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"seconds": "1"}',
        b'{"seconds": true}',
        b'{"seconds": 0}',
        b'{"seconds": 86401}',
        b'{"seconds": NaN}',
        b'{"seconds": 1, "file": "/etc/passwd"}',
    ],
)
def test_what_is_not_understood_is_refused(room: Room, body: bytes) -> None:
    code, told = answer(room, PATHS[0], body=body)
    assert (code, told["schema"]) == (HTTPStatus.BAD_REQUEST, 1)


@pytest.mark.parametrize(("length", "code"), [("x", 400), ("-1", 400), ("²", 400), ("99", 400), ("1025", 413)])
def test_the_length_is_a_number_within_bounds_and_no_less_comes(room: Room, length: str, code: int) -> None:
    assert answer(room, PATHS[0], length=length)[0] == code


def test_without_a_recorder_there_is_no_such_path(tmp_path: Path) -> None:
    assert answer(Room(socket=tmp_path / "none"), PATHS[0])[0] == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("path", ["/v1/recordings/0/fetch", "/v1/recordings/1", "/v1/recordings/1/write"])
def test_there_are_no_other_paths(room: Room, path: str) -> None:
    assert answer(room, path)[0] == HTTPStatus.NOT_FOUND
