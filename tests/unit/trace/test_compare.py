"""The last word on each process of a tick, as two runs are compared by."""

from dataclasses import replace

import pytest

from balancerd.model.ids import CpuId, NodeId
from balancerd.model.report import TickReport
from balancerd.model.steering import SteerKind, SteerStep
from balancerd.trace.compare import say
from tests.unit.reports import a_moving_report, a_process, an_eviction_outcome

PROCESS = a_process().id


def a_steer(kind: SteerKind, node: int) -> SteerStep:
    return SteerStep(policy="threads", process=PROCESS, target=NodeId(node), cpus=frozenset({CpuId(0)}), kind=kind)


def planned(*, steers: tuple[SteerStep, ...] = (), cold_only: bool | None = None) -> TickReport:
    report = a_moving_report()
    evictions = () if cold_only is None else (an_eviction_outcome(PROCESS, cold_only=cold_only).step,)
    return replace(report, plan=replace(report.plan, steers=steers, evictions=evictions))


def test_of_a_tick_that_is_missing_nothing_is_said() -> None:
    assert say(None) == {}


@pytest.mark.parametrize(
    ("report", "done"),
    [
        (planned(), "moves to node 0"),
        (planned(steers=(a_steer(SteerKind.PIN, 1),)), "moves to node 0, threads to node 1"),
        (planned(steers=(a_steer(SteerKind.RELEASE, 1),)), "moves to node 0"),
        (
            planned(steers=(a_steer(SteerKind.RELEASE, 0), a_steer(SteerKind.KICK, 1))),
            "moves to node 0, threads to node 1",
        ),
        (planned(cold_only=True), "moves to node 0, cold"),
        (planned(cold_only=False), "moves to node 0, evicted"),
    ],
)
def test_what_is_done_with_a_process_is_said_in_its_order(report: TickReport, done: str) -> None:
    said = say(report)
    told = next(each for each in report.processes if each.process.id == PROCESS)
    assert (said[PROCESS].what, said[PROCESS].detail) == (f"{told.reason.value}: {done}", told.detail)
    (other,) = (each for each in report.processes if each.process.id != PROCESS)
    assert said[other.process.id].what == other.reason.value
