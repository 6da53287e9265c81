"""follow-cpu: memory follows the node where a process's threads run, once they have come to stay.

Home is the node with at least `home_share` of an exponentially weighted average of run time. A
process without a single such node is left alone. Moving at once would lose on a process that wanders,
so a new home must be old enough, and either what was lost since it began has reached the price of
the move, or earlier homes lasted long enough to expect that the move pays. Then the gate.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from balancerd.config.fields import Duration, Ratio, Section, between
from balancerd.config.units import format_duration, format_ratio
from balancerd.engine.gate import HORIZON_SECONDS, cost_seconds, gain_cores, is_worth, remoteness
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, PlacementMethod, PlacementSample, ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.ports import PolicyContext

NEGLIGIBLE_RATIO = 0.01
"""Less than this share of its memory elsewhere is noise of the sample, and well placed."""

TESTED_RATIO = 0.95
"""A test that says "well placed" tells at most 5 % from 15 % misplaced; see docs/placement.md."""

FINISHED_RATIO = 0.001
"""A move that is under way, and makes progress, goes on to this share."""

FEW_DWELLS = 2
"""With fewer completed stays than this there is no expectation: wait until the loss equals the cost."""

DWELL_FACTOR = 3.0
"""Expected stay over break-even time from which a move is made without waiting."""

LOSS_FACTOR = 8.0
"""After a loss of so many times the cost, the expectation was wrong: move."""

REMEMBERED_DWELLS = 8


class FollowCpuOptions(Section):
    """Options of a `follow-cpu` policy."""

    home_share: Annotated[Ratio, between(0.51, 1.0, format_ratio)] = Field(
        default=0.9, description="Share of recent run time that makes a node the home."
    )
    run_time_window_seconds: Annotated[Duration, between(1.0, 3600.0, format_duration)] = Field(
        default=60.0, description="Time constant of the average of run time by node."
    )
    min_home_age_seconds: Annotated[Duration, between(0.0, 3600.0, format_duration)] = Field(
        default=5.0, description="A home younger than this is not acted on."
    )


@dataclass(slots=True)
class _Memory:
    """What the policy remembers of one process. `run` is in cores by node, `weight` corrects a young average."""

    seen_at: float
    elapsed_seconds: float = 0.0
    run: dict[NodeId, float] = field(default_factory=dict)
    weight: float = 0.0
    home: NodeId | None = None
    home_since: float = 0.0
    lost_seconds: float = 0.0
    dwells: list[float] = field(default_factory=list)
    away_when_decided: int | None = None


class FollowCpu:
    """The policy; see the module's docstring. Remembers run time, home and loss by process."""

    def __init__(self, name: str, options: FollowCpuOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._bytes_per_second = context.migration_bytes_per_second
        self._memories: dict[ProcessId, _Memory] = {}

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible process."""
        alive = {process.id for process in window.now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        return tuple(self._judge(process, window.now) for process in window.now.eligible)

    def _judge(self, process: ProcessSample, now: Snapshot) -> Verdict:
        topology = now.survey.topology
        memory = self._memories.setdefault(process.id, _Memory(seen_at=now.taken_at))
        elapsed = now.taken_at - memory.seen_at if memory.weight else now.survey.interval_seconds or 0.0
        memory.seen_at, memory.elapsed_seconds = now.taken_at, elapsed
        self._observe_run_time(memory, process, topology)
        shares = _normalised(memory.run)
        home = next((node for node, share in shares.items() if share >= self._options.home_share), None)
        _note_home(memory, home, now.taken_at)

        placement = now.placements.get(process.id)
        if not shares:
            return self._skip(process, Reason.NO_HOME)
        if home is None:
            return self._skip(process, Reason.SEVERAL_HOMES, _tell_shares(shares))
        if home not in topology.memory_nodes:
            return self._skip(process, Reason.HOME_WITHOUT_MEMORY, f"node {home}")
        if placement is None:
            return self._skip(process, Reason.NOT_SAMPLED)
        return self._judge_placement(process, placement, home, memory, topology)

    def _judge_placement(
        self,
        process: ProcessSample,
        placement: PlacementSample,
        home: NodeId,
        memory: _Memory,
        topology: Topology,
    ) -> Verdict:
        held = movable_bytes_by_node(placement)
        total = sum(held.values())
        away = total - held.get(home, 0)
        if total == 0:
            return self._skip(process, Reason.NOTHING_PRESENT)
        before_bytes, memory.away_when_decided = memory.away_when_decided, None
        moving = before_bytes is not None and away < before_bytes
        if away < (FINISHED_RATIO if moving else NEGLIGIBLE_RATIO) * total or _is_tested(placement, home):
            memory.lost_seconds = 0.0
            return self._skip(process, Reason.WELL_PLACED, f"{1 - away / total:.1%} on node {home}")

        cores = sum(memory.run.values()) / memory.weight
        run = _normalised(memory.run)
        before = remoteness(run, {n: b / total for n, b in held.items() if n in topology.node_ids}, topology)
        gain = gain_cores(cores, before, remoteness(run, {home: 1.0}, topology))
        cost = cost_seconds(away, self._bytes_per_second)
        memory.lost_seconds += gain * memory.elapsed_seconds
        age = memory.seen_at - memory.home_since
        told = f"{away >> 20} MiB away from node {home}, gain {gain:.3f} cores, cost {cost:.2f} s"

        if gain <= 0:
            return self._skip(process, Reason.GAIN_BELOW_COST, told)
        if age < self._options.min_home_age_seconds:
            return self._skip(process, Reason.HOME_TOO_YOUNG, f"node {home} for {age:.1f} s")
        few = len(memory.dwells) < FEW_DWELLS
        stay = HORIZON_SECONDS if few else sum(memory.dwells) / len(memory.dwells)
        lost = memory.lost_seconds
        if not (
            (few and lost >= cost) or (not few and stay >= DWELL_FACTOR * cost / gain) or lost >= LOSS_FACTOR * cost
        ):
            return self._skip(process, Reason.LOSS_BELOW_COST, f"{told}, lost so far {lost:.2f} s")
        if not is_worth(gain, cost, max(stay, age)):
            return self._skip(process, Reason.GAIN_BELOW_COST, f"{told}, expected stay {max(stay, age):.0f} s")
        memory.away_when_decided = away
        return Decision(
            policy=self._name,
            process=process.id,
            target=home,
            misplaced_bytes=max(away, PAGE_BYTES),
            gain_cores=gain,
            cost_seconds=cost,
            detail=told,
        )

    def _observe_run_time(self, memory: _Memory, process: ProcessSample, topology: Topology) -> None:
        """Age the average and add what ran since it was last seen, all of it on each thread's last CPU.

        A node that has gone offline is forgotten: it has no distance to any other.
        """
        elapsed = memory.elapsed_seconds
        if elapsed <= 0:
            return
        keep = math.exp(-elapsed / self._options.run_time_window_seconds)
        memory.run = {node: cores * keep for node, cores in memory.run.items() if node in topology.node_ids}
        memory.weight = memory.weight * keep + (1.0 - keep)
        for node, seconds in (process.run_seconds or {}).items():
            if seconds and node in topology.node_ids:
                memory.run[node] = memory.run.get(node, 0.0) + (1.0 - keep) * seconds / elapsed

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def _note_home(memory: _Memory, home: NodeId | None, now: float) -> None:
    if home == memory.home:
        return
    if memory.home is not None:
        memory.dwells = [*memory.dwells, now - memory.home_since][-REMEMBERED_DWELLS:]
    memory.home, memory.home_since, memory.lost_seconds = home, now, 0.0


def _is_tested(placement: PlacementSample, home: NodeId) -> bool:
    """Return whether a sequential test found the process well placed at this very home: it asks too few for shares."""
    interval = placement.intervals.get(home)
    return placement.method is PlacementMethod.TEST and interval is not None and interval.high >= TESTED_RATIO


def _normalised(run: Mapping[NodeId, float]) -> dict[NodeId, float]:
    total = sum(run.values())
    return {node: cores / total for node, cores in run.items()} if total > 0 else {}


def _tell_shares(shares: Mapping[NodeId, float]) -> str:
    return ", ".join(f"node {node} {share:.0%}" for node, share in sorted(shares.items()))


class _Plugin:
    """What the entry point `follow-cpu` refers to."""

    options = FollowCpuOptions
    summary = "Moves a process's memory to the node where its threads run, once they have come to stay."

    def build(self, name: str, options: FollowCpuOptions, context: PolicyContext) -> FollowCpu:
        """Return a fresh policy."""
        return FollowCpu(name, options, context)


plugin = _Plugin()
