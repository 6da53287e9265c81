"""By its CPU time within steps and between them it is known how much a process is held up by calls."""

import pytest

from balancerd.kernel.moving.held_up import FORGET_SECONDS, LEAST_RATIO, HeldUp
from balancerd.model.ids import ProcessId
from tests.unit.fakes import FakeClock

PID = ProcessId(100, 1)


class Program:
    """A process that uses so many cores between steps, and so many within them."""

    def __init__(self, free_cores: float, step_cores: float, *, free_seconds: float = 0.5) -> None:
        self.clock = FakeClock()
        self.cpu_seconds: float | None = 5.0
        self.free_cores, self.step_cores, self.free_seconds = free_cores, step_cores, free_seconds
        self.held_up = HeldUp(self.clock, lambda _: self.cpu_seconds)

    def steps(self, number: int, *, felt: float = 1.0) -> list[float]:
        """Steps of two seconds; what is known at the beginning of each."""
        known = []
        for _ in range(number):
            self.run(self.free_seconds, self.free_cores)
            self.held_up.begin(PID)
            known.append(self.held_up.ratio(PID))
            self.run(2.0, self.step_cores)
            self.held_up.end(PID, felt)
        return known

    def run(self, seconds: float, cores: float) -> None:
        self.clock.time += seconds
        if self.cpu_seconds is not None:
            self.cpu_seconds += seconds * cores


@pytest.mark.parametrize(
    ("free_cores", "step_cores", "ratio"),
    [
        (1.0, 0.5, 1.0),  # stood still during all calls, which took half of the time
        (1.0, 0.75, 0.5),
        (1.0, 0.99, LEAST_RATIO),
        (1.0, 1.2, LEAST_RATIO),  # it has done more
        (8.0, 7.5, 1.0),  # one of eight threads stood still: for that one it is all
        (8.0, 7.9, 0.2),
        (0.4, 0.3, 0.5),  # of a thread that runs 40 % of the time
        (0.02, 0.0, 1.0),  # idle: who knows
    ],
)
def test_what_a_process_does_less_within_steps_it_has_lost_to_calls(
    free_cores: float, step_cores: float, ratio: float
) -> None:
    known = Program(free_cores, step_cores).steps(4)
    assert known[0] == 1.0
    assert known[1:] == pytest.approx([ratio] * 3)


def test_a_change_is_known_within_a_few_steps() -> None:
    program = Program(1.0, 0.5)
    program.steps(4)
    program.step_cores = 1.0
    assert program.steps(5)[1:] == pytest.approx([0.47, 0.23, 0.11, LEAST_RATIO], abs=0.02)


def test_short_calls_and_short_pauses_tell_nothing() -> None:
    assert Program(1.0, 1.0).steps(6, felt=0.04) == [1.0] * 6
    assert Program(1.0, 1.0, free_seconds=0.01).steps(6) == [1.0] * 6


def test_what_cannot_be_told_any_more_is_forgotten() -> None:
    program = Program(1.0, 1.0)
    assert program.steps(3)[-1] == LEAST_RATIO
    program.run(FORGET_SECONDS + 1.0, 1.0)
    assert program.steps(1) == [1.0]
    assert program.steps(1) == [LEAST_RATIO]
    program.cpu_seconds = None
    assert program.steps(1) == [1.0]
