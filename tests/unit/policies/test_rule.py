"""Tables for the policy rule: which rule counts, where memory goes, what holds a process, and what is refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.schema import RuleConfig
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot, Window
from balancerd.policies.rule import PlaceConfig, RuleOptions, RulePolicy, plugin
from balancerd.ports import PlacingPlugin, PolicyContext
from tests.unit.fakes import GIB, MIB, N0, N1, N2, N3, make_placement, make_process, make_snapshot, make_survey
from tests.unit.fakes import make_topology as topology

CONTEXT = PolicyContext(migration_bytes_per_second=GIB)
WORKER = (RuleConfig(comm="worker"),)


def policy(*places: PlaceConfig) -> RulePolicy:
    return plugin.build("fixed", RuleOptions(rules=places), CONTEXT)


def to_nodes(*nodes: int) -> PlaceConfig:
    return PlaceConfig(match=WORKER, nodes=tuple(NodeId(n) for n in nodes))


def over(*nodes: int) -> PlaceConfig:
    return PlaceConfig(match=WORKER, interleave=tuple(NodeId(n) for n in nodes))


def judged(
    policy: RulePolicy,
    held: Mapping[int, float] | None,
    process: ProcessSample | None = None,
    **survey: Any,
) -> Verdict:
    placements: tuple[PlacementSample, ...] = () if held is None else (make_placement(held),)
    now = make_snapshot(make_survey(process or make_process(), **survey), *placements)
    (verdict,) = policy.decide(Window(now=now, before=None))
    return verdict


@pytest.mark.parametrize(
    ("place", "held", "reason"),
    [
        (to_nodes(1), {1: 256}, Reason.AS_RULED),
        (to_nodes(1), {1: 254, 0: 2}, Reason.AS_RULED),
        (to_nodes(1), {1: 252, 0: 4}, Reason.RULE),
        (to_nodes(0, 1), {0: 100, 1: 156}, Reason.AS_RULED),
        (to_nodes(1), None, Reason.NOT_SAMPLED),
        (to_nodes(1), {}, Reason.NOTHING_PRESENT),
        (to_nodes(7), {1: 256}, Reason.NODE_MISSING),
        (PlaceConfig(match=WORKER, never=True), {1: 256}, Reason.NEVER),
        (PlaceConfig(match=WORKER, never=True), None, Reason.NEVER),
        (over(0, 1), {0: 128, 1: 128}, Reason.AS_RULED),
        (over(0, 1), {0: 139, 1: 117}, Reason.AS_RULED),
        (over(0, 1), {0: 145, 1: 111}, Reason.RULE),
        (over(0, 7), {0: 256}, Reason.AS_RULED),
        (over(1, 7), {0: 256}, Reason.RULE),
        (PlaceConfig(match=(RuleConfig(comm="other"),), nodes=(N1,)), {0: 256}, Reason.NOT_MATCHED),
    ],
)
def test_what_a_rule_says_of_a_process(place: PlaceConfig, held: Mapping[int, float] | None, reason: Reason) -> None:
    verdict = judged(policy(place), held)
    assert verdict.reason is reason
    assert verdict.process == ProcessId(100, 1)
    if reason is not Reason.NOT_MATCHED:
        assert not isinstance(verdict, Skip) or verdict.holds, "no other policy is to have it"
        assert isinstance(verdict, Skip) or (isinstance(verdict, Decision) and verdict.holds)


def test_what_lies_elsewhere_goes_to_the_first_node_that_has_room_and_the_rest_stays() -> None:
    verdict = judged(policy(to_nodes(2, 1)), {0: 100, 1: 50, 3: 106})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.sources) == (N2, frozenset({N0, N3}))
    assert verdict.source_bytes == {N0: 100 * MIB, N3: 106 * MIB}
    full = judged(policy(to_nodes(2, 1)), {0: 100, 1: 50, 3: 106}, free_bytes={2: 0})
    assert isinstance(full, Decision)
    assert full.target == N1


def test_all_nodes_full_waits_and_still_holds_the_process() -> None:
    verdict = judged(policy(to_nodes(2, 1)), {0: 256}, free_bytes={1: 0, 2: 0})
    assert isinstance(verdict, Skip)
    assert (verdict.reason, verdict.holds) == (Reason.TARGET_FULL, True)


def test_room_is_shared_by_the_processes_of_one_tick() -> None:
    reserve = int(0.1 * 8 * GIB) + 16 * MIB
    processes = [make_process(pid) for pid in (1, 2)]
    survey = make_survey(*processes, free_bytes={1: reserve + 300 * MIB})
    now = make_snapshot(survey, *(make_placement({0: 299}, pid=pid) for pid in (1, 2)))
    targets = [
        v.target if isinstance(v, Decision) else v.reason
        for v in policy(to_nodes(1, 2)).decide(Window(now=now, before=None))
    ]
    assert targets == [N1, N2]


def test_with_one_node_whatever_lies_elsewhere_goes_there() -> None:
    verdict = judged(policy(to_nodes(3)), {0: 100, 1: 156})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.sources, verdict.misplaced_bytes) == (N3, None, 256 * MIB)
    assert verdict.detail.startswith("fixed.rules[0].match[0]: comm 'worker': 256 MiB to node 3")


def test_a_cpuset_that_allows_some_of_the_nodes_leaves_the_others_out_and_one_that_allows_none_is_told() -> None:
    some = judged(policy(to_nodes(2, 1)), {0: 256}, make_process(mems_allowed=frozenset({N0, N1})))
    assert isinstance(some, Decision)
    assert some.target == N1
    none = judged(policy(to_nodes(2)), {0: 256}, make_process(mems_allowed=frozenset({N0, N1})))
    assert isinstance(none, Skip)
    assert none.reason is Reason.OUTSIDE_CPUSET
    assert "Mems_allowed 0-1" in none.detail


def test_a_node_without_memory_is_as_good_as_offline() -> None:
    verdict = judged(policy(to_nodes(1)), {0: 256}, topology=topology(memoryless=(1,)))
    assert verdict.reason is Reason.NODE_MISSING


def test_the_first_rule_that_matches_counts() -> None:
    rules = policy(
        PlaceConfig(match=(RuleConfig(comm="other"), RuleConfig(uid=(0,))), nodes=(N1,)),
        PlaceConfig(match=WORKER, never=True),
    )
    first = judged(rules, {0: 256})
    assert isinstance(first, Decision)
    assert first.detail.startswith("fixed.rules[0].match[1]: uid 0")
    assert judged(rules, {0: 256}, make_process(101, uid=5)).reason is Reason.NEVER


def test_a_process_that_becomes_another_program_is_matched_anew() -> None:
    rules = policy(to_nodes(1))
    assert judged(rules, {0: 256}).reason is Reason.RULE
    assert judged(rules, {0: 256}, make_process(comm="other")).reason is Reason.NOT_MATCHED


def test_a_move_under_way_goes_on_to_the_last_permille() -> None:
    rules = policy(to_nodes(1))
    assert judged(rules, {0: 256}).reason is Reason.RULE
    assert judged(rules, {1: 254, 0: 2}).reason is Reason.RULE
    assert judged(rules, {1: 254, 0: 2}).reason is Reason.AS_RULED, "no progress: that is noise"


def test_idle_processes_are_judged_as_well() -> None:
    idle = make_process(cpu_cores=0.0)
    now = Snapshot(
        taken_at=0.0,
        survey=make_survey(idle),
        placements={idle.id: make_placement({0: 256})},
        eligible=(),
        idle=(idle,),
    )
    (verdict,) = policy(to_nodes(1)).decide(Window(now=now, before=None))
    assert verdict.reason is Reason.RULE


def test_spreading_moves_the_blocks_of_one_node_after_the_other() -> None:
    rules = policy(over(1, 2))
    first = judged(rules, {0: 256})
    assert isinstance(first, Decision)
    assert (first.target, first.is_pass, first.misplaced_bytes) == (N1, True, 128 * MIB)
    assert first.extents is not None
    moved = sum(extent.end - extent.start for extent in first.extents)
    assert moved == pytest.approx(128 * MIB, rel=0.05)
    goes_on = judged(rules, {0: 190, 1: 66})
    assert isinstance(goes_on, Decision)
    assert (goes_on.target, goes_on.extents) == (N1, first.extents)
    second = judged(rules, {0: 128, 1: 128})
    assert isinstance(second, Decision)
    assert second.target == N2
    assert not set(second.extents or ()) & set(first.extents)
    assert judged(rules, {1: 128, 2: 128}).reason is Reason.AS_RULED


def test_spreading_begins_with_the_node_that_lacks_most_and_takes_from_each_other_by_what_it_holds() -> None:
    verdict = judged(policy(over(1, 2)), {0: 150, 1: 90, 3: 60})  # 150 MiB belong on each: 60 are lacking, and 150
    assert isinstance(verdict, Decision)
    assert verdict.target == N2
    assert verdict.source_bytes == pytest.approx({N0: 75 * MIB, N1: 45 * MIB, N3: 30 * MIB}, rel=0.05)
    assert verdict.sources is None
    assert verdict.misplaced_bytes == sum((verdict.source_bytes or {}).values())


def test_of_nodes_to_spread_over_one_that_is_left_takes_all() -> None:
    verdict = judged(policy(over(1, 7)), {0: 200, 1: 56})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.extents, verdict.is_pass, verdict.misplaced_bytes) == (N1, None, False, 200 * MIB)


@pytest.mark.parametrize(
    ("place", "held", "free", "detail"),
    [
        (to_nodes(1), {1: 254, 0: 2}, {}, "99.2% on node 1"),
        (to_nodes(0, 1), {0: 100, 1: 156}, {}, "100.0% on node 0-1"),
        (to_nodes(2, 1), {0: 256}, {1: 0, 2: 0}, "no room on node 1-2"),
        (to_nodes(7), {1: 256}, {}, "node 7 is not there"),
        (over(0, 1), {0: 128, 1: 128}, {}, "spread over the nodes 0-1"),
        (over(1, 2), {0: 256}, {1: 0, 2: 0}, "no room on node 1-2"),
        (to_nodes(1), {0: 256}, {}, "256 MiB to node 1, cost 0.50 s"),
    ],
)
def test_what_is_told_of_it(place: PlaceConfig, held: Mapping[int, float], free: dict[int, int], detail: str) -> None:
    verdict = judged(policy(place), held, free_bytes=free)
    assert verdict.detail == f"fixed.rules[0].match[0]: comm 'worker': {detail}"


def test_a_rule_asks_for_no_gain_and_tells_the_cost() -> None:
    verdict = judged(policy(to_nodes(1)), {0: 512})
    assert isinstance(verdict, Decision)
    assert (verdict.gain_cores, verdict.cost_seconds, verdict.policy) == (0.0, 1.0, "fixed")


def test_spreading_goes_to_the_node_that_has_room() -> None:
    verdict = judged(policy(over(1, 2)), {0: 256}, free_bytes={1: 0})
    assert isinstance(verdict, Decision)
    assert verdict.target == N2
    full = judged(policy(over(1, 2)), {0: 256}, free_bytes={1: 0, 2: 0})
    assert full.reason is Reason.TARGET_FULL


def test_the_plugin_tells_which_nodes_it_names_and_what_its_rules_ask_for() -> None:
    assert isinstance(plugin, PlacingPlugin)
    options = RuleOptions(rules=(to_nodes(2, 0), over(3), PlaceConfig(match=(RuleConfig(exe="/x"),), never=True)))
    assert list(plugin.nodes(options)) == [
        (("rules", 0, "nodes", 0), N2),
        (("rules", 0, "nodes", 1), N0),
        (("rules", 1, "interleave", 0), N3),
    ]
    assert [(path, rule.exe) for path, rule in plugin.rules(options)] == [
        (("rules", 0, "match", 0), None),
        (("rules", 1, "match", 0), None),
        (("rules", 2, "match", 0), "/x"),
    ]


@pytest.mark.parametrize(
    ("rules", "line", "message"),
    [
        ("[]", 4, "without a rule no process belongs to it"),
        ("[{match: [{comm: a}]}]", 4, "a rule says one thing: write one of nodes, interleave and never: true"),
        ("[{match: [{comm: a}], nodes: 0, never: true}]", 4, "a rule says one thing"),
        ("[{match: [{comm: a}], nodes: 0, interleave: 0, never: true}]", 4, "a rule says one thing"),
        ("[{match: [{comm: a}]}]", 4, "a rule says one thing"),
        ("[{match: [], never: true}]", 4, "without a rule no process belongs to it"),
        ("[{match: [{comm: '('}], never: true}]", 4, "no regular expression"),
        ("[{match: [{comm: a}], nodes: []}]", 4, "an empty list names no node"),
        ("[{match: [{comm: a}], nodes: [0, 0]}]", 4, "a node stands there twice"),
        ("[{match: [{comm: a}], nodes: 0-x}]", 4, "expected nodes such as 0-3,8"),
        ("[{match: [{comm: a}], nodes: [-1]}]", 4, "expected the number of a node, got -1"),
        ("[{match: [{comm: a}], nodes: 5000}]", 4, "there is no node 5000"),
        ("[{match: [{uid: no-such-user-here}], never: true}]", 4, "there is no user 'no-such-user-here'"),
        ("[{match: [{comm: a}], nod: 1}]", 4, "did you mean 'nodes'?"),
    ],
)
def test_what_is_wrong_with_rules_is_told_with_its_line(rules: str, line: int, message: str) -> None:
    text = f"policies:\n  - name: fixed\n    kind: rule\n    rules: {rules}\n"
    with pytest.raises(ConfigError) as caught:
        loader.load_text(text, plugins={"rule": RuleOptions})
    assert [finding.line for finding in caught.value.findings] == [line]
    assert message in caught.value.findings[0].message


@pytest.mark.parametrize(
    ("written", "nodes"), [("1", (1,)), ("[2, 0]", (2, 0)), ("0-2,5", (0, 1, 2, 5)), ("'3'", (3,))]
)
def test_nodes_are_written_as_a_number_a_list_or_a_text(written: str, nodes: tuple[int, ...]) -> None:
    text = f"policies: [{{name: f, kind: rule, rules: [{{match: [{{uid: root}}], nodes: {written}}}]}}]\n"
    if "," in written and not written.startswith("["):
        text = text.replace(written, f"'{written}'")
    loaded = loader.load_text(text, plugins={"rule": RuleOptions})
    options = RuleOptions.from_text(dict(loaded.config.policies[0].options))
    assert options.rules[0].nodes == nodes
    assert options.rules[0].match[0].uid == (0,)
