"""Every path of the control API with its method, who may ask, what is taken, and what is answered: a table.

The document that the daemon serves is made of it (see openapi), and tests hold the application to it. It must not know
how an answer comes about, nor how OpenAPI spells things beyond JSON schemas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

from balancerd.control import asked_schemas, order_shapes, told_shapes
from balancerd.control.import_pieces import MOST_BODY_BYTES as MOST_PIECE_BYTES
from balancerd.control.recording_api import MOST_BODY_BYTES as MOST_RECORDING_BYTES
from balancerd.control.requests import MOST_BODY_BYTES
from balancerd.control.shapes import Schema, Shape, by, each

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
EVENTS_TYPE: Final = "text/event-stream"

_BAD, _MISSING, _CONFLICT = HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT
_NOT_NOW = HTTPStatus.SERVICE_UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What is answered to a request that succeeds: `name` names the `shape` among all of them."""

    name: str
    shape: Shape
    code: HTTPStatus = HTTPStatus.OK
    content_type: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request carries: a JSON schema, or bytes. At most `most_bytes`."""

    schema: Schema
    most_bytes: int
    content_type: str = JSON
    is_required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing to ask for. `path` has parameters in braces; `query` has what may stand behind a question mark.

    `changes` tells that only root, the daemon's user and control.change_group may ask. `refusals` are sentences about
    the codes of refusal that are its own, beside 403, 405, and 411 and 413 for bodies, which everything has.
    """

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    answered: Answered
    changes: bool = False
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Body | None = None
    refusals: Mapping[HTTPStatus, str] = field(default_factory=dict)


_DONE: Final = Answered(name="Done", shape=order_shapes.DONE)
_NOT_UNDERSTOOD: Final = "it is not understood"
_LONG: Final = "the body is too long"
_NOT_UNDERSTOOD_OR_LONG: Final = f"{_NOT_UNDERSTOOD}, or too long"
_NO_PROCESS: Final = "there is no such process"
_NO_JOB: Final = "there is no such job, or it is forgotten"
_NO_LEASE: Final = "there is no such lease, or it has ended"
_NO_IMPORT: Final = "there is no such import, or it has ended"
_NO_RECORDING: Final = "there is no such recording"


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/openapi.json",
        name="openapi",
        summary="This document",
        answered=Answered(
            name="OpenAPI",
            shape={
                "openapi": "str",
                "info": by("any"),
                "servers": each(by("any")),
                "paths": by("any"),
                "components": by("any"),
            },
        ),
    ),
    Operation(
        method="GET",
        path="/v1/status",
        name="status",
        summary="Whether the daemon is well, and what the last tick came to",
        answered=Answered(name="Status", shape=told_shapes.STATUS),
    ),
    Operation(
        method="GET",
        path="/v1/nodes",
        name="nodes",
        summary="The machine: its nodes, their memory, devices and links",
        answered=Answered(name="Nodes", shape=told_shapes.NODES),
    ),
    Operation(
        method="GET",
        path="/v1/processes",
        name="processes",
        summary="All processes that are watched, the largest first",
        answered=Answered(name="Processes", shape=told_shapes.PROCESSES),
    ),
    Operation(
        method="GET",
        path="/v1/processes/{pid}",
        name="process",
        summary="One process: where it runs, where its memory lies, and why it is treated as it is",
        answered=Answered(name="Process", shape=told_shapes.ONE_PROCESS),
        refusals={_BAD: "the pid is no number", _MISSING: _NO_PROCESS},
    ),
    Operation(
        method="GET",
        path="/v1/processes/{pid}/heat",
        name="heat",
        summary="The address space of one process as cells: where they lie, and who uses them",
        query=asked_schemas.CELLS,
        answered=Answered(name="Heat", shape=told_shapes.HEAT),
        refusals={_BAD: _NOT_UNDERSTOOD, _MISSING: _NO_PROCESS},
    ),
    Operation(
        method="GET",
        path="/v1/workloads",
        name="workloads",
        summary="All workloads, the largest first",
        answered=Answered(name="Workloads", shape=told_shapes.WORKLOADS),
    ),
    Operation(
        method="GET",
        path="/v1/top",
        name="top",
        summary="The first of the workloads and processes, as a live view shows them",
        query=asked_schemas.VIEW,
        answered=Answered(name="Top", shape=told_shapes.TOP),
        refusals={_BAD: _NOT_UNDERSTOOD},
    ),
    Operation(
        method="GET",
        path="/v1/stream",
        name="stream",
        summary="Every tick as it ends, as server-sent events named tick, for as long as the client stays",
        query=asked_schemas.VIEW,
        answered=Answered(name="Tick", shape=told_shapes.TICK, content_type=EVENTS_TYPE),
        refusals={_BAD: _NOT_UNDERSTOOD, _NOT_NOW: "too many listen already"},
    ),
    Operation(
        method="GET",
        path="/v1/plan",
        name="plan",
        summary="What would be moved now",
        answered=Answered(name="Plan", shape=told_shapes.PLAN),
    ),
    Operation(
        method="GET",
        path="/v1/history",
        name="history",
        summary="What was decided and done, the newest first",
        query=asked_schemas.HISTORY,
        answered=Answered(name="History", shape=told_shapes.HISTORY),
        refusals={
            _BAD: _NOT_UNDERSTOOD,
            _MISSING: "no history is kept",
            _NOT_NOW: "it cannot be read at the moment, or that took too long",
        },
    ),
    Operation(
        method="GET",
        path="/v1/moves",
        name="moves",
        summary="What moved of late and can be undone, the newest first",
        answered=Answered(name="Moves", shape=order_shapes.MOVES),
    ),
    Operation(
        method="GET",
        path="/v1/jobs",
        name="jobs",
        summary="What operators asked for, the oldest first",
        answered=Answered(name="Jobs", shape=order_shapes.JOBS),
    ),
    Operation(
        method="POST",
        path="/v1/jobs",
        name="submitJob",
        summary="Have memory moved or evicted, or a move undone",
        changes=True,
        body=Body(schema=asked_schemas.JOB, most_bytes=MOST_BODY_BYTES),
        answered=Answered(name="Job", shape=order_shapes.ONE_JOB, code=HTTPStatus.ACCEPTED),
        refusals={
            _BAD: "it is not understood, or a node has no memory",
            _MISSING: "there is no such process or move",
            _CONFLICT: "the process has a job already, or too many wait",
        },
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job}",
        name="job",
        summary="One job: how far it is, and what it came to",
        answered=Answered(name="Job", shape=order_shapes.ONE_JOB),
        refusals={_BAD: "the job is no number", _MISSING: _NO_JOB},
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job}/cancel",
        name="cancelJob",
        summary="Have a job end after the call to the kernel at hand",
        changes=True,
        answered=Answered(name="Job", shape=order_shapes.ONE_JOB, code=HTTPStatus.ACCEPTED),
        refusals={_BAD: "the job is no number", _MISSING: _NO_JOB},
    ),
    Operation(
        method="GET",
        path="/v1/advice",
        name="leases",
        summary="The leases on what was advised, the oldest first",
        answered=Answered(name="Leases", shape=order_shapes.LEASES),
    ),
    Operation(
        method="POST",
        path="/v1/advice",
        name="advise",
        summary="Where to place something that needs so much; a lease on it is for root and the daemon's user only",
        body=Body(schema=asked_schemas.ADVICE, most_bytes=MOST_BODY_BYTES),
        answered=Answered(name="Advice", shape=order_shapes.ADVICE),
        refusals={
            _BAD: _NOT_UNDERSTOOD_OR_LONG,
            _CONFLICT: "there was no tick yet, or too many leases are open",
        },
    ),
    Operation(
        method="POST",
        path="/v1/advice/{lease}/release",
        name="releaseLease",
        summary="Give a lease back",
        changes=True,
        answered=Answered(name="Released", shape=order_shapes.RELEASED),
        refusals={_MISSING: _NO_LEASE},
    ),
    Operation(
        method="POST",
        path="/v1/pause",
        name="pause",
        summary="Begin to move nothing from now on",
        changes=True,
        body=Body(schema=asked_schemas.PAUSE, most_bytes=MOST_BODY_BYTES, is_required=False),
        answered=Answered(name="Paused", shape=order_shapes.PAUSED, code=HTTPStatus.ACCEPTED),
        refusals={_BAD: _NOT_UNDERSTOOD_OR_LONG},
    ),
    Operation(
        method="POST",
        path="/v1/resume",
        name="resume",
        summary="End a pause",
        changes=True,
        body=Body(schema=asked_schemas.RESUME, most_bytes=MOST_BODY_BYTES, is_required=False),
        answered=Answered(name="Resumed", shape=order_shapes.RESUMED, code=HTTPStatus.ACCEPTED),
        refusals={_BAD: _NOT_UNDERSTOOD_OR_LONG},
    ),
    Operation(
        method="POST",
        path="/v1/mode",
        name="changeMode",
        summary="Move or only observe, from the next tick until the next reload or restart",
        changes=True,
        body=Body(schema=asked_schemas.CHANGED_MODE, most_bytes=MOST_BODY_BYTES),
        answered=Answered(name="ModeChanged", shape=order_shapes.MODE_CHANGED, code=HTTPStatus.ACCEPTED),
        refusals={_BAD: _NOT_UNDERSTOOD_OR_LONG},
    ),
    Operation(
        method="GET",
        path="/v1/config",
        name="config",
        summary="The configuration that is in effect, and where each key of it is written",
        answered=Answered(name="Config", shape=order_shapes.CONFIG),
    ),
    Operation(
        method="POST",
        path="/v1/reload",
        name="reload",
        summary="Have the configuration read again before the next tick; status tells how it went",
        changes=True,
        answered=Answered(name="Reloading", shape=order_shapes.RELOADING, code=HTTPStatus.ACCEPTED),
    ),
    Operation(
        method="POST",
        path="/v1/imports",
        name="beginImport",
        summary="Begin to import a log of accesses",
        changes=True,
        body=Body(schema=asked_schemas.LOG, most_bytes=MOST_PIECE_BYTES),
        answered=Answered(name="Admitted", shape=order_shapes.ADMITTED, code=HTTPStatus.ACCEPTED),
        refusals={
            _BAD: "it is not understood, or its times cannot be meant",
            _MISSING: "accesses are not watched",
            _CONFLICT: "another import is going on, or nothing of it is wanted",
        },
    ),
    Operation(
        method="POST",
        path="/v1/imports/{import}/samples",
        name="importSamples",
        summary="A piece of the log",
        changes=True,
        body=Body(schema=asked_schemas.SAMPLES, most_bytes=MOST_PIECE_BYTES, content_type=BYTES),
        answered=_DONE,
        refusals={_BAD: _NOT_UNDERSTOOD, _MISSING: _NO_IMPORT, _CONFLICT: _NO_IMPORT},
    ),
    Operation(
        method="POST",
        path="/v1/imports/{import}/commit",
        name="commitImport",
        summary="Take the log, which was sent whole",
        changes=True,
        answered=Answered(name="Imported", shape=order_shapes.IMPORTED),
        refusals={_MISSING: _NO_IMPORT, _CONFLICT: _NO_IMPORT},
    ),
    Operation(
        method="POST",
        path="/v1/imports/{import}/cancel",
        name="cancelImport",
        summary="Forget what was sent of the log",
        changes=True,
        answered=_DONE,
        refusals={_MISSING: _NO_IMPORT, _CONFLICT: _NO_IMPORT},
    ),
    Operation(
        method="POST",
        path="/v1/recordings",
        name="beginRecording",
        summary="Record what ticks are told, from the next one on",
        changes=True,
        body=Body(schema=asked_schemas.RECORDING, most_bytes=MOST_RECORDING_BYTES),
        answered=Answered(name="Recording", shape=order_shapes.RECORDING, code=HTTPStatus.ACCEPTED),
        refusals={
            _BAD: _NOT_UNDERSTOOD,
            _MISSING: "nothing can be recorded",
            _CONFLICT: "another recording is going on, or the daemon is paused",
        },
    ),
    Operation(
        method="POST",
        path="/v1/recordings/{recording}/fetch",
        name="fetchRecording",
        summary="What came since this was last asked",
        changes=True,
        answered=Answered(name="Fetched", shape=order_shapes.FETCHED),
        refusals={_MISSING: _NO_RECORDING, _CONFLICT: _NO_RECORDING},
    ),
    Operation(
        method="POST",
        path="/v1/recordings/{recording}/stop",
        name="stopRecording",
        summary="Record no more; what has come can still be fetched",
        changes=True,
        answered=_DONE,
        refusals={_MISSING: _NO_RECORDING, _CONFLICT: _NO_RECORDING},
    ),
)
"""All of them, in the order of the document."""
