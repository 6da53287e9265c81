"""How many pages of a call are out of reach together. Pure: large groups where a group's own price outweighs copying.

Owns what is remembered of groups. It must not know how many pages a call moves (see batch.py), nor what moves.
"""

from collections import deque
from statistics import median

LARGEST_PAGES = 512
"""The kernel unmaps no more together, NR_MAX_BATCHED_MIGRATION in mm/migrate.c."""

WORTHWHILE_RATIO = 0.75
"""So much less time must a page take in large groups: of the time of a small one, of 128, a third was waiting then."""

ENOUGH_CALLS = 3
"""So many calls of each size before they are compared."""

REMEMBERED_CALLS = 5
"""Of the latest of each size the median counts."""

AGAIN_AFTER_CALLS = 64
"""So many calls later one of the other size is made again: CPUs may be less busy by now, or more."""


class GroupSize:
    """The size of groups, `usual_pages` unless large ones have shown to be much faster; remembered from step to step.

    Before the kernel copies a group it waits for all CPUs where the process runs, and that does not grow with the
    group. On a machine of one's own it is nothing; where virtual CPUs wait for real ones it may be milliseconds.
    """

    def __init__(self, usual_pages: int) -> None:
        self._usual = usual_pages
        is_small = 0 < usual_pages < LARGEST_PAGES
        sizes = (usual_pages, LARGEST_PAGES) if is_small else (usual_pages,)
        self._page_seconds: dict[int, deque[float]] = {size: deque(maxlen=REMEMBERED_CALLS) for size in sizes}
        self._calls = 0  # of the better size, since the last one of the other

    @property
    def pages(self) -> int:
        """Into groups of how many pages the next call should be divided; 0 leaves it to the kernel."""
        least_known = min(self._page_seconds, key=lambda size: len(self._page_seconds[size]))
        if len(self._page_seconds[least_known]) < ENOUGH_CALLS:  # in turns, as the first calls are the smallest
            return least_known
        better = self._better()
        if self._calls >= AGAIN_AFTER_CALLS:
            return next(size for size in self._page_seconds if size != better)
        return better

    def took(self, group_pages: int, page_seconds: float) -> None:
        """Learn what a base page took to move in groups of `group_pages`, without the price of the call itself."""
        if len(self._page_seconds) > 1:
            self._page_seconds[group_pages].append(page_seconds)
            self._calls = self._calls + 1 if group_pages == self._better() else 0

    def _better(self) -> int:
        usual, large = self._page_seconds[self._usual], self._page_seconds.get(LARGEST_PAGES)
        is_worthwhile = usual and large and median(large) < WORTHWHILE_RATIO * median(usual)
        return LARGEST_PAGES if is_worthwhile else self._usual
