"""Mempolicy, page size and sharers of each mapping, from /proc/PID/numa_maps. Placement is not read from here.

Sources: numa(7); show_numa_map() in fs/proc/task_mmu.c; mpol_to_str() in mm/mempolicy.c. A mapping without
a policy of its own shows that of its process, so whatever stands there holds for its pages.
"""

from dataclasses import dataclass

from balancerd.kernel.errors import ParseError
from balancerd.model.ids import NodeId, parse_id_list
from balancerd.model.sample import PAGE_BYTES, Mempolicy

_MODES_WITH_A_SPACE = (b"prefer (many)", b"weighted interleave")
_LONGEST_POLICY_TEXT = 63  # show_numa_map() prints into a buffer of 64 bytes and cuts what is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class VmaPolicy:
    """What numa_maps says of one mapping; `page_bytes` is None for a hugetlb mapping that has no page yet.

    `exclusive` tells that no other process maps any of the pages that this one does (no mapmax=, which is above 1).
    """

    mempolicy: Mempolicy
    hugetlb: bool
    page_bytes: int | None
    exclusive: bool


def parse_numa_maps(text: bytes, path: str) -> dict[int, VmaPolicy]:
    """Parse /proc/PID/numa_maps into policies by the start address of their mapping. Raises ParseError."""
    found: dict[int, VmaPolicy] = {}
    known: dict[tuple[bytes, bool, int | None, bool], VmaPolicy] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        try:
            address, _, rest = line.partition(b" ")
            policy_text = _policy_text(rest)
            fields = rest[len(policy_text) :]
            hugetlb = b" huge" in fields and b"huge" in fields.split()
            page_bytes = _page_bytes(fields, hugetlb=hugetlb)
            exclusive = b" mapmax=" not in fields
            key = (policy_text, hugetlb, page_bytes, exclusive)
            if key not in known:
                known[key] = VmaPolicy(
                    mempolicy=parse_mempolicy(policy_text), hugetlb=hugetlb, page_bytes=page_bytes, exclusive=exclusive
                )
            found[int(address, 16)] = known[key]
        except ValueError as error:
            raise ParseError(path, number, line, str(error)) from error
    return found


def parse_mempolicy(text: bytes) -> Mempolicy:
    """Parse a policy such as "default", "bind:0-1", "bind=static:2" or "prefer (many):0-1"; ValueError otherwise.

    `mode` is what stands before the nodes, with its flags. Of a list that the kernel cut off, the whole numbers count.
    """
    mode, _, nodes = text.decode("ascii").partition(":")
    if not mode:
        raise ValueError("no mempolicy")
    if len(text) >= _LONGEST_POLICY_TEXT:
        nodes = nodes.rpartition(",")[0]
    return Mempolicy(mode=mode, nodes=frozenset(NodeId(n) for n in parse_id_list(nodes)))


def _policy_text(rest: bytes) -> bytes:
    """Return the policy at the start of `rest`; two of the modes hold a space."""
    for mode in _MODES_WITH_A_SPACE:
        if rest.startswith(mode):
            return mode + rest[len(mode) :].partition(b" ")[0]
    return rest.partition(b" ")[0]


def _page_bytes(fields: bytes, *, hugetlb: bool) -> int | None:
    """Return the size of the mapping's pages. The kernel escapes blanks in file=, so a blank ends every field."""
    _, found, size = fields.rpartition(b" kernelpagesize_kB=")
    if found:
        return int(size) * 1024
    return None if hugetlb else PAGE_BYTES
