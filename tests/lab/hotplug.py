"""CPUs, blocks of memory and nodes that go and come back, and what a daemon says of them. Inside the guest."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.service import Balancerd

SYSTEM = Path("/sys/devices/system")
DIMM = Path("/sys/bus/acpi/devices/PNP0C80:00")
SECONDS = 30.0
"""What a daemon is given to see it."""

BLOCK_SECONDS = 10


def node_of(daemon: Balancerd, number: int) -> Mapping[str, Any]:
    nodes: list[Mapping[str, Any]] = daemon.client.get("/v1/nodes")["nodes"]
    (node,) = [each for each in nodes if each["node"] == number]
    return node


def node_numbers(daemon: Balancerd) -> list[int]:
    return [node["node"] for node in daemon.client.get("/v1/nodes")["nodes"]]


def mem_total_bytes(number: int) -> int:
    line = (SYSTEM / f"node/node{number}/meminfo").read_text(encoding="ascii").splitlines()[0]
    return int(line.split()[3]) << 10


def memory_blocks(number: int) -> list[Path]:
    return [path / "state" for path in (SYSTEM / f"node/node{number}").glob("memory[0-9]*")]


def set_blocks(number: int, state: str) -> int:
    """Ask every block of a node to be `state`; return how many are.

    The kernel refuses those that it cannot empty, and tries for minutes on others, until a signal comes.
    """
    for block in memory_blocks(number):
        if block.read_text().strip() != state:
            words = ["timeout", str(BLOCK_SECONDS), "tee", str(block)]
            asked = subprocess.run(words, input=state, capture_output=True, text=True, check=False)
            if asked.returncode:
                print(asked.stderr.strip() or f"{block}: still not {state} after {BLOCK_SECONDS} s")
    return sum(block.read_text().strip() == state for block in memory_blocks(number))


def set_cpu(number: int, *, online: bool) -> None:
    (SYSTEM / f"cpu/cpu{number}/online").write_text(str(int(online)))


def bring_everything_back() -> None:
    """Bring all CPUs and all memory online that there are."""
    for cpu in SYSTEM.glob("cpu/cpu[0-9]*/online"):
        cpu.write_text("1")
    for node in SYSTEM.glob("node/node[0-9]*"):
        set_blocks(int(node.name[4:]), "online")
