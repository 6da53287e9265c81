import itertools
from typing import Any

import pytest

from balancerd.engine.gate import STALL_SHARE, cost_seconds
from balancerd.simulation import optimum
from balancerd.simulation.judge import judge
from balancerd.simulation.optimum import NoSolverError, find_optimum
from balancerd.simulation.scenario import GroupSection, MachineSection, Scenario
from tests.simulations import make_means
from tests.unit.simulation.machines import GIB, MIB

HOUR = 3600.0


def make_scenario(*groups: dict[str, Any], **machine: Any) -> Scenario:
    given = {"cpus": 4, "memory_bytes": 8 * GIB, **machine}
    return Scenario(
        machine=MachineSection(**given),
        groups=tuple(GroupSection(**{"name": f"g{n}", **group}) for n, group in enumerate(groups)),
    )


def lost(scenario: Scenario) -> float:
    pytest.importorskip("scipy", reason="the optimum needs SciPy: the extra `optimum`")
    found = find_optimum(scenario, 1)
    assert found.lost_seconds is not None, found.why_not
    assert found.is_exact
    return found.lost_seconds


@pytest.mark.parametrize(
    ("groups", "machine", "expected"),
    [
        pytest.param([{"runs_on": (0,), "lies_on": (1,)}], {}, 0.0, id="threads go to their memory, which is free"),
        pytest.param(
            [{"runs_on": (0,), "allowed": (0,), "lies_on": (1,)}],
            {},
            cost_seconds(GIB, 2 * GIB),
            id="else memory moves once",
        ),
        pytest.param(
            [{"runs_on": (0,), "allowed": (0,), "lies_on": (1,), "foreign_ratio": 1.0}],
            {},
            HOUR * STALL_SHARE * 1.1,
            id="what others map stays remote",
        ),
        pytest.param(
            [{"count": 10, "cpu_cores": 1.0, "memory_bytes": MIB}], {}, 2 * HOUR, id="two cores too few, by an hour"
        ),
        pytest.param(
            [{"threads": 6, "cpu_cores": 1.0}],
            {},
            6 * HOUR * STALL_SHARE * 0.55 + cost_seconds(0, GIB),
            id="six threads need two nodes, and share their memory",
        ),
        pytest.param(
            [{"threads": 6, "cpu_cores": 1.0, "private_ratio": 1.0, "runs_on": (0, 1)}],
            {},
            0.0,
            id="or each has its own",
        ),
    ],
)
def test_the_optimum_is_what_reasoning_says(
    groups: list[dict[str, Any]], machine: dict[str, Any], expected: float
) -> None:
    assert lost(make_scenario(*groups, **machine)) == pytest.approx(expected, rel=1e-3, abs=0.01)


def test_memory_that_does_not_fit_is_split_as_well_as_can_be() -> None:
    """One process of 9 GiB on nodes that have room for less than 8."""
    scenario = make_scenario({"memory_bytes": 9 * GIB, "runs_on": (0,), "allowed": (0,)})
    away = lost(scenario) / HOUR / STALL_SHARE / 1.1 * 9
    assert away == pytest.approx(9 - 8 * 0.95, abs=0.1)


def test_it_is_the_least_of_all_placements_tried_one_by_one() -> None:
    """Five processes of different sizes on three nodes at different distances, each placement by hand."""
    cores, gib = (0.9, 0.8, 0.7, 0.6, 0.5), (3, 2, 1, 3, 2)
    table = ((10, 15, 30), (15, 10, 25), (30, 25, 10))
    scenario = make_scenario(
        *(
            {"cpu_cores": c, "memory_bytes": g * GIB, "lies_on": (0,), "runs_on": (0,)}
            for c, g in zip(cores, gib, strict=True)
        ),
        nodes=3,
        cpus=1,
        distances=table,
        memory_bytes=64 * GIB,
    )
    best = min(
        sum(max(0.0, sum(c for c, x in zip(cores, runs, strict=True) if x == node) - 1.0) for node in range(3))
        + sum(
            min(
                c * STALL_SHARE * (table[x][y] / 10 - 1) + (cost_seconds(g * GIB, 2 * GIB) / HOUR if y else 0.0)
                for y in range(3)
            )
            for c, g, x in zip(cores, gib, runs, strict=True)
        )
        for runs in itertools.product(range(3), repeat=5)
    )
    assert lost(scenario) == pytest.approx(best * HOUR, rel=1e-3)


def test_no_run_is_better_than_the_optimum() -> None:
    scenario = make_scenario(
        {"count": 3, "lies_on": (1,), "memory_bytes": GIB},
        {"count": 2, "threads": 2, "cpu_cores": 0.5, "memory_bytes": 2 * GIB, "lies_on": (0,)},
    ).model_copy(update={"duration_seconds": 900.0})
    pytest.importorskip("scipy", reason="the optimum needs SciPy: the extra `optimum`")
    found = judge(scenario, 1, make_means())
    assert found.optimum.lost_seconds is not None
    assert found.optimum.lost_seconds <= found.engine.accounts.lost_seconds < found.nothing.accounts.lost_seconds


def test_what_cannot_be_solved_is_left_out_and_says_why() -> None:
    pytest.importorskip("scipy", reason="the optimum needs SciPy: the extra `optimum`")
    groups = ({"count": 2, "memory_bytes": 7 * GIB}, {"count": 1, "memory_bytes": 1200 * MIB})
    full = find_optimum(make_scenario(*groups), 1)
    assert (full.lost_seconds, full.why_not) == (None, "the memory of all processes does not fit beside the watermarks")


def test_without_scipy_there_is_no_optimum_but_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "find_spec", lambda _name: None)
    scenario = make_scenario({"lies_on": (1,)}).model_copy(update={"duration_seconds": 60.0})
    with pytest.raises(NoSolverError, match=r"balancerd\[optimum\]"):
        find_optimum(scenario, 1)
    found = judge(scenario, 1, make_means())
    assert (found.to_optimum_ratio, "balancerd[optimum]" in found.optimum.why_not) == (None, True)
    assert found.to_nothing_ratio is not None
