"""How many pages the next call may move. Pure: additive increase, multiplicative decrease on what a call stalls."""

from collections import deque
from statistics import median

START_PAGES = 512
"""The kernel unmaps up to so many base pages together, and a THP is as large."""

MIN_PAGES = 8
MAX_PAGES = 16384

REMEMBERED_CALLS = 9
"""Of which the median counts, for each size: one odd call says little."""

ENOUGH_CALLS = 5
"""So many calls of a size before it is judged useless."""

WORTHWHILE_RATIO = 0.75
"""Halving the batch should bring the stall down to half; with less than this there is no point in it."""

MOST_BATCHES = 8
"""So many calls at most between two looks at whether to go on."""

RELEARN_CALLS = 512
"""After so many calls what was learnt about sizes is forgotten: the machine may be less busy by now."""


class BatchSize:
    """The batch that keeps the stall of a call near `stall_target_seconds`, remembered from step to step.

    While the stall stays below the target the batch grows: doubling up to 512 pages, by 512 from there on; more than
    twice the target halves it. On a machine where even 512 pages take too long it shrinks below, rather than giving
    up. Two prices do not shrink with the batch, and would drive it to its minimum where CPUs are busy, which
    makes stalls more and not shorter: each call drains the LRU caches of all CPUs, which the target does not feel and
    `idle_call_took` measures; and unmapping waits for the CPUs where the target runs. So a size whose half is hardly
    any faster is kept.
    """

    def __init__(self, stall_target_seconds: float) -> None:
        if stall_target_seconds <= 0:
            raise ValueError("the stall target must be positive")
        self._stall_target_seconds = stall_target_seconds
        self._pages = START_PAGES
        self._idle_calls: deque[float] = deque(maxlen=REMEMBERED_CALLS)
        self._stalls: dict[int, deque[float]] = {}
        self._calls = 0
        self._last_call_seconds = stall_target_seconds

    @property
    def batches(self) -> int:
        """How many such calls may follow each other unchecked: together they should stay within the stall target."""
        return max(1, min(MOST_BATCHES, int(self._stall_target_seconds / max(self._last_call_seconds, 1e-9))))

    @property
    def pages(self) -> int:
        """The most base pages that the next call should move."""
        return self._pages

    def idle_call_took(self, seconds: float) -> None:
        """Learn what a call costs that moves nothing; the median of the latest few counts."""
        self._idle_calls.append(seconds)

    def took(self, longest_call_seconds: float, largest_call_pages: int) -> None:
        """Learn from calls, the largest of `largest_call_pages`, the longest of `longest_call_seconds`.

        A call that moved less than half a batch says nothing in favour of larger ones.
        """
        self._last_call_seconds = longest_call_seconds
        stall_seconds = max(0.0, longest_call_seconds - (median(self._idle_calls) if self._idle_calls else 0.0))
        self._calls += 1
        if self._calls % RELEARN_CALLS == 0:
            self._stalls.clear()
        if 2 * largest_call_pages >= self._pages:
            self._stalls.setdefault(self._pages, deque(maxlen=REMEMBERED_CALLS)).append(stall_seconds)
        if self._is_no_better_than(2 * self._pages):
            self._pages = 2 * self._pages
        elif stall_seconds > 2 * self._stall_target_seconds:
            if not self._is_no_worse_than_half():
                self._pages = max(MIN_PAGES, self._pages // 2)
        elif stall_seconds < self._stall_target_seconds and 2 * largest_call_pages >= self._pages:
            grown = 2 * self._pages if self._pages < START_PAGES else self._pages + START_PAGES
            self._pages = min(MAX_PAGES, grown)

    def _is_no_better_than(self, larger: int) -> bool:
        return self._is_useless(self._pages, larger)

    def _is_no_worse_than_half(self) -> bool:
        return self._is_useless(self._pages // 2, self._pages)

    def _is_useless(self, smaller: int, larger: int) -> bool:
        """Return whether calls of `smaller` pages have shown to stall hardly less than calls of `larger` pages."""
        few, many = self._stalls.get(smaller, ()), self._stalls.get(larger, ())
        if len(few) < ENOUGH_CALLS or not many:
            return False
        return median(few) > self._stall_target_seconds and median(few) > WORTHWHILE_RATIO * median(many)
