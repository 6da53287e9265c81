"""What a policy has asked for again and again: parts that swing between two places, and parts that it asked in vain.

Both are of one process, and go by what was wanted, not by what was done: where its heat swings so fast that the wishes
do, moving would never pay. Time is data.
"""

from collections.abc import Iterable, Sequence

from balancerd.model.extent import Extent, inside, joined, size_bytes

SWING_SECONDS = 60.0
"""Who is wanted in one place and then in the other within this time swings."""

SWING_RATIO = 0.1
"""With a larger share of what was wanted swinging, nothing of the process is wanted for a while."""

FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
"""A pause is twice as long as the one before, unless as long a time has passed without swings in between."""

PATIENCE_SECONDS = 20.0
"""What was wanted for so long, and became no less, is asked for no more for a while: where it lies is an estimate."""

PROGRESS_RATIO = 0.005
"""Of the memory of the process: less than that is the error of a sample."""

GROWTH_RATIO = 0.05
"""With so much more to move than when it was asked in vain, it is another situation."""


class Swings:
    """What was wanted up and what down lately, and whether too much of it was both."""

    def __init__(self) -> None:
        self._wanted: dict[bool, dict[Extent, float]] = {True: {}, False: {}}
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._resumed_at: float | None = None
        self._until = float("-inf")
        self.told = ""

    def want(self, up: Iterable[Extent], down: Iterable[Extent], now: float) -> float:
        """Take note of what is wanted up, and down; return for how many seconds it should not be, 0: it may."""
        if now < self._until:
            return self._until - now
        for is_up, extents in ((True, up), (False, down)):
            wanted = self._wanted[is_up]
            for extent in [extent for extent, at in wanted.items() if now - at > SWING_SECONDS]:
                del wanted[extent]
            wanted.update(dict.fromkeys(extents, now))
        return self._judge(now)

    def _judge(self, now: float) -> float:
        up, down = joined(self._wanted[True]), joined(self._wanted[False])
        total = size_bytes(joined((*up, *down)))
        swung = sum(size_bytes(inside(up, part.start, part.end)) for part in down)
        if swung <= SWING_RATIO * total:
            return 0.0
        if self._resumed_at is not None:
            calm = now - self._resumed_at > self._pause_seconds
            longer = min(LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds)
            self._pause_seconds = FIRST_PAUSE_SECONDS if calm else longer
        self._until = self._resumed_at = now + self._pause_seconds
        self._wanted = {True: {}, False: {}}
        self.told = f"{swung >> 20} of {total >> 20} MiB were to go up and down within {SWING_SECONDS:.0f} s"
        return self._pause_seconds


class InVain:
    """What was wanted in one direction and did not become less."""

    def __init__(self) -> None:
        self._best_bytes = 0
        self._since: float | None = None
        self._settled: tuple[Extent, ...] = ()
        self._settled_bytes = 0
        self._until = float("-inf")
        self._wait_seconds = FIRST_PAUSE_SECONDS

    def look(self, left_bytes: int, total_bytes: int, now: float) -> None:
        """Take note of how much is left in the wrong place, of so much in all."""
        if self._settled and (now >= self._until or left_bytes > self._settled_bytes + GROWTH_RATIO * total_bytes):
            self._settled = ()
        if self._since is not None and left_bytes < self._best_bytes - PROGRESS_RATIO * total_bytes:
            self._best_bytes, self._since, self._wait_seconds = left_bytes, now, FIRST_PAUSE_SECONDS

    def without(self, extents: Iterable[Extent]) -> tuple[Extent, ...]:
        """Return the parts of extents that were not asked for in vain."""
        found: list[Extent] = []
        for extent in extents:
            at = extent.start
            for part in inside(self._settled, extent.start, extent.end):
                found.append(Extent(at, part.start))
                at = part.end
            found.append(Extent(at, extent.end))
        return joined(found)

    def want(self, extents: Sequence[Extent], left_bytes: int, now: float, patience_seconds: float) -> None:
        """Take note of what is asked for now; nothing ends the asking."""
        if not extents:
            self._since = None
        elif self._since is None:
            self._best_bytes, self._since = left_bytes, now
        elif now - self._since >= patience_seconds:
            self._settled = joined((*self._settled, *extents))
            self._settled_bytes = left_bytes
            self._until = now + self._wait_seconds
            self._wait_seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._wait_seconds)
            self._since = None
