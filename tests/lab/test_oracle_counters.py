"""The oracle's file as readings: what it says, what is left out, and what is no such file."""

from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from tests.lab.oracle.counters import Counts, Reading, difference, parse_counters, read_counters, total

pytestmark = pytest.mark.host

HEADER = "oracle 1\ncpus 0 1 1\ndistances 10 21 31 21 10 31 31 31 10\ncaches 32 1024\n"
FIRST = "mark 1 1.500000 0 0\ncpu 0 user 900 80 1 2 30 10 0 5 2 0\ncpu 0 kernel 9 8 0 0 3 0 0 4 0 0\n"
PAGES = "page 7f0010000 12 0 0\npage 7f0010001 3 0 0\n"
SECOND = "mark 2 4.000000 0 1\ncpu 0 user 1900 180 1 2 30 70 0 5 4 0\ncpu 0 kernel 9 8 0 0 3 0 0 4 0 0\n"
MORE_PAGES = "page 7f0010000 12 0 0\npage 7f0010001 3 6 0\npage 7f0010002 1 0 0\n"
WHOLE = f"{HEADER}{FIRST}{PAGES}.\ntick 0 2.000000 0 0\n.\n{SECOND}{MORE_PAGES}.\nexit 0 5.000000 0 1\n.\n"


def marks(text: str) -> tuple[Reading, Reading]:
    counters = parse_counters(text, "counters")
    first, second = counters.mark(1), counters.mark(2)
    assert first is not None
    assert second is not None
    return first, second


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    path.write_text(WHOLE)
    counters = read_counters(path)
    assert counters.header.node_of_cpu == (0, 1, 1)
    assert counters.header.distances == ((10, 21, 31), (21, 10, 31), (31, 31, 10))
    assert (counters.header.l1_kib, counters.header.llc_kib) == (32, 1024)
    assert [(it.kind, it.number, it.at_seconds) for it in counters.readings] == [
        ("mark", 1, 1.5),
        ("tick", 0, 2.0),
        ("mark", 2, 4.0),
        ("exit", 0, 5.0),
    ]
    assert counters.ticks() == counters.readings[1:2]
    assert not counters.is_cut
    first = counters.readings[0]
    assert first.counts[0, False] == Counts(
        accesses=900, lookups=80, io=1, unknown=2, reads_by_node=(30, 10, 0), writes_by_node=(5, 2, 0)
    )
    assert first.counts[0, True].writes_by_node == (4, 0, 0)
    assert first.pages == {0x7F0010000000: (12, 0, 0), 0x7F0010001000: (3, 0, 0)}


def test_a_marker_that_was_never_executed_is_absent() -> None:
    assert parse_counters(WHOLE, "counters").mark(3) is None


def test_a_difference_is_what_happened_in_between() -> None:
    between = difference(*marks(WHOLE))
    assert (between.kind, between.number, between.at_seconds, between.pages_lost) == ("mark", 2, 2.5, 1)
    assert between.counts[0, False] == Counts(
        accesses=1000, lookups=100, io=0, unknown=0, reads_by_node=(0, 60, 0), writes_by_node=(0, 2, 0)
    )
    assert not any(between.counts[0, True].reads_by_node)
    assert between.pages == {0x7F0010001000: (0, 6, 0), 0x7F0010002000: (1, 0, 0)}


def test_readings_of_different_machines_have_no_difference() -> None:
    first, second = marks(WHOLE.replace("cpu 0 kernel 9 8 0 0 3 0 0 4 0 0\n", "", 1))
    with pytest.raises(ValueError, match="different machines"):
        difference(first, second)


def test_counts_add_up() -> None:
    first, _ = marks(WHOLE)
    both = total(first.counts.values())
    assert (both.accesses, both.reads_by_node, both.writes_by_node) == (909, (33, 10, 0), (9, 2, 0))
    with pytest.raises(ValueError, match="no counts"):
        total([])


@pytest.mark.parametrize("length", [*range(len(HEADER) + 1, len(HEADER + FIRST + PAGES) + 2)])
def test_a_reading_that_is_cut_off_is_left_out_and_told(length: int) -> None:
    counters = parse_counters(WHOLE[:length], "counters")
    assert (counters.readings, counters.is_cut) == ((), True)


def test_a_file_that_ends_after_a_reading_is_not_cut() -> None:
    counters = parse_counters(f"{HEADER}{FIRST}.\n", "counters")
    assert ([it.number for it in counters.readings], counters.is_cut) == ([1], False)


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("oracle 1", "oracle 2", 4, "not those of format 1"),
        ("cpus", "gpus", 2, "should be 'cpus'"),
        ("distances 10", "distances", 4, "not those of format 1"),
        ("caches 32 1024", "caches 32", 4, "not those of format 1"),
        ("mark 1 1.5", "mark one 1.5", 5, "digits"),
        ("mark 1 1.5", "mark 1 1,5", 5, "digits"),
        ("mark 1 1.5", "mork 1 1.5", 5, "a reading starts with"),
        ("900", "-900", 6, "digits"),
        ("900 80", "900", 6, "no line of a reading"),
        ("kernel 9", "colonel 9", 7, "no line of a reading"),
        ("page 7f0010000 12", "page soup 12", 8, "hexadecimal"),
        ("page 7f0010000 12", "page 7f0010000 -12", 8, "digits"),
        ("page 7f0010000 12", "page 7f0010000", 8, "no line of a reading"),
        ("mark 1 1.500000 0", "mark 1 1.500000 3", 10, "wrong 3 times"),
        ("\ntick", "\n\ntick", 11, "a reading starts with"),
    ],
)
def test_what_is_no_such_file_is_an_error_with_its_line(old: str, new: str, line: int, what: str) -> None:
    with pytest.raises(ParseError, match=what) as caught:
        parse_counters(WHOLE.replace(old, new, 1), "counters")
    assert (caught.value.path, caught.value.line_number) == ("counters", line)


@pytest.mark.parametrize("length", [0, 5, len(HEADER) - 1])
def test_a_file_that_ends_in_its_header_is_an_error(length: int) -> None:
    with pytest.raises(ParseError, match="first four lines"):
        parse_counters(HEADER[:length], "counters")
