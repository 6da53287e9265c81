"""Parts of an address space that are left alone for a while: what could not be moved, and what came back.

Blocks of 2 MiB, neighbours merged into spans; the time doubles each time that the same span gives cause again. Bounded
in number by process. It must not know what a step is or who decides.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from balancerd.engine.holds import LONGEST_HOLD_SECONDS, doubled
from balancerd.model.ids import ProcessId
from balancerd.model.migration import FailedRun, MovedRun, Range
from balancerd.model.page_status import PageStatus

BLOCK_BYTES = 2 << 20
"""A THP stays whole; hugetlb pages are larger, and then the block is one of them."""

FIRST_SECONDS = 60.0

MOST_SPANS = 1024
"""For each process; the oldest are dropped, so that they are tried again."""

CAME_BACK = "came back"
"""The cause of spans that were moved and then found elsewhere."""

MOVED = "moved a moment ago"
"""The cause of spans that rest where they went; all others have a PageStatus."""

PERMANENT = frozenset({PageStatus.LOCKED, PageStatus.BUSY, PageStatus.SHARED, PageStatus.INVALID})
"""What stays as it is after a step's own tries: mlocked, pinned, mapped by others, or of a filesystem that cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Blocks [start, end) that are left alone until `until`; `stuck_bytes` of them gave the cause."""

    start: int
    end: int
    cause: str
    stuck_bytes: int
    strikes: int
    noted_at: float
    until: float


class Quarantine:
    """Spans by process, ascending and apart. An expired one is kept for its strikes for an hour."""

    def __init__(self) -> None:
        self._spans: dict[ProcessId, tuple[Span, ...]] = {}

    def note_failed(self, process: ProcessId, runs: Iterable[FailedRun], now: float) -> None:
        """Leave alone what failed for good."""
        self._note(process, (_block(run, run.status.value) for run in runs if run.status in PERMANENT), now)

    def note_returned(self, process: ProcessId, runs: Iterable[MovedRun], now: float) -> None:
        """Leave alone what came back after it was moved."""
        self._note(process, (_block(run, CAME_BACK) for run in runs), now)

    def note_moved(self, process: ProcessId, runs: Iterable[MovedRun], now: float) -> None:
        """Leave alone, for now, what has just moved."""
        self._note(process, (_block(run, MOVED) for run in runs), now)

    def held(self, process: ProcessId, now: float) -> tuple[Span, ...]:
        """Return what is left alone at time `now`, ascending."""
        return tuple(span for span in self._spans.get(process, ()) if now < span.until)

    def release(self, cause: str) -> None:
        """Try again at once whatever is held for one cause, which is gone."""
        for process, spans in self._spans.items():
            self._spans[process] = tuple(span for span in spans if span.cause != cause)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        for process in self._spans.keys() - alive:
            del self._spans[process]

    def _note(self, process: ProcessId, blocks: "Iterable[_Block]", now: float) -> None:
        new = _merged(blocks)
        if not new:
            return
        old = tuple(s for s in self._spans.get(process, ()) if now < s.until + LONGEST_HOLD_SECONDS)
        noted = tuple(_struck(block, _overlapping(old, block.start, block.end), now) for block in new)
        kept = [part for span in old for part in _without(span, _overlapping(noted, span.start, span.end))]
        spans = sorted((*kept, *noted), key=lambda s: (-s.noted_at, s.start))[:MOST_SPANS]
        self._spans[process] = tuple(sorted(spans, key=_start))


def cut(ranges: Iterable[Range], held: tuple[Span, ...]) -> tuple[Range, ...]:
    """Return what is left of ascending `ranges` without the spans `held`; no page of a range is cut in two."""
    return tuple(left for whole in ranges for left in _cut_one(whole, held))


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans of several books as one row, ascending and apart: where two overlap, the one that begins first."""
    found: list[Span] = []
    for span in sorted(spans, key=_start):
        start = max(span.start, found[-1].end) if found else span.start
        if start < span.end:
            found.append(span if start == span.start else _part(span, start, span.end))
    return tuple(found)


def explain(held: tuple[Span, ...], now: float) -> str:
    """Return the bytes by cause and when the first of them is tried again."""
    by_cause: dict[str, int] = {}
    for span in held:
        by_cause[span.cause] = by_cause.get(span.cause, 0) + span.stuck_bytes
    told = ", ".join(f"{_mib(size)} {cause}" for cause, size in sorted(by_cause.items()))
    wait = min((span.until for span in held), default=now) - now
    return f"{told} in {len(held)} ranges; again in {wait:.0f} s"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes >> 10} KiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Whole blocks, [start, end), and how many bytes in them gave each cause."""

    start: int
    end: int
    stuck_bytes: Mapping[str, int]


def _block(run: FailedRun | MovedRun, cause: str) -> _Block:
    size = max(BLOCK_BYTES, run.page_bytes)
    start, end = run.start // size * size, -(-run.end // size) * size
    return _Block(start=start, end=end, stuck_bytes={cause: run.end - run.start})


def _merged(blocks: Iterable[_Block]) -> list[_Block]:
    """Merge what touches or overlaps."""
    merged: list[_Block] = []
    for block in sorted(blocks, key=_start):
        if not merged or block.start > merged[-1].end:
            merged.append(block)
            continue
        last = merged[-1]
        stuck = {
            cause: last.stuck_bytes.get(cause, 0) + block.stuck_bytes.get(cause, 0)
            for cause in (*last.stuck_bytes, *block.stuck_bytes)
        }
        merged[-1] = _Block(start=last.start, end=max(last.end, block.end), stuck_bytes=stuck)
    return merged


def _struck(block: _Block, again: Sequence[Span], now: float) -> Span:
    """Return the new span; what fails while it is held, as the rest of the same pass may, is no further strike."""
    strikes = max((span.strikes + (now >= span.until) for span in again), default=1)
    return Span(
        start=block.start,
        end=block.end,
        cause=max(block.stuck_bytes, key=lambda cause: (block.stuck_bytes[cause], cause)),
        stuck_bytes=sum(block.stuck_bytes.values()),
        strikes=strikes,
        noted_at=now,
        until=now + doubled(FIRST_SECONDS, strikes),
    )


def _start(place: Span | _Block) -> int:
    return place.start


def _overlapping(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """Return those of ascending spans that are apart which share a byte with [start, end)."""
    first = bisect_right(spans, start, key=_start)
    if first and spans[first - 1].end > start:
        first -= 1
    return spans[first : bisect_left(spans, end, key=_start)]


def _without(span: Span, noted: Sequence[Span]) -> Iterator[Span]:
    """Yield what is left of an old span beside the new ones, which ascend; its stuck bytes are spread evenly."""
    start = span.start
    for new in noted:
        if new.start > start:
            yield _part(span, start, new.start)
        start = max(start, new.end)
    if start < span.end:
        yield _part(span, start, span.end)


def _part(span: Span, start: int, end: int) -> Span:
    share = (end - start) / (span.end - span.start)
    return replace(span, start=start, end=end, stuck_bytes=round(span.stuck_bytes * share))


def _cut_one(whole: Range, held: tuple[Span, ...]) -> Iterator[Range]:
    start, page = whole.start, whole.page_bytes
    for span in _overlapping(held, start, whole.end):
        hole_start, hole_end = span.start // page * page, -(-span.end // page) * page
        if hole_start > start:
            yield replace(whole, start=start, end=hole_start)
        start = max(start, hole_end)
    if start < whole.end:
        yield replace(whole, start=start)
