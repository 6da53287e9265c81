"""On which clock a perf log was taken, and how its times become monotonic ones. Pure.

Without -k perf stamps samples with the scheduler's clock, which begins with the machine as CLOCK_MONOTONIC does but
is not slewed with it: they part by up to half a second in 1000 (adjtimex(2)). With `-k CLOCK_MONOTONIC` it is exact.
"""

from dataclasses import dataclass

MOST_AGE_SECONDS = 3600.0
"""Accesses of longer ago say nothing of who uses a page now."""

DRIFT_RATIO = 500e-6
SLACK_SECONDS = 1.0


class ClockError(ValueError):
    """The times of a log cannot be those of this machine since its boot, or are too long ago; says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What the clocks of this machine show at one moment, in seconds."""

    monotonic: float
    boottime: float
    realtime: float


def offset_seconds(last_seconds: float, clock: str | None, now: Clocks) -> float:
    """Return what to take off a log's times. `clock` is the name in perf's header, None when that was not printed.

    A log without the name is taken to be on the scheduler's clock, or on CLOCK_REALTIME if its times are as large as
    that. Raises ClockError.
    """
    slack = SLACK_SECONDS + (0.0 if clock in {"monotonic", "boottime", "realtime"} else DRIFT_RATIO * now.monotonic)
    if clock == "realtime" or (clock is None and last_seconds > now.realtime - now.boottime):
        offset = now.realtime - now.monotonic
    elif clock == "boottime":
        offset = now.boottime - now.monotonic
    elif clock in {None, "monotonic", "monotonic_raw"}:
        offset = 0.0
    else:
        raise ClockError(f"its times are on the clock {clock}; record with -k CLOCK_MONOTONIC")
    age = now.monotonic - (last_seconds - offset)
    if age < -slack:
        raise ClockError(
            f"it ends {-age:.0f} s after now: it is of another machine, of an earlier boot or on another clock; "
            "record with -k CLOCK_MONOTONIC"
        )
    if age > MOST_AGE_SECONDS:
        raise ClockError(f"it ended {age / 60:.0f} min ago: who used a page then says little of now")
    return offset
