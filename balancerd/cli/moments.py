"""Moments as people write them: ago, as a date, as a time of today. Pure; it must not know clocks."""

import re
from datetime import UTC, datetime
from typing import Final

from balancerd.config.units import parse_duration, shorten

_TIME: Final = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)
_UNIX: Final = re.compile(r"@[0-9]{1,12}(\.[0-9]{1,6})?", re.ASCII)


def parse_moment(text: str, now: float) -> float:
    """Return the unix second of "-2h" or "2h" (before `now`), "2026-11-20", "2026-11-20T12:00", "12:00", "@0" or "now".

    A date without a zone is one of this machine's; "Z" and "+01:00" may follow. Raises ValueError.
    """
    if text == "now":
        return now
    if _UNIX.fullmatch(text):
        return float(text[1:])
    if re.fullmatch(r"-?[0-9.]+[a-z].*", text):
        return now - parse_duration(text.removeprefix("-"))
    try:
        if _TIME.fullmatch(text):
            today = datetime.fromtimestamp(now).astimezone().date()
            return datetime.fromisoformat(f"{today}T{text.zfill(len('00:00') if len(text) < 6 else 8)}").timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"expected -2h, 2026-11-20, 2026-11-20T12:00 or 12:00, got {shorten(text)}") from None


def format_moment(seconds: float) -> str:
    """Return a moment to read, in this machine's zone, to the second."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def spell_moment(seconds: float) -> str:
    """Return a moment for other programs: ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
