"""What a wandering process loses under follow-cpu, beside what it would lose with other rules (simulated).

    python -m tests.bench.bench_dwell --stays 5,60,300,1200 --nodes 2,4 --gib 1,10

One busy core stays on a node for an exponentially distributed time, then goes to another one; all nodes are at
distance 21. Its memory is moved by the real policy, two seconds a tick, within the default rates and cooldown.
Lost is, in percent of the process's run time, what remote accesses cost by the model of the gate, and twice the time
of copying. The other rules know at each tick where the process runs: `never` leaves the memory where it was, `at once`
moves after each change, `wait` moves when the loss of a stay has reached the price of the move.

Then processes of other habits, whose memory lies where it is best, or for `misplaced` does not; and `settled`, the
policy on a process that stays on one node for a while and then for ten minutes on another: the seconds until its memory
has followed. Then JSON.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from balancerd.config.schema import MigrateConfig
from balancerd.engine.gate import cost_seconds, gain_cores, remoteness
from balancerd.model.decision import Decision
from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.policies.follow_cpu import FollowCpu, FollowCpuOptions
from balancerd.ports import PolicyContext
from tests.unit.fakes import GIB, MIB, make_placement, make_process, make_snapshot, make_survey, make_topology

TICK_SECONDS = 2.0
COOLDOWN_SECONDS = MigrateConfig().cooldown_seconds
MOST_BYTES_IN_A_TICK = MigrateConfig().process_rate_limit_bytes_per_second * TICK_SECONDS
FAR = 21
TWO_HOURS = 7200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One tick: when, where it saw the process, since when it is there, and the seconds run on each node since then.

    `seen` are the seconds as a survey tells them: all that a thread ran counts for the node where it ran last.
    """

    at: float
    node: NodeId
    since: float
    seconds: Mapping[NodeId, float]
    seen: Mapping[NodeId, float]


class Rule(Protocol):
    """Says where the memory should be, given where the process runs; None leaves it where it is."""

    def target(self, moment: Moment, held: Mapping[NodeId, float], /) -> NodeId | None: ...


class Never:
    """The memory stays where it was."""

    def target(self, _moment: Moment, _held: Mapping[NodeId, float], /) -> NodeId | None:
        return None


class AtOnce:
    """The memory follows each change."""

    def target(self, moment: Moment, _held: Mapping[NodeId, float], /) -> NodeId | None:
        return moment.node


class Wait:
    """The memory follows when the loss of this stay has reached the price of the move."""

    def __init__(self, topology: Topology, bytes_per_second: float) -> None:
        self._topology, self._bytes_per_second = topology, bytes_per_second

    def target(self, moment: Moment, held: Mapping[NodeId, float], /) -> NodeId | None:
        away = sum(held.values()) - held.get(moment.node, 0.0)
        lost = (moment.at - moment.since) * loss_cores(moment.node, held, self._topology)
        return moment.node if lost >= cost_seconds(away, self._bytes_per_second) else None


class Real:
    """The policy, shown one process in one snapshot after the other."""

    def __init__(self, topology: Topology, bytes_per_second: float, options: FollowCpuOptions | None = None) -> None:
        context = PolicyContext(migration_bytes_per_second=bytes_per_second)
        self._policy = FollowCpu("home", options or FollowCpuOptions(), context)
        self._topology = topology
        self._before: Snapshot | None = None
        self._process: ProcessSample = make_process()

    def target(self, moment: Moment, held: Mapping[NodeId, float], /) -> NodeId | None:
        cores = sum(moment.seen.values()) / TICK_SECONDS
        process = replace(
            self._process, run_seconds=moment.seen, cpu_cores=cores, age_seconds=self._process.age_seconds + moment.at
        )
        survey = make_survey(process, at=moment.at, interval=TICK_SECONDS, topology=self._topology)
        now = make_snapshot(survey, make_placement({node: size / MIB for node, size in held.items() if size}))
        (verdict,) = self._policy.decide(Window(now=now, before=self._before))
        self._before = now
        return verdict.target if isinstance(verdict, Decision) else None


def loss_cores(node: NodeId, held: Mapping[NodeId, float], topology: Topology) -> float:
    """Return what remote accesses cost one busy core on that node."""
    total = sum(held.values())
    return gain_cores(1.0, remoteness({node: 1.0}, {n: size / total for n, size in held.items()}, topology), 0.0)


def wander(chance: random.Random, stay_seconds: float, n_nodes: int) -> Iterator[tuple[NodeId, float]]:
    """Yield nodes and how long the process stays there, without end."""
    node = NodeId(0)
    while True:
        yield node, chance.expovariate(1.0 / stay_seconds)
        node = NodeId((node + chance.randrange(1, n_nodes)) % n_nodes)


def moments(stays: Iterator[tuple[NodeId, float]], seconds: float) -> Iterator[Moment]:
    """Yield what each tick sees of such a life."""
    node, left = next(stays)
    since = now = 0.0
    while now < seconds:
        spent: dict[NodeId, float] = {}
        tick_left = TICK_SECONDS
        while tick_left > left:
            spent[node] = spent.get(node, 0.0) + left
            tick_left -= left
            now += left
            node, left = next(stays)
            since = now
        spent[node] = spent.get(node, 0.0) + tick_left
        left -= tick_left
        now += tick_left
        yield Moment(at=now, node=node, since=since, seconds=spent, seen={node: TICK_SECONDS})


def habit(name: str, chance: random.Random, seconds: float) -> Iterator[Moment]:
    """Yield what each tick sees of a process of other habits than wandering, on two nodes."""
    home, other = NodeId(0), NodeId(1)
    since, last = 0.0, home
    for tick in range(1, round(seconds / TICK_SECONDS) + 1):
        at = tick * TICK_SECONDS
        match name:
            case "hops at each tick":
                run = {chance.choice((home, other)): 1.0}
            case "two threads hop":
                run = {home: 0.0, other: 0.0}
                for _ in range(2):
                    run[chance.choice((home, other))] += 1.0
            case "naps elsewhere":  # works for a minute, and for another one only some thread ticks over
                run = {home: 1.0} if at % 120.0 < 60.0 else {other: 0.06}
            case "now and then elsewhere":
                run = {other if tick % 10 == 0 else home: 1.0}
            case _:  # wavers about 90 %
                share = min(1.0, max(0.0, chance.gauss(0.9, 0.05)))
                run = {home: 8 * share, other: 8 * (1.0 - share)}
        node = max(run, key=lambda n: run[n])
        since, last = (since, last) if node == last else (at - TICK_SECONDS, node)
        spent = {n: cores * TICK_SECONDS for n, cores in run.items()}
        yield Moment(at=at, node=node, since=since, seconds=spent, seen=spent)


HABITS = ("hops at each tick", "two threads hop", "naps elsewhere", "now and then elsewhere", "wavers about 90 %")


@dataclass(slots=True)
class Life:
    """What became of one process: where its memory lies, CPU seconds lost by accesses and by moving, and run in all."""

    held: dict[NodeId, float]
    stalled_seconds: float = 0.0
    moving_seconds: float = 0.0
    moved_bytes: float = 0.0
    run_seconds: float = 0.0

    @property
    def lost_ratio(self) -> float:
        return (self.stalled_seconds + self.moving_seconds) / self.run_seconds


def live(
    rule: Rule, seen: Iterator[Moment], held: Mapping[NodeId, float], topology: Topology, bytes_per_second: float
) -> Iterator[tuple[Moment, Life]]:
    """Run a process's life under a rule; `held` is where its memory lies at first. Yields after each tick."""
    life = Life(held=dict(held))
    rest_until = 0.0
    for moment in seen:
        for node, seconds in moment.seconds.items():
            life.stalled_seconds += seconds * loss_cores(node, life.held, topology)
        life.run_seconds += sum(moment.seconds.values())
        target = rule.target(moment, dict(life.held))
        if target is not None and moment.at >= rest_until:
            left = MOST_BYTES_IN_A_TICK
            for node in [node for node in life.held if node != target]:
                part = min(left, life.held[node])
                left -= part
                life.held[node] -= part
                life.held[target] = life.held.get(target, 0.0) + part
                life.moved_bytes += part
                life.moving_seconds += cost_seconds(part, bytes_per_second)
            if left < MOST_BYTES_IN_A_TICK and life.held.get(target, 0.0) >= sum(life.held.values()):
                rest_until = moment.at + COOLDOWN_SECONDS
            life.held = {node: size for node, size in life.held.items() if size > 0}
        yield moment, life


NAMES = ("never", "at once", "wait", "follow-cpu")


def rules(topology: Topology, bytes_per_second: float) -> dict[str, Rule]:
    """Return fresh rules by name."""
    real = Real(topology, bytes_per_second)
    return dict(zip(NAMES, (Never(), AtOnce(), Wait(topology, bytes_per_second), real), strict=True))


def lost_by_wandering(
    stay_seconds: float, n_nodes: int, gib: float, *, seconds: float, bytes_per_second: float
) -> dict[str, float]:
    """Return the percentage lost under each rule, over the same stays."""
    topology = make_topology(distances(n_nodes))
    lost = {}
    for name, rule in rules(topology, bytes_per_second).items():
        chance = random.Random(f"{stay_seconds} {n_nodes}")  # noqa: S311 the same in every run
        seen = moments(wander(chance, stay_seconds, n_nodes), seconds)
        *_, (_, life) = live(rule, seen, {NodeId(0): gib * GIB}, topology, bytes_per_second)
        lost[name] = 100 * life.lost_ratio
    return lost


def lost_by_habit(
    name: str, gib: float, *, is_misplaced: bool, seconds: float, bytes_per_second: float
) -> dict[str, float]:
    """Return the percentage lost under each rule."""
    topology = make_topology(distances(2))
    is_even = "hop" in name
    held = {NodeId(0): gib * GIB / 2, NodeId(1): gib * GIB / 2} if is_even else {NodeId(is_misplaced): gib * GIB}
    lost = {}
    for rule_name, rule in rules(topology, bytes_per_second).items():
        seen = habit(name, random.Random(name), seconds)  # noqa: S311 the same in every run
        *_, (_, life) = live(rule, seen, held, topology, bytes_per_second)
        lost[rule_name] = 100 * life.lost_ratio
    return lost


def seconds_to_follow(gib: float, first_seconds: float, bytes_per_second: float) -> float | None:
    """Return how long after a change of node 99 % of the memory has followed, None for never in ten minutes."""
    topology = make_topology(distances(2))
    path = iter([(NodeId(0), first_seconds), (NodeId(1), 600.0), (NodeId(1), 1e9)])
    seen = moments(path, first_seconds + 600.0)
    for moment, life in live(
        Real(topology, bytes_per_second), seen, {NodeId(0): gib * GIB}, topology, bytes_per_second
    ):
        if life.held.get(NodeId(1), 0.0) >= 0.99 * gib * GIB:
            return moment.at - first_seconds
    return None


def distances(n_nodes: int) -> tuple[tuple[int, ...], ...]:
    """Return the distances of nodes that are all as far from each other."""
    return tuple(tuple(10 if i == j else FAR for j in range(n_nodes)) for i in range(n_nodes))


def numbers(text: str) -> Sequence[float]:
    return [float(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stays", type=numbers, default=numbers("5,60,300,1200"), help="mean stays, seconds")
    parser.add_argument("--nodes", type=numbers, default=numbers("2,4"))
    parser.add_argument("--gib", type=numbers, default=numbers("1,10"))
    parser.add_argument("--bandwidth", type=float, default=3.3e9, help="bytes a second; measured on Zen 3, 4 KiB pages")
    options = parser.parse_args()
    bandwidth = options.bandwidth
    rows: list[dict[str, float | str]] = []

    def show(told: str, lost: Mapping[str, float], **what: float) -> None:
        rows.append({"process": told, **what, **lost})
        print(f"{told:<44}", *(f"{lost[name]:>11.2f}" for name in NAMES), flush=True)

    print(f"{'% CPU lost':<44}", *(f"{name:>11}" for name in NAMES))
    for n_nodes in options.nodes:
        for gib in options.gib:
            for stay in options.stays:
                lost = lost_by_wandering(
                    stay, int(n_nodes), gib, seconds=max(TWO_HOURS, 100 * stay), bytes_per_second=bandwidth
                )
                told = f"stays {stay:g} s, {n_nodes:g} nodes, {gib:g} GiB"
                show(told, lost, stay_seconds=stay, nodes=n_nodes, gib=gib)
    for name in HABITS:
        for gib in options.gib:
            for is_misplaced in (False,) if "hop" in name else (False, True):
                lost = lost_by_habit(
                    name, gib, is_misplaced=is_misplaced, seconds=TWO_HOURS, bytes_per_second=bandwidth
                )
                show(f"{name}, {gib:g} GiB{' misplaced' if is_misplaced else ''}", lost, gib=gib)
    followed = {
        f"{gib:g} GiB after {first:g} s": seconds_to_follow(gib, first, bandwidth)
        for gib in options.gib
        for first in (20.0, 60.0, 600.0)
    }
    for told, seconds in followed.items():
        print(f"settled, {told:>20}: ", "never" if seconds is None else f"{seconds:.0f} s")
    print(json.dumps({"bench": "dwell", "bytes_per_second": bandwidth, "rows": rows, "settled": followed}))


if __name__ == "__main__":
    main()
