"""What the tap takes note of, and what it hands through."""

import json
from collections.abc import Callable, Generator

from balancerd.model.migration import MigrationOutcome, MigrationStep
from balancerd.trace.tap import RawTick, Tap, TapClock, TapEngine, TapKernel
from tests.traces.recording import Recording
from tests.unit.fakes import FakeClock, FakeKernel, make_process
from tests.unit.reports import a_report
from tests.unit.trace.test_recorder import CONFIG
from tests.unit.trace.test_replay import STEP


class Ears:
    """A listener that counts how often it looks at the time, and an engine that only notes what it is told."""

    def __init__(self) -> None:
        self.is_listening = True
        self.ticks: list[RawTick] = []
        self.moving: list[float] = []
        self.looked = 0

    def offer(self, tick: RawTick) -> None:
        self.ticks.append(tick)

    def keep_time(self) -> None:
        self.looked += 1

    def tick(self) -> object:
        return a_report()

    def note_moving(self, cpu_seconds: float) -> None:
        self.moving.append(cpu_seconds)

    def due_at(self, began_at: float, regular_at: float) -> float:
        return (began_at + regular_at) / 2

    def next_tick_at(self, due_at: float) -> float:
        return due_at + 1.0


class Asking(FakeKernel):
    """Asks whether to stop three times in each step, and rests once."""

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        for _ in range(3):
            assert not should_stop()
        yield 7.0
        return self.migrate(step, should_stop)


def tapped() -> tuple[Tap, TapKernel]:
    kernel = Asking(FakeClock())
    kernel.add(make_process(), {2: 256})
    tap = Tap(should_stop=lambda: False)
    return tap, TapKernel(kernel, tap)


def test_between_ticks_the_listener_looks_at_the_time_and_what_is_not_observing_is_in_the_trace() -> None:
    ears = Ears()
    tap = Tap(should_stop=lambda: False)
    engine = TapEngine(ears, tap, ears)  # type: ignore[arg-type]  # an engine that only counts
    engine.tick()
    engine.note_moving(0.5)
    assert engine.due_at(1.0, 3.0) == 2.0
    assert engine.next_tick_at(3.0) == 4.0
    engine.tick()
    assert (ears.moving, ears.looked) == ([0.5], 1)
    assert [event.kind for event in ears.ticks[1].events] == ["moving", "next", "tick"]
    assert ears.ticks[1].events[0].question == 0.5


def test_the_kernel_asks_whether_to_stop_past_the_tap_and_the_engine_through_it() -> None:
    tap, kernel = tapped()
    tap.open()
    work = kernel.begin_migration(STEP, tap.should_stop)
    assert next(work) == 7.0
    assert not tap.should_stop()
    assert [event.kind for event in tap.close()] == ["begin", "rest", "stop"]


def test_while_nobody_listens_nothing_is_kept() -> None:
    tap, kernel = tapped()
    TapClock(FakeClock(), tap).now()
    next(kernel.begin_migration(STEP, tap.should_stop))
    assert tap.close() == ()
    assert not tap.is_open


def test_a_migration_that_is_given_up_is_closed() -> None:
    tap, kernel = tapped()
    tap.open()
    work = kernel.begin_migration(STEP, tap.should_stop)
    next(work)
    work.close()
    assert [event.kind for event in tap.close()] == ["begin", "rest"]


def test_a_recording_sees_what_the_engine_was_told_between_two_ticks() -> None:
    clock = FakeClock()
    recording = Recording(CONFIG, FakeKernel(clock), clock)
    recording.start()
    recording.ticks(2)
    kinds = [event[0] for event in json.loads(recording.lines[-1])["events"]]
    assert kinds[: kinds.index("tick")] == ["moving", "next", "now", "cpu"]
