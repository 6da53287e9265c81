"""What was observed: processes and threads (survey), which node holds their pages (sample), and both together."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from balancerd.model.access import AccessWindow
from balancerd.model.copying import Copying
from balancerd.model.decision import Skip
from balancerd.model.heat import Heats
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.interval import Interval
from balancerd.model.machine import Machine
from balancerd.model.manager import Manager, ManagerFinding
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.topology import NodeMemory, Topology
from balancerd.model.workload import Workload

PAGE_BYTES = 4096
"""Base page size of x86-64; counts of pages are in base pages everywhere, whatever the folio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """One process as the survey saw it when it was last read: those that change little are not read at every survey.

    `rss_bytes` includes hugetlb pages where they were read. `cpu_cores` is run time over elapsed time between two
    readings: 1.0 is one busy core, None at first sight. `run_seconds` is the run time since the reading before, by the
    node of the CPU on which each thread ran last. It, `cpus_allowed`, `mems_allowed`, `uid`, `cgroup` and `workload`
    are read only for processes busy enough to matter, `exe` and `cmdline` only when a rule asks for them; None where
    they were not read or could not be. `opt_out` says where its owner asked for it to be left alone, None: nowhere.
    """

    id: ProcessId
    comm: str
    age_seconds: float
    rss_bytes: int
    cpu_cores: float | None
    kernel_thread: bool = False
    n_threads: int = 1
    uid: int | None = None
    cgroup: str | None = None
    workload: Workload | None = None
    exe: str | None = None
    cmdline: str | None = None
    run_seconds: Mapping[NodeId, float] | None = None
    faults_per_second: float | None = None
    """Minor and major page faults between two readings."""
    cpus_allowed: frozenset[CpuId] | None = None
    mems_allowed: frozenset[NodeId] | None = None
    opt_out: str | None = None
    manager: Manager | None = None
    """Who else has placed this very process: LIBVIRT, KUBELET_CPU, KUBELET_MEMORY, NUMA_POLICY or AFFINITY."""
    manager_detail: str = ""
    """How: "unit a.service: NUMAPolicy=bind in ..."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Share of the last ten seconds in which some task waited for CPU or for memory: "some avg10" of proc(5) pressure.

    None where the kernel does not tell.
    """

    cpu_ratio: float | None
    memory_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All processes in one cheap pass. `processes` holds those of at least the surveyed size.

    `interval_seconds` is the time since the previous survey (None for the first); the counts tell
    what was passed over: smaller processes, kernel threads, those that vanished while being read, and those whose
    stat could not be understood. `read_processes` were read anew in this pass, the others are told as they were.
    `workload_bytes` is what memory.numa_stat tells of some cgroups: exact, by cgroup path and node; `workload_pressure`
    the share of the last ten seconds in which some task of a workload's cgroup waited for memory, where that was asked.
    """

    taken_at: float
    interval_seconds: float | None
    topology: Topology
    memory: Mapping[NodeId, NodeMemory]
    processes: tuple[ProcessSample, ...]
    small_processes: int = 0
    kernel_threads: int = 0
    vanished_processes: int = 0
    unreadable_processes: int = 0
    read_processes: int = 0
    pressure: Pressure = Pressure(cpu_ratio=None, memory_ratio=None)
    machine: Machine | None = None
    managers: tuple[ManagerFinding, ...] = ()
    workload_bytes: Mapping[str, Mapping[NodeId, int]] = field(default_factory=dict)
    workload_pressure: Mapping[str, float] = field(default_factory=dict)


class VmaKind(enum.StrEnum):
    """What a mapping holds, as far as its line in /proc/PID/maps tells."""

    ANON = "anon"
    HEAP = "heap"
    STACK = "stack"
    FILE = "file"
    SHMEM = "shmem"
    HUGETLB = "hugetlb"
    SPECIAL = "special"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mempolicy:
    """A mapping's memory policy as numa_maps prints it, e.g. mode "bind" over nodes {2}; see numa(7)."""

    mode: str
    nodes: frozenset[NodeId] = frozenset()

    @property
    def explicit(self) -> bool:
        """Whether someone chose it: anything but the default and "local", which asks for what we do."""
        return self.mode not in {"default", "local"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vma:
    """One mapping, [start, end). `page_bytes` and `mempolicy` are None until numa_maps was read for them.

    `exclusive` is what it told, too: no other process maps any of the pages that this one does.

    `program` tells that it maps a file of which some mapping is executable, the program itself or a library, but not
    its variables, of which a process has pages of its own; `guarded` that a small mapping without any permission ends
    where it begins, as below the stack of a thread. `backing` names shared memory that processes have from each other
    only, as by fork(2), and is the same for all who map it: "MAJOR:MINOR:INODE"; "" for all else. `own` tells that it
    is private and writable: what is written to is the process's, and no page of a file any more.
    """

    start: int
    end: int
    kind: VmaKind
    shared: bool = False
    executable: bool = False
    program: bool = False
    guarded: bool = False
    own: bool = False
    name: str = ""
    backing: str = ""
    page_bytes: int | None = None
    mempolicy: Mempolicy | None = None
    exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VmaPlacement:
    """Estimated base pages of one mapping by node; `absent_pages` are not populated.

    `found_pages` is how many pages were asked for and found present: how sure the estimate is. 0 with nothing absent
    means that no page of it was asked for.
    """

    vma: Vma
    pages_by_node: Mapping[NodeId, float]
    absent_pages: float
    found_pages: int = 0


def bytes_by_node(vmas: Iterable[VmaPlacement]) -> dict[NodeId, int]:
    """Return the estimated bytes of some mappings on each node that holds any, nodes ascending."""
    total: dict[NodeId, float] = {}
    for placed in vmas:
        for node, pages in placed.pages_by_node.items():
            total[node] = total.get(node, 0.0) + pages
    return {node: round(pages * PAGE_BYTES) for node, pages in sorted(total.items()) if pages > 0}


def bytes_by_kind(vmas: Iterable[VmaPlacement]) -> dict[VmaKind, dict[NodeId, int]]:
    """Return the estimated bytes of some mappings by what they hold and by node, without kinds that hold nothing."""
    by_kind: dict[VmaKind, list[VmaPlacement]] = {}
    for placed in vmas:
        by_kind.setdefault(placed.vma.kind, []).append(placed)
    totals = {kind: bytes_by_node(by_kind[kind]) for kind in VmaKind if kind in by_kind}
    return {kind: nodes for kind, nodes in totals.items() if nodes}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSample:
    """Which nodes hold the pages of one process, from `queried_pages` addresses of which `present_pages` had a page.

    `vmas` are those in which a page was found; a sample that is `complete` lists every mapping, as a move needs it.
    `exact` when every page was asked for; else `intervals` bounds each node's share of all that is present with 95 %
    confidence. `mempolicies_at` is when numa_maps was last read, None if never. `n_vmas` counts all mappings with any
    permission.
    """

    process: ProcessId
    taken_at: float
    vmas: tuple[VmaPlacement, ...]
    queried_pages: int
    present_pages: int
    exact: bool
    seconds: float
    mempolicies_at: float | None = None
    method: PlacementMethod = PlacementMethod.SAMPLE
    intervals: Mapping[NodeId, Interval] = field(default_factory=dict)
    n_vmas: int = 0
    complete: bool = True

    @property
    def bytes_by_node(self) -> dict[NodeId, int]:
        """Estimated bytes on each node that holds any."""
        return bytes_by_node(self.vmas)

    @property
    def bytes_by_kind(self) -> dict[VmaKind, dict[NodeId, int]]:
        """Estimated bytes of each kind of mapping on each node that holds any."""
        return bytes_by_kind(self.vmas)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """Ask for the placement of one process; with `read_mempolicies`, read numa_maps too (cost grows with RSS).

    With a `home`, a sequential test comes first: when it says that the process is well placed there, no more is asked.
    """

    process: ProcessId
    rss_bytes: int
    read_mempolicies: bool = False
    home: NodeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The answer to some requests: a placement for each process, or the reason why there is none."""

    placements: tuple[PlacementSample, ...]
    missed: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything known at one tick. `placements` holds the newest known of each surveyed process.

    `accesses` holds the windows of those that are watched, `unwatched` those for which a policy asked in vain. `heats`
    is what is known of how much memory is used, whoever uses it.
    """

    taken_at: float
    survey: Survey
    placements: Mapping[ProcessId, PlacementSample]
    eligible: tuple[ProcessSample, ...]
    """The surveyed processes that selection let through: policies judge these and no others."""
    idle: tuple[ProcessSample, ...] = ()
    """Those that it would let through if they used more CPU, known while a policy is at work that says where memory
    belongs whoever uses it (ports.PlacingPlugin): such policies judge these, too, others must not."""
    accesses: Mapping[ProcessId, AccessWindow] = field(default_factory=dict)
    unwatched: Mapping[ProcessId, Skip] = field(default_factory=dict)
    heats: Heats = field(default_factory=Heats)
    copying: Copying = field(default_factory=Copying)
    """How fast memory has moved so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Two successive snapshots: what a policy decides from. `before` is None at the first tick."""

    now: Snapshot
    before: Snapshot | None
