"""One tick as told to every sink: metrics, the log line, the control socket."""

from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.model.decision import Reason, Verdict
from balancerd.model.ids import NodeId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, MigrationPlan, RunsNow
from balancerd.model.sample import PlacementSample, ProcessSample, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """One surveyed process at the end of a tick.

    `run_ratio` is the share of its recent run time on each node; `local_ratio` the share of its
    memory that lies where it runs, None when either is unknown. `verdicts` are in the order in which
    they fell: selection, policies, plan; the last one gives `reason`. `outcome` is there when pages
    were to be moved in this tick.
    """

    process: ProcessSample
    placement: PlacementSample | None
    run_ratio: Mapping[NodeId, float] | None
    local_ratio: float | None
    verdicts: tuple[Verdict, ...]
    reason: Reason
    detail: str
    outcome: MigrationOutcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """Everything one tick saw, decided and did. `phase_seconds` is wall time by phase of the tick.

    `scan_cpu_seconds` is the CPU time that observing has used since the tick before, of all the daemon's threads;
    `scan_budget_ratio` is the share of one core that it may use.
    """

    number: int
    mode: str
    survey: Survey
    sampled: tuple[PlacementSample, ...]
    verdicts: tuple[Verdict, ...]
    plan: MigrationPlan
    outcomes: tuple[MigrationOutcome, ...]
    evictions: tuple[EvictionOutcome, ...] = ()
    returns: tuple[RunsNow, ...] = ()
    """Where pages moved earlier were found in this tick, of the moves that were due for a check."""
    processes: tuple[ProcessReport, ...]
    phase_seconds: Mapping[str, float]
    policy_errors: Mapping[str, str]
    scan_cpu_seconds: float = 0.0
    scan_budget_ratio: float | None = None
