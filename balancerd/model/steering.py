"""Threads that are moved to memory: what is asked of the kernel, and what became of every thread."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, NodeId, ProcessId


class SteerKind(enum.StrEnum):
    """What is done with the affinities of a process: the metric label."""

    KICK = "kick"
    """Narrowed until each thread was seen on the node, and given back at once."""
    PIN = "pin"
    """Narrowed until a later step gives them back."""
    RELEASE = "release"
    """Given back."""


class ThreadFate(enum.StrEnum):
    """How a thread ended in one step: the metric label, see sched_setaffinity(2)."""

    MOVED = "moved"
    """It was seen on the node, and its affinity is as before."""
    UNSEEN = "unseen"
    """It has not run on the node yet, as it sleeps; its affinity is given back by a later step."""
    PINNED = "pinned"
    RESTORED = "restored"
    """Its affinity is as it was before it was narrowed."""
    THERE = "there"
    """It was on the node already, and nothing was done."""
    OWN_AFFINITY = "own-affinity"
    OUTSIDE = "outside"
    """It may run on no CPU of the node."""
    CHANGED = "changed"
    """Somebody else has changed its affinity since, and that was left alone."""
    VANISHED = "vanished"
    NOT_PERMITTED = "eperm"
    INVALID = "einval"
    """Its cpuset changed at that moment, so that no CPU is left."""
    FAILED = "other"


STEERED = frozenset({ThreadFate.MOVED, ThreadFate.UNSEEN, ThreadFate.PINNED})
"""Fates of threads whose affinity was narrowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerStep:
    """Let the threads of `process` run on `cpus` of node `target` only, for a moment or for longer, or give that back.

    With `own_affinity`, also threads whose affinity is narrower than their cpuset; never outside of either.
    """

    policy: str
    process: ProcessId
    target: NodeId
    cpus: frozenset[CpuId]
    kind: SteerKind
    own_affinity: bool = False
    reason: Reason = Reason.STEER


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerOutcome:
    """What one step did: each thread that was found, or known from before, counts under one fate.

    `held_threads` have a narrowed affinity when the step ends. `stopped_by` says why nothing was done.
    """

    step: SteerStep
    threads: Mapping[ThreadFate, int]
    held_threads: int = 0
    seconds: float = 0.0
    stopped_by: Reason | None = None
    detail: str = ""

    @property
    def is_release(self) -> bool:
        """Whether threads were only let go."""
        return self.step.kind is SteerKind.RELEASE

    @property
    def steered_threads(self) -> int:
        """Threads whose affinity was narrowed in this step."""
        return sum(self.threads.get(fate, 0) for fate in STEERED)


def nothing_steered(step: SteerStep, reason: Reason, detail: str = "") -> SteerOutcome:
    """Return the outcome of a step of which no thread was touched."""
    return SteerOutcome(step=step, threads={}, stopped_by=reason, detail=detail)
