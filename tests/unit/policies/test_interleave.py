"""Tables for the policy interleave: what is shared, when it is spread, over which nodes, and what stays as it is."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.interleaving import equal_weights, node_of_region
from balancerd.model.access import REGION_BYTES, AccessRegion, AccessRun, AccessWindow
from balancerd.model.copying import Copying
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent, size_bytes
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.machine import Link, Machine, NodeState
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.policies.interleave import Interleave, InterleaveOptions, plugin
from balancerd.ports import AccessPolicy, PolicyContext
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N1,
    N2,
    N3,
    VMA_START,
    make_access_run,
    make_access_window,
    make_process,
    make_snapshot,
    make_survey,
    make_topology,
)

PID = ProcessId(100, 1)
NODES = (N0, N1, N2, N3)
EVEN = equal_weights(NODES)
EVERYWHERE = {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}
BY_ALL = {0: 4.0, 1: 4.0, 2: 4.0, 3: 4.0}


def policy(**options: Any) -> Interleave:
    return plugin.build("shared", InterleaveOptions(**options), PolicyContext(migration_bytes_per_second=GIB))


def spread(pid: int = 100, **changes: Any) -> ProcessSample:
    """Four threads at work on four nodes."""
    process = {"run": EVERYWHERE, "cpu_cores": 4.0, "rss_bytes": GIB, **changes}
    return make_process(pid, **process)


def region(
    index: int, on: Mapping[int, float] | None, by: Mapping[int, float] | None = None, **changes: Any
) -> AccessRegion:
    """The region so many behind VMA_START; `on` is MiB by node, `by` weight by accessing node."""
    found = AccessRegion(
        start=VMA_START + index * REGION_BYTES,
        weight_by_node={NodeId(n): w for n, w in (BY_ALL if by is None else by).items()},
        pages_by_node=None if on is None else {NodeId(n): mib * 256 for n, mib in on.items()},
    )
    return replace(found, **changes)


ALL_ON_0 = tuple(region(i, {0: 2}) for i in range(32))


def window(*regions: AccessRegion, runs: tuple[AccessRun, ...] = (), **changes: Any) -> AccessWindow:
    return make_access_window(*runs, regions=regions, **changes)


def seen(process: ProcessSample, *windows: AccessWindow, at: float = 2.0, **survey: Any) -> Snapshot:
    return make_snapshot(make_survey(process, at=at, **survey), windows=windows)


def decide(
    it: Interleave, *regions: AccessRegion, process: ProcessSample | None = None, at: float = 2.0, **changes: Any
) -> list[Verdict]:
    snapshot = seen(process or spread(), window(*regions, **changes), at=at)
    return list(it.decide(Window(now=snapshot, before=None)))


def only_skip(verdicts: list[Verdict]) -> tuple[Reason, str]:
    (skip,) = verdicts
    assert isinstance(skip, Skip)
    assert skip.by == "shared"
    return skip.reason, skip.detail


def targets(verdicts: list[Verdict]) -> dict[int, NodeId]:
    """The node to which each region behind VMA_START is called."""
    found: dict[int, NodeId] = {}
    for decision in verdicts:
        assert isinstance(decision, Decision)
        assert decision.extents is not None
        for extent in decision.extents:
            for start in range(extent.start, extent.end, REGION_BYTES):
                assert found.setdefault((start - VMA_START) // REGION_BYTES, decision.target) == decision.target
    return found


def test_what_the_machine_has_measured_is_what_spreading_costs() -> None:
    snapshot = seen(spread(), window(*ALL_ON_0))
    fast = replace(snapshot, copying=Copying(copied_bytes=float(64 * GIB), seconds=32.0))
    costs = []
    for now in (snapshot, fast):
        decisions = [d for d in policy().decide(Window(now=now, before=None)) if isinstance(d, Decision)]
        costs.append(sum(decision.cost_seconds for decision in decisions))
    assert costs[1] == pytest.approx(costs[0] / 2, rel=0.01)


def test_it_is_a_policy_that_asks_for_accesses() -> None:
    assert isinstance(policy(), AccessPolicy)


def test_what_all_use_and_one_node_holds_is_called_to_all_of_them_with_sizes_sources_gain_and_cost() -> None:
    decisions = [d for d in decide(policy(), *ALL_ON_0) if isinstance(d, Decision)]
    assert targets(list(decisions)) == {
        i: n for i in range(32) if (n := node_of_region(VMA_START + i * REGION_BYTES, EVEN)) != N0
    }
    assert [d.target for d in decisions] == [N1, N2, N3]
    for decision in decisions:
        assert decision.misplaced_bytes == size_bytes(decision.extents or ())
        assert decision.source_bytes == {N0: decision.misplaced_bytes}
        assert decision.cost_seconds == pytest.approx(2 * decision.misplaced_bytes / GIB)
        assert decision.reason is Reason.SPREAD
    # 8 +- 1 of 32 regions for each node: 4 cores on 4 CPUs, crowding from 4 to 1, and on average nothing is nearer
    assert sum(d.gain_cores for d in decisions) == pytest.approx(0.12 * 4 * 3, rel=0.02)
    assert decisions[0].detail.startswith("16 MiB of 64 MiB that threads on nodes 0-3 share, imbalance 173%, gain 0.4")


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        pytest.param({"run": {0: 2.0}}, Reason.ONE_HOME, "100% on one node at a time", id="one node"),
        pytest.param({"run": {0: 1.9, 1: 0.1}}, Reason.ONE_HOME, "95% on one node at a time", id="nearly one node"),
        pytest.param({"run": {}}, Reason.NO_HOME, "", id="never ran"),
        pytest.param({"cpu_cores": 0.9}, Reason.NOT_WATCHED, "0.90 of 1.00 cores", id="hardly runs"),
        pytest.param({"cpu_cores": None}, Reason.NOT_WATCHED, "0.00 of 1.00 cores", id="first sight"),
        pytest.param({"rss_bytes": 127 * MIB}, Reason.NOT_WATCHED, "127 of 128 MiB", id="small"),
    ],
)
def test_whom_it_does_not_want_watched_and_why(changes: dict[str, Any], reason: Reason, detail: str) -> None:
    process = spread(**changes)
    watcher = policy()
    assert list(watcher.watch(seen(process))) == []
    assert only_skip(list(watcher.decide(Window(now=seen(process), before=None)))) == (reason, detail)


def test_the_busiest_are_watched_first() -> None:
    snapshot = make_snapshot(make_survey(spread(), spread(101, cpu_cores=5.0), at=2.0))
    assert list(policy().watch(snapshot)) == [ProcessId(101, 1), PID]


def test_a_process_that_nobody_could_watch_is_told_with_the_reason() -> None:
    assert only_skip(list(policy().decide(Window(now=seen(spread()), before=None)))) == (
        Reason.NOT_WATCHED,
        "no source of accesses is at work",
    )


SHIFTED = tuple(region(i, {node_of_region(VMA_START + i * REGION_BYTES, EVEN): 2}) for i in range(32))
"""Each is where it belongs."""


@pytest.mark.parametrize(
    ("regions", "changes", "reason"),
    [
        pytest.param((), {}, Reason.TOO_FEW_SAMPLES, id="nothing seen"),
        pytest.param(ALL_ON_0[:31], {}, Reason.NOT_SHARED, id="too little of it"),
        pytest.param(ALL_ON_0, {"hits": 199}, Reason.NOT_SHARED, id="less than one core is busy with it"),
        pytest.param(ALL_ON_0, {"hits": 201}, None, id="one core is"),
        pytest.param(ALL_ON_0, {"lost_samples": 100}, Reason.SAMPLES_LOST, id="11 % lost"),
        pytest.param(ALL_ON_0, {"throttled": 1}, Reason.SAMPLES_LOST, id="throttled"),
        pytest.param(ALL_ON_0, {"watched_seconds": 0.06}, Reason.LOSS_BELOW_COST, id="has not lost what it costs"),
        pytest.param(ALL_ON_0, {"watched_seconds": 0.07}, None, id="has lost as much: 1.44 cores, 0.094 s"),
        pytest.param(SHIFTED, {}, Reason.BALANCED, id="spread already"),
        pytest.param(tuple(region(i, {i % 4: 2}) for i in range(32)), {}, Reason.BALANCED, id="evenly, otherwise"),
        pytest.param(
            tuple(region(i, {0: 2}, {0: 16.0}) for i in range(32)), {}, Reason.NOT_SHARED, id="used by one node"
        ),
        pytest.param(
            tuple(region(i, {0: 2}, {0: 76.0, 1: 24.0}) for i in range(32)), {}, Reason.NOT_SHARED, id="nearly by one"
        ),
        pytest.param(
            tuple(region(i, {0: 2}, {0: 1.9, 1: 6.0}) for i in range(32)), {}, Reason.NOT_SHARED, id="few samples"
        ),
        pytest.param(tuple(region(i, {0: 2}, node=N1) for i in range(32)), {}, Reason.NOT_SHARED, id="owned"),
        pytest.param(tuple(region(i, None) for i in range(32)), {}, Reason.NOT_SHARED, id="nobody knows where"),
        pytest.param(tuple(region(i, {}) for i in range(32)), {}, Reason.NOT_SHARED, id="nothing is present"),
        pytest.param(
            tuple(region(i, {0: 2}, {0: 70.0, 1: 10.0, 2: 10.0, 3: 10.0}) for i in range(32)),
            {},
            Reason.NOT_SHARED,
            id="the others' shares are small",
        ),
    ],
)
def test_when_nothing_is_spread_and_why(
    regions: tuple[AccessRegion, ...], changes: dict[str, Any], reason: Reason | None
) -> None:
    verdicts = decide(policy(), *regions, **changes)
    assert (only_skip(verdicts)[0] if reason else type(verdicts[0])) == (reason or Decision)


def uneven(on_0: int) -> tuple[AccessRegion, ...]:
    """Of 40 regions so many are on node 0, the others on nodes 1 to 3 in turn."""
    return tuple(region(i, {0 if i < on_0 else 1 + i % 3: 2}) for i in range(40))


@pytest.mark.parametrize(("on_0", "begins"), [(10, False), (16, False), (17, True), (40, True)])
def test_spreading_begins_at_an_imbalance_of_35_percent(on_0: int, begins: bool) -> None:
    verdicts = decide(policy(), *uneven(on_0))  # 16 of 40: (16, 8, 8, 8) has a deviation of 3.46, its mean is 10
    assert all(isinstance(v, Decision) for v in verdicts) == begins
    if not begins:
        assert only_skip(verdicts)[0] is Reason.BALANCED


def test_what_has_begun_is_finished_below_the_imbalance_that_begins_it() -> None:
    it = policy()
    assert targets(decide(it, *uneven(40)))
    assert targets(decide(it, *uneven(15), at=4.0))
    assert only_skip(decide(policy(), *uneven(15)))[0] is Reason.BALANCED


def test_nothing_is_spread_any_more_once_the_threads_have_gathered_though_they_are_watched_on() -> None:
    it = policy()
    for tick in range(1, 30):
        assert targets(decide(it, *ALL_ON_0, at=2.0 * tick))
    gathered = spread(run={2: 7.6, 0: 0.4})
    assert list(it.watch(seen(gathered, at=60.0)))
    assert only_skip(decide(it, *ALL_ON_0, process=gathered, at=60.0)) == (Reason.ONE_HOME, "95% on one node now")
    assert targets(decide(it, *ALL_ON_0, process=spread(run={2: 7.0, 0: 1.0}), at=62.0))


def test_a_process_that_became_local_is_begun_anew() -> None:
    it = policy()
    decide(it, *uneven(40))
    gathered = [decide(it, *uneven(15), process=spread(run={0: 8.0}), at=2.0 * tick) for tick in range(2, 60)]
    assert only_skip(gathered[-1])[0] is Reason.ONE_HOME
    spread_again = [decide(it, *uneven(15), at=2.0 * tick) for tick in range(60, 90)]
    assert only_skip(spread_again[-1])[0] is Reason.BALANCED


def test_accesses_to_what_is_not_shared_count_in_how_busy_all_are_with_the_rest() -> None:
    owned = tuple(region(100 + i, {1: 2}, {1: 16.0}, node=N1) for i in range(32))
    alone = [d.gain_cores for d in decide(policy(), *ALL_ON_0) if isinstance(d, Decision)]
    beside = [d.gain_cores for d in decide(policy(), *ALL_ON_0, *owned) if isinstance(d, Decision)]
    assert beside == pytest.approx([gain / 4 for gain in alone])  # half as busy crowd a quarter as much
    four_times = tuple(region(100 + i, {1: 2}, {1: 16.0}, node=N1) for i in range(100))
    assert only_skip(decide(policy(), *ALL_ON_0, *four_times)) == (
        Reason.NOT_SHARED,
        "64 of 64 MiB are shared, and used by 0.97 of 1.00 cores",
    )


def test_what_of_a_region_is_in_its_place_counts_neither_as_gain_nor_as_cost() -> None:
    def half(i: int) -> bool:
        return node_of_region(VMA_START + i * REGION_BYTES, EVEN) == N1

    by_node = {
        d.target: (d.misplaced_bytes / size_bytes(d.extents or ()), d.gain_cores / size_bytes(d.extents or ()))
        for d in decide(policy(), *(region(i, {0: 1, 1: 1} if half(i) else {0: 2}) for i in range(32)))
        if isinstance(d, Decision)
    }
    assert {node: away for node, (away, _) in by_node.items()} == {N1: 0.5, N2: 1.0, N3: 1.0}
    assert by_node[N1][1] == pytest.approx(by_node[N2][1] / 2)
    assert by_node[N3][1] == pytest.approx(by_node[N2][1])


def with_cpus(each: int) -> Topology:
    """RING with so many CPUs a node."""
    ring = make_topology()
    nodes = (replace(n, cpus=frozenset(CpuId(c) for c in range(n.id * each, (n.id + 1) * each))) for n in ring.nodes)
    return replace(ring, nodes=tuple(nodes))


@pytest.mark.parametrize(("number", "pays"), [(64, True), (1024, False)])
def test_few_threads_on_a_large_machine_crowd_nobody_so_that_much_memory_stays(number: int, pays: bool) -> None:
    regions = tuple(region(i, {0: 2}) for i in range(number))
    snapshot = seen(spread(), window(*regions), topology=with_cpus(256))
    verdicts = list(policy().decide(Window(now=snapshot, before=None)))
    assert all(isinstance(verdict, Decision) for verdict in verdicts) == pays
    if not pays:
        reason, detail = only_skip(verdicts)
        assert (reason, detail) == (Reason.GAIN_BELOW_COST, "1536 MiB to spread, gain 0.006 cores, cost 3.00 s")


@pytest.mark.parametrize(("hits", "pays"), [(400, False), (800, True)])
def test_what_gets_farther_must_be_made_up_for_by_what_gets_less_crowded(hits: int, pays: bool) -> None:
    # extra distance 0.3 * 2.1 before, 0.5 * (0.3 + 0.7) * 2.1 after: 0.42 more; crowding 2 before, by 2 or 4 of 8 CPUs
    regions = tuple(region(i, {0: 2}, {0: 70.0, 3: 30.0}) for i in range(1000))
    process = spread(run={0: 5.6, 3: 2.4})
    snapshot = seen(process, window(*regions, hits=hits), topology=with_cpus(4))
    verdicts = list(policy(min_shared_bytes=2 * MIB).decide(Window(now=snapshot, before=None)))
    assert all(isinstance(verdict, Decision) for verdict in verdicts) == pays
    if pays:
        assert isinstance(verdicts[0], Decision)
        assert verdicts[0].gain_cores == pytest.approx(0.12 * 4 * (4 / 8 - 0.42), rel=0.05)
    else:
        assert only_skip(verdicts)[0] is Reason.GAIN_BELOW_COST


def test_a_node_that_begins_to_use_it_gets_a_part_late_and_keeps_it_for_long() -> None:
    it, got = policy(), []
    for tick, share in enumerate((0.0, 0.12, 0.13, 0.12, 0.06, 0.04, 0.12), 1):
        by = {**dict.fromkeys(range(3), 33 * (1 - share)), 3: 99 * share}
        regions = tuple(region(i, {0: 2}, by) for i in range(32))
        got.append(N3 in targets(decide(it, *regions, at=2.0 * tick)).values())
    assert got == [False, False, True, True, True, False, False]


def test_a_node_outside_of_its_cpuset_or_without_memory_gets_nothing() -> None:
    process = spread(mems_allowed=frozenset({N0, N2}))
    assert set(targets(decide(policy(), *ALL_ON_0, process=process)).values()) == {N2}
    snapshot = seen(spread(), window(*ALL_ON_0), topology=make_topology(memoryless={2}))
    assert set(targets(list(policy().decide(Window(now=snapshot, before=None)))).values()) == {N1, N3}
    alone = spread(mems_allowed=frozenset({N0}))
    assert only_skip(decide(policy(), *ALL_ON_0, process=alone)) == (
        Reason.HOME_WITHOUT_MEMORY,
        "of the nodes 0-3 that share it 1 may hold memory",
    )


def a_machine(*rates: float) -> Machine:
    nodes = {}
    for n, rate in enumerate(rates):
        link = Link(
            read_latency_seconds=None,
            write_latency_seconds=None,
            read_bytes_per_second=rate,
            write_bytes_per_second=None,
            initiators=frozenset({NodeId(n)}),
        )
        nodes[NodeId(n)] = NodeState(node=NodeId(n), link=link)
    return Machine(nodes=nodes)


@pytest.mark.parametrize(("weights", "on_1"), [("bandwidth", 32), ("equal", 16)])
def test_a_faster_node_gets_more_and_goes_on_so_while_the_machine_is_not_read(weights: str, on_1: int) -> None:
    it = policy(weights=weights)
    regions = tuple(region(i, {0: 2}) for i in range(64))
    for at, machine in ((2.0, a_machine(1e10, 3e10, 1e10, 1e10)), (4.0, None)):
        snapshot = seen(spread(), window(*regions), at=at)
        snapshot = replace(snapshot, survey=replace(snapshot.survey, machine=machine))
        got = list(targets(list(it.decide(Window(now=snapshot, before=None)))).values())
        assert got.count(N1) == pytest.approx(on_1, abs=1)


@pytest.mark.parametrize(
    ("run", "huge", "is_left"),
    [
        pytest.param(make_access_run(2, 1, {0: 2}, at_mib=8), None, True, id="a whole region"),
        pytest.param(make_access_run(1, 1, {0: 1}, at_mib=8), (), True, id="half a region of base pages"),
        pytest.param(make_access_run(1, 1, {0: 1}, at_mib=8), None, False, id="half, and it may be one huge page"),
        pytest.param(make_access_run(1 / 16, 1, {0: 1 / 16}, at_mib=8, weight=32.0), (), False, id="not sure"),
    ],
)
def test_what_belongs_to_one_node_for_sure_is_left_to_the_policy_access(
    run: AccessRun, huge: tuple[Extent, ...] | None, is_left: bool
) -> None:
    regions = tuple(region(i, {3: 2}) for i in range(40))
    assert node_of_region(regions[4].start, EVEN) != N3
    assert (4 not in targets(decide(policy(), *regions, runs=(run,), huge=huge))) == is_left


def test_the_hottest_go_first_and_no_more_than_until_the_next_tick() -> None:
    regions = tuple(region(i, {0: 2}, dict.fromkeys(range(4), 4.0 + i % 2)) for i in range(1024))
    it = plugin.build("shared", InterleaveOptions(), PolicyContext(migration_bytes_per_second=64 * MIB))
    verdicts = decide(it, *regions, process=spread(cpu_cores=64.0, rss_bytes=8 * GIB))
    got = targets(verdicts)
    assert len(got) * 2 == 128  # 64 MiB/s for 2 s
    assert {i % 2 for i in got} == {1}
    assert sum(d.misplaced_bytes for d in verdicts if isinstance(d, Decision)) == 128 * MIB


def test_more_than_so_many_ranges_wait_for_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancerd.policies.interleave.MOST_EXTENTS", 5)
    assert len(targets(decide(policy(), *ALL_ON_0))) == 5


def test_a_region_of_which_a_hundredth_is_elsewhere_moves_and_of_which_less_is_does_not() -> None:
    there = node_of_region(VMA_START, EVEN)
    other = next(node for node in NODES if node != there)
    for away, goes in ((0.021, True), (0.019, False)):
        odd = region(0, {there: 2 - away, other: away})
        assert (0 in targets(decide(policy(), odd, *(region(i, {0: 2}) for i in range(1, 40))))) is goes


def test_an_owned_part_leaves_the_regions_beside_its_own_to_be_spread() -> None:
    run = make_access_run(2, 1, {0: 2}, at_mib=16)
    regions = tuple(region(i, {3: 2}) for i in range(40))
    free = {i for i in range(40) if node_of_region(regions[i].start, EVEN) != N3}
    assert set(targets(decide(policy(), *regions, runs=(run,)))) == free - {8}
    assert {7, 8, 9} & free, "one of them would move"


def test_what_is_nearer_afterwards_counts_too_and_each_decision_has_its_share_of_the_gain() -> None:
    """Nodes 2 and 3 share what node 0 holds: extra distances of 1.1 and 2.1 before, of 0 and 0.2 after.

    4 cores on the 2 CPUs of these nodes crowd half as much afterwards.
    """
    regions = tuple(region(i, {0: 2}, {2: 8.0, 3: 8.0}) for i in range(400))
    decisions = [d for d in decide(policy(), *regions, process=spread(run={2: 4.0, 3: 4.0})) if isinstance(d, Decision)]
    assert {d.target for d in decisions} == {N2, N3}
    nearer, less_crowded = (1.1 + 2.1) / 2 - (0.0 + 0.2) / 2, 4 / 2 * (2.0 - 1.0)
    whole = sum(d.gain_cores for d in decisions)
    assert whole == pytest.approx(0.12 * 4 * (nearer + less_crowded), rel=0.02)
    for d in decisions:
        assert d.gain_cores / whole == pytest.approx(d.misplaced_bytes / (800 * MIB))


def test_the_same_snapshot_gives_the_same_verdicts_whether_or_not_it_was_asked_whom_to_watch() -> None:
    asked, not_asked = policy(), policy()
    for tick in range(1, 5):
        snapshot = seen(spread(), window(*uneven(40 - 5 * tick), at=2.0 * tick, hits=200 * tick), at=2.0 * tick)
        list(asked.watch(snapshot))
        whole = Window(now=snapshot, before=None)
        assert list(asked.decide(whole)) == list(not_asked.decide(whole))


REGIONS = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 3), st.floats(0.01, 0.5), max_size=4),
        st.dictionaries(st.integers(0, 3), st.floats(0.0, 50.0), min_size=1, max_size=4),
        st.booleans(),
    ),
    min_size=32,
    max_size=80,
)


@given(REGIONS, st.floats(1.0, 256.0))
def test_whatever_is_seen_every_range_goes_to_the_one_node_of_its_address(
    seen_regions: list[tuple[dict[int, float], dict[int, float], bool]], cores: float
) -> None:
    regions = [region(i, on, by, node=N2 if own else None) for i, (on, by, own) in enumerate(seen_regions)]
    it = policy(min_shared_bytes=2 * MIB, imbalance_ratio=0.05)
    verdicts = decide(it, *regions, process=spread(cpu_cores=cores))
    if isinstance(verdicts[0], Skip):
        assert len(verdicts) == 1
        return
    decisions = [d for d in verdicts if isinstance(d, Decision)]
    sharers = it._memories[PID].sharers
    for index, node in targets(verdicts).items():  # which asserts that no region is called to two nodes
        assert node == node_of_region(regions[index].start, equal_weights(sharers))
        assert regions[index].node is None
        assert set(regions[index].pages_by_node or {}) != {node}
    for decision in decisions:
        extents = decision.extents or ()
        assert all(a.end < b.start for a, b in pairwise(extents))
        assert 0 < decision.misplaced_bytes <= size_bytes(extents) + 3 * PAGE_BYTES * len(extents)
        assert sum((decision.source_bytes or {}).values()) == decision.misplaced_bytes
        assert decision.target not in (decision.source_bytes or {})
        assert decision.gain_cores > 0
