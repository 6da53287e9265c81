"""What the native core answers about accesses, as plain records.

Owns the shapes that cross from C to Python: regions, runs and totals, never pages or samples one by one. Must not know
the model's records (a sibling room). "pages" are base pages of 4096 bytes. Seconds are of CLOCK_MONOTONIC. Numbers of
samples are decayed ones where it says "weight": a page's weight is multiplied by 0.98 at each of its samples, so that
it is never above 50 and about the last fifty samples count.
"""

import enum
from dataclasses import dataclass


class PerfKind(enum.IntEnum):
    """What a perf event samples."""

    REGISTERS = 0
    """The user registers of a thread, at a fixed rate of its run time (software event cpu-clock)."""
    FAULTS = 1
    """The address of each page fault (software event page-faults): hint faults where kernel.numa_balancing is on."""
    MEMORY = 2
    """The address of each so many loads and stores, and what answered them: events of a PMU, which are to be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEvent:
    """A PMU's event that tells loads, stores, or both, as perf_event_open(2) takes it.

    `configs` are config, config1 and config2; `precise` is precise_ip. An auxiliary event takes no samples: the event
    after it is opened in its group. Events of stores have a period of their own.
    """

    pmu_type: int
    configs: tuple[int, int, int]
    precise: int = 0
    is_auxiliary: bool = False
    is_stores: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessTotals:
    """What a table holds, and what became of the accesses since it was made.

    taken == counted + touches + unknown_cpus. A page that had to leave for another is lost, with its samples: a window
    with many lost pages says little. `capacity_pages` bounds `pages`.
    """

    capacity_pages: int
    pages: int
    taken: int
    counted: int
    touches: int
    """First faults of a page, which tell who touched it first and not who uses it."""
    unknown_cpus: int
    lost_pages: int
    lost_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRule:
    """When a page, or a whole region, belongs to one node (algorithms.md, "access").

    A page is judged by min_samples samples and more, when the lower bound of the best node's share (one-sided, Wilson,
    at z) is above min_share; or by sole_samples and more, all of one node and one thread.

    A region of 2 MiB is judged as a whole, with the pages in it that nobody was seen at, when all its judged pages
    agree (or there is none), it has min_samples samples and more at region_pages different pages and more, and the
    lower bound for the whole is above region_share. Otherwise pages between two judged ones of one node go with them,
    unless one of them was seen with more samples from elsewhere. A region is mixed when two nodes have mixed_share of
    its judged pages each.
    """

    min_samples: int = 8
    min_share: float = 0.55
    sole_samples: int = 2
    z: float = 1.2816
    region_pages: int = 4
    region_share: float = 0.75
    mixed_share: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRun:
    """Pages next to each other, [start, end), that belong to one node.

    `judged_pages` of them have samples of their own that say so; the others are filled in. `weight` is that of all
    samples at the run's pages, `node_weight` that of the samples from the node. `is_mixed`: in a region with two
    owners; if a huge page holds it, no node is right for that page.
    """

    start: int
    end: int
    node: int
    judged_pages: int
    weight: float
    node_weight: float
    is_mixed: bool
    last_seconds: float
    """When one of its pages was last accessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The runs of a table, ascending. `missed_runs` did not fit; `judged_pages` and `pages` count them, too."""

    runs: tuple[AccessRun, ...]
    missed_runs: int
    pages: int
    """Looked at: those accessed since the time given."""
    judged_pages: int
    mixed_regions: int
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRegion:
    """What is known of one region of 2 MiB: `weights` has (node, weight), nodes ascending, without zeros.

    `node` is what the region as a whole is judged to belong to, None: to nobody, or to several.
    """

    start: int
    pages: int
    """Seen accessed."""
    judged_pages: int
    weights: tuple[tuple[int, float], ...]
    node: int | None
    is_mixed: bool
    last_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRegions:
    """The regions of a table, ascending by address. `missed_regions` did not fit."""

    regions: tuple[AccessRegion, ...]
    missed_regions: int
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAccesses:
    """What a table knows of one page: for tests and for a closer look, never for all pages.

    `sole_thread` is the only thread seen at it, None: several. `threads` estimates how many, up to 16.
    """

    start: int
    samples: int
    """All, up to 65535."""
    weights: tuple[tuple[int, float], ...]
    sole_thread: int | None
    threads: int
    first_seconds: float
    last_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfReading:
    """What became of the records of some rings.

    samples == with_access + elsewhere + repeated + no_registers + no_address + near + far. An access is a page that a
    sample's registers point into, the address of a fault, or that of a load or store that went to memory; one sample of
    registers may have several. `repeated`: the registers point into the ranges only where they did before, such as at
    the start of an array. `lost`: samples that found their ring full, some time ago. `cut`: none of `samples`, since
    the ring of another thread was full by then; never of faults. Both, and `throttled`, say that the reading is
    not of all time; but up to then it is of all threads.
    """

    samples: int
    with_access: int
    elsewhere: int
    repeated: int
    no_registers: int
    no_address: int
    """Neither loads nor stores, or nobody knows where to."""
    near: int
    """Loads and stores that a cache of the core itself answered: L1, its fill buffers, L2."""
    far: int
    """Those that another cache answered, or nobody knows what."""
    stores: int
    """Of samples of loads and stores."""
    framed: int
    """Of these: told where in the machine's memory the page lay, which it takes privileges to see."""
    cycles: int
    """Latency of accesses, as far as the hardware told it."""
    busiest: int
    """Samples and lost ones of the thread that had most of them."""
    in_kernel: int
    """Of samples: taken while the thread was in the kernel, where its registers are those of the system call."""
    accesses: int
    exact: int
    """Of accesses: addresses that an instruction was about to access."""
    code_reads: int
    """Different instructions read from the process."""
    lost: int
    cut: int
    throttled: int
    unthrottled: int
    foreign: int
    """Records of other types, or of a length that they do not have: the rest of that ring is given up."""
    duration_seconds: float
