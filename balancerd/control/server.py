"""The listeners of the daemon: a door each, a few threads that answer, and what they may cost.

Owns how these parts meet, and how they start and stop within a second. All threads are daemonic: a request that hangs
never keeps the process alive. It must not know any path or answer.
"""

import contextlib
import functools
import socket
import threading
import time
import traceback
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final
from wsgiref.types import WSGIApplication

from balancerd.control.allowance import Allowance
from balancerd.control.caller import Caller
from balancerd.control.crew import Crew
from balancerd.control.door import Bounds, Door, TurnedAway
from balancerd.control.exchange import Exchange, Speaker
from balancerd.control.import_pieces import MOST_BODY_BYTES as MOST_PIECE_BYTES
from balancerd.control.lasting import Lasting
from balancerd.control.listening import ServerError, group_id, identity, listen_tcp, listen_unix
from balancerd.control.requests import MOST_BODY_BYTES
from balancerd.control.stream_api import MOST_LISTENERS

OPEN_BOUNDS: Final = Bounds(body_bytes=MOST_BODY_BYTES)
CONTROL_BOUNDS: Final = Bounds(body_bytes=MOST_PIECE_BYTES)
"""Of all bodies a piece of an imported log is the largest; the application has bounds of its own for the others."""

ANSWER_RATIO: Final = 0.1
"""Share of one core that answering may take, for each listener, once the burst is used up."""

ANSWER_BURST_SECONDS: Final = 1.0
DOOR_RATIO: Final = 0.05
"""The same for letting in, hearing out and sending, which floods of connections cost."""

DOOR_BURST_SECONDS: Final = 0.25
STOP_SECONDS: Final = 0.3
"""What a request in progress is given when the daemon stops."""


class HttpServer:
    """A listener that answers with a WSGI application from start() to stop().

    `turned_away(reason)` counts clients that did not get what they came for. `give_way()` is called before anybody is
    heard or answered, and returns when there is nothing that must not be disturbed.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        name: str,
        bounds: Bounds,
        on_error: Callable[[str], None],
        turned_away: Callable[[str], None],
        give_way: Callable[[], None],
    ) -> None:
        self._app, self._name, self._bounds = app, name, bounds
        self._on_error, self._turned_away, self._give_way = on_error, turned_away, give_way
        self._crew = Crew(bounds.answering, name=name, on_error=self._tell_error)
        self._answers = Allowance(ratio=ANSWER_RATIO, burst_seconds=ANSWER_BURST_SECONDS)
        self._door: Door | None = None
        self._thread: threading.Thread | None = None

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """The threads that serve, as the kernel numbers them: gettid(2)."""
        door = None if self._thread is None else self._thread.native_id
        return self._crew.thread_ids if door is None else {*self._crew.thread_ids, door}

    def stop(self) -> None:
        """Answer nobody any more. Returns within a second, though a request that hangs may outlive it."""
        if self._door is None or self._thread is None:
            return
        self._door.close()
        self._crew.stop(STOP_SECONDS)
        self._door.stop()
        self._thread.join(STOP_SECONDS)

    def _serve(self, listener: socket.socket) -> None:
        """Answer on a listening socket until stop(), which closes it."""
        name = listener.getsockname()
        address = name if isinstance(name, str) else name[:2]
        speaker = Speaker(address, self._app, self._bounds, self._on_error)

        def answer(caller: Caller) -> None:
            self._crew.do(functools.partial(self._converse, speaker, door, caller))

        self._door = door = Door(
            listener,
            bounds=self._bounds,
            answer=answer,
            answers=self._answers,
            own=Allowance(ratio=DOOR_RATIO, burst_seconds=DOOR_BURST_SECONDS),
            turned_away=self._turned_away,
            give_way=self._give_way,
            on_error=self._tell_error,
        )
        self._thread = threading.Thread(target=door.serve, name=f"{self._name}-door", daemon=True)
        self._crew.start()
        self._thread.start()

    def _converse(self, speaker: Speaker, door: Door, caller: Caller) -> None:
        self._give_way()
        begin = time.thread_time()
        exchange = Exchange(speaker, caller)
        try:
            exchange.converse()
        finally:
            self._answers.charge(time.thread_time() - begin)
            door.told(caller, exchange.pieces, stays=exchange.stays, taker=exchange.taker)
        if exchange.pieces and not exchange.reached_application:
            self._turned_away(TurnedAway.NOT_HTTP)

    def _tell_error(self) -> None:
        self._on_error(traceback.format_exc())


class MetricsServer(HttpServer):
    """Listens on TCP; port 0 takes a free one, which `address` tells after start()."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        app: WSGIApplication,
        on_error: Callable[[str], None],
        turned_away: Callable[[str], None],
        give_way: Callable[[], None],
        bounds: Bounds = OPEN_BOUNDS,
    ) -> None:
        super().__init__(
            app, name="metrics", bounds=bounds, on_error=on_error, turned_away=turned_away, give_way=give_way
        )
        self._address = host, port

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the numeric address and the real port, once it has started."""
        return self._address

    def start(self) -> None:
        """Listen and answer in threads. Raises ServerError."""
        host, port = self._address
        try:
            listener = listen_tcp(host, port)
        except OSError as error:
            raise ServerError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._address = listener.getsockname()[:2]
        self._serve(listener)


class ControlServer(HttpServer):
    """Listens on a unix socket; the application finds the Peer of each request under PEER_KEY.

    Owner, and the members of `group` when there is one, may connect. A socket in the way is replaced only when nobody
    answers on it.
    """

    def __init__(
        self,
        *,
        path: str,
        group: str | None,
        app: WSGIApplication,
        on_error: Callable[[str], None],
        turned_away: Callable[[str], None],
        give_way: Callable[[], None],
        bounds: Bounds = CONTROL_BOUNDS,
    ) -> None:
        self._path = Path(path)
        self._group = group
        self._identity: tuple[int, int] | None = None
        self._lasting = Lasting(app, n_threads=MOST_LISTENERS, on_error=self._tell_error)
        super().__init__(
            self._lasting, name="control", bounds=bounds, on_error=on_error, turned_away=turned_away, give_way=give_way
        )

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """See HttpServer."""
        return super().thread_ids | self._lasting.thread_ids

    def start(self) -> None:
        """Create the socket, and its directory when missing, and answer in threads. Raises ServerError."""
        try:
            listener = listen_unix(self._path, None if self._group is None else group_id(self._group))
            self._identity = identity(self._path)
        except OSError as error:
            raise ServerError(f"cannot listen on {self._path}: {error.strerror or error}") from error
        self._lasting.start()
        self._serve(listener)

    def stop(self) -> None:
        """Answer nobody any more and remove the socket, unless another one stands in its place by now."""
        super().stop()
        self._lasting.stop()
        with contextlib.suppress(FileNotFoundError):
            if self._identity is not None and identity(self._path) == self._identity:
                self._path.unlink()
        self._identity = None
