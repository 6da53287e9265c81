"""The WSGI application of the control API on the unix socket.

Owns paths, methods and status codes. It must not know sockets or threads, nor what the answers say (see api). Anything
that goes wrong inside an answer is left to the server, which logs it and answers 500.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from balancerd.control import api, heat_api, import_api, job_api, machine_api, plan_api, recording_api, workload_api
from balancerd.control.access import Access, Peer
from balancerd.control.answers import Answer, as_json, not_allowed, refuse, send
from balancerd.control.bodies import BodyRefused, read_body
from balancerd.control.history_api import HistoryDesk
from balancerd.control.import_pieces import MOST_BODY_BYTES as MOST_PIECE_BYTES
from balancerd.control.openapi import build_openapi
from balancerd.control.operator_api import Operator
from balancerd.control.requests import MOST_BODY_BYTES, BadRequest, parse_job
from balancerd.control.state import ControlState, View
from balancerd.control.stream_api import Stream
from balancerd.history.reader import HistoryUnreadableError
from balancerd.jobs.board import Jobs
from balancerd.jobs.refusal import Refusal, Refused
from balancerd.kernel.accesses.log_clock import ClockError
from balancerd.kernel.accesses.log_store import ImportRefusedError, LogStore
from balancerd.model.report import ProcessReport
from balancerd.streaming import CONTENT_TYPE, GONE_KEY, EventStream, FullError
from balancerd.trace.recorder import Recorder, RecordingRefusedError

PEER_KEY: Final = "balancerd.peer"
"""Where the server leaves the Peer of a request in the WSGI environment; None when the kernel did not tell."""

READ_PATHS: Final = frozenset(
    {
        *("/v1/status", "/v1/processes", "/v1/nodes", "/v1/workloads", "/v1/top", "/v1/jobs", "/v1/moves", "/v1/plan"),
        *("/v1/history", "/v1/openapi.json"),
    }
)
"""What only GET is for, beside single processes and jobs."""

_PROCESS_PATH = re.compile(r"/v1/processes/([^/]+)(/heat)?")
_PID = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_CELLS = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_JOB_PATH = re.compile(r"/v1/jobs/([^/]+)(/cancel)?")
_JOB_ID = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
_IMPORT_PATH = re.compile(r"/v1/imports(?:/([1-9][0-9]{0,14})/(samples|commit|cancel))?", re.ASCII)

_RECORDING_PATH = re.compile(r"/v1/recordings(?:/([1-9][0-9]{0,14})/(fetch|stop))?", re.ASCII)

_ASKABLE = (
    f"only sort={'|'.join(workload_api.PROCESS_SORTS)} and match=TEXT may be asked for, "
    f"a text of up to {workload_api.LONGEST_MATCH} characters"
)

_CODE_OF_REFUSAL: Mapping[Refusal, HTTPStatus] = {
    Refusal.INVALID: HTTPStatus.BAD_REQUEST,
    Refusal.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Refusal.CONFLICT: HTTPStatus.CONFLICT,
}


class ControlApp:
    """The API of the control socket; api.py documents it.

    `imports` takes perf logs, `recorder` records, `operator` switches and advises, `stream` tells of ticks as they end;
    without one there is no such path. `history` is None where none is kept. `look(pid)` is asked for a process that the
    last report does not hold and returns None when there is none such; it runs in an HTTP thread. `reload` has the
    configuration read again and must return at once. `count(method, code)` is called for each answer.
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
        operator: Operator | None = None,
        history: HistoryDesk | None = None,
        stream: Stream | None = None,
    ) -> None:
        self._state = state
        self._operator = operator
        self._history = history
        self._stream = stream
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
        path, peer = str(environ["PATH_INFO"]), environ.get(PEER_KEY)
        answer: Answer | EventStream[View]
        if path == "/v1/stream" and method == "GET" and self._stream is not None and self._may_read(peer):
            answer = self._open_stream(self._stream, environ)
        else:
            answer = self._answer(method, path, peer, environ)
        if isinstance(answer, Answer):
            self._count(method, answer.code)
            body = send(answer, start_response)
            return () if method == "HEAD" else body  # its answer has no body, whatever the code: RFC 9110, 9.3.2
        self._count(method, HTTPStatus.OK)
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")])
        return answer

    def _may_read(self, peer: Peer | None) -> bool:
        return peer is not None and self._access.may_read(peer)

    def _answer(self, method: str, path: str, peer: Peer | None, environ: WSGIEnvironment) -> Answer:
        if not self._may_read(peer) or peer is None:
            return refuse(HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.group may ask")
        if environ.get("HTTP_TRANSFER_ENCODING"):  # it would be taken for no body, and "pause for 5 min" for "pause"
            return refuse(HTTPStatus.LENGTH_REQUIRED, "a body needs its Content-Length")
        try:
            told = None if self._operator is None else self._operator.answer(method, path, peer, environ)
            return self._answer_path(method, path, peer, environ) if told is None else told
        except BodyRefused as refused:
            return refuse(refused.code, str(refused))

    def _answer_path(self, method: str, path: str, peer: Peer, environ: WSGIEnvironment) -> Answer:
        match = _PROCESS_PATH.fullmatch(path)
        if path == "/v1/reload":
            return self._answer_reload(method, peer)
        if path == "/v1/jobs" and method == "POST":
            return self._answer_submit(peer, environ)
        import_match = _IMPORT_PATH.fullmatch(path)
        if import_match is not None and self._imports is not None:
            if method != "POST":
                return not_allowed("POST")
            return self._answer_import(self._imports, import_match[1], import_match[2], peer, environ)
        recording_match = _RECORDING_PATH.fullmatch(path)
        if recording_match is not None and self._recorder is not None:
            if method != "POST":
                return not_allowed("POST")
            return self._answer_recording(self._recorder, recording_match[1], recording_match[2], peer, environ)
        job_match = _JOB_PATH.fullmatch(path)
        if job_match is not None:
            return self._answer_job(method, job_match[1], peer, cancel=job_match[2] is not None)
        if path == "/v1/jobs" and method != "GET":
            return not_allowed("GET, POST")
        if match is None and path not in READ_PATHS and (path != "/v1/stream" or self._stream is None):
            return refuse(HTTPStatus.NOT_FOUND, "there is no such path")
        if method != "GET":
            return not_allowed("GET")
        if match is not None:
            return self._answer_process(match[1], environ, heat=match[2] is not None)
        if path == "/v1/jobs":
            return as_json(HTTPStatus.OK, job_api.jobs(self._jobs.all(), now=self._now()))
        if path == "/v1/moves":
            return as_json(HTTPStatus.OK, job_api.moves(self._jobs.moves(), now=self._now()))
        if path == "/v1/openapi.json":
            return as_json(HTTPStatus.OK, build_openapi())
        if path == "/v1/history":
            return self._answer_history(str(environ.get("QUERY_STRING") or ""))
        if path == "/v1/top":
            return self._answer_top(str(environ.get("QUERY_STRING") or ""))
        view = self._state.view()
        if path == "/v1/nodes":
            return as_json(HTTPStatus.OK, machine_api.nodes(view, now=self._now()))
        if path == "/v1/processes":
            return as_json(HTTPStatus.OK, api.processes(view))
        if path == "/v1/plan":
            return as_json(HTTPStatus.OK, plan_api.plan(view, now=self._now()))
        if path == "/v1/workloads":
            return as_json(HTTPStatus.OK, workload_api.workloads(view))
        status = api.status(view, version=self._version, pid=self._pid, now=self._now())
        return as_json(HTTPStatus.OK, status if self._operator is None else self._operator.complete(status))

    def _answer_top(self, query: str) -> Answer:
        asked = workload_api.parse_asked(query)
        if asked is None:
            return refuse(HTTPStatus.BAD_REQUEST, _ASKABLE)
        return as_json(HTTPStatus.OK, workload_api.top(self._state.view(), asked, now=self._now()))

    def _open_stream(self, stream: Stream, environ: WSGIEnvironment) -> Answer | EventStream[View]:
        asked = workload_api.parse_asked(str(environ.get("QUERY_STRING") or ""))
        if asked is None:
            return refuse(HTTPStatus.BAD_REQUEST, _ASKABLE)
        try:
            return stream.open(asked, environ.get(GONE_KEY, lambda: False))
        except FullError:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many listen already: ask for /v1/top now and then")

    def _answer_history(self, query: str) -> Answer:
        if self._history is None:
            return refuse(HTTPStatus.NOT_FOUND, "no history is kept: see history in the configuration")
        try:
            return as_json(HTTPStatus.OK, self._history.answer(query))
        except BadRequest as wrong:
            return refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except HistoryUnreadableError as why:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"the history cannot be read: {why}")

    def _answer_process(self, text: str, environ: WSGIEnvironment, *, heat: bool) -> Answer:
        cells = _parse_cells(str(environ.get("QUERY_STRING") or "")) if heat else heat_api.CELLS
        if cells is None:
            told = f"only cells={heat_api.LEAST_CELLS} to {heat_api.MOST_CELLS} may be asked for"
            return refuse(HTTPStatus.BAD_REQUEST, told)
        if not _PID.fullmatch(text):
            return refuse(HTTPStatus.BAD_REQUEST, "a pid is a number such as 4711")
        pid = int(text)
        view = self._state.view()
        known = () if view.report is None else view.report.processes
        report = next((report for report in known if report.process.id.pid == pid), None)
        if report is None:
            report = self._look(pid)
        if report is None:
            return refuse(HTTPStatus.NOT_FOUND, f"there is no process {pid}")
        if heat:
            return as_json(HTTPStatus.OK, heat_api.heat(view, report, cells=cells, now=self._now()))
        return as_json(HTTPStatus.OK, api.process(view, report, now=self._now()))

    def _answer_reload(self, method: str, peer: Peer) -> Answer:
        if method != "POST":
            return not_allowed("POST")
        if not self._access.may_change(peer):
            return refuse(HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.change_group may reload")
        self._reload()
        return as_json(HTTPStatus.ACCEPTED, {"schema": api.SCHEMA, "accepted": True})

    def _answer_submit(self, peer: Peer, environ: WSGIEnvironment) -> Answer:
        if not self._access.may_change(peer):
            return refuse(
                HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.change_group may have memory moved"
            )
        try:
            job = self._jobs.submit(parse_job(read_body(environ, most_bytes=MOST_BODY_BYTES, is_required=True)))
        except BadRequest as wrong:
            return refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except Refused as refused:
            return refuse(_CODE_OF_REFUSAL[refused.refusal], str(refused))
        return as_json(HTTPStatus.ACCEPTED, job_api.job(job, now=self._now()))

    def _answer_import(
        self, imports: LogStore, number: str | None, step: str | None, peer: Peer, environ: WSGIEnvironment
    ) -> Answer:
        if not self._access.may_change(peer):
            return refuse(
                HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.change_group may import a log"
            )
        body = read_body(environ, most_bytes=MOST_PIECE_BYTES)
        try:
            if number is None:
                return as_json(HTTPStatus.ACCEPTED, import_api.begun(imports.begin(import_api.parse_header(body))))
            if step == "samples":
                imports.add(int(number), import_api.parse_samples(body))
                return as_json(HTTPStatus.OK, import_api.going_on())
            if step == "commit":
                return as_json(HTTPStatus.OK, import_api.ended(imports.commit(int(number))))
            imports.abandon(int(number))
            return as_json(HTTPStatus.OK, import_api.going_on())
        except (BadRequest, ClockError) as wrong:
            return refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except ImportRefusedError as refused:
            return refuse(HTTPStatus.CONFLICT, str(refused))

    def _answer_recording(
        self, recorder: Recorder, number: str | None, step: str | None, peer: Peer, environ: WSGIEnvironment
    ) -> Answer:
        if not self._access.may_change(peer):
            return refuse(HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.change_group may record")
        try:
            if number is None:
                body = read_body(environ, most_bytes=recording_api.MOST_BODY_BYTES)
                seconds = recording_api.parse_seconds(body)
                return as_json(HTTPStatus.ACCEPTED, recording_api.begun(recorder.start(seconds)))
            if step == "fetch":
                return Answer(code=HTTPStatus.OK, body=recording_api.fetched(recorder.fetch(int(number))))
            recorder.stop(int(number))
            return as_json(HTTPStatus.OK, recording_api.stopped())
        except BadRequest as wrong:
            return refuse(HTTPStatus.BAD_REQUEST, str(wrong))
        except RecordingRefusedError as refused:
            return refuse(HTTPStatus.CONFLICT, str(refused))

    def _answer_job(self, method: str, text: str, peer: Peer, *, cancel: bool) -> Answer:
        if method != ("POST" if cancel else "GET"):
            return not_allowed("POST" if cancel else "GET")
        if cancel and not self._access.may_change(peer):
            return refuse(
                HTTPStatus.FORBIDDEN, "only root, the daemon's user and control.change_group may cancel a job"
            )
        if not _JOB_ID.fullmatch(text):
            return refuse(HTTPStatus.BAD_REQUEST, "a job is named by a number such as 7")
        job = self._jobs.cancel(int(text)) if cancel else self._jobs.find(int(text))
        if job is None:
            return refuse(HTTPStatus.NOT_FOUND, f"there is no job {text}, or it is forgotten")
        return as_json(HTTPStatus.ACCEPTED if cancel else HTTPStatus.OK, job_api.job(job, now=self._now()))


def _parse_cells(query: str) -> int | None:
    """Return how many cells are asked for; None when that is not to be understood, or out of bounds."""
    asked = parse_qs(query, keep_blank_values=True)
    numbers = asked.pop("cells", [str(heat_api.CELLS)])
    if asked or len(numbers) != 1 or not _CELLS.fullmatch(numbers[0]):
        return None
    return int(numbers[0]) if heat_api.LEAST_CELLS <= int(numbers[0]) <= heat_api.MOST_CELLS else None
