"""How much CPU time serving people may take: a bucket that fills with time and is emptied by what was measured.

While it is in debt, whoever asks waits. It must not know what is served, nor who waits.
"""

import threading
import time
from collections.abc import Callable


class Allowance:
    """Over any time T at most ratio * T + burst_seconds are used, and what is under way when the bucket runs dry.

    For any thread. `now` returns monotonic seconds.
    """

    def __init__(self, *, ratio: float, burst_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._ratio, self._burst_seconds, self._now = ratio, burst_seconds, now
        self._lock = threading.Lock()
        self._left_seconds, self._filled_at = burst_seconds, now()

    def charge(self, cpu_seconds: float) -> None:
        """Pay for CPU time that was used."""
        with self._lock:
            self._fill()
            self._left_seconds -= cpu_seconds

    def wait_seconds(self) -> float:
        """Return how long to wait until the debt is paid, 0 when there is none."""
        with self._lock:
            self._fill()
            return max(0.0, -self._left_seconds) / self._ratio

    def _fill(self) -> None:
        now = self._now()
        filled = self._left_seconds + self._ratio * max(0.0, now - self._filled_at)
        self._left_seconds, self._filled_at = min(filled, self._burst_seconds), now
