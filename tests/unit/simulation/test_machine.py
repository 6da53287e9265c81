import pytest

from balancerd.engine.gate import STALL_SHARE, cost_seconds
from balancerd.model.sample import PAGE_BYTES
from balancerd.simulation.scenario import PhaseSection
from tests.unit.simulation.machines import GIB, MIB, N0, N1, add, held_pages, make_machine


def test_a_process_with_remote_memory_loses_what_the_gate_says() -> None:
    machine = make_machine()
    add(machine, (0,), (1,))
    machine.advance(100.0)
    accounts = machine.settled()
    assert accounts.run_seconds == pytest.approx(100.0)
    assert accounts.stall_seconds == pytest.approx(100.0 * STALL_SHARE * 1.1)
    assert machine.local_ratio() == 0.0


@pytest.mark.parametrize(
    ("group", "share"),
    [
        pytest.param({"runs_on": (0,), "lies_on": (0,)}, 0.0, id="local"),
        pytest.param({"runs_on": (0,), "lies_on": (0, 1)}, 0.5, id="half of it remote"),
        pytest.param({"runs_on": (0, 1), "lies_on": (0, 1)}, 0.5, id="two nodes share all of it"),
        pytest.param({"runs_on": (0, 1), "private_ratio": 1.0}, 0.0, id="each thread has its own"),
        pytest.param({"runs_on": (0, 1), "private_ratio": 0.5}, 0.25, id="half of it is shared"),
        pytest.param({"runs_on": (0,), "lies_on": (1,), "memory_bound_ratio": 0.25}, 0.25, id="hardly memory-bound"),
    ],
)
def test_stalls_follow_from_who_uses_which_memory(group: dict[str, object], share: float) -> None:
    machine = make_machine()
    process = add(machine, **group)  # type: ignore[arg-type]
    assert process.stall_cores == pytest.approx(process.busy_cores * share * STALL_SHARE * 1.1)


def test_what_a_node_cannot_give_is_lost_and_what_runs_stalls_less() -> None:
    machine = make_machine()
    first = add(machine, (0,), (1,))
    for _ in range(7):
        add(machine, (0,))
    machine.advance(10.0)
    accounts = machine.settled()
    assert accounts.overload_seconds == pytest.approx(40.0)
    assert accounts.run_seconds == pytest.approx(40.0)
    assert first.busy_cores == pytest.approx(0.5)
    machine.move_thread(first.threads[0], N1)
    assert first.busy_cores == pytest.approx(1.0)
    assert [node.demand_cores for node in machine.nodes] == pytest.approx([7.0, 1.0])


def test_memory_is_what_processes_hold_whoever_comes_moves_and_goes() -> None:
    machine = make_machine(used_ratio=0.1)
    base = [node.used_pages for node in machine.nodes]
    a = add(machine, (0,), (1,), memory_bytes=GIB)
    b = add(machine, (0, 1), memory_bytes=512 * MIB, private_ratio=0.5, foreign_ratio=0.25)
    part = a.parts[0]
    moved = machine.move_pages(a, part, range(100, 1100), N0, 700)
    assert (moved.moved_pages, moved.next_page) == (700, 800)
    for gone in (None, a, b):
        if gone is not None:
            machine.remove(gone)
        assert [node.used_pages - was for node, was in zip(machine.nodes, base, strict=True)] == [
            *held_pages(machine).values()
        ]
    assert machine.settled().moved_bytes == 700 * PAGE_BYTES
    assert machine.settled().moving_seconds == cost_seconds(700 * PAGE_BYTES, 2 * GIB)


def test_what_finds_no_room_lies_on_the_nearest_node_that_has_some() -> None:
    machine = make_machine(nodes=3, distances=((10, 30, 20), (30, 10, 30), (20, 30, 10)))
    process = add(machine, (0,), memory_bytes=6 * GIB)
    held = process.pages_on()
    assert set(held) == {0, 2}
    assert sum(held.values()) == 6 * GIB // PAGE_BYTES
    assert machine.nodes[0].room_pages == 0


def test_phases_change_demand_and_the_memory_in_use() -> None:
    machine = make_machine()
    phases = (
        PhaseSection(lasts_seconds=10.0, cpu_cores=1.0, to_ratio=0.5),
        PhaseSection(lasts_seconds=10.0, cpu_cores=0.5, from_ratio=0.5),
    )
    process = add(machine, (0,), (0, 1), phases=phases, memory_bytes=GIB)
    assert [part.layout.n_pages for part in process.parts] == [GIB // 2 // PAGE_BYTES] * 2
    whole = process.stall_cores
    machine.move_pages(process, process.parts[0], range(GIB // PAGE_BYTES), N0, GIB)
    assert (whole > 0.0, process.stall_cores) == (True, 0.0)
    machine.enter_phase(process, 1)
    assert process.stall_cores == pytest.approx(0.5 * 0.5 * STALL_SHARE * 1.1)
    assert machine.nodes[0].demand_cores == pytest.approx(0.5)
