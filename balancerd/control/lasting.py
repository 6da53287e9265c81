"""Answers that last: each stream of events on the control socket has a thread here, none of those that answer.

Owns these threads. A client that takes nothing for SEND_SECONDS loses its stream. It must not know what is told.
"""

import contextlib
import functools
import socket
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from balancerd.control.crew import Crew
from balancerd.control.taking import TAKE_KEY
from balancerd.streaming import EventStream

SEND_SECONDS: Final = 5.0
"""For each event, from its first byte to its last."""


class Lasting:
    """An application (PEP 3333) that answers as `app` does, and serves its event streams in `n_threads` of its own."""

    def __init__(
        self,
        app: WSGIApplication,
        *,
        n_threads: int,
        on_error: Callable[[], None],
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self._app, self._send_seconds = app, send_seconds
        self._crew = Crew(n_threads, name="stream", on_error=on_error)

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """See Crew."""
        return self._crew.thread_ids

    def start(self) -> None:
        """Begin."""
        self._crew.start()

    def stop(self) -> None:
        """Serve no more streams; those there are end when what they tell of does."""
        self._crew.stop(0.0)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        body = self._app(environ, start_response)
        if not isinstance(body, EventStream):
            return body
        in_chunks = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        environ[TAKE_KEY](functools.partial(self._serve, body, in_chunks), in_chunks=in_chunks)
        return ()

    def _serve(self, stream: EventStream[Any], in_chunks: bool, connection: socket.socket) -> None:
        self._crew.do(functools.partial(self._tell, stream, in_chunks, connection))

    def _tell(self, stream: EventStream[Any], in_chunks: bool, connection: socket.socket) -> None:
        connection.settimeout(self._send_seconds)
        with connection, contextlib.closing(stream), contextlib.suppress(OSError):
            for piece in stream:
                connection.sendall(_chunk(piece) if in_chunks else piece)  # timed as a whole, see socket.sendall
            if in_chunks:
                connection.sendall(_chunk(b""))


def _chunk(piece: bytes) -> bytes:
    """Return a chunk as RFC 9112, 7.1, has it; an empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
