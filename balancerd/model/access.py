"""Who touches which memory: what all samples of one process tell, counted by region.

Owns the records that access sources fill and policies judge. Nothing here is kept for each page: pages are counted in
the native core, which hands on runs of pages that one node uses, and regions of 2 MiB with their counts.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.model.decision import Skip
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId

REGION_BYTES = 2 << 20
REGION_PAGES = 512
"""A region is what one transparent huge page may cover; so many base pages."""


SHARED_WEIGHT = 8.0
"""Of fewer samples of a region nothing is said: two nodes that share it evenly are seen as 6 to 2 or closer in most."""

OWN_SHARE = 0.75
"""A region of which one node has a larger share is not shared, even if it is not sure enough to belong to it."""

SURE_WEIGHT = 7.0
SURE_RUN_WEIGHT = 63.0
"""Two samples give a page to one node; of memory that threads of two nodes share, that is so of every sixth page. So a
run is acted on only if its pages have so much weight each on average, which takes eight samples, or so much together,
which is as much as 32 pages have with two samples each. Its length tells nothing: pages without samples between two of
one node are in it."""


def region_edge(address: int) -> int:
    """Return the start of a region that is the nearest to an address."""
    return (address + REGION_BYTES // 2) // REGION_BYTES * REGION_BYTES


class AccessMethod(enum.StrEnum):
    """How accesses are found out. The value is the source's name in the configuration."""

    REGISTERS = "registers"
    """A timer shows the registers of running threads: those that point into memory tell what is in use."""

    HINT_FAULTS = "hint-faults"
    """The kernel's balancing takes pages away for a moment: who faults on one has accessed it."""

    KERNEL_COUNTERS = "kernel-counters"
    """How many of these faults were local, as the kernel counts them for itself: no addresses."""

    PEBS = "pebs"
    """Intel's PMU tells the address of slow loads and of stores, and what answered them."""

    IBS = "ibs"
    """AMD's CPUs tell the same of one instruction in so many."""

    PERF_LOG = "perf-log"
    """Somebody has recorded them with perf, and imported the log. Needs no configuration: it goes before all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRegion:
    """A region, from `start` on, and the weight of its samples by the node of the accessing CPU.

    `node` is the node it belongs to as a whole, None: nobody's alone, or not known. `is_mixed` tells that pages of it
    belong to different nodes: a part of those judged to each of two, as large as the source's rule says.
    `pages_by_node` estimates where the pages of a region without a node lie, as those of a run do.
    """

    start: int
    weight_by_node: Mapping[NodeId, float]
    node: NodeId | None = None
    is_mixed: bool = False
    pages_by_node: Mapping[NodeId, float] | None = None

    @property
    def weight(self) -> float:
        """That of all its samples."""
        return sum(self.weight_by_node.values())

    @property
    def is_shared(self) -> bool:
        """Whether nobody alone uses it as a whole; single pages of it may belong to somebody all the same."""
        weight = self.weight
        if self.node is not None or weight < SHARED_WEIGHT:
            return False
        return max(self.weight_by_node.values()) <= OWN_SHARE * weight


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRun:
    """Neighbouring pages, [start, end), that threads on `node` use: so sure that they may move there.

    `weight` is that of all samples that fell into it, `node_weight` of those from `node`. A page's weight ages with
    each of its samples, so that about the last fifty count. `is_mixed`: in a region whose pages belong to different
    nodes, so that no node is right for it if one huge page holds it. `pages_by_node` estimates where its pages lie, in
    base pages; None while nobody has asked, and then nothing can be said of what a move would change.
    """

    start: int
    end: int
    node: NodeId
    weight: float
    node_weight: float
    is_mixed: bool = False
    pages_by_node: Mapping[NodeId, float] | None = None

    @property
    def is_sure(self) -> bool:
        """Whether chance does not give as much to one node of memory that several share.

        What is as long as a region was judged as a whole, by a rule of its own.
        """
        pages = (self.end - self.start) * REGION_PAGES / REGION_BYTES
        return pages >= REGION_PAGES or self.weight >= min(SURE_RUN_WEIGHT, SURE_WEIGHT * pages)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessWindow:
    """What is known of the accesses of one process at `taken_at`.

    In the `seconds` since the window before, `samples` of `threads` were taken, of which `hits` told an address in
    watched memory; `lost_samples` had no room, `cut_samples` neither, or were left out since those of another thread
    had none by then: what all threads did up to then was counted. `throttled` counts how often the kernel switched
    sampling off for a while. `watched_seconds` is how long the process has been watched. `regions` and `runs` ascend;
    they rest on all samples of pages used lately. `unreported_runs` and `unreported_regions` did not fit.
    """

    process: ProcessId
    taken_at: float
    seconds: float
    watched_seconds: float
    method: AccessMethod
    samples: int
    hits: int
    lost_samples: int = 0
    cut_samples: int = 0
    throttled: int = 0
    threads: int = 0
    regions: tuple[AccessRegion, ...] = ()
    runs: tuple[AccessRun, ...] = ()
    huge: tuple[Extent, ...] | None = None
    unreported_runs: int = 0
    unreported_regions: int = 0
    cpu_seconds: float = 0.0
    """CPU time that reading it took."""
    local_ratio: float | None = None
    """Share of accesses to memory of the node where their thread runs, from a source that knows nothing else: then
    there are neither samples nor runs. None: nobody knows."""

    @property
    def lost_ratio(self) -> float:
        """Share of what should have been seen in this window and was lost, to the disadvantage of some threads."""
        taken = self.samples + self.lost_samples
        return self.lost_samples / taken if taken else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What keeps a source of accesses from working here: what was seen, and the exact remedy."""

    seen: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accesses:
    """What is known of the processes asked for: a window for each, or the reason why there is none."""

    windows: Mapping[ProcessId, AccessWindow] = field(default_factory=dict)
    missed: Mapping[ProcessId, Skip] = field(default_factory=dict)
