"""What is in the way of sources of accesses here, and the exact remedy. Must not know what becomes of samples."""

import errno
import os
from pathlib import Path

from balancerd import native
from balancerd.kernel.doctor.files import has_capability
from balancerd.model.access import Obstacle

CAP_PERFMON = 38  # include/uapi/linux/capability.h

MOST_PARANOID = 2
"""The highest level of kernel.org's kernels (Documentation/admin-guide/sysctl/kernel.rst). Debian's and Ubuntu's have
more, their defaults among them, at which perf_event_open(2) asks for CAP_SYS_ADMIN, and CAP_PERFMON is not enough."""


def find_perf_obstacle(kind: native.PerfKind, root: Path = Path("/")) -> Obstacle | None:
    """Try to sample this very thread; return what is in the way and the exact remedy, None when nothing is."""
    try:
        native.probe(kind)
    except OSError as error:
        return explain_refusal(error, root)
    return None


def find_balancing_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Look whether the kernel's balancing makes hint faults in all memory; None when it does (sysctl/kernel.rst)."""
    try:
        told = (root / "proc/sys/kernel/numa_balancing").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return Obstacle(seen="the kernel has no NUMA balancing", fix="boot a kernel with CONFIG_NUMA_BALANCING=y")
    if told in {"1", "3"}:
        return None
    tiers = told == "2"
    return Obstacle(
        seen=f"kernel.numa_balancing={told}: {'only memory of slow tiers' if tiers else 'no memory'} gets hint faults",
        fix=f"as root: sysctl -w kernel.numa_balancing={3 if tiers else 1} (the kernel then moves pages, too)",
    )


def explain_refusal(error: OSError, root: Path) -> Obstacle:
    """Return what keeps perf events of every kind from being opened, by the error, and the exact remedy."""
    told = f"perf_event_open(2): {errno.errorcode.get(error.errno or 0, error.errno)} ({error.strerror})"
    if error.errno in {errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP}:
        return Obstacle(seen=told, fix="boot a kernel with CONFIG_PERF_EVENTS=y and CONFIG_HAVE_PERF_REGS=y")
    if error.errno == errno.EMFILE:
        return Obstacle(seen=told, fix="raise LimitNOFILE= of the unit")
    level = _paranoia(root)
    in_unit = "in a unit, AmbientCapabilities=CAP_PERFMON, CapabilityBoundingSet=CAP_PERFMON and SystemCallFilter="
    is_over = error.errno == errno.EACCES and level.isdecimal() and int(level) > MOST_PARANOID
    lower = f"as root: sysctl -w kernel.perf_event_paranoid={MOST_PARANOID}"
    if is_over and os.geteuid() != 0 and has_capability(root, CAP_PERFMON):
        return Obstacle(
            seen=f"{told} at kernel.perf_event_paranoid={level}, where CAP_PERFMON is not enough", fix=lower
        )
    if has_capability(root, CAP_PERFMON) or os.geteuid() == 0:
        return Obstacle(
            seen=f"{told} though the capability is there: a seccomp filter or a security module refuses it",
            fix="allow the system call: in Docker, --security-opt seccomp=unconfined; in Kubernetes, "
            f"securityContext.seccompProfile.type: Unconfined; {in_unit}perf_event_open",
        )
    return Obstacle(
        seen=f"{told} at kernel.perf_event_paranoid={level} without CAP_PERFMON",
        fix=f"{f'{lower}; and ' if is_over else ''}{in_unit}perf_event_open (systemctl edit balancerd.service); in "
        "Docker, --cap-add=PERFMON; or for all users, as root: sysctl -w kernel.perf_event_paranoid=1",
    )


def _paranoia(root: Path) -> str:
    try:
        return (root / "proc/sys/kernel/perf_event_paranoid").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "unknown"
