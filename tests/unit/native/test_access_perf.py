"""Samples out of perf's rings: as the kernel writes them here, and as it would write them elsewhere."""

import ctypes
import errno
import mmap
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import thread_time

import pytest

from balancerd.native import AccessNodes, AccessTable, AddressRanges, PerfKind, PerfReading, ThreadRings, probe
from tests.unit.native.memory import PAGE, address_of, map_pages, needs_root, touch, without_privileges
from tests.unit.native.rings import (
    EXIT,
    KERNEL,
    LOST,
    SAMPLE,
    THROTTLE,
    UNTHROTTLE,
    USER,
    fault_record,
    filled,
    record,
    registers_record,
)

NODES = AccessNodes([(0, 0), (1, 0), (2, 1)])
LOW, HIGH = 0x10_0000, 0x7F00_0000_0000
RANGES = AddressRanges([(HIGH, HIGH + 64 * PAGE), (LOW, LOW + 16 * PAGE), (HIGH + 128 * PAGE, HIGH + 256 * PAGE)])


def why_not(kind: PerfKind) -> str | None:
    """What keeps this machine from sampling a thread."""
    try:
        probe(kind)
    except OSError as error:
        return error.strerror
    return None


needs_perf = pytest.mark.skipif(why_not(PerfKind.REGISTERS) is not None, reason=f"perf: {why_not(PerfKind.REGISTERS)}")


@pytest.fixture
def table() -> Iterator[AccessTable]:
    made = AccessTable(NODES, 1 << 20)
    yield made
    made.close()


def read(table: AccessTable, *records: bytes, kind: PerfKind = PerfKind.REGISTERS, tail: int = 0) -> PerfReading:
    with filled(b"".join(records), kind=kind, tail=tail) as rings:
        return rings.read(table, RANGES)


def pages(table: AccessTable, *addresses: int) -> list[int | None]:
    """How often each was seen."""
    return [known.samples if (known := table.page(address)) else None for address in addresses]


@pytest.mark.parametrize(
    ("address", "counts"),
    [
        (LOW - 1, False),
        (LOW, True),
        (LOW + 16 * PAGE - 1, True),
        (LOW + 16 * PAGE, False),
        (HIGH - 1, False),
        (HIGH, True),
        (HIGH + 64 * PAGE, False),
        (HIGH + 128 * PAGE - 8, False),
        (HIGH + 128 * PAGE, True),
        (HIGH + 256 * PAGE - 1, True),
        (HIGH + 256 * PAGE, False),
        (0, False),
        ((1 << 64) - 1, False),
    ],
)
def test_a_register_counts_that_points_into_a_range(table: AccessTable, address: int, counts: bool) -> None:
    reading = read(table, registers_record([3, address], tid=9, seconds=2.5, cpu=2))
    assert (reading.samples, reading.with_access, reading.elsewhere) == (1, counts, not counts)
    known = table.page(address)
    assert (known is not None) == counts
    if known is not None:
        assert (known.weights, known.sole_thread, known.last_seconds) == (((1, 1.0),), 9, 2.5)


@pytest.mark.parametrize("register", range(15))
def test_every_register_is_looked_at(table: AccessTable, register: int) -> None:
    read(table, registers_record([5] * register + [LOW]))
    assert pages(table, LOW) == [1]


def test_a_page_counts_once_a_sample_and_other_pages_too(table: AccessTable) -> None:
    reading = read(table, registers_record([LOW, LOW + 8, HIGH + 64, LOW + PAGE - 1, HIGH + PAGE]))
    assert (reading.accesses, reading.with_access) == (3, 1)
    assert pages(table, LOW, HIGH, HIGH + PAGE, LOW + PAGE) == [1, 1, 1, None]


def test_a_value_that_stays_counts_once_however_many_others_come_by(table: AccessTable) -> None:
    samples = [registers_record([LOW, HIGH + (number * 56_872) % (64 * PAGE)]) for number in range(1, 95)]
    reading = read(table, *samples)
    assert pages(table, LOW) == [1]
    assert (reading.samples, reading.with_access, reading.repeated) == (94, 94, 0)
    assert reading.accesses == 95


def test_a_sample_of_known_values_alone_is_repeated(table: AccessTable) -> None:
    reading = read(table, *[registers_record([LOW, HIGH])] * 5, registers_record([HIGH, 0, LOW]))
    assert (reading.with_access, reading.repeated) == (1, 5)
    assert pages(table, LOW, HIGH) == [1, 1]


def test_values_that_move_on_within_a_page_count_each_time(table: AccessTable) -> None:
    read(table, *[registers_record([LOW + 64 * step]) for step in range(20)])
    assert pages(table, LOW) == [20]


def test_records_go_round_the_end_of_the_ring(table: AccessTable) -> None:
    for tail in range(3 * 4 * PAGE - 200, 3 * 4 * PAGE + 8, 8):
        reading = read(table, *[registers_record([LOW + 8 * number]) for number in range(3)], tail=tail)
        assert (reading.samples, reading.with_access, reading.foreign) == (3, 3, 0)
    assert pages(table, LOW) == [3 * 26]


def test_what_the_kernel_could_not_tell_is_counted(table: AccessTable) -> None:
    reading = read(
        table,
        record(LOST, bytes(8) + (17).to_bytes(8, "little")),
        record(THROTTLE, bytes(24)),
        record(UNTHROTTLE, bytes(24)),
        record(LOST, bytes(8) + (4).to_bytes(8, "little")),
        registers_record([LOW], misc=KERNEL),
        record(SAMPLE, bytes(40)),  # without registers: their number is 0, for none
    )
    assert (reading.lost, reading.throttled, reading.unthrottled) == (21, 1, 1)
    assert (reading.samples, reading.in_kernel, reading.no_registers, reading.foreign) == (2, 1, 1, 0)


def test_foreign_records_are_passed_over(table: AccessTable) -> None:
    foreign = [record(EXIT, bytes(24)), record(SAMPLE, bytes(48)), record(LOST, b""), record(77, bytes(4096))]
    reading = read(table, *foreign, registers_record([LOW]))
    assert (reading.foreign, reading.samples, pages(table, LOW)) == (4, 1, [1])


@pytest.mark.parametrize("length", [0, 4, 12, 4096])
def test_a_record_of_impossible_length_ends_the_reading(table: AccessTable, length: int) -> None:
    broken = bytearray(registers_record([HIGH]))
    broken[6:8] = length.to_bytes(2, "little")
    reading = read(table, registers_record([LOW]), bytes(broken), registers_record([LOW + PAGE]))
    assert (reading.foreign, reading.samples) == (1, 1)


def test_the_first_fault_of_a_page_is_its_touch(table: AccessTable) -> None:
    faults = [fault_record(LOW + 8, tid=3, cpu=0), fault_record(LOW + 16, tid=4, cpu=2), fault_record(HIGH - 1)]
    reading = read(table, *faults, kind=PerfKind.FAULTS)
    assert (reading.samples, reading.accesses, reading.elsewhere) == (3, 2, 1)
    assert (table.totals().touches, table.totals().counted) == (1, 1)
    known = table.page(LOW)
    assert known is not None
    assert (known.weights, known.sole_thread) == (((1, 1.0),), 4)


X86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="code of x86-64")


@X86_64
@pytest.mark.parametrize(
    ("before", "after", "misc", "counted"),
    [
        ("4c 03 0c c7", "c3", USER, {5: 3}),  # add (%rdi,%rax,8),%r9: in place of the array's start, and each time
        ("48 8b 14 c7", "c3", USER, {5: 3}),  # mov (%rdi,%rax,8),%rdx
        ("48 8b 04 c7", "c3", USER, {0: 1}),  # mov (%rdi,%rax,8),%rax: nobody knows what %rax was
        ("48 8b 3f", "4c 03 0c c7", USER, {5: 3}),  # mov (%rdi),%rdi; but the next one will be add (%rdi,%rax,8),%r9
        ("4c 03 0c c7", "c3", KERNEL, {0: 1}),  # the registers are those of a system call
        ("48 ff ce", "4c 03 0c c7", USER, {5: 3}),  # dec %rsi
        ("48 ff ce", "c3", USER, {0: 1}),
        ("48 8b 44 24 08", "48 03 03", USER, {0: 1}),  # mov 0x8(%rsp),%rax; add (%rbx),%rax, where %rbx is 0
    ],
)
def test_an_operand_counts_in_place_of_its_registers(
    table: AccessTable, before: str, after: str, misc: int, counted: dict[int, int]
) -> None:
    code = bytes.fromhex("90" * 64 + before + after + "90" * 16)
    held = ctypes.create_string_buffer(code, len(code))
    ip = ctypes.addressof(held) + 64 + len(bytes.fromhex(before))
    registers = [5 * PAGE // 8, 0, 0, 0, 0, LOW]  # rax, rbx, rcx, rdx, rsi, rdi
    sample = registers_record(registers, misc=misc, ip=ip)
    with filled(sample * 3, kind=PerfKind.REGISTERS) as rings:
        reading = rings.read(table, RANGES, pid=os.getpid())
    found = pages(table, *(LOW + page * PAGE for page in range(16)))
    assert {page: samples for page, samples in enumerate(found) if samples} == counted
    assert reading.exact == counted.get(5, 0)
    assert reading.accesses == sum(counted.values())


def test_code_that_cannot_be_read_leaves_the_registers(table: AccessTable) -> None:
    records = registers_record([LOW], ip=0x10), registers_record([HIGH], ip=(1 << 64) - 1), registers_record([LOW + 8])
    with filled(b"".join(records), kind=PerfKind.REGISTERS) as rings:
        reading = rings.read(table, RANGES, pid=os.getpid())
    assert (reading.with_access, reading.exact) == (3, 0)


def test_a_cpu_on_no_node_is_counted_apart(table: AccessTable) -> None:
    read(table, registers_record([LOW], cpu=3), registers_record([LOW + 8], cpu=1 << 31), registers_record([LOW + 16]))
    assert (table.totals().unknown_cpus, table.totals().counted) == (2, 1)


def test_ranges_that_touch_or_overlap_are_one(table: AccessTable) -> None:
    ranges = AddressRanges([(30 * PAGE, 40 * PAGE), (10 * PAGE, 20 * PAGE), (20 * PAGE, 35 * PAGE), (50, 50)])
    assert len(ranges) == 1
    with filled(registers_record([10 * PAGE, 39 * PAGE, 40 * PAGE]), kind=PerfKind.REGISTERS) as rings:
        assert rings.read(table, ranges).accesses == 2


def test_no_ranges_take_no_accesses(table: AccessTable) -> None:
    with filled(registers_record([LOW]), kind=PerfKind.REGISTERS) as rings:
        assert rings.read(table, AddressRanges([])).elsewhere == 1


@contextmanager
def sampled(kind: PerfKind = PerfKind.REGISTERS, *tids: int, frequency_hz: int = 2000) -> Iterator[ThreadRings]:
    rings = ThreadRings(kind, frequency_hz=frequency_hz, ring_pages=64)
    try:
        for tid in tids or (threading.get_native_id(),):
            rings.open(tid)
        yield rings
    finally:
        rings.close()


def spin(seconds: float) -> None:
    """Use so much CPU time."""
    until = thread_time() + seconds
    while thread_time() < until:
        pass


@contextmanager
def at_work(areas: list[mmap.mmap]) -> Iterator[list[int]]:
    """One thread for each area, which fills it again and again; gives their ids."""
    over, started, tids = threading.Event(), threading.Barrier(len(areas) + 1), [0] * len(areas)
    memset = ctypes.CDLL(None).memset
    memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

    def work(number: int) -> None:
        address, length = address_of(areas[number]), len(areas[number])
        tids[number] = threading.get_native_id()
        started.wait()
        while not over.is_set():
            memset(address, 1, length)  # without Python's lock

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(areas))]
    for thread in threads:
        thread.start()
    started.wait()
    try:
        yield tids
    finally:
        over.set()
        for thread in threads:
            thread.join()


@needs_perf
def test_samples_of_threads_fall_into_the_parts_they_work_on(table: AccessTable) -> None:
    areas = [map_pages(2048) for _ in range(4)]
    ranges = AddressRanges([(address_of(area), address_of(area) + len(area)) for area in areas])
    accesses = 0
    with at_work(areas) as tids, sampled(PerfKind.REGISTERS, *tids) as rings:
        while accesses < 1000:
            spin(0.01)
            accesses += rings.read(table, ranges).accesses
    of_owner = seen = 0
    for tid, area in zip(tids, areas, strict=True):
        known = [table.page(address_of(area) + page * PAGE) for page in range(2048)]
        seen += sum(page.samples for page in known if page)
        of_owner += sum(page.samples for page in known if page and page.sole_thread == tid)
        assert sum(page is not None for page in known) > 50
    assert of_owner >= 0.95 * seen
    assert seen == accesses


ADD_UP_BY_INDEX = bytes.fromhex(
    "4d69c06d4ec641"  # again: imul $0x41c64e6d,%r8,%r8
    "4981c039300000"  # add $0x3039,%r8
    "4c89c0"  # mov %r8,%rax
    "48c1e810"  # shr $0x10,%rax
    "4821d0"  # and %rdx,%rax
    "4c030cc7"  # add (%rdi,%rax,8),%r9
    "48ffce"  # dec %rsi
    "75df"  # jne again
    "c3"  # ret
)
"""Adds up words of the array rdi at random places, rsi times, below rdx: no register ever holds their address."""


@needs_perf
@X86_64
def test_an_address_that_no_register_holds_is_told_by_the_instruction(table: AccessTable) -> None:
    area, code = map_pages(8192), mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(ADD_UP_BY_INDEX)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(
        address_of(code)
    )
    touch(area, 0, 8192)
    ranges = AddressRanges([(address_of(area), address_of(area) + len(area))])
    by_registers = by_operands = samples = exact = reads = 0
    with sampled() as rings:
        for turn in range(1000):
            run(address_of(area), 200_000, len(area) // 8 - 1, 0, turn)
            if turn % 2:
                reading = rings.read(table, ranges, pid=os.getpid())
                by_operands, samples = by_operands + reading.with_access, samples + reading.samples
                exact, reads = exact + reading.exact, reads + reading.code_reads
            else:
                by_registers += rings.read(table, ranges).with_access
            if samples > 300:
                break
    assert exact > 0.5 * samples
    assert by_operands >= exact
    assert by_registers < 0.1 * by_operands
    assert 0 < reads < samples
    assert table.totals().pages > 0.8 * exact


@needs_perf
def test_what_the_kernel_writes_for_a_thread_is_seen(table: AccessTable) -> None:
    area = map_pages(4096)
    ranges = AddressRanges([(address_of(area), address_of(area) + len(area))])
    view, in_kernel, accesses = memoryview(area), 0, 0
    with sampled() as rings, open("/dev/zero", "rb", buffering=0) as zeros:  # noqa: PTH123 a file as the kernel knows it
        while in_kernel < 100 or accesses < 50:
            for page in range(0, 4096, 64):
                zeros.readinto(view[page * PAGE : (page + 64) * PAGE])
            reading = rings.read(table, ranges)
            in_kernel, accesses = in_kernel + reading.in_kernel, accesses + reading.accesses
    view.release()
    assert table.totals().pages > 10


@needs_perf
def test_faults_are_told_with_their_page(table: AccessTable) -> None:
    area = map_pages(256)
    start = address_of(area)
    ranges = AddressRanges([(start, start + len(area))])
    with sampled(PerfKind.FAULTS) as rings:
        for page in range(256):
            area[page * PAGE + 5] = 1
        first = rings.read(table, ranges)
        assert (first.accesses, first.lost) == (256, 0)
        assert (table.totals().touches, table.totals().counted) == (256, 0)
        area.madvise(mmap.MADV_DONTNEED)
        for page in range(100, 200):
            area[page * PAGE] = 1
        rings.read(table, ranges)
    assert [at for at, samples in enumerate(pages(table, *range(start, start + len(area), PAGE))) if samples] == list(
        range(100, 200)
    )


@needs_perf
def test_first_faults_are_accesses_where_that_is_asked_for(table: AccessTable) -> None:
    area = map_pages(64)
    rings = ThreadRings(PerfKind.FAULTS, frequency_hz=1, first_is_touch=False)
    rings.open(threading.get_native_id())
    touch(area, 0, 64)
    rings.read(table, AddressRanges([(address_of(area), address_of(area) + len(area))]))
    rings.close()
    assert (table.totals().touches, table.totals().counted) == (0, 64)


@needs_perf
def test_a_ring_that_is_full_loses_samples_and_says_so(table: AccessTable) -> None:
    area = map_pages(1024)
    rings = ThreadRings(PerfKind.FAULTS, frequency_hz=1, ring_pages=1)
    rings.open(threading.get_native_id())
    for page in range(1024):
        area[page * PAGE] = 1
    ranges = AddressRanges([(address_of(area), address_of(area) + len(area))])
    reading = rings.read(table, ranges)
    area.madvise(mmap.MADV_DONTNEED)
    area[0] = 1  # the number of lost ones comes with the next record
    after = rings.read(table, ranges)
    rings.close()
    assert reading.samples <= PAGE // 40
    assert reading.lost + after.lost + reading.samples >= 1024


@needs_perf
def test_the_rate_follows_the_time_that_the_thread_runs(table: AccessTable) -> None:
    with sampled(frequency_hz=100) as rings:
        spin(0.4)
        few = rings.read(table, RANGES).samples
        rings.set_frequency(2000)
        spin(0.4)
        many = rings.read(table, RANGES).samples
    assert 20 <= few <= 80
    assert many > 5 * few


@needs_perf
def test_threads_come_and_go() -> None:
    areas = [map_pages(16) for _ in range(20)]
    own = threading.get_native_id()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 names are all it takes
    with at_work(areas) as tids:
        rings = ThreadRings(PerfKind.REGISTERS, frequency_hz=100, ring_pages=1)
        for tid in (own, *tids, own):
            rings.open(tid)
        assert rings.tids == {own, *tids}
        for tid in tids[::2]:
            rings.drop(tid)
        rings.drop(999_999_999)
        assert rings.tids == {own, *tids[1::2]}
        rings.set_frequency(50)
    made = AccessTable(NODES, 1 << 16)
    rings.read(made, RANGES)  # all but one have ended
    rings.close()
    assert not rings.tids
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@needs_perf
@pytest.mark.parametrize(
    ("frequency_hz", "ring_pages", "tid", "error"),
    [
        (100, 3, 0, errno.EINVAL),
        (0, 1, 0, errno.EINVAL),
        (2_000_000_000, 1, 0, errno.EINVAL),
        (100, 1, -1, errno.EINVAL),
        (100, 1, 999_999_999, errno.ESRCH),
    ],
)
def test_what_cannot_be_sampled_is_told(frequency_hz: int, ring_pages: int, tid: int, error: int) -> None:
    rings = ThreadRings(PerfKind.REGISTERS, frequency_hz=frequency_hz, ring_pages=ring_pages)
    with pytest.raises(OSError, match="thread") as caught:
        rings.open(tid)
    assert caught.value.errno == error
    assert len(rings) == 0


@needs_root
@needs_perf
@pytest.mark.parametrize("kind", [PerfKind.REGISTERS, PerfKind.FAULTS])
def test_without_privileges_the_kernel_refuses(kind: PerfKind) -> None:
    def attempt() -> int | None:
        with suppress(PermissionError):
            probe(kind)
            return None
        return errno.EACCES

    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    assert without_privileges(attempt) == (errno.EACCES if paranoid > 1 else None)


def samples_of(tid: int, *seconds: float, page: int = 0, step: int = 8) -> bytes:
    """A thread's samples of one page, each at an address of its own."""
    return b"".join(
        registers_record([LOW + page * PAGE + at * step], tid=tid, seconds=second, cpu=2 * (tid - 1))
        for at, second in enumerate(seconds)
    )


def read_two(table: AccessTable, first: bytes, second: bytes, *, kind: PerfKind, tail: int = 0) -> PerfReading:
    """What comes of two threads, each with a ring of one page."""
    with (
        filled(first, kind=kind, data_bytes=PAGE, tail=tail) as rings,
        filled(second, kind=kind, data_bytes=PAGE) as other,
    ):
        rings._data[1], rings._at[2] = other._data[0], 1
        reading = rings.read(table, RANGES)
        other._at.clear()  # emptied beside the first one
        return reading


@pytest.mark.parametrize("tail", [0, PAGE - 160, 3 * PAGE - 8])
@pytest.mark.parametrize("swapped", [False, True])
def test_when_a_ring_is_full_what_others_have_of_later_is_cut(table: AccessTable, swapped: bool, tail: int) -> None:
    busy = samples_of(1, *(1.0 + at / 10 for at in range(24)))  # 24 of 168 bytes: no room for one more
    calm = samples_of(2, 1.5, 2.5, 3.3, 3.4, 3.5, page=1)  # the busy one's last sample is of 3.3
    first, second = (calm, busy) if swapped else (busy, calm)
    reading = read_two(table, first, second, kind=PerfKind.REGISTERS, tail=tail)
    assert (reading.samples, reading.cut, reading.lost, reading.foreign) == (27, 2, 0, 0)
    assert pages(table, LOW, LOW + PAGE) == [24, 3]
    assert table.totals().taken == 27


@pytest.mark.parametrize(("others", "cut"), [(0, 0), (56, 0), (64, 1)])
def test_a_ring_with_room_for_one_more_has_lost_nothing(table: AccessTable, others: int, cut: int) -> None:
    """A byte always stays free; 23 samples leave room for one more and 64 bytes."""
    busy = samples_of(1, *(1.0 + at / 10 for at in range(23)))
    busy += b"".join(record(THROTTLE, b"") for _ in range(others // 8))
    reading = read_two(table, busy, samples_of(2, 1.5, 9.0, page=1), kind=PerfKind.REGISTERS)
    assert (reading.samples, reading.cut) == (25 - cut, cut)


def test_all_are_cut_where_the_first_of_several_full_rings_ended(table: AccessTable) -> None:
    busier = samples_of(1, *(1.0 + at / 20 for at in range(24)))  # until 2.15
    busy = samples_of(2, *(1.0 + at / 10 for at in range(24)), page=1)  # until 3.3
    reading = read_two(table, busier, busy, kind=PerfKind.REGISTERS)
    assert (reading.samples, reading.cut, reading.busiest) == (24 + 12, 12, 24)
    assert pages(table, LOW, LOW + PAGE) == [24, 12]


def test_faults_are_not_cut(table: AccessTable) -> None:
    many = b"".join(fault_record(LOW, seconds=1.0 + at / 100) for at in range(PAGE // 40))
    reading = read_two(table, many, fault_record(LOW + PAGE, seconds=9.0), kind=PerfKind.FAULTS)
    assert (reading.samples, reading.cut) == (PAGE // 40 + 1, 0)
