"""Faults for real, of a process that gives its pages back and uses them again: these fault as marked ones do."""

import mmap
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.accesses import hint_faults
from balancerd.kernel.accesses.hint_faults import HintFaultSource, find_obstacle
from balancerd.kernel.accesses.obstacles import find_balancing_obstacle, find_perf_obstacle
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import list_names
from balancerd.kernel.placement.pool import PatientReads
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.access import AccessMethod, AccessWindow
from balancerd.model.ids import NodeId, ProcessId
from tests.unit.kernel.accesses.surroundings import CPUS, MIB, as_nodes, surroundings

PAGES = 1024

CHILD = """
import ctypes, mmap, os, sys
area = mmap.mmap(-1, int(sys.argv[1]) * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
print(start, flush=True)
for line in sys.stdin:
    cpu, first, end = map(int, line.split())
    os.sched_setaffinity(0, {cpu})
    first, size = first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE
    area.madvise(mmap.MADV_DONTNEED, first, size)
    ctypes.memset(start + first, 1, size)
    print("faulted", flush=True)
"""


can_watch = pytest.mark.skipif(
    len(CPUS) < 2 or find_perf_obstacle(native.PerfKind.FAULTS) is not None,
    reason="needs two CPUs, and perf_event_open(2)",
)


class Other:
    """A process of one thread with a mapping of so many pages, which are there or not as the test says."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.start = int(self._read())
        self.end = self.start + PAGES * mmap.PAGESIZE
        self.id = ProcessId(child.pid, read_start_ticks(child.pid, "/proc"))

    def fault(self, cpu: int, first: int = 0, end: int = PAGES) -> None:
        """Have every page of these fault once, on a CPU: for the first time the process grows by them."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{cpu} {first} {end}\n")
        self._child.stdin.flush()
        assert self._read() == "faulted\n"

    def _read(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()

    def owned(self, window: AccessWindow) -> dict[int, int]:
        """How many pages of the mapping the runs give to each node."""
        pages: Counter[int] = Counter()
        for run in window.runs:
            pages[run.node] += max(0, min(run.end, self.end) - max(run.start, self.start)) // mmap.PAGESIZE
        return dict(+pages)


@pytest.fixture
def other() -> Iterator[Other]:
    command = [sys.executable, "-I", "-c", CHILD, str(PAGES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield Other(child)


@pytest.fixture
def source(reads: PatientReads) -> HintFaultSource:
    return HintFaultSource(
        surroundings(reads, lambda: as_nodes(*CPUS)),
        table_bytes=4 * MIB,
        budget_ratio=1000.0,  # judged at each read
    )


class LaterClock(MonotonicClock):
    """Goes ahead of the kernel's time by so many seconds."""

    ahead_seconds = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_seconds


@contextmanager
def watching(source: HintFaultSource, other: Other) -> Iterator[None]:
    source.open(other.id)
    try:
        source.read(other.id)  # opens the threads
        yield
    finally:
        source.close(other.id)


@can_watch
def test_pages_that_were_there_before_belong_to_who_faults_on_them(source: HintFaultSource, other: Other) -> None:
    other.fault(CPUS[0])
    with watching(source, other):
        other.fault(CPUS[1])
        first = source.read(other.id)
        assert first.method is AccessMethod.HINT_FAULTS
        assert PAGES <= first.hits <= first.samples
        other.fault(CPUS[1])
        window = source.read(other.id)
    assert other.owned(window) == {1: PAGES}
    assert all(run.pages_by_node for run in window.runs)


@can_watch
def test_first_touches_of_a_process_that_grows_are_no_samples(source: HintFaultSource, other: Other) -> None:
    with watching(source, other):
        other.fault(CPUS[0])
        touched = source.read(other.id)
        assert touched.samples < 0.1 * PAGES
        assert other.owned(touched) == {}
        other.fault(CPUS[0])
        assert source.read(other.id).hits >= PAGES


@can_watch
def test_once_it_has_grown_first_faults_of_older_pages_are_samples_again(source: HintFaultSource, other: Other) -> None:
    other.fault(CPUS[0], 0, PAGES // 2)
    with watching(source, other):
        other.fault(CPUS[0], PAGES // 2, PAGES)
        assert source.read(other.id).samples < 0.1 * PAGES
        other.fault(CPUS[0], 0, PAGES // 2)
        assert source.read(other.id).hits >= PAGES // 2


@can_watch
def test_pages_on_which_both_cpus_fault_belong_to_nobody(source: HintFaultSource, other: Other) -> None:
    other.fault(CPUS[0])
    with watching(source, other):
        for cpu in CPUS:
            other.fault(cpu)
        window = source.read(other.id)
    weights = [sum(region.weight_by_node.get(NodeId(node), 0.0) for region in window.regions) for node in (0, 1)]
    assert weights[0] == pytest.approx(PAGES, rel=0.1)
    assert weights[1] == pytest.approx(PAGES, rel=0.1)
    assert other.owned(window) == {}


@can_watch
def test_faults_are_judged_for_ten_minutes(reads: PatientReads, other: Other) -> None:
    clock = LaterClock()
    around = replace(surroundings(reads, lambda: as_nodes(*CPUS)), clock=clock)
    source = HintFaultSource(around, table_bytes=4 * MIB, budget_ratio=1000.0)
    other.fault(CPUS[0])
    with watching(source, other):
        for _ in range(2):
            other.fault(CPUS[0])
        clock.ahead_seconds = 590.0
        assert other.owned(source.read(other.id)) == {0: PAGES}
        clock.ahead_seconds = 620.0
        assert other.owned(source.read(other.id)) == {}


@can_watch
def test_what_found_no_room_in_its_ring_is_lost(
    source: HintFaultSource, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hint_faults, "ring_pages", lambda _threads, _most: 1)
    other.fault(CPUS[0])
    with watching(source, other):
        other.fault(CPUS[0])
        taken = source.read(other.id)
        other.fault(CPUS[0])  # how many were lost comes with the next record
        lost = source.read(other.id)
    assert 0 < taken.samples <= mmap.PAGESIZE // 40
    assert taken.samples + lost.lost_samples >= PAGES
    assert lost.lost_ratio > 0.5


@can_watch
def test_what_is_closed_leaves_nothing_behind(source: HintFaultSource, other: Other) -> None:
    before = len(list_names("/proc/self/fd"))
    for _ in range(3):
        with watching(source, other):
            pass
    assert len(list_names("/proc/self/fd")) == before
    assert source._own_pages == {}


@can_watch
def test_a_process_that_ended_is_gone(source: HintFaultSource) -> None:
    command = [sys.executable, "-I", "-c", CHILD, str(PAGES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        ended = Other(child)
        source.open(ended.id)
    with pytest.raises(ProcessGoneError):
        source.read(ended.id)
    source.close(ended.id)


def write_balancing(root: Path, told: str) -> None:
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/numa_balancing").write_text(f"{told}\n")


@pytest.mark.parametrize(
    ("told", "seen", "fix"),
    [
        ("0", "kernel.numa_balancing=0: no memory gets hint faults", "sysctl -w kernel.numa_balancing=1 "),
        ("2", "=2: only memory of slow tiers gets hint faults", "sysctl -w kernel.numa_balancing=3 "),
    ],
)
def test_kernel_balancing_that_is_off_is_told_with_the_exact_fix(
    tmp_path: Path, told: str, seen: str, fix: str
) -> None:
    write_balancing(tmp_path, told)
    found = find_obstacle(tmp_path)
    assert found is not None
    assert seen in found.seen
    assert fix in found.fix


def test_a_kernel_without_balancing(tmp_path: Path) -> None:
    found = find_obstacle(tmp_path)
    assert found is not None
    assert (found.seen, found.fix) == (
        "the kernel has no NUMA balancing",
        "boot a kernel with CONFIG_NUMA_BALANCING=y",
    )


@pytest.mark.parametrize("told", ["1", "3"])
@pytest.mark.parametrize("refused", [False, True])
def test_while_it_is_on_perf_events_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, refused: bool
) -> None:
    tried: list[native.PerfKind] = []

    def probe(kind: native.PerfKind) -> None:
        tried.append(kind)
        if refused:
            raise OSError(13, "Permission denied")

    write_balancing(tmp_path, told)
    monkeypatch.setattr(native, "probe", probe)
    found = find_obstacle(tmp_path)
    assert (found is not None) == refused
    assert tried == [native.PerfKind.FAULTS]


def test_the_probe_says_of_this_machine_what_its_file_says() -> None:
    path = Path("/proc/sys/kernel/numa_balancing")
    is_on = path.exists() and int(path.read_text(encoding="ascii")) & 1
    assert (find_balancing_obstacle() is None) == bool(is_on)
    assert (find_obstacle() is None) == (bool(is_on) and find_perf_obstacle(native.PerfKind.FAULTS) is None)
