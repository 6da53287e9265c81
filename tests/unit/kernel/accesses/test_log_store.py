"""Logs imported for a process that lives: what is counted, what is refused, and what the real judge makes of it."""

import ctypes
import mmap
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from balancerd.kernel.accesses.log_clock import MOST_AGE_SECONDS, ClockError, Clocks, offset_seconds
from balancerd.kernel.accesses.log_source import LogsFirst, LogSource
from balancerd.kernel.accesses.log_store import (
    IDLE_SECONDS,
    Admission,
    ImportRefusedError,
    LiveProcess,
    LogHeader,
    LogStore,
    Sample,
)
from balancerd.kernel.accesses.perf_log import LogTally, parse_perf_script
from balancerd.kernel.accesses.rings import Surroundings
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.model.access import AccessMethod, AccessWindow
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.topology import Node, Topology
from tests.unit.fakes import FakeAccessWatch, FakeClock, make_access_window
from tests.unit.kernel.worlds import OWN

PAGE = 4096
MIB = 1 << 20
N_NODES = 4
START = 0x7F00_0000_0000
OTHER = ProcessId(OWN.pid + 1, 77)


def machine() -> Topology:
    """Four nodes of two CPUs each."""
    ids = [NodeId(n) for n in range(N_NODES)]
    node_of_cpu = {CpuId(cpu): NodeId(cpu // 2) for cpu in range(2 * N_NODES)}
    nodes = tuple(
        Node(
            id=n,
            cpus=frozenset(cpu for cpu, node in node_of_cpu.items() if node == n),
            total_bytes=1 << 33,
            distances=dict.fromkeys(ids, 21) | {n: 10},
        )
        for n in ids
    )
    return Topology(nodes=nodes, node_of_cpu=node_of_cpu)


@dataclass
class World:
    """A store around processes that a test makes up; the machine has run for 5000 s, and slept for 40 of them."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(5000.0))
    alive: dict[int, LiveProcess] = field(default_factory=dict)
    topology: Topology = field(default_factory=machine)
    most_processes: int = 2

    def __post_init__(self) -> None:
        self.live(OWN, started_at=4000.0)
        self.store = LogStore(
            lambda: Clocks(
                monotonic=self.clock.now(), boottime=self.clock.now() + 40.0, realtime=self.clock.now() + 1.7e9
            ),
            self._find,
            lambda: self.topology,
            table_bytes=4 * MIB,
            most_processes=self.most_processes,
        )

    def live(self, process: ProcessId, started_at: float, start: int = START, length: int = 64 * MIB) -> None:
        self.alive[process.pid] = LiveProcess(id=process, started_at=started_at, ranges=((start, start + length),))

    def take(self, samples: Iterable[Sample], **header: Any) -> Admission:
        """Import a log from begin to commit, in pieces."""
        listed = list(samples)
        by_pid: dict[int, int] = {}
        for sample in listed:
            by_pid[sample[0]] = by_pid.get(sample[0], 0) + 1
        admission = self.store.begin(
            replace(LogHeader(name="log", samples_by_pid=by_pid, last_seconds=4999.0), **header)
        )
        for at in range(0, len(listed), 1000):
            self.store.add(admission.number, listed[at : at + 1000])
        self.done = self.store.commit(admission.number)
        return admission

    def pages(self, process: ProcessId = OWN) -> int:
        counts = self.store.counts(process)
        return 0 if counts is None else counts.table.totals().pages

    def _find(self, pid: int) -> LiveProcess:
        if pid not in self.alive:
            raise ProcessGoneError(f"no process has pid {pid}")
        return self.alive[pid]


def access(page: int, *, pid: int = OWN.pid, tid: int = 7, cpu: int = 0, at: float = 4990.0) -> Sample:
    return (pid, tid, cpu, round(at * 1e9), START + page * PAGE)


@pytest.fixture
def reads() -> Iterator[PatientReads]:
    pool = PatientReads(FakeClock(), ReadPool(), 5.0)
    yield pool
    pool.close()


def source_of(world: World, reads: PatientReads) -> LogSource:
    around = Surroundings(
        clock=world.clock, reads=reads, mappings=Mappings(world.clock), topology=lambda: world.topology
    )
    return LogSource(around, world.store, budget_ratio=0.01)


def perf_lines(seed: int, n_samples: int, start: int, part_pages: int, *, noise: float) -> Iterator[bytes]:
    """What perf would print of four threads, each on a node of its own at its own part, but for some noise.

    Noise is an access to any page from any CPU.
    """
    rng = random.Random(seed)  # noqa: S311 -- repeatable, not secret
    for number in range(n_samples):
        owner = rng.randrange(N_NODES)
        cpu, page = 2 * owner + rng.randrange(2), owner * part_pages + rng.randrange(part_pages)
        if rng.random() < noise:
            owner, page = rng.randrange(N_NODES), rng.randrange(N_NODES * part_pages)
            cpu = 2 * owner + rng.randrange(2)
        at = 4900.0 + 90.0 * number / n_samples
        address = start + page * PAGE + rng.randrange(512) * 8
        yield (
            f"{OWN.pid}/{1000 + owner} [{cpu:03}] {at:12.6f}: {address:16x}      10268100142 |OP LOAD|LVL L3 or L3 hit"
            f"|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A {rng.randrange(20, 300):15} {0:15x}\n"
        ).encode()


def judged_from_log(world: World, reads: PatientReads, lines: Iterator[bytes]) -> AccessWindow:
    tally = LogTally(path="log")
    samples = [
        (sample.pid, sample.tid, sample.cpu, round((sample.seconds or 0) * 1e9), sample.address)
        for batch in parse_perf_script(lines, tally)
        for sample in batch
    ]
    assert tally.odd == 0
    world.take(samples, last_seconds=tally.last_seconds)
    return source_of(world, reads).read(OWN)


@pytest.mark.parametrize("samples_per_page", [5, 12])
@pytest.mark.parametrize("seed", [1, 2])
def test_from_a_log_with_noise_the_right_pages_are_judged(
    reads: PatientReads, samples_per_page: int, seed: int
) -> None:
    part_pages = 768
    with mmap.mmap(-1, N_NODES * part_pages * PAGE + 2 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        start = -(-ctypes.addressof(ctypes.c_char.from_buffer(area)) // (2 * MIB)) * 2 * MIB
        world = World()
        world.live(OWN, started_at=4000.0, start=start, length=N_NODES * part_pages * PAGE)
        n_samples = samples_per_page * N_NODES * part_pages
        window = judged_from_log(world, reads, perf_lines(seed, n_samples, start, part_pages, noise=0.1))
        judged = {
            page: run.node
            for run in window.runs
            for page in range((run.start - start) // PAGE, (run.end - start) // PAGE)
        }
        right = sum(node == page // part_pages for page, node in judged.items())
        assert right / len(judged) >= 0.95  # precision
        assert right / (N_NODES * part_pages) >= 0.95  # recall
        assert (window.samples, window.hits, window.threads) == (n_samples, n_samples, 4)
        assert all(run.pages_by_node is not None for run in window.runs)


def test_a_log_is_read_as_news_once_and_judged_as_long_as_it_is_young(reads: PatientReads) -> None:
    world = World()
    source = source_of(world, reads)
    assert not source.knows(OWN)
    world.take(access(page) for page in range(64) for _ in range(10))
    assert source.knows(OWN)
    first, second = source.read(OWN), source.read(OWN)
    assert first.method is AccessMethod.PERF_LOG
    assert (first.samples, second.samples, second.hits) == (640, 0, 0)
    assert first.runs == second.runs != ()
    assert first.watched_seconds == pytest.approx(10.0)
    world.clock.time += MOST_AGE_SECONDS + 1
    assert not source.knows(OWN)
    assert world.pages() == 0


def test_a_second_log_adds_to_the_first() -> None:
    world = World()
    world.take([access(1)] * 8)
    world.take([access(2)] * 8)
    counts = world.store.counts(OWN)
    assert counts is not None
    assert world.pages() == 2
    assert (counts.new_samples, counts.new_hits) == (16, 16)


def test_nothing_of_a_log_counts_before_its_end() -> None:
    world = World()
    world.take([access(1)] * 8)
    admission = world.store.begin(LogHeader(name="log", samples_by_pid={OWN.pid: 9}, last_seconds=4999.0))
    world.store.add(admission.number, [access(2)])
    assert world.pages() == 1
    world.store.abandon(admission.number)
    assert world.pages() == 1
    with pytest.raises(ImportRefusedError):
        world.store.commit(admission.number)


def test_one_log_at_a_time_and_who_is_not_heard_of_gives_way() -> None:
    world = World()
    header = LogHeader(name="log", samples_by_pid={OWN.pid: 1}, last_seconds=4999.0)
    first = world.store.begin(header)
    with pytest.raises(ImportRefusedError):
        world.store.begin(header)
    world.clock.time += IDLE_SECONDS
    second = world.store.begin(header)
    with pytest.raises(ImportRefusedError):
        world.store.add(first.number, [access(1)])
    world.store.add(second.number, [access(1)])


def test_samples_from_before_the_process_began_are_those_of_another() -> None:
    world = World()
    world.take([*[access(1, at=3999.0)] * 5, *[access(2, at=4001.0)] * 3])
    assert world.pages() == 1
    assert [(each.hits, each.earlier) for each in world.done] == [(3, 5)]


def test_a_log_that_ended_before_the_process_began_is_of_another() -> None:
    world = World()
    admission = world.take([access(1, at=3990.0)], last_seconds=3990.0)
    assert admission.wanted == ()
    assert "began 10 s after the log" in admission.refused[OWN.pid]
    assert world.pages() == 0


def test_a_log_without_times_is_taken_but_said_to_be() -> None:
    world = World()
    admission = world.take([access(1, at=0.0)], last_seconds=None)
    assert not admission.is_timed
    assert world.pages() == 1


def test_what_is_not_in_watched_memory_is_counted_and_left_out() -> None:
    world = World()
    world.take([access(-1), access(16384), access(0), access(16383), access(3, cpu=99)])
    assert [(each.hits, each.elsewhere, each.unknown_cpus) for each in world.done] == [(3, 2, 1)]
    assert world.pages() == 2


def test_of_many_processes_those_with_most_samples_that_live_are_wanted() -> None:
    world = World(most_processes=1)
    world.live(OTHER, started_at=4000.0)
    admission = world.take([*[access(1, pid=1)] * 9, *[access(1)] * 2, *[access(1, pid=OTHER.pid)] * 3])
    assert admission.wanted == (OTHER.pid,)
    assert set(admission.refused) == {1, OWN.pid}
    world.take([access(1)])
    assert (world.pages(OTHER), world.pages(OWN)) == (0, 1)


def test_lost_samples_are_reported_in_proportion() -> None:
    world = World()
    world.take([access(1)] * 90, lost_samples=10)
    counts = world.store.counts(OWN)
    assert counts is not None
    assert counts.new_lost == 10


def test_counts_by_nodes_that_have_changed_are_forgotten(reads: PatientReads) -> None:
    world = World()
    world.take([access(1)])
    world.topology = replace(world.topology, node_of_cpu=dict(list(world.topology.node_of_cpu.items())[:-1]))
    assert not source_of(world, reads).knows(OWN)


def test_processes_of_logs_come_from_these_and_others_from_the_other_watch(reads: PatientReads) -> None:
    world, others = World(), FakeAccessWatch()
    world.live(OTHER, started_at=4000.0)
    third = ProcessId(99, 1)
    others.windows[third] = make_access_window(pid=99)
    world.take([*[access(1)] * 20, *[access(1, pid=OTHER.pid)] * 20])
    found = LogsFirst(source_of(world, reads), others).read([OWN, OTHER, third])
    assert others.asked == [(third,)]
    assert set(found.windows) == {OWN, third}
    assert "its log cannot be used" in found.missed[OTHER].detail  # its pid belongs to nobody, or to another
    assert world.pages(OTHER) == 0


@pytest.mark.parametrize(
    ("last", "clock", "offset"),
    [
        (4990.0, None, 0.0),
        (5002.0, None, 0.0),  # the scheduler's clock goes ahead by up to half a second in 1000
        (4990.0, "monotonic", 0.0),
        (5030.0, "boottime", 40.0),
        (1.7e9 + 4990.0, None, 1.7e9),
        (1.7e9 + 4990.0, "realtime", 1.7e9),
    ],
)
def test_times_of_each_clock_become_monotonic(last: float, clock: str | None, offset: float) -> None:
    now = Clocks(monotonic=5000.0, boottime=5040.0, realtime=1.7e9 + 5000.0)
    assert offset_seconds(last, clock, now) == pytest.approx(offset)


@pytest.mark.parametrize(
    ("last", "clock", "told"),
    [
        (5010.0, None, "10 s after now"),
        (5002.0, "monotonic", "2 s after now"),
        (1300.0, None, "62 min ago"),
        (1.7e9 + 9000.0, None, "after now"),
        (4990.0, "tai", "clock tai"),
    ],
)
def test_times_that_cannot_be_meant_are_refused(last: float, clock: str | None, told: str) -> None:
    now = Clocks(monotonic=5000.0, boottime=5040.0, realtime=1.7e9 + 5000.0)
    with pytest.raises(ClockError, match=told):
        offset_seconds(last, clock, now)


def test_a_pid_of_nobody_is_refused() -> None:
    world = World()
    assert os.getpid() in world.alive
    assert world.take([access(1, pid=1)]).refused == {1: "there is no such process any more"}
