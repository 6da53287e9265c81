"""How processes come, change and go: what a scenario says of its groups, as events on the machine.

Owns births, phases, wandering and deaths. All chance is that of one seed, drawn for each group apart, so that what
becomes of one group does not depend on another.
"""

from collections.abc import Iterator
from random import Random

from balancerd.model.ids import NodeId, ProcessId
from balancerd.simulation.machine import Machine
from balancerd.simulation.process import SimProcess, Thread, plan_parts
from balancerd.simulation.scenario import GroupSection, Scenario
from balancerd.simulation.schedulers import Scheduler, allowed, idlest

FIRST_PID = 5_000_000
"""Above what pid_max can be (4194304 on 64 bits), so that no real process is meant; see proc_sys_kernel(5)."""

GROWN_SECONDS = 600.0
"""How old processes are at the beginning."""


def chance_of(*seed: object) -> Random:
    """Return numbers that depend on nothing but the seed."""
    return Random(" ".join(map(str, seed)))  # noqa: S311 a simulation shall be the same in every run


def populate(machine: Machine, scenario: Scenario, scheduler: Scheduler, seed: int) -> None:
    """Put the processes of a scenario on the machine, and let its scheduler work."""
    pids = iter(range(FIRST_PID, FIRST_PID + (1 << 31)))
    for group in scenario.groups:
        _Group(machine, group, pids, chance_of(seed, group.name)).begin()
    interval = scenario.scheduler.interval_seconds
    answers = scenario.scheduler.kind != "random"

    def look() -> None:
        scheduler(machine)
        machine.at(machine.now + interval, look, answers=answers)

    machine.at(interval, look, answers=answers)


class _Group:
    """One group of processes."""

    def __init__(self, machine: Machine, group: GroupSection, pids: Iterator[int], chance: Random) -> None:
        self._machine, self._group, self._pids, self._chance = machine, group, pids, chance
        self._births = 0

    def begin(self) -> None:
        """Bear all that are there at the beginning, and have the others come."""
        for _ in range(self._group.count):
            self._bear(born_at=self._machine.now - GROWN_SECONDS)
        if self._group.every_seconds is not None:
            self._expect_next(self._group.every_seconds)

    def _expect_next(self, every_seconds: float) -> None:
        def come() -> None:
            self._bear(born_at=self._machine.now)
            self._expect_next(every_seconds)

        self._machine.at(self._machine.now + self._chance.expovariate(1.0 / every_seconds), come)

    def _bear(self, born_at: float) -> None:
        machine, group = self._machine, self._group
        chance = chance_of(self._chance.random(), self._births)
        process = SimProcess(ProcessId(next(self._pids), 1 + round(max(0.0, born_at) * 100)), group, born_at)
        cores = group.phases[0].cpu_cores if group.phases else group.cpu_cores
        nodes = group.runs_on
        if nodes is None:
            free = idlest(machine, process, 0.0) or max(
                (node for node in machine.nodes if allowed(process, node.id)), key=lambda node: node.idle_cores
            )
            nodes = (int(free.id),)
        first = self._births if len(nodes) > 1 and group.threads == 1 else 0
        process.threads = [
            Thread(process, NodeId(nodes[(first + t) % len(nodes)]), cores) for t in range(group.threads)
        ]
        self._births += 1
        lies_on = None if group.lies_on is None else [NodeId(node) for node in group.lies_on]
        if not machine.add(process, plan_parts(group), lies_on):
            return
        if group.phases:
            self._expect_phase(process, group.phases[0].lasts_seconds * chance.random())
        if group.stays_seconds is not None:
            self._expect_wander(process, group.stays_seconds, chance)
        if group.lives_seconds is not None:
            machine.at(machine.now + chance.expovariate(1.0 / group.lives_seconds), lambda: machine.remove(process))

    def _expect_phase(self, process: SimProcess, after_seconds: float) -> None:
        def change() -> None:
            if process.is_alive:
                number = (process.phase + 1) % len(self._group.phases)
                self._machine.enter_phase(process, number)
                self._expect_phase(process, self._group.phases[number].lasts_seconds)

        self._machine.at(self._machine.now + after_seconds, change)

    def _expect_wander(self, process: SimProcess, stay_seconds: float, chance: Random) -> None:
        def wander() -> None:
            if not process.is_alive:
                return
            here = process.threads[0].node
            others = [node.id for node in self._machine.nodes if node.id != here and allowed(process, node.id)]
            if others:
                there = chance.choice(others)
                for thread in process.threads:
                    self._machine.move_thread(thread, there)
            self._expect_wander(process, stay_seconds, chance)

        self._machine.at(self._machine.now + chance.expovariate(1.0 / stay_seconds), wander)
