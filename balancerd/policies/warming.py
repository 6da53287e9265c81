"""What policies have in common that judge by heat: when a process is known well enough, and how warm its memory is.

Heat is taken from whoever looks at it, else from samples of accesses. Owns the options for that, and what is remembered
of earlier windows. Must not know what is concluded.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from balancerd.config.fields import Bytes, Duration, Section, between
from balancerd.config.units import format_duration
from balancerd.engine.movable import movable
from balancerd.engine.warmth import STEADY_TIMES, Warm, Warmth, regions_of_accesses, regions_of_heat
from balancerd.model.decision import Reason, Skip
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot
from balancerd.policies.watching import MIB

RUN_SECONDS = 20.0
"""Time constant of where a process runs."""


class WarmingOptions(Section):
    """Options of every policy that judges by heat."""

    min_watched_seconds: Annotated[Duration, between(0.0, 3600.0, format_duration)] = Field(
        default=30.0, description="How long a process is watched before anything is said of its memory."
    )
    min_rss_bytes: Bytes = Field(default=64 * MIB, description="Leave processes alone that hold less memory.")


@dataclass(frozen=True, slots=True)
class Warmed:
    """A process of which enough is known. `run` are the shares of its run time by node; empty: it has not run yet."""

    process: ProcessSample
    placement: PlacementSample
    run: Mapping[NodeId, float]
    regions: tuple[Warm, ...]
    watched_seconds: float


@dataclass(slots=True)
class _Memory:
    """What is remembered of one process: where it runs, and how warm its memory is."""

    run: dict[NodeId, float] = field(default_factory=dict)
    warmth: Warmth = field(default_factory=Warmth)


class Warming:
    """What the policy `name` knows of the warmth of processes."""

    def __init__(self, name: str, options: WarmingOptions) -> None:
        self._name = name
        self._options = options
        self._memories: dict[ProcessId, _Memory] = {}
        self._observed_at: float | None = None

    def observe(self, now: Snapshot) -> None:
        """Take note of where eligible processes run; a snapshot that was shown before changes nothing."""
        before = self._observed_at
        if before == now.taken_at:
            return
        self._observed_at = now.taken_at
        keep = 0.0 if before is None else math.exp(-(now.taken_at - before) / RUN_SECONDS)
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        for process in (*now.eligible, *now.idle):
            run = self._memories.setdefault(process.id, _Memory()).run
            nodes = frozenset(now.survey.topology.node_ids)
            ran = {node: seconds for node, seconds in (process.run_seconds or {}).items() if node in nodes}
            total, is_new = sum(ran.values()), not run
            for node in (run.keys() | ran.keys()) if total > 0 else ():
                share = ran.get(node, 0.0) / total
                run[node] = share if is_new else keep * run.get(node, 0.0) + (1.0 - keep) * share
            for node in run.keys() - nodes:
                del run[node]

    def look(self, process: ProcessSample, now: Snapshot) -> Warmed | Skip:
        """Return what is known of an eligible or idle process, or why that is not enough to judge by."""
        memory, placement = self._memories[process.id], now.placements.get(process.id)
        if process.rss_bytes < self._options.min_rss_bytes:
            told = f"{process.rss_bytes // MIB} of {self._options.min_rss_bytes // MIB} MiB"
            return self._skip(process, Reason.HEAT_UNKNOWN, told)
        if placement is None:
            return self._skip(process, Reason.NOT_SAMPLED)
        heat, window = now.heats.windows.get(process.id), now.accesses.get(process.id)
        if heat is not None:
            watched, at, regions, counts = heat.watched_seconds, heat.taken_at, regions_of_heat(heat.regions), 1
        elif window is not None:
            mappings = (Extent(placed.vma.start, placed.vma.end) for placed in movable(placement))
            watched, at, counts = window.watched_seconds, window.taken_at, STEADY_TIMES
            regions = regions_of_accesses(window, mappings, process.cpu_cores or 0.0)
        else:
            return self._skip(process, Reason.HEAT_UNKNOWN, why_unknown(process.id, now))
        if regions:
            memory.warmth.observe(regions, at, counts=counts)
        if not memory.warmth.regions or watched < self._options.min_watched_seconds:
            told = f"watched for {watched:.0f} of {self._options.min_watched_seconds:.0f} s"
            return self._skip(process, Reason.HEAT_UNKNOWN, told)
        total = sum(memory.run.values())
        run = {node: share / total for node, share in memory.run.items()} if total > 0 else {}
        return Warmed(process, placement, run, memory.warmth.regions, watched)

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def why_unknown(process: ProcessId, now: Snapshot) -> str:
    """Return why there is no heat of a process."""
    heats = now.heats
    if heats.method is None:
        return "accesses.heat is not set, and no source of accesses tells"
    if heats.obstacle is not None:
        return f"{heats.method.value}: {heats.obstacle.seen}"
    return heats.missed.get(process) or "nobody looks at it yet"
