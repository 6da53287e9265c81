"""Who is looked at, in which order, and the reason for everyone else."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.config.schema import RuleConfig
from balancerd.engine.looks import Circumstances, Looks
from balancerd.engine.rules import Rules, compile_rules
from balancerd.engine.select import Criteria, Objections, Selection, reason_to_skip, select
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.manager import Manager
from balancerd.model.sample import PlacementSample
from balancerd.ports import SurveyScope
from tests.unit.fakes import MIB, N0, make_placement, make_process, make_survey

CRITERIA = Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=7)


@pytest.mark.parametrize(
    ("pid", "changes", "reason"),
    [
        (1, {}, None),
        (2, {"kernel_thread": True, "rss_bytes": 0}, Reason.KERNEL_THREAD),
        (7, {}, Reason.SELF),
        (1, {"opt_out": "here", "rss_bytes": 1}, Reason.OPTED_OUT),
        (7, {"opt_out": "here"}, Reason.SELF),
        (1, {"rss_bytes": 64 * MIB - 1}, Reason.BELOW_MIN_RSS),
        (1, {"age_seconds": 29.9}, Reason.BELOW_MIN_AGE),
        (1, {"cpu_cores": None}, Reason.FIRST_SIGHT),
        (1, {"cpu_cores": 0.049}, Reason.BELOW_MIN_CPU),
        (1, {"cpu_cores": 0.05, "age_seconds": 30.0, "rss_bytes": 64 * MIB}, None),
    ],
)
def test_criteria(pid: int, changes: dict[str, Any], reason: Reason | None) -> None:
    skip = reason_to_skip(make_process(pid, **changes), CRITERIA)
    assert (None if skip is None else skip.reason) == reason


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"rss_bytes": 40 * MIB}, "24 MiB more resident memory"),
        ({"rss_bytes": 64 * MIB - 1}, "1 MiB more resident memory"),
        ({"age_seconds": 26.9}, "3.1 s more of age"),
        ({"cpu_cores": 0.03}, "0.020 busy cores more"),
        ({"kernel_thread": True}, ""),
    ],
)
def test_what_is_below_a_threshold_is_told_how_far(changes: dict[str, Any], needs: str) -> None:
    skip = reason_to_skip(make_process(**changes), CRITERIA)
    assert skip is not None
    assert skip.needs == needs


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"rss_bytes": 40 * MIB}, "40 of 64 MiB"),
        ({"age_seconds": 26.6}, "27 of 30 s"),
        ({"cpu_cores": 0.0301}, "0.030 of 0.050 cores"),
        ({"manager": Manager.LIBVIRT, "manager_detail": "told"}, "libvirt: told"),
    ],
)
def test_a_skip_tells_what_was_seen_and_what_was_asked_for(changes: dict[str, Any], detail: str) -> None:
    skip = reason_to_skip(make_process(**changes), replace(CRITERIA, yield_to=frozenset(Manager)))
    assert skip is not None
    assert skip.detail == detail


def test_a_manager_that_is_not_yielded_to_is_no_objection() -> None:
    assert reason_to_skip(make_process(manager=Manager.LIBVIRT, manager_detail="told"), CRITERIA) is None


def test_an_opt_out_is_told_with_where_it_was_found() -> None:
    skip = reason_to_skip(make_process(opt_out="BALANCERD=off in its environment"), CRITERIA)
    assert skip is not None
    assert (skip.reason, skip.detail) == (Reason.OPTED_OUT, "BALANCERD=off in its environment")


def test_rules_come_after_the_thresholds_and_tell_which_one_decided() -> None:
    criteria = replace(CRITERIA, rules=Rules(exclude=compile_rules([RuleConfig(comm="work.*")], "select.exclude")))
    skip = reason_to_skip(make_process(), criteria)
    assert skip is not None
    assert (skip.by, skip.reason, skip.detail) == ("select", Reason.EXCLUDED, "select.exclude[0]: comm 'work.*'")
    assert reason_to_skip(make_process(comm="other"), criteria) is None
    idle = reason_to_skip(make_process(cpu_cores=0.0), criteria)
    assert idle is not None
    assert idle.reason == Reason.BELOW_MIN_CPU


@pytest.mark.parametrize("changes", [{"opt_out": "x"}, {"age_seconds": 1.0}, {"comm": "bad"}, {"cpu_cores": None}])
def test_idle_processes_are_told_and_looked_at_only_where_a_policy_places_them(changes: dict[str, Any]) -> None:
    rules = Rules(exclude=compile_rules([RuleConfig(comm="bad")], "select.exclude"))
    survey = make_survey(
        make_process(1), make_process(2, cpu_cores=0.0), make_process(3, **{"cpu_cores": 0.0, **changes})
    )
    for placing in (False, True):
        objections = Objections(replace(CRITERIA, rules=rules, placing=placing))
        found = select(survey, objections, known={}, wanted=frozenset(), looks=Looks(), budget_seconds=1.0)
        assert [p.id.pid for p in found.eligible] == [1]
        assert [p.id.pid for p in found.idle] == [2] * placing
        assert [r.process.pid for r in found.requests] == ([1, 2] if placing else [1])
        assert [r.home for r in found.requests][:1] == ([None] if placing else [N0]), "nobody is only tested"
        assert {skip.process.pid for skip in found.skips} == {2, 3}


@pytest.mark.parametrize("asked", [{}, {"read_exe": True}, {"read_cmdline": True}])
def test_the_survey_reads_what_the_criteria_need(asked: dict[str, Any]) -> None:
    scope = replace(CRITERIA, **asked).scope
    assert scope == SurveyScope(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, **asked)


def choose(
    pids: list[int],
    *,
    known: list[PlacementSample] | None = None,
    wanted: set[int] | None = None,
    budget: float = 1.0,
    now: float = 100.0,
) -> Selection:
    looks = Looks()
    for placement in known or []:
        looks.note(placement, Circumstances(home=N0, rss_bytes=make_process().rss_bytes))
    return select(
        make_survey(*(make_process(pid) for pid in pids), at=now),
        Objections(CRITERIA),
        known={p.process: p for p in known or []},
        wanted={ProcessId(pid, 1) for pid in wanted or set()},
        looks=looks,
        budget_seconds=budget,
    )


def asked(selection: Selection) -> list[int]:
    return [request.process.pid for request in selection.requests]


def test_wanted_come_first_then_unknown_then_the_longest_unseen() -> None:
    known = [make_placement({0: 1}, pid=pid, taken_at=at) for pid, at in ((1, 80.0), (2, 50.0), (4, 99.0))]
    assert asked(choose([1, 2, 3, 4], known=known, wanted={4})) == [4, 3, 2, 1]


def test_a_fresh_placement_is_not_taken_again() -> None:
    known = [make_placement({0: 1}, pid=1, taken_at=96.0)]
    assert asked(choose([1], known=known)) == []
    assert asked(choose([1], known=known, now=102.0)) == [1]


def test_the_scan_budget_bounds_the_looks_but_never_to_none() -> None:
    selection = choose([1, 2, 4], budget=0.002)
    assert asked(selection) == [1]
    assert [(s.process.pid, s.reason) for s in selection.skips] == [(2, Reason.SCAN_BUDGET), (4, Reason.SCAN_BUDGET)]
    assert asked(choose([1, 2, 4], budget=0.0)) == [1]


def test_a_look_costs_what_the_last_one_took_and_may_take_all_that_is_left() -> None:
    known = [replace(make_placement({0: 1}, pid=pid, taken_at=1.0), seconds=0.25) for pid in (1, 2, 4)]
    assert asked(choose([1, 2, 4], known=known, budget=0.5)) == [1, 2]
    assert asked(choose([1, 2, 4], known=known, budget=0.49)) == [1]
    assert asked(choose([1, 2, 4], known=known, budget=0.75)) == [1, 2, 4]
    assert choose([1, 2, 4], known=known, budget=0.5).skips == (), "who is known is only looked at later"


def test_a_dear_look_does_not_keep_cheaper_ones_from_theirs() -> None:
    known = [
        replace(make_placement({0: 1}, pid=pid, taken_at=pid), seconds=s) for pid, s in ((1, 0.1), (2, 9.0), (4, 0.1))
    ]
    assert asked(choose([1, 2, 4], known=known, budget=0.5)) == [1, 4]


def test_idle_ones_come_last_and_wait_without_a_word() -> None:
    survey = make_survey(make_process(1, cpu_cores=0.0), make_process(2), make_process(3))
    objections = Objections(replace(CRITERIA, placing=True))
    for budget, asked_of, skipped in ((1.0, [2, 3, 1], [1]), (0.0, [2], [1, 3])):
        found = select(survey, objections, known={}, wanted=frozenset(), looks=Looks(), budget_seconds=budget)
        assert asked(found) == asked_of
        assert [skip.process.pid for skip in found.skips] == skipped


def test_the_circumstances_of_those_who_are_looked_at_are_kept() -> None:
    selection = choose([1, 2, 4], budget=0.0)
    assert selection.seen == {ProcessId(1, 1): Circumstances(home=N0, rss_bytes=make_process().rss_bytes)}


def test_everyone_surveyed_is_eligible_or_skipped() -> None:
    survey = make_survey(make_process(1), make_process(2, rss_bytes=1), make_process(3, cpu_cores=0.0))
    selection = select(survey, Objections(CRITERIA), known={}, wanted=set(), looks=Looks(), budget_seconds=1.0)
    told = {p.id for p in selection.eligible} | {s.process for s in selection.skips}
    assert told == {p.id for p in survey.processes}


def test_only_who_is_not_wanted_is_tested_against_its_home_first() -> None:
    known = [make_placement({0: 1}, pid=1, taken_at=50.0)]
    homes = {request.process.pid: request.home for request in choose([1, 2], known=known, wanted={1}).requests}
    assert homes == {1: None, 2: N0}


def test_the_verdict_on_a_process_stands_until_it_is_read_again() -> None:
    objections = Objections(CRITERIA)
    process = make_process(cpu_cores=0.01)
    first = objections.to(process)
    assert first is not None
    assert objections.to(process) is first
    assert objections.to(make_process(cpu_cores=0.01)) is not first
    assert objections.to(make_process(cpu_cores=1.0)) is None
    first = objections.to(process)
    objections.forget_all_but({process.id})
    assert objections.to(process) is first
    objections.forget_all_but(set())
    assert objections.to(process) is not first
    kept, gone = make_process(1, cpu_cores=0.01), make_process(2, cpu_cores=0.01)
    of_kept, of_gone = objections.to(kept), objections.to(gone)
    objections.forget_all_but({kept.id})
    assert objections.to(kept) is of_kept
    assert objections.to(gone) is not of_gone
