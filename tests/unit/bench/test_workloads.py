"""Our own workloads: small and real on this machine, and where each of them wants its memory."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.locality import workloads
from tests.bench.locality.loads import ROUNDS
from tests.bench.locality.plan import Plan, Workload
from tests.bench.locality.workloads import WORKLOADS, CrowdedLoad, Load, Shifted, ShiftedLoad, filled_up, route
from tests.unit.bench.test_loads import has_ended

CPUS = sorted(os.sched_getaffinity(0))
HERE = {0: CPUS[0], 1: CPUS[-1], 2: CPUS[-1], 3: CPUS[0]}
LAB = {0: 10, 1: 11, 2: 12, 3: 13}
NO_POOL = [name for name in WORKLOADS if name != "hugetlb"]
PAGES = {"crossed": 4 * 5120, "shared": (4 * 3 + 8) * 256, "storm": 40 * 5120}
"""What is verified, where it is not 20 MiB once; a storm's 40 processes do it each."""


def plan(*, is_bound: bool, mib: int = 20, cpus: dict[int, int] = HERE) -> Plan:
    return Plan(work=40, mib=mib, is_bound=is_bound, cpus=cpus, folder=Path("/nonexistent"))


def small(name: str) -> Workload:
    workload = WORKLOADS[name]
    if isinstance(workload, CrowdedLoad):
        return replace(workload, held_ratio=0.0)
    return workload


@pytest.mark.usefixtures("loads_program")
@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("name", NO_POOL)
def test_each_does_all_the_work_and_finds_its_memory_right(name: str, *, is_bound: bool) -> None:
    marks: list[int] = []
    with small(name).start(plan(is_bound=is_bound)) as running:
        running.work(marks.append)
        assert marks == [1, 2, 3]
        assert sum(gaps.n for gaps in running.gaps.values()) == 40 * ROUNDS
        assert not any(map(has_ended, running.pids))
        told = running.finish()
    assert told.startswith(f"verified {PAGES.get(name, 5120)} pages")
    assert all(map(has_ended, running.pids))


@pytest.mark.parametrize(
    ("name", "mib", "misplaced", "bound"),
    [
        ("single", 400, ["10=400@12"], ["10=400@10"]),
        (
            "crossed",
            320,
            ["10=320@12", "11=320@13", "12=320@10", "13=320@11"],
            ["10=320@10", "11=320@11", "12=320@12", "13=320@13"],
        ),
        ("parts", 336, ["10=84@10/11=84@10/12=84@10/13=84@10"], ["10=84@10/11=84@11/12=84@12/13=84@13"]),
        (
            "shared",
            320,
            ["10=48@10/11=48@10/12=48@10/13=48@10/all=128@10"],
            ["10=48@10/11=48@11/12=48@12/13=48@13/all=128@10:1,11:1,12:1,13:1"],
        ),
        ("phases", 336, ["10=336@12"], ["10=336@10"]),
        ("storm", 8, ["10=8@10", "11=8@11", "12=8@12", "13=8@13"], ["10=8@10", "11=8@11", "12=8@12", "13=8@13"]),
        ("hugetlb", 200, ["10=200@12"], ["10=200@10"]),
    ],
)
def test_memory_is_touched_where_the_workload_says(name: str, mib: int, misplaced: list[str], bound: list[str]) -> None:
    load = WORKLOADS[name]
    assert isinstance(load, Load)
    assert load.mib == mib
    for is_bound, processes in ((False, misplaced), (True, bound)):
        assert load.shape(plan(is_bound=is_bound, mib=mib, cpus=LAB)).processes == processes


def test_only_a_storm_has_nothing_to_win() -> None:
    assert [name for name, workload in WORKLOADS.items() if not workload.is_misplaced] == ["storm"]


@pytest.mark.parametrize(
    ("nodes", "expected"), [([0, 1, 2, 3], [0, 2, 1, 3]), ([0, 1], [0, 1]), ([0, 1, 2], [0, 2, 1]), ([0], [0])]
)
def test_a_scheduler_goes_through_all_nodes_away_from_the_last(nodes: list[int], expected: list[int]) -> None:
    assert route({node: node + 10 for node in nodes}) == [node + 10 for node in expected]


@pytest.mark.usefixtures("loads_program")
def test_a_shifted_process_is_moved_with_all_its_threads_as_time_passes() -> None:
    workload = WORKLOADS["shifted-5"]
    assert isinstance(workload, ShiftedLoad)
    with replace(workload, stays_seconds=0.0).start(plan(is_bound=False)) as running:
        assert isinstance(running, Shifted)

        def watch_some(number: int) -> None:
            while running.n_shifts < 5 * number:
                os.sched_yield()

        running.work(watch_some)
        after = running.n_shifts
        for number in range(after + 1, after + 5):
            running.shift()
            assert os.sched_getaffinity(running.pids[0]) == {running.route[number % 4]}
        assert running.finish() == f"verified 5120 pages, shifted {after + 4} times"


@pytest.mark.usefixtures("loads_program")
def test_a_bound_process_is_never_shifted() -> None:
    with WORKLOADS["shifted-5"].start(plan(is_bound=True)) as running:
        assert not isinstance(running, Shifted)


@pytest.mark.parametrize(
    ("room_mib", "touch"),
    [(3, "10:768,11:1792"), (0, "11:2560"), (-1, "11:2560"), (9, "10:2304,11:256"), (10, "10:2560"), (99, "10:2560")],
)
def test_a_bound_process_fills_its_node_and_goes_on_at_the_closest(room_mib: int, touch: str) -> None:
    assert filled_up(plan(is_bound=True, mib=10, cpus=LAB), room_mib * workloads.MIB) == touch
