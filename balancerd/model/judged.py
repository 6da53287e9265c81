"""What a move came to, judged when the memory of its process was looked at again after it."""

import enum
from dataclasses import dataclass

from balancerd.model.ids import NodeId, ProcessId


class MoveResult(enum.StrEnum):
    """The metric label, and what `explain` says."""

    IMPROVED = "improved"
    """What was moved is where it was moved, and its process still runs there."""
    NEUTRAL = "neutral"
    """It stayed, but the process runs elsewhere now, or nothing had moved."""
    WORSE = "worse"
    """Less of its memory came to the target than was moved: somebody moves it back, or it was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedMove:
    """One move of a policy: `fallen_bytes` less lies away from the target than before, of `moved_bytes` moved.

    `is_trial` when only a part was moved, to see whether it stays.
    """

    process: ProcessId
    policy: str
    target: NodeId
    result: MoveResult
    moved_bytes: int
    fallen_bytes: int
    is_trial: bool
    at: float
    detail: str = ""
