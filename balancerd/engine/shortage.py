"""Which nodes are short of memory, how much each must give until it is not, and how much each may get.

A node that has become short stays so until it has somewhat more than what made it short. What one may get ends there,
too, so that relieving one node makes no other one short.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from balancerd.engine.room import kept_bytes, room_bytes
from balancerd.model.ids import NodeId
from balancerd.model.sample import Survey
from balancerd.model.topology import NodeMemory

WATERMARKS: Final = 3
"""A node is short when less than the reserve and so many times its high watermark is available: before kswapd works."""

RELIEF_RATIO: Final = 1.25
"""It is not any more once so many times that is available."""

PRESSURE_RATIO: Final = 2.0
"""While tasks wait for memory a node is short earlier: so many times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One node. `is_short` below `keep_bytes` available, and then until there are `relieved_bytes`."""

    available_bytes: int
    keep_bytes: int
    room_bytes: int
    is_short: bool

    @property
    def relieved_bytes(self) -> int:
        """From here on it is short no more."""
        return round(self.keep_bytes * RELIEF_RATIO)

    @property
    def needed_bytes(self) -> int:
        """What a short node must give."""
        return max(0, self.relieved_bytes - self.available_bytes) if self.is_short else 0

    @property
    def slack_bytes(self) -> int:
        """What may be moved there: nothing while it is short."""
        return max(0, min(self.room_bytes, self.available_bytes - self.relieved_bytes))


def reserve_of(watermark_ratio: float) -> Callable[[NodeMemory], int]:
    """Return how much is to stay available of a node, unless somebody says otherwise."""

    def keep(memory: NodeMemory) -> int:
        return kept_bytes(memory, watermark_ratio) + (WATERMARKS - 1) * memory.high_watermark_bytes

    return keep


class Shortage:
    """Remembers which nodes were short. `keep` says below how many available bytes a node is."""

    def __init__(
        self, keep: Callable[[NodeMemory], int], watermark_ratio: float, max_pressure_ratio: float | None
    ) -> None:
        self._keep = keep
        self._watermark_ratio = watermark_ratio
        self._max_pressure_ratio = max_pressure_ratio
        self._short: frozenset[NodeId] = frozenset()

    def look(self, survey: Survey) -> Mapping[NodeId, Level]:
        """Return the level of each node that has memory."""
        factor = PRESSURE_RATIO if self._is_pressed(survey) else 1.0
        levels: dict[NodeId, Level] = {}
        for node, memory in sorted(survey.memory.items()):
            if node not in survey.topology.memory_nodes:
                continue
            keep = round(factor * self._keep(memory))
            least = round(keep * RELIEF_RATIO) if node in self._short else keep
            levels[node] = Level(
                available_bytes=memory.available_bytes,
                keep_bytes=keep,
                room_bytes=room_bytes(memory, self._watermark_ratio),
                is_short=memory.available_bytes < least,
            )
        self._short = frozenset(node for node, level in levels.items() if level.is_short)
        return levels

    def _is_pressed(self, survey: Survey) -> bool:
        ratio, most = survey.pressure.memory_ratio, self._max_pressure_ratio
        return ratio is not None and most is not None and ratio > most
