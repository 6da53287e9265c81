"""Watching heat beside the ticks: who is watched, when a source is tried, what is told, and what is left behind."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.heat.watch import MOST_AGE_SECONDS, PROBE_SECONDS, HeatWatcher
from balancerd.model.access import Obstacle
from balancerd.model.heat import HeatMethod, Heats, HeatWindow
from balancerd.model.ids import ProcessId
from tests.unit.fakes import FakeClock

A, B, C, D = (ProcessId(pid, 1) for pid in (1, 2, 3, 4))
OBSTACLE = Obstacle(seen="it is not there", fix="bring it")


class FakeSource:
    """A HeatSource in memory; what is in `errors` is raised by read()."""

    method = HeatMethod.DAMON

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.obstacle: Obstacle | None = None
        self.errors: dict[ProcessId, Exception] = {}
        self.is_early = False
        self.is_broken = False
        self.opened: list[ProcessId] = []
        self.probes = self.shuts = self.recoveries = 0
        self.gate: threading.Event | None = None

    def probe(self) -> Obstacle | None:
        self.probes += 1
        return self.obstacle

    def open(self, process: ProcessId) -> None:
        self.opened.append(process)

    def read(self, process: ProcessId) -> HeatWindow | None:
        assert process in self.opened
        if self.gate is not None:
            assert self.gate.wait(10)
        if process in self.errors:
            raise self.errors[process]
        if self.is_early:
            return None
        now = self.clock.time
        return HeatWindow(process=process, taken_at=now, seconds=0.1, watched_seconds=1.0, method=self.method)

    def close(self, process: ProcessId) -> None:
        if process in self.opened:
            self.opened.remove(process)
        if self.is_broken:
            raise OSError(0, "broken")

    def shut(self) -> None:
        self.shuts += 1
        self.opened.clear()
        if self.is_broken:
            raise OSError(0, "broken")

    def recover(self) -> None:
        self.recoveries += 1
        if self.is_broken:
            raise OSError(0, "broken")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source(clock: FakeClock) -> FakeSource:
    return FakeSource(clock)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def watcher(clock: FakeClock, source: FakeSource, told: list[str]) -> HeatWatcher:
    made = HeatWatcher(clock, {HeatMethod.DAMON: source}, told.append)
    made.use(HeatMethod.DAMON, most_processes=2)
    return made


def tick(watcher: HeatWatcher, asked: Sequence[ProcessId] = (), others: Sequence[ProcessId] = ()) -> Heats:
    """Two ticks: the first has a look begun, the second tells what it found."""
    watcher.read(asked, others)
    watcher.wait()
    heats = watcher.read(asked, others)
    watcher.wait()
    return heats


def test_those_asked_for_come_first_and_then_who_is_watched_already(watcher: HeatWatcher, source: FakeSource) -> None:
    assert set(tick(watcher, [], [A, B, C]).windows) == {A, B}
    assert set(tick(watcher, [], [C, B, A]).windows) == {A, B}
    assert set(tick(watcher, [C], [D, B, A, C]).windows) in ({C, A}, {C, B})
    assert set(tick(watcher, [C, D], [B, A]).windows) == {C, D}
    assert sorted(source.opened) == [C, D]
    assert tick(watcher).windows == {}
    assert source.opened == []


def test_a_tick_never_waits_and_looks_do_not_overlap(watcher: HeatWatcher, source: FakeSource) -> None:
    source.gate = threading.Event()
    assert watcher.read([A], []).windows == {}
    assert watcher.read([A, B], []).windows == {}
    assert watcher.read([A, B], []).windows == {}
    source.gate.set()
    watcher.wait()
    assert source.opened == [A]
    assert set(watcher.read([A, B], []).windows) == {A}
    watcher.wait()


def test_what_is_not_new_is_told_until_it_is_old(watcher: HeatWatcher, source: FakeSource, clock: FakeClock) -> None:
    tick(watcher, [A])
    source.is_early = True
    clock.time += MOST_AGE_SECONDS
    assert set(tick(watcher, [A]).windows) == {A}
    clock.time += 1.0
    assert tick(watcher, [A]).windows == {}


def test_an_obstacle_that_comes_later_ends_what_was_watched(
    watcher: HeatWatcher, source: FakeSource, clock: FakeClock
) -> None:
    tick(watcher, [A])
    source.obstacle = OBSTACLE
    clock.time += PROBE_SECONDS
    assert tick(watcher, [A]) == Heats(method=HeatMethod.DAMON, obstacle=OBSTACLE)
    assert (source.shuts, source.opened) == (1, [])


def test_an_obstacle_is_told_once_and_the_source_tried_again(
    watcher: HeatWatcher, source: FakeSource, clock: FakeClock, told: list[str]
) -> None:
    source.obstacle = OBSTACLE
    assert tick(watcher, [A]) == Heats(method=HeatMethod.DAMON, obstacle=OBSTACLE)
    assert (source.probes, source.opened) == (1, [])
    clock.time += PROBE_SECONDS
    tick(watcher, [A])
    source.obstacle = None
    clock.time += PROBE_SECONDS
    assert set(tick(watcher, [A]).windows) == {A}
    assert source.probes == 3
    assert told == ["damon: it is not there; fix: bring it", "damon: works"]


@pytest.mark.parametrize(
    "error",
    [ProcessGoneError("gone"), ParseError("start", 1, b"x", "gone"), LookupError("gone"), OSError(0, "gone")],
)
def test_one_that_cannot_be_watched_stops_no_other_and_is_tried_again(
    watcher: HeatWatcher, source: FakeSource, clock: FakeClock, error: Exception
) -> None:
    source.errors[A] = error
    heats = tick(watcher, [A, B])
    assert set(heats.windows) == {B}
    assert "gone" in heats.missed[A]
    assert source.opened == [B]
    source.errors.clear()
    assert "gone" in tick(watcher, [A, B]).missed[A]
    clock.time += PROBE_SECONDS
    assert set(tick(watcher, [A, B]).windows) == {A, B}


def test_what_a_crash_left_is_recovered_once_even_if_nothing_is_watched(clock: FakeClock, source: FakeSource) -> None:
    source.is_broken = True
    watcher = HeatWatcher(clock, {HeatMethod.DAMON: source})
    assert tick(watcher, [A]) == tick(watcher, [A]) == Heats()
    assert (source.recoveries, source.probes, source.shuts) == (1, 0, 0)


def test_another_configuration_begins_anew(watcher: HeatWatcher, source: FakeSource) -> None:
    tick(watcher, [A, B])
    watcher.use(HeatMethod.DAMON, most_processes=1)
    assert set(tick(watcher, [A, B]).windows) == {A}
    assert (source.shuts, source.probes) == (1, 2)
    watcher.use(None, most_processes=1)
    assert watcher.read([A], []) == Heats()
    watcher.wait()
    assert (source.shuts, source.opened) == (2, [])
    assert tick(watcher, [A]) == Heats()
    assert source.shuts == 2


def test_closing_waits_for_what_is_under_way_and_leaves_nobody_watched(
    watcher: HeatWatcher, source: FakeSource
) -> None:
    tick(watcher, [A])
    source.gate = threading.Event()
    watcher.read([A, B], [])
    threading.Timer(0.05, source.gate.set).start()
    watcher.close()
    assert (source.shuts, source.opened) == (1, [])
    watcher.read([A], [])
    watcher.wait()
    assert source.opened == []


def test_a_source_that_fails_to_close_is_probed_at_once(watcher: HeatWatcher, source: FakeSource) -> None:
    tick(watcher, [A, B])
    source.is_broken = True
    source.obstacle = OBSTACLE
    assert set(tick(watcher, [A]).windows) == {A}
    assert tick(watcher, [A]).obstacle == OBSTACLE
    watcher.close()  # which raises nothing


def test_where_memory_lies_is_asked_of_those_asked_for_with_each_window_and_every_few_seconds(
    clock: FakeClock, source: FakeSource
) -> None:
    asked: list[tuple[int, float]] = []

    def locate(window: HeatWindow) -> HeatWindow:
        asked.append((window.process.pid, clock.time))
        return replace(window, cpu_ratio=0.25)

    watcher = HeatWatcher(clock, {HeatMethod.DAMON: source}, locate=locate)
    watcher.use(HeatMethod.DAMON, most_processes=2)
    heats = tick(watcher, [A], [B])
    assert (heats.windows[A].cpu_ratio, heats.windows[B].cpu_ratio) == (0.25, None)
    source.is_early = True  # no newer window
    for seconds in (1.0, 3.0, 2.0, 1.0):
        clock.time += seconds
        watcher.read([A], [B])
        watcher.wait()
    first = asked[0][1]
    assert {pid for pid, _ in asked} == {1}
    assert sorted({at - first for _, at in asked}) == [0.0, 6.0]
