"""Wall time by phase of a tick."""

from balancerd.ports import Clock


class Laps:
    """Begins with the first phase; `seconds` are by phase, in their order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.now()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """End a phase, and begin the next."""
        now = self._clock.now()
        self.seconds[phase] = now - self._last
        self._last = now
