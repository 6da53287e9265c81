"""Trace files: whole, broken off, and none at all."""

import gzip
import json
from pathlib import Path

import pytest

from balancerd.trace.form import TraceError
from balancerd.trace.reader import TraceReader
from tests.traces.golden import path_of, replay

GOLDEN = path_of("follow-cpu")


def read(path: Path) -> tuple[int, str | None, str | None]:
    """How many ticks, how it ended, and why it broke off."""
    with TraceReader(path) as reader:
        ticks = list(reader.ticks())
        return len(ticks), reader.ended, reader.broken


def lines() -> list[bytes]:
    return gzip.decompress(GOLDEN.read_bytes()).splitlines(keepends=True)


def test_a_whole_file_has_a_header_and_an_end() -> None:
    with TraceReader(GOLDEN) as reader:
        header = reader.header
        assert (header.balancerd, header.kernel, header.own_pid) == ("1.2.3", (6, 12), 1)
        assert header.topology is not None
        assert len(header.topology.nodes) == 4
    assert read(GOLDEN) == (60, "as asked", None)


@pytest.mark.parametrize("left", [0.98, 0.9, 0.5])
def test_of_a_file_that_breaks_off_all_that_is_whole_is_used(tmp_path: Path, left: float) -> None:
    data = GOLDEN.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[: int(len(data) * left)])
    ticks, ended, broken = read(cut)
    assert ended is None
    assert broken is not None
    assert broken.startswith("it breaks off")
    run = replay(cut)
    whole = [tick.lines for tick in replay(GOLDEN).ticks()]
    assert [tick.lines for tick in run.ticks()] == whole[:ticks]
    assert run.summary.broken == broken


def test_each_tick_that_was_flushed_is_there_though_the_file_was_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "open"
    with path.open("wb") as raw:
        packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
        for number, line in enumerate(lines()[:12]):
            packed.write(line)
            packed.flush()
            raw.flush()
            if number >= 2:
                assert read(path)[0] == number - 1
        assert read(path)[2] is not None
        packed.close()


def test_a_last_line_without_its_end_is_told_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(gzip.compress(b"".join(lines()[:7])[:-10]))
    assert read(path) == (4, None, "its last line is not whole")


def test_a_file_without_an_end_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.write_bytes(gzip.compress(b"".join(lines()[:-1])))
    assert read(path) == (60, None, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip at all",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"text\n", mtime=0),
        gzip.compress(b"[]\n", mtime=0),
        gzip.compress(b"[" * 100_000 + b"\n", mtime=0),
        gzip.compress(b'{"format":"something"}\n', mtime=0),
        gzip.compress(b'{"format":"balancerd-trace","version":1}\n', mtime=0),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "none"
    path.write_bytes(data)
    with pytest.raises(TraceError, match="is no trace of balancerd"):
        TraceReader(path)


def test_another_version_of_the_format_says_which_balancerd_reads_it(tmp_path: Path) -> None:
    header = json.loads(lines()[0]) | {"version": 99, "balancerd": "9.9"}
    path = tmp_path / "newer"
    path.write_bytes(gzip.compress(json.dumps(header).encode() + b"\n"))
    with pytest.raises(TraceError, match=r"version 99 of the format.* replay it with balancerd 9\.9"):
        TraceReader(path)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "{",
        '{"end":',
        '{"end":"x"',
        "[" * 100_000,
        '{"tick":1,"events":[["unheard-of"]]}',
        '{"tick":1,"events":[["survey",{},{}]]}',
        '{"tick":1}',
    ],
)
def test_a_line_that_is_no_tick_is_an_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(gzip.compress(b"".join(lines()[:2]) + line.encode() + b"\n"))
    with pytest.raises(TraceError, match=f"^{path}:3: "):
        read(path)
