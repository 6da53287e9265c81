"""Free blocks and watermarks of each node, from /proc/buddyinfo and /proc/zoneinfo. Knows nothing of who allocates."""

from dataclasses import dataclass
from pathlib import Path

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes, read_if_there
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES

_ZONES = (b"DMA32", b"Normal", b"Movable")
"""Zones that memory of processes lies in; DMA is kept for devices, Device is not for allocation."""

_MARKS = (b"min ", b"low ", b"high ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """Free memory of one node, summed over its zones: below `low` kswapd wakes, up to `high` it works.

    Below `min` only allocations that may not wait are served.
    """

    min_bytes: int
    low_bytes: int
    high_bytes: int


def read_free_blocks(procfs: str) -> dict[NodeId, tuple[int, ...]] | None:
    """Read the free blocks of each node by order; None where the file is missing. Raises ParseError."""
    path = f"{procfs}/buddyinfo"
    text = read_if_there(path)
    return None if text is None else parse_buddyinfo(text, path)


def parse_buddyinfo(text: bytes, path: str) -> dict[NodeId, tuple[int, ...]]:
    """Parse /proc/buddyinfo (proc_buddyinfo(5)) into the free blocks of 2**i base pages, by i, of each node."""
    free: dict[NodeId, tuple[int, ...]] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        words = line.split()  # "Node 0, zone   Normal    691      1 ..."
        try:
            node, zone, counts = NodeId(int(words[1].rstrip(b","))), words[3], tuple(map(int, words[4:]))
            before = free.setdefault(node, (0,) * len(counts))
            if zone in _ZONES:
                free[node] = tuple(a + b for a, b in zip(before, counts, strict=True))
        except (ValueError, IndexError) as error:
            raise ParseError(path, number, line, "not the free blocks of a zone") from error
    return free


def read_watermarks(procfs: str) -> dict[NodeId, Watermarks]:
    """Read the watermarks of each node. Raises OSError or ParseError."""
    return parse_zoneinfo(read_bytes(f"{procfs}/zoneinfo"), f"{procfs}/zoneinfo")


def read_high_watermarks(procfs: Path) -> dict[NodeId, int]:
    """Read the high watermark of each node in bytes."""
    return {node: marks.high_bytes for node, marks in read_watermarks(str(procfs)).items()}


def parse_zoneinfo(text: bytes, path: str) -> dict[NodeId, Watermarks]:
    """Parse /proc/zoneinfo into the sums of "min", "low" and "high" over the zones of each node.

    Lines "high:" belong to per-CPU page lists, "high_min" and "high_max" too; only the bare word is
    the zone's watermark (zoneinfo_show_print() in mm/vmstat.c). A node without zones is not listed.
    """
    pages: dict[NodeId, list[int]] = {}
    node: NodeId | None = None
    for number, line in enumerate(text.split(b"\n"), 1):
        try:
            if line.startswith(b"Node "):
                node = NodeId(int(line[5 : line.index(b",")]))
                pages.setdefault(node, [0] * len(_MARKS))
            elif node is not None and (stripped := line.lstrip()).startswith(_MARKS):
                name, value = stripped.split()
                pages[node][_MARKS.index(name + b" ")] += int(value)
        except (ValueError, IndexError) as error:
            raise ParseError(path, number, line, "not a zone or its watermark") from error
    return {
        node: Watermarks(min_bytes=low * PAGE_BYTES, low_bytes=mid * PAGE_BYTES, high_bytes=high * PAGE_BYTES)
        for node, (low, mid, high) in pages.items()
    }
