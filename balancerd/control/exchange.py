"""One request and its answer: cheroot parses, runs the application and writes the answer, from bytes to bytes.

Owns what the environment of a request has beside PEP 3333: PEER_KEY, GONE_KEY, TAKE_KEY. The bytes come from the door,
and go back there: nothing here waits for a client. It must not know any path or answer.
"""

import functools
import io
import logging
import traceback as tracebacks
from collections.abc import Callable, Sequence
from typing import Any
from wsgiref.types import WSGIApplication

from cheroot import wsgi
from cheroot.server import HTTPConnection

from balancerd.control.app import PEER_KEY
from balancerd.control.caller import Caller
from balancerd.control.credentials import has_hung_up
from balancerd.control.door import Bounds
from balancerd.control.taking import TAKE_KEY, Taker
from balancerd.control.whole import without_expectation
from balancerd.streaming import GONE_KEY


class Exchange(HTTPConnection):
    """The request of a caller that is whole. converse() makes the answer: `pieces`, then `stays` and `taker` hold."""

    def __init__(self, server: "Speaker", caller: Caller) -> None:
        request = caller.take_request()
        heard, written = _Heard(without_expectation(request) if caller.may_go_on else request), _Written()
        super().__init__(server, caller.connection, lambda _socket, mode, _bytes: heard if mode == "rb" else written)
        del self.resolve_peer_creds, self.get_peer_creds  # caches of what is never asked, each a circle of references
        self.caller, self._written = caller, written
        self.is_last = caller.request is None or caller.request.is_last
        self.stays, self.reached_application = False, False
        self.taker: Taker | None = None

    @property
    def pieces(self) -> Sequence[bytes]:
        """The answer."""
        return self._written.pieces

    def converse(self) -> None:
        """Parse, run the application, and keep the answer. What fails is answered, too."""
        self.stays = bool(self.communicate()) and not self.is_last  # type: ignore[no-untyped-call]


class Gateway(wsgi.Gateway_10):
    """Adds to the WSGI environment who asks, how to ask whether they have gone, and how to take the connection over."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # the stub says None by mistake
        """Return the environment of one request (PEP 3333)."""
        exchange: Exchange = self.req.conn
        exchange.reached_application = True
        if exchange.is_last:
            self.req.close_connection = True
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ[PEER_KEY] = exchange.caller.peer
        environ[GONE_KEY] = functools.partial(has_hung_up, exchange.caller.connection)
        environ[TAKE_KEY] = self._take
        return environ

    def _take(self, taker: Taker, *, in_chunks: bool = False) -> None:
        self.req.conn.taker = taker
        self.req.response_protocol = "HTTP/1.0"  # so cheroot makes no chunks: the answer ends with the connection
        if in_chunks:
            self.req.outheaders.append((b"Transfer-Encoding", b"chunked"))


class Speaker(wsgi.Server):
    """What cheroot asks of a server, which never listens itself; its complaints go to the daemon's log."""

    version = "balancerd"

    def __init__(
        self, address: tuple[str, int] | str, app: WSGIApplication, bounds: Bounds, on_error: Callable[[str], None]
    ) -> None:
        super().__init__(address, app)
        self.gateway = Gateway
        self.max_request_header_size, self.max_request_body_size = bounds.head_bytes, bounds.body_bytes
        self.timeout = round(bounds.request_seconds)  # told to clients that keep their connection
        self._on_error = on_error

    @property
    def can_add_keepalive_connection(self) -> bool:
        """Whether a client may stay: the door sees to its seats."""
        return True

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Pass on what went wrong; what a client did, such as hanging up, is not worth a line."""
        if level >= logging.WARNING:
            self._on_error(f"{msg}\n{tracebacks.format_exc()}" if traceback else msg)


class _Heard(io.BytesIO):
    """A request as cheroot reads it."""

    def has_data(self) -> bool:
        """Whether there is more than this request: never, the door keeps that."""
        return False


class _Written:
    """An answer as cheroot writes it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        """Keep a piece: not a copy, so what is told to many is in memory once."""
        self.pieces.append(piece)
        return len(piece)
