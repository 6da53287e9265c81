"""What a machine looks like to the kernel: nodes, distances, HMAT; read from topologies/NAME.toml.

Owns the shape and its validation.  Must not know QEMU, nor whether a machine runs.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOPOLOGIES = Path(__file__).parent / "topologies"
DEFAULT = "four-nodes"
LOCAL_DISTANCE = 10  # ACPI 6.5, 5.2.17: the SLIT diagonal
MINIMUM_NODE_MIB = 256  # below, the kernel leaves no room for a working set on the node


class TopologyError(ValueError):
    """A topology file that does not describe a machine; the message starts with its path or name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One online node; `cpus` 0 makes it memory-only, `initiator` is the HMAT's nearest node with CPUs.

    Memory that is a `dimm` can go offline as a whole, and be ejected: it is in the kernel's zone Movable.
    """

    id: int
    cpus: int
    memory_mib: int
    initiator: int | None = None
    dimm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """HMAT access attributes of `target` memory as seen from `initiator`, both node ids."""

    initiator: int
    target: int
    latency_ns: int
    bandwidth_mib_per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySideCache:
    """A direct-mapped, write-back memory-side cache in front of a node's memory."""

    node: int
    cache_mib: int
    line_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole machine.  `distances` has one row and one column for each of `nodes`, in their order.

    Ids may have gaps: a missing id is a node the kernel knows as possible but that is not online.
    """

    name: str
    description: str
    nodes: tuple[Node, ...]
    distances: tuple[tuple[int, ...], ...]
    localities: tuple[Locality, ...] = ()
    memory_side_caches: tuple[MemorySideCache, ...] = ()

    @property
    def node_ids(self) -> tuple[int, ...]:
        """The online node ids, ascending."""
        return tuple(node.id for node in self.nodes)


def names() -> tuple[str, ...]:
    """Every topology there is, sorted."""
    return tuple(sorted(path.stem for path in TOPOLOGIES.glob("*.toml")))


def load(name: str) -> Topology:
    """Read topologies/NAME.toml; raises TopologyError, which lists the known names for an unknown one."""
    path = TOPOLOGIES / f"{name}.toml"
    if name not in names():
        raise TopologyError(f"{name}: no such topology (there are: {', '.join(names())})")
    return parse(name, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Topology:
    """Build a Topology from TOML text; raises TopologyError naming what is wrong."""
    try:
        table = tomllib.loads(text)
        topology = Topology(
            name=name,
            nodes=tuple(Node(**row) for row in _take(table, "node")),
            distances=tuple(tuple(row) for row in table.pop("distances")),
            localities=tuple(Locality(**row) for row in _take(table, "locality")),
            memory_side_caches=tuple(MemorySideCache(**row) for row in _take(table, "memory_side_cache")),
            **table,
        )
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise TopologyError(f"{name}: {error}") from error
    _check(topology)
    return topology


def _take(table: dict[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = table.pop(key, [])
    return rows


def _check(topology: Topology) -> None:
    ids = topology.node_ids
    if not ids or ids[0] != 0 or list(ids) != sorted(set(ids)):
        raise TopologyError(f"{topology.name}: node ids must start at 0 and rise, not {list(ids)}")
    if not topology.nodes[0].cpus:
        raise TopologyError(f"{topology.name}: node 0 needs a CPU to boot on")
    if topology.nodes[0].dimm:
        raise TopologyError(f"{topology.name}: node 0 needs memory to boot in")
    small = [node.id for node in topology.nodes if node.memory_mib < MINIMUM_NODE_MIB]
    if small:
        raise TopologyError(f"{topology.name}: nodes {small} have less than {MINIMUM_NODE_MIB} MiB")
    size = len(ids)
    if len(topology.distances) != size or any(len(row) != size for row in topology.distances):
        raise TopologyError(f"{topology.name}: distances must be {size} x {size}")
    if any(row[i] != LOCAL_DISTANCE for i, row in enumerate(topology.distances)):
        raise TopologyError(f"{topology.name}: a node's distance to itself is {LOCAL_DISTANCE}")
    used = [i for hop in topology.localities for i in (hop.initiator, hop.target)]
    used += [cache.node for cache in topology.memory_side_caches]
    used += [node.initiator for node in topology.nodes if node.initiator is not None]
    if not set(used) <= set(ids):
        raise TopologyError(f"{topology.name}: HMAT names nodes {sorted(set(used) - set(ids))} that are not there")
