"""How many pages of a call are out of reach together. Pure: the size follows what calls of each size took per page.

Owns what is remembered of groups. It must not know how many pages a call has (see batch.py), nor what moves.
"""

from collections import deque
from statistics import median

LARGEST_PAGES = 512
"""The kernel unmaps no more base pages together: NR_MAX_BATCHED_MIGRATION, mm/migrate.c."""

TELLING_PAGES = 512
"""The price of fewer pages says little."""

TRY_EVERY = 4
"""So many calls, and one of them is of another size: what others cost changes as CPUs become busy."""

ENOUGH_CALLS = 3
REMEMBERED_CALLS = 5
"""Calls of one size, of whose prices the median counts."""

TOO_DEAR_RATIO = 1.12
"""So much dearer than groups of twice the size, they are too small."""

CHEAP_RATIO = 1.06
"""No dearer than that beside groups of twice the size, they are preferred."""


class GroupSize:
    """The smallest group that costs hardly more a page than one of twice its size: `smallest_pages`, or its doubles.

    Before the kernel copies a group it waits until all CPUs where the process runs have forgotten its addresses. On a
    real machine that is a few microseconds; where CPUs are virtual, and wait for real ones, it is milliseconds, and
    groups of 64 pages took half again as long as those of 512. 0 leaves the size to the kernel, and nothing is learnt.
    """

    def __init__(self, smallest_pages: int) -> None:
        sizes = [smallest_pages] if smallest_pages else [0]
        while 0 < 2 * sizes[-1] <= LARGEST_PAGES:
            sizes.append(2 * sizes[-1])
        self._prices: dict[int, deque[float]] = {size: deque(maxlen=REMEMBERED_CALLS) for size in sizes}
        self._sizes = sizes
        self._at = 0
        self._calls = 0

    @property
    def pages(self) -> int:
        """The size that suits, as far as is known."""
        return self._sizes[self._at]

    def for_next_call(self) -> int:
        """Return the size that the next call should have: now and then another one, to know what that costs.

        Every second time the next larger one until it is known, and then the larger and the smaller one by turns.
        """
        self._calls += 1
        at, (tries, rest) = self._at, divmod(self._calls, TRY_EVERY)
        if at + 1 < len(self._sizes) and not self._is_known(at):
            at += self._calls % 2
        elif rest == 0:
            at += 1 if tries % 2 else -1
        return self._sizes[at] if 0 <= at < len(self._sizes) else self.pages

    def took(self, group_pages: int, seconds: float, pages: int) -> None:
        """Learn from calls that moved `pages` base pages by groups of `group_pages`, and took so long for them."""
        if pages < TELLING_PAGES:
            return
        self._prices[group_pages].append(seconds / pages)
        if self._is_dearer(self._at, TOO_DEAR_RATIO):
            self._at += 1
        elif self._at and self._is_known(self._at - 1) and not self._is_dearer(self._at - 1, CHEAP_RATIO):
            self._at -= 1

    def _is_known(self, at: int) -> bool:
        return at + 1 < len(self._sizes) and all(len(self._prices[s]) >= ENOUGH_CALLS for s in self._sizes[at : at + 2])

    def _is_dearer(self, at: int, ratio: float) -> bool:
        """Return whether a size is known to cost so much more a page than the next larger one."""
        if not self._is_known(at):
            return False
        one, twice = (median(self._prices[size]) for size in self._sizes[at : at + 2])
        return one > ratio * twice
