"""Frames of `balancerctl top`, made from tick reports by the daemon's own code."""

import functools
import json
from dataclasses import replace
from typing import Any

from balancerd.cli.top.frame import Asked, Frame, of_event
from balancerd.control import api, workload_api
from balancerd.control.state import ControlState
from balancerd.control.stream_api import Stream
from balancerd.model.report import TickReport
from tests.unit.cli.documents import Time, answers
from tests.unit.cli.test_workload_commands import a_machine

__all__ = ["a_frame", "a_machine", "an_event", "answers_to_top"]


def an_event(report: TickReport | None = None, asked: Asked | None = None, *, age_seconds: float = 0.5) -> Any:
    """The event that a client of GET /v1/stream is told first."""
    time = Time()
    state = ControlState(time)
    status = functools.partial(api.status, version="0.1.0", pid=812)
    stream = Stream(state, status=status, now=time)
    told = a_machine() if report is None else report
    state.emit(told)
    stream.emit(told)
    time.seconds += age_seconds
    wanted = workload_api.Asked() if asked is None else workload_api.Asked(sort=asked.sort, match=asked.match)
    body = stream.open(wanted, lambda: False)
    chunks = iter(body)
    next(chunks)
    event = json.loads(next(chunks).decode().splitlines()[2].removeprefix("data: "))
    body.close()
    return event


def a_frame(
    report: TickReport | None = None,
    asked: Asked | None = None,
    *,
    tick: int = 7,
    moved_bytes: int = 4_096_000,
    pid: int = 812,
    age_seconds: float = 0.5,
    **status: Any,
) -> Frame:
    """The frame of a tick; `status` replaces keys of GET /v1/status."""
    told = replace(a_machine() if report is None else report, number=tick)
    frame = of_event(an_event(told, asked, age_seconds=age_seconds))
    totals = {**frame.status["totals"], "moved_bytes": moved_bytes}
    return replace(frame, status={**frame.status, "pid": pid, "totals": totals, **status})


def answers_to_top(report: TickReport | None = None, query: str = "sort=remote") -> dict[str, tuple[int, Any]]:
    """Everything that a daemon without streams would answer after this tick."""
    told = a_machine() if report is None else report
    state = ControlState(Time())
    state.emit(told)
    asked = workload_api.parse_asked(query)
    assert asked is not None
    nothing = {"/v1/stream?" + query: (404, {"schema": 1, "error": "there is no such path"})}
    return {
        **answers(told),
        **nothing,
        f"/v1/top?{query}": (200, workload_api.top(state.view(), asked, now=100.5)),
    }
