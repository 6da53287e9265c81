"""When moved memory is looked at again, and what is concluded from where it is then."""

from dataclasses import replace

import pytest

from balancerd.engine.returns import MOST_CHECKS, MOST_RUNS, Judgement, Returns
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationOutcome, MovedRun, RunsNow, Verified, VerifyRequest
from tests.unit.fakes import MIB, make_run, make_verified
from tests.unit.reports import an_outcome

PID = ProcessId(100, 1)


def moved(*runs: MovedRun, pid: int = 100) -> MigrationOutcome:
    return replace(an_outcome(ProcessId(pid, 1)), moved_runs=runs)


def answer(request: VerifyRequest, *found: Verified) -> RunsNow:
    total = make_verified(
        sum(f.asked_pages for f in found),
        sum(f.elsewhere_pages for f in found),
        sum(f.absent_pages for f in found),
    )
    return RunsNow(process=request.process, runs=found, total=total)


def check(returns: Returns, now: float, *found: Verified) -> Judgement:
    (request,) = returns.due(now)
    return returns.judge(request, answer(request, *found), now)


def test_checks_come_ten_seconds_a_minute_and_five_minutes_after_the_last_step() -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1)), 100.0)
    returns.note(moved(make_run(MIB, 1)), 104.0)
    due = []
    for now in range(100, 800):
        for request in returns.due(float(now)):
            assert len(request.runs) == 2
            due.append(now)
            returns.judge(request, answer(request, *[make_verified(128)] * 2), float(now))
    assert due == [114, 164, 404]


@pytest.mark.parametrize(
    ("found", "returned", "ping_pong"),
    [
        ((make_verified(128), make_verified(128)), [], None),
        ((make_verified(128, 6), make_verified(128, 6)), [], None),  # 4.7 %
        (
            (make_verified(128, 7), make_verified(128, 0)),
            [0],
            None,
        ),  # of one run only
        ((make_verified(128, 0), make_verified(128, 13)), [1], "5% of what was moved to node 0 is elsewhere again"),
        (
            (make_verified(128, 128), make_verified(128, 64)),
            [0, 1],
            "75% of what was moved to node 0 is elsewhere again",
        ),
        ((make_verified(128, 0, absent=128), make_verified(128, 0, absent=128)), [], None),
        ((make_verified(0), make_verified(0)), [], None),
    ],
)
def test_what_has_come_back(found: tuple[Verified, Verified], returned: list[int], ping_pong: str | None) -> None:
    returns = Returns()
    runs = make_run(0, 1), make_run(8 * MIB, 1)
    returns.note(moved(*runs), 0.0)
    judgement = check(returns, 10.0, *found)
    assert judgement.returned == tuple(runs[i] for i in returned)
    assert judgement.ping_pong == ping_pong
    assert not judgement.is_settled


def test_what_came_back_is_not_asked_for_again_and_the_rest_is() -> None:
    returns = Returns()
    stay, back = make_run(0, 1), make_run(8 * MIB, 1)
    returns.note(moved(stay, back), 0.0)
    check(returns, 10.0, make_verified(128), make_verified(128, 128))
    (request,) = returns.due(60.0)
    assert request.runs == (stay,)


def test_only_the_last_check_settles_and_only_when_all_is_in_its_place() -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1)), 0.0)
    assert [check(returns, now, make_verified(256)).is_settled for now in (10.0, 60.0, 300.0)] == [False, False, True]
    returns.note(moved(make_run(0, 1)), 400.0)
    two = [make_verified(128)] * 2  # what was moved five minutes ago is watched still
    assert check(returns, 410.0, *two).is_settled is False
    assert check(returns, 700.0, make_verified(256, 256)).is_settled is False  # by now it is not


def test_a_move_to_another_node_is_no_return() -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1, target=0)), 0.0)
    returns.note(moved(make_run(0, 1, source=0, target=3)), 5.0)
    (request,) = returns.due(20.0)
    assert [run.target for run in request.runs] == [3]


def test_runs_are_watched_for_ten_minutes_and_thinned_evenly() -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1)), 0.0)
    returns.note(moved(make_run(MIB, 1)), 580.0)
    assert len(returns.due(599.0)[0].runs) == 2
    assert len(returns.due(600.0)[0].runs) == 1
    returns.note(moved(make_run(2 * MIB, 1)), 601.0)
    assert len(returns.due(700.0)[0].runs) == 2
    returns = Returns()
    returns.note(moved(*(make_run(i * MIB, 0.5) for i in range(3 * MOST_RUNS))), 0.0)
    runs = returns.due(20.0)[0].runs
    assert len(runs) == MOST_RUNS
    assert [run.start // MIB for run in runs[:3]] == [0, 3, 6]


def test_so_many_processes_are_looked_at_in_one_tick_the_longest_due_first() -> None:
    returns = Returns()
    for pid in range(MOST_CHECKS + 2):
        returns.note(moved(make_run(0, 1), pid=pid), 100.0 - pid)
    assert [request.process.pid for request in returns.due(200.0)] == [5, 4, 3, 2]


def test_a_check_that_cannot_be_made_waits_for_the_next_and_who_is_gone_is_forgotten() -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1)), 0.0)
    returns.put_off(PID, Reason.NO_ACCESS, 10.0)
    assert returns.due(59.0) == ()
    assert len(returns.due(60.0)) == 1
    returns.put_off(PID, Reason.EXITED, 60.0)
    assert returns.due(1000.0) == ()


@pytest.mark.parametrize("how", ["command", "gone"])
def test_who_is_moved_by_a_command_or_gone_is_watched_no_longer(how: str) -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1)), 0.0)
    if how == "command":
        returns.forget(PID)
    else:
        returns.forget_all_but({ProcessId(7, 1)})
    assert returns.due(1000.0) == ()


def test_a_step_that_moved_nothing_is_not_watched() -> None:
    returns = Returns()
    returns.note(moved(), 0.0)
    assert returns.due(1000.0) == ()


@pytest.mark.parametrize(
    ("second", "is_part", "watched"),
    [
        (make_run(8 * MIB, 1, target=1), True, 2),  # another part, to another node
        (make_run(0, 1, target=1), True, 1),  # the same one: we took it away
        (make_run(8 * MIB, 1, target=1), False, 1),
        (make_run(8 * MIB, 1, target=0), False, 2),
    ],
)
def test_what_went_to_another_node_before_is_watched_on_unless_it_was_taken_away(
    second: MovedRun, is_part: bool, watched: int
) -> None:
    returns = Returns()
    returns.note(moved(make_run(0, 1)), 0.0)
    outcome = moved(second)
    returns.note(replace(outcome, step=replace(outcome.step, is_part=is_part)), 1.0)
    (request,) = returns.due(11.0)
    assert len(request.runs) == watched
