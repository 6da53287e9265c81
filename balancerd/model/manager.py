"""Who else decides where memory or threads go: programs, the kernel, and settings that somebody made on purpose."""

import enum
from dataclasses import dataclass


class Manager(enum.StrEnum):
    """Another manager of placement: the metric label, the key in `yield_to`, and the name in `doctor` and `status`."""

    NUMAD = "numad"
    MEMTIERD = "memtierd"
    KATALYST = "katalyst"
    DAMOS = "damos"
    """A DAMON scheme that migrates or reclaims pages is at work."""
    KERNEL_BALANCING = "kernel-balancing"
    """kernel.numa_balancing is not 0."""
    KUBELET_CPU = "kubelet-cpu"
    """The kubelet's CPU manager has the policy "static"."""
    KUBELET_MEMORY = "kubelet-memory"
    """The kubelet's memory manager has the policy "Static"."""
    LIBVIRT = "libvirt"
    """A guest whose virtual CPUs or memory libvirt binds to nodes."""
    NUMA_POLICY = "numa-policy"
    """A unit with NUMAPolicy=, NUMAMask= or AllowedMemoryNodes=."""
    MEMPOLICY = "mempolicy"
    """Memory with a mempolicy that somebody chose; see set_mempolicy(2), mbind(2), numactl(8)."""
    AFFINITY = "affinity"
    """A process that may run on some of the machine's CPUs only; see sched_setaffinity(2), taskset(1), cpuset(7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerFinding:
    """What was found of one manager: of the machine as a whole, or how many processes it holds.

    `pids` are its own processes, not those that it manages. `fix` is what an operator can do about it.
    """

    manager: Manager
    active: bool
    detail: str = ""
    pids: tuple[int, ...] = ()
    fix: str | None = None
