"""follow-cpu: memory follows the node where a process's threads run, once they have come to stay.

Home is told by engine.homes; a process without a single home is left alone. Moving at once would lose on a process that
wanders, so a new home must be old enough, and either it has been home for so long, or cost so much, that the move
would have paid, or earlier homes lasted long enough to expect that it pays. Whoever is bound to its home is believed to
stay until it has left twice too early. Then the gate. What comes home by itself, since the kernel or somebody else
moves it, is waited for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from balancerd.config.fields import Duration, Ratio, Section, between
from balancerd.config.units import format_duration, format_ratio
from balancerd.engine.copying import move_cost_seconds
from balancerd.engine.gate import HORIZON_SECONDS, MARGIN, gain_cores, is_worth, remoteness
from balancerd.engine.homes import HomeRule, Residence, cores_by_node, find_binding
from balancerd.engine.movable import movable_bytes_by_node
from balancerd.engine.overflow import find_refuge
from balancerd.engine.progress import Progress
from balancerd.engine.receding import Receding
from balancerd.engine.room import Room
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.manager import Manager
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.ports import PolicyContext

TESTED_RATIO = 0.95
"""A test that says "well placed" tells at most 5 % from 15 % misplaced; see docs/placement.md."""

FEW_STAYS = 2
"""With fewer stays that ended, a short one says nothing yet: wait until the loss equals the cost, or would have if
the memory had lain where it lies since the process came home."""

EXPECTED_STAY_FACTOR = 3.0
"""Expected stay over break-even time from which a move is made without waiting."""

LOSS_FACTOR = 8.0
"""After a loss of so many times the cost, the expectation was wrong: move."""


KERNELS_CHANCE_SECONDS = 4.0
"""Where the kernel's own balancing is on it gets so long at each home, and so much of the process's CPU time there,
before anything is moved here. It scans a process once in 1 to 60 s of CPU time (task_tick_numa() in
kernel/sched/fair.c), and may not have begun when the process is old enough for this policy. Its scans
become rarer while all is well, and to wait for them longer costs more than that is worth; see docs/following.md."""


class FollowCpuOptions(Section):
    """Options of a `follow-cpu` policy."""

    home_share: Annotated[Ratio, between(0.51, 1.0, format_ratio)] = Field(
        default=0.9, description="Share of the latest run time that makes a node the home."
    )
    run_time_window_seconds: Annotated[Duration, between(1.0, 3600.0, format_duration)] = Field(
        default=60.0,
        description="Time constant of the average, since a process came home, of where and how much it runs.",
    )
    min_home_age_seconds: Annotated[Duration, between(0.0, 3600.0, format_duration)] = Field(
        default=3.0,
        description="How long a process must have run on a node before that is its home; shorter stays are visits.",
    )


@dataclass(slots=True)
class _Memory:
    """What the policy remembers of one process: its homes, and what it lost at the present one."""

    residence: Residence
    lost_seconds: float = 0.0
    progress: Progress = field(default_factory=Progress)
    receding: Receding = field(default_factory=Receding)


class FollowCpu:
    """The policy; see the module's docstring. Remembers homes and loss by process."""

    def __init__(self, name: str, options: FollowCpuOptions, context: PolicyContext) -> None:
        self._name = name
        self._options = options
        self._rule = HomeRule(
            share=options.home_share,
            least_seconds=options.min_home_age_seconds,
            window_seconds=options.run_time_window_seconds,
        )
        self._bytes_per_second = context.migration_bytes_per_second
        self._watermark_ratio = context.watermark_ratio
        self._memories: dict[ProcessId, _Memory] = {}

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        return self._name

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each eligible process; of the others it is noted where they ran, for later."""
        now = window.now
        alive = {process.id for process in now.survey.processes}
        self._memories = {process: memory for process, memory in self._memories.items() if process in alive}
        nodes = frozenset(now.survey.topology.node_ids)
        for process in now.survey.processes:
            if process.run_seconds is not None:
                self._observe(process, process.run_seconds, now, nodes)
        room = Room(now.survey, self._watermark_ratio)
        return tuple(self._judge(process, now, room) for process in now.eligible)

    def _observe(
        self, process: ProcessSample, run_seconds: Mapping[NodeId, float], now: Snapshot, nodes: frozenset[NodeId]
    ) -> None:
        memory = self._memory_of(process)
        residence, home = memory.residence, memory.residence.home
        interval = now.survey.interval_seconds or 0.0
        cores, bound_to = cores_by_node(process, run_seconds, interval), find_binding(process, now.survey.topology)
        residence.observe(cores, now.taken_at, interval, nodes, bound_to=bound_to)
        if residence.home != home:
            memory.lost_seconds = 0.0

    def _judge(self, process: ProcessSample, now: Snapshot, room: Room) -> Verdict:
        topology = now.survey.topology
        residence = self._memory_of(process).residence
        placement = now.placements.get(process.id)
        shares, home = residence.shares, residence.home
        if not shares:
            return self._skip(process, Reason.NO_HOME)
        if home is None:
            return self._skip(process, Reason.SEVERAL_HOMES, _tell_shares(shares))
        if home not in topology.memory_nodes:
            return self._skip(process, Reason.HOME_WITHOUT_MEMORY, f"node {home}")
        if placement is None:
            return self._skip(process, Reason.NOT_SAMPLED)
        return self._judge_placement(process, placement, home, now, room)

    def _judge_placement(
        self, process: ProcessSample, placement: PlacementSample, home: NodeId, now: Snapshot, room: Room
    ) -> Verdict:
        topology = now.survey.topology
        memory = self._memory_of(process)
        residence = memory.residence
        held = movable_bytes_by_node(placement)
        total = sum(held.values())
        away = total - held.get(home, 0)
        if total == 0:
            return self._skip(process, Reason.NOTHING_PRESENT)
        memory.progress.look(away)
        if memory.progress.was_wanted:  # what is away no more may have been moved by this policy
            memory.receding.forget()
        memory.receding.note(placement.taken_at, held)
        if memory.progress.is_negligible(away, total) or _is_tested(placement, home):
            memory.lost_seconds = 0.0
            return self._skip(process, Reason.WELL_PLACED, f"{1 - away / total:.1%} on node {home}")

        run = residence.shares
        refuge = find_refuge(home, held, room, topology, process.mems_allowed)
        target, moved = (home, _elsewhere(held, home)) if refuge is None else (refuge.node, refuge.farther_bytes)
        wanted = {node: size for node, size in held.items() if node not in moved}
        wanted[target] = wanted.get(target, 0) + sum(moved.values())
        gain = gain_cores(residence.cores, _remoteness(run, held, topology), _remoteness(run, wanted, topology))
        cost = move_cost_seconds(moved, target, now.copying, self._bytes_per_second)
        if residence.seen_at == now.taken_at:
            memory.lost_seconds += gain * residence.new_seconds
        told = f"{away >> 20} MiB away from node {home}, gain {gain:.3f} cores, cost {cost:.2f} s"
        if refuge is not None:
            told = f"{told}; node {home} is full, and {sum(moved.values()) >> 20} MiB go to node {target}"

        if gain <= 0:
            return self._skip(process, Reason.GAIN_BELOW_COST, told)
        move = Decision(
            policy=self._name,
            process=process.id,
            target=target,
            misplaced_bytes=max(sum(moved.values()), PAGE_BYTES),
            gain_cores=gain,
            cost_seconds=cost,
            detail=told,
            source_bytes=moved,
            sources=None if refuge is None else frozenset(moved),
        )
        skip = self._objection(residence, memory, move, kernel_balances=_kernel_balances(now))
        if skip is not None:
            return skip
        if refuge is None:
            memory.progress.want(away)
        room.take((target,), sum(moved.values()))
        return move

    def _objection(
        self, residence: Residence, memory: _Memory, wanted: Decision, *, kernel_balances: bool
    ) -> Skip | None:
        """Return why a move that would win something is not made now, and what it waits for; None to make it."""
        home, age, told = residence.home, residence.age_seconds, wanted.detail
        gain, cost, least_age = wanted.gain_cores, wanted.cost_seconds, self._options.min_home_age_seconds

        def skip(reason: Reason, detail: str, needs: str) -> Skip:
            return Skip(by=self._name, process=wanted.process, reason=reason, detail=detail, wanted=wanted, needs=needs)

        pays = _is_expected_to_pay(residence, gain, cost)
        is_settled = residence.is_bound and (pays or residence.n_stays < FEW_STAYS)
        if age < least_age and not is_settled:
            more = f"{least_age - age:.1f} s more on node {home}"
            return skip(Reason.HOME_TOO_YOUNG, f"node {home} for {age:.1f} s", more)
        if not memory.progress.is_moving and kernel_balances:
            kind, had = min(("s", age), ("s of CPU time", residence.ran_seconds), key=lambda it: it[1])
            if had < KERNELS_CHANCE_SECONDS:
                chance = f"of the {KERNELS_CHANCE_SECONDS:.0f} {kind} in which the kernel's balancing comes first"
                more = f"{KERNELS_CHANCE_SECONDS - had:.1f} {kind} more on node {home}"
                return skip(Reason.HOME_TOO_YOUNG, f"node {home} for {had:.1f} {chance}", more)
        if not residence.is_at_home:
            return skip(Reason.HOME_TOO_YOUNG, f"away from node {home} at the moment", f"a return to node {home}")
        wait = None if is_settled or pays else _seconds_to_stay(residence, gain, cost, memory.lost_seconds)
        if wait is not None:
            lost = f"{told}, lost so far {memory.lost_seconds:.2f} s"
            return skip(Reason.LOSS_BELOW_COST, lost, f"{wait:.1f} s more on node {home}")
        expected = residence.expected_stay_seconds if residence.n_stays >= FEW_STAYS else None
        stay = HORIZON_SECONDS if expected is None else max(expected, age)
        if not is_worth(gain, cost, stay):
            won = gain * min(stay, HORIZON_SECONDS)
            needs = f"a gain of {MARGIN:.0f} x cost {cost:.2f} s where {won:.2f} s are expected"
            return skip(Reason.GAIN_BELOW_COST, f"{told}, expected stay {stay:.0f} s", needs)
        gone = memory.receding.bytes_gone(home) if home is not None else 0
        if gone:
            less = f"{told}, {gone >> 20} MiB less than a few seconds ago"
            return skip(Reason.COMING_HOME, less, "that it gets no less by itself")
        return None

    def _memory_of(self, process: ProcessSample) -> _Memory:
        memory = self._memories.get(process.id)
        if memory is None:
            memory = self._memories[process.id] = _Memory(residence=Residence(self._rule))
        return memory

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def _is_expected_to_pay(residence: Residence, gain: float, cost: float) -> bool:
    expected = residence.expected_stay_seconds
    return expected is not None and gain * expected >= EXPECTED_STAY_FACTOR * cost


def _seconds_to_stay(residence: Residence, gain: float, cost: float, lost: float) -> float | None:
    """Return how much longer it must stay until a move pays; None when it has."""
    if residence.n_stays < FEW_STAYS:
        so_far, enough = max(lost, gain * residence.age_seconds), cost
    else:
        so_far, enough = lost, LOSS_FACTOR * cost
    return None if so_far >= enough else (enough - so_far) / gain


def _elsewhere(held_bytes: Mapping[NodeId, int], home: NodeId) -> dict[NodeId, int]:
    return {node: size for node, size in held_bytes.items() if node != home and size}


def _remoteness(run: Mapping[NodeId, float], held_bytes: Mapping[NodeId, int], topology: Topology) -> float:
    total = sum(held_bytes.values())
    return remoteness(run, {n: b / total for n, b in held_bytes.items() if n in topology.node_ids}, topology)


def _kernel_balances(now: Snapshot) -> bool:
    return any(finding.active for finding in now.survey.managers if finding.manager is Manager.KERNEL_BALANCING)


def _is_tested(placement: PlacementSample, home: NodeId) -> bool:
    """Return whether a sequential test found the process well placed at this very home: it asks too few for shares."""
    interval = placement.intervals.get(home)
    return placement.method is PlacementMethod.TEST and interval is not None and interval.high >= TESTED_RATIO


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
