"""The WSGI application of the page: paths, methods, who may ask, and the headers that keep a browser in check.

Anybody who reaches the address may read. What must not happen is that a page from elsewhere reads in the name of
somebody's browser: names in the Host header are checked, so that a name which an attacker points to this address (DNS
rebinding) is of no use, and no header allows other origins. It must not know what the page shows.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import resources
from typing import Final
from wsgiref.types import StartResponse, WSGIEnvironment

from balancerd.web.live import Live
from balancerd.web.memory import PageMemory
from balancerd.web.page import render

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

FILES: Final[Mapping[str, str]] = {
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
"""What the page loads, by path; each lies in files/."""

PATHS: Final = ("/", "/events", *FILES)

OWN_SITE: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site with which the stream is opened: by the page itself, or typed in."""

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)

Take = Callable[[socket.socket], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response."""

    code: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class PageApp:
    """GET and HEAD of PATHS.

    `hosts` are names under which the machine is known beside its addresses and localhost. Under `take_key` the server
    leaves a callable in the environment that hands the connection on once the head of the answer is sent.
    """

    def __init__(
        self, *, memory: PageMemory, live: Live, now: Callable[[], float], hosts: Iterable[str], take_key: str
    ) -> None:
        self._memory, self._live, self._now = memory, live, now
        self._hosts = frozenset({"localhost", *(host.lower() for host in hosts)})
        self._take_key = take_key
        folder = resources.files("balancerd.web") / "files"
        self._files = {path: (folder / path[1:]).read_bytes() for path in FILES}
        self._lock = threading.Lock()
        self._rendered: tuple[tuple[int, int], bytes] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        method, path = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
        if method in {"GET", "HEAD"} and path == "/events" and self._is_known(environ):
            return self._stream(method, environ, start_response)
        answer = self._answer(method, path, environ)
        headers = {**HEADERS, **answer.headers, "Content-Type": answer.content_type}
        start_response(_status(answer.code), [*headers.items(), ("Content-Length", str(len(answer.body)))])
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, method: str, path: str, environ: WSGIEnvironment) -> Answer:
        if not self._is_known(environ):
            told = b"This machine is not known by that name. Ask for it by address, or as localhost.\n"
            return Answer(code=HTTPStatus.MISDIRECTED_REQUEST, body=told)
        if method not in {"GET", "HEAD"}:
            return Answer(
                code=HTTPStatus.METHOD_NOT_ALLOWED, body=b"The page only reads.\n", headers={"Allow": "GET, HEAD"}
            )
        if path == "/":
            return Answer(code=HTTPStatus.OK, body=self._page(), content_type="text/html; charset=utf-8")
        if path in self._files:
            return Answer(code=HTTPStatus.OK, body=self._files[path], content_type=FILES[path])
        return Answer(code=HTTPStatus.NOT_FOUND, body=b"There is no such page.\n")

    def _page(self) -> bytes:
        """Return the page, made anew at most once a second for each change, however many ask."""
        with self._lock:
            now, view = self._now(), self._memory.view()
            key = (view.number, int(now))
            if self._rendered is None or self._rendered[0] != key:
                self._rendered = (key, render(view, now))
            return self._rendered[1]

    def _stream(self, method: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        take: Callable[[Take], None] | None = environ.get(self._take_key)
        site = str(environ.get("HTTP_SEC_FETCH_SITE", "none"))
        code = HTTPStatus.OK
        if site not in OWN_SITE:
            code = HTTPStatus.FORBIDDEN
        elif take is None or not self._live.has_room:
            code = HTTPStatus.SERVICE_UNAVAILABLE
        if code is not HTTPStatus.OK or method == "HEAD" or take is None:
            start_response(_status(code), [*HEADERS.items(), ("Content-Type", "text/plain"), ("Content-Length", "0")])
            return []
        take(self._live.join)
        start_response(
            _status(code), [*HEADERS.items(), ("Content-Type", "text/event-stream"), ("Connection", "close")]
        )
        return []

    def _is_known(self, environ: WSGIEnvironment) -> bool:
        """Whether the Host header is an address, or a name of this machine."""
        match = _HOST.fullmatch(str(environ.get("HTTP_HOST", "")))
        if match is None:
            return False
        name = (match["v6"] or match["name"]).lower().rstrip(".")
        return name in self._hosts or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _status(code: HTTPStatus) -> str:
    return f"{code.value} {code.phrase}"
