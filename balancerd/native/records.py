"""What the native core answers, as plain records.

Owns the shapes that cross from C to Python: counts, never pages. Must not know the model's records (a sibling room) nor
what anyone does with the counts. "pages" are base pages of 4096 bytes, whatever holds them: a 2 MiB page counts 512.
Counts by errno or node are tuples of (errno or node, pages) without zeros.
"""

from dataclasses import dataclass
from typing import NamedTuple

Counts = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePlacement:
    """Pages of one range, by where they are: `on_node[n]` for the nodes asked for, absent, and all others."""

    on_node: tuple[int, ...]
    absent_pages: int
    other_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the pages of some ranges are: queried_pages == sum(on_node) + sum of by_errno + unwritten_pages.

    by_errno holds the pages that have no node: ENOENT is an absent page, EFAULT the zero page or no mapping
    (move_pages(2)). A sampled page counts one; in an exact count each page counts its size.
    """

    on_node: tuple[int, ...]
    by_errno: Counts
    queried_pages: int
    unwritten_pages: int
    per_range: tuple[RangePlacement, ...]
    calls: int
    duration_seconds: float
    longest_call_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device whose mappings hold no ordinary files: `device` is major << 20 | minor, `kind` one of VMA_KINDS.

    page_bytes is the page size of a hugetlbfs; 0: not known.
    """

    device: int
    kind: int
    page_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VmaRow:
    """One mapping, [start, end). `kind` is an index into VMA_KINDS.

    `is_program` tells that some mapping of its file is executable, and that this one is not private and writable, as
    a program's variables are (`is_own`, of any mapping); `is_guarded` that a guard of at most 64 KiB, without
    any permission, ends where it begins. `device` is major << 20 | minor; 0 and `inode` 0 where there is no file.
    Nothing is asked of a mapping without a stratum: its pages are the kernel's, or a driver's.
    """

    start: int
    end: int
    kind: int
    is_shared: bool
    is_executable: bool
    is_program: bool
    is_guarded: bool
    is_own: bool
    name: str
    device: int
    inode: int
    stratum: int | None


VMA_KINDS = ("anon", "heap", "stack", "file", "shmem", "hugetlb", "special")
"""What a mapping may hold, in the order of the constants in cdef.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Mappings of about the same size, `units` units in all. A unit is a base page or a hugetlb page."""

    index: int
    units: int
    unit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VmaTally:
    """Units of one mapping by where they are: `on_node[n]`, absent, and all others (the zero page, errors)."""

    vma: int
    on_node: tuple[int, ...]
    absent: int
    other: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Where `asked_units` of `units` are. Of pairs asked near each other, differing_pairs[n] have one on node n.

    In lone_pairs[n] of these, the other one is on no node. All are 0 when every unit was asked for. A mapping has one
    row, but the first may have another at the end.
    """

    asked_units: int
    present_units: int
    units: int
    on_node: tuple[int, ...]
    differing_pairs: tuple[int, ...]
    lone_pairs: tuple[int, ...]
    rows: tuple[VmaTally, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the next step of a migration begins; Cursor() is the start of the first range.

    base_pages remembers that the last blocks held base pages, so that they are not tried as huge pages again.
    """

    range_index: int = 0
    address: int = 0
    base_pages: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Pages next to each other, [start, end) in pages of `page_bytes`, that fared alike.

    error 0: they moved from node `source` to `target`; an errno: they stayed; -1: nothing is known of them. A huge page
    is told in base pages, a hugetlb page in its own size.
    """

    start: int
    end: int
    page_bytes: int
    source: int
    target: int
    error: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """The account of one step. These sums always hold, all in pages.

    looked == already_on_target + left_alone + absent + other_before + no_room + submitted,
    submitted == moved + sum of by_errno + not_attempted + unwritten,
    moved + sum of by_errno + unwritten == pages of the runs + unrecorded, and other_before == sum of before_errno.

    left_alone_pages are on nodes that have no target. other_before_pages had an error in place of a node before any was
    submitted (errno 0: none that is known). no_room_pages would not fit into large_room_pages. Of EBUSY,
    refused_pages were attempted, did not move, and got no status, and stuck_pages were not tried on their own, since
    the huge page that they belong to had failed by its first address. unwritten_pages were attempted and could not be
    asked for again (the process is gone). not_attempted_pages stand behind an error, or behind too many failures: the
    cursor is at the first of them, and the next step counts them again. error is the errno of the call that ended the
    step, error_target the node that this call failed on; None without. runs are in the order in which they became
    known. call_seconds are of the calls that move, the first 64 of them; moving_seconds is the sum of all.
    """

    cursor: Cursor
    is_done: bool
    error: int | None
    looked_pages: int
    already_on_target_pages: int
    absent_pages: int
    other_before_pages: int
    submitted_pages: int
    moved_pages: int
    by_errno: Counts
    not_attempted_pages: int
    unwritten_pages: int
    from_node: Counts
    refused_pages: int
    whole_folios: int
    calls: int
    resubmissions: int
    query_calls: int
    moving_seconds: float
    query_seconds: float
    largest_call_pages: int
    longest_call_seconds: float
    error_target: int | None = None
    left_alone_pages: int = 0
    no_room_pages: int = 0
    before_errno: Counts = ()
    stuck_pages: int = 0
    runs: tuple[Run, ...] = ()
    unrecorded_pages: int = 0
    call_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """The account of one step of giving memory back. Two sums always hold, in pages.

    looked == absent + other + advised, and advised == evicted + kept. other_pages had an error in place of a node
    before the advice; evicted_pages were present before it, and are not any more. refused_pages are those of kept_pages
    that share a block of 2 MiB with a mapping that takes no such advice: a locked one, hugetlb, a device's. error is
    the errno of the call that ended the step, or None; the cursor then is at the first page not advised. call_seconds
    are of the calls that advise, the first 64 of them; advising_seconds is the sum of all.
    """

    cursor: Cursor
    is_done: bool
    error: int | None
    looked_pages: int
    absent_pages: int
    other_pages: int
    advised_pages: int
    evicted_pages: int
    kept_pages: int
    calls: int
    call_seconds: tuple[float, ...]
    query_seconds: float
    refused_pages: int = 0
    advising_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyRules:
    """Which processes a survey tells and how often it reads each.

    Large ones have at least min_rss_pages resident; with busy_is_large, busy ones count as large whatever they have.
    Loud ones are large and run on at least min_cpu_cores. Processes are listed, so that new ones are found, once in
    listing_seconds. New and loud processes are read in each pass, the others once in so many seconds: large ones that
    idle, small ones, kernel threads; small ones younger than small_seconds like large ones. At most max_kept
    descriptors stay open.
    """

    min_rss_pages: int
    min_cpu_cores: float
    ticks_per_second: int
    listing_seconds: float = 0.0
    idle_seconds: float = 4.0
    small_seconds: float = 10.0
    kernel_seconds: float = 60.0
    max_kept: int = 0
    busy_is_large: bool = False


class ProcessRow(NamedTuple):
    """One large process as it was last read, from proc_pid_stat(5). A NamedTuple, since it lives for a moment only.

    start_ticks (after boot) makes pid unique; cpu_ticks is utime + stime. run_ticks, cpu_cores and faults_per_second
    are between its last two readings, the first of which was at before_ticks after boot; None when it was read once.
    """

    pid: int
    start_ticks: int
    comm: str
    is_loud: bool
    cpu_cores: float | None
    faults_per_second: float | None
    run_ticks: int | None
    before_ticks: int | None
    cpu_ticks: int
    rss_pages: int
    n_threads: int
    last_cpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSurvey:
    """What one pass over all processes found out.

    rows are the large processes that are new, loud, or not as they were told. dropped are pids told earlier whose
    process is gone or not large any more; a row may tell one of them anew. processes counts those whose stat was
    understood, now or earlier, kernel_threads those of them that are the kernel's, read those read in this pass;
    vanished ones ended between the listing and the reading; unreadable ones gave another error or no stat line.
    """

    rows: tuple[ProcessRow, ...]
    dropped: tuple[int, ...]
    processes: int
    kernel_threads: int
    read: int
    vanished: int
    unreadable: int
    kept_descriptors: int
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSurvey:
    """What the threads of one process ran since they were last read, in ticks by node.

    listed counts its threads, read those read in this pass; vanished and unreadable as in ProcessSurvey.
    """

    run_ticks: Counts
    listed: int
    read: int
    vanished: int
    unreadable: int
    duration_seconds: float
