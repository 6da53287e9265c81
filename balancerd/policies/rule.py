"""rule: memory belongs where the operator says, whoever uses it; no other policy moves a process that a rule matches.

The first rule that matches a process counts. `nodes` gathers its memory there, `interleave` spreads it, `never` leaves
it alone. No gate: it is not asked whether the move pays. Budgets, watermarks, cpusets and mempolicies hold.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from balancerd.config.fields import Section
from balancerd.config.id_lists import Nodes
from balancerd.config.schema import RuleConfig, at_least_one
from balancerd.engine.blocks import extents_of_node, shortfalls, uneven
from balancerd.engine.gate import cost_seconds
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.progress import Progress
from balancerd.engine.room import Room
from balancerd.engine.rules import Rule, compile_rules, do_rules_see_the_same
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, Snapshot, Window
from balancerd.ports import PolicyContext


class PlaceConfig(Section):
    """Some processes, and where their memory belongs: exactly one of nodes, interleave and never."""

    match: Annotated[tuple[RuleConfig, ...], AfterValidator(at_least_one)] = Field(
        description="The processes: those that at least one rule of this list matches.",
        json_schema_extra={"minItems": 1},
    )
    nodes: Nodes | None = Field(
        default=None,
        description="Memory belongs on these nodes: what lies elsewhere goes to the first that has room for it.",
    )
    interleave: Nodes | None = Field(
        default=None, description="Memory is spread evenly over these nodes, in blocks of 2 MiB or more."
    )
    never: bool = Field(default=False, description="true: no policy moves these processes.")

    @model_validator(mode="after")
    def _check_one_place(self) -> Self:
        written = (self.nodes is not None) + (self.interleave is not None) + self.never
        if written != 1:
            raise ValueError("a rule says one thing: write one of nodes, interleave and never: true")
        return self


class RuleOptions(Section):
    """Options of a `rule` policy."""

    rules: Annotated[tuple[PlaceConfig, ...], AfterValidator(at_least_one)] = Field(
        description="The first rule that matches a process says where its memory belongs.",
        json_schema_extra={"minItems": 1},
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """One rule, compiled."""

    config: PlaceConfig
    match: tuple[Rule, ...]

    def find(self, process: ProcessSample) -> Rule | None:
        return next((rule for rule in self.match if rule.matches(process)), None)


@dataclass(slots=True)
class _Memory:
    """Of one process: what matched when it was last told anew, and how far the last decision about it had come."""

    process: ProcessSample
    place: _Place | None
    rule: str
    progress: Progress = field(default_factory=Progress)
    target: NodeId | None = None


class RulePolicy:
    """The policy; see the module's docstring. Remembers which rule matches whom, and whom it is moving."""

    def __init__(self, name: str, options: RuleOptions, context: PolicyContext) -> None:
        self._name = name
        self._context = context
        self._places = tuple(
            _Place(config, compile_rules(config.match, f"{name}.rules[{index}].match"))
            for index, config in enumerate(options.rules)
        )
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
        room = Room(now.survey, self._context.watermark_ratio)
        return tuple(self._judge(process, now, room) for process in (*now.eligible, *now.idle))

    def _judge(self, process: ProcessSample, now: Snapshot, room: Room) -> Verdict:
        memory = self._memory_of(process)
        if memory.place is None:
            return Skip(by=self._name, process=process.id, reason=Reason.NOT_MATCHED)
        config = memory.place.config
        if config.never:
            return self._hold(process, Reason.NEVER, memory.rule)
        nodes = config.nodes or config.interleave or ()
        online = [node for node in nodes if node in now.survey.topology.memory_nodes]
        allowed = [node for node in online if process.mems_allowed is None or node in process.mems_allowed]
        placement = now.placements.get(process.id)
        if not online:
            told = f"{memory.rule}: node {format_id_list(nodes)} is not there"
            return self._hold(process, Reason.NODE_MISSING, told)
        if not allowed:
            may = format_id_list(process.mems_allowed or ())
            told = f"{memory.rule}: node {format_id_list(online)} is not in its Mems_allowed {may}"
            return self._hold(process, Reason.OUTSIDE_CPUSET, told)
        if placement is None:
            return self._hold(process, Reason.NOT_SAMPLED, memory.rule)
        held = movable_bytes_by_node(placement)
        if not any(held.values()):
            return self._hold(process, Reason.NOTHING_PRESENT, memory.rule)
        if config.nodes is None and len(allowed) > 1:
            return self._spread(memory, placement, allowed, room)
        return self._gather(memory, held, allowed, room)

    def _gather(
        self, memory: _Memory, held: Mapping[NodeId, int], nodes: Iterable[NodeId], room: Room
    ) -> Decision | Skip:
        """Move what lies elsewhere to the first node with room."""
        targets = tuple(nodes)
        outside = {node: n_bytes for node, n_bytes in held.items() if node not in targets}
        away, total = sum(outside.values()), sum(held.values())
        memory.progress.look(away)
        if memory.progress.is_negligible(away, total):
            told = f"{memory.rule}: {1 - away / total:.1%} on node {format_id_list(targets)}"
            return self._hold(memory.process, Reason.AS_RULED, told)
        target = room.take(targets, away)
        if target is None:
            told = f"{memory.rule}: no room on node {format_id_list(targets)}"
            return self._hold(memory.process, Reason.TARGET_FULL, told)
        memory.progress.want(away)
        sources = frozenset(outside) if len(targets) > 1 else None
        return self._decision(memory, target, outside, sources=sources)

    def _spread(
        self, memory: _Memory, placement: PlacementSample, nodes: Iterable[NodeId], room: Room
    ) -> Decision | Skip:
        """Move the blocks of one node there while the mappings that hold them are uneven; then the next node's."""
        targets = tuple(nodes)
        mappings = uneven(placement, targets)
        short = shortfalls(mappings, targets)
        wanted = [node for node in sorted(short, key=lambda n: (n != memory.target, -short[n], n)) if short[node]]
        if not wanted:
            memory.target = None
            told = f"{memory.rule}: spread over the nodes {format_id_list(targets)}"
            return self._hold(memory.process, Reason.AS_RULED, told)
        target = memory.target = room.take(wanted, short[wanted[0]])
        if target is None:
            told = f"{memory.rule}: no room on node {format_id_list(wanted)}"
            return self._hold(memory.process, Reason.TARGET_FULL, told)
        extents = tuple(part for each in mappings for part in extents_of_node(each.vma, target, targets))
        away: dict[NodeId, float] = {}
        for each in mappings:
            for node, pages in each.pages_by_node.items():
                if node != target:
                    away[node] = away.get(node, 0.0) + pages
        share = short[target] / sum(away.values())
        sources = {node: max(PAGE_BYTES, round(pages * share)) for node, pages in sorted(away.items()) if pages > 0}
        return self._decision(memory, target, sources, extents=extents)

    def _decision(
        self,
        memory: _Memory,
        target: NodeId,
        source_bytes: Mapping[NodeId, int],
        *,
        sources: frozenset[NodeId] | None = None,
        extents: tuple[Extent, ...] | None = None,
    ) -> Decision:
        n_bytes = max(PAGE_BYTES, sum(source_bytes.values()))
        cost = cost_seconds(n_bytes, self._context.migration_bytes_per_second)
        return Decision(
            policy=self._name,
            process=memory.process.id,
            target=target,
            misplaced_bytes=n_bytes,
            gain_cores=0.0,
            cost_seconds=cost,
            reason=Reason.RULE,
            detail=f"{memory.rule}: {n_bytes >> 20} MiB to node {target}, cost {cost:.2f} s",
            source_bytes=source_bytes,
            sources=sources,
            extents=extents,
            is_pass=extents is not None,
            holds=True,
        )

    def _memory_of(self, process: ProcessSample) -> _Memory:
        """Return what is remembered; rules are tried again only when the process is another to them."""
        memory = self._memories.get(process.id)
        if memory is None or not do_rules_see_the_same(memory.process, process):
            found = next(((place, rule) for place in self._places if (rule := place.find(process)) is not None), None)
            place, told = (None, "") if found is None else (found[0], str(found[1]))
            if memory is None or memory.place is not place:
                memory = self._memories[process.id] = _Memory(process, place, told)
            memory.rule = told
        memory.process = process
        return memory

    def _hold(self, process: ProcessSample, reason: Reason, detail: str) -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail, holds=True)


class _Plugin:
    """What the entry point `rule` refers to."""

    options = RuleOptions
    summary = "Keeps the memory of processes that a rule matches on the nodes that the rule says, or where it is."

    def build(self, name: str, options: RuleOptions, context: PolicyContext) -> RulePolicy:
        """Return a fresh policy."""
        return RulePolicy(name, options, context)

    def nodes(self, options: RuleOptions) -> Iterable[tuple[tuple[str | int, ...], NodeId]]:
        """Return every node that a rule names, and where."""
        for index, place in enumerate(options.rules):
            for key, nodes in (("nodes", place.nodes), ("interleave", place.interleave)):
                for at, node in enumerate(nodes or ()):
                    yield ("rules", index, key, at), node

    def rules(self, options: RuleOptions) -> Iterable[tuple[tuple[str | int, ...], RuleConfig]]:
        """Return what processes are matched by, and where."""
        for index, place in enumerate(options.rules):
            for at, rule in enumerate(place.match):
                yield ("rules", index, "match", at), rule


plugin = _Plugin()
