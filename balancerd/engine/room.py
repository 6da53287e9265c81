"""How much memory may be moved to a node: one answer for the plan, for commands, and for policies."""

from collections.abc import Iterable

from balancerd.model.ids import NodeId
from balancerd.model.sample import Survey
from balancerd.model.topology import NodeMemory, Topology

SMALLEST_STEP_BYTES = 2 << 20
"""Not worth starting for less: one call of 512 base pages, or one THP."""

RESERVE_BYTES = 1 << 30
"""Memory kept available on the target beside its high watermark, on a node large enough for it."""

RESERVE_RATIO = 0.1
"""On a small node the reserve is this share of it."""


def kept_bytes(memory: NodeMemory, watermark_ratio: float) -> int:
    """Return how much moves leave available on a node: its high watermark and the reserve."""
    reserve = min(RESERVE_BYTES, int(RESERVE_RATIO * memory.total_bytes))
    return memory.high_watermark_bytes + max(int(watermark_ratio * memory.total_bytes), reserve)


def room_bytes(memory: NodeMemory, watermark_ratio: float) -> int:
    """Return how much may be moved to a node: what is available beyond its watermark and the reserve."""
    return max(0, memory.available_bytes - kept_bytes(memory, watermark_ratio))


def nearest(source: NodeId, nodes: Iterable[NodeId], topology: Topology) -> tuple[NodeId, ...]:
    """Return nodes with the nearest to `source` first; those without CPUs, whose memory is slower, come last."""
    without = {node.id for node in topology.nodes if not node.cpus}
    known = source in topology.node_ids
    return tuple(sorted(nodes, key=lambda n: (n in without, topology.distance(source, n) if known else 0, n)))


class Room:
    """What is left of each node's room while a policy wants one process after the other moved."""

    def __init__(self, survey: Survey, watermark_ratio: float) -> None:
        self._left = {memory.node: room_bytes(memory, watermark_ratio) for memory in survey.memory.values()}

    def left(self, node: NodeId) -> int:
        """Return how many bytes still fit on a node."""
        return self._left.get(node, 0)

    def take(self, nodes: Iterable[NodeId], wanted_bytes: int) -> NodeId | None:
        """Return the first of `nodes` that has room for a step of a move of so many bytes, and take it; or None."""
        smallest = min(wanted_bytes, SMALLEST_STEP_BYTES)
        for node in nodes:
            left = self._left.get(node, 0)
            if left and left >= smallest:
                self._left[node] = max(0, left - wanted_bytes)
                return node
        return None
