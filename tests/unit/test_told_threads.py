"""What is told of threads that were moved: metrics, the tick's line, the control socket, `plan`, `explain`, replays."""

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.owners import step_of
from balancerd.log import TickLog, setup
from balancerd.metrics import Metrics
from balancerd.model.decision import Reason, Skip, Steer
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.report import TickReport
from balancerd.model.steering import SteerKind, SteerOutcome, ThreadFate
from balancerd.trace import canon
from balancerd.trace.compare import say
from tests.traces.golden import path_of, recorded_config, replay
from tests.unit.cli.documents import answers
from tests.unit.reports import a_placement, a_process, a_process_report, a_report
from tests.unit.test_metrics import scrape

P = a_process()
STEER = Steer(
    policy="gather",
    process=P.id,
    target=NodeId(1),
    cpus=frozenset({CpuId(2), CpuId(3)}),
    gain_cores=0.1,
    cost_seconds=0.25,
    detail="much memory",
)
KICKED = SteerOutcome(
    step=step_of(STEER), threads={ThreadFate.MOVED: 3, ThreadFate.OWN_AFFINITY: 1}, held_threads=0, seconds=0.01
)
RELEASED = SteerOutcome(
    step=replace(step_of(STEER), kind=SteerKind.RELEASE), threads={ThreadFate.RESTORED: 2, ThreadFate.VANISHED: 1}
)


def a_tick(
    *steers: SteerOutcome, steer: Steer = STEER, rejected: tuple[Skip, ...] = (), mode: str = "enforce"
) -> TickReport:
    process = a_process_report(
        P, verdicts=(steer, *rejected), reason=Reason.STEER, placement=a_placement(P.id), run_ratio={0: 1.0}
    )
    report = a_report(processes=(process,), rejected=rejected, mode=mode)
    plan = replace(report.plan, steers=tuple(outcome.step for outcome in steers))
    return replace(report, steers=steers, plan=plan)


def test_threads_are_counted_by_kind_and_by_how_they_ended() -> None:
    metrics = Metrics(version="1")
    metrics.emit(a_tick(KICKED, RELEASED))
    metrics.emit(a_tick(KICKED))
    samples = scrape(metrics)
    told = {
        name.removeprefix("balancerd_thread_moves_total"): value
        for name, value in samples.items()
        if name.startswith("balancerd_thread_moves_total") and value
    }
    assert told == {
        '{kind="kick",outcome="moved"}': 6,
        '{kind="kick",outcome="own-affinity"}': 2,
        '{kind="release",outcome="restored"}': 2,
        '{kind="release",outcome="vanished"}': 1,
    }
    assert samples['balancerd_decisions_total{action="steer",policy="gather"}'] == 2
    assert 'balancerd_thread_moves_total{kind="pin",outcome="eperm"}' in samples, "told before it happens"


def test_what_kept_threads_is_a_suppressed_decision() -> None:
    metrics = Metrics(version="1")
    metrics.emit(a_tick(replace(KICKED, threads={}, stopped_by=Reason.NO_JOURNAL)))
    assert scrape(metrics)['balancerd_decisions_suppressed_total{policy="gather",reason="no-journal"}'] == 1


def test_the_line_of_a_tick_tells_of_threads() -> None:
    stream = io.StringIO()
    TickLog(setup(level="info", form="json", stream=stream)).emit(a_tick(KICKED, RELEASED))
    line = json.loads(stream.getvalue())
    assert line["threads"] == {"moved": 3, "own-affinity": 1, "restored": 2, "vanished": 1}


def test_the_control_socket_tells_the_verdict() -> None:
    document: Any = answers(a_tick(KICKED))[f"/v1/processes/{P.id.pid}"][1]
    (verdict,) = document["process"]["verdicts"]
    assert (verdict["action"], verdict["target"], verdict["pin"]) == ("steer", 1, False)
    assert (verdict["gain_cores"], verdict["cost_seconds"]) == (0.1, 0.25)


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (a_tick(KICKED), "moving"),
        (a_tick(steer=replace(STEER, pin=True)), "moving"),
        (a_tick(rejected=(Skip(by="plan", process=P.id, reason=Reason.MEMORY_MOVED),)), "waits"),
        (a_tick(replace(KICKED, stopped_by=Reason.OBSERVE_MODE), mode="observe"), "observed"),
    ],
)
def test_the_plan_tells_of_threads(report: TickReport, state: str) -> None:
    document: Any = answers(report)["/v1/plan"][1]
    (move,) = document["moves"]
    assert (move["action"], move["bytes"], move["from"], move["to"], move["state"]) == ("steer", 0, None, 1, state)


def test_decisions_about_threads_are_told_in_traces() -> None:
    lines = list(canon.tell(a_tick(KICKED, RELEASED), canon.OwnNames(), details=False))
    assert lines == [
        "verdict 4242 gather kick to node 1 steer, CPUs 2-3, gain 0.1, cost 0.25",
        "steer 4242 gather kick to node 1 CPUs 2-3",
        "steer 4242 gather release to node 1 CPUs 2-3",
    ]
    assert say(a_tick(KICKED))[P.id].what == "steer: threads to node 1"
    assert say(a_tick(RELEASED))[P.id].what == "steer"


def test_a_replay_that_steers_what_was_not_steered_says_that_it_does_not_know() -> None:
    path = path_of("threads")
    config = recorded_config(path)
    pinning = tuple(
        policy.model_copy(update={"method": "pin"}) if policy.kind == "threads" else policy
        for policy in config.policies
    )
    same, other = replay(path), replay(path, config.model_copy(update={"policies": pinning}))
    for each in (same, other):
        for _ in each.ticks():
            pass
    assert same.summary.missing["thread moves"] == 0
    assert same.summary.asked["thread moves"] > 5
    assert other.summary.missing["thread moves"] > 0
