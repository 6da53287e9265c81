"""One tick as told to every sink: metrics, the log line, the control socket."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.model.access import AccessWindow
from balancerd.model.copying import Copying
from balancerd.model.decision import Reason, Verdict
from balancerd.model.heat import Heats
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.judged import JudgedMove
from balancerd.model.manager import Manager
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, MigrationPlan, RunsNow
from balancerd.model.sample import PlacementSample, ProcessSample, Survey
from balancerd.model.steering import SteerOutcome
from balancerd.model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """One surveyed process at the end of a tick.

    `run_ratio` is the share of its recent run time on each node; `local_ratio` the share of its
    memory that lies where it runs, None when either is unknown. `verdicts` are in the order in which
    they fell: selection, policies, plan; the last one gives `reason`. `outcome` is there when pages
    were to be moved in this tick; of several steps over parts of the process it is the one that moved most.
    """

    process: ProcessSample
    placement: PlacementSample | None
    run_ratio: Mapping[NodeId, float] | None
    local_ratio: float | None
    verdicts: tuple[Verdict, ...]
    reason: Reason
    detail: str
    outcome: MigrationOutcome | None = None

    @property
    def remote_bytes(self) -> int | None:
        """Memory that lies away from where it runs, of its resident size; None when that is not known."""
        return None if self.local_ratio is None else round(self.process.rss_bytes * (1 - self.local_ratio))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadReport:
    """One workload at the end of a tick: the sum over its surveyed processes, `members`.

    `rss_bytes` counts memory that several of them map as often as they do. `bytes_by_node` is `exact` when the cgroup
    told it: what all of its processes map, small ones too, each page once. Else each process's placement is scaled to
    its resident size, and `known_bytes` is the part of `rss_bytes` whose placement is known. `cores_by_node` is the CPU
    use of those whose node is known; `cpu_cores` is None at first sight. `judged_bytes` is the part of which both is
    known, `local_bytes` how much of it lies where its process runs.

    `pending_bytes` is what policies want moved and this tick did not move; `moving_processes` are on their way, `held`
    are those that policies want to move and that stay, by reason.
    """

    workload: Workload
    members: tuple[ProcessId, ...]
    threads: int
    rss_bytes: int
    cpu_cores: float | None
    cores_by_node: Mapping[NodeId, float]
    bytes_by_node: Mapping[NodeId, int]
    exact: bool
    known_bytes: int
    judged_bytes: int
    local_bytes: int
    pending_bytes: int = 0
    moving_processes: int = 0
    held: Mapping[Reason, int] = field(default_factory=dict)

    @property
    def known_ratio(self) -> float | None:
        """Share of the resident memory of which `bytes_by_node` tells; None when there is none."""
        return self.known_bytes / self.rss_bytes if self.rss_bytes else None

    @property
    def local_ratio(self) -> float | None:
        """Share of its memory that lies where its processes run; None when that is not known of any."""
        return self.local_bytes / self.judged_bytes if self.judged_bytes else None

    @property
    def remote_bytes(self) -> int | None:
        """Memory that lies away from where its process runs, as far as it is known; None when that is not at all."""
        return self.judged_bytes - self.local_bytes if self.judged_bytes else None

    @property
    def run_ratio(self) -> Mapping[NodeId, float] | None:
        """Share of its CPU use on each node, None when that is not known."""
        total = sum(self.cores_by_node.values())
        return {node: cores / total for node, cores in self.cores_by_node.items()} if total > 0 else None


class Failure(enum.StrEnum):
    """Why a policy is asked no more: the metric label."""

    RAISED = "raised"
    SLOW = "slow"
    NONSENSE = "nonsense"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFailure:
    """What a policy did that it may not; `detail` is for people."""

    cause: Failure
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """Everything one tick saw, decided and did. `phase_seconds` is wall time by phase of the tick.

    `scan_cpu_seconds` is the CPU time that observing has used since the tick before, of all the daemon's threads but
    those that serve people; `scan_budget_ratio` is the share of one core that it may use.
    """

    number: int
    mode: str
    survey: Survey
    sampled: tuple[PlacementSample, ...]
    verdicts: tuple[Verdict, ...]
    plan: MigrationPlan
    outcomes: tuple[MigrationOutcome, ...]
    evictions: tuple[EvictionOutcome, ...] = ()
    steers: tuple[SteerOutcome, ...] = ()
    returns: tuple[RunsNow, ...] = ()
    """Where pages moved earlier were found in this tick, of the moves that were due for a check."""
    processes: tuple[ProcessReport, ...]
    phase_seconds: Mapping[str, float]
    policy_errors: Mapping[str, str]
    """What has disabled policies in this tick, by name."""
    disabled_policies: Mapping[str, PolicyFailure] = field(default_factory=dict)
    """Every policy that is asked no more until the configuration is loaded again."""
    workloads: tuple[WorkloadReport, ...] = ()
    """Each with at least one surveyed process, and with a name of its own."""
    next_looks: Mapping[ProcessId, float] = field(default_factory=dict)
    """When those that selection let through and that were looked at are due again, unless they change before."""
    accesses: tuple[AccessWindow, ...] = ()
    """What was seen of the processes that are watched, in this tick."""
    heats: Heats = field(default_factory=Heats)
    """The newest known of how much the memory of processes is used."""
    scan_cpu_seconds: float = 0.0
    scan_budget_ratio: float | None = None
    copying: Copying = field(default_factory=Copying)
    """How fast memory had moved when it was decided."""
    judged: tuple[JudgedMove, ...] = ()
    """Moves that were judged in this tick, by what was known of their processes."""
    paused: str | None = None
    """Why moves pause, to a node or everywhere; None when none does."""
    yield_to: frozenset[Manager] = frozenset()
    """Whom the configuration of this tick yields to."""

    @property
    def scan_cores(self) -> float | None:
        """The share of one core that observing has used since the tick before; None where that is not known."""
        interval = self.survey.interval_seconds
        return self.scan_cpu_seconds / interval if interval else None
