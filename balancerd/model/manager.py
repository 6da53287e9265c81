"""Who else decides where memory or threads go: programs, the kernel, and settings that somebody made on purpose."""

import enum
from collections.abc import Mapping
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


MACHINE_WIDE = frozenset({Manager.NUMAD, Manager.MEMTIERD, Manager.KATALYST, Manager.DAMOS, Manager.KERNEL_BALANCING})
"""Those that may move the memory of any process; the others hold the processes that somebody placed with them."""


MANAGER_TEXT: Mapping[Manager, str] = {
    Manager.NUMAD: "numad moves processes and their memory between nodes",
    Manager.MEMTIERD: "memtierd moves memory between nodes",
    Manager.KATALYST: "katalyst's agent moves memory and CPUs between nodes",
    Manager.DAMOS: "a DAMON scheme migrates or reclaims memory",
    Manager.KERNEL_BALANCING: "the kernel's own balancing moves memory and threads",
    Manager.KUBELET_CPU: "the kubelet gave it CPUs of its own",
    Manager.KUBELET_MEMORY: "the kubelet bound its memory to nodes",
    Manager.LIBVIRT: "libvirt binds the guest to CPUs or nodes",
    Manager.NUMA_POLICY: "its unit says on which nodes its memory belongs",
    Manager.MEMPOLICY: "somebody chose a mempolicy for its memory",
    Manager.AFFINITY: "it may run on some of the CPUs only",
}
"""What each of them does, for people."""


REMEDY: Mapping[Manager, str] = {
    Manager.NUMAD: "as root: systemctl disable --now numad",
    Manager.MEMTIERD: "as root: systemctl disable --now memtierd, or take this machine out of its DaemonSet",
    Manager.KATALYST: "take this machine out of katalyst's DaemonSet",
    Manager.DAMOS: "as root: for d in /sys/kernel/mm/damon/admin/kdamonds/[0-9]*; do echo off > $d/state; done",
    Manager.KERNEL_BALANCING: "as root: sysctl -w kernel.numa_balancing=0 (and in /etc/sysctl.d to keep it)",
    Manager.KUBELET_CPU: "none needed, such pods are left alone; to have them balanced, take kubelet-cpu out of "
    "yield_to",
    Manager.KUBELET_MEMORY: "none needed, such pods are left alone; their cpuset binds their memory whatever "
    "yield_to says",
    Manager.LIBVIRT: "none needed, such guests are left alone; to have one balanced: virsh edit GUEST, and remove "
    "<vcpupin> and <numatune>",
    Manager.NUMA_POLICY: "none needed, such units are left alone; to have one balanced: systemctl edit UNIT, set "
    "NUMAPolicy= and AllowedMemoryNodes= to nothing, and restart it",
    Manager.MEMPOLICY: "none needed, it is respected; to have it balanced, start the process without numactl",
    Manager.AFFINITY: "none needed, memory follows to where the process may run",
}
"""What an operator can do about each, exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerFinding:
    """What was found of one manager: of the machine as a whole, or how many processes it holds.

    `pids` are its own processes, not those that it manages; `held_processes` counts these, and is None where it is not
    about single processes. `fix` is what an operator can do about it. `unreadable` is what could not be read: then
    `active` is only what can be told without it.
    """

    manager: Manager
    active: bool
    detail: str = ""
    pids: tuple[int, ...] = ()
    fix: str | None = None
    held_processes: int | None = None
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A process that a manager has placed, and how: "unit a.service: NUMAPolicy=bind"."""

    manager: Manager
    detail: str
