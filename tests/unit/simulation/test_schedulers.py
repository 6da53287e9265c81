import pytest

from balancerd.model.ids import NodeId
from balancerd.simulation import schedulers
from balancerd.simulation.population import chance_of
from balancerd.simulation.scenario import SchedulerSection
from tests.unit.simulation.machines import N0, N1, add, make_machine


def nodes_after(kind: str, running: dict[int, int], *, looks: int = 1, **group: object) -> dict[int, int]:
    """How many threads run on each node once the scheduler has looked; `running` is how many ran there before."""
    machine = make_machine()
    for node, count in running.items():
        for _ in range(count):
            add(machine, (node,), **group)  # type: ignore[arg-type]
    look = schedulers.build(SchedulerSection(kind=kind, stay_seconds=60.0), chance_of("test"))  # type: ignore[arg-type]
    for number in range(looks):
        machine.advance(2.0 * (number + 1))
        look(machine)
    found = {0: 0, 1: 0}
    for process in machine.list:
        found[process.threads[0].node] += 1
    assert [node.demand_cores for node in machine.nodes] == pytest.approx(
        [count * machine.list[0].threads[0].cpu_cores for count in found.values()]
    )
    return found


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        pytest.param("sticky", {0: 4, 1: 0}, {0: 4, 1: 0}, id="sticky: as many as there are CPUs stay"),
        pytest.param("sticky", {0: 6, 1: 0}, {0: 4, 1: 2}, id="sticky: what is too much moves"),
        pytest.param("sticky", {0: 6, 1: 4}, {0: 6, 1: 4}, id="sticky: nobody goes to a full node"),
        pytest.param("balancing", {0: 4, 1: 0}, {0: 2, 1: 2}, id="balancing: half of them move"),
        pytest.param("balancing", {0: 2, 1: 1}, {0: 2, 1: 1}, id="balancing: nearly even is good enough"),
        pytest.param("balancing", {0: 3, 1: 1}, {0: 2, 1: 2}, id="balancing: what is uneven is not"),
    ],
)
def test_threads_move_by_load(kind: str, before: dict[int, int], after: dict[int, int]) -> None:
    assert nodes_after(kind, before) == after
    assert nodes_after(kind, before, looks=20) == after


def test_a_thread_goes_only_where_its_affinity_allows() -> None:
    assert nodes_after("sticky", {0: 6}, allowed=(0,)) == {0: 6, 1: 0}
    assert nodes_after("balancing", {0: 6}, allowed=(0,)) == {0: 6, 1: 0}
    assert nodes_after("random", {0: 3}, looks=200, allowed=(0,)) == {0: 3, 1: 0}


def test_the_random_one_moves_threads_about_as_often_as_it_is_told() -> None:
    machine = make_machine(cpus=64)
    for _ in range(20):
        add(machine, (0,))
    look = schedulers.build(SchedulerSection(kind="random", stay_seconds=100.0), chance_of("test"))
    for number in range(1000):
        machine.advance(2.0 * number)
        look(machine)
    # half of the nodes drawn are the present one
    assert machine.accounts.thread_moves == pytest.approx(20 * 2000 / 100 / 2, rel=0.2)


def test_the_idlest_node_has_the_time_or_is_none() -> None:
    machine = make_machine()
    process = add(machine, (0,))
    found = schedulers.idlest(machine, process, 1.0)
    assert found is not None
    assert found.id == N1
    for _ in range(4):
        add(machine, (1,))
    again = schedulers.idlest(machine, process, 3.0)
    assert again is not None
    assert again.id == N0
    assert schedulers.idlest(machine, process, 4.0) is None
    assert NodeId(0) in process.nodes
