"""The machine's NUMA nodes, from /sys/devices/system/node. Owns how sysfs spells them; knows nothing of processes.

Sources: the kernel's Documentation/ABI/stable/sysfs-devices-node and drivers/base/node.c. A node's
cpulist holds its online CPUs only, and its distance file one value for each online node, ascending.
"""

from dataclasses import dataclass
from pathlib import Path

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.model.ids import CpuId, NodeId, parse_id_list
from balancerd.model.topology import Node, Topology

_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSets:
    """The texts that change when nodes, their memory, or CPUs come and go: equal texts, equal topology."""

    nodes: bytes
    memory_nodes: bytes
    cpus: bytes


def read_online_sets(sysfs: Path) -> OnlineSets:
    """Read what tells whether the topology is still the same; three small files."""
    system = sysfs / "devices/system"
    return OnlineSets(
        nodes=read_bytes(f"{system}/node/online"),
        memory_nodes=read_bytes(f"{system}/node/has_memory"),
        cpus=read_bytes(f"{system}/cpu/online"),
    )


def read_topology(sysfs: Path) -> Topology:
    """Read every online node. Nodes that go on- or offline meanwhile make it start again, three times at most.

    Raises FileNotFoundError on a kernel built without NUMA, ParseError when a file reads otherwise than documented.
    """
    for attempt in range(_TRIES):
        before = read_online_sets(sysfs)
        try:
            topology = _read_nodes(sysfs, before.nodes)
        except (OSError, ParseError):
            if attempt + 1 < _TRIES and read_online_sets(sysfs) != before:
                continue
            raise
        if attempt + 1 == _TRIES or read_online_sets(sysfs) == before:
            return topology
    raise AssertionError("the last attempt returns or raises")


def _read_nodes(sysfs: Path, online_text: bytes) -> Topology:
    directory = sysfs / "devices/system/node"
    online = sorted(NodeId(n) for n in parse_ids(online_text, f"{directory}/online"))
    nodes: list[Node] = []
    for node in online:
        base = f"{directory}/node{node}"
        meminfo = parse_node_meminfo(read_bytes(f"{base}/meminfo"), f"{base}/meminfo")
        nodes.append(
            Node(
                id=node,
                cpus=frozenset(CpuId(n) for n in parse_ids(read_bytes(f"{base}/cpulist"), f"{base}/cpulist")),
                total_bytes=meminfo["MemTotal"],
                distances=parse_distance(read_bytes(f"{base}/distance"), f"{base}/distance", tuple(online)),
            )
        )
    return Topology(nodes=tuple(nodes), node_of_cpu={cpu: node.id for node in nodes for cpu in sorted(node.cpus)})


def parse_ids(text: bytes, path: str) -> frozenset[int]:
    """Parse a file that holds one list such as "0-3,8"; an empty one is the empty set."""
    try:
        return parse_id_list(text.decode("ascii"))
    except ValueError as error:
        raise ParseError(path, 1, text, str(error)) from error


def parse_distance(text: bytes, path: str, online: tuple[NodeId, ...]) -> dict[NodeId, int]:
    """Parse nodeN/distance: one SLIT value for each of the `online` nodes, in their ascending order."""
    try:
        values = [int(word) for word in text.split()]
    except ValueError as error:
        raise ParseError(path, 1, text, "not a list of distances") from error
    if len(values) != len(online):
        raise ParseError(path, 1, text, f"{len(values)} distances for {len(online)} online nodes")
    return dict(zip(online, values, strict=True))


def parse_node_meminfo(text: bytes, path: str) -> dict[str, int]:
    """Parse nodeN/meminfo into bytes by name, such as "MemFree"; counters without a unit (HugePages_*) stay out."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        words = line.split()  # "Node 0 MemTotal:  4679884 kB"
        if len(words) != 5 or words[4] != b"kB":
            continue
        try:
            found[words[2].rstrip(b":").decode("ascii")] = int(words[3]) * 1024
        except ValueError as error:
            raise ParseError(path, number, line, "not an amount of memory") from error
    if "MemTotal" not in found:
        raise ParseError(path, 0, text, "no MemTotal")
    return found
