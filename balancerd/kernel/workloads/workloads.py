"""Which workload a process belongs to: a group of the configuration, or what its cgroup says, by the best known name.

Owns what is remembered of cgroups, so that a process costs a look into a dictionary. Nothing here waits for another
program; what cannot be read leaves a workload with a short id for its name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from balancerd.engine.rules import Group, find_group
from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.machine.pressure import parse_pressure
from balancerd.kernel.workloads.mounts import CgroupMount, memory_mount, read_mounts
from balancerd.kernel.workloads.names import SHORT_ID_CHARACTERS, HostNames
from balancerd.kernel.workloads.numa_stat import MAPPED_KINDS, mapped_bytes, read_numa_stat
from balancerd.kernel.workloads.paths import Membership, parse_path
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import ProcessSample
from balancerd.model.workload import Workload, WorkloadKind
from balancerd.ports import Clock

_NAMED_SECONDS: Final = 300.0
"""How long a name found in a file is believed: containers can be renamed."""
_UNNAMED_SECONDS: Final = 30.0
"""How soon a name that was not found is looked for again: logs appear a moment after their container."""
_MOST_REMEMBERED: Final = 4096
_MOST_JUDGED: Final = 16384
_ENDLESS: Final = float("inf")
_Traits: TypeAlias = tuple[Workload | None, str | None, str, int | None, str | None, str | None]


class Workloads:
    """Names the workload of each process. `root` is where the files of this machine are, `procfs` its /proc."""

    def __init__(
        self, clock: Clock, *, groups: Sequence[Group] = (), procfs: str = "/proc", root: Path = Path("/")
    ) -> None:
        self._groups = tuple(groups)
        self._clock = clock
        self._procfs = procfs
        self._root = root
        self._names = HostNames(root)
        self._known: dict[str, tuple[float, Workload]] = {}
        self._judged: dict[ProcessId, tuple[_Traits, Group | None]] = {}
        self._mount: CgroupMount | None = None

    @property
    def unreadable(self) -> dict[str, str]:
        """What holds names and could not be read, with the reason: to be said once."""
        return dict(self._names.unreadable)

    def use(self, groups: Sequence[Group]) -> None:
        """Take the groups of a new configuration."""
        self._groups = tuple(groups)
        self._judged.clear()

    def of(self, process: ProcessSample) -> Workload | None:
        """Return the workload of a process, None when neither a group nor its cgroup is known."""
        workload = None if process.cgroup is None else self._of_cgroup(process.cgroup)
        group = self._group_of(process, workload) if self._groups else None
        return workload if group is None else Workload(kind=WorkloadKind.GROUP, name=group.name)

    def annotate(self, process: ProcessSample) -> ProcessSample:
        """Return the process with its workload: the very same record where that is known already."""
        workload = self.of(process)
        return process if process.workload == workload else replace(process, workload=workload)

    def bytes_by_node(self, cgroups: Iterable[str]) -> dict[str, dict[NodeId, int]]:
        """Read what processes map of each cgroup's memory, by node; those that cannot be read are left out.

        Whole cgroups are meant, `Workload.cgroup`. Cheap and exact; see numa_stat for what is counted.
        """
        mount = self._memory_mount()
        if mount is None:
            return {}
        found: dict[str, dict[NodeId, int]] = {}
        for cgroup in cgroups:
            try:
                stat = read_numa_stat(mount, cgroup, kinds=MAPPED_KINDS[mount.version])
            except (OSError, ParseError):
                continue
            if stat is not None:
                found[cgroup] = mapped_bytes(stat, version=mount.version)
        return found

    def memory_pressure(self, cgroups: Iterable[str]) -> dict[str, float]:
        """Read memory.pressure of cgroups of version 2; those that cannot be read are left out."""
        mount = self._memory_mount()
        if mount is None or mount.version != 2:
            return {}
        found: dict[str, float] = {}
        for cgroup in cgroups:
            directory = mount.directory(cgroup)
            if directory is None:
                continue
            path = f"{directory}/memory.pressure"
            try:
                found[cgroup] = parse_pressure(read_bytes(path), path)
            except (OSError, ParseError):
                continue
        return found

    def _group_of(self, process: ProcessSample, workload: Workload | None) -> Group | None:
        """Judge a process only once, until something that a rule may ask for has changed."""
        traits = (workload, process.cgroup, process.comm, process.uid, process.exe, process.cmdline)
        known = self._judged.get(process.id)
        if known is not None and known[0] == traits:
            return known[1]
        if len(self._judged) >= _MOST_JUDGED:
            self._judged.clear()
        group = find_group(self._groups, replace(process, workload=workload))
        self._judged[process.id] = (traits, group)
        return group

    def _of_cgroup(self, cgroup: str) -> Workload:
        now = self._clock.now()
        known = self._known.get(cgroup)
        if known is not None and now < known[0]:
            return known[1]
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        until, workload = self._name(parse_path(cgroup), now)
        self._known[cgroup] = (until, workload)
        return workload

    def _name(self, member: Membership, now: float) -> tuple[float, Workload]:
        """Return the workload, and until when its name holds."""
        if member.name:
            return _ENDLESS, Workload(kind=member.kind, name=member.name, cgroup=member.cgroup)
        found = self._names.find(member, now)
        if found is not None:
            kind, name = found
            return now + _NAMED_SECONDS, Workload(kind=kind, name=name, cgroup=member.cgroup)
        id_ = member.container_id
        name = f"pod/{member.pod_uid}" if id_ is None else id_[:SHORT_ID_CHARACTERS]
        return now + _UNNAMED_SECONDS, Workload(kind=member.kind, name=name, cgroup=member.cgroup)

    def _memory_mount(self) -> CgroupMount | None:
        if self._mount is None:
            try:
                mount = memory_mount(read_mounts(self._procfs))
            except (OSError, ParseError):
                return None
            if mount is not None:
                self._mount = replace(mount, point=f"{str(self._root).rstrip('/')}{mount.point}")
        return self._mount
