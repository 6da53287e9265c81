"""How many huge pages a node can take: its free blocks of memory, and its pools of hugetlb pages.

A transparent huge page for which the target has no free block is split by the kernel (thp_migration_split in
/proc/vmstat), and a hugetlb page fails: so both are moved only as far as there is room. Must not know who moves them.
"""

from collections.abc import Collection
from pathlib import Path

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.machine.memory import read_memory
from balancerd.kernel.machine.topology import parse_node_meminfo
from balancerd.kernel.machine.zones import parse_buddyinfo, read_high_watermarks
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES

_HUGE_COUNTS = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")

_SPARE_BLOCKS = 8
"""Blocks left free: the reading is old when it is used, and others allocate too."""


class Room:
    """Reads how much room is on nodes, anew at each question but for the size of a transparent huge page."""

    def __init__(self, procfs: str = "/proc", sysfs: str = "/sys") -> None:
        self._procfs = procfs
        self._sysfs = sysfs
        self._huge_bytes: int | None = None

    @property
    def huge_bytes(self) -> int:
        """The size of a transparent huge page; 0 on a kernel without them."""
        if self._huge_bytes is None:
            try:
                self._huge_bytes = int(read_bytes(f"{self._sysfs}/kernel/mm/transparent_hugepage/hpage_pmd_size"))
            except FileNotFoundError:
                self._huge_bytes = 0
        return self._huge_bytes

    def huge_pages(self, targets: Collection[NodeId]) -> int:
        """Return how many base pages transparent huge pages may take of each of `targets`. Raises ParseError."""
        path = f"{self._procfs}/buddyinfo"
        order = (self.huge_bytes // PAGE_BYTES).bit_length() - 1
        free = parse_buddyinfo(read_bytes(path), path)
        blocks = min((_blocks(free.get(node, ()), order) for node in targets), default=0)
        return max(0, blocks - _SPARE_BLOCKS) << order

    def may_hold_huge_pages(self) -> bool:
        """Return whether any node holds a transparent huge page of any process; True where nobody can tell.

        A few small files, while smaps of a process holds its mmap_lock for as long as a mapping is walked.
        """
        paths = list(Path(self._sysfs).glob("devices/system/node/node[0-9]*/meminfo"))
        held = [parse_node_meminfo(read_bytes(str(path)), str(path)) for path in paths]
        return not held or any(found.get(name, 0) for found in held for name in _HUGE_COUNTS)

    def huge_mappings(self, pid: int) -> tuple[tuple[int, int], ...]:
        """Return the mappings of a process that hold transparent huge pages; smaps is not read where no node holds any.

        Raises ProcessGoneError, ParseError.
        """
        if not self.may_hold_huge_pages():
            return ()
        path = f"{self._procfs}/{pid}/smaps"
        try:
            return parse_huge_mappings(read_bytes(path), path)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {pid} exited while it was read") from error

    def hugetlb_pages(self, targets: Collection[NodeId], page_bytes: int) -> int:
        """Return how many base pages hugetlb pages of `page_bytes` may take of each of `targets`: free in its pool."""
        return min((self._free_in_pool(node, page_bytes) for node in targets), default=0) * (page_bytes // PAGE_BYTES)

    def is_there_for(self, node: NodeId, n_bytes: int, page_bytes: int) -> bool:
        """Return whether `node` has so many bytes for pages of `page_bytes`, above its high watermark."""
        if page_bytes != PAGE_BYTES:
            return self._free_in_pool(node, page_bytes) * page_bytes >= n_bytes
        marks = read_high_watermarks(Path(self._procfs))
        memory = read_memory(Path(self._sysfs), (node,), marks).get(node)
        return memory is not None and memory.available_bytes - memory.high_watermark_bytes >= n_bytes

    def _free_in_pool(self, node: NodeId, page_bytes: int) -> int:
        pool = f"{self._sysfs}/devices/system/node/node{node}/hugepages/hugepages-{page_bytes >> 10}kB"
        try:
            return int(read_bytes(f"{pool}/free_hugepages"))
        except FileNotFoundError:
            return 0


def parse_huge_mappings(text: bytes, path: str) -> tuple[tuple[int, int], ...]:
    """Parse /proc/PID/smaps (proc_pid_smaps(5)) into the mappings, [start, end), that hold a transparent huge page."""
    found: list[tuple[int, int]] = []
    mapping = b""
    for number, line in enumerate(text.split(b"\n"), 1):
        name, _, value = line.partition(b" ")
        try:
            if name[-1:] != b":":
                mapping = name
            elif name in {b"AnonHugePages:", b"ShmemPmdMapped:", b"FilePmdMapped:"} and int(value.split()[0]) > 0:
                start, _, end = mapping.partition(b"-")
                found.append((int(start, 16), int(end, 16)))
        except (ValueError, IndexError) as error:
            raise ParseError(path, number, line, "not a mapping or a count of it") from error
    return tuple(dict.fromkeys(found))


def _blocks(free: tuple[int, ...], order: int) -> int:
    """Return how many blocks of 2**order pages the free blocks of a node hold."""
    return sum(count << (i - order) for i, count in enumerate(free) if i >= order)
