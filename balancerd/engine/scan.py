"""The scan budget: how much CPU time observing may use, kept by measurement. Time, and CPU time, are data.

A bucket fills with the configured share of the time that passes and is emptied by what the process itself has used,
all threads together but those that serve people, less what moving memory took. While it is empty no tick begins; it
holds what half a minute puts into it, so that a burst (the first look at everything, many new processes) is paid from
savings or made up for later.
"""

FULL_SECONDS = 30.0


class ScanBudget:
    """One bucket. Over any time T observing uses at most ratio * (T + 30 s), and what one tick uses beyond it."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._left_seconds = ratio * FULL_SECONDS
        self._settled: tuple[float, float] | None = None
        self._excluded_seconds = 0.0
        self._untold_seconds = 0.0

    @property
    def ratio(self) -> float:
        """Share of one core that observing may use."""
        return self._ratio

    def set_ratio(self, ratio: float) -> None:
        """Go on with another share; debts stay, savings are cut to what the new one allows."""
        self._ratio = ratio
        self._left_seconds = min(self._left_seconds, ratio * FULL_SECONDS)

    def exclude(self, cpu_seconds: float) -> None:
        """Take out CPU time that was spent on moving memory since the last settling."""
        self._excluded_seconds += max(0.0, cpu_seconds)

    def settle(self, now: float, cpu_seconds: float) -> None:
        """Pay for what was used since the last time, of `cpu_seconds` in all. The first time nothing is paid for."""
        if self._settled is not None:
            then, used_before = self._settled
            used = max(0.0, cpu_seconds - used_before - self._excluded_seconds)
            filled = self._left_seconds + self._ratio * max(0.0, now - then)
            self._left_seconds = min(filled, self._ratio * FULL_SECONDS) - used
            self._untold_seconds += used
        self._settled = (now, cpu_seconds)
        self._excluded_seconds = 0.0

    def take_used(self) -> float:
        """Return the CPU seconds that observing used since this was last asked."""
        used, self._untold_seconds = self._untold_seconds, 0.0
        return used

    @property
    def left_seconds(self) -> float:
        """CPU seconds that may still be used; below zero, a debt. As of the last settling."""
        return self._left_seconds

    def ready_at(self) -> float:
        """Return when the debt will be made up for, which is in the past when there is none."""
        if self._settled is None:
            return float("-inf")
        return self._settled[0] + max(0.0, -self._left_seconds) / self._ratio
