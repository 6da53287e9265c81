"""What operators have switched while the daemon runs: a pause of everything that moves, and another mode.

HTTP threads switch, and the daemon's loop reads: a lock is all that they share. Nothing here outlives the daemon, so a
restart is always back to the configuration. It must not know what moves.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from balancerd.config.schema import Mode
from balancerd.config.units import format_duration

LONGEST_SECONDS: Final = 30 * 86_400.0
"""Longer than anybody wants; whoever does pauses without an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A pause since monotonic second `begun_at`, until `ends_at`; None: until somebody ends it."""

    begun_at: float
    ends_at: float | None

    def left_seconds(self, now: float) -> float | None:
        """Return how long it still lasts, None when it has no end."""
        return None if self.ends_at is None else max(0.0, self.ends_at - now)


class Switches:
    """The switches of one daemon. `now` returns monotonic seconds; `wake` ends the loop's wait."""

    def __init__(self, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._now = now
        self._wake = wake
        self._lock = threading.Lock()
        self._halt: Halt | None = None
        self._mode: Mode | None = None

    def pause(self, seconds: float | None) -> Halt:
        """Have nothing move for so long, None: until resume(); one under way is replaced."""
        now = self._now()
        halt = Halt(begun_at=now, ends_at=None if seconds is None else now + seconds)
        with self._lock:
            self._halt = halt
        self._wake()
        return halt

    def resume(self) -> bool:
        """End the pause; return whether there was one."""
        was_paused = self.halt() is not None
        with self._lock:
            self._halt = None
        self._wake()
        return was_paused

    def halt(self) -> Halt | None:
        """Return the pause under way, None when there is none, or its time is over."""
        now = self._now()
        with self._lock:
            if self._halt is not None and self._halt.left_seconds(now) == 0.0:
                self._halt = None
            return self._halt

    def is_halted(self) -> bool:
        """Return whether nothing may move now."""
        return self.halt() is not None

    def tell(self) -> str | None:
        """Return the pause in words, None when there is none."""
        halt = self.halt()
        if halt is None:
            return None
        left = halt.left_seconds(self._now())
        return "paused by an operator" + ("" if left is None else f", for {format_duration(round(left))} more")

    def order_mode(self, mode: Mode) -> None:
        """Have the loop go on in another mode from its next tick on."""
        with self._lock:
            self._mode = mode
        self._wake()

    def take_mode(self) -> Mode | None:
        """Return the mode that was ordered since this was last asked, None for none."""
        with self._lock:
            mode, self._mode = self._mode, None
        return mode
