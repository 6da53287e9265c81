"""drain: empties nodes, for maintenance or before they go offline.

Pages on them move to the nearest node that has room. No gate; budgets, watermarks, cpusets and mempolicies hold. It
also closes the nodes: no policy behind rules and cpusets moves anything there. What the kernel puts there, it cannot
stop. Every verdict tells how much is left.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from pydantic import Field

from balancerd.config.fields import Section
from balancerd.config.id_lists import Nodes
from balancerd.config.schema import RuleConfig
from balancerd.engine.gate import cost_seconds
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.room import Room, nearest
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot, Survey, Window
from balancerd.ports import PolicyContext


class DrainOptions(Section):
    """Options of a `drain` policy."""

    nodes: Nodes = Field(description="The nodes to empty.")
    order: Literal["largest", "smallest", "idle"] = Field(
        default="largest",
        description="Which processes come first: those with most memory there, with least, or that use least CPU.",
    )


@dataclass(frozen=True, slots=True)
class _Left:
    """What one process has on the nodes: `away` may move, `stays` are pages of program files."""

    process: ProcessSample
    away: Mapping[NodeId, int]
    stays: int

    @property
    def n_bytes(self) -> int:
        return sum(self.away.values())


class Drain:
    """The policy; see the module's docstring. It remembers nothing."""

    def __init__(self, name: str, options: DrainOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._context = context

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    @property
    def closed_nodes(self) -> frozenset[NodeId]:
        """The nodes that are to be empty."""
        return frozenset(self._options.nodes)

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible or idle process, those that are to move first in the order wanted."""
        now = window.now
        verdicts: list[Verdict] = []
        left: list[_Left] = []
        for process in chain(now.eligible, now.idle):
            placement = now.placements.get(process.id)
            if placement is None:
                verdicts.append(self._skip(process, Reason.NOT_SAMPLED, self._away_text(None)))
            else:
                left.append(self._left(process, placement))
        told = self._tell(left, now.survey)
        room = Room(now.survey, self._context.watermark_ratio)
        verdicts += [self._judge(each, now, room, told) for each in sorted(left, key=self._rank)]
        return tuple(verdicts)

    def _left(self, process: ProcessSample, placement: PlacementSample) -> _Left:
        away = {n: b for n, b in movable_bytes_by_node(placement).items() if n in self.closed_nodes}
        there = sum(b for n, b in placement.bytes_by_node.items() if n in self.closed_nodes)
        return _Left(process, away, max(0, there - sum(away.values())))

    def _rank(self, left: _Left) -> tuple[float, int]:
        match self._options.order:
            case "largest":
                return -left.n_bytes, left.process.id.pid
            case "smallest":
                return left.n_bytes, left.process.id.pid
            case "idle":
                return left.process.cpu_cores or 0.0, left.process.id.pid

    def _judge(self, left: _Left, now: Snapshot, room: Room, told: str) -> Verdict:
        process, topology = left.process, now.survey.topology
        if not left.n_bytes:
            stays = f"{left.stays >> 20} MiB of program files stay; " if left.stays >> 20 else ""
            return self._skip(process, Reason.DRAINED, stays + told)
        its = self._away_text(left)
        others = topology.memory_nodes - self.closed_nodes
        targets = others if process.mems_allowed is None else others & process.mems_allowed
        if not targets:
            may = format_id_list(process.mems_allowed or ())
            return self._skip(process, Reason.OUTSIDE_CPUSET, f"{its}; its Mems_allowed {may} has no other; {told}")
        largest = max(left.away, key=lambda node: (left.away[node], -node))
        target = room.take(nearest(largest, targets, topology), left.n_bytes)
        if target is None:
            full = format_id_list(targets)
            return self._skip(process, Reason.TARGET_FULL, f"{its}; no room on node {full}; {told}")
        return Decision(
            policy=self._name,
            process=process.id,
            target=target,
            misplaced_bytes=left.n_bytes,
            gain_cores=0.0,
            cost_seconds=cost_seconds(left.n_bytes, self._context.migration_bytes_per_second),
            reason=Reason.DRAIN,
            detail=f"{its}; {told}",
            source_bytes=left.away,
            sources=frozenset(left.away),
        )

    def _tell(self, left: Iterable[_Left], survey: Survey) -> str:
        """Say how much is left in all; at the end, who else has memory there."""
        nodes = format_id_list(self.closed_nodes)
        if not self.closed_nodes & frozenset(survey.topology.node_ids):
            return f"node {nodes} is offline"
        sizes = [each.n_bytes for each in left if each.n_bytes]
        if sizes:
            return f"node {nodes}: {sum(sizes) >> 20} MiB of {len(sizes)} processes left"
        memory = [survey.memory[node] for node in sorted(self.closed_nodes) if node in survey.memory]
        used = sum(each.total_bytes - each.free_bytes for each in memory)
        return f"node {nodes}: nothing of the processes looked at is left, {used >> 20} MiB in use by others"

    def _away_text(self, left: _Left | None) -> str:
        nodes = format_id_list(self.closed_nodes)
        if left is None:
            return f"what it has on node {nodes} is not known yet"
        return f"{left.n_bytes / (1 << 20):.1f} MiB left on node {nodes}"

    def _skip(self, process: ProcessSample, reason: Reason, detail: str) -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


class _Plugin:
    """What the entry point `drain` refers to."""

    options = DrainOptions
    summary = "Empties nodes for maintenance, or before they go offline."

    def build(self, name: str, options: DrainOptions, context: PolicyContext) -> Drain:
        """Return a fresh policy."""
        return Drain(name, options, context)

    def nodes(self, options: DrainOptions) -> Iterable[tuple[tuple[str | int, ...], NodeId]]:  # noqa: ARG002 - see below
        """Return nothing: a node that is offline is as empty as can be, also when the daemon starts again."""
        return ()

    def rules(self, options: DrainOptions) -> Iterable[tuple[tuple[str | int, ...], RuleConfig]]:  # noqa: ARG002 - none
        """Return nothing: no option is a rule."""
        return ()


plugin = _Plugin()
