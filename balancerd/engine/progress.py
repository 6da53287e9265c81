"""Whether what is left of a move is worth going on, from one look of a policy at a process to the next."""

NEGLIGIBLE_RATIO = 0.01
"""Less than this share of its memory elsewhere is noise of the sample, and not worth a move."""

FINISHED_RATIO = 0.001
"""A move that is under way, and makes progress, goes on to this share."""


class Progress:
    """How much of one process a policy wanted moved when it looked last. What was wanted counts for one look."""

    def __init__(self) -> None:
        self._wanted_bytes: int | None = None
        self.was_wanted = False
        """Whether a move was wanted at the look before this one."""
        self.is_moving = False
        """Whether, besides, less is left now."""

    def look(self, left_bytes: int) -> None:
        """Take note of what is left to move now."""
        before, self._wanted_bytes = self._wanted_bytes, None
        self.was_wanted = before is not None
        self.is_moving = before is not None and left_bytes < before

    def is_negligible(self, left_bytes: int, total_bytes: int) -> bool:
        """Return whether so little is left, of so much in all, that a move need not begin, or go on."""
        return left_bytes < (FINISHED_RATIO if self.is_moving else NEGLIGIBLE_RATIO) * total_bytes

    def want(self, left_bytes: int) -> None:
        """Take note that what is left is wanted elsewhere."""
        self._wanted_bytes = left_bytes
