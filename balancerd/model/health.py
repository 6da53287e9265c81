"""When ticks that do not end are a stall: one rule for all who look."""

from typing import Final

MISSED_TICKS: Final = 3
LEAST_STALL_SECONDS: Final = 10.0
"""A tick that is late by less than this is never called a stall: migrations and busy machines stretch ticks."""


def is_stalled(age_seconds: float, interval_seconds: float | None) -> bool:
    """Return whether ticks have stopped, by the age of the last one and the interval between them; None: not known."""
    return age_seconds >= max(LEAST_STALL_SECONDS, MISSED_TICKS * (interval_seconds or 0.0))
