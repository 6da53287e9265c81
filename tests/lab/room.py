"""How much a daemon may move to a node, as things are now. Inside the guest."""

from pathlib import Path

from balancerd.config.schema import MigrateConfig
from balancerd.engine.room import room_bytes
from balancerd.kernel.machine.memory import read_memory
from balancerd.kernel.machine.zones import read_high_watermarks
from balancerd.model.ids import NodeId


def room_mib(node: int) -> float:
    """What the daemon moves to a node at most, as things are now."""
    memory = read_memory(Path("/sys"), [NodeId(node)], read_high_watermarks(Path("/proc")))[NodeId(node)]
    return room_bytes(memory, MigrateConfig().watermark_ratio) / (1 << 20)
