"""Samples of loads and stores out of perf's rings, laid out by perf_event_open(2) and linux/perf_event.h."""

import errno
import fcntl
import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from balancerd.native import (
    AccessNodes,
    AccessTable,
    AddressRanges,
    MemoryEvent,
    PerfKind,
    PerfReading,
    ThreadRings,
    probe,
)
from balancerd.native._core import ffi
from tests.unit.native.memory import PAGE, address_of, map_pages, needs_root, touch, without_privileges
from tests.unit.native.rings import EXIT, LOST, SAMPLE, THROTTLE, fault_record, filled, memory_record, record

START = 0x7F00_0000_0000
RANGES = AddressRanges([(START, START + 64 * PAGE)])
NODES = AccessNodes([(0, 0), (1, 0), (2, 1)])

# include/uapi/linux/perf_event.h, union perf_mem_data_src: op:5, lvl:14, snoop:5, lock:2, dtlb:7, lvl_num:4, remote:1
NO_OP, LOAD, STORE, PREFETCH = 1, 2, 4, 8
NA, HIT, MISS, L1, LFB, L2, L3 = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
LOCAL, REMOTE, REMOTE_2, CACHE_1, CACHE_2, IO, UNCACHED = 0x80, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000
N_L1, N_L2, N_L3, N_CXL, N_IO, N_CACHE, N_LFB, N_RAM, N_PMEM, N_NA = 1, 2, 3, 9, 10, 11, 12, 13, 14, 15
GUEST_KERNEL, GUEST_USER = 4, 5


def source(op: int, level: int = 0, number: int = 0) -> int:
    return op | level << 5 | number << 33


DRAM = source(LOAD, HIT | LOCAL, N_RAM)


@pytest.fixture
def table() -> Iterator[AccessTable]:
    made = AccessTable(NODES, 1 << 20)
    yield made
    made.close()


def read(table: AccessTable, *records: bytes, tail: int = 0) -> PerfReading:
    with filled(b"".join(records), kind=PerfKind.MEMORY, tail=tail) as rings:
        return rings.read(table, RANGES)


def samples_at(table: AccessTable, address: int) -> int:
    known = table.page(address)
    return known.samples if known else 0


@pytest.mark.parametrize(
    ("data_src", "expected"),
    [
        pytest.param(DRAM, "memory", id="local"),
        pytest.param(source(LOAD, HIT | REMOTE, N_RAM), "memory", id="remote"),
        pytest.param(source(LOAD, HIT | REMOTE_2), "memory", id="remote, two hops, no number"),
        pytest.param(source(LOAD, HIT | REMOTE, N_L3), "memory", id="Intel 0x0b: remote, called L3 by its number"),
        pytest.param(source(LOAD, MISS, N_L3), "memory", id="Intel 0x00: has missed L3"),
        pytest.param(source(LOAD, MISS | L3), "memory", id="the same of older kernels"),
        pytest.param(source(LOAD, 0, N_RAM), "memory", id="by number alone"),
        pytest.param(source(LOAD, 0, N_PMEM), "memory", id="AMD: persistent"),
        pytest.param(source(LOAD, 0, N_CXL), "memory", id="AMD: CXL"),
        pytest.param(source(LOAD | STORE, HIT | LOCAL, N_RAM), "memory", id="a locked instruction does both"),
        pytest.param(source(LOAD, HIT | L1, N_L1), "near", id="L1"),
        pytest.param(source(LOAD, HIT | LFB, N_LFB), "near", id="LFB"),
        pytest.param(source(LOAD, HIT | L2, N_L2), "near", id="L2"),
        pytest.param(source(LOAD, HIT | L2), "near", id="L2, no number"),
        pytest.param(source(LOAD, HIT | L1), "near", id="L1, no number"),
        pytest.param(source(LOAD, HIT | LFB), "near", id="LFB, no number"),
        pytest.param(source(LOAD, NA, N_LFB), "near", id="LFB by number alone"),
        pytest.param(source(LOAD, HIT | L3, N_L3), "far", id="L3"),
        pytest.param(source(LOAD, HIT | CACHE_1, N_L3), "far", id="another socket's cache"),
        pytest.param(source(LOAD, HIT | L3 | CACHE_1, N_CACHE), "far", id="AMD: some cache of the socket"),
        pytest.param(source(LOAD, HIT | CACHE_2, N_CACHE), "far", id="AMD: another socket's cache"),
        pytest.param(source(LOAD, HIT | IO, N_IO), "far", id="device"),
        pytest.param(source(LOAD, HIT | UNCACHED), "far", id="uncached"),
        pytest.param(source(LOAD, NA, N_NA), "far", id="nobody knows"),
        pytest.param(source(LOAD), "far", id="nothing said"),
        pytest.param(source(STORE, HIT | L1, N_L1), "near", id="store, L1"),
        pytest.param(source(STORE, HIT | L2, N_L2), "near", id="store, L2"),
        pytest.param(source(STORE, 0, N_L1), "near", id="store, L1 by number alone"),
        pytest.param(source(STORE, HIT | UNCACHED), "far", id="store, uncached"),
        pytest.param(source(STORE, MISS | L1), "memory", id="Intel: store has missed L1"),
        pytest.param(source(STORE, NA, N_NA), "memory", id="AMD: store has missed L2"),
        pytest.param(source(STORE, HIT | LOCAL, N_RAM), "memory", id="store, told"),
        pytest.param(source(NO_OP, NA, N_NA), "no_address", id="not an access"),
        pytest.param(source(PREFETCH, HIT | LOCAL, N_RAM), "no_address", id="prefetch"),
        pytest.param(0, "no_address", id="no answer"),
    ],
)
def test_what_answered_decides_whether_it_counts(table: AccessTable, data_src: int, expected: str) -> None:
    reading = read(table, memory_record(START + 8, data_src))
    told = {
        "memory": reading.with_access,
        "near": reading.near,
        "far": reading.far,
        "no_address": reading.no_address,
    }
    assert {name for name, count in told.items() if count} == {expected}
    assert (reading.samples, samples_at(table, START)) == (1, expected == "memory")


def test_other_bits_of_the_answer_do_not_matter(table: AccessTable) -> None:
    others = 0x1F << 19 | 0x3 << 24 | 0x7F << 26 | 0x1 << 37 | 0x3 << 38 | 0x7 << 40 | 0x7 << 43 | 0x3FFFF << 46
    near = source(LOAD, HIT | L1, N_L1)
    reading = read(table, memory_record(START, DRAM | others), memory_record(START, near | others))
    assert (reading.with_access, reading.near) == (1, 1)


def test_every_field_is_where_the_manual_says(table: AccessTable) -> None:
    read(table, memory_record(START + 5 * PAGE + 16, DRAM, tid=7, seconds=2.5, cpu=2, cycles=300, frame=0x1234_5000))
    known = table.page(START + 5 * PAGE)
    assert known is not None
    assert (known.weights, known.sole_thread, known.last_seconds) == (((1, 1.0),), 7, 2.5)


def test_each_load_counts_also_of_the_same_address(table: AccessTable) -> None:
    reading = read(table, *[memory_record(START, DRAM)] * 5)
    assert (reading.with_access, reading.accesses, samples_at(table, START)) == (5, 5, 5)


@pytest.mark.parametrize(
    ("address", "counted"),
    [(START - 1, "elsewhere"), (START + 64 * PAGE, "elsewhere"), (0xFFFF_8880_0000_0000, "elsewhere"), (0, "none")],
)
def test_an_address_elsewhere_or_none_does_not_count(table: AccessTable, address: int, counted: str) -> None:
    reading = read(table, memory_record(address, DRAM))
    assert (reading.elsewhere, reading.no_address) == (counted == "elsewhere", counted == "none")
    assert table.totals().taken == 0


@pytest.mark.parametrize("mode", [GUEST_KERNEL, GUEST_USER])
def test_addresses_of_a_guest_are_not_those_of_its_emulator(table: AccessTable, mode: int) -> None:
    reading = read(table, memory_record(START, DRAM, misc=mode))
    assert (reading.elsewhere, reading.with_access) == (1, 0)


def test_frames_are_told_or_not_in_the_same_ring(table: AccessTable) -> None:
    reading = read(
        table,
        memory_record(START, DRAM, frame=0x1000),
        memory_record(START, DRAM),
        memory_record(START, DRAM, frame=0),
        memory_record(START, DRAM, frame=1 << 40),
    )
    assert (reading.with_access, reading.framed, reading.foreign) == (4, 2, 0)


def test_stores_and_latencies_are_counted(table: AccessTable) -> None:
    reading = read(
        table,
        memory_record(START, DRAM, cycles=400),
        memory_record(START, source(LOAD, HIT | L2, N_L2), cycles=90),  # no access
        memory_record(START, source(STORE, MISS | L1), cycles=0),
        memory_record(START, source(STORE, HIT | L1), cycles=5),
        memory_record(START, source(LOAD | STORE, HIT | REMOTE), cycles=600),
    )
    assert (reading.samples, reading.stores, reading.with_access, reading.cycles) == (5, 2, 3, 1000)


def test_records_go_round_the_end_of_the_ring(table: AccessTable) -> None:
    for tail in range(3 * 4 * PAGE - 200, 3 * 4 * PAGE + 8, 8):
        records = [memory_record(START + number * PAGE, DRAM, frame=number or None) for number in range(3)]
        reading = read(table, *records, tail=tail)
        assert (reading.samples, reading.with_access, reading.foreign) == (3, 3, 0)
    assert [samples_at(table, START + number * PAGE) for number in range(4)] == [26, 26, 26, 0]


def test_foreign_records_are_passed_over(table: AccessTable) -> None:
    cut = memory_record(START, DRAM)[8:-8]
    reading = read(
        table,
        record(EXIT, bytes(24)),
        fault_record(START),  # a sample of another layout
        record(SAMPLE, cut),
        record(SAMPLE, cut + bytes(40)),
        record(77, bytes(1024)),
        record(LOST, bytes(8) + (6).to_bytes(8, "little")),
        record(THROTTLE, bytes(24)),
        memory_record(START, DRAM),
    )
    assert (reading.foreign, reading.samples, reading.lost, reading.throttled) == (5, 1, 6, 1)
    assert samples_at(table, START) == 1


@pytest.mark.parametrize("length", [0, 4, 12, 4096])
def test_a_record_of_impossible_length_ends_the_reading(table: AccessTable, length: int) -> None:
    broken = bytearray(memory_record(START, DRAM))
    broken[6:8] = length.to_bytes(2, "little")
    reading = read(table, memory_record(START, DRAM), bytes(broken), memory_record(START, DRAM))
    assert (reading.foreign, reading.samples) == (1, 1)


def test_whatever_bytes_come_every_sample_is_accounted_for(table: AccessTable) -> None:
    choose = random.Random(6)  # noqa: S311 the same records in every run
    records = []
    for _ in range(200):
        bits = choose.getrandbits(64)
        frame = choose.choice([None, 0, 1 << 12])
        address = choose.choice([0, START + PAGE, bits])
        records.append(
            memory_record(address, choose.getrandbits(64), frame=frame, cpu=choose.randrange(4), misc=bits & 7)
        )
    reading = read(table, *records)
    told = reading.with_access + reading.elsewhere + reading.no_address + reading.near + reading.far
    assert reading.samples == told == 200
    assert reading.accesses == table.totals().taken


def test_the_busiest_thread_is_known(table: AccessTable) -> None:
    lost = record(LOST, bytes(8) + (9).to_bytes(8, "little"))
    assert read(table, memory_record(START, DRAM), lost, memory_record(START, DRAM)).busiest == 11


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((), id="none"),
        pytest.param(
            (MemoryEvent(pmu_type=1, configs=(0, 0, 0), is_auxiliary=True),),
            id="none that takes samples",
        ),
    ],
)
def test_without_events_nothing_can_be_opened(events: tuple[MemoryEvent, ...]) -> None:
    with pytest.raises(OSError, match="thread") as caught:
        probe(PerfKind.MEMORY, events=events)
    assert caught.value.errno in {errno.EINVAL, errno.EACCES, errno.EPERM}


SOFTWARE = 1  # PERF_TYPE_SOFTWARE: events that there are without a PMU; they tell no data source
FAULTS = MemoryEvent(pmu_type=SOFTWARE, configs=(2, 0, 0))
MINOR_FAULTS = MemoryEvent(pmu_type=SOFTWARE, configs=(5, 0, 0), is_stores=True)
SWITCHES = MemoryEvent(pmu_type=SOFTWARE, configs=(3, 0, 0), is_auxiliary=True)


def can_open() -> bool:
    try:
        probe(PerfKind.FAULTS)
    except OSError:
        return False
    return True


needs_perf = pytest.mark.skipif(not can_open(), reason="needs perf_event_open(2)")


def faults_taken(table: AccessTable, rings: ThreadRings, pages: int) -> PerfReading:
    """Let this thread fault on so many pages, while its events are open, and read what they tell."""
    area = map_pages(pages)
    touch(area, 0, pages)
    return rings.read(table, RANGES)


@needs_perf
def test_the_kernel_writes_samples_of_this_layout(table: AccessTable) -> None:
    rings = ThreadRings(PerfKind.MEMORY, events=(FAULTS,), period=1)
    rings.open(threading.get_native_id())
    reading = faults_taken(table, rings, 50)
    rings.close()
    assert 50 <= reading.samples < 100
    assert (reading.no_address, reading.foreign, reading.lost) == (reading.samples, 0, 0)


@needs_perf
def test_the_kernel_writes_the_fields_in_the_order_in_which_they_are_read() -> None:
    area, tid = map_pages(4), threading.get_native_id()
    rings = ThreadRings(PerfKind.MEMORY, events=(FAULTS,), period=1)
    rings.open(tid)
    began = time.monotonic_ns()
    touch(area, 3, 4)
    ring = rings._data[0]
    held = bytes(ffi.buffer(ring.map, ring.map_bytes))[PAGE:]
    cpus, told = os.sched_getaffinity(0), []
    while held[:4] == SAMPLE.to_bytes(4, "little"):
        size = int.from_bytes(held[6:8], "little")
        assert size in {56, 64}  # with the frame's address, or without
        pid, of_tid, time_ns, address, cpu, _, weight, data_src = struct.unpack_from("=IIQQIIQQ", held, 8)
        assert (pid, of_tid, weight) == (os.getpid(), tid, 0)
        assert began <= time_ns <= time.monotonic_ns()
        assert cpu in cpus
        assert data_src & 0x1F == NO_OP
        told.append(address & -PAGE)
        held = held[size:]
    rings.close()
    assert address_of(area) + 3 * PAGE in told


@needs_perf
def test_several_events_share_a_ring_each_with_its_period(table: AccessTable) -> None:
    rings = ThreadRings(PerfKind.MEMORY, events=(SWITCHES, FAULTS, MINOR_FAULTS), period=1, store_period=1)
    rings.open(threading.get_native_id())
    both = faults_taken(table, rings, 100).samples
    rings.set_periods(1, 1_000_000)
    of_one = faults_taken(table, rings, 100).samples
    rings.set_periods(1_000_000, 1_000_000)
    of_none = faults_taken(table, rings, 100).samples
    rings.close()
    assert both >= 200
    assert 100 <= of_one < 150
    assert of_none < 10


PERF_EVENT_IOC_DISABLE = 0x2401


@needs_perf
def test_an_event_is_in_the_group_of_the_auxiliary_one_before_it_and_no_other(table: AccessTable) -> None:
    rings = ThreadRings(PerfKind.MEMORY, events=(SWITCHES, FAULTS, MINOR_FAULTS), period=1, store_period=1)
    rings.open(threading.get_native_id())
    fcntl.ioctl(rings._data[0].event_fd[0], PERF_EVENT_IOC_DISABLE)  # of a leader: its group rests
    reading = faults_taken(table, rings, 100)
    rings.close()
    assert 100 <= reading.samples < 150


@needs_perf
@pytest.mark.parametrize("last", [FAULTS, MemoryEvent(pmu_type=SOFTWARE, configs=(77, 0, 0))])
def test_what_was_opened_is_closed_even_when_one_of_them_cannot_be(last: MemoryEvent) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 names are all it takes
    rings = ThreadRings(PerfKind.MEMORY, events=(SWITCHES, FAULTS, SWITCHES, last))
    with suppress(FileNotFoundError):
        rings.open(threading.get_native_id())
    assert len(rings) == (last is FAULTS)
    rings.close()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@needs_root
@needs_perf
def test_without_privileges_frames_are_done_without() -> None:
    def attempt() -> tuple[int, int]:
        rings = ThreadRings(PerfKind.MEMORY, events=(FAULTS,), period=1, user_only=True)
        rings.open(threading.get_native_id())
        table = AccessTable(NODES, 1 << 16)
        reading = faults_taken(table, rings, 50)
        rings.close()
        return reading.samples >= 50, reading.foreign

    assert int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 2 or without_privileges(attempt) == (True, 0)
