"""packing: makes room on a node that is short of memory, and gathers memory that lies on several nodes for no reason.

Relief comes first, and while any node is short nothing is gathered: what costs least, for its size, moves to a node
that does not become short by it, the nearest first. Nothing that has come to a node leaves it for a while, and what has
left one is kept from policies of a later place while the node would be short again with it. No gate: a shortage costs
more than any remote access. Gathering (policies/consolidating.py) is asked whether it pays.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated, Final, Literal

from pydantic import Field

from balancerd.config.fields import Bytes, Duration, Ratio, Section, between, or_null
from balancerd.config.schema import RuleConfig
from balancerd.config.units import format_duration, format_ratio, spell_bytes
from balancerd.engine.copying import machine_rate
from balancerd.engine.gate import cost_seconds
from balancerd.engine.homes import HomeRule, Residence, cores_by_node
from balancerd.engine.movable import movable
from balancerd.engine.room import SMALLEST_STEP_BYTES, nearest
from balancerd.engine.shortage import Level, Shortage, reserve_of
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot, Window, bytes_by_node
from balancerd.model.topology import Topology
from balancerd.policies.consolidating import Capacity, Gatherer, Spread
from balancerd.policies.relief import Candidate, Pair, choose, price
from balancerd.ports import PolicyContext

PATIENCE_SECONDS: Final = 5.0
"""Where nothing has come of a move for so long, other processes and then other targets come first for a while."""

START_SECONDS: Final = 10.0
"""For so long after the start nobody moves before everybody is known: those that cost least may be among them."""

SETTLE_SECONDS: Final = 30.0
"""How long a process must have been seen until where it runs on average is known."""

NEGLIGIBLE_RATIO: Final = 0.01
"""Less than this share of a process elsewhere is noise of the sample."""


class PackingOptions(Section):
    """Options of a `packing` policy."""

    keep_free_bytes: Annotated[Bytes | None, or_null(spell_bytes)] = Field(
        default=None,
        description="A node with less available memory is short of it. null: three times its high watermark, and what "
        "moves leave free beside (1 GiB, a tenth of a small node, or migrate.watermark).",
    )
    max_pressure_ratio: Annotated[Ratio | None, or_null(format_ratio)] = Field(
        default=0.01,
        description="While tasks wait for memory for more than this share of the time (PSI, some avg10) a node is "
        "short with less than twice as much; null: never.",
    )
    consolidate: Literal["never", "threads-stay", "threads-follow"] = Field(
        default="never",
        description="Whether memory on several nodes gathers on the fewest that can take the process: for threads "
        "that stay where they run, or for threads that something moves after their memory.",
    )
    target_load_ratio: Annotated[Ratio, between(0.1, 1.0, format_ratio)] = Field(
        default=0.85, description="Share of a node's CPUs up to which processes are gathered there."
    )
    again_after_seconds: Annotated[Duration, between(60.0, 86_400.0, format_duration)] = Field(
        default=300.0,
        description="How long a process stays where it was put; six times as long if that is several nodes.",
    )


@dataclass(slots=True)
class _Memory:
    """What is remembered of one process."""

    residence: Residence
    seen_at: float
    wanted: Pair | None = None
    least_bytes: int = 0
    progress_at: float = 0.0
    came_at: dict[NodeId, float] = field(default_factory=dict)
    """When relief last moved anything of it to a node."""
    left: dict[NodeId, int] = field(default_factory=dict)
    """What it had on each node that it was moved off, before."""
    failed_at: dict[Pair, float] = field(default_factory=dict)


class PackingPolicy:
    """The policy; see the module's docstring. Remembers who was put where, and what came of it."""

    def __init__(self, name: str, options: PackingOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._context = context
        self._copy_rate = context.migration_bytes_per_second
        keep = options.keep_free_bytes
        self._shortage = Shortage(
            reserve_of(context.watermark_ratio) if keep is None else lambda _memory: keep,
            context.watermark_ratio,
            options.max_pressure_ratio,
        )
        self._rule = HomeRule(share=0.9, least_seconds=3.0, window_seconds=60.0)
        self._gatherer = Gatherer(name, options.again_after_seconds)
        self._memories: dict[ProcessId, _Memory] = {}
        self._kept: Mapping[ProcessId, str] = {}
        self._began_at: float | None = None
        self._waits_for = 0

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible or idle process."""
        now = window.now
        self._observe(now)
        self._copy_rate = machine_rate(now.copying, self._context.migration_bytes_per_second)
        levels = self._shortage.look(now.survey)
        verdicts: list[Skip] = []
        known: list[Spread] = []
        for process in chain(now.eligible, now.idle):
            placement = now.placements.get(process.id)
            held = None if placement is None else _unbound_bytes(placement, levels)
            if held:
                memory = self._memories[process.id]
                self._note_progress(memory, held, now.taken_at)
                cores = memory.residence.cores or process.cpu_cores or 0.0
                known.append(Spread(process, held, cores, memory.residence.shares))
            else:
                verdicts.append(self._skip(process, Reason.NOT_SAMPLED if held is None else Reason.NOTHING_PRESENT))
        self._kept = self._keep_away(known, levels)
        self._began_at = now.taken_at if self._began_at is None else self._began_at
        n_unknown = sum(verdict.reason is Reason.NOT_SAMPLED for verdict in verdicts)
        self._waits_for = n_unknown if now.taken_at - self._began_at < START_SECONDS else 0
        is_short = any(level.is_short for level in levels.values())
        return (*verdicts, *(self._relieve(known, levels, now) if is_short else self._gather(known, levels, now)))

    def _observe(self, now: Snapshot) -> None:
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        self._gatherer.forget_all_but(alive)
        nodes, interval = frozenset(now.survey.topology.node_ids), now.survey.interval_seconds or 0.0
        for process in now.survey.processes:
            memory = self._memories.get(process.id)
            if memory is None:
                memory = self._memories[process.id] = _Memory(Residence(self._rule), now.taken_at)
            if process.run_seconds is not None:
                run = cores_by_node(process, process.run_seconds, interval)
                memory.residence.observe(run, now.taken_at, interval, nodes)

    def _note_progress(self, memory: _Memory, held: Mapping[NodeId, int], now: float) -> None:
        """See what has come of what was wanted at the look before."""
        again = self._options.again_after_seconds
        memory.failed_at = {pair: at for pair, at in memory.failed_at.items() if now - at < again}
        memory.came_at = {node: at for node, at in memory.came_at.items() if now - at < again}
        if memory.wanted is None:
            return
        source, target = memory.wanted
        if held.get(source, 0) < memory.least_bytes:
            memory.least_bytes = held.get(source, 0)
            memory.progress_at = memory.came_at[target] = now
            memory.failed_at.pop(memory.wanted, None)
        elif now - memory.progress_at >= PATIENCE_SECONDS:
            memory.failed_at[memory.wanted] = memory.progress_at = now

    def _relieve(self, known: Iterable[Spread], levels: Mapping[NodeId, Level], now: Snapshot) -> list[Verdict]:
        short = {node: level.needed_bytes for node, level in levels.items() if level.is_short}
        candidates: list[Candidate] = []
        verdicts: list[Verdict] = []
        for each in known:
            found = self._candidate(each, levels, now.survey.topology)
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                verdicts.append(self._stay(each.process, found))
        failed = {candidate.process.id: self._memories[candidate.process.id].failed_at for candidate in candidates}
        told = ", ".join(f"node {node} lacks {size / (1 << 20):.1f} MiB" for node, size in short.items())
        chosen = {} if self._waits_for else choose(candidates, failed, levels)
        if self._waits_for:
            told = f"{told}; at first it is waited until {self._waits_for} more processes are known"
        for candidate in candidates:
            pair = chosen.get(candidate.process.id)
            if pair is None:
                skip = self._skip(candidate.process, Reason.SPARED, told)
                verdicts.append(self._stay(candidate.process, skip))
            else:
                verdicts.append(self._relief(candidate, pair, told, now.taken_at))
        return verdicts

    def _stay(self, process: ProcessSample, skip: Skip) -> Skip:
        """Nothing is wanted of a process; who is kept away stays so."""
        self._memories[process.id].wanted = None
        kept = self._kept.get(process.id)
        if kept is None or skip.reason not in {Reason.ROOMY, Reason.SPARED}:
            return skip if kept is None else replace(skip, holds=True)
        return self._skip(process, Reason.KEPT_AWAY, kept, holds=True)

    def _candidate(self, spread: Spread, levels: Mapping[NodeId, Level], topology: Topology) -> Candidate | Skip:
        process, allowed = spread.process, spread.process.mems_allowed
        on_short = {n: size for n, size in spread.held.items() if size >= SMALLEST_STEP_BYTES and levels[n].is_short}
        if not on_short:
            return self._skip(process, Reason.ROOMY)
        if allowed is None:
            return self._skip(process, Reason.OUTSIDE_CPUSET, "its Mems_allowed could not be read")
        told = f"node {format_id_list(on_short)} is short of memory"
        targets = [node for node in allowed & topology.memory_nodes if node in levels and not levels[node].is_short]
        if not targets:
            if (allowed & topology.memory_nodes) - on_short.keys():
                return self._skip(process, Reason.TARGET_FULL, f"{told}, and so is every other that it may use")
            its = format_id_list(allowed)
            return self._skip(process, Reason.OUTSIDE_CPUSET, f"{told}; its Mems_allowed {its} has no other")
        sources = [node for node in on_short if node not in self._memories[process.id].came_at]
        if not sources:
            return self._skip(process, Reason.COOLDOWN, f"{told}, but it has just come there")
        pairs: dict[Pair, tuple[int, float]] = {}
        for source in sources:
            for target in nearest(source, targets, topology):
                needed = max(levels[source].needed_bytes, SMALLEST_STEP_BYTES)
                part = min(on_short[source], needed, levels[target].slack_bytes)
                if part >= SMALLEST_STEP_BYTES:
                    cost = price(spread, (source, target), part, topology, self._copy_rate)
                    pairs[source, target] = part, cost
        if not pairs:
            full = format_id_list(targets)
            return self._skip(process, Reason.TARGET_FULL, f"{told}; node {full} would be, too")
        return Candidate(process, on_short, pairs)

    def _relief(self, candidate: Candidate, pair: Pair, told: str, now: float) -> Decision:
        source, target = pair
        size, _ = candidate.pairs[pair]
        held = candidate.on_short[source]
        memory = self._memories[candidate.process.id]
        if memory.wanted != pair:
            memory.wanted, memory.least_bytes, memory.progress_at = pair, held, now
        memory.left.setdefault(source, held)
        return Decision(
            policy=self._name,
            process=candidate.process.id,
            target=target,
            misplaced_bytes=size,
            gain_cores=0.0,
            cost_seconds=cost_seconds(size, self._copy_rate),
            reason=Reason.PACKING,
            detail=f"{size >> 20} of {held >> 20} MiB from node {source} to node {target}; {told}",
            source_bytes={source: size},
            sources=frozenset({source}),
            most_bytes=size,
            holds=True,
        )

    def _keep_away(self, known: Iterable[Spread], levels: Mapping[NodeId, Level]) -> dict[ProcessId, str]:
        """Return who would make a node short by coming back, and which; others may, as far as they fit together."""
        found: dict[ProcessId, str] = {}
        back: dict[NodeId, int] = {}
        for each in known:
            left, total = self._memories[each.process.id].left, sum(each.held.values())
            kept: list[NodeId] = []
            for node, before in list(left.items()):
                away = min(total, before) - each.held.get(node, 0)
                if node not in levels or (
                    away < NEGLIGIBLE_RATIO * total and self._memories[each.process.id].wanted is None
                ):
                    del left[node]
                elif levels[node].available_bytes - back.get(node, 0) - away < levels[node].relieved_bytes:
                    kept.append(node)
                else:
                    back[node] = back.get(node, 0) + away
            if kept:
                found[each.process.id] = f"node {format_id_list(kept)} would be short of memory with it"
        return found

    def _gather(self, known: Iterable[Spread], levels: Mapping[NodeId, Level], now: Snapshot) -> list[Verdict]:
        """Gather what lies on several nodes; who has one home is left to follow-cpu."""
        verdicts: list[Verdict] = []
        spread: list[Spread] = []
        eligible = {process.id for process in now.eligible}
        for each in known:
            skip = self._stay(each.process, self._skip(each.process, Reason.ROOMY))
            memory = self._memories[each.process.id]
            is_settled = now.taken_at - memory.seen_at >= SETTLE_SECONDS and memory.residence.shares
            if (
                self._options.consolidate == "never"
                or skip.holds
                or each.process.id not in eligible
                or each.process.mems_allowed is None
                or memory.residence.home is not None
                or not is_settled
            ):
                verdicts.append(skip)
            else:
                spread.append(each)
        busy: dict[NodeId, float] = dict.fromkeys(now.survey.topology.node_ids, 0.0)
        for memory in self._memories.values():
            for node, share in memory.residence.shares.items():
                busy[node] = busy.get(node, 0.0) + share * memory.residence.cores
        capacity = Capacity(
            topology=now.survey.topology,
            slack_bytes={node: level.slack_bytes for node, level in levels.items()},
            busy_cores=busy,
            target_load=self._options.target_load_ratio,
            follow=self._options.consolidate == "threads-follow",
            bytes_per_second=self._copy_rate,
        )
        return [*verdicts, *self._gatherer.decide(spread, capacity, now.taken_at)]

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "", *, holds: bool = False) -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail, holds=holds)


def _unbound_bytes(placement: PlacementSample, nodes: Container[NodeId]) -> dict[NodeId, int]:
    """Return what may move of a process by node: without mappings of which somebody chose the nodes."""
    free = (p for p in movable(placement) if p.vma.mempolicy is None or not p.vma.mempolicy.explicit)
    return {node: size for node, size in bytes_by_node(free).items() if node in nodes}


class _Plugin:
    """What the entry point `packing` refers to."""

    options = PackingOptions
    summary = "Makes room on nodes that are short of memory, and gathers memory that lies on several nodes."

    def build(self, name: str, options: PackingOptions, context: PolicyContext) -> PackingPolicy:
        """Return a fresh policy."""
        return PackingPolicy(name, options, context)

    def nodes(self, options: PackingOptions) -> Iterable[tuple[tuple[str | int, ...], NodeId]]:  # noqa: ARG002 - none
        """Return nothing: no option names a node."""
        return ()

    def rules(self, options: PackingOptions) -> Iterable[tuple[tuple[str | int, ...], RuleConfig]]:  # noqa: ARG002 - none
        """Return nothing: no option is a rule."""
        return ()


plugin = _Plugin()
