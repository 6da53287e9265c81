"""DAMON's sysfs tree: setting up threads of our own, and nobody else's, starting them, and reading what they found.

Owns /sys/kernel/mm/damon/admin (Documentation/admin-guide/mm/damon/usage.rst). Must not know who is watched, or why.

The tree has one owner: writing nr_kdamonds throws away everything below it, and is refused while any thread runs. So
all threads are set up at once, one for each process that may be watched, and started and stopped by themselves. There
is no place for a name. What tells ours from others is the watermarks of their scheme, which have no effect with the
metric "none": a constant, and the pid and start time of the daemon, by which the next one knows what a crash has left.
"""

import enum
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import list_names, read_bytes, write_file
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId

TREE: Final = "kernel/mm/damon/admin/kdamonds"

MARK: Final = int.from_bytes(b"balancer", "big")
"""In the high watermark of our schemes."""

OPERATIONS: Final = "vaddr"

MOST_NUMBER: Final = (1 << 64) - 1
_MOST_DIGITS: Final = len(str(MOST_NUMBER))

TRIES: Final = 50
"""The tree's lock is only tried: another reader or writer, for an instant, is EBUSY (mm/damon/sysfs.c)."""


Result = TypeVar("Result")


class TakenError(OSError):
    """The tree belongs to somebody else."""


class Owner(enum.Enum):
    """Whose the tree is."""

    NOBODY = enum.auto()
    THIS = enum.auto()
    CRASHED = enum.auto()
    """A daemon of ours that does not run any more."""
    PEER = enum.auto()
    """Another daemon of ours, which runs."""
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How often DAMON looks, after how long it counts together, and how often it looks for new mappings.

    The first two are DAMON's defaults; of the third, which walks all mappings, the default is a minute.
    """

    sample_us: int = 5_000
    aggregation_us: int = 100_000
    update_us: int = 5_000_000

    def times(self, factor: int) -> "Intervals":
        """Return the same, so many times as long."""
        return Intervals(
            sample_us=self.sample_us * factor,
            aggregation_us=self.aggregation_us * factor,
            update_us=self.update_us * factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One region as DAMON tells it: looks that found it accessed, and its age in aggregation intervals."""

    start: int
    end: int
    accesses: int
    age: int


class Kdamonds:
    """The tree. `own` is this daemon as the mark tells it; `write` writes a text to a file."""

    def __init__(
        self,
        own: ProcessId,
        *,
        sysfs: str = "/sys",
        procfs: str = "/proc",
        write: Callable[[str, str], None] = write_file,
    ) -> None:
        self._own = own
        self._top = f"{sysfs}/{TREE}"
        self._procfs = procfs
        self._write_once = write

    def count(self) -> int:
        """Return how many threads are set up. Raises OSError where there is no DAMON."""
        return self._number(f"{self._top}/nr_kdamonds")

    def owner(self) -> Owner:
        """Return whose the tree is. Raises OSError, ParseError."""
        n = self.count()
        if n == 0:
            return Owner.NOBODY
        marks = [self._mark(slot) for slot in range(n)]
        if marks[0] is None or any(mark is None and self.is_on(slot) for slot, mark in enumerate(marks)):
            return Owner.OTHER
        if marks[0] == self._own:
            return Owner.THIS
        try:
            is_alive = read_start_ticks(marks[0].pid, self._procfs) == marks[0].start_ticks
        except ProcessGoneError:
            is_alive = False
        return Owner.PEER if is_alive else Owner.CRASHED

    def set_up(self, n: int, *, least_regions: int, most_regions: int) -> None:
        """Set up so many threads, all of them off, in place of what was ours. Raises TakenError, OSError."""
        self.take_down()
        self._write(f"{self._top}/nr_kdamonds", n)
        for slot in range(n):
            context = self._context(slot)
            self._write(f"{self._top}/{slot}/contexts/nr_contexts", 1)
            self._write(f"{context}/schemes/nr_schemes", 1)
            scheme = f"{context}/schemes/0"
            for name, value in (("high", MARK), ("mid", self._own.pid), ("low", self._own.start_ticks)):
                self._write(f"{scheme}/watermarks/{name}", value)
        for slot in range(n):
            context = self._context(slot)
            self._write(f"{context}/targets/nr_targets", 1)
            # the largest first: the least must never be above it
            self._write(f"{context}/monitoring_attrs/nr_regions/max", most_regions)
            self._write(f"{context}/monitoring_attrs/nr_regions/min", least_regions)
            self._write(f"{context}/schemes/0/action", "stat")
            for what in ("sz", "nr_accesses", "age"):
                self._write(f"{context}/schemes/0/access_pattern/{what}/max", MOST_NUMBER)

    def take_down(self) -> None:
        """Stop and remove what is ours, or was a crashed daemon's. Raises TakenError if it is another's, OSError."""
        owner = self.owner()
        if owner in {Owner.PEER, Owner.OTHER}:
            raise TakenError(errno.EBUSY, "somebody else uses DAMON", self._top)
        if owner is Owner.NOBODY:
            return
        for slot in range(self.count()):
            self.stop(slot)
        self._write(f"{self._top}/nr_kdamonds", 0)

    def offers_vaddr(self) -> bool:
        """Return whether the kernel can watch processes; to be asked once the tree is set up. Raises OSError."""
        return OPERATIONS in self._text(f"{self._context(0)}/avail_operations").split()

    def start(self, slot: int, pid: int, intervals: Intervals) -> None:
        """Let a thread watch a process. Raises OSError; EINVAL or ESRCH: there is no such process."""
        context = self._context(slot)
        path = f"{context}/monitoring_attrs/intervals"
        self._write(f"{context}/operations", OPERATIONS)
        self._write(f"{context}/targets/0/pid_target", pid)
        for name, value in (
            ("aggr_us", intervals.aggregation_us),
            ("sample_us", intervals.sample_us),
            ("update_us", intervals.update_us),
        ):
            self._write(f"{path}/{name}", value)
        self._write(f"{self._top}/{slot}/state", "on")

    def stop(self, slot: int) -> None:
        """Stop a thread that may be running, and return when it has ended. Raises OSError."""
        try:
            if self.is_on(slot):
                self._write(f"{self._top}/{slot}/state", "off")
        except OSError:
            if self.is_on(slot):  # else it ended by itself, with its process
                raise

    def is_on(self, slot: int) -> bool:
        """Return whether a thread runs; it ends by itself when its process does. Raises OSError."""
        return self._text(f"{self._top}/{slot}/state") == "on"

    def thread(self, slot: int) -> int | None:
        """Return the pid of a running thread, None when it does not run. Raises OSError, ParseError."""
        path = f"{self._top}/{slot}/pid"
        text = self._text(path)
        return None if text.startswith("-") else parse_number(text, path)

    def regions(self, slot: int) -> tuple[Region, ...]:
        """Return what a thread found in the last aggregation interval, by address.

        The kernel makes the caller wait for the end of an interval, and for at least 100 ms. Raises OSError; EINVAL:
        it does not run any more. Raises ParseError.
        """
        self._write(f"{self._top}/{slot}/state", "update_schemes_tried_regions")
        directory = f"{self._context(slot)}/schemes/0/tried_regions"
        names = [name for name in list_names(directory) if name.isdigit()]
        found = [self._region(f"{directory}/{name}") for name in names]
        return tuple(sorted(found, key=lambda region: region.start))

    def _region(self, directory: str) -> Region:
        start, end, accesses, age = (
            parse_number(self._text(path), path)
            for path in (f"{directory}/{name}" for name in ("start", "end", "nr_accesses", "age"))
        )
        if end <= start:
            raise ParseError(directory, 0, f"{start}-{end}".encode(), "a region that ends before it begins")
        return Region(start=start, end=end, accesses=accesses, age=age)

    def _mark(self, slot: int) -> ProcessId | None:
        """Return the daemon by which a thread is marked, None when it is not ours."""
        path = f"{self._context(slot)}/schemes/0/watermarks"
        try:
            high, mid, low = (self._number(f"{path}/{name}") for name in ("high", "mid", "low"))
        except FileNotFoundError:
            return None
        return ProcessId(mid, low) if high == MARK else None

    def _context(self, slot: int) -> str:
        return f"{self._top}/{slot}/contexts/0"

    def _number(self, path: str) -> int:
        return parse_number(self._text(path), path)

    def _text(self, path: str) -> str:
        return _persist(lambda: read_bytes(path)).decode("ascii", "replace").strip()

    def _write(self, path: str, value: int | str) -> None:
        _persist(lambda: self._write_once(path, str(value)))


def parse_number(text: str, path: str) -> int:
    """Parse a file of one number. Raises ParseError."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ParseError(path, 1, text.encode(), "not a number")
    return int(text)


def _persist(attempt: Callable[[], Result]) -> Result:
    """Try again what somebody is in the way of for an instant."""
    for _ in range(TRIES - 1):
        try:
            return attempt()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            os.sched_yield()
    return attempt()
