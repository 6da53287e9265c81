"""Files of our own, and those that operators bring: any bytes are read, or refused by the error that is documented."""

import contextlib
import gzip
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancerd.config import yaml_source
from balancerd.config.findings import ConfigError
from balancerd.history.reader import HistoryUnreadableError, Query, read_history, read_last_id
from balancerd.history.store import DamagedError, UnusableError
from balancerd.kernel.accesses.log_file import LogFile, LogUnreadableError, read_lines
from balancerd.kernel.accesses.perf_log import BATCH_SAMPLES, KERNEL_START, MOST_LINE_BYTES, LogTally, parse_perf_script
from balancerd.kernel.affinity.journal import NAME, Entry, Journal, JournalError
from balancerd.model.ids import CpuId, ProcessId
from balancerd.simulation.loading import parse_scenario
from balancerd.trace.form import TraceError
from balancerd.trace.reader import TraceReader
from tests.unit.fuzz.texts import anything, check_result, hurt
from tests.unit.history.files import a_file, an_event, open_store

PERF_LOG = (
    b"# clockid: monotonic (1)\n#\n 4711/4712  [003] 12345.678901:     7f0000001000 |OP LOAD|LVL L3 hit| 120  1f00000\n"
    b"   4711/4711  [000] 12345.678903:     7f0000002000 |OP STORE|LVL N/A| 0  1f00001\n"
    b" -1/-1  [001] 12345.678904: ffffffff81000000 |OP LOAD|LVL N/A| 0  0\n"
    b"spin 4711 PERF_RECORD_LOST lost 7\n 4711  [003] 12345.678905: 0 |OP LOAD|LVL L3 hit| 120  1f00000\n"
)
ENTRIES = st.builds(
    Entry,
    process=st.builds(ProcessId, st.integers(1, 1 << 22), st.integers(0, 1 << 62)),
    tid=st.integers(1, 1 << 22),
    start_ticks=st.integers(0, 1 << 62),
    before=st.frozensets(st.integers(0, 300).map(CpuId), min_size=1),
    ours=st.frozensets(st.integers(0, 300).map(CpuId), min_size=1),
    whole=st.booleans(),
    at_ticks=st.integers(0, 1 << 62),
)
TRACES = Path(__file__).parents[2] / "traces"
SCENARIO = b"machine:\n  nodes: 2\n  cpus: 4\nscheduler: pinned\nticks: 3\n"


@contextlib.contextmanager
def file_of(data: bytes, name: str = "file") -> Iterator[Path]:
    """A file with these bytes, in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(data)
        yield path


@cache
def journal_text() -> bytes:
    """What a journal of this process holds."""
    entry = Entry(
        process=ProcessId(7, 8),
        tid=9,
        start_ticks=10,
        before=frozenset(map(CpuId, range(4))),
        ours=frozenset({CpuId(1)}),
        whole=True,
        at_ticks=11,
    )
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory))
        journal.write((entry,))
        return journal.path.read_bytes()


@given(st.lists(ENTRIES, max_size=4).map(tuple))
def test_what_a_journal_writes_it_reads(entries: tuple[Entry, ...]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory))
        journal.write(entries)
        assert journal.read() == entries


@given(st.deferred(lambda: anything((journal_text(),))))
@example(b"[" * 100_000)
@example(b'{"form":"balancerd-threads","version":1,"daemon":["%s",1]}' % (b"x" * 5000))
def test_a_journal_of_any_bytes_is_read_or_refused(text: bytes) -> None:
    with file_of(text, NAME) as path:
        try:
            entries = Journal(path.parent).read()
        except JournalError as error:
            assert 0 < len(str(error)) <= 1000
        else:
            check_result(entries, text)
            assert all(entry.before and entry.ours for entry in entries)


@cache
def trace_lines() -> tuple[bytes, ...]:
    """The first lines of a trace and the last: the header, what was known, two ticks, the end."""
    with gzip.open(TRACES / "drain.trace.gz") as file:
        lines = file.readlines()
    return (*lines[:4], lines[-1])


@st.composite
def hurt_traces(draw: st.DrawFn) -> bytes:
    """One line of a trace is hurt, and perhaps the file as well."""
    lines = list(trace_lines())
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = draw(hurt(tuple(lines[at : at + 1])))
    data = gzip.compress(b"".join(lines), mtime=0)
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@given(hurt_traces() | st.binary(max_size=50))
@example(gzip.compress(b"[" * 100_000 + b"\n", mtime=0))
@example(gzip.compress(b'{"format":"balancerd-trace","version":1%s}\n' % (b"0" * 400), mtime=0))
@example(gzip.compress(b"".join(trace_lines()[:2]) + b'{"end":}\n', mtime=0))
@example(gzip.compress(b"".join(trace_lines()[:2]) + b'{"tick":' + b"[" * 100_000 + b"\n", mtime=0))
@example(gzip.compress(trace_lines()[0].replace(b'"kernel":[', b'"kernel":[Infinity,'), mtime=0))
def test_a_trace_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    with file_of(data) as path:
        try:
            with TraceReader(path) as reader:
                ticks = list(reader.ticks())
        except TraceError as error:
            assert 0 < len(str(error)) <= 4000
        else:
            assert len(ticks) <= len(trace_lines())


@cache
def history_bytes() -> bytes:
    """A small file of history."""
    with tempfile.TemporaryDirectory() as directory:
        path = a_file(Path(directory, "history.sqlite"), [an_event(n) for n in range(1, 40)])
        return path.read_bytes()


CHANGES = st.lists(
    st.tuples(st.integers(0, 200) | st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8
)


@given(CHANGES, st.none() | st.floats(0, 1))
@example([(history_bytes().index(b"CREATE TABLE"), 0xB4)], None)
def test_a_history_of_any_bytes_is_read_or_refused(changes: list[tuple[int, int]], left: float | None) -> None:
    data = bytearray(history_bytes())
    for at, value in changes:  # in place, so that what is behind stays where it is said to be
        data[at % len(data)] = value
    del data[len(data) if left is None else round(left * len(data)) :]
    with (
        file_of(bytes(data), "history.sqlite") as path,
        contextlib.suppress(UnusableError, DamagedError, sqlite3.Error),
    ):
        open_store(path).close()
    with file_of(bytes(data), "history.sqlite") as path:
        last = read_last_id(path)
        assert last is None or last >= 0
        try:
            page = read_history(path, Query(limit=5))
            json.dumps(page.document())
        except HistoryUnreadableError as error:
            assert 0 < len(str(error)) <= 1000


def summed(tally: LogTally) -> int:
    return tally.samples + tally.kernel + tally.without_address + tally.comments + tally.odd


@given(anything((PERF_LOG,)))
def test_each_line_of_a_perf_log_is_counted_once(text: bytes) -> None:
    with file_of(text) as path, path.open("rb") as file:
        lines = list(read_lines(file))
    assert all(0 < len(line) <= MOST_LINE_BYTES for line in lines)
    tally = LogTally(path="log")
    batches = list(parse_perf_script(lines, tally))
    samples = [sample for batch in batches for sample in batch]
    assert all(0 < len(batch) <= BATCH_SAMPLES for batch in batches)
    assert tally.samples == len(samples) == tally.samples_by_pid.total()
    assert summed(tally) <= tally.lines == len(lines)
    assert all(sample.pid > 0 and sample.address < KERNEL_START for sample in samples)
    assert all(-1 < nanoseconds < 1 << 63 for sample in samples for nanoseconds in sample.in_nanoseconds()[3:4])
    assert all(odd.path == "log" and 1 <= odd.number <= tally.lines for odd in tally.odd_lines)


@given(anything((PERF_LOG, gzip.compress(PERF_LOG, mtime=0))), st.binary(max_size=4))
def test_the_file_of_a_perf_log_is_read_or_refused_by_its_name(text: bytes, behind: bytes) -> None:
    with file_of(text + behind) as path, LogFile(str(path)) as log:
        try:
            tally = log.survey()
        except LogUnreadableError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            found = [sample for piece in log.samples(tally, tally.samples_by_pid, 3) for sample in piece]
            assert len(found) == tally.samples > 0


READERS: dict[str, Callable[[bytes, str], Any]] = {"document": yaml_source.read_bytes, "scenario": parse_scenario}


@pytest.mark.parametrize("name", READERS)
@given(anything((SCENARIO, b"policies:\n  - kind: drain\n    nodes: 0-3\nmode: observe # a\n", b"a: &x [1]\nb: *x\n")))
def test_yaml_of_any_bytes_is_read_or_refused_with_a_place(name: str, data: bytes) -> None:
    try:
        READERS[name](data, "a.yaml")
    except ConfigError as error:
        assert error.findings
        assert all(finding.path == "a.yaml" for finding in error.findings)
