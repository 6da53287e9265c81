"""Who may ask what on the control socket: every operation, as every kind of peer."""

import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from balancerd.control.access import Peer
from balancerd.control.operations import OPERATIONS
from tests.unit.control.busy import ROOT, a_busy_room, ask, path_of
from tests.unit.control.daemon import Room

GROUP = 880
MEMBER = Peer(uid=4242, gid=5, groups=frozenset({6, GROUP}))
STRANGER = Peer(uid=4242, gid=5, groups=frozenset({6}))

READ: tuple[tuple[str, str, Any, int], ...] = (
    ("GET", "/v1/openapi.json", None, 200),
    ("GET", "/v1/status", None, 200),
    ("GET", "/v1/nodes", None, 200),
    ("GET", "/v1/processes", None, 200),
    ("GET", "/v1/processes/4242", None, 200),
    ("GET", "/v1/processes/4242/heat", None, 200),
    ("GET", "/v1/workloads", None, 200),
    ("GET", "/v1/top", None, 200),
    ("GET", "/v1/stream", None, 200),
    ("GET", "/v1/plan", None, 200),
    ("GET", "/v1/history", None, 200),
    ("GET", "/v1/moves", None, 200),
    ("GET", "/v1/jobs", None, 200),
    ("GET", "/v1/jobs/1", None, 200),
    ("GET", "/v1/advice", None, 200),
    ("POST", "/v1/advice", {"cpus": 1, "memory_bytes": 0}, 200),
    ("GET", "/v1/config", None, 200),
)
"""What members of control.group may ask, too; with the answer to whoever may."""

CHANGE: tuple[tuple[str, str, Any, int], ...] = (
    ("POST", "/v1/jobs", {"kind": "move", "pid": 100, "to": "1"}, 202),
    ("POST", "/v1/jobs/1/cancel", None, 202),
    ("POST", "/v1/advice/1/release", None, 200),
    ("POST", "/v1/pause", {"seconds": 60}, 202),
    ("POST", "/v1/resume", None, 202),
    ("POST", "/v1/mode", {"mode": "observe"}, 202),
    ("POST", "/v1/reload", None, 202),
    ("POST", "/v1/imports", {"name": "log", "samples": {"1": 1}}, 409),
    ("POST", "/v1/imports/1/samples", b"", 200),
    ("POST", "/v1/imports/1/commit", None, 200),
    ("POST", "/v1/imports/1/cancel", None, 200),
    ("POST", "/v1/recordings", {"seconds": 60}, 409),
    ("POST", "/v1/recordings/1/fetch", None, 200),
    ("POST", "/v1/recordings/1/stop", None, 200),
)
"""What root and the daemon's user may ask alone; one import and one recording are going on already."""


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return a_busy_room(tmp_path)


def test_the_tables_name_every_operation_and_the_document_tells_the_same() -> None:
    assert {row[:2] for row in READ} == {(each.method, path_of(each)) for each in OPERATIONS if not each.changes}
    assert {row[:2] for row in CHANGE} == {(each.method, path_of(each)) for each in OPERATIONS if each.changes}


@pytest.mark.parametrize(("method", "path", "body", "code"), [*READ, *CHANGE])
def test_root_and_the_daemons_user_may_ask_everything(
    room: Room, tmp_path: Path, method: str, path: str, body: Any, code: int
) -> None:
    assert ask(room, method, path, body, peer=ROOT).code == code
    own = Peer(uid=os.geteuid(), gid=5)  # test_access.py asks for one that is not root
    assert ask(a_busy_room(tmp_path), method, path, body, peer=own).code == code


def test_members_of_the_group_may_read(room: Room) -> None:
    for method, path, body, code in READ:
        assert ask(room, method, path, body, peer=MEMBER, reader_gid=GROUP).code == code, path


def test_members_of_the_group_change_nothing(room: Room) -> None:
    before = what_can_change(room)
    for method, path, body, _ in CHANGE:
        reply = ask(room, method, path, body, peer=MEMBER, reader_gid=GROUP)
        assert (reply.code, set(reply.document)) == (HTTPStatus.FORBIDDEN, {"schema", "error"}), path
        assert what_can_change(room) == before, path


@pytest.mark.parametrize("reader_gid", [None, GROUP])
@pytest.mark.parametrize("peer", [STRANGER, None], ids=["stranger", "unknown"])
def test_strangers_and_those_of_whom_nothing_is_known_are_refused_whatever_they_ask(
    room: Room, peer: Peer | None, reader_gid: int | None
) -> None:
    before = what_can_change(room)
    for method, path, body, _ in [*READ, *CHANGE, ("GET", "/nowhere", None, 404), ("PUT", "/v1/status", None, 405)]:
        reply = ask(room, method, path, body, peer=peer, reader_gid=reader_gid)
        assert (reply.code, set(reply.document)) == (HTTPStatus.FORBIDDEN, {"schema", "error"}), path
        assert what_can_change(room) == before, path


def test_a_member_of_the_group_gets_advice_but_no_lease(room: Room) -> None:
    wanted = {"cpus": 0.5, "memory_bytes": 4096, "lease_seconds": 60}
    told = ask(room, "POST", "/v1/advice", wanted, peer=MEMBER, reader_gid=GROUP).document
    assert (told["advice"]["fits"], told["lease"]) == (True, None)
    assert ask(room, "POST", "/v1/advice", wanted).document["lease"]["id"] == 2


@pytest.mark.parametrize(("method", "path", "body", "_code"), CHANGE)
def test_who_may_change_makes_a_difference(room: Room, method: str, path: str, body: Any, _code: int) -> None:
    """So that the tests above do not look for changes where none can be seen."""
    before = what_can_change(room)
    ask(room, method, path, body)
    without_effect_here = {
        *("/v1/jobs/1/cancel", "/v1/imports", "/v1/imports/1/samples", "/v1/recordings", "/v1/resume"),
    }
    assert (what_can_change(room) == before) == (path in without_effect_here)


def what_can_change(room: Room) -> Any:
    recorder, store = room.recorder, room.imports
    assert recorder is not None
    assert store is not None
    recording = recorder._recording
    assert recording is not None
    return (
        room.reloads,
        room.switches.halt(),
        room.switches.take_mode(),
        [(job.id, job.state, job.cancel_requested) for job in room.world.jobs.all()],
        [lease.id for lease in room.leases.all()],
        store._import is None,
        (recording.number, recording.ended, recording.ticks),
    )
