"""Jobs over the real socket: who may, what is answered, and the documents, whose keys are a contract."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from balancerd.control import job_api
from balancerd.control.client import ControlFailure
from balancerd.jobs.record import EvictRequest, MoveRequest
from balancerd.model.decision import REASON_TEXT, Reason
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES
from tests.unit.control.daemon import Room, running
from tests.unit.control.test_control_server import raw
from tests.unit.fakes import N1
from tests.unit.jobs.machine import START, World
from tests.unit.reports import a_process, a_process_report, a_report

MOVE = {"kind": "move", "pid": 100, "to": "1"}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "control.sock")


@pytest.fixture
def served(room: Room) -> Iterator[Room]:
    with running(room.server()):
        yield room


def finish(room: Room) -> None:
    for job in room.world.jobs.all():
        room.world.wait(job.id)


def test_a_job_is_handed_in_asked_about_and_listed(served: Room) -> None:
    memory = served.world.add(100, *[0] * 10, *[1] * 5)
    memory.status_of = {START: PageStatus.SHARED}
    served.now = served.world.clock.now()
    queued = served.client.post("/v1/jobs", MOVE)
    assert queued["schema"] == 1
    assert (queued["job"]["id"], queued["job"]["state"], queued["job"]["total_bytes"]) == (1, "queued", None)
    assert (queued["job"]["seconds"], queued["job"]["reason"], queued["job"]["verified"]) == (None, None, None)
    finish(served)
    served.now = served.world.clock.now() + 2.0
    told = served.client.get("/v1/jobs/1")
    assert told["job"] == {
        "id": 1,
        "kind": "move",
        "to": "1",
        "from": None,
        "move_all": False,
        "ignore_mempolicy": False,
        "whole": False,
        "pid": 100,
        "start_ticks": 1,
        "comm": "worker",
        "target_of": {"0": 1, "2": 1, "3": 1},
        "state": "done",
        "cancel_requested": False,
        "reason": None,
        "reason_text": None,
        "detail": "",
        "waiting_for": None,
        "move": 1,
        "age_seconds": 2.039062,
        "seconds": 0.039062,
        "total_bytes": 10 * PAGE_BYTES,
        "done_bytes": 10 * PAGE_BYTES,
        "rate_bytes_per_second": 256 * PAGE_BYTES,
        "eta_seconds": None,
        "looked_pages": 15,
        "on_target_pages": 5,
        "passed_over": {},
        "submitted_pages": 10,
        "pages": {"eacces": 1, "moved": 9},
        "moved_from": {"0": 9},
        "moved_bytes": 9 * PAGE_BYTES,
        "retried_pages": 0,
        "verified": {
            "asked_pages": 2,
            "on_target_pages": 2,
            "elsewhere_pages": 0,
            "absent_pages": 0,
            "unknown_pages": 0,
        },
        "held_back_bytes": 0,
        "calls": 2,
        "longest_call_seconds": 0.002,
        "call_seconds": 0.003,
        "stalls": 0,
        "throttled_seconds": {"duty": 0.5},
        "eviction": None,
        "whole_move": None,
    }
    assert served.client.get("/v1/jobs") == {"schema": 1, "jobs": [told["job"]]}
    assert served.client.get("/v1/moves") == {
        "schema": 1,
        "moves": [
            {
                "id": 1,
                "pid": 100,
                "start_ticks": 1,
                "policy": "command",
                "reason": "command",
                "reason_text": REASON_TEXT[Reason.COMMAND],
                "to": "1",
                "from": {"0": 9 * PAGE_BYTES},
                "moved_bytes": 9 * PAGE_BYTES,
                "undoable_bytes": 9 * PAGE_BYTES,
                "pages": {"eacces": 1, "moved": 9},
                "going_on": False,
                "age_seconds": 2.039062,
            }
        ],
    }
    assert served.errors == []


def test_a_failed_job_tells_why_and_an_undo_which_move(served: Room) -> None:
    served.world.add(100, 0, mems_allowed=frozenset())
    served.client.post("/v1/jobs", MOVE)
    finish(served)
    job = served.client.get("/v1/jobs/1")["job"]
    assert (job["state"], job["reason"], job["move"]) == ("failed", "outside-cpuset", None)
    assert job["reason_text"] == REASON_TEXT[Reason.OUTSIDE_CPUSET]
    served.world.add(200, 0)
    served.client.post("/v1/jobs", {**MOVE, "pid": 200})
    finish(served)
    undo = served.client.post("/v1/jobs", {"kind": "undo", "move": 1})["job"]
    assert (undo["kind"], undo["undone_move"], undo["pid"]) == ("undo", 1, 200)


def test_evictions_and_whole_moves_have_accounts_of_their_own() -> None:
    world = World()
    world.add(100, 0, 0, None)
    job = job_api.job(world.finish(EvictRequest(pid=100)), now=world.clock.now())["job"]
    assert (job["kind"], job["cold_only"], job["move"]) == ("evict", False, None)
    assert job["eviction"] == {
        "absent_pages": 1,
        "other_pages": 0,
        "advised_pages": 2,
        "evicted_pages": 2,
        "kept_pages": 0,
    }
    world.add(200, 0, 0)
    handed_in = world.jobs.submit(MoveRequest(pid=200, targets=frozenset({N1}), whole=True))
    while not world.job(handed_in.id).state.is_final:
        world.step()
    whole = job_api.job(world.job(handed_in.id), now=world.clock.now())["job"]["whole_move"]
    assert whole == {
        "not_moved_pages": 0,
        "seconds": 1.5,
        "before_bytes": {"0": 2 * PAGE_BYTES},
        "after_bytes": {"1": 2 * PAGE_BYTES},
    }


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"kind": "move", "pid": 100}, 400, '"to" is missing'),
        ({"kind": "move", "pid": 100, "to": "1", "form": "0"}, 400, 'unknown key "form"'),
        ({"kind": "move", "pid": 100, "to": "9"}, 400, '"to": node 9 is not online'),
        ({"kind": "move", "pid": 99, "to": "1"}, 404, "there is no process 99"),
        ({"kind": "undo", "move": 3}, 404, "there is no move 3"),
        ({"kind": "evict", "pid": 200}, 409, "process 200 has job 1 already"),
    ],
)
def test_what_cannot_be_taken_up_has_a_code_and_a_sentence(
    served: Room, body: dict[str, object], code: int, message: str
) -> None:
    served.world.add(100, 0)
    served.world.add(200, 0)
    served.client.post("/v1/jobs", {"kind": "evict", "pid": 200})
    with pytest.raises(ControlFailure, match=message) as failure:
        served.client.post("/v1/jobs", body)
    assert failure.value.code == code
    assert len(served.world.jobs.all()) == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n", HTTPStatus.LENGTH_REQUIRED),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, 413),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
        (b"DELETE /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /v1/jobs/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /v1/jobs/1/cancel HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /v1/jobs/x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/jobs/7 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /v1/jobs/7/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404),
        (b"POST /v1/moves HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
    ],
)
def test_bodies_are_bounded_and_methods_and_paths_checked(served: Room, request_: bytes, status: int) -> None:
    answer = raw(served.socket, request_.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    if b"application/json" in head:
        assert json.loads(body)["error"]


def test_cancel_asks_for_the_end_and_answers_with_the_job(served: Room) -> None:
    served.world.add(100, *[0] * 600)
    served.client.post("/v1/jobs", MOVE)
    served.world.step()
    told = served.client.post("/v1/jobs/1/cancel")["job"]
    assert (told["state"], told["cancel_requested"]) == ("running", True)
    finish(served)
    told = served.client.get("/v1/jobs/1")["job"]
    assert (told["state"], told["reason"], told["pages"]) == ("cancelled", None, {"moved": 256})


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/1/cancel"])
def test_readers_may_look_but_not_move(room: Room, path: str) -> None:
    from balancerd.control.access import Access, Peer
    from balancerd.control.app import PEER_KEY

    app = room.app()
    app._access = Access(own_uid=1, reader_gid=7)
    codes: list[str] = []

    def ask(method: str, where: str) -> int:
        environ = {"REQUEST_METHOD": method, "PATH_INFO": where, PEER_KEY: Peer(uid=1000, gid=7), "CONTENT_LENGTH": "0"}
        list(app(environ, lambda status, _headers, _info=None: codes.append(status)))  # type: ignore[arg-type]  # a start_response for tests
        return int(codes[-1].split()[0])

    assert ask("POST", path) == HTTPStatus.FORBIDDEN
    assert ask("GET", "/v1/jobs") == HTTPStatus.OK
    assert ask("GET", "/v1/moves") == HTTPStatus.OK


def test_history_names_the_move_that_can_be_undone(served: Room) -> None:
    world = served.world
    world.add(4242, 0, 0)
    job = world.finish(MoveRequest(pid=4242, targets=frozenset({N1})))
    process = a_process(4242, start_ticks=job.process.start_ticks)
    served.state.emit(world.jobs.add_to(a_report(processes=(a_process_report(process),))))
    (entry,) = served.client.get("/v1/processes/4242")["process"]["history"]
    assert (entry["move"], entry["policy"], entry["pages"]) == (job.move_id, "command", {"moved": 2})
