"""Who decides where threads run: three models of a scheduler, of which real ones have something each.

Owns the choice and nothing else. They know load, not memory, so that the same seed gives the same lives whoever moves
memory.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from balancerd.model.ids import NodeId
from balancerd.simulation.machine import LEAST_CHANGE, Machine, SimNode
from balancerd.simulation.process import SimProcess, Thread
from balancerd.simulation.scenario import SchedulerKind, SchedulerSection

IMBALANCE_RATIO: Final = 0.25
"""Of load to CPUs, from which the balancing one acts: imbalance_pct of 125 in kernel/sched/topology.c."""

MOST_MOVES: Final = 32
"""In one look: nr_migrate of kernel/sched/core.c."""

Scheduler = Callable[[Machine], None]
"""Looks at the load once, and moves threads."""


def build(section: SchedulerSection, chance: Random) -> Scheduler:
    """Return the scheduler of a scenario."""
    kinds: dict[SchedulerKind, Scheduler] = {
        "sticky": relieve,
        "balancing": balance,
        "random": _Shuffle(section, chance),
    }
    return kinds[section.kind]


def allowed(process: SimProcess, node: NodeId) -> bool:
    """Return whether the affinity of a process allows a node, and nobody holds its threads elsewhere."""
    if process.held_on is not None:
        return node == process.held_on
    return process.group.allowed is None or node in process.group.allowed


def idlest(machine: Machine, process: SimProcess, cores: float) -> SimNode | None:
    """Return the idlest node on which a process may run, None when none has so many cores left."""
    found = max(
        (node for node in machine.nodes if allowed(process, node.id)), key=lambda node: (node.idle_cores, -node.id)
    )
    return found if found.idle_cores >= cores - LEAST_CHANGE else None


def relieve(machine: Machine) -> None:
    """Sticky: threads stay where they are unless their node is overloaded, and another one is not."""
    for node in machine.nodes:
        for _ in range(MOST_MOVES):
            if node.idle_cores >= -LEAST_CHANGE or not _move_one(machine, node):
                break


def _move_one(machine: Machine, node: SimNode) -> bool:
    """Move one thread of an overloaded node to one that has the time for it: of the processes that came last."""
    for process in reversed(node.members):
        for thread in process.threads:
            if thread.node == node.id and thread.cpu_cores > 0:
                target = idlest(machine, process, thread.cpu_cores)
                if target is not None and target is not node:
                    machine.move_thread(thread, target.id)
                    return True
    return False


def balance(machine: Machine) -> None:
    """Balancing: from the busiest node to the idlest one, one thread after the other, until they are nearly even."""
    for _ in range(MOST_MOVES):
        busiest = max(machine.nodes, key=lambda node: (node.demand_cores / len(node.cpus), -node.id))
        free = min(machine.nodes, key=lambda node: (node.demand_cores / len(node.cpus), node.id))
        gap = busiest.demand_cores / len(busiest.cpus) - free.demand_cores / len(free.cpus)
        if gap <= IMBALANCE_RATIO:
            return
        thread = _evening(busiest, free)
        if thread is None:
            return
        machine.move_thread(thread, free.id)


def _evening(busiest: SimNode, free: SimNode) -> Thread | None:
    """Return the thread whose move makes the two nodes the most even, None when none does."""
    between = busiest.demand_cores - free.demand_cores
    best, best_gap = None, between
    for process in reversed(busiest.members):
        if allowed(process, free.id):
            for thread in process.threads:
                gap = abs(between - 2 * thread.cpu_cores)
                if thread.node == busiest.id and thread.cpu_cores > 0 and gap < best_gap - LEAST_CHANGE:
                    best, best_gap = thread, gap
    return best


class _Shuffle:
    """Random: each thread moves after a time that chance gives it, to a node that has the time for it."""

    def __init__(self, section: SchedulerSection, chance: Random) -> None:
        self._stay_seconds, self._chance = section.stay_seconds, chance
        self._due = 0.0
        self._seen_at = 0.0

    def __call__(self, machine: Machine) -> None:
        # moves of all threads together are one Poisson process, of which this counts down in threads times seconds
        n_threads = sum(len(process.threads) for process in machine.list)
        self._due -= n_threads * (machine.now - self._seen_at) / self._stay_seconds
        self._seen_at = machine.now
        while self._due <= 0.0 and n_threads:
            self._due += self._chance.expovariate(1.0)
            self._move_any(machine)

    def _move_any(self, machine: Machine) -> None:
        process = self._chance.choice(machine.list)
        thread = self._chance.choice(process.threads)
        target = machine.nodes[self._chance.randrange(len(machine.nodes))]
        if allowed(process, target.id) and target.idle_cores >= thread.cpu_cores:
            machine.move_thread(thread, target.id)
