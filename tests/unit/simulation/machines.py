"""Small simulated machines for tests: two nodes of four CPUs and four GiB unless a test says otherwise."""

from typing import Any

from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationStep, Range
from balancerd.model.sample import PAGE_BYTES
from balancerd.simulation.clock import SimClock
from balancerd.simulation.kernel import SimKernel
from balancerd.simulation.machine import Machine
from balancerd.simulation.population import chance_of
from balancerd.simulation.process import SimProcess, Thread, plan_parts
from balancerd.simulation.scenario import GroupSection, MachineSection

MIB = 1 << 20
GIB = 1 << 30
N0, N1, N2 = (NodeId(n) for n in range(3))


def make_machine(**section: Any) -> Machine:
    given = {"cpus": 4, "memory_bytes": 4 * GIB, "used_ratio": 0.0, **section}
    return Machine(MachineSection(**given))


def add(
    machine: Machine, runs_on: tuple[int, ...] = (0,), lies_on: tuple[int, ...] | None = None, **group: Any
) -> SimProcess:
    """One more process with a thread on each of the nodes named."""
    given = {"name": "worker", "memory_bytes": 256 * MIB, "threads": len(runs_on), **group}
    section = GroupSection(**given)
    process = SimProcess(ProcessId(100 + len(machine.processes), 1), section, machine.now - 600.0)
    process.threads = [Thread(process, NodeId(node), section.cpu_cores) for node in runs_on]
    assert machine.add(process, plan_parts(section), None if lies_on is None else [NodeId(node) for node in lies_on])
    return process


def make_kernel(machine: Machine, *, exact: bool = True, duty_ratio: float = 0.5) -> tuple[SimKernel, SimClock]:
    clock = SimClock(machine.now)
    return SimKernel(machine, clock, chance_of("test"), exact=exact, duty_ratio=duty_ratio), clock


def make_step(process: SimProcess, target: int, **changes: Any) -> MigrationStep:
    """All memory of a process to one node."""
    given: dict[str, Any] = {
        "policy": "test",
        "process": process.id,
        "target": NodeId(target),
        "ranges": tuple(Range(start=p.start, end=p.end, page_bytes=PAGE_BYTES) for p in process.parts),
        "resume_at": 0,
        "budget_bytes": 64 * GIB,
        "budget_seconds": 1000.0,
        "reason": Reason.MISPLACED,
    }
    return MigrationStep(**{**given, **changes})


def held_pages(machine: Machine) -> dict[NodeId, int]:
    """What all processes hold on each node, added up page by page."""
    held = dict.fromkeys((node.id for node in machine.nodes), 0)
    for process in machine.list:
        for node, pages in process.pages_on().items():
            held[node] += pages
    return held
