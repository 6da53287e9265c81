"""The two WSGI applications: the control API on the unix socket, metrics and health on TCP.

Owns paths, methods and status codes. It must not know sockets or threads, nor what the answers say (see api). Anything
that goes wrong inside an answer is left to the server, which logs it and answers 500.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from balancerd.control import api, heat_api, import_api, job_api, machine_api, plan_api, recording_api, workload_api
from balancerd.control.access import Access, Peer
from balancerd.control.import_pieces import MOST_BODY_BYTES as MOST_PIECE_BYTES
from balancerd.control.requests import MOST_BODY_BYTES, BadRequest, parse_job
from balancerd.control.state import ControlState, View
from balancerd.jobs.board import Jobs
from balancerd.jobs.refusal import Refusal, Refused
from balancerd.kernel.accesses.log_clock import ClockError
from balancerd.kernel.accesses.log_store import ImportRefusedError, LogStore
from balancerd.model.report import ProcessReport
from balancerd.trace.recorder import Recorder, RecordingRefusedError

PEER_KEY: Final = "balancerd.peer"
"""Where the server leaves the Peer of a request in the WSGI environment; None when the kernel did not tell."""

READ_PATHS: Final = frozenset(
    {"/v1/status", "/v1/processes", "/v1/nodes", "/v1/workloads", "/v1/top", "/v1/jobs", "/v1/moves", "/v1/plan"}
)
"""What only GET is for, beside single processes and jobs."""

_PROCESS_PATH = re.compile(r"/v1/processes/([^/]+)(/heat)?")
_PID = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_CELLS = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_JOB_PATH = re.compile(r"/v1/jobs/([^/]+)(/cancel)?")
_JOB_ID = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
_IMPORT_PATH = re.compile(r"/v1/imports(?:/([1-9][0-9]{0,14})/(samples|commit|cancel))?", re.ASCII)

_RECORDING_PATH = re.compile(r"/v1/recordings(?:/([1-9][0-9]{0,14})/(fetch|stop))?", re.ASCII)

_CODE_OF_REFUSAL: Mapping[Refusal, HTTPStatus] = {
    Refusal.INVALID: HTTPStatus.BAD_REQUEST,
    Refusal.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Refusal.CONFLICT: HTTPStatus.CONFLICT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response: JSON unless a content type says otherwise."""

    code: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[WSGIEnvironment], Answer]


class ControlApp:
    """The API of the control socket; api.py documents it.

    `imports` takes perf logs, `recorder` records; without one there is no such path. `look(pid)` is asked for a process
    that the last report does not hold and returns None when there is none such; it runs in an HTTP thread. `reload` has
    the configuration read again and must return at once. `count(method, code)` is called for each answer.
    """

    def __init__(
        self,
        *,
        state: ControlState,
        jobs: Jobs,
        access: Access,
        version: str,
        pid: int,
        now: Callable[[], float],
        look: Callable[[int], ProcessReport | None],
        reload: Callable[[], None],
        count: Callable[[str, int], None],
        imports: LogStore | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._state = state
        self._recorder = recorder
        self._imports = imports
        self._jobs = jobs
        self._access = access
        self._version = version
        self._pid = pid
        self._now = now
        self._look = look
        self._reload = reload
        self._count = count

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        method = str(environ["REQUEST_METHOD"])
        answer = self._answer(method, str(environ["PATH_INFO"]), environ.get(PEER_KEY), environ)
        self._count(method, answer.code)
        return _send(answer, start_response)

    def _answer(self, method: str, path: str, peer: Peer | None, environ: WSGIEnvironment) -> Answer:
        if peer is None or not self._access.may_read(peer):
            return _refuse(HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.group may ask")
        match = _PROCESS_PATH.fullmatch(path)
        if path == "/v1/reload":
            return self._answer_reload(method, peer)
        if path == "/v1/jobs" and method == "POST":
            return self._answer_submit(peer, environ)
        import_match = _IMPORT_PATH.fullmatch(path)
        if import_match is not None and self._imports is not None:
            if method != "POST":
                return _not_allowed("POST")
            return self._answer_import(self._imports, import_match[1], import_match[2], peer, environ)
        recording_match = _RECORDING_PATH.fullmatch(path)
        if recording_match is not None and self._recorder is not None:
            if method != "POST":
                return _not_allowed("POST")
            return self._answer_recording(self._recorder, recording_match[1], recording_match[2], peer, environ)
        job_match = _JOB_PATH.fullmatch(path)
        if job_match is not None:
            return self._answer_job(method, job_match[1], peer, cancel=job_match[2] is not None)
        if path == "/v1/jobs" and method != "GET":
            return _not_allowed("GET, POST")
        if match is None and path not in READ_PATHS:
            return _refuse(HTTPStatus.NOT_FOUND, "there is no such path")
        if method != "GET":
            return _not_allowed("GET")
        if match is not None:
            return self._answer_process(match[1], environ, heat=match[2] is not None)
        if path == "/v1/jobs":
            return _json(HTTPStatus.OK, job_api.jobs(self._jobs.all(), now=self._now()))
        if path == "/v1/moves":
            return _json(HTTPStatus.OK, job_api.moves(self._jobs.moves(), now=self._now()))
        view = self._state.view()
        if path == "/v1/nodes":
            return _json(HTTPStatus.OK, machine_api.nodes(view, now=self._now()))
        if path == "/v1/processes":
            return _json(HTTPStatus.OK, api.processes(view))
        if path == "/v1/plan":
            return _json(HTTPStatus.OK, plan_api.plan(view, now=self._now()))
        if path == "/v1/workloads":
            return _json(HTTPStatus.OK, workload_api.workloads(view))
        if path == "/v1/top":
            return self._answer_top(view, str(environ.get("QUERY_STRING") or ""))
        return _json(HTTPStatus.OK, api.status(view, version=self._version, pid=self._pid, now=self._now()))

    def _answer_top(self, view: View, query: str) -> Answer:
        asked = parse_qs(query, keep_blank_values=True)
        sorts = asked.pop("sort", ["remote"])
        if asked or len(sorts) != 1 or sorts[0] not in workload_api.PROCESS_SORTS:
            return _refuse(HTTPStatus.BAD_REQUEST, f"only sort={'|'.join(workload_api.PROCESS_SORTS)} may be asked for")
        return _json(HTTPStatus.OK, workload_api.top(view, sort=sorts[0], now=self._now()))

    def _answer_process(self, text: str, environ: WSGIEnvironment, *, heat: bool) -> Answer:
        cells = _parse_cells(str(environ.get("QUERY_STRING") or "")) if heat else heat_api.CELLS
        if cells is None:
            told = f"only cells={heat_api.LEAST_CELLS} to {heat_api.MOST_CELLS} may be asked for"
            return _refuse(HTTPStatus.BAD_REQUEST, told)
        if not _PID.fullmatch(text):
            return _refuse(HTTPStatus.BAD_REQUEST, "a pid is a number such as 4711")
        pid = int(text)
        view = self._state.view()
        known = () if view.report is None else view.report.processes
        report = next((report for report in known if report.process.id.pid == pid), None)
        if report is None:
            report = self._look(pid)
        if report is None:
            return _refuse(HTTPStatus.NOT_FOUND, f"there is no process {pid}")
        if heat:
            return _json(HTTPStatus.OK, heat_api.heat(view, report, cells=cells, now=self._now()))
        return _json(HTTPStatus.OK, api.process(view, report, now=self._now()))

    def _answer_reload(self, method: str, peer: Peer) -> Answer:
        if method != "POST":
            return _not_allowed("POST")
        if not self._access.may_change(peer):
            return _refuse(HTTPStatus.FORBIDDEN, "only root and the daemon's user may reload")
        self._reload()
        return _json(HTTPStatus.ACCEPTED, {"schema": api.SCHEMA, "accepted": True})

    def _answer_submit(self, peer: Peer, environ: WSGIEnvironment) -> Answer:
        if not self._access.may_change(peer):
            return _refuse(HTTPStatus.FORBIDDEN, "only root and the daemon's user may have memory moved")
        length = str(environ.get("CONTENT_LENGTH") or "")
        if not length.isdecimal() or not length.isascii():
            return _refuse(HTTPStatus.LENGTH_REQUIRED, "a job needs a JSON body with its Content-Length")
        if int(length) > MOST_BODY_BYTES:
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a job has at most {MOST_BODY_BYTES} bytes")
        try:
            job = self._jobs.submit(parse_job(environ["wsgi.input"].read(int(length))))
        except BadRequest as wrong:
            return _refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except Refused as refused:
            return _refuse(_CODE_OF_REFUSAL[refused.refusal], str(refused))
        return _json(HTTPStatus.ACCEPTED, job_api.job(job, now=self._now()))

    def _answer_import(
        self, imports: LogStore, number: str | None, step: str | None, peer: Peer, environ: WSGIEnvironment
    ) -> Answer:
        if not self._access.may_change(peer):
            return _refuse(HTTPStatus.FORBIDDEN, "only root and the daemon's user may import a log")
        length = str(environ.get("CONTENT_LENGTH") or "0")
        if not length.isdecimal() or not length.isascii() or int(length) > MOST_PIECE_BYTES:
            too_long = f"a piece of a log has at most {MOST_PIECE_BYTES} bytes"
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_long)
        body = environ["wsgi.input"].read(int(length))
        try:
            if number is None:
                return _json(HTTPStatus.ACCEPTED, import_api.begun(imports.begin(import_api.parse_header(body))))
            if step == "samples":
                imports.add(int(number), import_api.parse_samples(body))
                return _json(HTTPStatus.OK, import_api.going_on())
            if step == "commit":
                return _json(HTTPStatus.OK, import_api.ended(imports.commit(int(number))))
            imports.abandon(int(number))
            return _json(HTTPStatus.OK, import_api.going_on())
        except (BadRequest, ClockError) as wrong:
            return _refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except ImportRefusedError as refused:
            return _refuse(HTTPStatus.CONFLICT, str(refused))

    def _answer_recording(
        self, recorder: Recorder, number: str | None, step: str | None, peer: Peer, environ: WSGIEnvironment
    ) -> Answer:
        if not self._access.may_change(peer):
            return _refuse(HTTPStatus.FORBIDDEN, "only root and the daemon's user may record")
        try:
            if number is None:
                length = str(environ.get("CONTENT_LENGTH") or "0")
                if not length.isdecimal() or not length.isascii() or int(length) > recording_api.MOST_BODY_BYTES:
                    too_long = f"what is asked for has at most {recording_api.MOST_BODY_BYTES} bytes"
                    return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_long)
                seconds = recording_api.parse_seconds(environ["wsgi.input"].read(int(length)))
                return _json(HTTPStatus.ACCEPTED, recording_api.begun(recorder.start(seconds)))
            if step == "fetch":
                return Answer(code=HTTPStatus.OK, body=recording_api.fetched(recorder.fetch(int(number))))
            recorder.stop(int(number))
            return _json(HTTPStatus.OK, recording_api.stopped())
        except BadRequest as wrong:
            return _refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except RecordingRefusedError as refused:
            return _refuse(HTTPStatus.CONFLICT, str(refused))

    def _answer_job(self, method: str, text: str, peer: Peer, *, cancel: bool) -> Answer:
        if method != ("POST" if cancel else "GET"):
            return _not_allowed("POST" if cancel else "GET")
        if cancel and not self._access.may_change(peer):
            return _refuse(HTTPStatus.FORBIDDEN, "only root and the daemon's user may cancel a job")
        if not _JOB_ID.fullmatch(text):
            return _refuse(HTTPStatus.BAD_REQUEST, "a job is named by a number such as 7")
        job = self._jobs.cancel(int(text)) if cancel else self._jobs.find(int(text))
        if job is None:
            return _refuse(HTTPStatus.NOT_FOUND, f"there is no job {text}, or it is forgotten")
        return _json(HTTPStatus.ACCEPTED if cancel else HTTPStatus.OK, job_api.job(job, now=self._now()))


class MetricsApp:
    """GET /metrics, /healthz and /readyz, open to whoever reaches the address.

    `render(accept)` returns content type and body. The daemon is ready after its first tick, and healthy while its last
    sign of life (a told tick, or else the start) is younger than `stalled_after_seconds`.
    """

    def __init__(
        self,
        *,
        state: ControlState,
        now: Callable[[], float],
        render: Callable[[str], tuple[str, bytes]],
        stalled_after_seconds: float = 60.0,
    ) -> None:
        self._state = state
        self._now = now
        self._render = render
        self._stalled_after_seconds = stalled_after_seconds
        self._handlers: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        handler = self._handlers.get(str(environ["PATH_INFO"]))
        if handler is None:
            answer = _refuse(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")
        elif environ["REQUEST_METHOD"] != "GET":
            answer = _not_allowed("GET")
        else:
            answer = handler(environ)
        return _send(answer, start_response)

    def _metrics(self, environ: WSGIEnvironment) -> Answer:
        content_type, body = self._render(str(environ.get("HTTP_ACCEPT", "")))
        return Answer(code=HTTPStatus.OK, body=body, content_type=content_type)

    def _healthz(self, _environ: WSGIEnvironment) -> Answer:
        view = self._state.view()
        age = self._now() - (view.started_at if view.told_at is None else view.told_at)
        healthy = age < self._stalled_after_seconds
        code = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(code, {"schema": api.SCHEMA, "healthy": healthy, "tick_age_seconds": round(age, 3)})

    def _readyz(self, _environ: WSGIEnvironment) -> Answer:
        ready = self._state.view().report is not None
        code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(code, {"schema": api.SCHEMA, "ready": ready})


def _parse_cells(query: str) -> int | None:
    """Return how many cells are asked for; None when that is not to be understood, or out of bounds."""
    asked = parse_qs(query, keep_blank_values=True)
    numbers = asked.pop("cells", [str(heat_api.CELLS)])
    if asked or len(numbers) != 1 or not _CELLS.fullmatch(numbers[0]):
        return None
    return int(numbers[0]) if heat_api.LEAST_CELLS <= int(numbers[0]) <= heat_api.MOST_CELLS else None


def _json(code: HTTPStatus, data: api.Json, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(code=code, body=json.dumps(data).encode("ascii") + b"\n", headers=headers or {})


def _refuse(code: HTTPStatus, text: str) -> Answer:
    return _json(code, api.error(text))


def _not_allowed(allowed: str) -> Answer:
    return _json(HTTPStatus.METHOD_NOT_ALLOWED, api.error(f"only {allowed} is allowed here"), {"Allow": allowed})


def _send(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
        **answer.headers,
    }
    start_response(f"{answer.code.value} {answer.code.phrase}", list(headers.items()))
    return [answer.body]
