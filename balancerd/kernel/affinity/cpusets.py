"""Which CPUs the cpuset of a process allows: what its threads may run on when nobody has chosen an affinity for them.

It must not know affinities, nor what anybody does with the answer.
"""

from collections.abc import Iterator

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes, read_if_there
from balancerd.kernel.workloads.mounts import CgroupMount, read_mounts
from balancerd.model.ids import CpuId, parse_id_list

FILES = {2: "cpuset.cpus.effective", 1: "cpuset.effective_cpus"}
"""By version of the hierarchy: cgroup-v2.rst, cgroup-v1/cpusets.rst."""


def read_cpuset_cpus(pid: int, procfs: str = "/proc", sysfs: str = "/sys") -> frozenset[CpuId]:
    """Return the CPUs that the cpuset of a process allows, all that are online where there are no cpusets.

    Raises OSError or ParseError: what cannot be told must not be guessed.
    """
    membership = f"{procfs}/{pid}/cgroup"
    paths = parse_memberships(read_bytes(membership), membership)
    for mount in sorted(read_mounts(procfs), key=lambda mount: mount.version):
        cgroup = paths.get(mount.version) if mount.version == 2 or "cpuset" in mount.controllers else None
        if cgroup is None:
            continue
        for directory in _upwards(mount, cgroup):
            path = f"{directory}/{FILES[mount.version]}"
            text = read_if_there(path)
            if text is not None:
                return _parse_cpus(text, path)
    path = f"{sysfs}/devices/system/cpu/online"
    return _parse_cpus(read_bytes(path), path)


def read_possible_cpus(sysfs: str = "/sys") -> frozenset[CpuId]:
    """Return every CPU that this machine can ever have. Raises OSError or ParseError."""
    path = f"{sysfs}/devices/system/cpu/possible"
    return _parse_cpus(read_bytes(path), path)


def parse_memberships(text: bytes, path: str) -> dict[int, str]:
    """Parse /proc/PID/cgroup (cgroups(7)) into the cgroup in version 2, and in the cpuset hierarchy of version 1."""
    found: dict[int, str] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        parts = line.split(b":", 2)
        if len(parts) != 3 or not parts[2].startswith(b"/"):
            raise ParseError(path, number, line, "not a cgroup membership")
        if parts[0] == b"0" and not parts[1]:
            found[2] = parts[2].decode("utf-8", "surrogateescape")
        elif b"cpuset" in parts[1].split(b","):
            found[1] = parts[2].decode("utf-8", "surrogateescape")
    return found


def _upwards(mount: CgroupMount, cgroup: str) -> Iterator[str]:
    """Yield the directory of a cgroup and those of the cgroups around it, as far as the mount shows them.

    Where a cgroup has no cpuset of its own, that of the nearest one around it holds.
    """
    directory = mount.directory(cgroup)
    while directory is not None and (directory == mount.point or directory.startswith(f"{mount.point}/")):
        yield directory
        directory = None if directory == mount.point else directory.rpartition("/")[0]


def _parse_cpus(text: bytes, path: str) -> frozenset[CpuId]:
    try:
        return frozenset(map(CpuId, parse_id_list(text.decode("ascii"))))
    except ValueError as error:
        raise ParseError(path, 1, text, str(error)) from error
