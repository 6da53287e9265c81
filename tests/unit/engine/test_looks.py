"""The longer nothing changes, the later the next look; any change brings the process back."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.looks import Circumstances, Looks, circumstances, present_home
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.interval import Interval
from balancerd.model.workload import Workload, WorkloadKind
from tests.unit.fakes import MIB, N0, N1, N2, make_placement, make_process, make_survey, make_topology

PID = ProcessId(100, 1)
USUAL = Circumstances(home=N0, rss_bytes=256 * MIB, faults_per_second=500.0, workload_shares={N0: 0.9, N1: 0.1})


def next_looks(looks: Looks, held: dict[int, float], times: int, start: float = 0.0, **changes: Any) -> list[float]:
    """Look so many times, each as soon as it is due; return the waits between."""
    waits, now = [], start
    for _ in range(times):
        looks.note(replace(make_placement(held, taken_at=now), **changes), USUAL)
        wait = next(s for s in (5, 10, 20, 40, 80, 160, 320, 640) if looks.is_due(PID, USUAL, now + s))
        assert not looks.is_due(PID, USUAL, now + wait - 0.1)
        assert looks.due_at(PID) == now + wait
        waits.append(float(wait))
        now += wait
    return waits


def test_an_unknown_process_is_due() -> None:
    assert Looks().is_due(PID, USUAL, 0.0)
    assert Looks().due_at(PID) is None


def test_intervals_double_while_nothing_changes() -> None:
    assert next_looks(Looks(), {0: 256}, 9) == [5, 10, 20, 40, 80, 160, 320, 320, 320]


@pytest.mark.parametrize(("held", "wait"), [({0: 252, 2: 4}, 40.0), ({0: 240, 2: 16}, 5.0), ({2: 256}, 5.0)])
def test_memory_that_lies_elsewhere_brings_the_process_back(held: dict[int, float], wait: float) -> None:
    looks = Looks()
    next_looks(looks, {0: 256}, 3)
    assert next_looks(looks, held, 1, start=35.0) == [wait]


@pytest.mark.parametrize(("half_width", "wait"), [(0.01, 5.0), (0.05, 40.0)])
def test_a_difference_that_chance_explains_is_no_change(half_width: float, wait: float) -> None:
    unsure = {N0: Interval(0.9 - half_width, 0.9 + half_width), N2: Interval(0.1 - half_width, 0.1 + half_width)}
    looks = Looks()
    next_looks(looks, {0: 256}, 3, intervals=unsure)
    assert next_looks(looks, {0: 240, 2: 16}, 1, start=35.0, intervals=unsure) == [wait]


def test_memory_away_from_a_new_home_is_looked_at_again_at_once_but_only_once() -> None:
    looks, at_2 = Looks(), replace(USUAL, home=N2)
    looks.note(make_placement({0: 256}, taken_at=0.0), USUAL)
    for taken_at, wait in ((2.0, 0.0), (4.0, 5.0), (9.0, 10.0)):
        looks.note(make_placement({0: 256}, taken_at=taken_at), at_2)
        assert looks.due_at(PID) == taken_at + wait


def test_memory_at_a_new_home_is_not() -> None:
    looks = Looks()
    looks.note(make_placement({0: 256}, taken_at=0.0), USUAL)
    looks.note(make_placement({0: 1, 2: 255}, taken_at=2.0), replace(USUAL, home=N2))
    assert looks.due_at(PID) == 7.0


def test_mappings_that_come_or_go_bring_the_process_back() -> None:
    looks = Looks()
    next_looks(looks, {0: 256}, 3, n_vmas=20)
    assert next_looks(looks, {0: 256}, 1, start=35.0, n_vmas=21) == [5.0]


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, False),
        ({"rss_bytes": 268 * MIB}, False),
        ({"rss_bytes": 270 * MIB}, True),
        ({"rss_bytes": 240 * MIB}, True),
        ({"home": N2}, True),
        ({"home": None}, False),
        ({"faults_per_second": 1499.0}, False),
        ({"faults_per_second": 1501.0}, True),
        ({"faults_per_second": None}, False),
        ({"workload_shares": {N0: 0.89, N1: 0.11}}, False),
        ({"workload_shares": {N0: 0.87, N1: 0.13}}, True),
        ({"workload_shares": {N0: 0.9, N2: 0.1}}, True),
        ({"workload_shares": None}, False),
    ],
)
def test_a_change_that_cheap_files_show_brings_the_process_back_at_once(changes: dict[str, Any], due: bool) -> None:
    looks = Looks()
    next_looks(looks, {0: 256}, 5)
    assert looks.is_due(PID, replace(USUAL, **changes), 76.0) is due


def test_few_faults_are_no_change_however_much_more_they_are_than_before() -> None:
    looks = Looks()
    looks.note(make_placement({0: 256}), replace(USUAL, faults_per_second=1.0))
    assert not looks.is_due(PID, replace(USUAL, faults_per_second=999.0), 1.0)
    assert looks.is_due(PID, replace(USUAL, faults_per_second=1001.0), 1.0)


def test_a_process_that_is_gone_is_forgotten() -> None:
    looks = Looks()
    looks.note(make_placement({0: 1}), USUAL)
    looks.forget_all_but({ProcessId(7, 1)})
    assert looks.is_due(PID, USUAL, 0.0)


@pytest.mark.parametrize(
    ("run", "home"),
    [
        ({0: 2.0}, N0),
        ({0: 1.8, 2: 0.2}, N0),
        ({0: 1.7, 2: 0.3}, None),
        ({0: 0.0}, None),
        ({}, None),
        ({3: 2.0}, None),
    ],
)
def test_the_present_home_is_the_node_with_memory_of_nearly_all_run_time(
    run: dict[int, float], home: NodeId | None
) -> None:
    assert present_home(make_process(run=run), make_topology(memoryless=[3])) == home


def test_circumstances_are_what_the_survey_tells() -> None:
    workload = Workload(kind=WorkloadKind.UNIT, name="a.service", cgroup="/a.service")
    process = make_process(workload=workload, faults_per_second=7.0)
    survey = replace(make_survey(process), workload_bytes={"/a.service": {N0: 3 * MIB, N2: MIB}})
    assert circumstances(process, survey) == Circumstances(
        home=N0, rss_bytes=256 * MIB, faults_per_second=7.0, workload_shares={N0: 0.75, N2: 0.25}
    )
    assert circumstances(process, make_survey(process)).workload_shares is None


def test_a_process_that_cannot_be_looked_at_is_tried_less_and_less_but_every_forty_seconds() -> None:
    looks, now, waits = Looks(), 0.0, []
    for _ in range(5):
        looks.note_miss(PID, now)
        wait = next(s for s in (5, 10, 20, 40, 80) if looks.is_due(PID, replace(USUAL, home=N2), now + s))
        waits.append(wait)
        now += wait
    assert waits == [5, 10, 20, 40, 40]
    looks.note(make_placement({0: 256}, taken_at=now), USUAL)
    assert looks.is_due(PID, USUAL, now + 5.0)
    looks.note_miss(PID, now)
    assert not looks.is_due(PID, USUAL, now + 4.9)
    looks.forget_all_but(set())
    assert looks.is_due(PID, USUAL, now)
