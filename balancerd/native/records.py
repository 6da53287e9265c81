"""What the native core answers, as plain records.

Owns the shapes that cross from C to Python: counts, never pages. Must not know the model's records (a sibling room) nor
what anyone does with the counts. "pages" are base pages of 4096 bytes, whatever holds them: a 2 MiB page counts 512.
Counts by errno or node are tuples of (errno or node, pages) without zeros.
"""

from dataclasses import dataclass

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
class Cursor:
    """Where the next step of a migration begins; Cursor() is the start of the first range.

    base_pages remembers that the last blocks held base pages, so that they are not tried as huge pages again.
    """

    range_index: int = 0
    address: int = 0
    base_pages: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """The account of one step. Two sums always hold.

    looked == already_on_target + absent + other_before + submitted, and
    submitted == moved + sum of by_errno + not_attempted + unwritten (all in pages).

    other_before_pages had an error in place of a node before anything was submitted. refused_pages are those of EBUSY
    that the kernel attempted, did not move, and gave no status. unwritten_pages were attempted and could not be asked
    for again (the process is gone). not_attempted_pages stand behind an error, or behind too many failures: the cursor
    is at the first of them, and the next step counts them again; or they belong to a large folio that failed by its
    first address, which the cursor has passed. error is the errno of the call that ended the step, or None.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process, from proc_pid_stat(5). start_ticks (after boot) makes pid unique; cpu_ticks is utime + stime."""

    pid: int
    ppid: int
    start_ticks: int
    cpu_ticks: int
    rss_pages: int
    minor_faults: int
    major_faults: int
    n_threads: int
    last_cpu: int
    flags: int
    state: str
    comm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRow:
    """One thread, from /proc/PID/task/TID/stat."""

    tid: int
    start_ticks: int
    cpu_ticks: int
    last_cpu: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSurvey:
    """All processes that matter, and how many were only counted.

    processes counts every stat line understood, kernel_threads those of them that are the kernel's; vanished ones
    ended between the listing and the reading; unreadable ones gave another error or no stat line.
    """

    rows: tuple[ProcessRow, ...]
    processes: int
    kernel_threads: int
    vanished: int
    unreadable: int
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSurvey:
    """All threads of one process; vanished and unreadable as in ProcessSurvey."""

    rows: tuple[ThreadRow, ...]
    vanished: int
    unreadable: int
    duration_seconds: float
