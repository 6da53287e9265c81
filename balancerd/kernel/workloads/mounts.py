"""Where the files of a cgroup are: the mounts of its hierarchies, and a cgroup's directory below each.

Owns /proc/self/mountinfo as far as cgroups go. It must not know what the files say.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMount:
    """A mount of a cgroup hierarchy. `root` is the cgroup that one sees at `point`.

    `controllers` are those of a hierarchy of version 1, which are its mount options; version 2 tells none there.
    """

    version: int
    root: str
    point: str
    controllers: frozenset[str] = frozenset()

    def directory(self, cgroup: str) -> str | None:
        """Return where the files of `cgroup` are, None when this mount does not show them.

        Both paths are relative to the root of this process's cgroup namespace; ".." leads out of it.
        """
        root = self.root.rstrip("/")
        if cgroup != root and not cgroup.startswith(f"{root}/"):
            return None
        below = cgroup[len(root) :].rstrip("/")
        return None if ".." in below.split("/") else self.point + below


def read_mounts(procfs: str = "/proc") -> tuple[CgroupMount, ...]:
    """Read where cgroup hierarchies are mounted, as this process sees it. Raises OSError or ParseError."""
    path = f"{procfs}/self/mountinfo"
    return parse_mountinfo(read_bytes(path), path)


def parse_mountinfo(text: bytes, path: str) -> tuple[CgroupMount, ...]:
    """Parse /proc/PID/mountinfo (proc_pid_mountinfo(5)) into the mounts of cgroup hierarchies, in its order."""
    mounts: list[CgroupMount] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        before, separator, after = line.partition(b" - ")
        fields, filesystem = before.split(), after.split()
        if not separator or len(fields) < 6 or len(filesystem) < 2:
            raise ParseError(path, number, line, "not a mount")
        if filesystem[0] not in {b"cgroup", b"cgroup2"}:
            continue
        is_v1 = filesystem[0] == b"cgroup"
        options = filesystem[2].split(b",") if is_v1 and len(filesystem) > 2 else ()
        mounts.append(
            CgroupMount(
                version=1 if is_v1 else 2,
                root=_text(fields[3]),
                point=_text(fields[4]),
                controllers=frozenset(option.decode("ascii", "replace") for option in options) - {"rw", "ro"},
            )
        )
    return tuple(mounts)


def memory_mount(mounts: Iterable[CgroupMount]) -> CgroupMount | None:
    """Return the mount that accounts the memory of cgroups, None when there is none.

    That is the v1 hierarchy of the controller "memory" where there is one, else cgroup v2; of several mounts of it
    the one that shows most, the first of these.
    """
    accounting = (mount for mount in mounts if mount.version == 2 or "memory" in mount.controllers)
    return min(accounting, key=lambda mount: (mount.version, _n_hidden(mount.root)), default=None)


def membership_mounts(mounts: Iterable[CgroupMount]) -> tuple[CgroupMount, ...]:
    """Return the mounts of the hierarchies whose paths are taken for a process's cgroup, version 2 first.

    See parse_cgroup() in kernel/processes/status.py.
    """
    named = (mount for mount in mounts if mount.version == 2 or mount.controllers & {"cpuset", "memory"})
    return tuple(sorted(named, key=lambda mount: -mount.version))


def _text(field: bytes) -> str:
    plain = _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field)
    return plain.decode("utf-8", "surrogateescape")


def _n_hidden(root: str) -> int:
    """Return how many levels of the hierarchy a mount with this root hides; those above the namespace count less."""
    return sum(-1 if part == ".." else 1 for part in root.split("/") if part)
