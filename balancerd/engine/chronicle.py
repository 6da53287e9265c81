"""What is worth remembering of each tick, and the numbers under which it is: pure.

A policy says in every tick what it wants. Here that is one decision for as long as it goes on wanting it, and what
became of it is told when it changes: a tick in which nothing new happens leaves nothing. It must not know who keeps the
events, nor what time it is.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from balancerd.engine.workloads import workload_of
from balancerd.model.decision import Decision, Eviction, Reason, Skip, Steer, Wanted
from balancerd.model.event import Action, Event, EventKind
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionOutcome, MigrationOutcome
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.steering import SteerOutcome, ThreadFate

MOST_REMEMBERED = 8192
"""Decisions that are not wanted any more, and whose moves may still be judged."""


class Key(NamedTuple):
    """What makes the wants of two ticks the same decision."""

    process: ProcessId
    policy: str
    action: Action
    target: NodeId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What one step came to, if it did anything at all; `held` is the reason when it only could not."""

    key: Key
    kind: EventKind
    bytes_by_node: Mapping[NodeId, int]
    amount_bytes: int | None
    counts: Mapping[str, int]
    reason: Reason
    detail: str
    move: int | None
    did: bool
    held: Reason | None


class Chronicle:
    """Turns reports into events. One for the life of the daemon; `first_id` goes on where an earlier one ended."""

    def __init__(self, first_id: int = 1) -> None:
        self._next_id = first_id
        self._open: dict[Key, int] = {}
        self._held: dict[Key, str] = {}
        self._past: OrderedDict[Key, int] = OrderedDict()
        self._report: TickReport | None = None
        self._events: tuple[Event, ...] = ()

    def of(self, report: TickReport) -> tuple[Event, ...]:
        """Return the events of a finished tick, decisions first; the same ones to everybody who asks for that tick."""
        if report is not self._report:
            self._events = tuple(self._tell(report))
            self._report = report
        return self._events

    def _tell(self, report: TickReport) -> Iterator[Event]:
        wants = _wants(report)
        done = tuple(_done(report))
        self._close(wants)
        if not (wants or done or report.judged):
            return
        about = _Processes(report)
        for key, same in wants.items():
            if key not in self._open:
                yield self._decide(report, key, same, about.find(key.process))
        for each in done:
            if each.did:
                self._held.pop(each.key, None)
                yield self._act(report, each, about.find(each.key.process))
        for key, reason, detail in _held(report, wants, done):
            if self._held.get(key) != reason:
                self._held[key] = reason
                yield self._event(
                    report, key, about.find(key.process), kind=EventKind.HELD, reason=reason, detail=detail
                )
        for move in report.judged:
            key = Key(move.process, move.policy, Action.MIGRATE, move.target)
            detail = "; ".join(part for part in ("on trial" if move.is_trial else "", move.detail) if part)
            process, reason = about.find(key.process), move.result.value
            event = self._event(report, key, process, kind=EventKind.RESULT, reason=reason, detail=detail)
            yield replace(event, amount_bytes=move.moved_bytes)

    def _decide(self, report: TickReport, key: Key, same: Sequence[Wanted], about: ProcessReport | None) -> Event:
        self._open[key] = self._past[key] = self._next_id
        self._past.move_to_end(key)
        while len(self._past) > MOST_REMEMBERED:
            self._past.popitem(last=False)
        amounts = [amount for want in same if (amount := _amount_bytes(want)) is not None]
        event = self._event(
            report, key, about, kind=EventKind.DECISION, reason=same[0].reason.value, detail=same[0].detail
        )
        return replace(event, bytes_by_node=_sources(same, about), amount_bytes=sum(amounts) if amounts else None)

    def _act(self, report: TickReport, done: _Done, about: ProcessReport | None) -> Event:
        detail = "; ".join(part for part in (f"ended: {done.held}" if done.held else "", done.detail) if part)
        return replace(
            self._event(report, done.key, about, kind=done.kind, reason=done.reason.value, detail=detail),
            bytes_by_node=done.bytes_by_node,
            amount_bytes=done.amount_bytes,
            counts=done.counts,
            move=done.move,
        )

    def _event(
        self, report: TickReport, key: Key, about: ProcessReport | None, *, kind: EventKind, reason: str, detail: str
    ) -> Event:
        """Return what every event has, under the next number."""
        number = self._next_id
        self._next_id += 1
        return Event(
            id=number,
            kind=kind,
            tick=report.number,
            decision=self._open.get(key, self._past.get(key)),
            policy=key.policy,
            process=key.process,
            comm=None if about is None else about.process.comm,
            workload=None if about is None else workload_of(about.process).name,
            action=key.action,
            target=key.target,
            reason=reason,
            detail=detail,
        )

    def _close(self, wants: Mapping[Key, object]) -> None:
        """Forget the decisions that nobody wants any more."""
        for key in [key for key in self._open if key not in wants]:
            del self._open[key]
            self._held.pop(key, None)


class _Processes:
    """The processes of a report by their id, sorted out when the first one is asked for: mostly nobody asks."""

    def __init__(self, report: TickReport) -> None:
        self._report = report
        self._found: dict[ProcessId, ProcessReport] | None = None

    def find(self, process: ProcessId) -> ProcessReport | None:
        """Return what the tick tells of a process, None when the survey does not list it."""
        if self._found is None:
            self._found = {each.process.id: each for each in self._report.processes}
        return self._found.get(process)


def _wants(report: TickReport) -> dict[Key, list[Wanted]]:
    """Return what policies want, by decision; several parts of a process that go to one node are one."""
    wants: dict[Key, list[Wanted]] = {}
    for verdict in report.verdicts:
        if not isinstance(verdict, Skip):
            wants.setdefault(_key(verdict), []).append(verdict)
    return wants


def _key(want: Wanted) -> Key:
    if isinstance(want, Eviction):
        return Key(want.process, want.policy, Action.EVICT, None)
    action = Action.STEER if isinstance(want, Steer) else Action.MIGRATE
    return Key(want.process, want.policy, action, want.target)


def _amount_bytes(want: Wanted) -> int | None:
    if isinstance(want, Steer):
        return None
    return want.evict_bytes if isinstance(want, Eviction) else want.misplaced_bytes


def _sources(same: Sequence[Wanted], about: ProcessReport | None) -> Mapping[NodeId, int]:
    """Return what is to move, by the node that holds it: what the policy says, else all that is known elsewhere."""
    told: dict[NodeId, int] = {}
    for want in same:
        if not isinstance(want, Decision):
            continue
        if want.source_bytes is not None:
            for node, held in want.source_bytes.items():
                told[node] = told.get(node, 0) + held
        elif about is not None and about.placement is not None:
            held_elsewhere = about.placement.bytes_by_node.items()
            told |= {
                node: held
                for node, held in held_elsewhere
                if held and node != want.target and (want.sources is None or node in want.sources)
            }
    return dict(sorted(told.items()))


def _done(report: TickReport) -> Iterator[_Done]:
    yield from map(_of_migration, report.outcomes)
    yield from map(_of_eviction, report.evictions)
    yield from map(_of_steering, report.steers)


def _of_migration(outcome: MigrationOutcome) -> _Done:
    step = outcome.step
    return _Done(
        key=Key(step.process, step.policy, Action.MIGRATE, step.target),
        kind=EventKind.MOVE,
        bytes_by_node={node: pages * PAGE_BYTES for node, pages in sorted(outcome.moved_from.items()) if pages},
        amount_bytes=outcome.moved_pages * PAGE_BYTES,
        counts={status.value: pages for status, pages in outcome.pages.items() if pages},
        reason=step.reason,
        detail=outcome.detail,
        move=step.move_id or None,
        did=outcome.submitted_pages > 0,
        held=outcome.stopped_by,
    )


def _of_eviction(outcome: EvictionOutcome) -> _Done:
    step = outcome.step
    pages = outcome.advised_pages if step.cold_only else outcome.evicted_pages
    counts = {"advised": outcome.advised_pages, "evicted": outcome.evicted_pages, "kept": outcome.kept_pages}
    return _Done(
        key=Key(step.process, step.policy, Action.EVICT, None),
        kind=EventKind.EVICTION,
        bytes_by_node={},
        amount_bytes=pages * PAGE_BYTES,
        counts={name: count for name, count in counts.items() if count},
        reason=step.reason,
        detail=outcome.detail,
        move=None,
        did=outcome.advised_pages > 0,
        held=outcome.stopped_by,
    )


def _of_steering(outcome: SteerOutcome) -> _Done:
    step = outcome.step
    return _Done(
        key=Key(step.process, step.policy, Action.STEER, step.target),
        kind=EventKind.THREADS,
        bytes_by_node={},
        amount_bytes=None,
        counts={fate.value: number for fate, number in outcome.threads.items() if number},
        reason=step.reason,
        detail="; ".join(part for part in ("let go" if outcome.is_release else "", outcome.detail) if part),
        move=None,
        did=outcome.steered_threads > 0 or outcome.threads.get(ThreadFate.RESTORED, 0) > 0,
        held=outcome.stopped_by,
    )


def _held(report: TickReport, wants: Mapping[Key, object], done: Sequence[_Done]) -> Iterator[tuple[Key, str, str]]:
    """Yield the decisions that led to nothing in this tick, with the reason and what there is to say about it.

    What the plan turns down names the process only: it is about those of its decisions that nothing else became of.
    """
    waiting: dict[ProcessId, list[Key]] = {}
    for key in wants:
        waiting.setdefault(key.process, []).append(key)
    for each in done:
        keys = waiting.get(each.key.process, [])
        if each.key in keys:
            keys.remove(each.key)
            if not each.did and each.held is not None:
                yield each.key, each.held.value, each.detail
    for skip in report.plan.rejected:
        keys = waiting.get(skip.process, [])
        if keys:
            found = next((key for key in keys if skip.detail.startswith(f"policy {key.policy};")), keys[0])
            keys.remove(found)
            yield found, skip.reason.value, skip.detail
