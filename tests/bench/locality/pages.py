"""On which node each page of some processes is, before and after, and how much was moved more than once.

Asks the kernel by move_pages(2) with nodes=NULL. A node takes two bytes a page here; there is no object for any page.
Must not know who moves them.

pgmigrate_success counts base pages, 512 for a huge page of 2 MiB (mm/migrate.c, migrate_pages_batch() and
migrate_hugetlbs() add nr_pages; seen on 6.12 with both kinds). It counts them on the whole machine, whoever moves them.
"""

import ctypes
import errno
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from balancerd.kernel.errors import ParseError

PAGE_BYTES = 4096
BLOCK_PAGES = 16384
"""So many addresses are asked for with one call: 256 KiB of buffers."""

LARGEST_BYTES = 8 << 30
"""A larger mapping is an address space put by, and to ask for all its pages would take minutes: it is passed over."""

MOVE_PAGES = 279  # arch/x86/entry/syscalls/syscall_64.tbl
GONE = frozenset({errno.ESRCH, errno.EINVAL})
"""What asking a process that has ended fails with; EINVAL while it is not waited for: it has no memory any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of an address space, [start, end)."""

    pid: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The node of each page of a span at one moment; negative: none, and -errno says why not."""

    span: Span
    nodes: "array[int]"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAccount:
    """What became of the pages that were there before.

    looked_pages: present before. kept_pages: present afterwards, too, at the same address. moved_once_pages: of these,
    those on another node than before. The two by node count pages.
    """

    looked_pages: int
    kept_pages: int
    moved_once_pages: int
    before_by_node: Counter[int]
    after_by_node: Counter[int]


def parse_maps(pid: int, text: str, path: str) -> tuple[tuple[Span, str], ...]:
    """Read /proc/PID/maps: each mapping that may hold pages, and which pages these are, where others may map them, too.

    Private mappings that can be written hold pages of their own (but for those that a fork left in common), for which
    this is "". Those that can be neither read nor written hold none; nor do the kernel's own, [vsyscall] and the like.
    """
    found: list[tuple[Span, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=5)
        try:
            addresses, permissions, offset, device, inode = words[:5]
            start, end = (int(word, 16) for word in addresses.split("-"))
        except ValueError:
            raise ParseError(path, number, line.encode(), "not a mapping") from None
        if permissions.startswith("---") or "".join(words[5:]).startswith("[v"):
            continue
        is_own = "s" not in permissions and ("w" in permissions or inode == "0")
        origin = "" if is_own else f"{device} {inode} {offset} {end - start}"
        found.append((Span(pid=pid, start=start, end=end), origin))
    return tuple(found)


def read_spans(pids: Iterable[int]) -> tuple[Span, ...]:
    """Return the mappings of processes, the same part of a file or of shared memory once. Who has ended has none."""
    spans: list[Span] = []
    seen: set[str] = set()
    for pid in pids:
        path = f"/proc/{pid}/maps"
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for span, origin in parse_maps(pid, text, path):
            if span.end - span.start <= LARGEST_BYTES and (not origin or origin not in seen):
                spans.append(span)
                seen.add(origin)
    return tuple(spans)


def locate(spans: Iterable[Span]) -> tuple[Placed, ...]:
    """Ask where each page of the spans is now; of a process that has ended nothing is known, and it is left out."""
    found: list[Placed] = []
    for span in spans:
        nodes = array("h")
        try:
            for start in range(span.start, span.end, BLOCK_PAGES * PAGE_BYTES):
                end = min(span.end, start + BLOCK_PAGES * PAGE_BYTES)
                nodes.extend(_query(span.pid, array("Q", range(start, end, PAGE_BYTES))))
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        found.append(Placed(span=span, nodes=nodes))
    return tuple(found)


def account(before: Sequence[Placed], after: Sequence[Placed]) -> PageAccount:
    """Compare two answers for the same spans; what is in the first only has ended meanwhile."""
    later = {placed.span: placed.nodes for placed in after}
    before_by_node: Counter[int] = Counter()
    after_by_node: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    for placed in before:
        before_by_node.update(placed.nodes)
        after_by_node.update(later.get(placed.span, ()))
        pairs.update(zip(placed.nodes, later.get(placed.span, ()), strict=False))
    kept = {pair: pages for pair, pages in pairs.items() if min(pair) >= 0}
    return PageAccount(
        looked_pages=sum(present(before_by_node).values()),
        kept_pages=sum(kept.values()),
        moved_once_pages=sum(pages for (old, new), pages in kept.items() if old != new),
        before_by_node=present(before_by_node),
        after_by_node=present(after_by_node),
    )


def present(by_node: Counter[int]) -> Counter[int]:
    """Return the pages that are on a node."""
    return Counter({node: pages for node, pages in sorted(by_node.items()) if node >= 0})


def moved_bytes(pages: PageAccount, migrated_pages: int) -> dict[str, int | None]:
    """Return what moved (all that the kernel counted), what is elsewhere for it, and the rest: what moved again.

    A page that was not there before, or no more afterwards, and moved in between, counts as moved twice; so does a page
    of another process. Both are None when there was no page to look at.
    """
    once = pages.moved_once_pages if pages.looked_pages else None
    return {
        "moved_bytes": migrated_pages * PAGE_BYTES,
        "moved_once_bytes": None if once is None else once * PAGE_BYTES,
        "moved_twice_bytes": None if once is None else max(0, migrated_pages - once) * PAGE_BYTES,
    }


def _query(pid: int, addresses: "array[int]") -> "array[int]":
    n = len(addresses)
    statuses = array("i", bytes(4 * n))
    pages = (ctypes.c_uint64 * n).from_buffer(addresses)
    status = (ctypes.c_int * n).from_buffer(statuses)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(MOVE_PAGES, pid, ctypes.c_ulong(n), pages, None, status, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"process {pid}")
    return array("h", statuses)
