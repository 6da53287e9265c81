"""A source on a PMU: what becomes of scripted samples, and its events for real, with such as need no PMU."""

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.accesses import ibs, pebs
from balancerd.kernel.accesses.ibs import IbsSource
from balancerd.kernel.accesses.obstacles import find_perf_obstacle
from balancerd.kernel.accesses.pebs import PebsSource
from balancerd.kernel.accesses.pmu_source import STORES as STORE_PERIODS
from balancerd.kernel.accesses.pmu_source import PmuSource
from balancerd.kernel.accesses.rate import SAMPLE_SECONDS
from balancerd.kernel.files import list_names
from balancerd.kernel.placement.pool import PatientReads
from balancerd.model.access import AccessMethod, AccessWindow, Obstacle
from balancerd.native import AccessTable, AddressRanges, MemoryEvent, PerfKind, PerfReading
from tests.unit.kernel.accesses.surroundings import CPUS, MIB, as_nodes, surroundings
from tests.unit.kernel.worlds import OWN

LOADS = MemoryEvent(pmu_type=4, configs=(0x1CD, 64, 0), precise=2)
STORES = MemoryEvent(pmu_type=4, configs=(0x82D0, 0, 0), precise=2, is_stores=True)
BUDGET_RATIO = 0.01
RATE_HZ = BUDGET_RATIO / SAMPLE_SECONDS

NOTHING = PerfReading(
    samples=0,
    with_access=0,
    elsewhere=0,
    repeated=0,
    no_registers=0,
    no_address=0,
    near=0,
    far=0,
    stores=0,
    framed=0,
    cycles=0,
    busiest=0,
    in_kernel=0,
    accesses=0,
    exact=0,
    code_reads=0,
    lost=0,
    cut=0,
    throttled=0,
    unthrottled=0,
    foreign=0,
    duration_seconds=0.0,
)


class ScriptedRings:
    """Rings of which the test says what comes out, and what is accessed meanwhile: (address, seconds, tid, cpu)."""

    def __init__(
        self,
        kind: PerfKind,
        *,
        ring_pages: int,
        events: tuple[MemoryEvent, ...],
        period: int,
        store_period: int,
    ) -> None:
        assert kind is PerfKind.MEMORY
        self.ring_pages, self.events = ring_pages, events
        self.period, self.store_period = period, store_period
        self.tids: frozenset[int] = frozenset()
        self.next = NOTHING
        self.accesses: list[tuple[int, float, int, int]] = []

    def __len__(self) -> int:
        return len(self.tids)

    def open(self, tid: int) -> None:
        self.tids |= {tid}

    def drop(self, tid: int) -> None:
        self.tids -= {tid}

    def close(self) -> None:
        self.tids = frozenset()

    def set_periods(self, period: int, store_period: int) -> None:
        self.period, self.store_period = period, store_period

    def read(self, table: AccessTable, _ranges: AddressRanges) -> PerfReading:
        table.add(self.accesses)
        return self.next


class SteadyClock:
    """Two seconds pass from one look to the next; what is done between two looks at the CPU time takes `costs`."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._cpu_seconds = 0.0
        self.costs = 0.0

    def now(self) -> float:
        return self._now

    def cpu_seconds(self) -> float:
        self._cpu_seconds += self.costs
        return self._cpu_seconds

    def wait_until(self, deadline: float) -> None:
        raise AssertionError(deadline)

    def tick(self, seconds: float = 2.0) -> None:
        self._now += seconds


class Bench:
    """A source of which this very process is watched, by scripted rings."""

    def __init__(self, source: PmuSource, clock: SteadyClock) -> None:
        self.source, self.clock = source, clock
        self.source.open(OWN)
        rings = self.source._watched[OWN].rings
        assert isinstance(rings, ScriptedRings)
        self.rings: ScriptedRings = rings
        self.read()  # opens the threads

    def read(self, **told: int) -> AccessWindow:
        """Two seconds later."""
        self.rings.next = replace(NOTHING, **told)
        self.clock.tick()
        return self.source.read(OWN)


@pytest.fixture
def make(reads: PatientReads, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make_bench(kind: type[PmuSource] = PebsSource, *events: MemoryEvent, costs: float = 0.0) -> Bench:
        monkeypatch.setattr(native, "ThreadRings", ScriptedRings)
        for module in (pebs, ibs):
            monkeypatch.setattr(module, "look", lambda: events or (LOADS,))
        clock = SteadyClock()
        clock.costs = costs
        around = replace(surroundings(reads, lambda: as_nodes(*CPUS)), clock=clock)
        made.append(Bench(kind(around, table_bytes=4 * MIB, budget_ratio=BUDGET_RATIO), clock))
        return made[-1]

    yield make_bench
    for bench in made:
        bench.source.close(OWN)


def test_samples_of_the_cores_own_caches_are_as_if_not_taken(make: Callable[..., Bench]) -> None:
    bench = make()
    window = bench.read(
        samples=1000, with_access=60, elsewhere=20, far=20, near=500, no_address=400, lost=70, cut=30, throttled=3
    )
    assert window.method is AccessMethod.PEBS
    assert (window.samples, window.hits, window.throttled) == (100, 60, 3)
    assert (window.cut_samples, window.lost_samples, window.lost_ratio) == (10, 0, 0.0)


def test_samples_that_nothing_is_left_of_are_told(make: Callable[..., Bench]) -> None:
    bench = make()
    window = bench.read(lost=7, cut=2)
    assert (window.samples, window.cut_samples) == (0, 9)


def test_the_pages_that_a_cpu_has_to_fetch_from_memory_belong_to_its_node(make: Callable[..., Bench]) -> None:
    if len(CPUS) < 2:
        pytest.skip("needs two CPUs")
    with mmap.mmap(-1, 4 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = bytes(4 * MIB)
        bench = make(IbsSource)
        start = next(s for s, e in _spans(bench) if e - s >= 4 * MIB)
        bench.rings.accesses = [(start + page * 4096, 1003.0, 1, CPUS[1]) for page in range(512) for _ in range(2)]
        window = bench.read(samples=1024, with_access=1024)
    assert window.method is AccessMethod.IBS
    assert {run.node for run in window.runs} == {1}
    assert sum(run.end - run.start for run in window.runs) >= 512 * 4096


def _spans(bench: Bench) -> list[tuple[int, int]]:
    ranges = bench.source._watched[OWN].ranges
    return [(int(ranges.data[at].start), int(ranges.data[at].end)) for at in range(len(ranges))]


def test_the_period_follows_the_rate_of_the_samples(make: Callable[..., Bench]) -> None:
    bench = make()
    first = bench.rings.period
    bench.read(samples=round(4 * 2 * RATE_HZ), busiest=1000)  # four times as many as the budget allows
    assert bench.rings.period == pytest.approx(4 * first, rel=0.01)
    bench.read(samples=round(2 * RATE_HZ), busiest=1000)
    assert bench.rings.period == pytest.approx(4 * first, rel=0.01)
    bench.read(samples=1)
    assert bench.rings.period == pebs.LOADS.least


def test_a_larger_budget_makes_it_shorter(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.source.budget_ratio = 2 * BUDGET_RATIO
    bench.read(samples=round(8 * 2 * RATE_HZ), busiest=1000)
    assert bench.rings.period == pytest.approx(4 * pebs.LOADS.first, rel=0.01)


def test_lost_samples_count_as_taken(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.read(samples=round(2 * RATE_HZ), lost=round(2 * RATE_HZ), cut=round(2 * 2 * RATE_HZ), busiest=1000)
    assert bench.rings.period == pytest.approx(4 * pebs.LOADS.first, rel=0.01)


def test_no_thread_is_sampled_more_than_its_ring_holds_or_a_thousand_times_a_second(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.read(samples=4000, busiest=4000)  # 2000 a second, of one thread
    assert bench.rings.period >= 2 * pebs.LOADS.first
    assert bench.rings.period >= 4000 / (0.8 * bench.rings.ring_pages * 4096 / 64) * pebs.LOADS.first


def test_throttling_doubles_the_period(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.read(samples=round(2 * RATE_HZ), busiest=1000, throttled=1)
    assert bench.rings.period == pytest.approx(2 * pebs.LOADS.first, rel=0.01)


def test_stores_have_a_period_of_their_own_and_a_quarter_of_the_samples(make: Callable[..., Bench]) -> None:
    bench = make(PebsSource, LOADS, STORES)
    loads, stores = round(0.75 * 2 * RATE_HZ), round(10 * 0.25 * 2 * RATE_HZ)
    before = bench.rings.store_period
    bench.read(samples=loads + stores, stores=stores, busiest=100)
    assert bench.rings.period == pytest.approx(pebs.LOADS.first, rel=0.01)
    assert bench.rings.store_period == pytest.approx(10 * before, rel=0.01)


def test_stores_of_the_one_event_of_ibs_are_governed_with_the_loads(make: Callable[..., Bench]) -> None:
    bench = make(IbsSource, MemoryEvent(pmu_type=9, configs=(1 << 19, 0, 0)))
    bench.read(samples=round(4 * 2 * RATE_HZ), stores=round(2 * 2 * RATE_HZ), busiest=1000)
    assert bench.rings.period == pytest.approx(4 * ibs.OPS.first, rel=0.01)


def test_a_source_forgets_whom_it_watches_no_more(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.read(samples=10_000, busiest=5_000)
    bench.source.close(OWN)
    assert bench.source._loads._events == bench.source._loads._busiest == {}


@pytest.mark.parametrize("kind", [PebsSource, IbsSource])
def test_what_is_in_the_way_keeps_a_process_from_being_opened(
    reads: PatientReads, monkeypatch: pytest.MonkeyPatch, kind: type[PmuSource]
) -> None:
    obstacle = Obstacle(seen="no PMU", fix="get one")
    for module in (pebs, ibs):
        monkeypatch.setattr(module, "look", lambda: obstacle)
    source = kind(surroundings(reads, lambda: as_nodes(*CPUS)), table_bytes=MIB, budget_ratio=BUDGET_RATIO)
    assert source.probe() == obstacle
    with pytest.raises(OSError, match="no PMU") as caught:
        source.open(OWN)
    assert caught.value.errno == errno.ENODEV
    source.close(OWN)


@pytest.mark.parametrize("error", [ValueError("not a number"), OSError(errno.EIO, "Input/output error")])
def test_files_that_do_not_read_are_an_obstacle(
    reads: PatientReads, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def look() -> Obstacle:
        raise error

    monkeypatch.setattr(pebs, "look", look)
    source = PebsSource(surroundings(reads, lambda: as_nodes(*CPUS)), table_bytes=MIB, budget_ratio=BUDGET_RATIO)
    assert source.probe() == Obstacle(seen=str(error), fix="none: take pebs out of accesses.sources")


FAULTS = MemoryEvent(pmu_type=1, configs=(2, 0, 0))
"""The software event page-faults takes the same fields as loads, and tells neither load nor store."""


@pytest.mark.skipif(find_perf_obstacle(PerfKind.FAULTS) is not None, reason="needs perf_event_open(2)")
def test_events_are_opened_and_their_periods_set_and_closed_for_real(
    reads: PatientReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pebs, "look", lambda: (FAULTS, replace(FAULTS, is_stores=True)))
    source = PebsSource(surroundings(reads, lambda: as_nodes(*CPUS)), table_bytes=MIB, budget_ratio=BUDGET_RATIO)
    reads.read(OWN, lambda: None)  # a thread that reads is there from now on
    before = len(list_names("/proc/self/fd"))
    for _ in range(2):
        source.open(OWN)
        rings = source._watched[OWN].rings
        assert rings.period == pebs.LOADS.first
        window = source.read(OWN)
        assert window.threads == len(os.listdir(Path("/proc/self/task")))  # noqa: PTH208
        assert len(list_names("/proc/self/fd")) == before + 2 * window.threads
        assert (rings.period, rings.store_period) == (pebs.LOADS.first, STORE_PERIODS.first)  # nothing is known yet
        source.read(OWN)
        assert (rings.period, rings.store_period) == (pebs.LOADS.least, STORE_PERIODS.least)  # nothing happens
        source.close(OWN)
        assert len(list_names("/proc/self/fd")) == before


def test_the_first_samples_are_judged_at_once_and_more_when_that_may_cost_something_again(
    make: Callable[..., Bench],
) -> None:
    costs = 1.5 * 2.0 * BUDGET_RATIO
    bench = make(costs=costs)
    seconds = [bench.clock.now() + at for at in range(2)]
    with mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        found: list[int] = []
        for page in range(3):
            bench.rings.accesses = [(start + page * 4 * 4096, at, 1, CPUS[0]) for at in seconds]
            found.append(sum(run.end - run.start for run in bench.read().runs) // 4096)
    assert found == [1, 1, 9]  # what lies between is of nobody else


def test_pages_of_which_nobody_hears_any_more_are_forgotten(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.rings.accesses = [(1 << 30, bench.clock.now(), 1, CPUS[0])]
    bench.read()
    bench.rings.accesses = []
    held = []
    for _ in range(4):
        bench.clock.tick(bench.source.forget_seconds / 3)
        bench.read()
        held.append(bench.source._watched[OWN].table.totals().pages)
    assert held == [1, 1, 0, 0]
