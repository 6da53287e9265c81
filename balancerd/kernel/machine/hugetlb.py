"""Pools of hugetlb pages: how many pages of each size each node has, and how many are free.

Knows nothing of who uses them. Source: the kernel's Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from collections.abc import Iterable
from pathlib import Path

from balancerd.kernel.machine.values import read_number
from balancerd.model.ids import NodeId
from balancerd.model.machine import HugetlbPool


def read_filled_sizes(sysfs: str, page_sizes: Iterable[int]) -> frozenset[int]:
    """Return those of the page sizes, in bytes, of which any node has a page. Raises ParseError."""
    folder = f"{sysfs}/kernel/mm/hugepages"
    return frozenset(n for n in set(page_sizes) if read_number(f"{folder}/{_pool(n)}/nr_hugepages"))


def read_pool_sizes(sysfs: str, node: NodeId) -> tuple[int, ...]:
    """Return the page sizes in bytes that `node` has pools for, be they empty, ascending."""
    folders = Path(_folder(sysfs, node)).glob("hugepages-*kB")
    return tuple(sorted(map(_page_bytes, folders)))


def read_pools(sysfs: str, node: NodeId, page_sizes: Iterable[int]) -> tuple[HugetlbPool, ...]:
    """Read the pools of these sizes on `node`; one that is gone is left out. Raises ParseError."""
    pools: list[HugetlbPool] = []
    for page_bytes in page_sizes:
        pool = f"{_folder(sysfs, node)}/{_pool(page_bytes)}"
        total, free = read_number(f"{pool}/nr_hugepages"), read_number(f"{pool}/free_hugepages")
        if total is not None and free is not None:
            pools.append(HugetlbPool(page_bytes=page_bytes, total_pages=total, free_pages=free))
    return tuple(pools)


def _folder(sysfs: str, node: NodeId) -> str:
    return f"{sysfs}/devices/system/node/node{node}/hugepages"


def _pool(page_bytes: int) -> str:
    return f"hugepages-{page_bytes >> 10}kB"


def _page_bytes(folder: Path) -> int:
    return int(folder.name.removeprefix("hugepages-").removesuffix("kB")) << 10
