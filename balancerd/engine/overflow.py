"""Where memory goes that a full home cannot take: to the closest node with room, if that is nearer than it is now."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.engine.room import SMALLEST_STEP_BYTES, Room, nearest
from balancerd.model.ids import NodeId
from balancerd.model.topology import Topology

ROOM_RATIO = 0.05
"""A home that has room for less than this share of what is away counts as full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuge:
    """A node in the neighbourhood of a full home, and what lies farther from home than it, by node."""

    node: NodeId
    farther_bytes: Mapping[NodeId, int]


def find_refuge(
    home: NodeId,
    held_bytes: Mapping[NodeId, int],
    room: Room,
    topology: Topology,
    allowed: AbstractSet[NodeId] | None,
) -> Refuge | None:
    """Return where what is farthest from a full home should go; None when there is room at home, or nowhere nearer."""
    away = sum(held_bytes.values()) - held_bytes.get(home, 0)
    if room.left(home) >= min(away, max(SMALLEST_STEP_BYTES, ROOM_RATIO * away)):
        return None
    held = {at: size for at, size in held_bytes.items() if size and at in topology.node_ids}
    others = [node for node in topology.memory_nodes if node != home and (allowed is None or node in allowed)]
    for node in nearest(home, others, topology):
        near = topology.distance(home, node)
        farther = {at: size for at, size in held.items() if topology.distance(home, at) > near}
        if farther and room.left(node) >= min(sum(farther.values()), SMALLEST_STEP_BYTES):
            return Refuge(node=node, farther_bytes=farther)
    return None
