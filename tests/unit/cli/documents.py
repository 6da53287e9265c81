"""Answers of the control API, made by the API's own code from tick reports."""

from typing import Any

from balancerd.config.places import Places
from balancerd.control import api, heat_api, machine_api, plan_api
from balancerd.control.state import ControlState
from balancerd.history.reader import Page
from balancerd.model.decision import Reason, Skip
from balancerd.model.page_status import PageStatus
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import Mempolicy
from tests.unit.reports import (
    GIB,
    a_decision,
    a_moving_report,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    an_outcome,
)

HOSTILE = "a\n\x1b[31mb\u202e\udcff[bold]é"
"""A newline, a colour, a right-to-left override, a byte that is no UTF-8, rich's markup, and an honest letter."""

HOSTILE_ESCAPED = r"a\n\x1b[31mb\u202e\xff[bold]é"


NO_HISTORY = Page(events=(), left_off=0, oldest_at=None, daemons=())


class Time:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def a_crowd(comm: str = "spin") -> TickReport:
    """Process 4242 moves home; 51 is bound, 52 has unknown placement, 77 is idle, 5 is larger and well placed."""
    moving = a_moving_report(7).processes[0]
    bound, new, home = a_process(51, comm="bound"), a_process(52, comm="new"), a_process(5, comm="home", rss_bytes=GIB)
    idle = a_process(77, comm="idle", cpu_cores=0.001)
    outcome = an_outcome(moving.process.id, pages={PageStatus.MOVED: 1000, PageStatus.SHARED: 24})
    return a_report(
        number=7,
        processes=(
            a_process_report(
                a_process(comm=comm),
                verdicts=moving.verdicts,
                placement=moving.placement,
                outcome=outcome,
                run_ratio={0: 1.0},
                local_ratio=0.0,
            ),
            a_process_report(
                bound,
                verdicts=(
                    a_decision(bound.id),
                    Skip(by="plan", process=bound.id, reason=Reason.MEMPOLICY, detail="bind:1 on 1 of 1 mappings"),
                ),
                placement=a_placement(bound.id, {0: 16384.0, 1: 49152.0}, name="/dev/shm/x y", mempolicy=_bind(1)),
                run_ratio={0: 0.75, 1: 0.25},
                local_ratio=0.5,
            ),
            a_process_report(new, verdicts=(Skip(by="home", process=new.id, reason=Reason.NOT_SAMPLED),)),
            a_process_report(
                home,
                verdicts=(Skip(by="home", process=home.id, reason=Reason.WELL_PLACED, detail="99.9 % on node 1"),),
                placement=a_placement(home.id, {1: 262144.0}),
                run_ratio={1: 1.0},
                local_ratio=0.999,
            ),
            a_process_report(
                idle,
                verdicts=(
                    Skip(by="select", process=idle.id, reason=Reason.BELOW_MIN_CPU, detail="0.001 of 0.050 cores"),
                ),
            ),
        ),
        outcomes=(outcome,),
    )


def _bind(node: int) -> Mempolicy:
    from balancerd.model.ids import NodeId

    return Mempolicy(mode="bind", nodes=frozenset({NodeId(node)}))


def answers(
    report: TickReport | None = None, *, age_seconds: float = 0.5, places: Places | None = None
) -> dict[str, tuple[int, Any]]:
    """Everything that a daemon would answer after this tick."""
    time = Time()
    state = ControlState(time)
    told = a_crowd() if report is None else report
    state.emit(told)
    path = "/etc/balancerd/balancerd.yaml"
    state.reloaded(path=path, succeeded=True, at=1.0, places=places or Places(files=(path,)))
    time.seconds += age_seconds
    view = state.view()
    return {
        "/v1/status": (200, api.status(view, version="0.1.0", pid=812, now=time())),
        "/v1/processes": (200, api.processes(view)),
        "/v1/nodes": (200, machine_api.nodes(view, now=time())),
        "/v1/plan": (200, plan_api.plan(view, now=time())),
        "/v1/moves": (200, {"schema": 1, "moves": []}),
        "/v1/history?limit=50": (200, {"schema": 1, **NO_HISTORY.document()}),
        **{_path(each): (200, api.process(view, each, now=time())) for each in told.processes},
        **{f"{_path(each)}/heat": (200, heat_api.heat(view, each, cells=512, now=time())) for each in told.processes},
    }


def before_the_first_tick() -> dict[str, tuple[int, Any]]:
    """What a daemon answers that has just started."""
    state = ControlState(Time())
    return {
        "/v1/status": (200, api.status(state.view(), version="0.1.0", pid=812, now=101.0)),
        "/v1/processes": (200, api.processes(state.view())),
        "/v1/plan": (200, plan_api.plan(state.view(), now=101.0)),
    }


def _path(report: ProcessReport) -> str:
    return f"/v1/processes/{report.process.id.pid}"
