"""What each node has to offer right now, from one look of a tenth of a second at /proc and /sys; for any user.

This is for advice without a daemon, whose ticks know it better. It must not know processes, nor what is advised.
"""

import time
from pathlib import Path
from typing import Final

from balancerd.engine.advice import NodeRoom, rooms
from balancerd.kernel.machine.cpu_load import load_by_node, read_cpu_ticks, ticks_between
from balancerd.kernel.machine.memory import read_memory
from balancerd.kernel.machine.topology import read_topology
from balancerd.kernel.machine.zones import read_high_watermarks
from balancerd.model.machine import Machine, NodeState

LOOK_SECONDS: Final = 0.1
"""Ten of the kernel's clock ticks (USER_HZ)."""


def read_offer(procfs: Path, sysfs: Path, look_seconds: float = LOOK_SECONDS) -> tuple[NodeRoom, ...]:
    """Return the nodes with memory, ascending. Raises OSError or ParseError."""
    topology = read_topology(sysfs)
    before = read_cpu_ticks(str(procfs))
    time.sleep(look_seconds)
    loads = load_by_node(topology.nodes, ticks_between(before, read_cpu_ticks(str(procfs))))
    machine = Machine(nodes={node: NodeState(node=node, load_ratio=loads.get(node)) for node in topology.node_ids})
    memory = read_memory(sysfs, topology.node_ids, read_high_watermarks(procfs))
    return rooms(topology, memory, machine)
