"""threads: the threads of a process move to the node that holds its memory, where that costs less than the other way.

Threads cost a refill of their caches and waiting for CPUs; memory costs copying. Both are reckoned up to where all is
local: what lies elsewhere must follow the threads later. Threads move only where there is CPU for them, and where the
load of the nodes does not become less even by it. Who owns a process meanwhile is the business of engine.owners.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from balancerd.config.fields import Cores, Duration, Ratio, Section, between
from balancerd.config.units import format_duration, format_ratio
from balancerd.engine.copying import move_cost_seconds
from balancerd.engine.gate import HORIZON_SECONDS, REFILL_SECONDS, gain_cores, is_worth, remoteness
from balancerd.engine.homes import HomeRule, Residence, cores_by_node
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.model.decision import Reason, Skip, Steer, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import ProcessSample, Snapshot, Survey, Window
from balancerd.model.topology import Node
from balancerd.ports import PolicyContext

QUEUE_SECONDS: Final = 0.003
"""How long a thread waits that finds its CPU taken: about the slice of the scheduler (base_slice_ns, kernel/sched)."""

IDLE_FACTOR: Final = 1.15
"""The node must have so many times the idle CPU that the threads use."""

HYSTERESIS: Final = 1.0 / 16.0
"""By so much threads must be cheaper than memory, and so much less even the load may become: what the kernel's own
balancing allows (task_numa_compare() in kernel/sched/fair.c). Both figures err."""

CALM_RATIO: Final = 0.25
"""A node that is no busier than this afterwards may be busier than others: imb_numa_nr in kernel/sched/topology.c."""

GATHERED_RATIO: Final = 0.9
"""Threads that run so much of their time where their memory is are there."""

LOSING_RATIO: Final = 0.8
"""What is held stays held until it falls to this part of what was asked for at first."""


class ThreadsOptions(Section):
    """Options of a `threads` policy."""

    method: Literal["kick", "pin"] = Field(
        default="kick",
        description="kick: threads are moved and let go at once, and the scheduler may move them again. pin: they are "
        "held on the node for as long as this policy finds that right; given back then, and when the daemon ends.",
    )
    min_share: Annotated[Ratio, between(0.51, 1.0, format_ratio)] = Field(
        default=0.7, description="Share of its memory on one node from which the threads of a process belong there."
    )
    min_cpu_cores: Cores = Field(default=0.1, description="Leave processes alone that keep fewer cores busy.")
    min_wait_seconds: Annotated[Duration, between(0.0, 3600.0, format_duration)] = Field(
        default=3.0, description="How long threads must have run away from their memory before they are moved."
    )
    own_affinity: bool = Field(
        default=False,
        description="Move threads, too, whose affinity somebody has narrowed, to those of their CPUs that are on the "
        "node; it is given back as it was. false: they are left alone.",
    )


@dataclass(slots=True)
class _Memory:
    """Of one process: where it ran, since when away from its memory, and where its threads were wanted last."""

    residence: Residence
    away_from: NodeId | None = None
    away_since: float = 0.0
    wanted_on: NodeId | None = None


@dataclass(slots=True)
class _Load:
    """How many CPUs of each node are idle, as far as that is known, while one process after the other is moved."""

    cpus: Mapping[NodeId, int]
    idle: dict[NodeId, float] = field(default_factory=dict)

    def imbalance_after(self, moved: Mapping[NodeId, float], target: NodeId) -> tuple[float, float]:
        """Return how unevenly the nodes are loaded now and with the cores `moved` from where they run to a node.

        That is the largest difference between the target and a node that threads leave, in shares of their CPUs.
        """
        left = [node for node in moved if self.cpus.get(node) and node in self.idle]
        there = self._busy(target)
        then = self.busy_after(moved, target)
        now = max((abs(self._busy(node) - there) for node in left), default=0.0)
        after = max((abs(self._busy(node) - moved[node] / self.cpus[node] - then) for node in left), default=0.0)
        return now, after

    def busy_after(self, moved: Mapping[NodeId, float], target: NodeId) -> float:
        """Return the share of a node's CPUs that is busy once these cores have come."""
        return self._busy(target) + sum(moved.values()) / self.cpus[target]

    def move(self, moved: Mapping[NodeId, float], target: NodeId) -> None:
        """Let cores move."""
        for node, cores in moved.items():
            if node in self.idle:
                self.idle[node] = min(float(self.cpus[node]), self.idle[node] + cores)
        self.idle[target] -= sum(moved.values())

    def _busy(self, node: NodeId) -> float:
        return 1.0 - self.idle[node] / self.cpus[node]


@dataclass(frozen=True, slots=True)
class _Case:
    """What is judged: `moved` are the cores that would go to `node`, `told` what is said of its memory."""

    process: ProcessSample
    memory: _Memory
    held: Mapping[NodeId, int]
    node: Node
    moved: Mapping[NodeId, float]
    told: str

    @property
    def total(self) -> int:
        return sum(self.held.values())

    @property
    def away_cores(self) -> float:
        return sum(self.moved.values())


class Threads:
    """The policy; see the module's docstring. Remembers where processes ran."""

    def __init__(self, name: str, options: ThreadsOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._bytes_per_second = context.migration_bytes_per_second
        self._rule = HomeRule(share=GATHERED_RATIO, least_seconds=options.min_wait_seconds, window_seconds=10.0)
        self._memories: dict[ProcessId, _Memory] = {}

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible process, those that use most CPU first."""
        now = window.now
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        nodes = frozenset(now.survey.topology.node_ids)
        for process in now.eligible:
            memory = self._memories.setdefault(process.id, _Memory(residence=Residence(self._rule)))
            interval = now.survey.interval_seconds or 0.0
            if process.run_seconds is not None and interval > 0.0:
                ran = cores_by_node(process, process.run_seconds, interval)
                memory.residence.observe(ran, now.taken_at, interval, nodes)
        load = _load(now.survey)
        busiest = sorted(now.eligible, key=lambda process: (-(process.cpu_cores or 0.0), process.id))
        return tuple(self._judge(process, now, load) for process in busiest)

    def _judge(self, process: ProcessSample, now: Snapshot, load: _Load) -> Verdict:
        memory = self._memories[process.id]
        wanted_on, memory.wanted_on = memory.wanted_on, None
        placement = now.placements.get(process.id)
        if placement is None:
            return self._skip(process, Reason.NOT_SAMPLED)
        topology = now.survey.topology
        held = {n: size for n, size in movable_bytes_by_node(placement).items() if n in topology.node_ids and size}
        total = sum(held.values())
        if not total:
            return self._skip(process, Reason.NOTHING_PRESENT)
        target = max(held, key=lambda node: (held[node], -node))
        is_held = self._options.method == "pin" and wanted_on == target
        told = f"{held[target] / total:.0%} of its memory is on node {target}"
        if held[target] < self._options.min_share * (LOSING_RATIO if is_held else 1.0) * total:
            return self._skip(process, Reason.NO_MAIN_NODE, told)
        run, cores = memory.residence.shares, memory.residence.cores
        if not run:
            return self._skip(process, Reason.NO_HOME)
        if cores < self._options.min_cpu_cores * (LOSING_RATIO if is_held else 1.0):
            return self._skip(process, Reason.BELOW_MIN_CPU, f"{cores:.3f} of {self._options.min_cpu_cores:.3f} cores")
        node = next(each for each in topology.nodes if each.id == target)
        may = node.cpus if process.cpus_allowed is None else node.cpus & process.cpus_allowed
        if not may:
            nowhere = "has no CPUs" if not node.cpus else "is outside of its Cpus_allowed"
            return self._skip(process, Reason.OUTSIDE_AFFINITY, f"{told}, which {nowhere}")
        moved = {each: cores * share for each, share in run.items() if each != target and share > 0.0}
        case = _Case(process, memory, held, node, moved, told)
        if _share_of_latest(process, target) >= GATHERED_RATIO:
            memory.away_from = None
            if is_held:
                return self._hold(case, load)
            return self._skip(process, Reason.WELL_PLACED, f"{told}, where its threads run")
        if memory.away_from != target:
            memory.away_from, memory.away_since = target, now.taken_at - (now.survey.interval_seconds or 0.0)
        return self._weigh(case, now, load, len(may))

    def _hold(self, case: _Case, load: _Load) -> Verdict:
        """Want threads held that were wanted held a look ago, unless others want the CPUs: then they may go."""
        node = case.node
        if load.idle.get(node.id, 0.0) <= HYSTERESIS:
            return self._skip(case.process, Reason.NODE_BUSY, f"{case.told}, which has no idle CPU left")
        case.memory.wanted_on = node.id
        return self._steer(case, 0.0, 0.0, f"{case.told}, where its threads are held")

    def _weigh(self, case: _Case, now: Snapshot, load: _Load, n_cpus: int) -> Verdict:
        """Judge whether threads go to the node, on `n_cpus` of which they may run."""
        process, memory, held, moved = case.process, case.memory, case.held, case.moved
        target, topology, total = case.node.id, now.survey.topology, case.total
        run, cores = memory.residence.shares, memory.residence.cores
        away_seconds = now.taken_at - memory.away_since
        if away_seconds < self._options.min_wait_seconds:
            return self._skip(process, Reason.HOME_TOO_YOUNG, f"{case.told}, away from there for {away_seconds:.1f} s")
        idle = load.idle.get(target)
        if idle is None:
            return self._skip(process, Reason.NODE_BUSY, f"how busy node {target} is, is not known")
        idle = min(idle, float(n_cpus))
        told = f"{held[target] >> 20} of {total >> 20} MiB on node {target}, {case.away_cores:.2f} cores run elsewhere"
        if idle < IDLE_FACTOR * case.away_cores:
            return self._skip(process, Reason.NODE_BUSY, f"{told}; {idle:.2f} cores are idle there")
        busy = 1.0 - (idle - case.away_cores) / n_cpus
        refill = process.n_threads * (REFILL_SECONDS + QUEUE_SECONDS * busy / max(1.0 - busy, HYSTERESIS))
        home = max(run, key=lambda each: (run[each], -each))
        by_threads = refill + self._cost_to_gather(held, target, now)
        by_memory = self._cost_to_gather(held, home, now)
        told = f"{told}; threads cost {by_threads:.2f} s, memory {by_memory:.2f} s"
        if by_threads * (1.0 + HYSTERESIS) >= by_memory:
            return self._skip(process, Reason.MEMORY_CHEAPER, told)
        shares = {each: size / total for each, size in held.items()}
        gain = gain_cores(cores, remoteness(run, shares, topology), remoteness({target: 1.0}, shares, topology))
        told = f"{told}; gain {gain:.3f} cores"
        if not is_worth(gain, refill, HORIZON_SECONDS):
            return self._skip(process, Reason.GAIN_BELOW_COST, told)
        before, after = load.imbalance_after(moved, target)
        if after > before + HYSTERESIS and load.busy_after(moved, target) > CALM_RATIO:
            return self._skip(process, Reason.UNBALANCED, f"{told}; imbalance {before:.0%}, then {after:.0%}")
        if gain * away_seconds < refill:
            return self._skip(process, Reason.LOSS_BELOW_COST, f"{told}; away for {away_seconds:.1f} s")
        load.move(moved, target)
        memory.wanted_on = target
        return self._steer(case, gain, refill, told)

    def _cost_to_gather(self, held: Mapping[NodeId, int], node: NodeId, now: Snapshot) -> float:
        moved = {source: size for source, size in held.items() if source != node}
        return move_cost_seconds(moved, node, now.copying, self._bytes_per_second)

    def _steer(self, case: _Case, gain: float, cost: float, told: str) -> Steer:
        return Steer(
            policy=self._name,
            process=case.process.id,
            target=case.node.id,
            cpus=case.node.cpus,
            gain_cores=gain,
            cost_seconds=cost,
            pin=self._options.method == "pin",
            own_affinity=self._options.own_affinity,
            detail=told,
        )

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def _share_of_latest(process: ProcessSample, node: NodeId) -> float:
    """Return how much of what a process ran since it was read before it ran on a node; all, if it did not run."""
    ran = process.run_seconds or {}
    total = sum(ran.values())
    return ran.get(node, 0.0) / total if total > 0.0 else 1.0


def _load(survey: Survey) -> _Load:
    states = {} if survey.machine is None else survey.machine.nodes
    cpus = {node.id: len(node.cpus) for node in survey.topology.nodes}
    loads = {node: states[node].load_ratio for node in cpus if node in states}
    return _Load(cpus, {node: cpus[node] * (1.0 - load) for node, load in loads.items() if load is not None})


class _Plugin:
    """What the entry point `threads` refers to."""

    options = ThreadsOptions
    summary = "Moves threads to the node that holds their memory, where that is cheaper than moving the memory."
    moves_threads = True

    def build(self, name: str, options: ThreadsOptions, context: PolicyContext) -> Threads:
        """Return a fresh policy."""
        return Threads(name, options, context)


plugin = _Plugin()
