"""Register sampling for real: two threads of this process on two CPUs, each at work on its half of one mapping."""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.accesses import rate
from balancerd.kernel.accesses.registers import RegisterSource, find_obstacle
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.files import list_names
from balancerd.kernel.placement.pool import PatientReads
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.access import AccessWindow
from balancerd.model.ids import ProcessId
from balancerd.model.topology import Topology
from tests.unit.kernel.accesses.surroundings import CPUS, MIB, as_nodes, surroundings
from tests.unit.kernel.worlds import OWN

PART_BYTES = 8 * MIB

can_sample = pytest.mark.skipif(
    len(CPUS) < 2 or find_obstacle() is not None, reason="needs two CPUs, and perf_event_open(2)"
)


@contextmanager
def at_work(area: mmap.mmap) -> Iterator[int]:
    """Two threads, each on a CPU of its own, that read their halves of the area over and over; yield its address."""
    libc = ctypes.CDLL(None)  # its calls let go of the interpreter's lock
    libc.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    stop = threading.Event()

    def work(index: int) -> None:
        os.sched_setaffinity(0, {CPUS[index]})
        while not stop.is_set():
            libc.memchr(start + index * PART_BYTES, 1, PART_BYTES)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield start
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def make_source(reads: PatientReads, topology: Callable[[], Topology], **changes: int) -> RegisterSource:
    table_bytes = changes.get("table_bytes", 4 * MIB)
    return RegisterSource(surroundings(reads, topology), table_bytes=table_bytes, budget_ratio=0.01)


def read_until(
    source: RegisterSource, process: ProcessId, is_enough: Callable[[AccessWindow], bool]
) -> list[AccessWindow]:
    windows: list[AccessWindow] = []
    end = time.monotonic() + 40.0
    while not windows or not (is_enough(windows[-1]) or time.monotonic() > end):
        time.sleep(0.05)
        windows.append(source.read(process))
    return windows


@can_sample
def test_each_half_is_found_to_belong_to_the_node_of_its_thread(reads: PatientReads) -> None:
    with mmap.mmap(-1, 2 * PART_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        area[:] = bytes(2 * PART_BYTES)
        source = make_source(reads, lambda: as_nodes(*CPUS))
        source.open(OWN)
        try:
            with at_work(area) as start:

                def judged(window: AccessWindow) -> int:
                    return sum(r.end - r.start for r in window.runs if start <= r.start < start + 2 * PART_BYTES)

                windows = read_until(source, OWN, lambda window: judged(window) >= PART_BYTES)
            last = windows[-1]
            assert judged(last) >= PART_BYTES
            right = wrong = 0
            for run in last.runs:
                for owner in range(2):
                    part = start + owner * PART_BYTES
                    size = min(run.end, part + PART_BYTES) - max(run.start, part)
                    if size > 0:
                        right, wrong = (right + size, wrong) if run.node == owner else (right, wrong + size)
            assert right >= 0.95 * (right + wrong)
            inside = [run for run in last.runs if start <= run.start < start + 2 * PART_BYTES]
            assert all(run.pages_by_node == {0: (run.end - run.start) / 4096} for run in inside)
            assert sum(window.hits for window in windows) >= 0.5 * sum(window.samples for window in windows) > 0
            assert last.threads >= 2
            assert last.watched_seconds == pytest.approx(sum(window.seconds for window in windows), abs=0.01)
        finally:
            source.close(OWN)


@can_sample
def test_a_process_whose_memory_lies_where_it_is_used_is_sampled_less_and_less(
    reads: PatientReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    set_frequency = native.ThreadRings.set_frequency

    def note(rings: native.ThreadRings, frequency_hz: int) -> None:
        chosen.append(frequency_hz)
        set_frequency(rings, frequency_hz)

    monkeypatch.setattr(native.ThreadRings, "set_frequency", note)
    monkeypatch.setattr(rate, "CALM_SECONDS", 0.0)
    monkeypatch.setattr(rate, "KNOWN_RATIO", 0.01)  # of this process's other threads and memory nobody knows enough
    monkeypatch.setattr(rate, "ASTRAY_RATIO", 1.0)
    with mmap.mmap(-1, 2 * PART_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = bytes(2 * PART_BYTES)
        source = make_source(reads, lambda: as_nodes(*CPUS))
        source.open(OWN)
        try:
            with at_work(area):
                read_until(source, OWN, lambda _: bool(chosen) and chosen[-1] <= max(chosen) / 4)
        finally:
            source.close(OWN)
    assert chosen[-1] <= max(chosen) / 4


THREADS_ON_DEMAND = """
import sys, threading
end = threading.Event()
threads = [threading.Thread(target=end.wait) for _ in range(2)]
for line in sys.stdin:
    if line == "begin\\n":
        for thread in threads:
            thread.start()
    else:
        end.set()
        for thread in threads:
            thread.join()
    print("done", flush=True)
"""
"""A process of one thread, until it is asked for two more. This one has those of other tests: nobody knows how many."""


@can_sample
def test_threads_that_come_are_sampled_and_those_that_went_are_dropped(reads: PatientReads) -> None:
    source = make_source(reads, lambda: as_nodes(*CPUS))
    command = [sys.executable, "-c", THREADS_ON_DEMAND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def ask(what: str) -> None:
            assert child.stdin is not None
            assert child.stdout is not None
            print(what, file=child.stdin, flush=True)
            assert child.stdout.readline() == "done\n"

        process = ProcessId(child.pid, read_start_ticks(child.pid))
        source.open(process)
        try:
            assert source.read(process).threads == 1
            ask("begin")
            assert source.read(process).threads == 3
            ask("end")
            windows = read_until(source, process, lambda window: window.threads == 1)  # it ends a moment after its join
            assert windows[-1].threads == 1
        finally:
            source.close(process)


@can_sample
def test_counting_begins_anew_when_cpus_come_or_go(reads: PatientReads) -> None:
    topologies = [as_nodes(*CPUS)]
    source = make_source(reads, lambda: topologies[-1])
    source.open(OWN)
    try:
        assert source.read(OWN).watched_seconds > 0
        topologies.append(as_nodes(CPUS[0]))
        began = time.monotonic()
        assert source.read(OWN).watched_seconds <= time.monotonic() - began
    finally:
        source.close(OWN)


@can_sample
def test_what_is_closed_leaves_no_descriptor_behind(reads: PatientReads) -> None:
    source = make_source(reads, lambda: as_nodes(*CPUS))
    before = len(list_names("/proc/self/fd"))
    for _ in range(3):
        source.open(OWN)
        source.read(OWN)
        source.close(OWN)
    source.close(OWN)
    assert len(list_names("/proc/self/fd")) == before


@can_sample
def test_another_process_of_the_same_pid_is_not_watched(reads: PatientReads) -> None:
    source = make_source(reads, lambda: as_nodes(*CPUS))
    with pytest.raises(ProcessGoneError, match="belongs to a process that started at tick"):
        source.open(ProcessId(OWN.pid, OWN.start_ticks + 1))


def test_more_nodes_than_can_be_told_apart_are_an_obstacle(reads: PatientReads) -> None:
    found = make_source(reads, lambda: as_nodes(*range(17))).probe()
    assert found is not None
    assert found.seen == "CPUs on 17 nodes; from 1 to 16 can be told apart"


@pytest.mark.parametrize(
    ("number", "status", "level", "seen", "fix"),
    [
        (errno.EACCES, "CapEff:\t0000000000000000", "3", "kernel.perf_event_paranoid=3 without CAP_PERFMON", "PERFMON"),
        (
            errno.EACCES,
            "CapEff:\t0000000000000000",
            "3",
            "without CAP_PERFMON",
            "sysctl -w kernel.perf_event_paranoid=2; and",
        ),
        (errno.EACCES, "CapEff:\t0000000000000000", "2", "without CAP_PERFMON", "in a unit, "),
        (
            errno.EACCES,
            "CapEff:\t0000004000000000",
            "3",
            "=3, where CAP_PERFMON is not enough",
            "perf_event_paranoid=2",
        ),
        (errno.EPERM, "CapEff:\t0000004000000000", "3", "though the capability is there", "seccomp=unconfined"),
        (errno.EACCES, "CapEff:\t0000004000000000", "2", "though the capability is there", "seccomp=unconfined"),
        (errno.ENOSYS, "CapEff:\t0000000000000000", "2", "ENOSYS", "CONFIG_PERF_EVENTS=y"),
        (errno.EMFILE, "CapEff:\t0000000000000000", "2", "EMFILE", "LimitNOFILE"),
    ],
)
def test_what_is_in_the_way_is_told_with_the_exact_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: str, level: str, seen: str, fix: str
) -> None:
    def refuse(_kind: native.PerfKind) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"{status}\n")
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/perf_event_paranoid").write_text(f"{level}\n")
    monkeypatch.setattr(native, "probe", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 998)
    found = find_obstacle(tmp_path)
    assert found is not None
    assert seen in found.seen
    assert fix in found.fix
