"""What tests and benchmarks of the simulator have in common: the default settings, schedulers, random scenarios."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final, get_args

from balancerd import plugins
from balancerd.cli.simulate import build_means
from balancerd.config.schema import Config
from balancerd.ports import Kernel
from balancerd.simulation.run import Means
from balancerd.simulation.scenario import (
    GroupSection,
    MachineSection,
    PhaseSection,
    Scenario,
    SchedulerKind,
    SchedulerSection,
)

KINDS: Final[tuple[SchedulerKind, ...]] = get_args(SchedulerKind)
MIB = 1 << 20
GIB = 1 << 30


def make_means(
    config: Config | None = None, *, exact: bool = False, wrap: Callable[[Kernel], Kernel] = lambda kernel: kernel
) -> Means:
    """The engine as the daemon has it, by default with nothing configured."""
    return replace(build_means(config or Config(), plugins.discover(), exact=exact), wrap=wrap)


def under(scenario: Scenario, kind: SchedulerKind, seconds: float) -> Scenario:
    """The scenario under another scheduler, no longer than so many seconds."""
    return scenario.model_copy(
        update={
            "scheduler": scenario.scheduler.model_copy(update={"kind": kind}),
            "duration_seconds": min(seconds, scenario.duration_seconds),
        }
    )


def is_memory_bound(scenario: Scenario) -> bool:
    """Whether all of its processes lose to remote memory what the gate takes them to lose."""
    return all(group.memory_bound_ratio == 1.0 for group in scenario.groups)


def random_scenario(seed: int) -> Scenario:
    """Ten minutes of a machine of two to eight nodes with one to four groups of processes, none of which wander."""
    chance = Random(seed)  # noqa: S311 the same in every run
    nodes = chance.choice([2, 2, 3, 4, 8])
    cpus = chance.choice([4, 8, 16])
    return Scenario(
        duration_seconds=600.0,
        machine=MachineSection(
            nodes=nodes, cpus=cpus, memory_bytes=chance.choice([8, 16, 32]) * GIB, distance=chance.choice([12, 21, 40])
        ),
        scheduler=SchedulerSection(kind=chance.choice(KINDS), stay_seconds=chance.choice([60.0, 300.0, 1200.0])),
        groups=tuple(_random_group(chance, f"group-{n}", nodes) for n in range(chance.randint(1, 4))),
    )


def _random_group(chance: Random, name: str, nodes: int) -> GroupSection:
    phases = tuple(
        PhaseSection(
            lasts_seconds=chance.uniform(10.0, 200.0),
            cpu_cores=chance.uniform(0.0, 1.0),
            from_ratio=chance.choice([0.0, 0.25, 0.5]),
            to_ratio=chance.choice([0.75, 1.0]),
        )
        for _ in range(chance.choice([0, 0, 2, 3]))
    )

    def some_nodes() -> tuple[int, ...] | None:
        return tuple(chance.sample(range(nodes), chance.randint(1, nodes))) if chance.random() < 0.5 else None

    private = chance.choice([0.0, 0.0, 0.5])
    return GroupSection(
        name=name,
        count=chance.randint(1, 6),
        threads=chance.choice([1, 1, 1, 2, 4]),
        cpu_cores=chance.uniform(0.05, 1.0),
        memory_bytes=chance.randint(64, 3000) * MIB,
        memory_bound_ratio=chance.choice([1.0, 1.0, 0.3]),
        private_ratio=private,
        foreign_ratio=chance.choice([0.0, 0.0, 0.3]),
        runs_on=some_nodes(),
        lies_on=some_nodes(),
        phases=phases,
    )
