"""How fast each node's memory is, as far as the kernel knows: links of the HMAT, and memory tiers.

Sources: the kernel's Documentation/admin-guide/mm/numaperf.rst for links, in nodeN/accessM/initiators, and
Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers for tiers. Without an ACPI HMAT there are no links, and before
Linux 6.1 no tiers.
"""

from pathlib import Path

from balancerd.kernel.files import read_if_there
from balancerd.kernel.machine.topology import parse_ids
from balancerd.kernel.machine.values import read_number
from balancerd.model.ids import NodeId
from balancerd.model.machine import Link

_ACCESS_CLASSES = ("access1", "access0")
"""Class 1 knows CPUs only; in class 0 the nearest initiator may be a device. Older kernels have only class 0."""

_NANOSECONDS_PER_SECOND = 1_000_000_000
_MIB = 1 << 20


def read_link(sysfs: str, node: NodeId) -> Link | None:
    """Read how fast the memory of `node` is for the CPUs nearest to it. None when the kernel does not tell."""
    for access in _ACCESS_CLASSES:
        folder = f"{sysfs}/devices/system/node/node{node}/{access}/initiators"
        link = Link(
            read_latency_seconds=_read_seconds(f"{folder}/read_latency"),
            write_latency_seconds=_read_seconds(f"{folder}/write_latency"),
            read_bytes_per_second=_read_bytes_per_second(f"{folder}/read_bandwidth"),
            write_bytes_per_second=_read_bytes_per_second(f"{folder}/write_bandwidth"),
            initiators=_read_initiators(folder),
        )
        if link.is_known:
            return link
    return None


def read_tiers(sysfs: str) -> dict[NodeId, int]:
    """Read the memory tier of each node; a smaller number is faster memory. Raises ParseError."""
    tiers: dict[NodeId, int] = {}
    for folder in sorted(Path(sysfs).glob("devices/virtual/memory_tiering/memory_tier[0-9]*")):
        path = f"{folder}/nodelist"
        text = read_if_there(path)
        if text is not None:
            tier = int(folder.name.removeprefix("memory_tier"))
            tiers |= {NodeId(node): tier for node in parse_ids(text, path)}
    return tiers


def _read_seconds(path: str) -> float | None:
    """Read nanoseconds; the kernel writes 0 for what the table does not tell."""
    value = read_number(path)
    return value / _NANOSECONDS_PER_SECOND if value else None


def _read_bytes_per_second(path: str) -> float | None:
    """Read MiB per second, 0 likewise."""
    value = read_number(path)
    return float(value * _MIB) if value else None


def _read_initiators(folder: str) -> frozenset[NodeId]:
    try:
        names = [path.name for path in Path(folder).iterdir()]
    except (FileNotFoundError, PermissionError):
        return frozenset()
    found = (name.removeprefix("node") for name in names if name.startswith("node"))
    return frozenset(NodeId(int(number)) for number in found if number.isdecimal())
