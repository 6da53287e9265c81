"""cold-eviction: memory that nobody has used for minutes goes to swap or to its file, bit by bit, while nobody waits.

What is cold is told by who looks at heat; what a window told as used within the time that counts is not. How much may
go follows the pressure, as with senpai: a small share of the process every few seconds, nothing once tasks wait for
memory longer than a thousandth of the time. It judges idle processes, too, for they have most that is cold.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Annotated

from pydantic import Field

from balancerd.config.fields import Bytes, Duration, Rate, Ratio, Section, between
from balancerd.config.schema import RuleConfig
from balancerd.config.units import format_duration, format_rate, format_ratio
from balancerd.engine.pieces import Piece, pieces
from balancerd.engine.ranges import evictable
from balancerd.engine.uses import Uses
from balancerd.engine.warmth import Warm, pages_within
from balancerd.model.decision import Eviction, Reason, Skip, Verdict
from balancerd.model.extent import joined, outside
from balancerd.model.heat import HeatMethod
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, Window
from balancerd.policies.warming import Warmed, Warming, WarmingOptions, why_unknown
from balancerd.policies.watching import MIB, format_mib
from balancerd.ports import PolicyContext

STEP_SECONDS = 6.0
"""In so much time `step` may go. Within it, each tick has its part."""

LEAST_COLD_BYTES = MIB
"""Less that is cold is noise."""

MOST_EXTENTS = 1024
"""Of one tick and process, those with most memory."""


class ColdEvictionOptions(Section):
    """Options of a `cold-eviction` policy."""

    cold_after_seconds: Annotated[Duration, between(1.0, 86_400.0, format_duration)] = Field(
        default=120.0, description="Memory that was not used for so long is cold."
    )
    step_ratio: Annotated[Ratio, between(0.0001, 1.0, format_ratio)] = Field(
        default=0.01, description="Share of its memory that may leave a process every 6 s."
    )
    max_pressure_ratio: Ratio = Field(
        default=0.001,
        description="Nothing goes while tasks wait for memory for more than this share of the time (PSI, some avg10), "
        "in the workload's cgroup where that tells (v2), else on the machine.",
    )
    rate_limit_bytes_per_second: Annotated[Rate, between(PAGE_BYTES, 1 << 40, format_rate)] = Field(
        default=MIB, description="Bytes per second that may leave all processes together; evict.rate_limit holds, too."
    )
    min_rss_bytes: Bytes = Field(default=64 * MIB, description="Leave processes alone that hold less memory.")


class ColdEviction:
    """The policy; see the module's docstring. Remembers heat, and how much it may still evict."""

    def __init__(self, name: str, options: ColdEvictionOptions) -> None:
        self._name = name
        self._options = options
        known = WarmingOptions(min_watched_seconds=options.cold_after_seconds, min_rss_bytes=options.min_rss_bytes)
        self._warming = Warming(name, known)
        self._uses: dict[ProcessId, Uses] = {}
        self._left_bytes = 0.0

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def watch(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        """Return all that are large enough, those with most memory first."""
        able = [p for p in chain(snapshot.eligible, snapshot.idle) if p.rss_bytes >= self._options.min_rss_bytes]
        return tuple(p.id for p in sorted(able, key=lambda p: (-p.rss_bytes, p.id)))

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible or idle process; who has most that is cold is served first."""
        now = window.now
        self._warming.observe(now)
        self._observe_uses(now)
        elapsed = min(STEP_SECONDS, now.survey.interval_seconds or 0.0)
        rate = self._options.rate_limit_bytes_per_second
        self._left_bytes = min(rate * STEP_SECONDS, self._left_bytes + rate * elapsed)
        verdicts: list[Verdict] = []
        found: list[tuple[Warmed, tuple[Piece, ...]]] = []
        for process in chain(now.eligible, now.idle):
            look = self._look(process, now)
            if isinstance(look, Skip):
                verdicts.append(look)
            else:
                found.append(look)
        for warmed, cold in sorted(found, key=lambda each: (-_size(each[1]), each[0].process.id)):
            verdicts.append(self._evict(warmed, cold, elapsed))
        return tuple(verdicts)

    def _observe_uses(self, now: Snapshot) -> None:
        alive = {process.id for process in now.survey.processes}
        self._uses = {process: uses for process, uses in self._uses.items() if process in alive}
        for process, heat in now.heats.windows.items():
            uses = self._uses.setdefault(process, Uses(self._options.cold_after_seconds))
            uses.observe(heat.regions, heat.taken_at)

    def _look(self, process: ProcessSample, now: Snapshot) -> tuple[Warmed, tuple[Piece, ...]] | Skip:
        """Return what of a process is cold, or why nothing of it is to go."""
        where, pressure = _pressure(process, now)
        limit = self._options.max_pressure_ratio
        if pressure is None:
            return self._skip(process, Reason.PRESSURE, "the kernel does not tell how long tasks wait for memory")
        if pressure > limit:
            return self._skip(process, Reason.PRESSURE, f"memory pressure of {where} {pressure:.2%} of {limit:.2%}")
        heat = now.heats.windows.get(process.id)
        if heat is None:  # samples of accesses do not tell what is not used
            return self._skip(process, Reason.HEAT_UNKNOWN, why_unknown(process.id, now))
        if heat.method is not HeatMethod.DAMON:
            return self._skip(process, Reason.HEAT_UNKNOWN, f"{heat.method.value} does not see what is only read")
        warmed = self._warming.look(process, now)
        if isinstance(warmed, Skip):
            return warmed
        cold = self._cold(warmed, now)
        if _size(cold) < LEAST_COLD_BYTES:
            return self._skip(process, Reason.NOTHING_COLD, f"{format_mib(round(_size(cold)))} are cold")
        return warmed, cold

    def _cold(self, warmed: Warmed, now: Snapshot) -> tuple[Piece, ...]:
        """Return the evictable memory that was not used for long enough, of a bounded number of regions."""
        after, regions = self._options.cold_after_seconds, now.heats.windows[warmed.process.id].regions
        used = self._uses[warmed.process.id].extents()
        cold = [
            Warm(part.start, part.end, 0.0, pages_within((region,), part.start, part.end))
            for region in regions
            if not region.ratio and (region.age_seconds or 0.0) >= after
            for part in outside(used, region.start, region.end)
        ]
        found = pieces(replace(warmed.placement, vmas=evictable(warmed.placement)), cold)
        return tuple(sorted(found, key=lambda piece: (-_size((piece,)), piece.extent))[:MOST_EXTENTS])

    def _evict(self, warmed: Warmed, cold: tuple[Piece, ...], elapsed: float) -> Verdict:
        process, size = warmed.process, _size(cold)
        wanted = min(size, self._options.step_ratio * process.rss_bytes * elapsed / STEP_SECONDS)
        n_bytes = int(min(wanted, self._left_bytes)) // PAGE_BYTES * PAGE_BYTES
        told = f"{format_mib(round(size))} were not used for {format_duration(self._options.cold_after_seconds)}"
        if not n_bytes:
            return self._skip(process, Reason.MIGRATION_BUDGET, f"{told}; rate_limit of policy {self._name}")
        self._left_bytes -= n_bytes
        return Eviction(
            policy=self._name,
            process=process.id,
            evict_bytes=n_bytes,
            detail=told,
            extents=joined(piece.extent for piece in cold),
        )

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def _pressure(process: ProcessSample, now: Snapshot) -> tuple[str, float | None]:
    """Return whose pressure counts, and how much it is; None where the kernel does not tell."""
    cgroup = None if process.workload is None else process.workload.cgroup
    if cgroup is not None and cgroup in now.survey.workload_pressure:
        return "its cgroup", now.survey.workload_pressure[cgroup]
    return "the machine", now.survey.pressure.memory_ratio


def _size(cold: Iterable[Piece]) -> float:
    return sum(sum(piece.held.values()) for piece in cold)


class _Plugin:
    """What the entry point `cold-eviction` refers to."""

    options = ColdEvictionOptions
    summary = "Takes memory that nobody has used for minutes out of processes, to swap or to its file."
    reads_workload_pressure = True

    def build(self, name: str, options: ColdEvictionOptions, context: PolicyContext) -> ColdEviction:  # noqa: ARG002 - nothing is copied
        """Return a fresh policy."""
        return ColdEviction(name, options)

    def nodes(self, options: ColdEvictionOptions) -> Iterable[tuple[tuple[str | int, ...], NodeId]]:  # noqa: ARG002 - none
        """Return nothing: no option names a node."""
        return ()

    def rules(self, options: ColdEvictionOptions) -> Iterable[tuple[tuple[str | int, ...], RuleConfig]]:  # noqa: ARG002 - none
        """Return nothing: no option is a rule."""
        return ()


plugin = _Plugin()
