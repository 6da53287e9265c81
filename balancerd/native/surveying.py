"""Typed Python functions over bal_survey() and bal_threads(): all processes in one pass, the threads of one.

Owns the arrays that outlive a pass, the seats, and makes them larger when there are more processes. Any, the type of C
data, stops here. Must not know policies, the model, or procfs beyond a descriptor of its root.
"""

from collections.abc import Iterable
from threading import Lock
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.binding import check
from balancerd.native.records import ProcessRow, ProcessSurvey, SurveyRules, ThreadSurvey

_MOST_NAMED = 64
"""Who asks for processes by name expects few."""


class ProcessSeats:
    """What is remembered of all processes from one survey to the next. close() gives the kept descriptors back.

    The lock is held while a survey, or somebody who asks in between, uses the arrays.
    """

    __slots__ = ("capacity", "data", "dropped", "listed_at", "lock", "n", "told")

    def __init__(self, capacity: int = 256) -> None:
        self.lock = Lock()
        self.n = 0
        self.listed_at: float | None = None
        self._allocate(capacity)

    def grow(self, capacity: int) -> None:
        """Make room for so many; what is remembered is kept."""
        before = self.data
        self._allocate(capacity)
        ffi.memmove(self.data, before, self.n * ffi.sizeof("struct bal_seat"))

    def close(self) -> None:
        """Close all descriptors and forget every process."""
        with self.lock:
            lib.bal_close_seats(self.data, self.n)
            self.n = 0
            self.listed_at = None

    def cpu_cores(self, pid: int, start_ticks: int) -> float | None:
        """Return the busy cores of a process, whatever its size, at its last reading; None when it was read once."""
        with self.lock:
            low, high = 0, self.n
            while low < high:
                middle = (low + high) // 2
                if self.data[middle].pid < pid:
                    low = middle + 1
                else:
                    high = middle
            if low == self.n:
                return None
            seat = self.data[low]
            known = seat.pid == pid and seat.start_ticks == start_ticks and seat.readings > 1
            return float(seat.cpu_cores) if known else None

    def pids_named(self, beginning: str) -> tuple[int, ...]:
        """Return the pids, ascending, of all processes whose name began so at its last reading; 64 at most."""
        pids, ret = ffi.new("int32_t[]", _MOST_NAMED), ffi.new("uint64_t *")
        with self.lock:
            check(lib.bal_named_seats(self.data, self.n, beginning.encode(), pids, _MOST_NAMED, ret), None)
        return tuple(ffi.unpack(pids, min(ret[0], _MOST_NAMED))) if ret[0] else ()

    def _allocate(self, capacity: int) -> None:
        self.capacity = capacity
        self.data: Any = ffi.new("struct bal_seat[]", capacity)
        self.told: Any = ffi.new("uint32_t[]", capacity)
        self.dropped: Any = ffi.new("int32_t[]", capacity)


def survey(
    proc_fd: int, seats: ProcessSeats, rules: SurveyRules, *, now_seconds: float, boot_ticks: int
) -> ProcessSurvey:
    """Go over the processes below proc_fd, a descriptor (O_PATH will do) of the root of a procfs.

    now_seconds is the time of this pass, boot_ticks the same in ticks after boot. Raises OSError when the root cannot
    be listed; the seats then are as they were.
    """
    with seats.lock:
        return _survey(proc_fd, seats, rules, now_seconds, boot_ticks)


def _survey(
    proc_fd: int, seats: ProcessSeats, rules: SurveyRules, now_seconds: float, boot_ticks: int
) -> ProcessSurvey:
    is_listing = seats.listed_at is None or now_seconds - seats.listed_at >= rules.listing_seconds
    args = ffi.new(
        "struct bal_survey_args *",
        {
            "now_seconds": now_seconds,
            "boot_ticks": boot_ticks,
            "ticks_per_second": rules.ticks_per_second,
            "min_rss_pages": rules.min_rss_pages,
            "min_cpu_cores": rules.min_cpu_cores,
            "idle_seconds": rules.idle_seconds,
            "small_seconds": rules.small_seconds,
            "kernel_seconds": rules.kernel_seconds,
            "max_kept": rules.max_kept,
            "busy_is_large": rules.busy_is_large,
            "no_listing": not is_listing,
        },
    )
    ret = ffi.new("struct bal_survey *")
    while True:
        rc = lib.bal_survey(proc_fd, args, seats.data, seats.n, seats.capacity, seats.told, seats.dropped, ret)
        check(rc, None)
        if ret.needed <= seats.capacity:
            break
        seats.grow(ret.needed + ret.needed // 8)  # some room for those that start in between
    seats.n = ret.n_seats
    if is_listing:
        seats.listed_at = now_seconds
    return ProcessSurvey(
        rows=tuple(_row(seats.data[at]) for at in ffi.unpack(seats.told, ret.n_told)) if ret.n_told else (),
        dropped=tuple(ffi.unpack(seats.dropped, ret.n_dropped)) if ret.n_dropped else (),
        processes=ret.processes,
        kernel_threads=ret.kernel_threads,
        read=ret.read,
        vanished=ret.vanished,
        unreadable=ret.unreadable,
        kept_descriptors=ret.kept,
        duration_seconds=ret.seconds,
    )


def _row(seat: Any) -> ProcessRow:
    has_rates = seat.readings > 1
    return ProcessRow(
        pid=seat.pid,
        start_ticks=seat.start_ticks,
        comm=ffi.string(seat.comm).decode("utf-8", "backslashreplace"),
        is_loud=bool(seat.is_loud),
        cpu_cores=seat.cpu_cores if has_rates else None,
        faults_per_second=seat.faults_per_second if has_rates else None,
        run_ticks=seat.run_ticks if has_rates else None,
        before_ticks=seat.before_ticks if has_rates else None,
        cpu_ticks=seat.cpu_ticks,
        rss_pages=seat.rss_pages,
        n_threads=seat.n_threads,
        last_cpu=seat.last_cpu,
    )


class ThreadSeats:
    """What is remembered of the threads of one process from one survey to the next.

    Of a thread that started before since_ticks nothing is known until it was read twice; later ones count whole. With
    `alone`, (tid, start_ticks, cpu_ticks), the one thread is known that the process had so far.
    """

    __slots__ = ("capacity", "data", "n", "since_ticks")

    def __init__(self, since_ticks: int, *, alone: tuple[int, int, int] | None = None, capacity: int = 16) -> None:
        self.since_ticks = since_ticks
        self.capacity = capacity
        self.data: Any = ffi.new("struct bal_thread_seat[]", capacity)
        self.n = 0
        if alone is not None:
            tid, start_ticks, cpu_ticks = alone
            self.data[0] = {"tid": tid, "start_ticks": start_ticks, "cpu_ticks": cpu_ticks, "is_read": 1}
            self.n = 1

    def grow(self, capacity: int) -> None:
        """Make room for so many; what is remembered is kept."""
        before, self.capacity = self.data, capacity
        self.data = ffi.new("struct bal_thread_seat[]", capacity)
        ffi.memmove(self.data, before, self.n * ffi.sizeof("struct bal_thread_seat"))


class NodeOfCpu:
    """The node of each CPU, given as (CPU, node), in the form that the C functions read: pack once, use often."""

    __slots__ = ("data", "n_cpus", "n_nodes")

    def __init__(self, node_of_cpu: Iterable[tuple[int, int]]) -> None:
        known = dict(node_of_cpu)
        self.n_cpus = max(known, default=-1) + 1
        self.n_nodes = max(known.values(), default=-1) + 1
        self.data: Any = ffi.new("int32_t[]", [known.get(cpu, -1) for cpu in range(self.n_cpus)])


def threads(
    proc_fd: int,
    pid: int,
    seats: ThreadSeats,
    nodes: NodeOfCpu,
    *,
    expected_ticks: int,
    turn: int = 0,
    shares: int = 1,
) -> ThreadSurvey:
    """Read one share of the threads of a process, another one at the next turn; the others stay as remembered.

    expected_ticks is what the process ran since the turn before: when the threads that ran lately explain it, most idle
    ones are left out. proc_fd as for survey(). Raises OSError ESRCH: the process is gone.
    """
    args = ffi.new(
        "struct bal_thread_args *",
        {
            "since_ticks": seats.since_ticks,
            "expected_ticks": expected_ticks,
            "shares": shares,
            "turn": turn,
            "node_of_cpu": nodes.data,
            "n_cpus": nodes.n_cpus,
            "n_nodes": nodes.n_nodes,
        },
    )
    run_ticks = ffi.new("uint64_t[]", max(1, nodes.n_nodes))
    ret = ffi.new("struct bal_thread_survey *")
    while True:
        check(lib.bal_threads(proc_fd, pid, args, seats.data, seats.n, seats.capacity, run_ticks, ret), pid)
        if ret.needed <= seats.capacity:
            break
        seats.grow(ret.needed + ret.needed // 8)
    seats.n = ret.n_seats
    return ThreadSurvey(
        run_ticks=tuple((node, ticks) for node, ticks in enumerate(ffi.unpack(run_ticks, nodes.n_nodes)) if ticks),
        listed=ret.n_seats,
        read=ret.read,
        vanished=ret.vanished,
        unreadable=ret.unreadable,
        duration_seconds=ret.seconds,
    )
