"""Which processes deserve a closer look in this tick, and why the others do not."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from balancerd.engine.looks import Looks
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PlacementSample, ProcessSample, SampleRequest, Survey

BY = "select"

TYPICAL_SAMPLE_SECONDS = 0.0015
"""Assumed cost of the first look at a process: 2048 addresses at ~0.5 us and its list of mappings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """The `select` section of the configuration. `own_pid` is never selected."""

    min_rss_bytes: int
    min_cpu_cores: float
    min_age_seconds: float
    own_pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Who is eligible, whom to sample now, and everyone else with the reason."""

    eligible: tuple[ProcessSample, ...]
    requests: tuple[SampleRequest, ...]
    skips: tuple[Skip, ...]


def reason_to_skip(process: ProcessSample, criteria: Criteria) -> Skip | None:
    """Return why a process is none of our business, or None when it is."""
    reason, detail = None, ""
    if process.kernel_thread:
        reason = Reason.KERNEL_THREAD
    elif process.id.pid == criteria.own_pid:
        reason = Reason.SELF
    elif process.rss_bytes < criteria.min_rss_bytes:
        reason, detail = Reason.BELOW_MIN_RSS, f"{process.rss_bytes >> 20} of {criteria.min_rss_bytes >> 20} MiB"
    elif process.age_seconds < criteria.min_age_seconds:
        reason, detail = Reason.BELOW_MIN_AGE, f"{process.age_seconds:.0f} of {criteria.min_age_seconds:.0f} s"
    elif process.cpu_cores is None:
        reason = Reason.FIRST_SIGHT
    elif process.cpu_cores < criteria.min_cpu_cores:
        reason, detail = Reason.BELOW_MIN_CPU, f"{process.cpu_cores:.3f} of {criteria.min_cpu_cores:.3f} cores"
    return None if reason is None else Skip(by=BY, process=process.id, reason=reason, detail=detail)


def select(
    survey: Survey,
    criteria: Criteria,
    *,
    known: Mapping[ProcessId, PlacementSample],
    wanted: AbstractSet[ProcessId],
    looks: Looks,
    budget_seconds: float,
) -> Selection:
    """Choose whom to sample: first those that a plan waits for, then the unknown, then the longest unseen.

    `known` holds the newest placement of each process; `wanted` those whose placement must be fresh;
    `looks` says when another look at the others is due; `budget_seconds` bounds the predicted cost,
    but one process is always looked at.
    """
    eligible: list[ProcessSample] = []
    skips: list[Skip] = []
    for process in survey.processes:
        skip = reason_to_skip(process, criteria)
        if skip is None:
            eligible.append(process)
        else:
            skips.append(skip)

    def last_seen(process: ProcessSample) -> float:
        placement = known.get(process.id)
        return float("-inf") if placement is None else placement.taken_at

    requests: list[SampleRequest] = []
    spent = 0.0
    for process in sorted(eligible, key=lambda p: (p.id not in wanted, last_seen(p), p.id)):
        placement = known.get(process.id)
        if placement is not None and process.id not in wanted and not looks.is_due(process, survey.taken_at):
            continue
        cost = TYPICAL_SAMPLE_SECONDS if placement is None else placement.seconds
        if requests and spent + cost > budget_seconds:
            if placement is None:
                skips.append(Skip(by=BY, process=process.id, reason=Reason.SCAN_BUDGET))
            continue
        spent += cost
        requests.append(SampleRequest(process=process.id, rss_bytes=process.rss_bytes))
    return Selection(eligible=tuple(eligible), requests=tuple(requests), skips=tuple(skips))
