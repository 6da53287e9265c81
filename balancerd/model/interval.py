"""How sure an estimated share is. Pure arithmetic: Wilson's interval for a share of so many independent answers."""

import math
from dataclasses import dataclass

Z95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share between `low` and `high`, both in [0, 1]; equal ends mean that it is exact."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's length: the error to be expected at most."""
        return (self.high - self.low) / 2


def wilson(share: float, answers: float, z: float = Z95) -> Interval:
    """Return Wilson's score interval for a share seen in so many answers, which need not be a whole number.

    Without any answer it is [0, 1]. ValueError when share is not within [0, 1] or answers negative.
    """
    if not 0.0 <= share <= 1.0 or answers < 0:
        raise ValueError(f"no share of answers: {share} of {answers}")
    if answers == 0:
        return Interval(0.0, 1.0)
    square = z * z / answers
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / answers + square / (4 * answers))
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))
