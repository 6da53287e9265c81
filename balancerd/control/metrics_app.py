"""What is open to whoever reaches the address of metrics.listen: /metrics, health, and pages of others."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TypeAlias
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from balancerd.control import api
from balancerd.control.answers import Answer, as_json, not_allowed, refuse, send
from balancerd.control.state import ControlState

Handler: TypeAlias = Callable[[WSGIEnvironment], Answer]


class MetricsApp:
    """GET /metrics, /healthz and /readyz, open to whoever reaches the address; `pages` answer for paths of their own.

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
        pages: Mapping[str, WSGIApplication] | None = None,
    ) -> None:
        self._state = state
        self._now = now
        self._render = render
        self._pages = pages or {}
        self._stalled_after_seconds = stalled_after_seconds
        self._handlers: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        path = str(environ["PATH_INFO"])
        if path in self._pages:
            return self._pages[path](environ, start_response)
        handler = self._handlers.get(path)
        if handler is None:
            answer = refuse(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")
        elif environ["REQUEST_METHOD"] != "GET":
            answer = not_allowed("GET")
        else:
            answer = handler(environ)
        body = send(answer, start_response)
        return () if environ["REQUEST_METHOD"] == "HEAD" else body  # RFC 9110, 9.3.2

    def _metrics(self, environ: WSGIEnvironment) -> Answer:
        content_type, body = self._render(str(environ.get("HTTP_ACCEPT", "")))
        return Answer(code=HTTPStatus.OK, body=body, content_type=content_type)

    def _healthz(self, _environ: WSGIEnvironment) -> Answer:
        view = self._state.view()
        age = self._now() - (view.started_at if view.told_at is None else view.told_at)
        healthy = age < self._stalled_after_seconds
        code = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return as_json(code, {"schema": api.SCHEMA, "healthy": healthy, "tick_age_seconds": round(age, 3)})

    def _readyz(self, _environ: WSGIEnvironment) -> Answer:
        ready = self._state.view().report is not None
        code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return as_json(code, {"schema": api.SCHEMA, "ready": ready})
