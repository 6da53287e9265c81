"""Policies that misbehave are asked no more, the others go on, and what they did is told."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from balancerd.config.schema import RuleConfig
from balancerd.engine.deciding import LONGEST_SECONDS, MOST_VERDICTS, Deciding
from balancerd.engine.matching import Matches, Matching
from balancerd.engine.rules import compile_rules
from balancerd.model.decision import Decision, Eviction, Reason, Skip, Verdict
from balancerd.model.extent import Extent
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import Failure
from balancerd.model.sample import Snapshot, Window
from balancerd.ports import Policy
from tests.unit.engine.test_tick import Run
from tests.unit.fakes import MIB, N0, N1, FakeClock, make_process, make_snapshot, make_survey

PID = ProcessId(100, 1)
NOW = make_snapshot(make_survey(make_process()))
MOVE = Decision(
    policy="mine",
    process=PID,
    target=N0,
    misplaced_bytes=MIB,
    gain_cores=0.1,
    cost_seconds=0.1,
    reason=Reason.MISPLACED,
)
SKIP = Skip(by="mine", process=PID, reason=Reason.WELL_PLACED)


class Mine:
    """Answers with whatever a test gives it."""

    name = "mine"

    def __init__(self, answer: Callable[[Window], Any]) -> None:
        self.answer = answer
        self.asked = 0

    def decide(self, window: Window) -> Iterable[Verdict]:
        self.asked += 1
        found: Iterable[Verdict] = self.answer(window)
        return found


def deciding(*policies: Policy, clock: FakeClock | None = None) -> Deciding:
    matching = Matching([policy.name for policy in policies], Matches(), frozenset())
    return Deciding(policies, matching, clock or FakeClock(), lambda _name: None)


def endless(_window: Window) -> Iterator[Verdict]:
    return itertools.repeat(SKIP)


def leaves(_window: Window) -> Iterable[Verdict]:
    raise SystemExit(3)


def forgets(_window: Window) -> Iterator[Verdict]:
    yield SKIP
    raise KeyError("x")


@pytest.mark.parametrize(
    ("answer", "cause", "told"),
    [
        (lambda _: 1 / 0, Failure.RAISED, "ZeroDivisionError: division by zero"),
        (leaves, Failure.RAISED, "SystemExit: 3"),
        (forgets, Failure.RAISED, "KeyError: 'x'"),
        (lambda _: None, Failure.RAISED, "TypeError"),
        (lambda _: 7, Failure.RAISED, "TypeError"),
        (lambda _: ["move it"], Failure.NONSENSE, "a str is no verdict"),
        (lambda _: [None], Failure.NONSENSE, "a NoneType is no verdict"),
        (endless, Failure.NONSENSE, f"more than {2 * MOST_VERDICTS} verdicts on 1 processes"),
        (lambda _: [replace(MOVE, process=ProcessId(5, 1))], Failure.NONSENSE, "pid 5, about which it was not asked"),
        (lambda _: [replace(MOVE, process=ProcessId(100, 2))], Failure.NONSENSE, "pid 100, about which it was not"),
        (lambda _: [replace(SKIP, process=ProcessId(5, 1))], Failure.NONSENSE, "pid 5, about which it was not asked"),
        (lambda _: [replace(MOVE, target=NodeId(9))], Failure.NONSENSE, "node 9, which is not online"),
        (lambda _: [replace(MOVE, misplaced_bytes=0)], Failure.NONSENSE, "0 bytes to move"),
        (lambda _: [replace(MOVE, misplaced_bytes=-1)], Failure.NONSENSE, "-1 bytes to move"),
        (lambda _: [replace(MOVE, most_bytes=0)], Failure.NONSENSE, "at most 0 bytes to move"),
        (lambda _: [replace(MOVE, most_bytes=-1)], Failure.NONSENSE, "at most -1 bytes to move"),
        (lambda _: [replace(MOVE, gain_cores=math.nan)], Failure.NONSENSE, "a gain of nan cores for 0.1 s"),
        (lambda _: [replace(MOVE, cost_seconds=math.inf)], Failure.NONSENSE, "a gain of 0.1 cores for inf s"),
        (lambda _: [replace(MOVE, policy="fixed")], Failure.NONSENSE, "a verdict in the name of 'fixed'"),
        (lambda _: [replace(SKIP, by="plan")], Failure.NONSENSE, "a verdict in the name of 'plan'"),
        (
            lambda _: [Skip(by="mine", process=PID, reason=cast("Reason", "why"))],
            Failure.NONSENSE,
            "'why' is no reason",
        ),
        (lambda _: [replace(MOVE, reason=Reason.COOLDOWN)], Failure.NONSENSE, "cooldown is no reason to move memory"),
        (
            lambda _: [replace(MOVE, sources=frozenset({N0, N1}))],
            Failure.NONSENSE,
            "pages to move from node 0 to itself",
        ),
        (
            lambda _: [replace(MOVE, extents=(Extent(2, 3), Extent(1, 2)))],
            Failure.NONSENSE,
            "extents that do not ascend",
        ),
        (lambda _: [replace(MOVE, extents=(Extent(2, 2),))], Failure.NONSENSE, "extents that do not ascend"),
        (lambda _: [Eviction(policy="mine", process=PID, evict_bytes=-1)], Failure.NONSENSE, "-1 bytes to evict"),
        (
            lambda _: [Eviction(policy="mine", process=PID, evict_bytes=1, extents=(Extent(2, 1),))],
            Failure.NONSENSE,
            "extents that do not ascend",
        ),
    ],
)
def test_a_policy_that_does_what_none_may_is_asked_no_more(
    answer: Callable[[Window], Any], cause: Failure, told: str
) -> None:
    mine = Mine(answer)
    policies = deciding(mine)
    assert policies.decide(Window(now=NOW, before=None)) == ()
    assert policies.disabled["mine"].cause is cause
    assert policies.disabled["mine"].detail.startswith(told)
    assert policies.take_errors() == {"mine": policies.disabled["mine"].detail}
    assert policies.decide(Window(now=NOW, before=None)) == ()
    assert mine.asked == 1
    assert policies.take_errors() == {}
    assert set(policies.disabled) == {"mine"}


LATE = LONGEST_SECONDS + 0.1


@pytest.mark.parametrize(
    ("took", "answered"),
    [
        ([LONGEST_SECONDS] * 3, [True, True, True]),
        ([LATE, 0.0, LATE, 0.0], [False, True, False, True]),
        ([LATE, LATE, 0.0], [False, False, False]),
    ],
)
def test_late_verdicts_are_not_used_and_a_policy_that_is_late_twice_in_a_row_is_asked_no_more(
    took: list[float], answered: list[bool]
) -> None:
    clock, times = FakeClock(), iter(took)

    def slow(_window: Window) -> Iterator[Verdict]:
        clock.time += next(times)
        yield SKIP

    policies = deciding(Mine(slow), clock=clock)
    for is_answered in answered:
        assert policies.decide(Window(now=NOW, before=None)) == ((SKIP,) if is_answered else ())
        assert policies.closed_nodes(frozenset()) == {}  # another question, answered in time
    is_disabled = answered == [False] * 3
    assert [f.cause for f in policies.disabled.values()] == [Failure.SLOW] * is_disabled
    if LATE in took:
        assert policies.take_errors() == {"mine": "it took 5.1 s to answer, of 5 s allowed"}


def test_good_verdicts_pass_as_they_are() -> None:
    good = [
        MOVE,
        replace(MOVE, most_bytes=1, misplaced_bytes=1),
        SKIP,
        Eviction(policy="mine", process=PID, evict_bytes=1),
    ]
    policies = deciding(Mine(lambda _: good))
    assert policies.decide(Window(now=NOW, before=None)) == tuple(good)
    assert not policies.disabled


def test_somebody_outside_knows_who_is_being_asked() -> None:
    names: list[str | None] = []
    mine = Mine(lambda _: [SKIP])
    policies = Deciding([mine], Matching(["mine"], Matches(), frozenset()), FakeClock(), names.append)
    policies.decide(Window(now=NOW, before=None))
    assert names == ["mine", None]


class Watching(Mine):
    def __init__(self, wish: Callable[[Snapshot], Any]) -> None:
        super().__init__(lambda _: [SKIP])
        self.wish = wish

    def watch(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        wanted: Iterable[ProcessId] = self.wish(snapshot)
        return wanted


@pytest.mark.parametrize(
    ("wish", "cause"),
    [
        (lambda _: [ProcessId(5, 1)], Failure.NONSENSE),
        (lambda _: itertools.repeat(PID), Failure.NONSENSE),
        (lambda _: 1 / 0, Failure.RAISED),
        (lambda _: [PID], None),
    ],
)
def test_what_a_policy_wants_watched_is_checked_as_well(wish: Callable[[Snapshot], Any], cause: Failure | None) -> None:
    policies = deciding(Watching(wish))
    assert policies.watch(NOW) == ({PID: None} if cause is None else {})
    assert [failure.cause for failure in policies.disabled.values()] == ([] if cause is None else [cause])


def test_a_policy_is_asked_and_watches_only_for_whom_it_is() -> None:
    mine, other = Watching(lambda now: [p.id for p in now.eligible]), make_process(101, comm="other")
    mine.answer = lambda w: [Skip(by="mine", process=p.id, reason=Reason.WELL_PLACED) for p in w.now.eligible]
    rules = compile_rules([RuleConfig(comm="other")], "policies.mine.match")
    matching = Matching(["mine"], Matches(rules={"mine": rules}, kinds={"mine": "k"}), frozenset())
    policies = Deciding([mine], matching, FakeClock(), lambda _name: None)
    now = make_snapshot(make_survey(make_process(), other))
    assert list(policies.watch(now)) == [other.id]
    told = {(verdict.process, verdict.reason) for verdict in policies.decide(Window(now=now, before=None))}
    assert told == {(PID, Reason.NOT_MATCHED), (other.id, Reason.WELL_PLACED)}


class Closing(Mine):
    @property
    def closed_nodes(self) -> frozenset[NodeId]:
        raise OSError("none")


def test_a_policy_that_fails_to_say_which_nodes_it_empties_is_asked_no_more() -> None:
    policies = deciding(Closing(lambda _: [SKIP]))
    assert policies.closed_nodes(frozenset({"mine"})) == {}
    assert not policies.disabled
    assert policies.closed_nodes(frozenset()) == {}
    assert policies.disabled["mine"].detail == "OSError: none"


def test_the_daemon_goes_on_without_it_tells_once_and_a_reload_tries_again() -> None:
    mine = Mine(lambda _: 1 / 0)
    run = Run(policies=[mine])
    run.kernel.add(make_process(), {2: 256})
    reports = run.ticks(5)
    assert [bool(report.policy_errors) for report in reports] == [True, False, False, False, False]
    assert [set(report.disabled_policies) for report in reports] == [{"mine"}] * 5
    run.engine = run.load([mine])
    (report,) = run.ticks(1)
    assert mine.asked == 2
    assert report.policy_errors == {"mine": "ZeroDivisionError: division by zero"}
