"""What a tick meant for each process: the verdicts on it in order, and the one that counts."""

from collections.abc import Iterable, Mapping, Sequence
from operator import is_

from balancerd.model.decision import REASON_TEXT, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.report import ProcessReport
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, Snapshot
from balancerd.model.steering import SteerKind, SteerOutcome, ThreadFate
from balancerd.model.topology import Topology

NOT_ITS_BUSINESS = frozenset(
    {
        *(Reason.ONE_HOME, Reason.SEVERAL_HOMES, Reason.NOT_MATCHED, Reason.INSIDE_CPUSET, Reason.DRAINED),
        *(Reason.ONE_TIER, Reason.HEAT_UNKNOWN, Reason.NOTHING_COLD, Reason.ROOMY),
    }
)
"""Why a policy leaves a process to another one; if that one says more, its reason counts."""


class Storyteller:
    """Tells of every surveyed process, and of one of which nothing is new by the very same report."""

    def __init__(self) -> None:
        self._told: dict[ProcessId, ProcessReport] = {}
        self._steered: frozenset[ProcessId] = frozenset()

    def tell(
        self,
        snapshot: Snapshot,
        verdicts: Iterable[Verdict],
        outcomes: Iterable[MigrationOutcome],
        evictions: Iterable[EvictionOutcome] = (),
        steers: Iterable[SteerOutcome] = (),
    ) -> tuple[ProcessReport, ...]:
        """Return one report for each surveyed process, in the order of the survey."""
        by_process: dict[ProcessId, list[Verdict]] = {}
        for verdict in verdicts:
            by_process.setdefault(verdict.process, []).append(verdict)
        moved: dict[ProcessId, list[MigrationOutcome]] = {}
        for outcome in outcomes:
            moved.setdefault(outcome.step.process, []).append(outcome)
        evicted = {outcome.step.process: outcome for outcome in evictions}
        steered = {o.step.process: o for o in steers if not o.is_release}
        told: dict[ProcessId, ProcessReport] = {}
        for process in snapshot.survey.processes:
            id_ = process.id
            placement, its = snapshot.placements.get(id_), by_process.get(id_, [])
            known = self._told.get(id_)
            if (
                known is not None
                and known.process is process
                and known.placement is placement
                and id_ not in moved
                and id_ not in evicted
                and id_ not in steered
                and id_ not in self._steered
                and known.outcome is None
                and _are_same(known.verdicts, its)
            ):
                told[id_] = known
            else:
                told[id_] = report(
                    process,
                    placement,
                    tuple(its),
                    moved.get(id_, ()),
                    snapshot.survey.topology,
                    eviction=evicted.get(id_),
                    steer=steered.get(id_),
                )
        self._told, self._steered = told, frozenset(steered)
        return tuple(told.values())


def _are_same(before: Sequence[Verdict], now: Sequence[Verdict]) -> bool:
    return len(before) == len(now) and all(map(is_, before, now))


def report(
    process: ProcessSample,
    placement: PlacementSample | None,
    verdicts: tuple[Verdict, ...],
    outcomes: Sequence[MigrationOutcome],
    topology: Topology,
    *,
    eviction: EvictionOutcome | None = None,
    steer: SteerOutcome | None = None,
) -> ProcessReport:
    """Return what became of one process, and the reason that counts."""
    run = run_ratio(process, topology)
    reason, detail = _final(verdicts, outcomes, eviction, steer)
    return ProcessReport(
        process=process,
        placement=placement,
        run_ratio=run,
        local_ratio=local_ratio(run, placement),
        verdicts=verdicts,
        reason=reason,
        detail=detail,
        outcome=max(outcomes, key=lambda o: o.moved_pages, default=None),
    )


def run_ratio(process: ProcessSample, topology: Topology) -> Mapping[NodeId, float] | None:
    """Return the share of the process's latest run time on each node, None when it is not known to have run."""
    seconds = {node: s for node, s in (process.run_seconds or {}).items() if node in topology.node_ids}
    total = sum(seconds.values())
    return {node: s / total for node, s in sorted(seconds.items())} if total > 0 else None


def local_ratio(run: Mapping[NodeId, float] | None, placement: PlacementSample | None) -> float | None:
    """Return the share of memory that lies where the process runs: the sum over nodes of min(run, memory)."""
    if run is None or placement is None:
        return None
    held = placement.bytes_by_node
    total = sum(held.values())
    return sum(min(share, held.get(node, 0) / total) for node, share in run.items()) if total else None


def _final(
    verdicts: tuple[Verdict, ...],
    outcomes: Sequence[MigrationOutcome],
    eviction: EvictionOutcome | None,
    steer: SteerOutcome | None,
) -> tuple[Reason, str]:
    if steer is not None:
        return steer.stopped_by or steer.step.reason, _tell_steer(steer)
    if outcomes:
        stopped_by = next((o.stopped_by for o in outcomes if o.stopped_by is not None), None)
        return stopped_by or outcomes[0].step.reason, "; ".join(map(_tell_outcome, outcomes))
    if eviction is not None:
        return eviction.stopped_by or eviction.step.reason, _tell_eviction(eviction)
    decided = [v for v in verdicts if not isinstance(v, Skip)]
    rejected = [v for v in verdicts if isinstance(v, Skip) and v.by in {"plan", "tick"}]
    held = [v for v in verdicts if isinstance(v, Skip) and v.holds]
    judged = [v for v in verdicts if v.reason not in NOT_ITS_BUSINESS]
    claims = [v for v in rejected if v.reason is Reason.CLAIMED]
    rejected = [v for v in rejected if v.reason is not Reason.CLAIMED]
    for last in (
        *reversed(rejected),
        *held[:1],
        *reversed(claims),
        *reversed(decided),
        *reversed(judged),
        *reversed(verdicts),
    ):
        return last.reason, last.detail
    return Reason.NOT_SAMPLED, REASON_TEXT[Reason.NOT_SAMPLED]


def _tell_outcome(outcome: MigrationOutcome) -> str:
    if outcome.stopped_by is Reason.OBSERVE_MODE:
        return f"would move to node {outcome.step.target}"
    told = f"moved {outcome.moved_pages * PAGE_BYTES >> 20} MiB to node {outcome.step.target}"
    failed = ", ".join(
        f"{pages} pages {status}"
        for status, pages in sorted(outcome.pages.items())
        if pages and status is not PageStatus.MOVED
    )
    more = "; ".join(part for part in (failed, outcome.detail) if part)
    return f"{told}; {more}" if more else told


def _tell_eviction(outcome: EvictionOutcome) -> str:
    verb = "marked" if outcome.step.cold_only else "evicted"
    pages = outcome.advised_pages if outcome.step.cold_only else outcome.evicted_pages
    if outcome.stopped_by is Reason.OBSERVE_MODE:
        return "would mark memory as cold" if outcome.step.cold_only else "would evict memory"
    told = f"{verb} {pages * PAGE_BYTES >> 20} MiB"
    kept = "" if outcome.step.cold_only or not outcome.kept_pages else f"{outcome.kept_pages} pages stayed"
    more = "; ".join(part for part in (kept, outcome.detail) if part)
    return f"{told}; {more}" if more else told


def _tell_steer(outcome: SteerOutcome) -> str:
    step = outcome.step
    if outcome.stopped_by is Reason.OBSERVE_MODE:
        return f"would move its threads to node {step.target}"
    done = "held on" if step.kind is SteerKind.PIN else "moved to"
    told = f"{outcome.steered_threads or 'no'} threads {done} node {step.target}"
    others = ", ".join(
        f"{number} {fate.value}"
        for fate, number in sorted(outcome.threads.items())
        if number and fate not in {ThreadFate.MOVED, ThreadFate.PINNED}
    )
    more = "; ".join(part for part in (others, outcome.detail) if part)
    return f"{told}; {more}" if more else told
