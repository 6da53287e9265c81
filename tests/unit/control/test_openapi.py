"""The OpenAPI document: it names what there is, and what is answered has the form that it tells."""

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from balancerd.control.openapi import build_openapi
from balancerd.control.operations import EVENTS_TYPE, OPERATIONS, Operation
from balancerd.streaming import PREAMBLE
from tests.unit.cli.validation import faults
from tests.unit.control.busy import a_busy_room, a_full_room, ask, path_of, some_reports
from tests.unit.control.test_stream import the_event

ROOT = Path(__file__).parents[3]
DOCUMENT = build_openapi()
GETS = [each for each in OPERATIONS if each.method == "GET" and each.answered.content_type != EVENTS_TYPE]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
NAMED = re.compile(r"\b(GET|POST) (/v1/[A-Za-z0-9/.]+)")
NUMBER = re.compile(r"/(?:PID|ID|N|{\w+})(?=/|$)")


def faults_of(name: str, document: Any) -> list[str]:
    return list(faults(DOCUMENT["components"]["schemas"][name], document))


def test_the_daemon_serves_the_document_that_is_shipped(tmp_path: Path) -> None:
    served = ask(a_full_room(tmp_path), "GET", "/v1/openapi.json")
    shipped = (ROOT / "deploy/schemas/control-api.openapi.json").read_text(encoding="utf-8")
    assert (served.code, served.headers["Content-Type"]) == (200, "application/json")
    assert served.document == json.loads(shipped) == DOCUMENT


def test_the_document_names_what_the_modules_document_and_nothing_else() -> None:
    modules = "".join(path.read_text("utf-8") for path in (ROOT / "balancerd/control").glob("*.py"))
    documented = {(method, NUMBER.sub("/{}", path.rstrip("."))) for method, path in NAMED.findall(modules)}
    assert documented == {(each.method, NUMBER.sub("/{}", each.path)) for each in OPERATIONS}


def test_names_are_unique_and_a_name_of_an_answer_stands_for_one_shape() -> None:
    assert len({each.name for each in OPERATIONS}) == len(OPERATIONS)
    assert len({(each.method, each.path) for each in OPERATIONS}) == len(OPERATIONS)
    shapes = {each.answered.name: each.answered.shape for each in OPERATIONS}
    assert all(each.answered.shape is shapes[each.answered.name] for each in OPERATIONS)


@pytest.mark.parametrize("operation", GETS, ids=lambda each: each.name)
def test_answers_have_the_keys_of_the_document_and_no_others(tmp_path: Path, operation: Operation) -> None:
    room = a_full_room(tmp_path)
    missing = "{pid}" in operation.path or "{job}" in operation.path
    before = ask(room, "GET", path_of(operation))
    assert before.code == (HTTPStatus.NOT_FOUND if missing else HTTPStatus.OK)
    assert faults_of("Error" if missing else operation.answered.name, before.document) == []
    room = a_busy_room(tmp_path)
    codes = []
    for report in some_reports():
        room.tell(report)
        told = ask(room, "GET", path_of(operation))
        codes.append(told.code)
        assert faults_of("Error" if told.code == HTTPStatus.NOT_FOUND else operation.answered.name, told.document) == []
    assert codes == [200, 404 if "{pid}" in operation.path else 200, 200, 200]  # process 4242 is not in every tick


def test_an_event_of_the_stream_has_the_form_that_the_document_tells(tmp_path: Path) -> None:
    room = a_busy_room(tmp_path)
    (operation,) = (each for each in OPERATIONS if each.answered.content_type == EVENTS_TYPE)
    reply = ask(room, "GET", path_of(operation))
    assert (reply.headers["Content-Type"], reply.body) == (EVENTS_TYPE, PREAMBLE)
    for report in some_reports():
        room.tell(report)
        assert faults_of(operation.answered.name, the_event(room)) == []


@pytest.mark.parametrize(
    "job",
    [
        {"kind": "move", "pid": 100, "to": "1", "from": "0", "whole": True},
        {"kind": "move", "pid": 100.0, "to": "0-1", "from": None},
        {"kind": "evict", "pid": 100, "cold_only": True},
        {"kind": "undo", "move": 1},
    ],
)
def test_jobs_have_the_form_that_the_document_tells_before_and_after(tmp_path: Path, job: Any) -> None:
    room = a_busy_room(tmp_path)
    handed_in = ask(room, "POST", "/v1/jobs", job)
    assert (handed_in.code, faults_of("Job", handed_in.document)) == (202, [])
    room.world.wait(2)
    assert faults_of("Job", ask(room, "GET", "/v1/jobs/2").document) == []
    assert faults_of("Jobs", ask(room, "GET", "/v1/jobs").document) == []
    moves = ask(room, "GET", "/v1/moves").document
    assert (faults_of("Moves", moves), moves["moves"][-1]["id"]) == ([], 1)


@pytest.mark.parametrize(
    ("path", "body", "code", "name"),
    [
        ("/v1/advice", {"cpus": 0.5, "memory_bytes": 1, "lease_seconds": 5}, 200, "Advice"),
        ("/v1/advice", {"cpus": 999, "memory_bytes": 1, "lease_seconds": 5}, 200, "Advice"),
        ("/v1/advice/1/release", None, 200, "Released"),
        ("/v1/pause", {"seconds": 5}, 202, "Paused"),
        ("/v1/pause", None, 202, "Paused"),
        ("/v1/resume", {}, 202, "Resumed"),
        ("/v1/mode", {"mode": "observe"}, 202, "ModeChanged"),
        ("/v1/reload", None, 202, "Reloading"),
        ("/v1/jobs/1/cancel", None, 202, "Job"),
        ("/v1/imports/1/samples", bytes(28), 200, "Done"),
        ("/v1/imports/1/commit", None, 200, "Imported"),
        ("/v1/imports/1/cancel", None, 200, "Done"),
        ("/v1/recordings/1/fetch", None, 200, "Fetched"),
        ("/v1/recordings/1/stop", None, 200, "Done"),
    ],
)
def test_what_is_posted_is_answered_in_the_form_that_the_document_tells(
    tmp_path: Path, path: str, body: Any, code: int, name: str
) -> None:
    reply = ask(a_busy_room(tmp_path), "POST", path, body)
    assert (reply.code, faults_of(name, reply.document)) == (code, [])


def test_what_begins_is_answered_in_the_form_that_the_document_tells(tmp_path: Path) -> None:
    room = a_full_room(tmp_path)
    begun = ask(room, "POST", "/v1/imports", {"name": "log", "samples": {"1": 1.0, "2": 2}})
    assert (begun.code, faults_of("Admitted", begun.document)) == (202, [])
    begun = ask(room, "POST", "/v1/recordings", {"seconds": 5})
    assert (begun.code, faults_of("Recording", begun.document)) == (202, [])


@pytest.mark.parametrize("path", sorted({path_of(each) for each in OPERATIONS}))
def test_methods_that_are_not_named_are_answered_405_with_those_that_are(tmp_path: Path, path: str) -> None:
    allowed = sorted(each.method for each in OPERATIONS if path_of(each) == path)
    room = a_full_room(tmp_path)
    for method in METHODS:
        if method not in allowed:
            reply = ask(room, method, path)
            assert (reply.code, reply.headers["Allow"]) == (405, ", ".join(allowed)), method
            assert reply.headers["Content-Type"] == "application/json"
            assert reply.body == b"" if method == "HEAD" else faults_of("Error", reply.document) == []
