"""How often threads are sampled and their samples judged, so that both stay within a share of one core. Pure."""

from collections.abc import Set as AbstractSet

from balancerd.model.ids import ProcessId

MOST_HZ = 200
"""More tells hardly anything new: a page that is worth moving is used for minutes."""

LEAST_HZ = 5

FIRST_HZ = 100

SAMPLE_SECONDS = 3.2e-6
"""What one sample is taken to cost: the timer's interrupt, the copying of registers, and 0.1 us to count it."""

WORTH_CHANGING = 1.25
"""A rate that is nearly right stays: changing it means a system call for each thread."""


class Governor:
    """One rate for all threads, from how many of them are running. `budget_ratio` is the share of one core."""

    def __init__(self, budget_ratio: float) -> None:
        self.budget_ratio = budget_ratio
        self.frequency_hz = FIRST_HZ
        self._running: dict[ProcessId, float] = {}

    def note(self, process: ProcessId, *, samples: int, seconds: float, at_hz: int) -> None:
        """Take note of how many samples came in some seconds at a rate, lost ones included."""
        if seconds > 0:
            self._running[process] = samples / (seconds * at_hz)

    def forget_all_but(self, watched: AbstractSet[ProcessId]) -> None:
        """Count no longer who is not watched any more."""
        for process in self._running.keys() - watched:
            del self._running[process]

    def choose(self, most_hz: float) -> int:
        """Return the rate from now on, at most `most_hz`; the rings' room may bound it, too."""
        running = sum(self._running.values())
        right = self.budget_ratio / (SAMPLE_SECONDS * running) if running > 0 else float(FIRST_HZ)
        wanted = max(LEAST_HZ, int(min(right, most_hz, MOST_HZ)))
        is_near = self.frequency_hz / WORTH_CHANGING <= wanted <= self.frequency_hz * WORTH_CHANGING
        if not is_near or self.frequency_hz > max(LEAST_HZ, most_hz):
            self.frequency_hz = wanted
        return self.frequency_hz


class Turns:
    """When runs are judged anew: the dearer it was, the later, so that judging keeps within the same share."""

    def __init__(self) -> None:
        self._again_at = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether it is time."""
        return now >= self._again_at

    def note(self, now: float, cpu_seconds: float, budget_ratio: float) -> None:
        """Take note of what judging has just cost."""
        self._again_at = now + cpu_seconds / budget_ratio
