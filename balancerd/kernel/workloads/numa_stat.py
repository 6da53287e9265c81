"""How much memory of a whole cgroup lies on each node: memory.numa_stat, exact and at a cost that no size changes.

Owns what the file says in cgroup v1 and v2, and which of it processes map. It must not know what a workload is.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, memcg_numa_stat_show() and
memory_numa_stat_show() in mm/. Memory is charged to the cgroup that touched it first, so a page which several cgroups
share is told by one of them only.
"""

from collections.abc import Container, Mapping
from typing import Final

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.workloads.mounts import CgroupMount
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES

NumaStat = Mapping[str, Mapping[NodeId, int]]
"""Bytes by kind of memory, such as "anon", and by node."""
_HIERARCHICAL: Final = "hierarchical_"
MAPPED_KINDS: Final[Mapping[int, frozenset[str]]] = {
    1: frozenset({"anon", "unevictable"}),
    2: frozenset({"anon", "file_mapped"}),
}
"""What processes map, by version of cgroups; see mapped_bytes."""


def read_numa_stat(mount: CgroupMount, cgroup: str, *, kinds: Container[str] | None = None) -> NumaStat | None:
    """Read memory.numa_stat of a cgroup, its descendants included; None when `mount` does not show it.

    With `kinds`, only these are parsed.

    Raises OSError: FileNotFoundError when the cgroup is gone, and for the root of v2. Raises ParseError.
    """
    directory = mount.directory(cgroup)
    if directory is None:
        return None
    path = f"{directory}/memory.numa_stat"
    return parse_numa_stat(read_bytes(path), path, version=mount.version, kinds=kinds)


def parse_numa_stat(text: bytes, path: str, *, version: int, kinds: Container[str] | None = None) -> NumaStat:
    """Parse memory.numa_stat of cgroup v2 ("anon N0=4096 N1=0", bytes) or v1 ("anon=1 N0=1 N1=0", pages).

    v1 tells a cgroup by itself and, as "hierarchical_anon", with its descendants: where it does (since Linux 3.16), the
    latter is told here under the plain name. Lines without nodes, which some vendors add, are passed over.
    """
    unit_bytes = PAGE_BYTES if version == 1 else 1
    found: dict[str, dict[NodeId, int]] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        head, _, rest = line.partition(b" ")
        kind = head.partition(b"=")[0].decode("ascii", "replace")
        if kinds is not None and kind.removeprefix(_HIERARCHICAL) not in kinds:
            continue
        nodes = [field[1:].partition(b"=") for field in rest.split() if field.startswith(b"N")]
        if not nodes:
            continue
        try:
            found[kind] = {NodeId(int(node)): int(amount) * unit_bytes for node, _, amount in nodes}
        except ValueError as error:
            raise ParseError(path, number, line, "not a kind of memory by node") from error
    if version == 1:
        whole = {kind.removeprefix(_HIERARCHICAL): nodes for kind, nodes in found.items() if _HIERARCHICAL in kind}
        found = whole or found
    if "anon" not in found:
        raise ParseError(path, 0, text, "no anon")
    return found


def mapped_bytes(stat: NumaStat, *, version: int) -> dict[NodeId, int]:
    """Return by node, ascending, what processes map of a cgroup's memory, as far as the file tells.

    v2: "anon" and "file_mapped". The latter counts the mapped pages of files and of shared memory alike; "shmem" beside
    it would count those twice, and files in tmpfs that nobody maps. v1: "anon", which is all swap-backed memory there,
    shared memory included, mapped or not, and "unevictable", which is locked memory; of files v1 tells only the whole
    cache, most of which nobody maps, so mapped files are missing. hugetlb pages are in neither.
    """
    total: dict[NodeId, int] = {}
    for kind in MAPPED_KINDS[version]:
        for node, amount_bytes in stat.get(kind, {}).items():
            total[node] = total.get(node, 0) + amount_bytes
    return dict(sorted(total.items()))
