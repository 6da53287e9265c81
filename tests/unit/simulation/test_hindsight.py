"""What moving memory alone could have cost, of lives short enough to be worked out by hand, or by trying all ways."""

import itertools
from collections.abc import Sequence
from random import Random

import pytest

from balancerd.engine.gate import STALL_SHARE, cost_seconds
from balancerd.model.ids import NodeId
from balancerd.simulation import loading
from balancerd.simulation.hindsight import Hindsight
from balancerd.simulation.machine import Machine
from balancerd.simulation.process import SimProcess
from balancerd.simulation.run import run_engine, run_without
from tests.simulations import make_means, random_scenario, under
from tests.unit.simulation.machines import GIB, add, make_machine

FAR = STALL_SHARE * 1.1
PRICE = cost_seconds(GIB, 2 * GIB)
BREAK_EVEN = PRICE / FAR


def live(machine: Machine, process: SimProcess, stays: Sequence[tuple[int, float]]) -> Hindsight:
    """Let the first thread be on one node after the other for so many seconds each; on the same one it changes, too."""
    hindsight = Hindsight(machine)
    for node, seconds in stays:
        machine.enter_phase(process, 0)
        machine.move_thread(process.threads[0], NodeId(node))
        machine.advance(machine.now + seconds)
    return hindsight


@pytest.mark.parametrize(
    ("stays", "foresight", "waiting"),
    [
        pytest.param([(0, 100.0)], 0.0, 0.0, id="at home"),
        pytest.param([(1, 0.5 * BREAK_EVEN)], 0.5 * PRICE, 0.5 * PRICE, id="away for less than the move costs"),
        pytest.param([(1, 9 * BREAK_EVEN)], PRICE, PRICE, id="away for longer: at once"),
        pytest.param(
            [(1, 0.4 * BREAK_EVEN), (0, 50.0)] * 3, 3 * 0.4 * PRICE, 3 * 0.4 * PRICE, id="visits are none to follow"
        ),
        pytest.param(
            [(1, 0.4 * BREAK_EVEN), (0, 50.0), (1, 20 * BREAK_EVEN)],
            1.4 * PRICE,
            (0.4 + 1.5) * PRICE,
            id="a visit and a stay: who waits for half the price pays that besides",
        ),
        pytest.param(
            [(1, 0.4 * BREAK_EVEN), (0, 0.1 * BREAK_EVEN), (1, 20 * BREAK_EVEN)],
            1.1 * PRICE,
            (0.4 + 1.5) * PRICE,
            id="with foresight it goes there before the visit ends",
        ),
        pytest.param(
            [(1, 0.4 * BREAK_EVEN), (0, 50.0), (1, 0.3 * BREAK_EVEN), (1, 0.3 * BREAK_EVEN), (1, 20 * BREAK_EVEN)],
            1.4 * PRICE,
            (0.4 + 1.5) * PRICE,
            id="what is lost adds up over changes that are none",
        ),
        pytest.param(
            [(1, 0.3 * BREAK_EVEN), (2, 0.3 * BREAK_EVEN), (0, 50.0), (1, 20 * BREAK_EVEN)],
            1.6 * PRICE,
            (0.6 + 1.5) * PRICE,
            id="but not from one visit to the next",
        ),
    ],
)
def test_a_life_of_one_process(stays: list[tuple[int, float]], foresight: float, waiting: float) -> None:
    machine = make_machine(nodes=3)
    process = add(machine, (0,), memory_bytes=GIB)
    bounds = live(machine, process, stays).bounds()
    assert bounds.foresight_seconds == pytest.approx(foresight)
    assert bounds.waiting_seconds == pytest.approx(waiting)


@pytest.mark.parametrize(
    ("runs_on", "lies_on", "group", "expected"),
    [
        pytest.param((0, 1), (0,), {"private_ratio": 1.0}, 0.5 * PRICE, id="what threads own follows each"),
        pytest.param((0, 1), (0,), {}, 1000.0 * FAR, id="what threads on two nodes share is as well off anywhere"),
        pytest.param((1,), (0,), {"foreign_ratio": 0.5}, 500.0 * FAR + 0.5 * PRICE, id="what others map stays"),
        pytest.param((1,), (0, 1), {}, 0.5 * PRICE, id="the half that is there stays"),
        pytest.param((1,), (0, 1), {"memory_bound_ratio": 0.001}, 0.5 * FAR, id="and for little so does the other"),
    ],
)
def test_each_piece_goes_its_own_way(
    runs_on: tuple[int, ...], lies_on: tuple[int, ...], group: dict[str, float], expected: float
) -> None:
    machine = make_machine()
    add(machine, runs_on, lies_on, memory_bytes=GIB, **group)
    hindsight = Hindsight(machine)
    machine.advance(1000.0)
    bounds = hindsight.bounds()
    assert bounds.foresight_seconds == pytest.approx(expected)
    assert bounds.waiting_seconds == pytest.approx(expected)


def test_who_has_ended_costs_no_more() -> None:
    machine = make_machine()
    process = add(machine, (1,), (0,), memory_bytes=GIB)
    hindsight = live(machine, process, [(1, 0.5 * BREAK_EVEN)])
    machine.remove(process)
    machine.advance(machine.now + 1000.0)
    assert hindsight.bounds().foresight_seconds == pytest.approx(0.5 * PRICE)


def test_a_wait_is_chosen_for_each_group_but_not_for_each_process() -> None:
    machine = make_machine(cpus=16, memory_bytes=8 * GIB)
    long_ = [add(machine, (1,), (0,), name="a", memory_bytes=GIB) for _ in range(2)]
    short = [add(machine, (1,), (0,), name="a", memory_bytes=GIB) for _ in range(2)]
    hindsight = Hindsight(machine)
    machine.advance(0.4 * BREAK_EVEN)
    for process in short:
        machine.remove(process)
    machine.advance(100 * BREAK_EVEN)
    bounds = hindsight.bounds()
    assert len(long_) == 2
    assert bounds.foresight_seconds == pytest.approx((2 * 0.4 + 2) * PRICE)
    assert bounds.waiting_seconds == pytest.approx((2 * 0.4 + 2 * 1.5) * PRICE)


@pytest.mark.parametrize("seed", range(5))
def test_foresight_is_the_cheapest_of_all_ways(seed: int) -> None:
    """By trying all: where the memory is in each of six stays on three nodes."""
    chance = Random(seed)  # noqa: S311 the same in every run
    stays = [(chance.randrange(3), chance.uniform(0.0, 2.5) * BREAK_EVEN) for _ in range(6)]
    machine = make_machine(nodes=3)
    process = add(machine, (0,), memory_bytes=GIB)
    found = live(machine, process, stays).bounds()
    cheapest = min(
        sum(
            (PRICE if at != before else 0.0) + (FAR * seconds if at != node else 0.0)
            for before, at, (node, seconds) in zip((0, *way), way, stays, strict=False)
        )
        for way in itertools.product(range(3), repeat=len(stays))
    )
    assert found.foresight_seconds == pytest.approx(cheapest)


@pytest.mark.parametrize("seed", range(12))
def test_nobody_who_moves_memory_alone_loses_less_than_with_foresight(seed: int) -> None:
    scenario = random_scenario(seed)
    watching: list[Hindsight] = []
    nothing = run_without(scenario, seed, lambda machine: watching.append(Hindsight(machine))).accounts
    bounds = watching[0].bounds()
    engine = run_engine(scenario, seed, make_means()).accounts
    assert bounds.foresight_seconds <= bounds.waiting_seconds + 1e-6
    assert bounds.waiting_seconds <= nothing.stall_seconds + 1e-6
    assert bounds.foresight_seconds <= engine.stall_seconds + engine.moving_seconds + 1e-6


def test_watching_changes_nothing() -> None:
    scenario = under(loading.load("storm"), "random", 300.0)
    watching: list[Hindsight] = []
    watched = run_without(scenario, 1, lambda machine: watching.append(Hindsight(machine)))
    assert watched == run_without(scenario, 1)
    assert watching[0].bounds().foresight_seconds > 0.0
