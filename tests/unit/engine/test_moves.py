"""What a move remembers, how it ends, and what goes first when there is too much."""

from dataclasses import replace

import pytest

from balancerd.engine import moves
from balancerd.engine.moves import MOST_MOVES, MOST_RUNS, MoveLog
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationOutcome, MovedRun, Range
from balancerd.model.page_status import PageStatus
from tests.unit.fakes import MIB, N0, N1, N2, make_run
from tests.unit.reports import an_outcome

PID = ProcessId(100, 1)


def open_move(log: MoveLog, now: float = 0.0) -> int:
    return log.open(PID, "home", N0, Reason.MISPLACED, now)


def step(
    *runs: MovedRun, pages: int | None = None, resume_at: int | None = None, stopped_by: Reason | None = None
) -> MigrationOutcome:
    moved = sum((run.end - run.start) // 4096 for run in runs) if pages is None else pages
    outcome = an_outcome(PID, pages={PageStatus.MOVED: moved, PageStatus.SHARED: 3}, moved_from={2: moved})
    return replace(outcome, moved_runs=runs, resume_at=resume_at, stopped_by=stopped_by)


def test_a_move_adds_up_over_its_steps_and_joins_runs_that_go_on() -> None:
    log = MoveLog()
    move_id = open_move(log, 5.0)
    log.record(move_id, step(make_run(0, 4), make_run(4 * MIB, 2), resume_at=6 * MIB), 6.0)
    log.record(move_id, step(make_run(6 * MIB, 2), make_run(8 * MIB, 1, source=1), make_run(20 * MIB, 1)), 7.0)
    move = log.find(move_id)
    assert move is not None
    assert [(r.start // MIB, r.end // MIB, r.source) for r in move.runs] == [(0, 8, N2), (8, 9, N1), (20, 21, N2)]
    assert (move.moved_bytes, move.lost_pages) == (10 * MIB, 0)
    assert move.pages == {PageStatus.MOVED: 2560, PageStatus.SHARED: 6}
    assert move.moved_from == {N2: 2560}
    assert (move.started_at, move.ended_at, move.process, move.policy, move.target) == (5.0, 7.0, PID, "home", N0)


@pytest.mark.parametrize("for_all", [False, True])
def test_a_move_for_all_who_share_is_undone_for_all(for_all: bool) -> None:
    log = MoveLog()
    move_id = open_move(log)
    done = step(make_run(0, 4))
    area = Range(start=0, end=4 * MIB, page_bytes=4096, all_sharers=for_all)
    log.record(move_id, replace(done, step=replace(done.step, ranges=(area,))), 6.0)
    log.record(move_id, step(make_run(4 * MIB, 1)), 7.0)
    move = log.find(move_id)
    assert move is not None
    assert move.move_all is for_all


@pytest.mark.parametrize(
    ("resume_at", "stopped_by", "ended"),
    [
        (None, None, True),
        (MIB, None, False),
        (MIB, Reason.PRESSURE, False),
        (MIB, Reason.STOPPING, False),
        (MIB, Reason.CHANGED, False),
        (MIB, Reason.STALLED, True),
        (MIB, Reason.NO_MEMORY, True),
        (None, Reason.EXITED, True),
    ],
)
def test_when_a_move_has_ended(resume_at: int | None, stopped_by: Reason | None, ended: bool) -> None:
    log = MoveLog()
    move_id = open_move(log)
    log.record(move_id, step(make_run(0, 1), resume_at=resume_at, stopped_by=stopped_by), 6.0)
    (move,) = log.recent()
    assert move.ended_at == (6.0 if ended else None)
    assert move.stopped_by is stopped_by
    log.end(move_id, 9.0)
    assert log.recent()[0].ended_at == (6.0 if ended else 9.0)


def test_pages_in_no_run_are_lost_for_undo() -> None:
    log = MoveLog()
    move_id = open_move(log)
    log.record(move_id, step(make_run(0, 1), pages=1000), 1.0)
    assert log.recent()[0].lost_pages == 1000 - 256


def test_a_move_keeps_so_many_runs_and_no_more() -> None:
    log = MoveLog()
    move_id = open_move(log)
    log.record(move_id, step(*(make_run(i * MIB, 0.5) for i in range(MOST_RUNS + 10))), 1.0)
    (move,) = log.recent()
    assert len(move.runs) == MOST_RUNS
    assert move.lost_pages == 10 * 128


def test_the_oldest_ended_moves_go_first_and_one_under_way_stays() -> None:
    log = MoveLog()
    going = open_move(log)
    log.record(going, step(make_run(0, 1), resume_at=MIB), 0.0)
    ids = []
    for _ in range(MOST_MOVES + 5):
        ids.append(open_move(log))
        log.record(ids[-1], step(make_run(0, 1)), 1.0)
    assert log.find(going) is not None
    assert len(log.recent()) == MOST_MOVES
    assert [move.id for move in log.recent()] == [going, *ids[-(MOST_MOVES - 1) :]]
    assert log.find(ids[0]) is None


def test_moves_that_found_nothing_go_before_those_that_can_be_undone() -> None:
    log = MoveLog()
    first = open_move(log)
    log.record(first, step(make_run(0, 1)), 0.0)
    for _ in range(2 * MOST_MOVES):
        log.record(open_move(log), replace(step(), pages={}, submitted_pages=0), 1.0)
    assert [move.id for move in log.recent()] == [first]


def test_of_too_many_runs_in_all_the_oldest_moves_lose_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MOST_RUNS_IN_ALL", 5)
    log = MoveLog()
    for _ in range(3):
        log.record(open_move(log), step(make_run(0, 1), make_run(4 * MIB, 1)), 1.0)
    assert [(len(move.runs), move.lost_pages) for move in log.recent()] == [(0, 512), (2, 0), (2, 0)]


def test_what_was_only_observed_and_what_is_not_known_leave_nothing() -> None:
    log = MoveLog()
    move_id = open_move(log)
    log.record(move_id, step(stopped_by=Reason.OBSERVE_MODE), 1.0)
    log.record(4711, step(make_run(0, 1)), 1.0)
    log.end(4711, 1.0)
    assert log.find(move_id) is None
    assert log.recent() == ()


def test_ids_are_never_used_again() -> None:
    log = MoveLog()
    ids = [open_move(log) for _ in range(3)]
    log.record(ids[1], step(stopped_by=Reason.OBSERVE_MODE), 1.0)
    assert [*ids, open_move(log)] == [1, 2, 3, 4]


def test_a_move_of_parts_is_over_after_each_step_and_grows_with_the_next_one() -> None:
    log = MoveLog()
    move_id = open_move(log)
    for now in (1.0, 2.0):
        outcome = step(make_run(round(now) * MIB, 1), resume_at=MIB)
        log.record(move_id, replace(outcome, step=replace(outcome.step, is_part=True)), now)
        move = log.find(move_id)
        assert move is not None
        assert (move.ended_at, move.moved_bytes) == (now, round(now) * MIB)
