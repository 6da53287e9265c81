"""What each workload holds and uses: its processes added up, tick after tick.

Owns who belongs where: an idle process is still of the workload that it was of when somebody looked. What it costs
follows what changed, for a process and a placement that are the very same objects as a tick ago are passed over. It
must not know how workloads get their names, nor how they are told.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress, count
from operator import is_not
from typing import TypeVar

from balancerd.engine.accounts import NOTHING_WANTED, Account, Part, Standing, memory_shares, part_of
from balancerd.model.decision import ACTION_REASONS, Decision, Reason, Skip, Wanted
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.report import WorkloadReport
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, Snapshot
from balancerd.model.steering import SteerOutcome
from balancerd.model.workload import Workload, WorkloadKind

OTHER_NAME = "other"
"""The workload of processes of which not even the cgroup is known."""

MOST_GAPS = 40
WIDEST_GAP = 16
"""How far two ticks are compared place by place before sets are cheaper: gaps in all, and objects in one gap."""

Item = TypeVar("Item")


def workload_of(process: ProcessSample) -> Workload:
    """Return the workload of a process: one of kind OTHER, named after its cgroup, when nobody has named it."""
    if process.workload is not None:
        return process.workload
    last = (process.cgroup or "").rstrip("/").rpartition("/")[2]
    return Workload(kind=WorkloadKind.OTHER, name=OTHER_NAME if last in {"", ".", ".."} else last)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A process as it was added to its workload's account; `cgroup` is the last known."""

    process: ProcessSample
    placement: PlacementSample | None
    memory: Mapping[NodeId, float] | None
    workload: Workload
    cgroup: str | None
    part: Part


class Workloads:
    """The accounts of all workloads. One for the life of the daemon."""

    def __init__(self) -> None:
        self._members: dict[ProcessId, _Member] = {}
        self._accounts: dict[str, Account] = {}
        self._processes: tuple[ProcessSample, ...] = ()
        self._placements: tuple[PlacementSample, ...] = ()

    def tell(
        self,
        snapshot: Snapshot,
        *,
        wanted: Iterable[Wanted] = (),
        rejected: Iterable[Skip] = (),
        outcomes: Iterable[MigrationOutcome] = (),
        evictions: Iterable[EvictionOutcome] = (),
        steers: Iterable[SteerOutcome] = (),
    ) -> tuple[WorkloadReport, ...]:
        """Return the report of every workload that has a process in the survey.

        `wanted` is what policies want in this tick, `rejected` what was turned down of it, and the outcomes what was
        done.
        """
        self._follow(snapshot)
        standings = self._standings(wanted, rejected, tuple(outcomes), evictions, steers)
        exact = snapshot.survey.workload_bytes
        for name, account in self._accounts.items():
            cgroup = account.workload.cgroup if exact else None
            account.note(None if cgroup is None else exact.get(cgroup), standings.get(name, NOTHING_WANTED))
        return tuple(account.tell() for account in self._accounts.values())

    def _follow(self, snapshot: Snapshot) -> None:
        """Add what is new or another than a tick ago, take away what is gone."""
        placements = snapshot.placements
        processes, placed = snapshot.survey.processes, tuple(placements.values())
        came, went = _differences(processes, self._processes)
        seen, unseen = _differences(placed, self._placements)
        self._processes, self._placements = processes, placed
        for process in came:
            self._enter(process, placements.get(process.id))
        for process in went:
            member = self._members.get(process.id)
            if member is not None and member.process is process:
                self._leave(process.id)
        for process_id in {placement.process for placement in (*seen, *unseen)}:
            member, placement = self._members.get(process_id), placements.get(process_id)
            if member is not None and member.placement is not placement:
                self._enter(member.process, placement)
        for name in [name for name, account in self._accounts.items() if account.is_empty]:
            del self._accounts[name]

    def _enter(self, process: ProcessSample, placement: PlacementSample | None) -> None:
        """Add a process to its account, in place of what it was before."""
        before = self._members.get(process.id)
        workload, cgroup = workload_of(process), process.cgroup
        if before is not None and process.workload is None and cgroup in {None, before.cgroup}:
            workload, cgroup = before.workload, before.cgroup
        memory = before.memory if before is not None and before.placement is placement else memory_shares(placement)
        part = part_of(process, memory)
        if before is not None and before.workload == workload:
            self._accounts[workload.name].change(before.part, part)
        else:
            self._leave(process.id)
            self._accounts.setdefault(workload.name, Account()).add(process.id, workload, part)
        self._members[process.id] = _Member(
            process=process, placement=placement, memory=memory, workload=workload, cgroup=cgroup, part=part
        )

    def _leave(self, process: ProcessId) -> None:
        member = self._members.pop(process, None)
        if member is not None:
            self._accounts[member.workload.name].take_away(process, member.workload, member.part)

    def _standings(
        self,
        wanted: Iterable[Wanted],
        rejected: Iterable[Skip],
        outcomes: tuple[MigrationOutcome, ...],
        evictions: Iterable[EvictionOutcome],
        steers: Iterable[SteerOutcome],
    ) -> Mapping[str, Standing]:
        """Return what is wanted of each workload. The last word on a process counts: done, turned down, or wanted."""
        last: dict[ProcessId, Reason] = {}
        by_policy: dict[tuple[ProcessId, str], int] = {}
        for want in wanted:
            last[want.process] = want.reason
            if isinstance(want, Decision):  # of one policy only parts are several
                key = (want.process, want.policy)
                by_policy[key] = by_policy.get(key, 0) + want.misplaced_bytes
        pending: dict[ProcessId, int] = {}
        for (process, _), size_bytes in by_policy.items():
            pending[process] = max(pending.get(process, 0), size_bytes)
        last |= {skip.process: skip.reason for skip in rejected if skip.process in last}
        last |= {o.step.process: o.stopped_by or o.step.reason for o in steers if not o.is_release}
        for evicted in evictions:
            last[evicted.step.process] = evicted.stopped_by or evicted.step.reason
        for outcome in outcomes:
            process = outcome.step.process
            last[process] = outcome.stopped_by or outcome.step.reason
            pending[process] = max(0, pending.get(process, 0) - outcome.moved_pages * PAGE_BYTES)
        standings: dict[str, Standing] = {}
        for process, reason in last.items():
            member = self._members.get(process)
            if member is None:
                continue
            standing = standings.setdefault(member.workload.name, Standing())
            standing.pending_bytes += pending.get(process, 0)
            if reason in ACTION_REASONS:
                standing.moving_processes += 1
            else:
                standing.held[reason] += 1
        return standings


def _differences(now: tuple[Item, ...], before: tuple[Item, ...]) -> tuple[list[Item], list[Item]]:
    """Return the objects that are only in `now`, and those only in `before`, by identity.

    A survey keeps the order of those that it did not read again and lists the others last, so long runs of the two are
    the same but for gaps; comparing these place by place costs a fifth of comparing sets. Whatever is left when that
    does not get on is compared as sets.
    """
    at, at_before, stuck = 0, 0, 0
    old: list[Item] = []
    for _ in range(MOST_GAPS):
        same = next(compress(count(), map(is_not, now[at:], before[at_before:])), None)
        if same is None:
            same = min(len(now) - at, len(before) - at_before)
            at, at_before = at + same, at_before + same
            break
        at, at_before = at + same, at_before + same
        stuck = 0 if same else stuck + 1
        if stuck > WIDEST_GAP:
            break
        old.append(before[at_before])
        at_before += 1
    new = now[at:]
    old += before[at_before:]
    new_ids, old_ids = set(map(id, new)), set(map(id, old))
    only_new, only_old = new_ids - old_ids, old_ids - new_ids
    return [*compress(new, map(only_new.__contains__, map(id, new)))], [
        *compress(old, map(only_old.__contains__, map(id, old)))
    ]
