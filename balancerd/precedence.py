"""Who goes first when a tick is due: the tick. Those who serve people wait meanwhile, and a moment before.

Python runs one thread at a time, and a thread that answers hands over late. Owns when that matters, and the wait, which
is bounded: a tick that moves much does not keep anybody from seeing it. It must not know what a tick does.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

LEAD_SECONDS: Final = 0.03
"""Before a tick is due: what is begun earlier has mostly ended by then."""

MOST_SECONDS: Final = 0.1
"""From when a tick is due, or has begun: what takes longer shares the time that is left."""


class Precedence:
    """One tick at a time is expected, and held. `now` returns monotonic seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._changed = threading.Condition()
        self._from: float | None = None
        self._until = 0.0

    def expect(self, due_at: float) -> None:
        """Take note of when the next tick is to begin."""
        with self._changed:
            self._from, self._until = due_at - LEAD_SECONDS, due_at + MOST_SECONDS

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Go first, from now to the end of the block."""
        with self._changed:
            self._from = self._now()
            self._until = self._from + MOST_SECONDS
        try:
            yield
        finally:
            with self._changed:
                self._from = None
                self._changed.notify_all()

    def give_way(self) -> None:
        """Return when no tick is at work or just about to begin, and in any case before long. For any thread."""
        with self._changed:
            while (seconds := self._wait_seconds()) > 0:
                self._changed.wait(seconds)

    def _wait_seconds(self) -> float:
        now = self._now()
        return 0.0 if self._from is None or now < self._from else self._until - now
