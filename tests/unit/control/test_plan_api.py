"""GET /v1/plan: what is moved, waits, is only observed or refused; and why, down to the line, of GET /v1/processes."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.config.loader import load_text
from balancerd.config.places import find_places
from balancerd.control import api, plan_api
from balancerd.control.state import ControlState
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId
from balancerd.model.interval import Interval
from balancerd.model.judged import MoveResult
from balancerd.model.report import TickReport
from balancerd.model.sample import PlacementSample
from tests.unit.reports import (
    MIB,
    a_decision,
    a_judged_move,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    an_eviction,
    an_eviction_outcome,
    an_outcome,
)

P = a_process()


def a_plan(*verdicts: Verdict, placement: PlacementSample | None = None, **report: Any) -> list[dict[str, Any]]:
    placed = a_placement(P.id) if placement is None else placement
    process = a_process_report(P, verdicts=verdicts, placement=placed)
    moves: list[dict[str, Any]] = told(a_report(processes=(process,), **report))["moves"]
    return moves


def told(report: TickReport) -> Any:
    state = ControlState(lambda: 100.0)
    state.emit(report)
    return plan_api.plan(state.view(), now=101.5)


def rejected(reason: Reason, by: str = "plan", detail: str = "", needs: str = "") -> Skip:
    return Skip(by=by, process=P.id, reason=reason, detail=detail, needs=needs)


def test_before_the_first_tick_nothing_is_planned() -> None:
    answer = plan_api.plan(ControlState(lambda: 1.0).view(), now=2.0)
    assert answer == {"schema": 1, "tick": None, "mode": None, "age_seconds": None, "moves": []}


def test_a_move_tells_who_from_where_how_much_what_it_costs_and_what_it_wins() -> None:
    (move,) = a_plan(a_decision(P.id), outcomes=(an_outcome(P.id),))
    assert move == {
        "pid": 4242,
        "start_ticks": 1000,
        "comm": "spin",
        "workload": "spin.service",
        "policy": "home",
        "action": "migrate",
        "bytes": 256 * MIB,
        "from": {"1": 256 * MIB},
        "to": 0,
        "seconds": 0.25,
        "cost_seconds": 0.5,
        "gain_cores": 0.13,
        "confidence": None,
        "state": "moving",
        "reason": "misplaced",
        "reason_text": "its memory is away from the node where its threads run",
        "detail": "home is node 0",
        "needs": "",
    }


OBSERVED = rejected(Reason.OBSERVE_MODE, "tick", "policy home; home is node 0")


@pytest.mark.parametrize(
    ("verdicts", "report", "state", "reason", "needs"),
    [
        ((a_decision(P.id),), {"outcomes": (an_outcome(P.id),)}, "moving", "misplaced", ""),
        (
            (a_decision(P.id),),
            {"mode": "observe", "outcomes": (an_outcome(P.id, stopped_by=Reason.OBSERVE_MODE),)},
            *("observed", "misplaced", "mode: enforce"),
        ),
        ((a_decision(P.id), OBSERVED), {}, "observed", "misplaced", "mode: enforce"),
        (
            (a_decision(P.id), rejected(Reason.COOLDOWN, needs="12 s more of rest")),
            {},
            *("waits", "cooldown", "12 s more of rest"),
        ),
        ((a_decision(P.id), rejected(Reason.MIGRATION_BUDGET, "tick")), {}, "waits", "migration-budget", ""),
        (
            (Skip(by="home", process=P.id, reason=Reason.HOME_TOO_YOUNG, wanted=a_decision(P.id), needs="3.1 s more"),),
            {},
            *("refused", "home-too-young", "3.1 s more"),
        ),
        ((an_eviction(P.id),), {"evictions": (an_eviction_outcome(P.id),)}, "moving", "evict", ""),
    ],
)
def test_each_move_says_what_becomes_of_it(
    verdicts: tuple[Verdict, ...], report: dict[str, Any], state: str, reason: str, needs: str
) -> None:
    (move,) = a_plan(*verdicts, **report)
    assert (move["state"], move["reason"], move["needs"]) == (state, reason, needs)


def test_the_observed_policy_is_the_one_that_only_observes() -> None:
    other = a_decision(P.id, policy="other")
    found = a_plan(a_decision(P.id), other, OBSERVED, outcomes=(an_outcome(P.id, policy="other"),))
    moves = {move["policy"]: move["state"] for move in found}
    assert moves == {"home": "observed", "other": "moving"}


def test_skips_that_want_nothing_are_no_plan_and_the_best_comes_first() -> None:
    assert a_plan(Skip(by="home", process=P.id, reason=Reason.WELL_PLACED)) == []
    second = a_process(7)
    better = replace(a_decision(second.id), gain_cores=2.0)
    report = a_report(
        processes=(
            a_process_report(P, verdicts=(a_decision(P.id),)),
            a_process_report(second, verdicts=(better,)),
        )
    )
    assert [move["pid"] for move in told(report)["moves"]] == [7, 4242]


def placed(intervals: dict[int, tuple[float, float]], *, exact: bool = False) -> PlacementSample:
    bounds = {NodeId(node): Interval(low, high) for node, (low, high) in intervals.items()}
    return replace(a_placement(P.id, {0: 65536.0, 1: 65536.0}), intervals=bounds, exact=exact)


@pytest.mark.parametrize(
    ("decision", "placement", "sure"),
    [
        (a_decision(P.id), placed({0: (0.45, 0.55)}), 0.9),
        (a_decision(P.id), placed({0: (0.1, 0.2)}), 1.0),
        (a_decision(P.id), placed({}), None),
        (a_decision(P.id), placed({}, exact=True), 1.0),
        (replace(a_decision(P.id), sources=frozenset({NodeId(1)})), placed({1: (0.4, 0.6)}), 0.8),
        (replace(a_decision(P.id), extents=(Extent(0, 4096),)), placed({0: (0.45, 0.55)}), None),
    ],
)
def test_confidence_is_what_of_the_bytes_is_surely_misplaced(
    decision: Decision, placement: PlacementSample, sure: float | None
) -> None:
    (move,) = a_plan(decision, placement=placement)
    assert move["confidence"] == sure


CONFIG = """\
select:
  min_rss: 512MiB
policies:
  - name: fixed
    kind: rule
    rules: [{match: [{comm: x}], never: true}]
  - name: home
    kind: follow-cpu
    min_home_age: 5s
"""


def explained(*verdicts: Verdict) -> Any:
    state = ControlState(lambda: 100.0)
    state.reloaded(path="a.yaml", succeeded=True, at=1.0, places=find_places(load_text(CONFIG, "a.yaml")))
    report = a_process_report(P, verdicts=verdicts)
    state.emit(a_report(processes=(report,)))
    state.reloaded(path="a.yaml", succeeded=False, at=2.0, error="bad")
    return api.process(state.view(), report, now=101.0)["process"]


@pytest.mark.parametrize(
    ("skip", "setting", "at"),
    [
        (Skip(by="select", process=P.id, reason=Reason.BELOW_MIN_RSS), "select.min_rss", "a.yaml:2"),
        (Skip(by="select", process=P.id, reason=Reason.BELOW_MIN_CPU), "select.min_cpu", None),
        (
            Skip(by="select", process=P.id, reason=Reason.EXCLUDED, detail="select.exclude[0]: x"),
            *("select.exclude[0]", None),
        ),
        (
            Skip(by="fixed", process=P.id, reason=Reason.NEVER, detail="fixed.rules[0].match[0]: comm 'x'"),
            *("policies.fixed.rules[0].match[0]", "a.yaml:6"),
        ),
        (Skip(by="home", process=P.id, reason=Reason.HOME_TOO_YOUNG), "policies.home.min_home_age", "a.yaml:9"),
        (Skip(by="home", process=P.id, reason=Reason.WELL_PLACED), "policies.home", "a.yaml:7"),
        (
            Skip(by="plan", process=P.id, reason=Reason.PRESSURE, detail="CPU pressure 50 %"),
            *("migrate.max_cpu_pressure", None),
        ),
    ],
)
def test_what_decided_is_told_with_its_setting_and_its_line(skip: Skip, setting: str, at: str | None) -> None:
    process = explained(skip)
    assert (process["deciding"]["by"], process["deciding"]["reason"]) == (skip.by, skip.reason.value)
    assert (process["deciding"]["setting"], process["deciding"]["at"]) == (setting, at)
    assert (process["verdicts"][0]["setting"], process["verdicts"][0]["at"]) == (setting, at)


def test_explain_tells_of_every_policy_of_the_stack_whether_it_spoke_or_not() -> None:
    refused = Skip(by="home", process=P.id, reason=Reason.GAIN_BELOW_COST, wanted=a_decision(P.id), needs="a gain")
    process = explained(refused)
    assert [(p["name"], p["kind"], p["at"], p["verdicts"]) for p in process["policies"]] == [
        ("fixed", "rule", "a.yaml:4", 0),
        ("home", "follow-cpu", "a.yaml:7", 1),
    ]
    assert process["verdicts"][0]["wanted"] == {
        "target": 0,
        "misplaced_bytes": 256 * MIB,
        "gain_cores": 0.13,
        "cost_seconds": 0.5,
    }
    assert process["deciding"]["needs"] == "a gain"


def test_explain_tells_what_the_last_move_of_the_process_came_to() -> None:
    state, now = ControlState(lambda: 100.0), 101.5
    report = a_process_report(P)
    state.emit(a_report(processes=(report,)))
    assert api.process(state.view(), report, now=now)["process"]["judged"] is None
    state.emit(a_report(processes=(report,), judged=(a_judged_move(P.id, result=MoveResult.WORSE, is_trial=True),)))
    state.emit(a_report(processes=(report,), judged=(a_judged_move(P.id), a_judged_move(a_process(8).id))))
    judged = api.process(state.view(), report, now=now)["process"]["judged"]
    assert judged == {
        "age_seconds": 2.5,
        "policy": "home",
        "to": 0,
        "result": "improved",
        "moved_bytes": 256 * MIB,
        "fallen_bytes": 256 * MIB,
        "is_trial": False,
        "detail": "256 of 256 MiB moved to node 0 are there",
    }


def test_status_tells_that_moves_rest_and_why() -> None:
    state = ControlState(lambda: 100.0)
    state.emit(a_report(paused="node 1 ran out of memory during a move"))
    answer = api.status(state.view(), version="1", pid=1, now=101.0)
    assert (answer["paused"], answer["paused_detail"]) == (True, "node 1 ran out of memory during a move")
