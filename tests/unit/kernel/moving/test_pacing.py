from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.pressure import parse_pressure, read_pressure
from balancerd.kernel.moving.pacing import Pace, Pacer, StepPace, finish
from balancerd.model.decision import Reason
from balancerd.model.sample import Pressure
from tests.unit.fakes import FakeClock
from tests.unit.kernel.trees import write_tree
from tests.unit.kernel.worlds import CAPTURED, NO_LIMITS, OWN, PAGE, START, make_step, make_world, never

GENTLE = Pace(
    stall_target_seconds=0.005,
    stall_limit_seconds=0.020,
    duty_ratio=0.25,
    max_memory_pressure_ratio=0.1,
    max_cpu_pressure_ratio=0.4,
)


def alive() -> bool:
    return True


def is_ready(pace: StepPace, alive: Callable[[], bool]) -> bool:
    return finish(pace.clock, pace.wait_ready(alive))


def psi(percent: float) -> str:
    return f"some avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


class DrowsyClock(FakeClock):
    """A clock that is woken before the time, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def wait_until(self, deadline: float) -> None:
        self.waits += 1
        self.time = min(deadline, self.time + 0.01)


def make_pace(
    root: Path, clock: FakeClock, pace: Pace = GENTLE, should_stop: Callable[[], bool] = never, budget: float = 10.0
) -> StepPace:
    return Pacer(clock, pace, str(root)).step(OWN, budget_seconds=budget, should_stop=should_stop)


def test_calls_fill_their_share_of_the_time_and_no_more(tmp_path: Path) -> None:
    clock = FakeClock()
    pace = make_pace(tmp_path, clock)
    assert is_ready(pace, alive)
    clock.time += 0.012
    pace.called((0.006, 0.006), 0.001, 512)
    assert is_ready(pace, alive)
    assert clock.time == pytest.approx(1000.012 + 3 * 0.010)
    assert pace.throttled_seconds == {"duty-cycle": pytest.approx(0.030)}


def test_a_process_that_calls_hardly_hold_up_rests_less(tmp_path: Path) -> None:
    clock, used = FakeClock(), {OWN.pid: 0.0}
    pacer = Pacer(clock, replace(GENTLE, duty_ratio=0.5), str(tmp_path), used.get)

    def run(seconds: float, cores: float) -> None:
        clock.time += seconds
        used[OWN.pid] += cores * seconds

    first = pacer.step(OWN, budget_seconds=10.0, should_stop=never)
    first.begin()
    run(1.0, 0.8)
    first.called((0.8,), 0.0, 512)
    assert pacer.next_call_at(OWN) - clock.time == pytest.approx(0.8)
    first.end()
    run(1.0, 1.0)
    second = pacer.step(OWN, budget_seconds=10.0, should_stop=never)
    second.begin()
    assert second.held_up_ratio == pytest.approx(0.25)
    second.called((0.8,), 0.0, 512)
    assert pacer.next_call_at(OWN) - clock.time == pytest.approx(0.2)


def test_what_a_step_owes_the_next_one_pays(tmp_path: Path) -> None:
    clock = FakeClock()
    pacer = Pacer(clock, GENTLE, str(tmp_path))
    first = pacer.step(OWN, budget_seconds=0.01, should_stop=never)
    first.called((0.010,), 0.0, 512)
    assert not is_ready(first, alive)
    assert (first.refusal, first.throttled_seconds) == (None, {})
    second = pacer.step(OWN, budget_seconds=1.0, should_stop=never)
    assert is_ready(second, alive)
    assert clock.time == pytest.approx(1000.030)


def test_another_process_owes_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    pacer = Pacer(clock, GENTLE, str(tmp_path))
    pacer.step(OWN, budget_seconds=1.0, should_stop=never).called((0.010,), 0.0, 512)
    assert is_ready(pacer.step(OWN._replace(pid=OWN.pid + 1), budget_seconds=1.0, should_stop=never), alive)
    assert clock.time == 1000.0
    assert pacer.next_call_at(OWN) == pytest.approx(1000.030)


def test_without_a_duty_cycle_nothing_waits(tmp_path: Path) -> None:
    clock = FakeClock()
    pace = make_pace(tmp_path, clock, NO_LIMITS)
    pace.called((5.0,), 0.0, 512)
    assert is_ready(pace, alive)
    assert (clock.time, pace.throttled_seconds) == (1000.0, {})


def test_a_clock_that_wakes_early_is_asked_again_and_a_stop_ends_the_wait(tmp_path: Path) -> None:
    clock = DrowsyClock()
    pace = make_pace(tmp_path, clock, should_stop=lambda: clock.waits >= 4)
    pace.called((0.1,), 0.0, 512)
    assert not is_ready(pace, alive)
    assert pace.refusal == (Reason.STOPPING, "")
    assert clock.waits == 4
    assert pace.throttled_seconds["duty-cycle"] == pytest.approx(0.04)


def test_a_wait_never_goes_beyond_the_step(tmp_path: Path) -> None:
    clock = FakeClock()
    pace = make_pace(tmp_path, clock, budget=0.5)
    finish(pace.clock, pace.wait_until(2000.0, "retry"))
    assert clock.time == pytest.approx(1000.5)
    assert pace.throttled_seconds == {"retry": pytest.approx(0.5)}
    assert not is_ready(pace, alive)


def test_a_process_that_is_gone_needs_no_turn(tmp_path: Path) -> None:
    pace = make_pace(tmp_path, FakeClock())
    assert not is_ready(pace, lambda: False)
    assert pace.refusal == (Reason.EXITED, "")


def test_one_stall_may_be_chance_and_two_end_the_step(tmp_path: Path) -> None:
    pace = make_pace(tmp_path, FakeClock())
    pace.called((0.025, 0.019), 0.004, 512)
    pace.called((0.024,), 0.004, 512)  # just at the limit
    assert is_ready(pace, alive)
    pace.called((0.0505,), 0.0005, 256)
    assert not is_ready(pace, alive)
    assert pace.refusal == (
        Reason.STALLED,
        "calls took 21.0 ms (batch of 512 pages) and 50.0 ms (batch of 256 pages), above the limit of 20.0 ms",
    )


@pytest.mark.parametrize(
    ("memory", "cpu", "detail"),
    [
        (9.9, 39.0, None),
        (12.3, 0.0, "memory pressure 12.3 %, above the limit of 10.0 %"),
        (0.0, 40.5, "CPU pressure 40.5 %, above the limit of 40.0 %"),
        (None, None, None),
    ],
)
def test_pressure_ends_the_step(tmp_path: Path, memory: float | None, cpu: float | None, detail: str | None) -> None:
    files = {"pressure/memory": memory, "pressure/cpu": cpu}
    write_tree(tmp_path, {name: psi(percent) for name, percent in files.items() if percent is not None})
    pace = make_pace(tmp_path, FakeClock())
    assert is_ready(pace, alive) == (detail is None)
    assert pace.refusal == (None if detail is None else (Reason.PRESSURE, detail))


def test_pressure_without_a_limit_ends_nothing_and_for_memory_only_that_of_cpus_does_not(tmp_path: Path) -> None:
    write_tree(tmp_path, {"pressure/memory": psi(99.0), "pressure/cpu": psi(99.0)})
    assert is_ready(make_pace(tmp_path, FakeClock(), NO_LIMITS), alive)
    pacer = Pacer(FakeClock(), replace(GENTLE, max_memory_pressure_ratio=None), str(tmp_path))
    assert is_ready(pacer.step(OWN, budget_seconds=1.0, should_stop=never, for_cpu=False), alive)
    assert not is_ready(pacer.step(OWN, budget_seconds=1.0, should_stop=never), alive)


def test_pressure_is_looked_at_again_after_half_a_second(tmp_path: Path) -> None:
    clock = FakeClock()
    write_tree(tmp_path, {"pressure/memory": psi(0.0), "pressure/cpu": psi(0.0)})
    pace = make_pace(tmp_path, clock)
    assert is_ready(pace, alive)
    write_tree(tmp_path, {"pressure/memory": psi(80.0)})
    clock.time += 0.4
    assert is_ready(pace, alive)
    clock.time += 0.11
    assert not is_ready(pace, alive)


def test_a_step_under_pressure_moves_nothing_and_keeps_its_place(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1000, pace=GENTLE)
    world.write({"proc/pressure/memory": psi(55.0), "proc/pressure/cpu": psi(0.0)})
    outcome = world.move(make_step(1000))
    assert (world.core.calls, outcome.stopped_by, outcome.resume_at) == ([], Reason.PRESSURE, START)
    assert outcome.detail.startswith("memory pressure 55.0 %")


def test_a_step_counts_its_stalls_and_its_waits(tmp_path: Path) -> None:
    world = make_world(tmp_path, 3000, pace=GENTLE, seconds_per_page=1e-4)
    world.core.price_seconds = 0.001
    outcome = world.move(make_step(3000))
    assert outcome.stopped_by is Reason.STALLED
    assert outcome.stalls == 2
    felt = [seconds - 0.001 for seconds in outcome.call_seconds]
    assert len(felt) == 2
    assert outcome.throttled_seconds == {
        "duty-cycle": pytest.approx(3 * felt[0])
    }  # the next step pays for the last one
    assert outcome.resume_at == START + outcome.moved_pages * PAGE


def test_the_pressure_of_a_machine_is_read_as_the_kernel_writes_it() -> None:
    pressure = read_pressure(str(CAPTURED))
    assert pressure.cpu_ratio == pytest.approx(0.0463)
    assert pressure.memory_ratio == 0.0


def test_a_kernel_that_does_not_tell_its_pressure_has_none(tmp_path: Path) -> None:
    assert read_pressure(str(tmp_path)) == Pressure(cpu_ratio=None, memory_ratio=None)


@pytest.mark.parametrize("text", [b"", b"full avg10=0.00\n", b"some avg10=\n", b"some avg10=x avg60=0\n", b"some\n"])
def test_another_text_is_no_pressure(text: bytes) -> None:
    with pytest.raises(ParseError, match=r"p:1: not a pressure"):
        parse_pressure(text, "p")
