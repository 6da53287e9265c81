"""Replay under another configuration: what was not asked is not known, and where two configurations differ."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.config.schema import Config, MigrateConfig, PolicyConfig, SelectConfig
from balancerd.model.access import Accesses
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationStep, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import SampleRequest, Sampling
from balancerd.trace.compare import Comparison, Difference, compare
from balancerd.trace.replay_ports import ReplayAccessWatch, ReplayClock, ReplayKernel
from balancerd.trace.stage import ReplayedError, Stage
from balancerd.trace.tap import Event, Failure
from tests.traces.golden import path_of, recorded_config, replay
from tests.unit.fakes import MIB, VMA_START, make_access_window, make_placement

FOLLOW_CPU = path_of("follow-cpu")
PID = ProcessId(100, 1)
OTHER = ProcessId(200, 1)
STEP = MigrationStep(
    policy="home",
    process=PID,
    target=NodeId(0),
    ranges=(Range(start=VMA_START, end=VMA_START + MIB, page_bytes=4096),),
    resume_at=0,
    budget_bytes=8 * MIB,
    budget_seconds=1.0,
    reason=Reason.MISPLACED,
)


def never() -> bool:
    return False


def changed(**changes: object) -> Config:
    return recorded_config(FOLLOW_CPU).model_copy(update=changes)


def differences(one: Config, other: Config) -> tuple[list[Difference], Comparison]:
    comparison = Comparison()
    found = list(compare(replay(FOLLOW_CPU, one).ticks(), replay(FOLLOW_CPU, other).ticks(), comparison))
    return found, comparison


def test_a_configuration_does_not_differ_from_itself() -> None:
    found, comparison = differences(changed(), changed())
    assert found == []
    assert (comparison.ticks, comparison.different_ticks, comparison.different_process_ticks) == (60, 0, 0)


def test_without_its_rules_the_same_processes_are_judged_that_were_excluded() -> None:
    select = recorded_config(FOLLOW_CPU).select
    open_ = select.model_copy(update={"exclude": ()})
    found, comparison = differences(changed(), changed(select=open_))
    excluded = {each.process for each in found if each.one.what == "excluded"}
    assert len(excluded) == 2
    assert comparison.different_ticks > 50
    run = replay(FOLLOW_CPU, changed(select=open_))
    list(run.ticks())
    assert run.summary.missing["samples"] > 0  # nobody looked at them when it was recorded


def test_one_rule_can_be_left_out_and_the_other_still_matches() -> None:
    select = recorded_config(FOLLOW_CPU).select
    found, _ = differences(changed(), changed(select=select.model_copy(update={"exclude": select.exclude[1:]})))
    assert len({each.process for each in found if each.one.what == "excluded"}) == 1


def test_a_move_that_nobody_made_is_not_known_and_its_process_is_left_alone_for_a_while() -> None:
    fast = changed(migrate=MigrateConfig(process_rate_limit_bytes_per_second=1024 * MIB))
    run = replay(FOLLOW_CPU, fast)
    ticks = list(run.ticks())
    assert run.summary.missing["migrations"] > 0
    assert any("not-recorded" in line for tick in ticks for line in tick.lines)


def test_in_observe_mode_nothing_is_asked_of_what_moving_came_to() -> None:
    run = replay(FOLLOW_CPU, changed(mode="observe"))
    list(run.ticks())
    assert run.summary.asked["migrations"] == 0
    assert run.summary.moved_bytes == 0
    assert run.summary.steps > 0


def test_another_policy_judges_what_was_recorded_for_others() -> None:
    run = replay(FOLLOW_CPU, changed(policies=(PolicyConfig(name="parts", kind="access"),)))
    assert run.summary.ticks == 0
    list(run.ticks())
    assert run.summary.ticks == 60


def test_smaller_processes_than_were_recorded_do_not_appear() -> None:
    found, _ = differences(changed(), changed(select=SelectConfig(min_rss_bytes=200 * MIB, min_age_seconds=30.0)))
    assert {each.other.what for each in found} >= {"below-min-rss"}


def test_a_difference_lasts_from_its_first_tick_to_its_last() -> None:
    select = recorded_config(FOLLOW_CPU).select
    found, comparison = differences(changed(), changed(select=select.model_copy(update={"exclude": ()})))
    assert all(each.first <= each.last and 1 <= each.ticks <= each.last - each.first + 1 for each in found)
    assert sum(each.ticks for each in found) == comparison.different_process_ticks


# the stage


def stage_of(*events: Event) -> Stage:
    stage = Stage()
    stage.set(events)
    return stage


def test_the_clock_says_what_it_said_and_then_stands_still() -> None:
    clock = ReplayClock(stage_of(Event("now", None, 1.0), Event("cpu", None, 0.5), Event("now", None, 2.0)))
    assert [clock.now(), clock.cpu_seconds(), clock.now(), clock.now()] == [1.0, 0.5, 2.0, 2.0]


def test_the_clock_does_not_run_ahead_of_the_kernel() -> None:
    stage = stage_of(Event("now", None, 1.0), Event("sample", (), Sampling(placements=())), Event("now", None, 9.0))
    clock, kernel = ReplayClock(stage), ReplayKernel(stage)
    assert [clock.now(), clock.now()] == [1.0, 1.0]
    kernel.sample(())
    assert clock.now() == 9.0


def test_who_waits_longer_than_was_waited_still_gets_there() -> None:
    clock = ReplayClock(stage_of(Event("now", None, 1.0)))
    clock.wait_until(5.0)
    assert clock.now() >= 1.0
    clock.wait_until(7.0)
    assert clock.now() == 7.0


def request(process: ProcessId = PID, **changes: Any) -> SampleRequest:
    return replace(SampleRequest(process=process, rss_bytes=1), **changes)


def sampled(*requests: SampleRequest, **placement: Any) -> Event:
    placements = tuple(replace(make_placement({0: 4}, pid=r.process.pid), **placement) for r in requests)
    return Event("sample", requests, Sampling(placements=placements))


def test_part_of_what_was_asked_for_is_answered_and_the_rest_is_not_known() -> None:
    stage = stage_of(sampled(request(PID)))
    answer = ReplayKernel(stage).sample((request(PID), request(OTHER)))
    assert [placement.process for placement in answer.placements] == [PID]
    (skip,) = answer.missed
    assert (skip.process, skip.reason, skip.by) == (OTHER, Reason.NOT_RECORDED, "replay")
    assert (stage.asked["samples"], stage.missing["samples"]) == (2, 1)


def test_a_look_of_an_earlier_tick_answers_once_and_a_later_one_is_not_known() -> None:
    stage = stage_of(sampled(request(PID)))
    stage.set([])
    kernel = ReplayKernel(stage)
    assert kernel.sample((request(PID),)).placements
    assert kernel.sample((request(PID),)).missed


def test_what_was_told_in_its_own_tick_is_not_told_again_later() -> None:
    stage = stage_of(sampled(request(PID)))
    kernel = ReplayKernel(stage)
    assert kernel.sample((request(PID),)).placements
    stage.set([])
    assert kernel.sample((request(PID),)).missed


@pytest.mark.parametrize(
    ("made", "asked", "is_known"),
    [
        (request(read_mempolicies=True), request(), True),
        (request(), request(read_mempolicies=True), False),
        (request(home=NodeId(1)), request(home=NodeId(1), rss_bytes=5), True),
        (request(home=NodeId(1)), request(home=NodeId(2)), False),
        (request(home=NodeId(1)), request(), False),
    ],
)
def test_a_look_answers_another_one_that_needs_no_more(
    made: SampleRequest, asked: SampleRequest, is_known: bool
) -> None:
    method = PlacementMethod.SAMPLE if made.home is None else PlacementMethod.TEST
    event = sampled(made, method=method, mempolicies_at=1.0 if made.read_mempolicies else None)
    assert bool(ReplayKernel(stage_of(event)).sample((asked,)).placements) is is_known


def moved(submitted_pages: int) -> tuple[Event, ...]:
    outcome = {
        **dict.fromkeys(("looked_pages", "submitted_pages"), submitted_pages),
        "on_target_pages": 0,
        "passed_over": {},
        "pages": {PageStatus.MOVED: submitted_pages},
        "moved_from": {},
        "call_seconds": (0.1,),
        "query_seconds": 0.0,
        "batch_pages": 64,
        "resume_at": None,
    }
    return Event("begin", STEP, 1), Event("rest", 1, 3.5), Event("end", 1, outcome)


def carry_out(kernel: ReplayKernel, step: MigrationStep) -> tuple[list[float], object]:
    work, rests = kernel.begin_migration(step, never), []
    while True:
        try:
            rests.append(next(work))
        except StopIteration as ended:
            return rests, ended.value


def test_a_move_rests_as_it_rested_and_comes_to_what_it_came_to() -> None:
    stage = stage_of(*moved(256))
    step = replace(STEP, move_id=77, budget_seconds=9.0)
    rests, outcome = carry_out(ReplayKernel(stage), step)
    assert rests == [3.5]
    assert outcome.moved_pages == 256  # type: ignore[attr-defined]
    assert outcome.step is step  # type: ignore[attr-defined]
    assert not stage.missing


@pytest.mark.parametrize(
    ("budget_mib", "submitted_mib", "is_known"),
    [(8, 8, True), (16, 4, True), (16, 8, False), (4, 2, True), (4, 4, False)],
)
def test_with_another_budget_a_move_is_known_if_neither_was_used_up(
    budget_mib: int, submitted_mib: int, is_known: bool
) -> None:
    stage = stage_of(*moved(submitted_mib * 256))
    _, outcome = carry_out(ReplayKernel(stage), replace(STEP, budget_bytes=budget_mib * MIB))
    assert (outcome.stopped_by is None) is is_known  # type: ignore[attr-defined]
    assert stage.missing["migrations"] == (not is_known)


@pytest.mark.parametrize(
    "step", [replace(STEP, target=NodeId(1)), replace(STEP, process=OTHER), replace(STEP, resume_at=VMA_START + 4096)]
)
def test_another_move_is_not_known(step: MigrationStep) -> None:
    _, outcome = carry_out(ReplayKernel(stage_of(*moved(1))), step)
    assert (outcome.stopped_by, outcome.submitted_pages) == (Reason.NOT_RECORDED, 0)  # type: ignore[attr-defined]


def test_of_processes_that_nobody_watched_it_is_said_that_it_is_not_known() -> None:
    told = Accesses(windows={PID: make_access_window()})
    stage = stage_of(Event("accesses", (PID,), told))
    answer = ReplayAccessWatch(stage).read((OTHER, PID))
    assert answer.windows == told.windows
    assert answer.missed[OTHER].reason is Reason.NOT_RECORDED
    assert stage.missing["watched processes"] == 1


def test_what_a_port_raised_is_raised_again() -> None:
    with pytest.raises(ReplayedError, match="OSError"):
        ReplayKernel(stage_of(Event("sample", None, Failure("OSError")))).sample((request(),))
    with pytest.raises(ReplayedError, match="no survey"):
        ReplayKernel(stage_of()).survey(None)  # type: ignore[arg-type]


def test_a_trace_is_read_as_it_is_replayed() -> None:
    run = replay(FOLLOW_CPU)
    ticks = run.ticks()
    next(ticks)
    assert (run.summary.ticks, run.summary.ended) == (1, None)
    list(ticks)
    assert run.summary.ended == "as asked"
