"""cpuset-follow: memory follows when a cpuset or an affinity takes nodes away from a process.

Memory on nodes outside of Mems_allowed cannot have come up there under that cpuset, so it follows whenever it is found,
at first sight, too. Of an affinity only its narrowing says anything: who was started on the CPUs of one node with
memory on another may have been meant so. No gate: it is not asked whether the move pays.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from pydantic import Field

from balancerd.config.fields import Section
from balancerd.config.schema import RuleConfig
from balancerd.engine.gate import cost_seconds
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.progress import Progress
from balancerd.engine.room import Room, nearest
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.ports import PolicyContext


class CpusetFollowOptions(Section):
    """Options of a `cpuset-follow` policy."""

    affinity: bool = Field(
        default=True,
        description="Memory follows a narrowed affinity, too: from the nodes on whose CPUs a process may run no more.",
    )


@dataclass(slots=True)
class _Memory:
    """Of one process: the nodes of its CPUs, those it has lost since it was first seen, and how far a move has come."""

    nodes: frozenset[NodeId]
    lost: frozenset[NodeId] = frozenset()
    progress: Progress = field(default_factory=Progress)


class CpusetFollow:
    """The policy; see the module's docstring. Remembers on which nodes each process could run."""

    def __init__(self, name: str, options: CpusetFollowOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._context = context
        self._memories: dict[ProcessId, _Memory] = {}

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible or idle process."""
        now = window.now
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        for process in now.survey.processes:
            self._observe(process, now.survey.topology)
        room = Room(now.survey, self._context.watermark_ratio)
        return tuple(self._judge(process, now, room) for process in chain(now.eligible, now.idle))

    def _observe(self, process: ProcessSample, topology: Topology) -> None:
        """Take note of the nodes on which a process may run; those it loses stay lost until it has them back."""
        if process.cpus_allowed is None:
            return
        nodes = topology.nodes_of(process.cpus_allowed)
        memory = self._memories.get(process.id)
        if memory is None:
            self._memories[process.id] = _Memory(nodes)
        elif memory.nodes != nodes:
            memory.lost = (memory.lost | memory.nodes) - nodes
            memory.nodes = nodes

    def _judge(self, process: ProcessSample, now: Snapshot, room: Room) -> Verdict:
        topology = now.survey.topology
        memory, allowed = self._memories.get(process.id), process.mems_allowed
        if memory is None or allowed is None:
            return self._skip(process, Reason.OUTSIDE_CPUSET, "its Mems_allowed or Cpus_allowed could not be read")
        lost = memory.lost if self._options.affinity else frozenset()
        outside = topology.memory_nodes - allowed
        if not lost and not outside:
            return self._skip(process, Reason.INSIDE_CPUSET)
        targets = (allowed & topology.memory_nodes) - lost
        if not targets:  # where it may run it may have no memory
            lost, targets = frozenset(), allowed & topology.memory_nodes
        placement = now.placements.get(process.id)
        if placement is None:
            return self._skip(process, Reason.NOT_SAMPLED)
        held = movable_bytes_by_node(placement)
        away = {node: n_bytes for node, n_bytes in held.items() if node in outside or node in lost}
        n_bytes, total = sum(away.values()), sum(held.values())
        memory.progress.look(n_bytes)
        if not n_bytes or memory.progress.is_negligible(n_bytes, total):
            return self._skip(process, Reason.INSIDE_CPUSET)
        why = self._explain(process, away, lost)
        largest = max(away, key=lambda node: (away[node], -node))
        where = nearest(largest, targets & memory.nodes, topology) or nearest(largest, targets, topology)
        target = room.take(where, n_bytes)
        if target is None:
            return self._skip(process, Reason.TARGET_FULL, f"{why}; no room on node {format_id_list(where)}")
        memory.progress.want(n_bytes)
        return Decision(
            policy=self._name,
            process=process.id,
            target=target,
            misplaced_bytes=max(n_bytes, PAGE_BYTES),
            gain_cores=0.0,
            cost_seconds=cost_seconds(n_bytes, self._context.migration_bytes_per_second),
            reason=Reason.CPUSET,
            detail=why,
            source_bytes=away,
            sources=frozenset(away),
        )

    def _explain(self, process: ProcessSample, away: Iterable[NodeId], lost: frozenset[NodeId]) -> str:
        outside = [node for node in away if node not in (process.mems_allowed or ())]
        left = [node for node in away if node in lost and node not in outside]
        told = []
        if outside:
            told.append(f"node {format_id_list(outside)} is not in its Mems_allowed")
        if left:
            told.append(f"its affinity has left node {format_id_list(left)}")
        return ", ".join(told)

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


class _Plugin:
    """What the entry point `cpuset-follow` refers to."""

    options = CpusetFollowOptions
    summary = "Moves memory off nodes that a process's cpuset or a narrowed affinity has taken from it."

    def build(self, name: str, options: CpusetFollowOptions, context: PolicyContext) -> CpusetFollow:
        """Return a fresh policy."""
        return CpusetFollow(name, options, context)

    def nodes(self, options: CpusetFollowOptions) -> Iterable[tuple[tuple[str | int, ...], NodeId]]:  # noqa: ARG002 - none
        """Return nothing: no option names a node."""
        return ()

    def rules(self, options: CpusetFollowOptions) -> Iterable[tuple[tuple[str | int, ...], RuleConfig]]:  # noqa: ARG002 - none
        """Return nothing: no option is a rule."""
        return ()


plugin = _Plugin()
