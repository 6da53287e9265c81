"""The form of a trace file: its name, its version, and the keys of its lines. Standard library only.

It must not know what the records say: the command that writes the file needs nothing else of this room.
"""

from typing import Final

FORMAT: Final = "balancerd-trace"
VERSION: Final = 1
"""Raised when a reader of the version before could not read the file any more."""

LONGEST_SECONDS: Final = 24 * 3600.0
"""No recording lasts longer."""

ENDED_IN_TIME: Final = "its time is over"
"""Why a recording ended that is complete."""


class TraceError(Exception):
    """A file is no trace, or not one that this version can read; the message says which and why."""


MISUNDERSTOOD: Final = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What it comes to when text that is no record is taken for one, from numbers without end to brackets without end."""
