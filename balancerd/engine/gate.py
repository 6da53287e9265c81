"""What a move costs and what it wins: the one piece of arithmetic that every migration must pass.

Units: `gain` is in cores (CPU seconds won per second), `cost` in CPU seconds.
"""

from collections.abc import Mapping

from balancerd.model.ids import NodeId
from balancerd.model.topology import LOCAL_DISTANCE, Topology

STALL_SHARE = 0.12
"""Share of busy time lost per unit of relative extra distance when nothing better is measured.

At distance 21 it gives 13 %, inside the 10-20 % that fleet studies report for NUMA-aware placement.
"""

DISTURBANCE = 2.0
"""A move costs its own copying and about as much again to the process moved."""

REFILL_SECONDS = 0.005
"""What a thread loses until the caches of a CPU on another node are as warm as those that it left."""

HORIZON_SECONDS = 300.0
"""Nothing is expected to stay as it is for longer than this."""

MARGIN = 2.0
"""The gain must be this many times the cost: estimates err."""


BATCHED_SINCE = (6, 3)
"""The kernel that first unmapped many pages for one flush of the TLBs, migrate_pages_batch() in mm/migrate.c."""

COPY_BYTES_PER_SECOND = float(2 << 30)
UNBATCHED_COPY_BYTES_PER_SECOND = float(1 << 30)
"""What the kernel copies in a second inside move_pages(2): 3.4 GB/s of base pages on Zen 3 since Linux 6.3, a quarter
of that before, of which no more is believed. How fast memory may move (migrate.rate_limit) changes how long a move
takes, not what it costs."""


def copy_bytes_per_second(kernel_version: tuple[int, int]) -> float:
    """Return what a kernel copies in a second; the version is as in (6, 12)."""
    return COPY_BYTES_PER_SECOND if kernel_version >= BATCHED_SINCE else UNBATCHED_COPY_BYTES_PER_SECOND


def remoteness(run: Mapping[NodeId, float], memory: Mapping[NodeId, float], topology: Topology) -> float:
    """Return the mean extra distance of an access, 0 for all local, 1.1 for all at distance 21.

    `run` and `memory` are shares by node, each summing to 1; accesses are taken to be spread evenly.
    """
    return sum(
        x * m * (topology.distance(i, j) / LOCAL_DISTANCE - 1.0)
        for i, x in run.items()
        if x
        for j, m in memory.items()
        if m
    )


def gain_cores(busy_cores: float, remoteness_before: float, remoteness_after: float) -> float:
    """Return the cores won by lowering the remoteness of a process that keeps `busy_cores` busy."""
    return busy_cores * STALL_SHARE * (remoteness_before - remoteness_after)


def access_gain_cores(
    busy_cores: float, share: float, node: NodeId, pages_by_node: Mapping[NodeId, float], topology: Topology
) -> float:
    """Return the cores won by moving pages to `node` that take `share` of all its process's accesses, made from there.

    Samples that come with time, as those of a timer do, weigh accesses by how long they stall: the extra distance of
    each then costs STALL_SHARE, just as in gain_cores, but for the accesses that were seen instead of an even spread.
    """
    total = sum(pages_by_node.values())
    if total <= 0:
        return 0.0
    memory = {held: pages / total for held, pages in pages_by_node.items()}
    return gain_cores(busy_cores * share, remoteness({node: 1.0}, memory, topology), 0.0)


def spread_gain_cores(
    busy_cores: float, n_cpus: int, remoteness_change: float, crowding_before: float, crowding_after: float
) -> float:
    """Return the cores won by spreading memory, the accesses to which take `busy_cores` of its process.

    `n_cpus` are those of the nodes that it is spread over, and crowding is as engine/interleaving.py has it. A node
    whose memory serves twice as many CPUs as it has is taken to lose as much by that as by a distance of 20. So a
    spread wins by the square of how busy the process is, and loses what is farther away afterwards.
    """
    if n_cpus <= 0:
        return 0.0
    crowd = busy_cores / n_cpus * (crowding_before - crowding_after)
    return busy_cores * STALL_SHARE * (crowd - remoteness_change)


def cost_seconds(moved_bytes: float, bytes_per_second: float) -> float:
    """Return the CPU seconds that moving so many bytes costs the machine and the process."""
    return DISTURBANCE * moved_bytes / bytes_per_second


def is_worth(gain: float, cost: float, expected_stay_seconds: float) -> bool:
    """Return whether a move pays within the time that the situation is expected to last."""
    return gain > 0.0 and gain * min(expected_stay_seconds, HORIZON_SECONDS) >= MARGIN * cost
