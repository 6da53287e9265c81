"""Whether the memory that a process has away from home gets less by itself.

The kernel's own balancing may be bringing it home, another program, or the process gives it up. Whoever moves the same
pages then pays for pages that would have come anyway. Time is data.
"""

from collections import deque
from collections.abc import Mapping

from balancerd.model.ids import NodeId

WINDOW_SECONDS = 10.0
"""The kernel scans a process in bursts, some seconds apart (sysctl kernel.numa_balancing, scan_period_min_ms)."""

FALL_RATIO = 0.1
"""It recedes when so much of what was away in the beginning of the window is away no more."""

NOISE_RATIO = 0.03
"""Less than this share of all its memory is noise of the samples."""


class Receding:
    """Where one process had its memory when it was looked at in the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Mapping[NodeId, int]]] = deque()

    def note(self, taken_at: float, held_bytes: Mapping[NodeId, int]) -> None:
        """Take note of one look; the same look may be told again."""
        if self._looks and taken_at <= self._looks[-1][0]:
            return
        self._looks.append((taken_at, held_bytes))
        while taken_at - self._looks[0][0] > WINDOW_SECONDS:
            self._looks.popleft()

    def forget(self) -> None:
        """Begin anew: what gets less may be our own doing."""
        self._looks.clear()

    def bytes_gone(self, home: NodeId) -> int:
        """Return how much less is away from that home than in the beginning of the window; 0 when that is little."""
        if not self._looks:
            return 0
        (_, first), (_, last) = self._looks[0], self._looks[-1]
        gone = _away(first, home) - _away(last, home)
        least = max(FALL_RATIO * _away(first, home), NOISE_RATIO * sum(last.values()), 1)
        return gone if gone >= least else 0


def _away(held_bytes: Mapping[NodeId, int], home: NodeId) -> int:
    return sum(held_bytes.values()) - held_bytes.get(home, 0)
