"""How many pages the next call may move. Pure: a batch follows the price per page of the latest calls.

Owns what is remembered of calls. It must not know what moves, nor how long to wait between calls (see pacing.py).
"""

from collections import deque
from statistics import median
from typing import NamedTuple

START_PAGES = 512
"""The kernel unmaps up to so many base pages together, and a THP is as large."""

MIN_PAGES = 64
"""Fewer pages hardly stall less, where CPUs are busy and emulated, and move at a quarter of the speed."""

MAX_PAGES = 65536
"""Beyond 256 MiB not even a dear call, 20 ms for the call and 2 us a page, gains a tenth."""

AIM_RATIO = 0.95
"""Of the stall target: half of the calls take longer than the median, which should not be above it."""

REMEMBERED_PRICES = 5
"""Calls whose median price per page counts: one odd call says little, and a change must be felt soon."""

OTHER_KIND_RATIO = 1.5
"""Calls that take so much longer for no more pages move pages of another kind."""

REMEMBERED_CALLS = 9
"""Idle calls, and calls of about one size, of which the median counts."""

ENOUGH_CALLS = 5
"""So many calls of about a size before it is judged useless."""

WORTHWHILE_RATIO = 0.75
"""Halving the batch should bring the stall down to half; with less than this there is no point in it."""

MOST_BATCHES = 8
"""So many calls at most between two looks at whether to go on."""

RELEARN_CALLS = 512
"""After so many calls what was learnt about sizes is forgotten: the machine may be less busy by now."""


class _Call(NamedTuple):
    pages: int
    stall_seconds: float

    @property
    def page_seconds(self) -> float:
        return self.stall_seconds / self.pages


class BatchSize:
    """The batch that keeps the stall of a call at `stall_target_seconds`, remembered from step to step.

    The batch becomes what the price per page allows, of the latest call and of the median of the latest few: it grows
    when both allow more, to the double at most, and shrinks when both allow less; a call of more than twice the target
    halves it at once. It is a multiple of 512 pages, the blocks in which the native core collects, or, where even those
    take too long, a block's half, third and so on, rather than giving up. A call has a price of its own, so the
    next larger size may fit although the price per page denies it: it is tried, until it has shown to be too slow.

    Two prices do not shrink with the batch, and would drive it to its minimum where CPUs are busy, which makes
    stalls more and not shorter: each call drains the LRU caches of all CPUs, which the target does not feel and
    `idle_call_took` measures; and unmapping waits for the CPUs where the target runs. So a size whose half is hardly
    any faster is kept.
    """

    def __init__(self, stall_target_seconds: float, first_pages: int = START_PAGES) -> None:
        if stall_target_seconds <= 0:
            raise ValueError("the stall target must be positive")
        self._target_seconds = stall_target_seconds
        self._pages = first_pages
        self._idle_calls: deque[float] = deque(maxlen=REMEMBERED_CALLS)
        self._latest: deque[_Call] = deque(maxlen=REMEMBERED_PRICES)
        self._stalls: dict[int, deque[float]] = {}  # by size
        self._calls = 0
        self._last_call_seconds = stall_target_seconds

    @property
    def batches(self) -> int:
        """How many such calls may follow each other unchecked: together they should stay within the stall target."""
        return max(1, min(MOST_BATCHES, int(self._target_seconds / max(self._last_call_seconds, 1e-9))))

    @property
    def pages(self) -> int:
        """The most base pages that the next call should move."""
        return self._pages

    @property
    def idle_price_seconds(self) -> float:
        """What a call costs that moves nothing: the median of the latest few; 0 before any was measured."""
        return median(self._idle_calls) if self._idle_calls else 0.0

    def idle_call_took(self, seconds: float) -> None:
        """Learn what a call costs that moves nothing; the median of the latest few counts."""
        self._idle_calls.append(seconds)

    def took(self, longest_call_seconds: float, largest_call_pages: int) -> None:
        """Learn from calls, the largest of `largest_call_pages`, the longest of `longest_call_seconds`.

        A call that moved less than half a batch says nothing about larger ones; slow it may be all the same.
        """
        self._last_call_seconds = longest_call_seconds
        stall_seconds = max(0.0, longest_call_seconds - self.idle_price_seconds)
        call = _Call(max(largest_call_pages, 1), stall_seconds)
        self._calls += 1
        if self._calls % RELEARN_CALLS == 0:
            self._stalls.clear()
        is_telling = 2 * largest_call_pages >= self._pages
        if is_telling:
            self._latest.append(call)
            self._forget_other_kinds()
            self._stalls.setdefault(self._pages, deque(maxlen=REMEMBERED_CALLS)).append(stall_seconds)
        self._pages = self._next_pages(call, is_telling=is_telling)

    def _next_pages(self, call: _Call, *, is_telling: bool) -> int:
        pages, double, half = self._pages, _fitting(2 * self._pages), _fitting(self._pages // 2)
        if self._is_useless(pages, double):
            return double
        by_this_call = self._affordable(call.page_seconds)
        if call.stall_seconds > 2 * self._target_seconds:  # a folio larger than the batch is no reason to shrink it
            wanted = max(half, min(pages, by_this_call))
        elif is_telling:
            by_median = self._affordable(median(call.page_seconds for call in self._latest))
            lower, upper = sorted((by_this_call, by_median))
            if call.stall_seconds < self._target_seconds and lower == pages and self._may_fit(_next_larger(pages)):
                return _next_larger(pages)
            wanted = min(lower, double) if lower > pages else max(min(upper, pages), half)
        else:
            wanted = pages
        return pages if wanted < pages and self._is_useless(half, pages) else wanted

    def _affordable(self, page_seconds: float) -> int:
        return _fitting(int(AIM_RATIO * self._target_seconds / max(page_seconds, 1e-12)))

    def _forget_other_kinds(self) -> None:
        """Drop what was learnt on pages of another kind, such as huge ones, once two calls in a row say so.

        They do when they took longer than all before although no larger, or less time although no smaller.
        """
        known, now = list(self._latest)[:-2], list(self._latest)[-2:]
        if not known:
            return
        longest, shortest = (pick(call.stall_seconds for call in known) for pick in (max, min))
        is_dearer = min(call.stall_seconds for call in now) > OTHER_KIND_RATIO * longest
        is_cheaper = OTHER_KIND_RATIO * max(call.stall_seconds for call in now) < shortest
        is_no_larger = max(call.pages for call in now) <= max(call.pages for call in known)
        is_no_smaller = min(call.pages for call in now) >= min(call.pages for call in known)
        if (is_dearer and is_no_larger) or (is_cheaper and is_no_smaller):
            self._latest = deque(now, maxlen=REMEMBERED_PRICES)
            self._stalls.clear()

    def _may_fit(self, pages: int) -> bool:
        """Return whether not yet enough calls of that size have shown to be too slow."""
        stalls = self._stalls.get(pages, ())
        return len(stalls) < ENOUGH_CALLS or median(stalls) <= self._target_seconds

    def _is_useless(self, smaller: int, larger: int) -> bool:
        """Return whether calls of a smaller size have shown to stall hardly less than those of a larger one."""
        few, many = self._stalls_of_about(smaller), self._stalls_of_about(larger)
        if smaller == larger or len(few) < ENOUGH_CALLS or not many:
            return False
        return median(few) > self._target_seconds and median(few) > WORTHWHILE_RATIO * median(many)

    def _stalls_of_about(self, pages: int) -> list[float]:
        return [s for size, stalls in self._stalls.items() if size.bit_length() == pages.bit_length() for s in stalls]


def _fitting(pages: int) -> int:
    """Return the next size below that divides blocks without a rest, within the bounds."""
    if pages >= START_PAGES:
        return min(MAX_PAGES, pages - pages % START_PAGES)
    return max(MIN_PAGES, START_PAGES // -(-START_PAGES // max(pages, 1)))


def _next_larger(pages: int) -> int:
    if pages >= START_PAGES:
        return min(MAX_PAGES, pages + START_PAGES)
    return START_PAGES // (START_PAGES // pages - 1)
