"""Tables for the policy tiering: what goes up, what goes down and when, what is left, and what ends asking."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.warmth import STEADY_TIMES
from balancerd.model.access import AccessRegion, AccessWindow
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatMethod, Heats, HeatWindow
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import Window
from balancerd.policies.tiering import Tiering, TieringOptions, plugin
from balancerd.ports import AccessPolicy, PolicyContext
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N1,
    N2,
    VMA_START,
    make_access_window,
    make_placement,
    make_snapshot,
    make_survey,
    make_topology,
)
from tests.unit.policies.tiers import make_heat, make_tiered, make_tiered_process, make_tiers

PROCESS = make_tiered_process()
HOT_COLD = ((256, 0.8), (768, 0.0))
KEPT = 16 * MIB + 8 * GIB // 10
HEADROOM = int(0.02 * 8 * GIB)
SHORT = {1: KEPT + HEADROOM - 128 * MIB}


shown: weakref.WeakSet[Tiering] = weakref.WeakSet()
"""Those that were shown the heat often enough, as the time that a process is watched first lets them."""


def policy(**options: Any) -> Tiering:
    return plugin.build("tiers", TieringOptions(**options), PolicyContext(migration_bytes_per_second=GIB))


def judged(
    tiering: Tiering,
    held: Mapping[int, float] | None,
    heat: Sequence[tuple[float, float]] | HeatWindow | None = HOT_COLD,
    *,
    at: float = 0.0,
    process: Any = PROCESS,
    free_bytes: Mapping[int, int] | None = None,
) -> tuple[Verdict, ...]:
    window = heat if heat is None or isinstance(heat, HeatWindow) else make_heat(heat, at=at)
    placement = None if held is None else make_placement(held)
    if window is not None and tiering not in shown:
        shown.add(tiering)
        for seconds in range(5 * (STEADY_TIMES - 1), 0, -5):
            early = replace(window, taken_at=window.taken_at - seconds, watched_seconds=0.0)
            snapshot = make_tiered(process, placement, early, at=at - seconds, free_bytes=free_bytes)
            assert not [v for v in tiering.decide(Window(now=snapshot, before=None)) if isinstance(v, Decision)]
    snapshot = make_tiered(process, placement, window, at=at, free_bytes=free_bytes)
    return tuple(tiering.decide(Window(now=snapshot, before=None)))


def one(*arguments: Any, **keywords: Any) -> Verdict:
    (verdict,) = judged(*arguments, **keywords)
    return verdict


def spans(decision: Decision) -> list[tuple[float, float]]:
    """In MiB."""
    return [((e.start - VMA_START) / MIB, (e.end - VMA_START) / MIB) for e in decision.extents or ()]


@pytest.mark.parametrize(
    ("held", "heat", "changes", "reason"),
    [
        pytest.param(None, HOT_COLD, {}, Reason.NOT_SAMPLED, id="not sampled"),
        pytest.param({2: 1024}, None, {}, Reason.HEAT_UNKNOWN, id="not watched"),
        pytest.param({2: 1024}, HOT_COLD, {"rss_bytes": 63 * MIB}, Reason.HEAT_UNKNOWN, id="small"),
        pytest.param({2: 1024}, HOT_COLD, {"run_seconds": {}}, Reason.NO_HOME, id="has not run"),
        pytest.param({1: 1024}, HOT_COLD, {}, Reason.IN_ITS_TIER, id="all is fast, and there is room"),
        pytest.param({2: 1024}, ((1024, 0.0),), {}, Reason.IN_ITS_TIER, id="all is cold"),
        pytest.param({2: 1024}, HOT_COLD, {"cpu_cores": 0.001}, Reason.GAIN_BELOW_COST, id="idle"),
        pytest.param({2: 1024}, HOT_COLD, {"mems_allowed": frozenset({N2})}, Reason.IN_ITS_TIER, id="may not"),
    ],
)
def test_what_stays_where_it_is(
    held: Mapping[int, float] | None, heat: Any, changes: dict[str, Any], reason: Reason
) -> None:
    verdict = one(policy(), held, heat, process=replace(PROCESS, **changes))
    assert isinstance(verdict, Skip)
    assert verdict.reason is reason


def test_a_machine_without_memory_only_nodes_has_one_tier() -> None:
    snapshot = make_snapshot(make_survey(PROCESS), make_placement({0: 1024}))
    (verdict,) = policy().decide(Window(now=snapshot, before=None))
    assert verdict.reason is Reason.ONE_TIER


def test_what_is_hot_on_a_slow_node_goes_to_the_node_where_its_threads_run() -> None:
    verdict = one(policy(), {2: 1024})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.reason, verdict.sources) == (N1, Reason.PROMOTION, frozenset({N2}))
    assert spans(verdict) == [(0, 256)]
    assert verdict.misplaced_bytes == 256 * MIB
    assert verdict.source_bytes == {N2: 256 * MIB}
    # all accesses are to it, five times as long as local ones are
    assert verdict.gain_cores == pytest.approx(1.0 * 0.12 * 5.0)


@pytest.mark.parametrize(("seconds", "target"), [(2.0, N1), (12.0, N1), (16.0, N0)])
def test_hot_memory_follows_no_visit_but_whoever_has_run_elsewhere_for_most_of_twenty_seconds(
    seconds: float, target: NodeId
) -> None:
    tiering, elsewhere = policy(), replace(PROCESS, run_seconds={N0: 2.0})
    for at in (0.0, 2.0, 4.0):
        one(tiering, {2: 1024}, at=at)
    verdict = one(tiering, {2: 1024}, at=4.0 + seconds, process=elsewhere)
    assert isinstance(verdict, Decision)
    assert verdict.target == target


def test_where_its_node_is_full_it_goes_to_the_next_that_wins_something() -> None:
    verdict = one(policy(), {2: 1024}, free_bytes={1: KEPT})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.reason) == (N0, Reason.PROMOTION)
    full = one(policy(), {2: 1024}, free_bytes={0: KEPT, 1: KEPT})
    assert full.reason is Reason.TARGET_FULL
    assert full.detail == "256 MiB should move, and find no room"


def test_of_a_mapping_on_two_nodes_no_more_is_counted_than_lies_on_the_slow_one() -> None:
    verdict = one(policy(), {1: 512, 2: 512})
    assert isinstance(verdict, Decision)
    assert (verdict.misplaced_bytes, spans(verdict)) == (128 * MIB, [(0, 256)])


def test_cold_memory_leaves_a_node_that_lacks_room_and_no_more_of_it_than_it_lacks() -> None:
    verdict = one(policy(), {1: 1024}, free_bytes=SHORT)
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.reason, verdict.sources) == (N2, Reason.DEMOTION, frozenset({N1}))
    assert spans(verdict) == [(256, 384)]
    assert verdict.misplaced_bytes == 128 * MIB


def test_of_several_cold_regions_together_no_more_leaves_than_is_lacking() -> None:
    verdict = one(policy(), {1: 1024}, ((256, 0.8), (64, 0.0), (32, 0.7), (672, 0.0)), free_bytes=SHORT)
    assert isinstance(verdict, Decision)
    assert spans(verdict) == [(256, 320), (352, 416)]


def test_nothing_goes_to_a_node_that_is_farther_than_the_slow_one() -> None:
    snapshot = make_tiered(PROCESS, make_placement({2: 1024}), None, free_bytes={1: KEPT})
    far = make_topology(((10, 80, 40), (80, 10, 60), (40, 60, 10)))
    nodes = (*far.nodes[:2], replace(far.nodes[2], cpus=frozenset()))
    survey = replace(snapshot.survey, topology=replace(far, nodes=nodes))
    tiering = policy()
    verdicts: list[Verdict] = []
    for turn in range(STEADY_TIMES):
        heats = Heats(method=HeatMethod.DAMON, windows={PROCESS.id: make_heat(HOT_COLD, at=5.0 * turn)})
        now = replace(snapshot, survey=replace(survey, taken_at=5.0 * turn), heats=heats)
        verdicts += tiering.decide(Window(now=now, before=None))
    assert verdicts[-1].reason is Reason.TARGET_FULL


@pytest.mark.parametrize(
    ("free", "moves"), [(KEPT + HEADROOM, False), (KEPT + HEADROOM - MIB, False), (KEPT + HEADROOM - 2 * MIB, True)]
)
def test_nothing_leaves_while_headroom_is_there(free: int, moves: bool) -> None:
    verdict = one(policy(), {1: 1024}, free_bytes={1: free})
    assert (verdict.reason is Reason.DEMOTION) is moves


def test_headroom_is_an_option() -> None:
    free = {1: KEPT + 8 * GIB // 2}
    assert one(policy(), {1: 1024}, free_bytes=free).reason is Reason.IN_ITS_TIER
    assert one(policy(headroom_ratio=0.6), {1: 1024}, free_bytes=free).reason is Reason.DEMOTION


def test_the_coldest_goes_first_and_what_is_warm_is_left_alone() -> None:
    heat = ((256, 0.8), (256, 0.2), (256, 0.001), (256, 0.0))
    free = {1: KEPT + HEADROOM - 400 * MIB}
    first = one(policy(), {1: 1024}, heat, free_bytes=free)
    assert isinstance(first, Decision)
    assert spans(first) == [(768, 1024)]  # what hardly is used would fit for the most part: it is warm
    least = {1: KEPT + HEADROOM - 600 * MIB}
    second = one(policy(), {1: 1024}, heat, free_bytes=least)
    assert isinstance(second, Decision)
    assert spans(second) == [(512, 1024)]  # the one of 0.2 is warm: hotter than the threshold less one


def test_what_would_be_brought_up_again_stays_even_where_room_is_lacking() -> None:
    """Of 1 GiB a quarter is in use, and the node lacks 2 GiB."""
    lacking = {1: max(0, KEPT + HEADROOM - 2 * GIB)}
    verdict = one(policy(), {1: 1024}, free_bytes=lacking)
    assert isinstance(verdict, Decision)
    assert spans(verdict) == [(256, 1024)]
    used = one(policy(), {1: 1024}, ((512, 0.2), (512, 0.02)), free_bytes=lacking)
    assert isinstance(used, Skip)
    assert used.reason is Reason.GAIN_BELOW_COST
    assert used.detail == "512 MiB on a node that lacks room are used too much to leave it"


def test_what_was_seen_in_use_just_now_stays_before_it_is_surely_used() -> None:
    heat = make_heat(((256, 0.2), (768, 0.0)))
    lacking = {1: max(0, KEPT + HEADROOM - 2 * GIB)}
    snapshot = make_tiered(PROCESS, make_placement({1: 1024}), heat, free_bytes=lacking)
    (verdict,) = policy().decide(Window(now=snapshot, before=None))
    assert isinstance(verdict, Decision)
    assert spans(verdict) == [(256, 1024)]


def test_what_was_seen_in_use_once_leaves_all_the_same() -> None:
    tiering = policy()
    verdict: Verdict | None = None
    for turn, ratio in enumerate((0.8, 0.0, 0.0)):
        heat = make_heat(((256, 0.8), (768, ratio)), at=5.0 * turn)
        snapshot = make_tiered(PROCESS, make_placement({1: 1024}), heat, at=5.0 * turn, free_bytes=SHORT)
        (verdict,) = tiering.decide(Window(now=snapshot, before=None))
    assert isinstance(verdict, Decision)
    assert spans(verdict) == [(256, 384)]


@pytest.mark.parametrize(
    ("waiting", "lie_on", "leaves"),
    [
        pytest.param(0.9, (1, 2), True, id="hotter"),
        pytest.param(0.03, (1, 2), False, id="little hotter"),
        pytest.param(0.9, (1, 1), False, id="hotter and there"),
        pytest.param(0.9, (), False, id="nobody knows where"),
    ],
)
def test_what_is_used_leaves_where_something_much_hotter_waits_for_its_place(
    waiting: float, lie_on: tuple[int, ...], leaves: bool
) -> None:
    heat = make_heat(((512, 0.015), (512, waiting)), lie_on=lie_on)
    verdicts = judged(policy(), {1: 512, 2: 512}, heat, free_bytes={0: KEPT, 1: KEPT + HEADROOM - 600 * MIB})
    assert any(v.reason is Reason.DEMOTION for v in verdicts) is leaves


def test_nothing_comes_up_that_was_seen_in_use_once_or_twice() -> None:
    tiering = policy()
    reasons = []
    for turn in range(STEADY_TIMES):
        snapshot = make_tiered(PROCESS, make_placement({2: 1024}), make_heat(HOT_COLD, at=5.0 * turn), at=5.0 * turn)
        reasons += [verdict.reason for verdict in tiering.decide(Window(now=snapshot, before=None))]
    assert reasons == [Reason.IN_ITS_TIER, Reason.IN_ITS_TIER, Reason.PROMOTION]


def test_with_equal_heat_nothing_is_exchanged() -> None:
    """Twice as much as fits, all as hot: what is there stays there, and headroom is not filled."""
    verdict = one(policy(), {1: 512, 2: 512}, ((1024, 0.8),), free_bytes={0: KEPT, 1: KEPT + HEADROOM // 2})
    assert verdict.reason is Reason.TARGET_FULL


def test_what_is_warm_moves_into_free_room_as_far_as_that_goes_and_leaves_the_headroom() -> None:
    free = {0: KEPT, 1: KEPT + HEADROOM + 700 * MIB}
    verdict = one(policy(), {2: 1024}, ((512, 0.8), (512, 0.8)), free_bytes=free)
    assert isinstance(verdict, Decision)
    assert spans(verdict) == [(0, 512)]


def test_hot_memory_uses_the_headroom_while_cold_memory_leaves() -> None:
    heat = ((256, 0.8), (768, 0.0))
    verdicts = judged(policy(), {1: 512, 2: 512}, heat, free_bytes=SHORT)
    found = {v.reason: v for v in verdicts if isinstance(v, Decision)}
    assert found.keys() == {Reason.PROMOTION, Reason.DEMOTION}
    assert spans(found[Reason.PROMOTION]) == [(0, 256)]
    assert spans(found[Reason.DEMOTION]) == [(256, 512)]  # of a half that is estimated to lie there


def test_it_waits_until_what_was_lost_is_what_moving_costs() -> None:
    tiering = policy(min_watched_seconds=0.0)
    early = make_heat(HOT_COLD, watched_seconds=0.5)
    assert one(tiering, {2: 1024}, early).reason is Reason.LOSS_BELOW_COST
    late = make_heat(HOT_COLD, watched_seconds=1.0)
    assert one(tiering, {2: 1024}, late, at=1.0).reason is Reason.PROMOTION


def test_nothing_is_said_before_it_was_watched_for_a_while() -> None:
    verdict = one(policy(), {2: 1024}, make_heat(HOT_COLD, watched_seconds=29.0))
    assert (verdict.reason, verdict.detail) == (Reason.HEAT_UNKNOWN, "watched for 29 of 30 s")


def test_no_more_moves_than_can_until_the_next_tick() -> None:
    tiering = plugin.build("tiers", TieringOptions(), PolicyContext(migration_bytes_per_second=64 * MIB))
    heat = tuple((128, ratio) for ratio in (0.3, 0.8, 0.5, 0.6, 0.4, 0.7, 0.2, 0.9))
    verdict = one(tiering, {2: 1024}, heat, process=replace(PROCESS, cpu_cores=32.0))
    assert isinstance(verdict, Decision)
    assert spans(verdict) == [(896, 1024)]  # the hottest


def test_what_is_asked_for_in_vain_is_left_alone_for_a_minute_and_then_for_two() -> None:
    tiering = policy()
    reasons = [one(tiering, {1: 768, 2: 256}, at=float(at)).reason for at in range(0, 240, 2)]
    asked = [2 * i for i, reason in enumerate(reasons) if reason is Reason.PROMOTION]
    assert asked == [*range(0, 22, 2), *range(80, 102, 2), *range(220, 240, 2)]
    assert set(reasons) == {Reason.PROMOTION, Reason.IN_ITS_TIER}


def test_while_it_gets_less_it_is_asked_for() -> None:
    tiering = policy()
    for at in range(0, 100, 2):
        assert one(tiering, {1: 512 + 4 * at, 2: 512 - 4 * at}, at=float(at)).reason is Reason.PROMOTION


def test_more_memory_on_the_slow_node_is_another_situation() -> None:
    tiering = policy()
    for at in range(0, 24, 2):
        one(tiering, {1: 768, 2: 256}, at=float(at))
    assert one(tiering, {1: 768, 2: 256}, at=24.0).reason is Reason.IN_ITS_TIER
    assert one(tiering, {1: 700, 2: 324}, at=26.0).reason is Reason.PROMOTION


def test_a_process_whose_heat_swings_is_left_alone_for_twice_as_long_each_time() -> None:
    tiering = policy()
    paused = []
    for at in range(0, 400, 2):
        first_is_hot = at % 60 < 30
        regions = ((512, 0.9 if first_is_hot else 0.0), (512, 0.0 if first_is_hot else 0.9))
        heat = make_heat(regions, at=float(at), lie_on=(2, 1) if first_is_hot else (1, 2))
        verdicts = judged(tiering, {1: 512, 2: 512 - at % 60}, heat, at=float(at), free_bytes=SHORT)
        if verdicts[0].reason is Reason.PING_PONG:
            paused.append(at)
            assert "were to go up and down within 60 s" in verdicts[0].detail
    breaks = [i for i in range(1, len(paused)) if paused[i] - paused[i - 1] > 2]
    lengths = [paused[b - 1] - paused[a] for a, b in zip([0, *breaks], [*breaks, len(paused)], strict=True)]
    assert lengths[:2] == [58, 118]


def test_what_is_no_longer_used_is_cold_after_as_many_looks_as_it_was_seen_in_use() -> None:
    tiering = policy()
    warm, cold = ((512, 0.8), (512, 0.4)), ((512, 0.8), (512, 0.0))
    free = {1: KEPT + HEADROOM - 256 * MIB}
    reasons = [
        one(tiering, {1: 1024}, warm if at == 0 else cold, at=float(at), free_bytes=free).reason
        for at in range(0, 30, 5)
    ]
    # in use in three looks, the ones before the first that it is judged by among them
    assert reasons == [Reason.IN_ITS_TIER] * STEADY_TIMES + [Reason.DEMOTION] * 3


@pytest.mark.parametrize(
    ("held", "heat", "holds"),
    [
        pytest.param({2: 1024}, HOT_COLD, True, id="on the slow node"),
        pytest.param({1: 512, 2: 512}, ((1024, 0.0),), True, id="cold on the slow one"),
        pytest.param({1: 1024}, HOT_COLD, False, id="none of its business"),
        pytest.param({0: 512, 2: 512}, ((1024, 0.0),), False, id="the rest is for follow-cpu"),
        pytest.param({2: 1024}, None, False, id="nothing is known"),
    ],
)
def test_memory_on_slow_nodes_is_for_no_later_policy_while_its_heat_is_known(
    held: Mapping[int, float], heat: Any, holds: bool
) -> None:
    verdict = one(policy(), held, heat)
    assert isinstance(verdict, Decision | Skip)
    assert verdict.holds is holds


@pytest.mark.parametrize(
    ("held", "holds"),
    [({2: 1024}, True), ({1: 512, 2: 512}, True), ({1: 1024}, False), ({0: 300, 1: 300, 2: 424}, False)],
)
def test_a_process_that_is_watched_waits_until_its_heat_is_known(held: Mapping[int, float], holds: bool) -> None:
    verdict = one(policy(), held, make_heat(HOT_COLD, watched_seconds=5.0))
    assert isinstance(verdict, Skip)
    assert (verdict.reason, verdict.holds) == (Reason.HEAT_UNKNOWN, holds)


def test_what_lies_on_a_wrong_node_for_want_of_room_is_not_for_a_later_policy_either() -> None:
    verdict = one(policy(), {0: 512, 2: 512}, ((1024, 0.0),), free_bytes={1: KEPT})
    assert isinstance(verdict, Skip)
    assert verdict.holds


def accesses(weights: Mapping[int, float]) -> AccessWindow:
    """Weights of regions of 2 MiB behind VMA_START."""
    start = -(-VMA_START // (2 * MIB)) * 2 * MIB
    regions = tuple(
        AccessRegion(start=start + index * 2 * MIB, weight_by_node={N1: weight})
        for index, weight in sorted(weights.items())
    )
    return make_access_window(regions=regions)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        pytest.param(dict.fromkeys(range(8), 50.0), [(0, 16)], id="enough samples"),
        pytest.param(dict.fromkeys(range(8), 5.0), None, id="too few"),
    ],
)
def test_without_heat_samples_of_accesses_tell(weights: Mapping[int, float], found: list[Any] | None) -> None:
    snapshot = make_tiered(PROCESS, make_placement({2: 1024}), None)
    snapshot = replace(snapshot, accesses={PROCESS.id: accesses(weights)}, heats=Heats())
    (verdict,) = policy().decide(Window(now=snapshot, before=None))
    if found is None:
        assert verdict.reason is Reason.HEAT_UNKNOWN
    else:
        assert isinstance(verdict, Decision)
        assert spans(verdict) == found


def test_why_heat_is_not_known() -> None:
    snapshot = make_tiered(PROCESS, make_placement({2: 1024}), None)
    for heats, told in (
        (Heats(), "accesses.heat is not set, and no source of accesses tells"),
        (Heats(method=HeatMethod.DAMON), "nobody looks at it yet"),
        (Heats(method=HeatMethod.DAMON, missed={PROCESS.id: "all 4 threads"}), "all 4 threads"),
    ):
        (verdict,) = policy().decide(Window(now=replace(snapshot, heats=heats), before=None))
        assert verdict.detail == told


@pytest.mark.parametrize(
    ("held", "free", "wanted"),
    [({2: 1024}, {}, True), ({1: 1024}, {}, False), ({1: 1024}, SHORT, True), ({0: 1024}, SHORT, False)],
)
def test_it_wants_those_watched_with_memory_on_slow_or_short_nodes(
    held: Mapping[int, float], free: Mapping[int, int], wanted: bool
) -> None:
    tiering = policy()
    assert isinstance(tiering, AccessPolicy)
    snapshot = make_tiered(PROCESS, make_placement(held), None, free_bytes=free)
    assert tuple(tiering.watch(snapshot)) == ((PROCESS.id,) if wanted else ())


def test_a_piece_ends_with_its_mapping_and_at_whole_regions() -> None:
    verdict = one(policy(), {2: 1024}, ((100.4, 0.8), (923.6, 0.0)))
    assert isinstance(verdict, Decision)
    assert verdict.extents == (Extent(VMA_START, VMA_START + 100 * MIB),)
    assert make_tiers().memory_nodes == {NodeId(0), NodeId(1), NodeId(2)}


@pytest.mark.parametrize(
    ("held", "free", "detail"),
    [
        ({2: 1024}, {}, "256 MiB hot on node 2, in 1 ranges, gain 0.600 cores, cost 0.50 s"),
        ({1: 1024}, SHORT, "128 MiB cold on node 1, in 1 ranges, gain 0.000 cores, cost 0.25 s"),
    ],
)
def test_a_move_is_told_with_its_size_and_what_it_wins(
    held: Mapping[int, float], free: Mapping[int, int], detail: str
) -> None:
    assert one(policy(), held, free_bytes=free).detail == detail


def test_what_lies_on_slow_nodes_and_stays_is_told() -> None:
    assert one(policy(), {1: 512, 2: 512}, ((1024, 0.0),)).detail == "512 MiB on slow nodes"


@pytest.mark.parametrize(
    ("mib_per_second", "found"), [(32, [(512, 576)]), (33, [(0, 576)]), (0.5, [(512, 576)]), (1000, [(0, 576)])]
)
def test_what_wins_most_for_its_cost_goes_first_and_the_last_may_be_too_large(
    mib_per_second: float, found: list[tuple[float, float]]
) -> None:
    tiering = plugin.build("tiers", TieringOptions(), PolicyContext(migration_bytes_per_second=mib_per_second * MIB))
    heat = ((512, 0.5), (64, 0.9), (448, 0.0))
    verdict = one(tiering, {2: 1024}, heat, process=replace(PROCESS, cpu_cores=4096.0))
    assert isinstance(verdict, Decision)
    assert spans(verdict) == found


def test_a_node_that_lacks_less_than_a_step_is_passed_over_for_one_that_lacks_more() -> None:
    free = {0: KEPT + HEADROOM - MIB, 1: KEPT + HEADROOM - 128 * MIB}
    verdict = one(policy(), {0: 512, 1: 512}, ((1024, 0.0),), free_bytes=free)
    assert isinstance(verdict, Decision)
    assert (verdict.sources, verdict.misplaced_bytes) == (frozenset({N1}), 128 * MIB)


def test_the_busiest_are_watched_first_and_those_of_whom_too_little_is_known_not_at_all() -> None:
    processes = [
        replace(PROCESS, id=ProcessId(pid, 1), cpu_cores=cores, rss_bytes=mib * MIB)
        for pid, cores, mib in (
            (1, 0.5, 64),
            (2, None, 64),
            (3, 2.0, 64),
            (4, 0.5, 64),
            (5, 9.0, 63),
            (6, 9.0, 64),
            (7, 9.0, 64),
        )
    ]
    placed = [make_placement({2: 64}, pid=pid) for pid in (1, 2, 3, 4, 5)]
    survey = make_survey(*processes, topology=make_tiers())
    snapshot = make_snapshot(survey, *placed, make_placement({}, pid=7))
    assert [process.pid for process in policy().watch(snapshot)] == [3, 1, 4, 2]


@pytest.mark.parametrize(("slow_mib", "wanted"), [(11, True), (9, False)])
def test_a_hundredth_on_slow_nodes_is_enough_to_be_watched(slow_mib: float, *, wanted: bool) -> None:
    snapshot = make_tiered(PROCESS, make_placement({1: 1000 - slow_mib, 2: slow_mib}), None)
    assert bool(tuple(policy().watch(snapshot))) is wanted


def test_how_large_a_process_must_be_is_told() -> None:
    small = one(policy(), {2: 1024}, process=replace(PROCESS, rss_bytes=63 * MIB))
    assert small.detail == "63 of 64 MiB"
    assert one(policy(), {2: 1024}, process=replace(PROCESS, rss_bytes=64 * MIB)).reason is Reason.PROMOTION


def test_where_it_runs_is_weighed_by_how_long() -> None:
    """On node 1 for three quarters, from where node 2 is 5 local distances away; from node 0 it is 3."""
    verdict = one(policy(), {2: 1024}, process=replace(PROCESS, run_seconds={N0: 0.5, N1: 1.5}))
    assert isinstance(verdict, Decision)
    assert verdict.target == N1
    assert verdict.gain_cores == pytest.approx(0.12 * ((3 * 0.25 + 5 * 0.75) - 1 * 0.25))


def test_on_a_machine_with_one_tier_nobody_is_watched() -> None:
    assert tuple(policy().watch(make_snapshot(make_survey(PROCESS), make_placement({0: 1024})))) == ()


def test_memory_of_one_part_that_comes_from_several_slow_nodes_is_counted_by_node() -> None:
    heat = ((256, 0.8), (256, 0.9), (512, 0.0))
    verdict = one(policy(), {2: 768, 1: 256}, heat)
    assert isinstance(verdict, Decision)
    assert verdict.source_bytes == {N2: 384 * MIB}
    assert verdict.misplaced_bytes == 384 * MIB


def test_each_of_two_processes_finds_the_room_that_the_other_has_left() -> None:
    """Warm memory goes into free room, and leaves the headroom to what is hot."""
    processes = [replace(PROCESS, id=ProcessId(pid, 1)) for pid in (1, 2)]
    free = {0: KEPT, 1: KEPT + HEADROOM + 700 * MIB}
    survey = make_survey(*processes, topology=make_tiers(), free_bytes=free)
    tiering = policy()
    verdicts: tuple[Verdict, ...] = ()
    for turn in range(STEADY_TIMES):
        at = 5.0 * turn
        heats = {process.id: make_heat(((512, 0.8),), pid=process.id.pid, at=at) for process in processes}
        placed = [make_placement({2: 512}, pid=process.id.pid) for process in processes]
        now = make_snapshot(replace(survey, taken_at=at), *placed)
        now = replace(now, heats=Heats(method=HeatMethod.DAMON, windows=heats))
        verdicts = tuple(tiering.decide(Window(now=now, before=None)))
    assert [verdict.reason for verdict in verdicts] == [Reason.PROMOTION, Reason.TARGET_FULL]


@pytest.mark.parametrize(
    ("held", "holds"),
    [
        pytest.param({0: 9, 2: 991}, True, id="less than a hundredth on a wrong node"),
        pytest.param({0: 10, 2: 990}, False, id="a hundredth"),
        pytest.param({1: 991, 2: 9}, False, id="less than a hundredth on the slow one"),
        pytest.param({1: 990, 2: 10}, True, id="a hundredth there"),
    ],
)
def test_whom_it_keeps_from_later_policies_by_a_hundredth(held: Mapping[int, float], *, holds: bool) -> None:
    verdict = one(policy(), held, ((1000, 0.0),))
    assert isinstance(verdict, Skip)
    assert verdict.holds is holds


@pytest.mark.parametrize(
    ("held", "holds"),
    [({1: 10, 2: 990}, True), ({0: 10, 1: 10, 2: 980}, False), ({0: 9, 1: 10, 2: 981}, True), ({1: 991, 2: 9}, False)],
)
def test_whose_heat_is_waited_for_by_a_hundredth(held: Mapping[int, float], *, holds: bool) -> None:
    verdict = one(policy(), held, make_heat(((1000, 0.0),), watched_seconds=5.0))
    assert isinstance(verdict, Skip)
    assert (verdict.reason, verdict.holds) == (Reason.HEAT_UNKNOWN, holds)


def asked_at(regions: Sequence[tuple[float, float]], lie_on: Sequence[int], reason: Reason, seconds: int) -> list[int]:
    """At which seconds it is asked for, while nothing of it ever happens."""
    tiering, found = policy(), []
    held = {node: sum(mib for (mib, _), on in zip(regions, lie_on, strict=True) if on == node) for node in set(lie_on)}
    for at in range(0, seconds, 2):
        heat = make_heat(regions, at=float(at), lie_on=lie_on)
        if any(v.reason is reason for v in judged(tiering, held, heat, at=float(at), free_bytes=SHORT)):
            found.append(at)
    return found


def test_cold_memory_that_does_not_leave_is_asked_for_as_long_as_hot_memory_that_does_not_come() -> None:
    regions, lie_on = ((128, 0.0), (640, 0.8), (256, 0.0)), (1, 1, 2)
    assert asked_at(regions, lie_on, Reason.DEMOTION, 100) == [*range(0, 22, 2), *range(80, 100, 2)]


@pytest.mark.parametrize("reason", [Reason.PROMOTION, Reason.DEMOTION])
def test_while_memory_goes_both_ways_it_is_waited_for_three_times_as_long(reason: Reason) -> None:
    regions, lie_on = ((128, 0.0), (384, 0.8), (256, 0.9), (256, 0.0)), (1, 1, 2, 2)
    assert asked_at(regions, lie_on, reason, 110) == [*range(0, 62, 2)]
