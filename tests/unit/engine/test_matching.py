"""Which policy judges which process: by match, the first of its kind, and who only observes."""

from collections.abc import Iterable, Mapping

import pytest

from balancerd.config.schema import RuleConfig
from balancerd.engine.matching import Matches, Matching
from balancerd.engine.rules import compile_rules
from balancerd.model.decision import Reason
from balancerd.model.sample import Snapshot
from tests.unit.fakes import make_process, make_snapshot, make_survey

SNAPSHOT = make_snapshot(
    make_survey(*(make_process(pid, comm=comm) for pid, comm in ((1, "db"), (2, "web"), (3, "x"))))
)


def matching(kinds: Mapping[str, str], rules: Mapping[str, str], observing: Iterable[str] = ()) -> Matching:
    compiled = {name: compile_rules([RuleConfig(comm=comm)], f"policies.{name}.match") for name, comm in rules.items()}
    return Matching(list(kinds), Matches(rules=compiled, kinds=kinds), frozenset(observing))


def judged(matching: Matching, names: Iterable[str], now: Snapshot = SNAPSHOT) -> dict[str, list[int]]:
    return {name: [process.id.pid for process in matching.part(name, now)[0].eligible] for name in names}


@pytest.mark.parametrize(
    ("kinds", "rules", "observing", "expected"),
    [
        ({"a": "k"}, {}, (), {"a": [1, 2, 3]}),
        ({"a": "k"}, {"a": "db"}, (), {"a": [1]}),
        ({"a": "k"}, {"a": "none"}, (), {"a": []}),
        # the first of a kind that matches has it, the rest is for those behind it
        ({"a": "k", "b": "k"}, {"a": "db"}, (), {"a": [1], "b": [2, 3]}),
        ({"a": "k", "b": "k"}, {"a": "db|web", "b": "web|x"}, (), {"a": [1, 2], "b": [3]}),
        # one without a match takes nobody away: two of them judge all, as ever
        ({"a": "k", "b": "k"}, {}, (), {"a": [1, 2, 3], "b": [1, 2, 3]}),
        ({"a": "k", "b": "k"}, {"b": "db"}, (), {"a": [1, 2, 3], "b": [1]}),
        # other kinds are not asked
        ({"a": "k", "b": "l"}, {"a": "db"}, (), {"a": [1], "b": [1, 2, 3]}),
        # who only observes neither takes nor loses anybody
        ({"a": "k", "b": "k"}, {"a": "db"}, ("a",), {"a": [1], "b": [1, 2, 3]}),
        ({"a": "k", "b": "k"}, {"a": "db"}, ("b",), {"a": [1], "b": [1, 2, 3]}),
    ],
)
def test_who_judges_whom(
    kinds: dict[str, str], rules: dict[str, str], observing: tuple[str, ...], expected: dict[str, list[int]]
) -> None:
    assert judged(matching(kinds, rules, observing), kinds) == expected


def test_everybody_else_has_a_skip_that_says_why() -> None:
    both = matching({"a": "k", "b": "k"}, {"a": "db"})
    _, skips = both.part("a", SNAPSHOT)
    assert [(s.by, s.process.pid, s.reason, s.detail) for s in skips] == [
        ("a", 2, Reason.NOT_MATCHED, ""),
        ("a", 3, Reason.NOT_MATCHED, ""),
    ]
    _, skips = both.part("b", SNAPSHOT)
    assert [(s.process.pid, s.detail) for s in skips] == [(1, "policy a, of the same kind, judges it")]


def test_idle_processes_are_parted_too_and_the_same_process_gets_the_same_skip() -> None:
    idle = make_process(7, comm="db", cpu_cores=0.0)
    one = matching({"a": "k"}, {"a": "web"})
    now = Snapshot(taken_at=0.0, survey=make_survey(idle), placements={}, eligible=(), idle=(idle,))
    view, (skip,) = one.part("a", now)
    assert view.idle == ()
    assert one.part("a", now)[1][0] is skip
    renewed = make_process(7, comm="db", cpu_cores=0.01)
    again = Snapshot(taken_at=2.0, survey=make_survey(renewed), placements={}, eligible=(), idle=(renewed,))
    assert one.part("a", again)[1][0] is skip
    other = make_process(7, comm="web")
    changed = Snapshot(taken_at=4.0, survey=make_survey(other), placements={}, eligible=(other,))
    assert one.part("a", changed)[1] == ()


def test_without_a_match_the_snapshot_is_handed_on_as_it_is() -> None:
    assert matching({"a": "k"}, {}).part("a", SNAPSHOT)[0] is SNAPSHOT


def test_of_processes_that_are_gone_nothing_is_kept_and_of_the_others_the_very_skips() -> None:
    one = matching({"a": "k"}, {"a": "web"})
    before = {skip.process: skip for skip in one.part("a", SNAPSHOT)[1]}
    one.forget_all_but({process.id for process in SNAPSHOT.eligible})
    assert len(one._known) == 3
    stays, gone = SNAPSHOT.eligible[0].id, SNAPSHOT.eligible[2].id
    one.forget_all_but({stays})
    assert one._known.keys() == {stays}
    after = {skip.process: skip for skip in one.part("a", SNAPSHOT)[1]}
    assert after[stays] is before[stays]
    assert after[gone] is not before[gone]
