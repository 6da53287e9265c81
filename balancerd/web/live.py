"""Tells open pages of new ticks, by server-sent events: the number of the tick, and nothing else.

Owns the connections of these pages, and one thread for all of them. A tick costs the loop one write to an eventfd,
whatever clients do; of several ticks that came since the last look only the newest is told. A client whose connection
takes no more, or that sends anything, is dropped: it may come again. It must not know HTTP beyond the stream's lines
(HTML Living Standard, 9.2), nor what a tick holds.
"""

import contextlib
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Set as AbstractSet
from typing import Final

from balancerd.model.report import TickReport

MOST_CLIENTS: Final = 16
HEARTBEAT_SECONDS: Final = 15.0
"""A line after so much silence finds out who is gone."""

STOP_SECONDS: Final = 1.0


class Live:
    """The sink that tells of ticks, from start() to stop()."""

    def __init__(self, *, most_clients: int = MOST_CLIENTS, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._most_clients, self._heartbeat_seconds = most_clients, heartbeat_seconds
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._newest: int | None = None
        self._coming: deque[socket.socket] = deque()
        self._clients: set[socket.socket] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    @property
    def has_room(self) -> bool:
        """Whether one more may come."""
        return len(self._clients) + len(self._coming) < self._most_clients

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """The thread, once it has started, as the kernel numbers it."""
        return frozenset() if self._thread.native_id is None else frozenset({self._thread.native_id})

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let everybody go."""
        self._stopping = True
        self._wake()
        self._thread.join(STOP_SECONDS)

    def emit(self, report: TickReport) -> None:
        """Take one finished tick."""
        self._newest = report.number
        self._wake()

    def join(self, connection: socket.socket) -> None:
        """Take over the connection of a client to which the head of the answer was sent."""
        self._coming.append(connection)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the counter is full, so the thread is awake
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        told: int | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_fd, selectors.EVENT_READ)
            while not self._stopping:
                ready = selector.select(self._heartbeat_seconds)
                for key, _ in ready:
                    if isinstance(key.fileobj, socket.socket):
                        self._drop(key.fileobj, selector)
                    else:
                        os.eventfd_read(self._wake_fd)
                newest = self._newest
                if newest != told:
                    told = newest
                    self._tell(_event(newest), selector)
                elif not ready:
                    self._tell(b":\n\n", selector)
                self._take_in(selector, newest)
            for client in tuple(self._clients):
                self._drop(client, selector)

    def _take_in(self, selector: selectors.BaseSelector, newest: int | None) -> None:
        """Greet those who came, and turn away those for whom there is no room."""
        while self._coming:
            client = self._coming.popleft()
            if len(self._clients) >= self._most_clients:
                client.close()
                continue
            client.setblocking(False)
            self._clients.add(client)
            selector.register(client, selectors.EVENT_READ)
            self._send(client, b"retry: 3000\n\n" + _event(newest), selector)

    def _tell(self, message: bytes, selector: selectors.BaseSelector) -> None:
        for client in tuple(self._clients):
            self._send(client, message, selector)

    def _send(self, client: socket.socket, message: bytes, selector: selectors.BaseSelector) -> None:
        try:
            sent = client.send(message)
        except OSError:
            sent = 0
        if sent < len(message):
            self._drop(client, selector)

    def _drop(self, client: socket.socket, selector: selectors.BaseSelector) -> None:
        self._clients.discard(client)
        selector.unregister(client)
        client.close()


def _event(tick: int | None) -> bytes:
    return b"" if tick is None else b"event: tick\ndata: %d\n\n" % tick
