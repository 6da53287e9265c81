"""interleave: memory that threads of several nodes share is spread over these nodes, so that none serves it alone.

For regions of which the samples say that they belong to nobody alone. Each has a node of its own that follows from
its address (engine/interleaving.py), so that what is spread stays. What belongs to one node is left to access, and a
process with one home to follow-cpu: when the threads gather, this policy just stops wanting.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from balancerd.config.fields import Bytes, Cores, Ratio, between
from balancerd.config.units import format_ratio
from balancerd.engine.copying import machine_rate
from balancerd.engine.gate import HORIZON_SECONDS, cost_seconds, is_worth, remoteness, spread_gain_cores
from balancerd.engine.interleaving import bandwidth_weights, crowding, equal_weights, imbalance, node_of_region
from balancerd.engine.owned import movable_extents, whole_regions
from balancerd.model.access import REGION_BYTES, AccessRegion, AccessWindow
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent, inside, joined
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.machine import Machine
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.policies.watching import Watching, WatchingOptions, format_mib
from balancerd.ports import PolicyContext

JOIN_SHARE = 0.5
LEAVE_SHARE = 0.2
"""A node is one of the sharers from this part of an even share of all accesses on, until it has less than that one.
Each change of the sharers moves memory."""

NEGLIGIBLE_RATIO = 0.01
"""Less than this share of a region elsewhere is in place."""

MOST_EXTENTS = 4096
"""Of one tick; the hottest. The rest follows once these have moved."""

MIB = 1 << 20


class InterleaveOptions(WatchingOptions):
    """Options of an `interleave` policy."""

    weights: Literal["bandwidth", "equal"] = Field(
        default="bandwidth",
        description="How much each node gets. bandwidth: as much as its memory is fast, where the firmware tells.",
    )
    imbalance_ratio: Annotated[Ratio, between(0.05, 1.0, format_ratio)] = Field(
        default=0.35, description="Standard deviation over mean of the accesses that nodes serve, to begin spreading."
    )
    min_shared_bytes: Bytes = Field(default=64 * MIB, description="Spread no less shared memory than this.")
    min_cpu_cores: Cores = Field(
        default=1.0,
        description="Watch no process that keeps fewer cores busy, and spread nothing that fewer use.",
    )


@dataclass(slots=True)
class _Memory:
    """What the policy remembers of one process."""

    sharers: frozenset[NodeId] = frozenset()
    is_spreading: bool = False


@dataclass(frozen=True, slots=True)
class _Shared:
    """A region that belongs to nobody: its share of the accesses to all of these, who makes them, and where it lies."""

    start: int
    share: float
    by: Mapping[NodeId, float]
    on: Mapping[NodeId, float]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A region that is to go to its node, and what of it lies elsewhere."""

    region: _Shared
    node: NodeId
    away_bytes: Mapping[NodeId, int]

    @property
    def moved_bytes(self) -> int:
        return sum(self.away_bytes.values())

    @property
    def moved_share(self) -> float:
        """Of all accesses, those to what moves."""
        return self.region.share * (1.0 - self.region.on.get(self.node, 0.0))

    @property
    def heat(self) -> float:
        return self.moved_share / self.moved_bytes


@dataclass(frozen=True, slots=True)
class _Gain:
    """What moving some parts wins and costs, and how many bytes they are."""

    cores: float
    cost: float
    n_bytes: int
    share: float

    def __str__(self) -> str:
        return f"{format_mib(self.n_bytes)} to spread, gain {self.cores:.3f} cores, cost {self.cost:.2f} s"


class Interleave:
    """The policy; see the module's docstring. Remembers which processes it spreads, and over which nodes."""

    def __init__(self, name: str, options: InterleaveOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._bytes_per_second = self._copy_rate = context.migration_bytes_per_second
        self._watching = Watching(name, options)
        self._memories: dict[ProcessId, _Memory] = {}
        self._machine: Machine | None = None

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def watch(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        """Return the processes to watch, the busiest first."""
        self._observe(snapshot)
        return self._watching.wanted(snapshot)

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible process, or one decision for each node that parts of it go to."""
        self._observe(window.now)
        self._copy_rate = machine_rate(window.now.copying, self._bytes_per_second)
        return tuple(verdict for process in window.now.eligible for verdict in self._judge(process, window.now))

    def _observe(self, now: Snapshot) -> None:
        """Take note, once for each snapshot, of who runs on several nodes; whoever does not is begun anew."""
        if not self._watching.observe(now):
            return
        self._machine = now.survey.machine or self._machine
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        for process in now.eligible:
            if not self._watching.is_spread(process.id):
                self._memories.pop(process.id, None)

    def _judge(self, process: ProcessSample, now: Snapshot) -> Iterator[Verdict]:
        seen = self._watching.look(process, now)
        if isinstance(seen, Skip):
            yield seen
        else:
            memory = self._memories.setdefault(process.id, _Memory())
            yield from self._weigh(process, memory, seen.window, seen.cores, now)

    def _weigh(
        self, process: ProcessSample, memory: _Memory, window: AccessWindow, cores: float, now: Snapshot
    ) -> Iterator[Verdict]:
        """Judge what is shared; `cores` is how much of the CPU time goes to the accesses that all samples tell."""
        topology = now.survey.topology
        regions, part_of_all = _shared(window, topology)
        shared_bytes = sum(region.n_bytes for region in regions)
        busy = cores * part_of_all
        if shared_bytes < self._options.min_shared_bytes or busy < self._options.min_cpu_cores:
            told = (
                f"{shared_bytes // MIB} of {self._options.min_shared_bytes // MIB} MiB are shared, and used by "
                f"{busy:.2f} of {self._options.min_cpu_cores:.2f} cores"
            )
            yield self._skip(process, Reason.NOT_SHARED if window.regions else Reason.TOO_FEW_SAMPLES, told)
            return
        memory.sharers = _sharers(regions, memory.sharers, topology)
        allowed = topology.memory_nodes if process.mems_allowed is None else process.mems_allowed
        targets = memory.sharers & topology.memory_nodes & allowed
        if len(memory.sharers) < 2:
            told = f"nearly all is used from nodes {format_id_list(memory.sharers)}"
            yield self._skip(process, Reason.NOT_SHARED, told)
            return
        if len(targets) < 2:
            told = f"of the nodes {format_id_list(memory.sharers)} that share it {len(targets)} may hold memory"
            yield self._skip(process, Reason.HOME_WITHOUT_MEMORY, told)
            return
        weights = self._weights(targets)
        uneven = imbalance(_load(regions), weights)
        if not memory.is_spreading and uneven <= self._options.imbalance_ratio:
            told = f"imbalance {uneven:.0%} of {self._options.imbalance_ratio:.0%}"
            yield self._skip(process, Reason.BALANCED, told)
            return
        memory.is_spreading = True
        parts = tuple(_parts(regions, weights))
        if not parts:
            told = f"{format_mib(shared_bytes)} are spread over the nodes {format_id_list(targets)}"
            yield self._skip(process, Reason.BALANCED, told)
            return
        gain = self._gain(regions, parts, weights, busy, topology)
        if not is_worth(gain.cores, gain.cost, HORIZON_SECONDS):
            yield self._skip(process, Reason.GAIN_BELOW_COST, str(gain))
        elif gain.cores * window.watched_seconds < gain.cost:  # as access waits
            yield self._skip(process, Reason.LOSS_BELOW_COST, str(gain))
        else:
            told = (
                f"of {format_mib(shared_bytes)} that threads on nodes {format_id_list(memory.sharers)} share, imbalance"
            )
            yield from self._decisions(process, parts, gain, f"{told} {uneven:.0%}", now.survey.interval_seconds or 1.0)

    def _weights(self, targets: Iterable[NodeId]) -> dict[NodeId, float]:
        return equal_weights(targets) if self._options.weights == "equal" else bandwidth_weights(targets, self._machine)

    def _gain(
        self,
        regions: Iterable[_Shared],
        parts: Iterable[_Part],
        weights: Mapping[NodeId, float],
        busy: float,
        topology: Topology,
    ) -> _Gain:
        """Return what it wins and costs when all parts have moved: how much farther and how much less crowded it is."""
        parts = tuple(parts)
        after = {part.region.start: {part.node: 1.0} for part in parts}
        now = tuple(regions)
        then = tuple(_Shared(r.start, r.share, r.by, after.get(r.start, r.on), r.n_bytes) for r in now)
        n_bytes = sum(part.moved_bytes for part in parts)
        cores = spread_gain_cores(
            busy,
            sum(len(node.cpus) for node in topology.nodes if node.id in weights),
            _distance(then, topology) - _distance(now, topology),
            crowding(_load(now), weights),
            crowding(_load(then), weights),
        )
        cost = cost_seconds(n_bytes, self._copy_rate)
        return _Gain(cores, cost, n_bytes, sum(part.moved_share for part in parts))

    def _decisions(
        self, process: ProcessSample, parts: Iterable[_Part], gain: _Gain, told: str, interval_seconds: float
    ) -> Iterator[Decision]:
        """Yield a decision for each node: of all parts the hottest, as many as can move until the next tick."""
        left_bytes = self._bytes_per_second * interval_seconds
        by_node: dict[NodeId, list[_Part]] = {}
        for number, part in enumerate(sorted(parts, key=lambda p: (-p.heat, p.region.start))):
            if number and (left_bytes <= 0 or number >= MOST_EXTENTS):
                break
            left_bytes -= part.moved_bytes
            by_node.setdefault(part.node, []).append(part)
        for node, chosen in sorted(by_node.items()):
            source_bytes: dict[NodeId, int] = {}
            for part in chosen:
                for source, away_bytes in part.away_bytes.items():
                    source_bytes[source] = source_bytes.get(source, 0) + away_bytes
            total_bytes = sum(source_bytes.values())
            gain_cores = gain.cores * sum(part.moved_share for part in chosen) / gain.share
            cost = cost_seconds(total_bytes, self._copy_rate)
            yield Decision(
                policy=self._name,
                process=process.id,
                target=node,
                misplaced_bytes=total_bytes,
                gain_cores=gain_cores,
                cost_seconds=cost,
                reason=Reason.SPREAD,
                detail=f"{format_mib(total_bytes)} {told}, gain {gain_cores:.3f} cores, cost {cost:.2f} s",
                extents=joined(Extent(p.region.start, p.region.start + REGION_BYTES) for p in chosen),
                source_bytes=source_bytes,
            )

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def _shared(window: AccessWindow, topology: Topology) -> tuple[tuple[_Shared, ...], float]:
    """Return the regions that belong to nobody, and the share of all accesses that they have together."""
    huge = None if window.huge is None else tuple(part for each in window.huge for part in whole_regions(each))
    owned = joined(extent for run in window.runs if run.is_sure for extent in movable_extents(run, huge))
    online = frozenset(topology.node_ids)
    found: list[tuple[AccessRegion, float]] = []
    for region in window.regions:
        if not region.is_shared:
            continue
        if any(True for _ in inside(owned, region.start, region.start + REGION_BYTES)):
            continue
        if any(n in online and pages > 0 for n, pages in (region.pages_by_node or {}).items()):
            found.append((region, region.weight))
    together = sum(weight for _, weight in found)
    total = max(
        sum(run.weight for run in window.runs),
        sum(region.weight for region in window.regions),
    )
    return tuple(_known(region, weight, together, online) for region, weight in found), (
        together / total if total > 0 else 0.0
    )


def _known(region: AccessRegion, weight: float, together: float, online: AbstractSet[NodeId]) -> _Shared:
    held = {n: p for n, p in (region.pages_by_node or {}).items() if p > 0 and n in online}
    present = sum(held.values())
    by = {n: w / weight for n, w in region.weight_by_node.items() if w > 0 and n in online}
    on = {node: pages / present for node, pages in held.items()}
    return _Shared(region.start, weight / together, by, on, min(REGION_BYTES, round(present * PAGE_BYTES)))


def _sharers(regions: Iterable[_Shared], before: frozenset[NodeId], topology: Topology) -> frozenset[NodeId]:
    """Return the nodes whose threads use what is shared; one that was among them leaves late."""
    share: dict[NodeId, float] = {}
    for region in regions:
        for node, by in region.by.items():
            share[node] = share.get(node, 0.0) + region.share * by
    even = 1.0 / max(1, sum(bool(node.cpus) for node in topology.nodes))
    return frozenset(n for n, s in share.items() if s >= even * (LEAVE_SHARE if n in before else JOIN_SHARE))


def _load(regions: Iterable[_Shared]) -> dict[NodeId, float]:
    """Return the share of the accesses to all regions that each node's memory serves."""
    load: dict[NodeId, float] = {}
    for region in regions:
        for node, part in region.on.items():
            load[node] = load.get(node, 0.0) + region.share * part
    return load


def _distance(regions: Iterable[_Shared], topology: Topology) -> float:
    """Return the mean extra distance of an access to any of the regions; see gate.remoteness."""
    share: dict[tuple[NodeId, NodeId], float] = {}
    for region in regions:
        for by, accesses in region.by.items():
            for on, pages in region.on.items():
                share[by, on] = share.get((by, on), 0.0) + region.share * accesses * pages
    return sum(part * remoteness({by: 1.0}, {on: 1.0}, topology) for (by, on), part in share.items())


def _parts(regions: Iterable[_Shared], weights: Mapping[NodeId, float]) -> Iterator[_Part]:
    """Yield what is not on its node."""
    for region in regions:
        node = node_of_region(region.start, weights)
        away = {n: max(PAGE_BYTES, round(p * region.n_bytes)) for n, p in region.on.items() if n != node}
        if sum(away.values()) >= max(PAGE_BYTES, NEGLIGIBLE_RATIO * region.n_bytes):
            yield _Part(region, node, away)


class _Plugin:
    """What the entry point `interleave` refers to."""

    options = InterleaveOptions
    summary = "Spreads memory that threads on several nodes share over these nodes, as watched accesses tell."

    def build(self, name: str, options: InterleaveOptions, context: PolicyContext) -> Interleave:
        """Return a fresh policy."""
        return Interleave(name, options, context)


plugin = _Plugin()
