"""Live views: whoever listens is told the newest item, as server-sent events (text/event-stream).

Owns the bounds, for the control socket and any other listener alike. There is no queue: one item, the newest, is kept
for all, so a slow listener skips items and is told how many. publish() takes one short lock and waits for nobody;
nothing is rendered or written under it. An item is rendered once, by the thread of whoever asks first. It must not
know what the items are, nor paths, nor sockets.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

CONTENT_TYPE: Final = "text/event-stream"

GONE_KEY: Final = "balancerd.is_gone"
"""Where the server leaves, in the WSGI environment, how to ask whether the client has hung up: a callable."""

KEEP_ALIVE_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 1.0
"""How often a stream that waits looks whether its client has gone: the seat is free again so soon."""

PREAMBLE: Final = b"retry: 2000\n\n"
"""Sent at once: the headers go with it. Milliseconds until a browser tries again, should the stream end."""

KEEP_ALIVE: Final = b": still here\n\n"

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


class FullError(Exception):
    """As many listen as may, or nothing will come any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Generic[T]):
    """Item `number`, counted from 1. `missed` items came between it and the one told before, 0 for the first."""

    number: int
    missed: int
    item: T


class Broadcast(Generic[T]):
    """Keeps the newest item for up to `most_listeners` at a time."""

    def __init__(self, *, most_listeners: int) -> None:
        self._changed = threading.Condition()
        self._most_listeners = most_listeners
        self._listeners = 0
        self._number = 0
        self._newest: T | None = None
        self._is_over = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return self._listeners

    @property
    def is_over(self) -> bool:
        """Whether nothing will come any more."""
        return self._is_over

    def publish(self, item: T) -> None:
        """Put a new item in the place of the one before."""
        with self._changed:
            self._number += 1
            self._newest = item
            self._changed.notify_all()

    def close(self) -> None:
        """Publish nothing any more, and let everyone go who waits."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def join(self) -> "Listener[T]":
        """Listen; the newest item there is comes at once. Raises FullError."""
        with self._changed:
            if self._is_over or self._listeners >= self._most_listeners:
                raise FullError
            self._listeners += 1
        return Listener(self)

    def leave(self) -> None:
        """Give a seat back; for Listener."""
        with self._changed:
            self._listeners -= 1

    def newer(self, number: int, seconds: float) -> tuple[int, T] | None:
        """Return the newest item and its number once that is above `number`; None after so many seconds, or at the end.

        For Listener.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._number > number, seconds)
            if self._is_over or self._newest is None or self._number <= number:
                return None
            return self._number, self._newest


class Listener(Generic[T]):
    """One seat at a Broadcast, for one thread."""

    def __init__(self, broadcast: Broadcast[T]) -> None:
        self._broadcast = broadcast
        self._told = 0
        self._has_left = False

    @property
    def is_over(self) -> bool:
        """Whether nothing will come any more."""
        return self._has_left or self._broadcast.is_over

    def wait(self, seconds: float) -> Told[T] | None:
        """Return what is newer than what was told before; None when that is nothing within so many seconds."""
        found = self._broadcast.newer(self._told, seconds)
        if found is None:
            return None
        number, item = found
        missed = number - self._told - 1 if self._told else 0
        self._told = number
        return Told(number=number, missed=missed, item=item)

    def leave(self) -> None:
        """Listen no more. May be called again."""
        if not self._has_left:
            self._has_left = True
            self._broadcast.leave()


class Renderer(Generic[T, Key]):
    """Renders each item once for each `key` that is asked for, and forgets the item before."""

    def __init__(self, render: Callable[[T, Key], str]) -> None:
        self._render = render
        self._lock = threading.Lock()
        self._number = 0
        self._rendered: dict[Key, str] = {}

    def __call__(self, told: Told[T], key: Key) -> str:
        """Return the item's text. Who asks meanwhile waits, so that the work is done once."""
        with self._lock:
            if told.number < self._number:
                return self._render(told.item, key)
            if told.number > self._number:
                self._number = told.number
                self._rendered.clear()
            if key not in self._rendered:
                self._rendered[key] = self._render(told.item, key)
            return self._rendered[key]


class EventStream(Generic[T]):
    """The body of one response (PEP 3333): an event `event` for each item that `listener` hears of.

    `data` makes its text, on one line such as JSON. It ends when the broadcast does, or once `is_gone`; while nothing
    comes there is a comment every `keep_alive_seconds`, so that either end notices when the other is no more.
    """

    def __init__(
        self,
        listener: Listener[T],
        *,
        event: str,
        data: Callable[[Told[T]], str],
        is_gone: Callable[[], bool],
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._listener = listener
        self._event = event
        self._data = data
        self._is_gone = is_gone
        self._keep_alive_seconds = keep_alive_seconds
        self._look_seconds = look_seconds

    def __iter__(self) -> Iterator[bytes]:
        """Yield chunks, each a whole event or comment."""
        yield PREAMBLE
        quiet_seconds = 0.0
        while not (self._listener.is_over or self._is_gone()):
            told = self._listener.wait(self._look_seconds)
            if told is not None:
                quiet_seconds = 0.0
                yield f"id: {told.number}\nevent: {self._event}\ndata: {self._data(told)}\n\n".encode()
                continue
            quiet_seconds += self._look_seconds
            if quiet_seconds >= self._keep_alive_seconds:
                quiet_seconds = 0.0
                yield KEEP_ALIVE

    def close(self) -> None:
        """Give the seat back; the server calls it, however the response ends."""
        self._listener.leave()
