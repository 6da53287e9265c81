"""A daemon of which every metric of the catalogue has a value."""

from dataclasses import replace

from balancerd.metrics import Metrics
from balancerd.model.copying import Copying, PairCopied
from balancerd.model.decision import Reason, Skip
from balancerd.model.event import HistoryFigures
from balancerd.model.ids import NodeId
from balancerd.model.report import Failure, PolicyFailure
from balancerd.model.sample import Pressure
from tests.unit.reports import (
    a_decision,
    a_judged_move,
    a_moving_report,
    a_process,
    a_process_report,
    a_report,
    a_workload_report,
)


def full_metrics() -> Metrics:
    """Every metric of the catalogue has a value."""
    figures = HistoryFigures(
        written_events=70, lost_events={"queue": 2}, errors={"corrupt": 1}, rows=50, kept_bytes=4096, trouble=None
    )
    metrics = Metrics(
        version="1.2.3",
        unix_seconds=lambda: 1_000_000.0,
        numa_balancing_mode=lambda: 1,
        history=lambda: figures,
    )
    process = a_process()
    metrics.emit(a_moving_report(1))
    skip = Skip(by="plan", process=process.id, reason=Reason.COOLDOWN)
    seen = a_process_report(process, verdicts=(a_decision(process.id), skip))
    pressed = Pressure(cpu_ratio=0.2, memory_ratio=0.0)
    busy = Skip(by="plan", process=process.id, reason=Reason.PRESSURE)
    metrics.emit(a_report(number=2, processes=(seen,), rejected=(skip, busy), pressure=pressed))
    last = replace(a_moving_report(3), survey=replace(a_report().survey, pressure=pressed))
    named = (a_workload_report("web.service"),)
    slow = {"mine": PolicyFailure(cause=Failure.SLOW, detail="it took 7 s")}
    pair = PairCopied(source=NodeId(1), target=NodeId(0), copied_bytes=4e9, seconds=2.0)
    judged = (a_judged_move(process.id),)
    last = replace(last, judged=judged, copying=Copying(copied_bytes=4e9, seconds=2.0, pairs=(pair,)))
    metrics.emit(replace(last, workloads=named, scan_cpu_seconds=0.5, scan_budget_ratio=0.25, disabled_policies=slow))
    metrics.tick_failed("survey", "OSError")
    metrics.control_request("GET", 200)
    metrics.turned_away("control", "no-seat")
    metrics.reload(succeeded=True, at=900_000.0)
    metrics.limit(1e9)
    return metrics
