"""The other end of a live view: reads the events of GET /v1/stream as they come.

Standard library only, as client.py, whose failures it raises. It must not know what the events mean.
"""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, Final

from balancerd.control.client import ControlFailure, UnixConnection, judge, telling_apart

SILENCE_SECONDS: Final = 40.0
"""The daemon says every 15 s that it is there; who has said nothing for so long is not."""

LONGEST_LINE_BYTES: Final = 8 << 20
"""Far above what the daemon's bounds make possible."""


class EventReader:
    """One stream. Made in one thread and read in that, closed in any."""

    def __init__(self, socket_path: str, path: str, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._socket_path = socket_path
        self._path = path
        self._connection = UnixConnection(socket_path, silence_seconds)
        self._is_closed = False

    def read(self) -> Iterator[dict[str, Any] | None]:
        """Yield the data of each event, and None whenever the daemon only says that it is there.

        Raises ControlFailure or one of its kinds, also when the daemon ends the stream; just ends after close().
        """
        try:
            with telling_apart(self._socket_path):
                self._connection.request("GET", self._path, headers={"Accept": "text/event-stream"})
                if self._is_closed:  # before there was a socket that close() could have shut down
                    return
                response = self._connection.getresponse()
                if response.status != http.client.OK:
                    judge(response.status, response.read())
                yield from _events(response)
        except ControlFailure:
            if not self._is_closed:
                raise
        else:
            if not self._is_closed:
                raise ControlFailure(f"the daemon on {self._socket_path} has ended the stream")
        finally:
            self._connection.close()

    def close(self) -> None:
        """Have read() end, wherever it waits."""
        self._is_closed = True
        waiting = self._connection.sock
        if waiting is not None:
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any] | None]:
    """Yield each event's data, see the HTML standard, 9.2.6; each of the daemon's events has one line of it."""
    while line := response.readline(LONGEST_LINE_BYTES):
        if line.startswith(b":"):
            yield None
        elif line.startswith(b"data:"):
            try:
                data = json.loads(line.removeprefix(b"data:"))
            except ValueError:
                data = None
            if not isinstance(data, dict):
                raise ControlFailure("the daemon told of an event that is no JSON object")
            yield data
