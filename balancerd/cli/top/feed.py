"""The thread that hears of ticks: by GET /v1/stream, or by asking now and then where there is no seat at it.

Owns when it is tried again. It tells what it hears to a callable, in its own thread. It must not know what is shown.
"""

import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from balancerd.cli.options import Settings
from balancerd.cli.screen import escape
from balancerd.cli.top.frame import Asked, Frame, Lost, SchemaError, of_answers, of_event
from balancerd.control.client import ControlClient, ControlFailure
from balancerd.control.event_client import EventReader

AGAIN_SECONDS: Final = 1.0
"""How soon a daemon that is gone is looked for again."""

POLLS: Final = 5
"""So often it is asked before a seat at the stream is tried again."""

NO_STREAM: Final = frozenset({404, 503})
"""A daemon that has none, or no seat left."""


def top_path(path: str, asked: Asked) -> str:
    """Return a path with what is asked for."""
    query = {"sort": asked.sort, **({"match": asked.match} if asked.match else {})}
    return f"{path}?{urlencode(query, errors='surrogateescape')}"


class Feed:
    """Tells `tell` of frames, and of each failure, from start() to stop()."""

    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        tell: Callable[[Frame | Lost], None],
        *,
        poll_seconds: float,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._socket_path = settings.socket_path
        self._asked = asked
        self._tell = tell
        self._poll_seconds = poll_seconds
        self._again_seconds = again_seconds
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._is_stopped = False
        self._reader: EventReader | None = None
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask(self, asked: Asked) -> None:
        """Show something else from now on: the newest tick comes at once."""
        with self._lock:
            self._asked = asked
        self._interrupt()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._is_stopped = True
        self._interrupt()
        self._thread.join(AGAIN_SECONDS)

    def _interrupt(self) -> None:
        with self._lock:
            self._woken.set()
            if self._reader is not None:
                self._reader.close()

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._hear_or_poll()
            except ControlFailure as failure:
                self._lose(str(failure))
            except SchemaError:
                self._lose("the daemon speaks another version of the control API: is it older or newer than this?")

    def _hear_or_poll(self) -> None:
        try:
            self._hear()
        except ControlFailure as failure:
            if failure.code not in NO_STREAM:
                raise
            self._poll()

    def _hear(self) -> None:
        """Hear the stream until something else is asked for. Raises ControlFailure and its kinds, SchemaError."""
        with self._lock:
            self._woken.clear()
            if self._is_stopped:
                return
            reader = self._reader = EventReader(self._socket_path, top_path("/v1/stream", self._asked))
        for event in reader.read():
            if event is not None and not self._woken.is_set():
                self._tell(of_event(event))

    def _poll(self) -> None:
        """Ask a few times. Raises ControlFailure and its kinds, SchemaError."""
        client = ControlClient(self._socket_path)
        for _ in range(POLLS):
            with self._lock:
                asked = self._asked
                self._woken.clear()
            if self._is_stopped:
                return
            self._tell(of_answers(client.get("/v1/status"), client.get(top_path("/v1/top", asked))))
            self._woken.wait(self._poll_seconds)

    def _lose(self, why: str) -> None:
        if not self._is_stopped:
            self._tell(Lost(why=escape(why)))
            self._woken.wait(self._again_seconds)
