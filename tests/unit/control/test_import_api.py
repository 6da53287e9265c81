"""Who may import a log over the control socket, and that there is no such path without a store."""

import io
from http import HTTPStatus
from pathlib import Path

import pytest

from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from tests.unit.control.daemon import Room
from tests.unit.kernel.accesses.test_log_store import World
from tests.unit.kernel.worlds import OWN

BODY = b'{"name": "log", "samples": {"%d": 1}}' % OWN.pid
PATHS = ("/v1/imports", "/v1/imports/1/samples", "/v1/imports/1/commit", "/v1/imports/1/cancel")


def ask(room: Room, path: str, *, uid: int = 0, method: str = "POST", length: str | None = None) -> int:
    codes: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(BODY)) if length is None else length,
        "wsgi.input": io.BytesIO(BODY),
        PEER_KEY: Peer(uid=uid, gid=55),
    }
    room.app(reader_gid=55)(environ, lambda status, _headers, _info=None: codes.append(status))  # type: ignore[arg-type]
    return int(codes[0].split()[0])


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "none", imports=World().store)


@pytest.mark.parametrize("path", PATHS)
def test_who_may_only_read_may_import_nothing(room: Room, path: str) -> None:
    assert ask(room, path, uid=4242) == HTTPStatus.FORBIDDEN


def test_root_may(room: Room) -> None:
    assert ask(room, "/v1/imports") == HTTPStatus.ACCEPTED
    assert ask(room, "/v1/imports") == HTTPStatus.CONFLICT
    assert ask(room, "/v1/imports/1/cancel") == HTTPStatus.OK
    assert ask(room, "/v1/imports") == HTTPStatus.ACCEPTED
    assert ask(room, "/v1/imports/2/commit") == HTTPStatus.OK


@pytest.mark.parametrize("path", PATHS)
def test_an_import_is_only_posted_to(room: Room, path: str) -> None:
    assert ask(room, path, method="GET") == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(("length", "code"), [("x", 400), ("-1", 400), ("²", 400), ("999", 400), ("65537", 413)])
def test_the_length_of_a_piece_is_a_number_within_bounds_and_no_less_comes(room: Room, length: str, code: int) -> None:
    assert ask(room, "/v1/imports", length=length) == code


def test_without_a_store_there_is_no_such_path(tmp_path: Path) -> None:
    assert ask(Room(socket=tmp_path / "none"), "/v1/imports") == HTTPStatus.NOT_FOUND
