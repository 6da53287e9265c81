"""Whose turn it is when several processes' memory moves: the most important one that has rested."""

from collections.abc import Callable

import pytest

from balancerd.engine.together import Work, carry_out
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep
from tests.unit.fakes import FakeClock
from tests.unit.reports import an_outcome

CALL_SECONDS = 1.0
A, B, C = (ProcessId(pid, 1) for pid in (10, 20, 30))
Turn = tuple[int, int, float]
"""The pid and target of a step that made a call, and when the call began."""


def step_of(process: ProcessId, target: int = 0) -> MigrationStep:
    return an_outcome(process, target=target).step


class Moving:
    """Steps that make `calls` calls of a second each, with a rest of `rest_seconds` in between."""

    def __init__(self, *, calls: int, rest_seconds: float, end: float = float("inf")) -> None:
        self.clock = FakeClock(0.0)
        self.turns: list[Turn] = []
        self.refused: list[int] = []
        self.stopping = False
        self._calls = calls
        self._rest_seconds = rest_seconds
        self._end = end

    def begin(self, step: MigrationStep) -> Work | None:
        if self.clock.now() >= self._end:
            self.refused.append(step.process.pid)
            return None
        return self._work(step)

    def _work(self, step: MigrationStep) -> Work:
        for number in range(self._calls):
            if number:
                rested_at = self.clock.now() + self._rest_seconds
                while self.clock.now() < rested_at and not self.stopping:
                    yield rested_at
            if self.stopping or self.clock.now() >= self._end:
                break
            self.turns.append((step.process.pid, step.target, self.clock.now()))
            self.clock.time += CALL_SECONDS
        return an_outcome(step.process, target=step.target)

    def carry_out(self, *steps: MigrationStep, stop: Callable[[], bool] | None = None) -> list[MigrationOutcome]:
        return list(carry_out(steps, self.begin, self.clock, stop or (lambda: self.stopping)))


@pytest.mark.parametrize(
    ("rest_seconds", "turns"),
    [
        pytest.param(0.0, [(10, 0.0), (10, 1.0), (10, 2.0), (20, 3.0), (20, 4.0), (20, 5.0)], id="no rest, no turn"),
        pytest.param(1.0, [(10, 0.0), (20, 1.0), (10, 2.0), (20, 3.0), (10, 4.0), (20, 5.0)], id="by turns"),
        pytest.param(2.0, [(10, 0.0), (20, 1.0), (10, 3.0), (20, 4.0), (10, 6.0), (20, 7.0)], id="both rest a while"),
    ],
)
def test_while_one_rests_the_next_one_moves(rest_seconds: float, turns: list[tuple[int, float]]) -> None:
    moving = Moving(calls=3, rest_seconds=rest_seconds)
    outcomes = moving.carry_out(step_of(A), step_of(B))
    assert [(pid, at) for pid, _, at in moving.turns] == turns
    assert [outcome.step.process for outcome in outcomes] == [A, B]


def test_who_is_more_important_goes_first_whenever_it_has_rested() -> None:
    moving = Moving(calls=3, rest_seconds=1.0)
    moving.carry_out(step_of(A), step_of(B), step_of(C))
    assert [pid for pid, _, _ in moving.turns] == [10, 20, 10, 20, 10, 20, 30, 30, 30]


def test_the_steps_of_one_process_follow_each_other() -> None:
    moving = Moving(calls=2, rest_seconds=3.0)
    outcomes = moving.carry_out(step_of(A, 0), step_of(A, 1), step_of(B, 2))
    assert [(pid, target) for pid, target, _ in moving.turns] == [(10, 0), (20, 2), (10, 0), (20, 2), (10, 1), (10, 1)]
    assert [(outcome.step.process, outcome.step.target) for outcome in outcomes] == [
        (A, NodeId(0)),
        (B, NodeId(2)),
        (A, NodeId(1)),
    ]


def test_what_may_not_begin_any_more_is_left_out_and_the_others_end() -> None:
    moving = Moving(calls=5, rest_seconds=0.0, end=3.0)
    outcomes = moving.carry_out(step_of(A), step_of(B), step_of(C))
    assert [pid for pid, _, _ in moving.turns] == [10, 10, 10]
    assert [outcome.step.process for outcome in outcomes] == [A]
    assert moving.refused == [20, 30]


def test_told_to_stop_everybody_ends_without_waiting_for_its_rest() -> None:
    moving = Moving(calls=3, rest_seconds=100.0)

    def stop_after_two_calls() -> bool:
        moving.stopping = len(moving.turns) >= 2
        return moving.stopping

    outcomes = moving.carry_out(step_of(A), step_of(B), stop=stop_after_two_calls)
    assert [pid for pid, _, _ in moving.turns] == [10, 20]
    assert [outcome.step.process for outcome in outcomes] == [A, B]
    assert moving.clock.now() == 2 * CALL_SECONDS


def test_without_steps_there_is_nothing_to_do() -> None:
    assert Moving(calls=1, rest_seconds=0.0).carry_out() == []
