"""Heat: how much the memory of a process is used, by region. By whom it is used, heat does not tell.

Owns the records that heat sources fill. Nothing moves by them alone; they order what moves, and are shown to people.
"""

import enum
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.model.access import Obstacle
from balancerd.model.ids import NodeId, ProcessId


class HeatMethod(enum.StrEnum):
    """How heat is found out. The value is its name in the configuration."""

    DAMON = "damon"
    """The kernel looks at the accessed bit of one page of each region, over and over (mm/damon)."""

    SOFT_DIRTY = "soft-dirty"
    """Pages are write-protected now and then: which ones were written since is known (soft-dirty.rst)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRegion:
    """Memory [start, end), and how much of it is in use.

    `ratio`, from 0 to 1, is the share of looks that found it accessed, or the share of its pages that were written.
    `age_seconds` is for how long that has hardly changed; None where nobody keeps track of it. `pages_by_node` are the
    base pages by node, an estimate; None where nobody has asked.
    """

    start: int
    end: int
    ratio: float
    age_seconds: float | None = None
    pages_by_node: Mapping[NodeId, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatWindow:
    """The heat of one process at `taken_at`, of the `seconds` before.

    `regions` ascend and do not overlap; memory in none of them was not looked at. `watched_seconds` is how long the
    process has been watched, `cpu_ratio` the share of one core that this takes in the kernel, None when not known.
    """

    process: ProcessId
    taken_at: float
    seconds: float
    watched_seconds: float
    method: HeatMethod
    regions: tuple[HeatRegion, ...] = ()
    cpu_ratio: float | None = None

    def ratio_within(self, start: int, end: int) -> float | None:
        """Return the mean over [start, end), by bytes; None when nothing of it was looked at."""
        looked_bytes, sum_bytes = 0, 0.0
        first = max(0, bisect_right(self.regions, start, key=lambda region: region.start) - 1)
        for index in range(first, len(self.regions)):
            region = self.regions[index]
            if region.start >= end:
                break
            overlap = min(end, region.end) - max(start, region.start)
            if overlap > 0:
                looked_bytes += overlap
                sum_bytes += overlap * region.ratio
        return sum_bytes / looked_bytes if looked_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heats:
    """The newest known of each process that is watched by `method`, None: by none, as configured.

    `obstacle` is what keeps it from working here, `missed` why a process is not watched though it should be.
    """

    method: HeatMethod | None = None
    windows: Mapping[ProcessId, HeatWindow] = field(default_factory=dict)
    missed: Mapping[ProcessId, str] = field(default_factory=dict)
    obstacle: Obstacle | None = None
