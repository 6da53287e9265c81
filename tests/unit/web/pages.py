"""Memories and views of the page for tests, at monotonic second 100 unless a test says so."""

from collections.abc import Sequence
from dataclasses import replace

from balancerd.config.schema import Config
from balancerd.model.decision import Reason
from balancerd.model.report import Failure, PolicyFailure, TickReport
from balancerd.web.memory import PageMemory, View
from balancerd.web.page import render
from tests.unit.reports import (
    a_decision,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    a_workload_report,
    an_outcome,
)
from tests.unit.web.reading import Reading

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\udc80\u202e"


class Times:
    """A clock that stands still."""

    def __init__(self, now: float = 100.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


def a_memory(times: Times, *, config: Config | None = None, host: str = "db-7") -> PageMemory:
    return PageMemory(times.now, version="1.2.3", host=host, config=config or Config())


def a_view(reports: Sequence[TickReport] = (), *, config: Config | None = None, host: str = "db-7") -> View:
    """What is known after these ticks."""
    memory = a_memory(Times(), config=config, host=host)
    for report in reports:
        memory.emit(report)
    return memory.view()


def read(view: View, now: float = 100.5) -> Reading:
    """The page, read."""
    return Reading(render(view, now))


def a_hostile_report() -> TickReport:
    """A tick in which whatever has a name has that one."""
    process = a_process(666, comm=EVIL[:60])
    decision = replace(a_decision(process.id, policy=EVIL), detail=EVIL)
    outcome = replace(an_outcome(process.id, policy=EVIL, stopped_by=Reason.CALL_FAILED), detail=EVIL)
    return a_report(
        processes=[a_process_report(process, verdicts=[decision], placement=a_placement(process.id), outcome=outcome)],
        outcomes=[outcome],
        workloads=[a_workload_report(EVIL)],
        disabled={EVIL: PolicyFailure(cause=Failure.RAISED, detail=EVIL)},
        paused=EVIL,
    )
