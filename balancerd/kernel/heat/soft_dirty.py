"""Heat by soft-dirty bits: which pages a process wrote since they were last marked. For kernels without DAMON.

Needs CONFIG_MEM_SOFT_DIRTY; works on 6.1 (Documentation/admin-guide/mm/soft-dirty.rst). Marking walks all of a process
with its mmap lock held for writing, so that its faults wait, and write-protects it: each page that it writes then
faults once. So a mark is followed by one look, and that by a rest which is longer the dearer both were. The bits
are not ours alone: a mark takes them away from CRIU and others who track what a process writes.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from balancerd.kernel.accesses.memory import read_stack_bytes, watched_ranges
from balancerd.kernel.accesses.rate import Turns
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes, write_file
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.processes.identity import check_identity
from balancerd.model.access import REGION_BYTES, Obstacle
from balancerd.model.heat import HeatMethod, HeatRegion, HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES, VmaKind
from balancerd.ports import Clock

ENTRY_BYTES: Final = 8
SOFT_DIRTY_BIT: Final = 55
PRESENT_BIT: Final = 63

LOOK_SECONDS: Final = 1.0
"""So long after a mark it is looked at what has been written."""

LEAST_SECONDS: Final = 10.0
"""From one mark to the next, at least."""

FAULT_SECONDS: Final = 1e-6
"""What a fault on a protected page is taken to cost the process."""

LARGEST_BYTES: Final = 8 << 30
"""Of a larger process the walk would hold the lock for some 50 ms."""

MOST_LOCK_SECONDS: Final = 0.05
"""A process whose mark took longer is not marked again."""

MOST_REGIONS: Final = 2048
"""So many are looked at, of those of a larger process every second, third and so on; each takes some 15 us."""

MARK: Final = "4"

RIGHTS_FIX: Final = (
    "run as root, or in the unit AmbientCapabilities=CAP_SYS_PTRACE CAP_SYS_NICE CAP_DAC_OVERRIDE and "
    "CapabilityBoundingSet= the same, which is as good as root (systemctl edit balancerd.service)"
)


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Try whether a page written just now is told as such, and whether another process could be marked; None if so.

    Nothing is marked for it: memory that was never marked is told as written.
    """
    try:
        if not _tells_writes(root):
            fix = "boot a kernel with CONFIG_MEM_SOFT_DIRTY=y, such as those of Debian on x86-64"
            return Obstacle(seen="pages that were written are not told in /proc/PID/pagemap", fix=fix)
        for name in ("clear_refs", "pagemap"):
            flags = os.O_WRONLY if name == "clear_refs" else os.O_RDONLY
            os.close(os.open(root / "proc/1" / name, flags | os.O_CLOEXEC))
    except PermissionError as error:
        return Obstacle(seen=f"{error.filename} cannot be opened: {error.strerror}", fix=RIGHTS_FIX)
    except OSError as error:
        return Obstacle(seen=f"pages that are written cannot be told: {error}", fix="boot a kernel of 6.1 or later")
    return None


def count_written(entries: bytes) -> int:
    """Return how many pages are present and were written since the mark, by their entries of pagemap.

    In mappings that came since, absent pages have the bit, too (fs/proc/task_mmu.c).
    """
    bits = int.from_bytes(entries, "little")
    one = (1 << SOFT_DIRTY_BIT).to_bytes(ENTRY_BYTES, "little")
    ones = int.from_bytes(one * (len(entries) // ENTRY_BYTES), "little")
    return (bits & bits >> (PRESENT_BIT - SOFT_DIRTY_BIT) & ones).bit_count()


def pick_regions(ranges: Sequence[tuple[int, int]], most: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end of what is looked at, end of what it stands for) for at most about so many regions."""
    total = sum(-(-end // REGION_BYTES) - start // REGION_BYTES for start, end in ranges)
    stride = max(1, -(-total // most)) * REGION_BYTES
    for start, end in ranges:
        at = start
        while at < end:
            next_at = min(end, at // REGION_BYTES * REGION_BYTES + stride)
            yield at, min(next_at, at // REGION_BYTES * REGION_BYTES + REGION_BYTES), next_at
            at = next_at


@dataclass(slots=True)
class _Watched:
    """One process. `marked_at` is None between a look and the next mark."""

    since: float
    marked_at: float | None = None
    lock_seconds: float = 0.0
    turns: Turns = field(default_factory=Turns)


class SoftDirtyHeat:
    """The HeatSource. `budget_ratio` is what marks, looks and faults of one process may take of a core."""

    method = HeatMethod.SOFT_DIRTY

    def __init__(self, clock: Clock, *, budget_ratio: float, procfs: str = "/proc") -> None:
        self.budget_ratio = budget_ratio
        self._clock = clock
        self._procfs = procfs
        self._mappings = Mappings(clock, procfs)
        self._watched: dict[ProcessId, _Watched] = {}

    def probe(self) -> Obstacle | None:
        """See HeatSource."""
        return find_obstacle(Path(self._procfs).parent)

    def open(self, process: ProcessId) -> None:
        """See HeatSource. Raises LookupError for a process that is too large to be marked."""
        if process in self._watched:
            return
        check_identity(process, self._procfs)
        held_bytes = self._resident_bytes(process)
        if held_bytes > LARGEST_BYTES:
            raise LookupError(f"{held_bytes >> 30} GiB are too much to mark: its faults would wait too long")
        self._watched[process] = _Watched(since=self._clock.now())

    def read(self, process: ProcessId) -> HeatWindow | None:
        """See HeatSource. Raises KeyError for a process that is not open."""
        watched, now = self._watched[process], self._clock.now()
        check_identity(process, self._procfs)
        if watched.marked_at is None:
            if watched.turns.is_due(now):
                self._mark(process, watched)
            return None
        if now - watched.marked_at < LOOK_SECONDS:
            return None
        seconds, watched.marked_at = now - watched.marked_at, None
        regions, n_written = self._look(process)
        taken_at = self._clock.now()
        cost_seconds = watched.lock_seconds + (taken_at - now) + n_written * FAULT_SECONDS
        watched.turns.note(now, max(cost_seconds, LEAST_SECONDS * self.budget_ratio), self.budget_ratio)
        return HeatWindow(
            process=process,
            taken_at=taken_at,
            seconds=seconds,
            watched_seconds=taken_at - watched.since,
            method=self.method,
            regions=regions,
            cpu_ratio=cost_seconds / max(LEAST_SECONDS, cost_seconds / self.budget_ratio),
        )

    def close(self, process: ProcessId) -> None:
        """See HeatSource."""
        self._watched.pop(process, None)

    def shut(self) -> None:
        """See HeatSource. There is nothing to give back: each page faults once more and is as it was."""
        self._watched.clear()

    def recover(self) -> None:
        """See HeatSource: nothing can have been left."""

    def _mark(self, process: ProcessId, watched: _Watched) -> None:
        """Have the kernel forget what was written.

        Raises ProcessGoneError, OSError, and LookupError for a process that was marked before and took too long.
        """
        if watched.lock_seconds > MOST_LOCK_SECONDS:
            told = f"marking it took {1000 * watched.lock_seconds:.0f} ms, for which its faults waited"
            raise LookupError(told)
        before = self._clock.now()
        try:
            write_file(f"{self._procfs}/{process.pid}/clear_refs", MARK)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was marked") from error
        watched.marked_at = self._clock.now()
        watched.lock_seconds = watched.marked_at - before

    def _look(self, process: ProcessId) -> tuple[tuple[HeatRegion, ...], int]:
        """Return the heat of the process's data, and how many pages it wrote. Raises ProcessGoneError, OSError."""
        path = f"{self._procfs}/{process.pid}"
        looked: list[tuple[int, int, float]] = []
        n_written = 0.0
        try:
            # of hugetlb pages nothing is told: they would seem to be cold
            vmas = [vma for vma in self._mappings.read(process.pid) if vma.kind is not VmaKind.HUGETLB]
            stack_bytes = read_stack_bytes(process.pid, self._procfs)
            fd = os.open(f"{path}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            try:
                for start, end, until in pick_regions(watched_ranges(vmas, stack_bytes), MOST_REGIONS):
                    n_bytes = (end - start) // PAGE_BYTES * ENTRY_BYTES
                    entries = os.pread(fd, n_bytes, start // PAGE_BYTES * ENTRY_BYTES)
                    if len(entries) != n_bytes:  # it has ended
                        raise ProcessGoneError(f"process {process.pid} exited while it was looked at")
                    ratio = count_written(entries) * PAGE_BYTES / (end - start)
                    n_written += ratio * (until - start) / PAGE_BYTES
                    looked.append((start, until, ratio))
            finally:
                os.close(fd)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was looked at") from error
        return joined_regions(looked), round(n_written)

    def _resident_bytes(self, process: ProcessId) -> int:
        path = f"{self._procfs}/{process.pid}/statm"
        text = read_bytes(path)
        try:
            return int(text.split()[1]) * PAGE_BYTES
        except (IndexError, ValueError) as error:
            raise ParseError(path, 1, text, "not the pages of a process") from error


def joined_regions(looked: Iterable[tuple[int, int, float]]) -> tuple[HeatRegion, ...]:
    """Return neighbours of which the same share was written as one."""
    found: list[HeatRegion] = []
    for start, end, ratio in looked:
        if found and (found[-1].end, found[-1].ratio) == (start, ratio):
            found[-1] = replace(found[-1], end=end)
        else:
            found.append(HeatRegion(start=start, end=end, ratio=ratio))
    return tuple(found)


def _tells_writes(root: Path) -> bool:
    """Write a page, and look whether that is told."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        fd = os.open(root / "proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return count_written(os.pread(fd, ENTRY_BYTES, address // PAGE_BYTES * ENTRY_BYTES)) > 0
        finally:
            os.close(fd)
