"""Time that passes only when somebody waits, or works."""


class SimClock:
    """A Clock of ports.py. The CPU time of the daemon is what its simulated work is said to take."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._cpu_seconds = 0.0

    def now(self) -> float:
        """Return seconds since the beginning."""
        return self._now

    def cpu_seconds(self) -> float:
        """Return the CPU time that the daemon would have used."""
        return self._cpu_seconds

    def wait_until(self, deadline: float) -> None:
        """Let time pass."""
        self._now = max(self._now, deadline)

    def work(self, seconds: float) -> None:
        """Let the daemon work for so long."""
        self._now += seconds
        self._cpu_seconds += seconds
