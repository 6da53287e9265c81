"""The search of the policy packing beside the exact optimum of the simulator, on random machines at a load of 0.85."""

from random import Random

import pytest

from balancerd.engine.gate import STALL_SHARE, cost_seconds
from balancerd.engine.packing import Item, Option, Slack, pack
from balancerd.model.sample import PAGE_BYTES
from balancerd.simulation.machine import Machine
from balancerd.simulation.optimum import find_optimum
from balancerd.simulation.process import SimProcess
from balancerd.simulation.run import build_machine
from balancerd.simulation.scenario import GroupSection, MachineSection, Scenario
from tests.unit.simulation.machines import GIB

LOAD = 0.85
CPUS = 16
NODE_GIB = 64
SECONDS = 300.0


def random_scenario(seed: int) -> Scenario:
    """Processes of all sizes, and of 1 to 4 threads, anywhere, until CPUs or memory are as full as that."""
    chance = Random(seed)  # noqa: S311 the same in every run
    nodes = chance.choice([2, 3, 4])
    groups: list[GroupSection] = []
    cores = gib = 0.0
    while True:
        threads, each, memory = chance.choice([1, 1, 2, 4]), chance.uniform(0.3, 1.0), chance.uniform(0.2, 8.0)
        if cores + threads * each > LOAD * nodes * CPUS or gib + memory > LOAD * nodes * NODE_GIB:
            break
        cores, gib = cores + threads * each, gib + memory
        groups.append(
            GroupSection(
                name=f"g{len(groups)}",
                threads=threads,
                cpu_cores=each,
                memory_bytes=int(memory * GIB),
                runs_on=(chance.randrange(nodes),),
                lies_on=(chance.randrange(nodes),),
            )
        )
    machine = MachineSection(nodes=nodes, cpus=CPUS, memory_bytes=NODE_GIB * GIB)
    return Scenario(duration_seconds=SECONDS, machine=machine, groups=tuple(groups))


def item_of(process: SimProcess, machine: Machine) -> Item:
    """Threads together on any node, memory together on any node."""
    born, size = process.pages_on(), process.n_pages * PAGE_BYTES
    cores = sum(thread.cpu_cores for thread in process.threads)
    return [
        Option(
            cost=cores * STALL_SHARE * machine.extra[runs.id][lies.id] * SECONDS
            + cost_seconds(size - born.get(lies.id, 0) * PAGE_BYTES, machine.section.bandwidth_bytes_per_second),
            added_bytes={lies.id: size},
            added_cores={runs.id: cores},
        )
        for runs in machine.nodes
        for lies in machine.nodes
    ]


@pytest.mark.parametrize("seed", [0, 2, 4, 5, 33, 34, 35, 43])
def test_the_search_is_within_a_hundredth_of_the_optimum(seed: int) -> None:
    """The target is a twentieth; what all threads want counts, as everywhere when a policy is beside its optimum."""
    pytest.importorskip("scipy", reason="the optimum needs SciPy: the extra `optimum`")
    scenario = random_scenario(seed)
    optimum = find_optimum(scenario, seed)
    assert optimum.lost_seconds is not None
    machine = build_machine(scenario, seed)
    slack = Slack(
        memory_bytes={n.id: (n.n_pages - n.high_pages - n.n_pages // 20) * PAGE_BYTES for n in machine.nodes},
        cpu_cores={n.id: float(len(n.cpus)) for n in machine.nodes},
    )
    found = pack([item_of(process, machine) for process in machine.list], slack)
    assert found.over == 0.0
    work = sum(thread.cpu_cores for process in machine.list for thread in process.threads) * SECONDS
    ratio = (work + found.cost) / (work + optimum.lost_seconds)
    print(f"{len(machine.list)} processes, {len(machine.nodes)} nodes: {ratio:.5f} of the optimum")
    assert ratio <= 1.01
