"""What tests of faults ask a daemon for: moves of one process, and what became of them. Inside the guest."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.faults.tally import Tally
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, mib_by_node

NODES = (0, 1, 2, 3)
NO_POLICY = "policies: []\n"
CALM = {
    "tick_interval": "500ms",
    "select.min_rss": "8MiB",
    "migrate.duty_cycle": "100%",
    "migrate.max_cpu_pressure": "null",
    "migrate.max_memory_pressure": "null",
    "migrate.process_rate_limit": "32MiB/s",
}
"""An emulated machine is always short of CPU time; and moves shall last long enough for something to happen."""

JOB_SECONDS = 120.0


class Inner(Hog):
    """A hog below a program that waits for it, such as unshare --fork: signals are for the hog itself."""

    @property
    def pid(self) -> int:
        """The pid of the hog, as everybody outside sees it."""
        (inner,) = children(self.process.pid)
        return inner


def children(pid: int) -> tuple[int, ...]:
    """The pids of a process's children."""
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))


def ask(daemon: Balancerd, pid: int, node: int) -> int:
    """Have all memory of a process go to a node; return the job's number."""
    told: dict[str, Any] = daemon.client.post("/v1/jobs", {"kind": "move", "pid": pid, "to": str(node)})["job"]
    return int(told["id"])


def wait_for_job(daemon: Balancerd, number: int) -> dict[str, Any]:
    """Return a job once it has ended."""
    told: dict[str, Any] = {}

    def has_ended() -> bool:
        told.update(daemon.client.get(f"/v1/jobs/{number}")["job"])
        return told["state"] in {"done", "failed", "cancelled"}

    daemon.wait_for(has_ended, JOB_SECONDS, f"end of job {number}")
    return told


def settle(tally: Tally, daemon: Balancerd, number: int) -> dict[str, Any]:
    """Wait for a job, hold its sums to their word, and count what it came to."""
    told = wait_for_job(daemon, number)
    tally.lose(told["submitted_pages"], sum(told["pages"].values()))
    passed_over = sum(told["passed_over"].values())
    assert told["looked_pages"] == told["on_target_pages"] + passed_over + told["submitted_pages"], told
    tally.count(f"moves {told['state']}" + (f", {told['reason']}" if told["reason"] else ""))
    tally.count("pages moved", told["pages"].get("moved", 0))
    print(told["state"], told["reason"], told["detail"], told["pages"])
    return told


def elsewhere(hog: Hog, nodes: Sequence[int] = NODES) -> list[int]:
    """Return the nodes with little of a process's memory."""
    held = mib_by_node(hog.pid)
    return [node for node in nodes if held.get(node, 0.0) < sum(held.values()) / 2]


def largest_mapping(pid: int) -> tuple[int, int]:
    """Where the largest anonymous mapping of a process is, [start, end)."""
    found = re.findall(r"(?m)^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *$", Path(f"/proc/{pid}/maps").read_text())
    spans = [(int(start, 16), int(end, 16)) for start, end in found]
    return max(spans, key=lambda span: span[1] - span[0])


def pages_off(pid: int, node: int) -> int:
    """How many pages of that mapping are on other nodes than this one, by numa_maps."""
    start, _ = largest_mapping(pid)
    for line in Path(f"/proc/{pid}/numa_maps").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{start:08x} "):
            return sum(int(pages) for each, pages in re.findall(r" N(\d+)=(\d+)", line) if int(each) != node)
    raise KeyError(f"{start:08x}")
