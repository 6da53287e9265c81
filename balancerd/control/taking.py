"""How an application takes a TCP connection over from the server, so that an answer without end holds no thread.

The server has few threads and each request holds one. Under TAKE_KEY the environment of a request has a callable: an
application calls `take(taker)` before start_response() and returns an empty body. Once the head of the answer is sent,
`taker` gets the socket, which is then its own. It must not know who does that, nor why.
"""

import socket
from collections.abc import Callable
from typing import Any, Final

from cheroot import wsgi

TAKE_KEY: Final = "balancerd.take"


class TakenGateway(wsgi.Gateway_10):
    """Offers TAKE_KEY."""

    _taker: Callable[[socket.socket], None] | None = None

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # the stub says None by mistake
        """Return the environment of one request (PEP 3333)."""
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ[TAKE_KEY] = self._take
        return environ

    def respond(self) -> None:
        """Answer, and hand the connection on when the application asked for it."""
        super().respond()
        if self._taker is not None:
            connection = self.req.conn
            connection.linger = True  # or cheroot would shut the connection down, for its new owner, too
            self._taker(socket.socket(fileno=connection.socket.detach()))

    def _take(self, taker: Callable[[socket.socket], None]) -> None:
        self._taker = taker
        self.req.response_protocol = "HTTP/1.0"  # so no chunks: the answer ends with the connection
