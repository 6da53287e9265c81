"""Logs of perf taken apart: captured ones, those of other fields, and what is no sample in them.

tests/machines/perf-6.1/faults.txt is what perf 6.1 printed of page faults, which have all fields, though data_src and
weight tell nothing there. The lines of loads are written by hand in the same columns: there was no PMU to capture them.
"""

from collections.abc import Iterable

import pytest

from balancerd.kernel.accesses.perf_log import BATCH_SAMPLES, LogSample, LogTally, parse_perf_script
from tests.unit.kernel.trees import MACHINES

CAPTURED = (MACHINES / "perf-6.1/faults.txt").read_bytes().splitlines(keepends=True)
LOAD = (
    b" 4242/4245  [003] 32503.748651:     7f5764e5b040     10268100142 |OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit"
    b"|LCK No|BLK  N/A               7        3b1e5b040\n"
)
LOADED = LogSample(4242, 4245, 3, 32503.748651, 0x7F5764E5B040)


def parse(lines: Iterable[bytes]) -> tuple[list[LogSample], LogTally]:
    tally = LogTally(path="log")
    return [sample for batch in parse_perf_script(lines, tally) for sample in batch], tally


def test_a_captured_log_is_read_whole() -> None:
    samples, tally = parse(CAPTURED)
    rows = [line for line in CAPTURED if not line.startswith(b"#")]
    assert len(samples) + tally.kernel == len(rows) > 50
    assert tally.odd == 0
    assert tally.objection() is None
    assert tally.clock == "monotonic"
    assert {sample.pid for sample in samples} == {31226}
    assert {sample.tid for sample in samples} == {31226, 31268, 31269}
    assert {sample.cpu for sample in samples} == {0, 1}
    first = rows[0].split()
    assert samples[0].address == int(first[3], 16)
    assert f"{samples[0].seconds:.6f}:".encode() == first[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (LOAD, LOADED),
        (b" 4242/4245  [003] 32503.748651:     7f5764e5b040\n", LOADED),
        (b" 4242/4245  [003] 32503.748651000:     7f5764e5b040\n", LOADED),
        (b"4242/4245 [003] 32503.748651: cpu/mem-loads,ldlat=30/P: 7f5764e5b040 57\n", LOADED),
        (b"4242/4245 [003]     7f5764e5b040\n", LOADED._replace(seconds=None)),
        (b" 4242 [003]     7f5764e5b040\r\n", LogSample(4242, 4242, 3, None, 0x7F5764E5B040)),
    ],
)
def test_fields_that_are_not_needed_may_be_missing(line: bytes, expected: LogSample) -> None:
    samples, tally = parse([line])
    assert samples == [expected]
    assert tally.odd == 0


@pytest.mark.parametrize(
    "line",
    [
        b"4242/4245 32503.748651:     7f5764e5b040\n",  # no CPU
        b"evil 1/1 [000] 1.000000: 4242/4245 [003] 32503.748651:     7f5764e5b040\n",  # a name chosen to pass for one
        b"4242/4245 [003] 32503.748651: page-faults:  ffffffff817554ea elf_load+0x28a ([kernel.kallsyms])\n",
        b"Nov 21 22:20:30 host kernel: 4242/4245 [003] 7f5764e5b040\n",
        b"[ perf record: Woken up 4 times to write data ]\n",
        b"4242/4245 [003] 32503.748651:     7f5764e5b04g\n",
        b"\xff\xfe\x00\n",
        b"4242/4245 [003] 32503.748651:  11117f5764e5b0401\n",
    ],
)
def test_a_foreign_line_is_told_and_left_out(line: bytes) -> None:
    samples, tally = parse([LOAD, line, LOAD])
    assert samples == [LOADED, LOADED]
    assert tally.foreign == 1
    assert str(tally.odd_lines[0]) == "log:2: no sample of a memory access"


@pytest.mark.parametrize("row", [LOAD, b" 4242/4245  [003] 32503.748651:     7f5764e5b040\n"])
def test_no_beginning_of_a_line_passes_for_another_address(row: bytes) -> None:
    for length in range(1, len(row) - 1):
        for end in (b"", b"\n"):
            samples, tally = parse([row, row[:length] + end, row])
            assert {sample.address for sample in samples} == {LOADED.address}
            if row[:length].strip() and len(samples) == 2:
                assert tally.odd + tally.comments == 1, row[:length]


def test_samples_without_an_address_and_of_the_kernel_tell_nothing() -> None:
    zero = LOAD.replace(b"7f5764e5b040 ", b"           0 ")
    kernel = LOAD.replace(b"    7f5764e5b040 ", b"ffff7f5764e5b040 ")
    idle = LOAD.replace(b" 4242/4245 ", b"    0/0    ")
    samples, tally = parse([zero, kernel, idle, LOAD])
    assert samples == [LOADED]
    assert (tally.without_address, tally.kernel, tally.odd) == (2, 1, 0)


def test_lost_samples_are_counted() -> None:
    _, tally = parse([LOAD, b" 4242/4245  [003] 32503.748651: PERF_RECORD_LOST lost 17\n"])
    assert (tally.lost_samples, tally.odd) == (17, 0)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "no samples in 0 lines"),
        ([b"# captured on\n"], "no samples in 1 lines"),
        ([b"what is\n", b"this?\n", LOAD], "2 of 3 lines are no samples"),
        ([b"what is this?\n", LOAD], None),
    ],
)
def test_what_is_hardly_a_log_is_not_to_be_used(lines: list[bytes], told: str | None) -> None:
    objection = parse(lines)[1].objection()
    assert (objection is None) is (told is None)
    assert told is None or told in str(objection)


def test_of_very_many_odd_lines_all_are_counted_and_some_told() -> None:
    _, tally = parse([LOAD, *[b"nothing\n"] * 1000])
    assert (tally.foreign, len(tally.odd_lines)) == (1000, 20)


def test_a_long_log_comes_in_batches() -> None:
    tally = LogTally(path="log")
    sizes = [len(batch) for batch in parse_perf_script((LOAD for _ in range(BATCH_SAMPLES + 1)), tally)]
    assert sizes == [BATCH_SAMPLES, 1]
    assert tally.samples_by_pid == {4242: BATCH_SAMPLES + 1}
    assert (tally.first_seconds, tally.last_seconds) == (LOADED.seconds, LOADED.seconds)
