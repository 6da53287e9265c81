"""Asks the policies. They may come from anyone: one that raises, takes too long or returns nonsense is asked no more.

A policy decides in the thread of the loop, so it cannot be interrupted: how long it took is measured when it returns.
While it decides, `on_policy` knows its name, for somebody who watches from outside. It must not know what becomes of
verdicts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from typing import TypeVar

from balancerd.engine.matching import Matching
from balancerd.model.decision import MIGRATION_REASONS, Decision, Eviction, Reason, Skip, Steer, Verdict
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import Failure, PolicyFailure
from balancerd.model.sample import Snapshot, Window
from balancerd.ports import AccessPolicy, Clock, ClosingPolicy, Policy

LONGEST_SECONDS = 5.0
"""A policy may take so long for one answer. Ours take some 10 ms for a thousand processes."""

LATE_ANSWERS = 2
"""So many in a row disable a policy: one may be the doing of a machine that stood still, as guests do."""

MOST_VERDICTS = 64
"""Of one process, from one policy, on average: interleave has one for each node."""

_REASONS = frozenset(Reason)
T = TypeVar("T")


class NonsenseError(Exception):
    """A policy returned what no policy may; the message says what."""


class Deciding:
    """The policies of one configuration, in their order. Who failed is asked no more, until the next configuration.

    `on_policy` is told the name of the policy that is asked, and None as soon as it has answered.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        matching: Matching,
        clock: Clock,
        on_policy: Callable[[str | None], None],
    ) -> None:
        self._policies = tuple((policy.name, policy) for policy in policies)
        self._matching = matching
        self._clock = clock
        self._on_policy = on_policy
        self._disabled: dict[str, PolicyFailure] = {}
        self._errors: dict[str, str] = {}
        self._late: dict[tuple[str, str], int] = {}

    @property
    def disabled(self) -> Mapping[str, PolicyFailure]:
        """The policies that are asked no more, by name, and why."""
        return dict(self._disabled)

    def take_errors(self) -> dict[str, str]:
        """Return how policies failed since it was asked before, by name."""
        errors, self._errors = self._errors, {}
        return errors

    def watch(self, now: Snapshot) -> dict[ProcessId, None]:
        """Return whom policies want watched, in their order, each once."""
        asked: dict[ProcessId, None] = {}
        for name, policy in self._able():
            if isinstance(policy, AccessPolicy):
                view, _ = self._matching.part(name, now)
                able = frozenset(process.id for process in (*view.eligible, *view.idle))
                wanted = self._ask(name, "watch", partial(_watch, policy, view, able))
                asked |= dict.fromkeys(wanted or ())
        return asked

    def decide(self, window: Window) -> tuple[Verdict, ...]:
        """Return all verdicts, the policies' in their order."""
        verdicts: list[Verdict] = []
        nodes = frozenset(window.now.survey.topology.node_ids)
        for name, policy in self._able():
            view, skips = self._matching.part(name, window.now)
            asked = frozenset(process.id for process in (*view.eligible, *view.idle))
            its = replace(window, now=view)
            found = self._ask(name, "decide", partial(_decide, policy, its, name, asked, nodes))
            if found is not None:
                verdicts += (*skips, *found)
        return tuple(verdicts)

    def closed_nodes(self, observing: AbstractSet[str]) -> dict[NodeId, str]:
        """Return the nodes that policies empty, unless they only observe, and by whose name."""
        closed: dict[NodeId, str] = {}
        for name, policy in self._able():
            if name not in observing:
                nodes = self._ask(name, "close", partial(_close, policy))
                closed |= dict.fromkeys(nodes or (), name)
        return closed

    def _able(self) -> list[tuple[str, Policy]]:
        return [(name, policy) for name, policy in self._policies if name not in self._disabled]

    def _ask(self, name: str, what: str, question: Callable[[], T]) -> T | None:
        """Return the answer, or None when the policy failed: then it is asked no more, or only once if it was late."""
        begin = self._clock.now()
        self._on_policy(name)
        answer: T | None = None
        failure: PolicyFailure | None = None
        try:
            answer = question()
        except NonsenseError as error:
            failure = PolicyFailure(cause=Failure.NONSENSE, detail=str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a policy may come from anyone; the tick goes on without it
            failure = PolicyFailure(cause=Failure.RAISED, detail=f"{type(error).__name__}: {error}")
        finally:
            self._on_policy(None)
        took = self._clock.now() - begin
        if failure is None and took > LONGEST_SECONDS:
            told = f"it took {took:.1f} s to answer, of {LONGEST_SECONDS:.0f} s allowed"
            failure = PolicyFailure(cause=Failure.SLOW, detail=told)
        if failure is None:
            self._late.pop((name, what), None)
            return answer
        if failure.cause is Failure.SLOW:
            self._late[name, what] = self._late.get((name, what), 0) + 1
        if failure.cause is not Failure.SLOW or self._late[name, what] >= LATE_ANSWERS:
            self._disabled[name] = failure
        self._errors[name] = failure.detail
        return None


def _watch(policy: AccessPolicy, now: Snapshot, able: frozenset[ProcessId]) -> tuple[ProcessId, ...]:
    wanted = tuple(islice(policy.watch(now), len(able) + 1))
    if len(wanted) > len(able) or not able.issuperset(wanted):
        raise NonsenseError("it wants processes watched that it was not asked about")
    return wanted


def _close(policy: Policy) -> frozenset[NodeId]:
    return frozenset(policy.closed_nodes) if isinstance(policy, ClosingPolicy) else frozenset()


def _decide(
    policy: Policy, window: Window, name: str, asked: frozenset[ProcessId], nodes: frozenset[NodeId]
) -> tuple[Verdict, ...]:
    """Return the verdicts of policy `name`, which was asked about `asked`. Raises NonsenseError, and what it raises."""
    most = MOST_VERDICTS * (1 + len(asked))
    found = tuple(islice(policy.decide(window), most + 1))
    if len(found) > most:
        raise NonsenseError(f"more than {most} verdicts on {len(asked)} processes")
    for verdict in found:
        problem = _find_nonsense(verdict, name, asked, nodes)
        if problem is not None:
            raise NonsenseError(problem)
    return found


def _find_nonsense(verdict: object, name: str, asked: AbstractSet[ProcessId], nodes: AbstractSet[NodeId]) -> str | None:
    if not isinstance(verdict, Decision | Eviction | Steer | Skip):
        return f"a {type(verdict).__name__} is no verdict"
    if verdict.process not in asked:
        return f"pid {verdict.process.pid}, about which it was not asked"
    by = verdict.by if isinstance(verdict, Skip) else verdict.policy
    if by != name:
        return f"a verdict in the name of {by!r}"
    if isinstance(verdict, Skip):
        return None if verdict.reason in _REASONS else f"{verdict.reason!r} is no reason"
    if isinstance(verdict, Steer):
        return _find_nonsense_of_steer(verdict, nodes)
    if verdict.reason not in MIGRATION_REASONS:
        return f"{getattr(verdict.reason, 'value', verdict.reason)} is no reason to move memory"
    if isinstance(verdict, Eviction):
        if verdict.evict_bytes <= 0:
            return f"{verdict.evict_bytes} bytes to evict"
        return _find_nonsense_of_extents(verdict.extents or ())
    return _find_nonsense_of_decision(verdict, nodes)


def _find_nonsense_of_decision(decision: Decision, nodes: AbstractSet[NodeId]) -> str | None:
    if decision.target not in nodes:
        return f"node {decision.target}, which is not online"
    if decision.misplaced_bytes <= 0:
        return f"{decision.misplaced_bytes} bytes to move"
    if not _is_finite(decision):
        return f"a gain of {decision.gain_cores} cores for {decision.cost_seconds} s"
    if decision.sources is not None and decision.target in decision.sources:
        return f"pages to move from node {decision.target} to itself"
    if decision.most_bytes is not None and decision.most_bytes <= 0:
        return f"at most {decision.most_bytes} bytes to move"
    return _find_nonsense_of_extents(decision.extents or ())


def _find_nonsense_of_extents(extents: Sequence[Extent]) -> str | None:
    if any(part.start >= part.end for part in extents) or any(a.end > b.start for a, b in pairwise(extents)):
        return "extents that do not ascend"
    return None


def _find_nonsense_of_steer(steer: Steer, nodes: AbstractSet[NodeId]) -> str | None:
    if steer.reason is not Reason.STEER:
        return f"{getattr(steer.reason, 'value', steer.reason)} is no reason to move threads"
    if steer.target not in nodes:
        return f"node {steer.target}, which is not online"
    if not steer.cpus:
        return "no CPU to run on"
    return None if _is_finite(steer) else f"a gain of {steer.gain_cores} cores for {steer.cost_seconds} s"


def _is_finite(move: Decision | Steer) -> bool:
    return math.isfinite(move.gain_cores) and math.isfinite(move.cost_seconds)
