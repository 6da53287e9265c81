"""What jobs work with, and what one slice is allowed now: rates, room on the targets, the cpuset.

The rules are those of the plan; the gate and cooldowns are not asked, for an operator knows better. It must not know
what moves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from balancerd.engine.memory import EngineMemory
from balancerd.engine.plan import PlanLimits
from balancerd.engine.room import SMALLEST_STEP_BYTES, room_bytes
from balancerd.jobs.ending import Ending, failed
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.sample import ProcessSample
from balancerd.model.topology import NodeMemory, Topology
from balancerd.ports import Clock, Kernel

REFILL_SECONDS = 0.25
"""How long a job waits for empty buckets to fill."""

_MUCH_BYTES = 1 << 62
"""More than any bucket holds: an operator's move wants all that it may have."""


class Machine(Protocol):
    """The looks at the machine that a job takes beside those of the Kernel port; none disturbs the next survey."""

    def look(self, pid: int) -> ProcessSample | None:
        """Read one process now; None when there is none. Raises OSError, or ParseError for a file not understood."""
        ...

    def topology(self) -> Topology:
        """Return the machine's nodes."""
        ...

    def memory(self) -> Mapping[NodeId, NodeMemory]:
        """Read the memory of the nodes now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Everything that a job works with under one configuration."""

    kernel: Kernel
    machine: Machine
    clock: Clock
    memory: EngineMemory
    limits: PlanLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one slice may move; with 0 bytes, the Reason to wait for. `full` are targets without room for anything."""

    budget_bytes: int
    reason: Reason | None = None
    full: frozenset[NodeId] = frozenset()


def allowance(means: Means, process: ProcessId, pairs: Mapping[NodeId, NodeId]) -> Allowance:
    """Return what may move now from the keys of `pairs` to their values.

    It is the least of what the buckets of machine, process and each pair hold, and of the room on each target: all of
    a slice may be for any of them.
    """
    room = room_by_node(means, pairs.values())
    full = frozenset(node for node, left_bytes in room.items() if left_bytes < SMALLEST_STEP_BYTES)
    if full:
        return Allowance(budget_bytes=0, reason=Reason.TARGET_FULL, full=full)
    draft = means.memory.budgets.draft(means.clock.now())
    least = min((draft.allow(process, {pair: _MUCH_BYTES}) for pair in pairs.items()), key=lambda a: a.budget_bytes)
    if least.budget_bytes < SMALLEST_STEP_BYTES:
        return Allowance(budget_bytes=0, reason=least.reason)
    return Allowance(budget_bytes=min(least.budget_bytes, *room.values()))


def room_by_node(means: Means, nodes: Iterable[NodeId]) -> dict[NodeId, int]:
    """Return how many bytes may still go to each of `nodes`; 0 for one whose memory is not known."""
    memory = means.machine.memory()
    return {node: room_bytes(memory[node], means.limits.watermark_ratio) if node in memory else 0 for node in nodes}


def outside_cpuset(process: ProcessSample, targets: Iterable[NodeId]) -> Ending | None:
    """Return the ending for a process that may not have memory on all of `targets`, None when it may."""
    if process.mems_allowed is None:
        return failed(Reason.OUTSIDE_CPUSET, "its Mems_allowed could not be read")
    outside = set(targets) - process.mems_allowed
    if not outside:
        return None
    allowed = format_id_list(process.mems_allowed)
    return failed(Reason.OUTSIDE_CPUSET, f"node {format_id_list(outside)} is not in its Mems_allowed {allowed}")
