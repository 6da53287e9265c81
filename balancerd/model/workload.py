"""What a process belongs to, in the words of whoever started it: a unit, a container, a guest, or a group."""

import enum
from dataclasses import dataclass


class WorkloadKind(enum.StrEnum):
    """Who gave the workload its name."""

    UNIT = "unit"
    """A systemd unit: a service, or a scope such as a login session."""
    POD = "pod"
    """A container of a Kubernetes pod, or what runs in the pod's own cgroup."""
    CONTAINER = "container"
    """A container of docker, podman or another engine without Kubernetes."""
    VM = "vm"
    """A guest of libvirt."""
    GROUP = "group"
    """A group of processes that the configuration names."""
    OTHER = "other"
    """A cgroup that nothing is known of, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload. `name` is what metrics and commands call it, unique on the machine.

    `cgroup` is the path below the root of the hierarchy that holds all of its processes and nothing else; None for a
    group of the configuration and for a cgroup shared with others.
    """

    kind: WorkloadKind
    name: str
    cgroup: str | None = None
