"""Ranges left alone: blocks, doubling, cuts that tear no page, bounds."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.quarantine import (
    BLOCK_BYTES,
    CAME_BACK,
    MOST_SPANS,
    PERMANENT,
    Quarantine,
    Span,
    cut,
    explain,
    merged,
)
from balancerd.model.ids import ProcessId
from balancerd.model.migration import FailedRun, Range
from balancerd.model.page_status import PageStatus
from tests.unit.fakes import GIB, MIB, make_run

PID, OTHER = ProcessId(100, 1), ProcessId(101, 1)
KIB4 = 4096


def failed(start: int, size: int = KIB4, *, status: PageStatus = PageStatus.BUSY, page_bytes: int = KIB4) -> FailedRun:
    return FailedRun(start=start, end=start + size, page_bytes=page_bytes, status=status)


def held_mib(book: Quarantine, now: float) -> list[tuple[float, float]]:
    return [(span.start / MIB, span.end / MIB) for span in book.held(PID, now)]


def test_one_page_puts_its_block_in_quarantine_and_neighbours_become_one_span() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(5 * MIB), failed(3 * MIB, 2 * MIB), failed(100 * MIB)), 0.0)
    assert held_mib(book, 1.0) == [(2, 6), (100, 102)]
    assert [span.stuck_bytes for span in book.held(PID, 1.0)] == [2 * MIB + KIB4, KIB4]
    assert book.held(OTHER, 1.0) == ()


@pytest.mark.parametrize("status", PageStatus)
def test_only_what_stays_as_it_is_goes_to_quarantine(status: PageStatus) -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0, status=status),), 0.0)
    assert bool(book.held(PID, 1.0)) is (status in PERMANENT)


def test_the_time_doubles_each_time_the_same_blocks_fail_again_up_to_an_hour() -> None:
    book, now, seconds = Quarantine(), 0.0, []
    for _ in range(9):
        book.note_failed(PID, (failed(0),), now)
        (span,) = book.held(PID, now)
        seconds.append(span.until - now)
        now = span.until
        assert book.held(PID, now) == ()
    assert seconds == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_more_failures_while_it_is_held_are_no_further_strike() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0),), 0.0)
    book.note_failed(PID, (failed(KIB4),), 2.0)
    (span,) = book.held(PID, 3.0)
    assert (span.strikes, span.until) == (1, 62.0)


def test_strikes_are_forgotten_when_nothing_failed_for_an_hour() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0),), 0.0)
    book.note_failed(PID, (failed(0),), 60.0 + 3600.0)
    (span,) = book.held(PID, 3661.0)
    assert span.strikes == 1


def test_what_fails_in_the_middle_of_an_old_span_leaves_its_ends_as_they_were() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0, 10 * MIB),), 0.0)
    book.note_failed(PID, (failed(4 * MIB, 2 * MIB),), 60.0)
    assert held_mib(book, 61.0) == [(4, 6)]
    book.note_failed(PID, (failed(0), failed(8 * MIB)), 61.0)
    assert [(s.start // MIB, s.end // MIB, s.strikes) for s in book.held(PID, 62.0)] == [
        (0, 2, 2),
        (4, 6, 2),
        (8, 10, 2),
    ]


def test_what_came_back_is_held_as_what_failed() -> None:
    book = Quarantine()
    book.note_returned(PID, (make_run(3 * MIB, 1),), 0.0)
    assert [(s.cause, s.stuck_bytes) for s in book.held(PID, 1.0)] == [(CAME_BACK, MIB)]
    book.release(PageStatus.SHARED.value)
    assert held_mib(book, 1.0) == [(2, 4)]
    book.release(CAME_BACK)
    assert held_mib(book, 1.0) == []


def test_a_process_has_so_many_spans_at_most_and_the_oldest_go_first() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(1 * GIB),), 0.0)
    book.note_failed(PID, [failed(4 * GIB + i * 4 * MIB) for i in range(MOST_SPANS)], 1.0)
    assert len(book.held(PID, 2.0)) == MOST_SPANS
    assert book.held(PID, 2.0)[0].start == 4 * GIB


def test_a_process_that_is_gone_is_forgotten() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0),), 0.0)
    book.forget_all_but({OTHER})
    assert book.held(PID, 1.0) == ()


def span(start_mib: float, end_mib: float) -> Span:
    start, end = round(start_mib * MIB), round(end_mib * MIB)
    return Span(start=start, end=end, cause="ebusy", stuck_bytes=end - start, strikes=1, noted_at=0.0, until=60.0)


@pytest.mark.parametrize(
    ("whole", "held", "left"),
    [
        ((10, 20), [], [(10, 20)]),
        ((10, 20), [(0, 10), (20, 30)], [(10, 20)]),
        ((10, 20), [(12, 14)], [(10, 12), (14, 20)]),
        ((10, 20), [(8, 12), (14, 16), (18, 22)], [(12, 14), (16, 18)]),
        ((10, 20), [(0, 100)], []),
        ((10, 20), [(10, 20)], []),
    ],
)
def test_cuts(whole: tuple[int, int], held: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    one = Range(start=whole[0] * MIB, end=whole[1] * MIB, page_bytes=KIB4)
    cuts = cut((one,), tuple(span(*s) for s in held))
    assert [(r.start // MIB, r.end // MIB) for r in cuts] == left
    assert all(r.page_bytes == KIB4 for r in cuts)


def apart(*spans: tuple[float, float]) -> list[tuple[float, float, float]]:
    """Start, end and stuck bytes of merged spans, in MiB."""
    return [
        (each.start / MIB, each.end / MIB, each.stuck_bytes / MIB) for each in merged([span(*each) for each in spans])
    ]


@pytest.mark.parametrize(
    ("spans", "found"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(8, 10), (0, 4)], [(0, 4, 4), (8, 10, 2)], id="apart"),
        pytest.param([(0, 4), (4, 6)], [(0, 4, 4), (4, 6, 2)], id="that touch"),
        pytest.param([(0, 4), (2, 10)], [(0, 4, 4), (4, 10, 6)], id="that overlap"),
        pytest.param([(0, 10), (2, 4)], [(0, 10, 10)], id="one in the other"),
        pytest.param([(0, 4), (0, 6)], [(0, 4, 4), (4, 6, 2)], id="with one start"),
        pytest.param([(0, 4), (2, 6), (4, 8)], [(0, 4, 4), (4, 6, 2), (6, 8, 2)], id="a chain"),
        pytest.param([(0, 4), (2, 6), (2, 4)], [(0, 4, 4), (4, 6, 2)], id="nothing is left of the last"),
    ],
)
def test_spans_of_several_books_become_one_row(
    spans: list[tuple[float, float]], found: list[tuple[float, float, float]]
) -> None:
    assert apart(*spans) == found


def test_what_is_left_of_a_span_has_its_share_of_the_bytes_that_gave_cause() -> None:
    half_stuck = replace(span(2, 10), stuck_bytes=4 * MIB)
    first, rest = merged((span(0, 4), half_stuck))
    assert (first.stuck_bytes, rest.stuck_bytes) == (4 * MIB, 3 * MIB)
    book = Quarantine()
    book.note_failed(PID, [failed(mib * MIB, MIB) for mib in range(0, 10, 2)], 0.0)
    book.note_failed(PID, (failed(4 * MIB),), 30.0)
    told = [(each.start // MIB, each.end // MIB, each.stuck_bytes) for each in book.held(PID, 31.0)]
    assert told == [(0, 4, 2 * MIB), (4, 6, KIB4), (6, 10, 2 * MIB)]


def test_an_older_span_that_ends_where_a_new_one_begins_gives_no_strike() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0, 2 * MIB),), 0.0)
    book.note_failed(PID, (failed(2 * MIB, 2 * MIB),), 70.0)
    assert [(each.start // MIB, each.strikes) for each in book.held(PID, 71.0)] == [(2, 1)]


def test_the_cause_of_a_span_is_what_most_of_it_suffers_from() -> None:
    book = Quarantine()
    runs = (failed(0), failed(KIB4, status=PageStatus.LOCKED), failed(2 * KIB4, status=PageStatus.LOCKED))
    book.note_failed(PID, runs, 0.0)
    (held,) = book.held(PID, 1.0)
    assert (held.cause, held.stuck_bytes) == (PageStatus.LOCKED.value, 3 * KIB4)
    book.note_failed(
        OTHER, [failed(i * KIB4, status=s) for i, s in enumerate((PageStatus.BUSY, PageStatus.LOCKED))], 0.0
    )
    (even,) = book.held(OTHER, 1.0)
    assert (even.cause, even.stuck_bytes) == (max(PageStatus.BUSY.value, PageStatus.LOCKED.value), 2 * KIB4)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ((), " in 0 ranges; again in 0 s"),
        ((span(0, 2),), "2 MiB ebusy in 1 ranges; again in 50 s"),
        ((replace(span(0, 2), stuck_bytes=MIB),), "1 MiB ebusy in 1 ranges; again in 50 s"),
        ((replace(span(0, 2), stuck_bytes=MIB - 1),), "1023 KiB ebusy in 1 ranges; again in 50 s"),
        (
            (span(0, 2), replace(span(4, 6), cause="eperm", until=30.0), span(8, 11)),
            "5 MiB ebusy, 2 MiB eperm in 3 ranges; again in 20 s",
        ),
    ],
)
def test_what_is_held_is_told_by_cause_with_when_the_first_is_tried_again(held: tuple[Span, ...], told: str) -> None:
    assert explain(held, 10.0) == told


def test_a_cut_tears_no_page_larger_than_a_block() -> None:
    one = Range(start=0, end=4 * GIB, page_bytes=GIB)
    assert [(r.start // GIB, r.end // GIB) for r in cut((one,), (span(1026, 1028),))] == [(0, 1), (2, 4)]
    book = Quarantine()
    book.note_failed(PID, (failed(GIB, GIB, page_bytes=GIB),), 0.0)
    assert held_mib(book, 1.0) == [(1024, 2048)]


blocks = st.integers(0, 40)


@given(
    first=st.lists(st.tuples(blocks, st.integers(1, 8)), max_size=12),
    second=st.lists(st.tuples(blocks, st.integers(1, 8)), max_size=12),
    ranges=st.lists(st.tuples(blocks, st.integers(1, 9)), max_size=6),
)
def test_held_spans_stay_apart_and_what_is_cut_out_is_exactly_what_they_cover(
    first: list[tuple[int, int]], second: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    book = Quarantine()
    half = BLOCK_BYTES // 2
    for at, runs in ((0.0, first), (30.0, second)):
        book.note_failed(PID, [failed(start * half, size * half) for start, size in runs], at)
    held = book.held(PID, 40.0)
    assert all(a.end <= b.start for a, b in itertools.pairwise(held))
    covered = {block for s in held for block in range(s.start // BLOCK_BYTES, s.end // BLOCK_BYTES)}
    expected = {
        block
        for start, size in first + second
        for block in range(start * half // BLOCK_BYTES, -(-(start + size) * half // BLOCK_BYTES))
    }
    assert covered == expected
    wholes = [Range(start=s * half, end=(s + n) * half, page_bytes=KIB4) for s, n in ranges]
    for whole in wholes:
        halves = {h for r in cut((whole,), held) for h in range(r.start // half, r.end // half)}
        assert halves == {h for h in range(whole.start // half, whole.end // half) if h // 2 not in covered}


def test_the_explanation_has_bytes_by_cause_and_the_next_try() -> None:
    book = Quarantine()
    book.note_failed(PID, (failed(0, status=PageStatus.LOCKED), failed(64 * MIB, 8 * MIB)), 0.0)
    assert explain(book.held(PID, 10.0), 10.0) == "8 MiB ebusy, 4 KiB eperm in 2 ranges; again in 50 s"
