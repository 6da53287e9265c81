"""Whether the memory that a process has away from home gets less by itself.

The kernel's own balancing may be bringing it home, another program, or the process gives it up. Whoever moves the same
pages then pays for pages that would have come anyway. Time is data.
"""

from collections import deque

WINDOW_SECONDS = 10.0
"""The kernel scans a process in bursts, some seconds apart (sysctl kernel.numa_balancing, scan_period_min_ms)."""

FALL_RATIO = 0.1
"""It recedes when so much of what was away in the beginning of the window is away no more."""

NOISE_RATIO = 0.03
"""Less than this share of all its memory is noise of the samples."""


class Receding:
    """What one process had away from home when it was looked at in the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def note(self, taken_at: float, away_bytes: int) -> None:
        """Take note of one look; the same look may be told again."""
        if self._looks and taken_at <= self._looks[-1][0]:
            return
        self._looks.append((taken_at, away_bytes))
        while taken_at - self._looks[0][0] > WINDOW_SECONDS:
            self._looks.popleft()

    def forget(self) -> None:
        """Begin anew: the home is another one, or what gets less is our own doing."""
        self._looks.clear()

    def bytes_gone(self, total_bytes: int) -> int:
        """Return how much less is away than in the beginning of the window; 0 when that is little."""
        if not self._looks:
            return 0
        first, last = self._looks[0][1], self._looks[-1][1]
        gone = first - last
        return gone if gone > 0 and gone >= max(FALL_RATIO * first, NOISE_RATIO * total_bytes) else 0
