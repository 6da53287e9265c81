"""What a cgroup path tells of who placed a process: units of the host, a pod, a guest of libvirt. Pure, and total.

Knows nothing of names of workloads; see kernel/workloads for those.
"""

import re
from dataclasses import dataclass
from typing import Final

from balancerd.kernel.workloads.paths import unescape

_LEAF: Final = (".service", ".scope", ".socket", ".mount", ".swap")
_POD: Final = re.compile(
    r"(?:(?:.*-)?kubepods(?:-(?P<slice_class>burstable|besteffort))?-)?pod(?P<uid>[0-9a-f][0-9a-f_-]{7,})(?:\.slice)?"
)
_GUEST: Final = re.compile(
    r"machine-qemu\\x2d[0-9]+\\x2d(?P<scope>.+)\.scope|qemu-[0-9]+-(?P<group>.+)\.libvirt-qemu|(?P<old>.+)\.libvirt-qemu"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCgroup:
    """A pod of Kubernetes. Without a class ("burstable", "besteffort") its quality of service is Guaranteed."""

    uid: str
    guaranteed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestCgroup:
    """A guest of libvirt, and the cgroup of it alone."""

    name: str
    path: str


def units_of(cgroup: str) -> tuple[str, ...]:
    """Return the units of the host's own service manager that a cgroup lies in: slices, then a service or scope.

    What follows a service or a scope was delegated: there the same names mean units of somebody else.
    """
    found: list[str] = []
    for part in cgroup.split("/"):
        if part.endswith(".slice"):
            found.append(part)
        elif part.endswith(_LEAF):
            return (*found, part)
    return tuple(found)


def pod_of(cgroup: str) -> PodCgroup | None:
    """Return the pod that a cgroup belongs to, with its UID as the kubelet writes it; None when it is in none.

    The systemd driver writes kubepods-burstable-podUID.slice with underscores, cgroupfs kubepods/burstable/podUID.
    """
    parts = cgroup.split("/")
    for at, part in enumerate(parts):
        match = _POD.fullmatch(part)
        if match is None or not any("kubepods" in other for other in parts[: at + 1]):
            continue
        classes = {match["slice_class"], *parts[:at]}
        uid = match["uid"].replace("_", "-")
        return PodCgroup(uid=uid, guaranteed=not classes & {"burstable", "besteffort"})
    return None


def guest_of(cgroup: str) -> GuestCgroup | None:
    """Return the guest that a cgroup belongs to, of machine.slice or of libvirt's own layout on cgroup v1."""
    parts = cgroup.split("/")
    for at, part in enumerate(parts):
        match = _GUEST.fullmatch(part)
        if match is not None:
            name = match["scope"] or match["group"] or match["old"]
            return GuestCgroup(name=unescape(name), path="/".join(parts[: at + 1]))
    return None
