"""How full each node is, from nodeN/meminfo, and how full swap is. Knows nothing of processes."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes, read_if_there
from balancerd.kernel.machine.topology import parse_node_meminfo
from balancerd.model.ids import NodeId
from balancerd.model.topology import NodeMemory


def read_memory(
    sysfs: Path, nodes: Iterable[NodeId], high_watermarks: Mapping[NodeId, int]
) -> dict[NodeId, NodeMemory]:
    """Read the memory of `nodes` as it is now; a node that went offline meanwhile is left out.

    `high_watermarks` are bytes by node, which change too rarely to be read each time.
    """
    memory: dict[NodeId, NodeMemory] = {}
    for node in nodes:
        path = f"{sysfs}/devices/system/node/node{node}/meminfo"
        text = read_if_there(path)
        if text is not None:
            memory[node] = parse_node_memory(text, path, node, high_watermarks.get(node, 0))
    return memory


def parse_node_memory(text: bytes, path: str, node: NodeId, high_watermark_bytes: int) -> NodeMemory:
    """Pick what matters for a migration from nodeN/meminfo."""
    found = parse_node_meminfo(text, path)
    missing = {"MemFree", "Inactive(file)"} - found.keys()
    if missing:
        raise ParseError(path, 0, text, f"no {' and no '.join(sorted(missing))}")
    return NodeMemory(
        node=node,
        total_bytes=found["MemTotal"],
        free_bytes=found["MemFree"],
        inactive_file_bytes=found["Inactive(file)"],
        high_watermark_bytes=high_watermark_bytes,
    )


def read_swap_room(procfs: str, max_used_ratio: float) -> int:
    """Read from /proc/meminfo how many bytes may still go to swap until `max_used_ratio` of it is used."""
    path = f"{procfs}/meminfo"
    total_bytes, free_bytes = parse_swap(read_bytes(path), path)
    return max(0, round(max_used_ratio * total_bytes) - (total_bytes - free_bytes))


def parse_swap(text: bytes, path: str) -> tuple[int, int]:
    """Parse SwapTotal and SwapFree in bytes; proc_meminfo(5). A kernel without swap has no such lines: both are 0."""
    found = {b"SwapTotal:": 0, b"SwapFree:": 0}
    for number, line in enumerate(text.split(b"\n"), 1):
        key, _, rest = line.partition(b" ")
        if key in found:
            try:
                found[key] = int(rest.split()[0]) * 1024
            except (ValueError, IndexError) as error:
                raise ParseError(path, number, line, "not an amount of memory") from error
    return found[b"SwapTotal:"], found[b"SwapFree:"]
