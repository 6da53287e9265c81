"""Which processes deserve a closer look in this tick, and why the others do not."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from balancerd.engine.looks import Circumstances, Looks, circumstances
from balancerd.engine.rules import Rules
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.model.manager import Manager
from balancerd.model.sample import PlacementSample, ProcessSample, SampleRequest, Survey
from balancerd.ports import SurveyScope

BY = "select"

TYPICAL_SAMPLE_SECONDS = 0.0015
"""Assumed cost of the first look at a process: 2048 addresses at ~0.5 us and its list of mappings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """The `select` section of the configuration. `own_pid` is never selected, nor whom one of `yield_to` has placed.

    `read_exe` and `read_cmdline` tell that some rule needs them of the processes. With `placing` some policy says where
    memory belongs whoever uses it: then idle processes are looked at, too, and nobody is only tested. With
    `read_workload_pressure` some policy goes by that.
    """

    min_rss_bytes: int
    min_cpu_cores: float
    min_age_seconds: float
    own_pid: int
    yield_to: frozenset[Manager] = frozenset()
    rules: Rules = field(default_factory=Rules)
    read_exe: bool = False
    read_cmdline: bool = False
    placing: bool = False
    read_workload_pressure: bool = False

    @property
    def scope(self) -> SurveyScope:
        """What a survey must read for these criteria."""
        return SurveyScope(
            min_rss_bytes=self.min_rss_bytes,
            min_cpu_cores=self.min_cpu_cores,
            read_exe=self.read_exe,
            read_cmdline=self.read_cmdline,
            read_idle=self.placing,
            read_workload_pressure=self.read_workload_pressure,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Who is eligible, whom to sample now, and everyone else with the reason.

    `seen` holds the circumstances under which the requested ones are looked at. `idle` are processes that only their
    CPU use speaks against, when the criteria ask for them; they have their skip, too.
    """

    eligible: tuple[ProcessSample, ...]
    requests: tuple[SampleRequest, ...]
    skips: tuple[Skip, ...]
    idle: tuple[ProcessSample, ...] = ()
    seen: Mapping[ProcessId, Circumstances] = field(default_factory=dict)


def reason_to_skip(process: ProcessSample, criteria: Criteria, *, also_idle: bool = False) -> Skip | None:
    """Return why a process is none of our business, or None when it is; with `also_idle`, whatever CPU it uses."""
    reason, detail, needs = None, "", ""
    if process.kernel_thread:
        reason = Reason.KERNEL_THREAD
    elif process.id.pid == criteria.own_pid:
        reason = Reason.SELF
    elif process.opt_out is not None:
        reason, detail = Reason.OPTED_OUT, process.opt_out
    elif process.rss_bytes < criteria.min_rss_bytes:
        reason, detail = Reason.BELOW_MIN_RSS, f"{process.rss_bytes >> 20} of {criteria.min_rss_bytes >> 20} MiB"
        needs = f"{-(-(criteria.min_rss_bytes - process.rss_bytes) >> 20)} MiB more resident memory"
    elif process.age_seconds < criteria.min_age_seconds:
        reason, detail = Reason.BELOW_MIN_AGE, f"{process.age_seconds:.0f} of {criteria.min_age_seconds:.0f} s"
        needs = f"{criteria.min_age_seconds - process.age_seconds:.1f} s more of age"
    elif process.cpu_cores is None:
        reason = Reason.FIRST_SIGHT
    elif process.cpu_cores < criteria.min_cpu_cores and not also_idle:
        reason, detail = Reason.BELOW_MIN_CPU, f"{process.cpu_cores:.3f} of {criteria.min_cpu_cores:.3f} cores"
        needs = f"{criteria.min_cpu_cores - process.cpu_cores:.3f} busy cores more"
    elif process.manager is not None and process.manager in criteria.yield_to:
        reason, detail = Reason.MANAGED, f"{process.manager.value}: {process.manager_detail}"
    elif (
        objection := criteria.rules.objection(process)
    ) is not None:  # last: user, cgroup and so on are read of the busy
        reason, detail = objection
    return None if reason is None else Skip(by=BY, process=process.id, reason=reason, detail=detail, needs=needs)


class Objections:
    """Why processes are none of our business, worked out once for each sample of a process.

    The survey tells a process that was not read again by the very same object, and for that the verdict stands.
    """

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._known: dict[ProcessId, tuple[ProcessSample, Skip | None, bool]] = {}
        self.precise = criteria.placing

    def to(self, process: ProcessSample) -> Skip | None:
        """Return the reason to leave the process alone, or None."""
        known = self._known.get(process.id)
        if known is not None and known[0] is process:
            return known[1]
        skip = reason_to_skip(process, self._criteria)
        is_idle = (
            self._criteria.placing
            and skip is not None
            and skip.reason is Reason.BELOW_MIN_CPU
            and reason_to_skip(process, self._criteria, also_idle=True) is None
        )
        self._known[process.id] = (process, skip, is_idle)
        return skip

    def is_idle(self, process: ProcessSample) -> bool:
        """Return whether a process, of which it was asked, is only too idle, and idle ones are wanted."""
        return self._known[process.id][2]

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone."""
        if len(self._known) > len(alive):
            self._known = {id_: known for id_, known in self._known.items() if id_ in alive}


def select(
    survey: Survey,
    objections: Objections,
    *,
    known: Mapping[ProcessId, PlacementSample],
    wanted: AbstractSet[ProcessId],
    looks: Looks,
    budget_seconds: float,
) -> Selection:
    """Choose whom to sample: first those that a plan waits for, then the unknown, then the longest unseen.

    `known` holds the newest placement of each process; `wanted` those whose placement must be fresh and precise;
    `looks` says when another look at the others is due; `budget_seconds` bounds the predicted cost,
    but one process is always looked at. Whoever is not wanted is only tested first, if it has a home. Idle ones come
    after the others, if they are asked for.
    """
    eligible: list[ProcessSample] = []
    idle: list[ProcessSample] = []
    skips: list[Skip] = []
    for process in survey.processes:
        skip = objections.to(process)
        if skip is None:
            eligible.append(process)
        else:
            skips.append(skip)
            if objections.is_idle(process):
                idle.append(process)
    idle_ids = {process.id for process in idle}

    def last_seen(process: ProcessSample) -> float:
        placement = known.get(process.id)
        return float("-inf") if placement is None else placement.taken_at

    requests: list[SampleRequest] = []
    seen: dict[ProcessId, Circumstances] = {}
    spent = 0.0
    for process in sorted((*eligible, *idle), key=lambda p: (p.id not in wanted, p.id in idle_ids, last_seen(p), p.id)):
        placement, now_is = known.get(process.id), circumstances(process, survey)
        if placement is not None and process.id not in wanted and not looks.is_due(process.id, now_is, survey.taken_at):
            continue
        cost = TYPICAL_SAMPLE_SECONDS if placement is None else placement.seconds
        if requests and spent + cost > budget_seconds:
            if placement is None and process.id not in idle_ids:
                skips.append(Skip(by=BY, process=process.id, reason=Reason.SCAN_BUDGET))
            continue
        spent += cost
        seen[process.id] = now_is
        home = None if objections.precise or process.id in wanted else now_is.home
        requests.append(SampleRequest(process=process.id, rss_bytes=process.rss_bytes, home=home))
    return Selection(
        eligible=tuple(eligible), requests=tuple(requests), skips=tuple(skips), idle=tuple(idle), seen=seen
    )
