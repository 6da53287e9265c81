"""Tables for follow-cpu: each row a process's life in 2-second ticks, and what the policy says at its end."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from balancerd.model.copying import Copying
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.interval import Interval
from balancerd.model.manager import Manager, ManagerFinding
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import Window
from balancerd.policies.follow_cpu import FollowCpuOptions, plugin
from balancerd.ports import PolicyContext
from tests.unit.fakes import (
    GIB,
    MIB,
    N2,
    N3,
    RING,
    make_placement,
    make_process,
    make_snapshot,
    make_survey,
    make_topology,
)

TICK = 2.0


def live(
    stays: list[tuple[int, float]],
    mib_by_node: dict[int, float],
    *,
    cores: float = 1.0,
    options: FollowCpuOptions | None = None,
    is_bound: bool = False,
    **placement: Any,
) -> Verdict:
    """Run a process on one node after another for so many seconds each; its memory stays. Return the last verdict.

    When it `is_bound`, somebody binds it to each node.
    """
    policy = plugin.build("home", options or FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    verdict: Verdict | None = None
    before, now = None, 0.0
    for node, seconds in stays:
        for _ in range(round(seconds / TICK)):
            now += TICK
            process = make_process(run={node: cores * TICK}, cpu_cores=cores)
            if is_bound:
                process = replace(process, cpus_allowed=make_topology(RING).nodes[node].cpus)
            placed = replace(make_placement(mib_by_node), **placement)
            snapshot = make_snapshot(make_survey(process, at=now, interval=TICK), placed)
            (verdict,) = policy.decide(Window(now=snapshot, before=before))
            before = snapshot
    assert verdict is not None
    return verdict


def test_memory_on_a_far_node_is_called_home_with_its_size_and_gain() -> None:
    verdict = live([(0, 20)], {2: 256})
    assert isinstance(verdict, Decision)
    assert (verdict.policy, verdict.target, verdict.reason) == ("home", 0, Reason.MISPLACED)
    assert verdict.misplaced_bytes == 256 << 20
    assert verdict.gain_cores == pytest.approx(1.0 * 0.12 * 1.1)
    assert verdict.cost_seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("stays", "mib_by_node", "cores", "reason"),
    [
        pytest.param([(0, 20)], {0: 256}, 1.0, Reason.WELL_PLACED, id="all at home"),
        pytest.param([(0, 20)], {0: 255, 2: 1}, 1.0, Reason.WELL_PLACED, id="a trace elsewhere is noise"),
        pytest.param([(0, 2)], {2: 256}, 1.0, Reason.HOME_TOO_YOUNG, id="home younger than 3 s"),
        pytest.param([(0, 8)], {2: 4096}, 1.0, Reason.LOSS_BELOW_COST, id="8 GiB/s-seconds cost, 1 s lost"),
        pytest.param([(0, 2), (1, 2)] * 20, {2: 256}, 1.0, Reason.SEVERAL_HOMES, id="run time spread"),
        pytest.param([(0, 200), (1, 2)], {0: 256}, 1.0, Reason.WELL_PLACED, id="memory does not follow a visit"),
        pytest.param([(0, 200), (1, 2)], {2: 256}, 1.0, Reason.HOME_TOO_YOUNG, id="nor goes where nobody is"),
        pytest.param([(0, 2000)], {2: 400_000}, 0.1, Reason.LOSS_BELOW_COST, id="too big for so little running"),
        pytest.param([(0, 20)], {2: 256}, 0.001, Reason.LOSS_BELOW_COST, id="hardly runs"),
        pytest.param([(0, 20)], {}, 1.0, Reason.NOTHING_PRESENT, id="no page found"),
        pytest.param([(0, 20)], {2: 256}, 0.0, Reason.NO_HOME, id="never runs"),
    ],
)
def test_left_alone(
    stays: list[tuple[int, float]], mib_by_node: dict[int, float], cores: float, reason: Reason
) -> None:
    verdict = live(stays, mib_by_node, cores=cores)
    assert isinstance(verdict, Skip)
    assert verdict.reason is reason
    assert verdict.by == "home"


@pytest.mark.parametrize(
    ("stays", "mib", "reason", "needs"),
    [
        ([(0, 2)], 256, Reason.HOME_TOO_YOUNG, "1.0 s more on node 0"),
        ([(0, 50)], 4096, Reason.LOSS_BELOW_COST, "10.6 s more on node 0"),  # cost 8 s at 0.132 cores are 60.6 s
        ([(0, 200), (1, 2)], 256, Reason.HOME_TOO_YOUNG, "a return to node 0"),
    ],
)
def test_a_move_that_waits_tells_what_it_would_be_and_what_it_needs(
    stays: list[tuple[int, float]], mib: float, reason: Reason, needs: str
) -> None:
    skip = live(stays, {2: mib})
    assert isinstance(skip, Skip)
    assert (skip.reason, skip.needs) == (reason, needs)
    assert skip.wanted is not None
    assert (skip.wanted.target, skip.wanted.misplaced_bytes) == (0, round(mib * MIB))


def test_a_move_that_cannot_pay_tells_the_gain_that_it_needs() -> None:
    skip = live([(0, 4000)], {2: 20 * 1024}, cores=1.0)
    assert isinstance(skip, Skip)
    assert skip.reason is Reason.GAIN_BELOW_COST
    assert skip.needs == "a gain of 2 x cost 40.00 s where 39.60 s are expected"


def test_what_the_machine_has_measured_is_what_a_move_costs() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    fast = Copying(copied_bytes=float(64 * GIB), seconds=32.0)
    costs: list[float] = []
    verdict: Verdict | None = None
    for copying in (Copying(), fast):
        for tick in range(10):
            now = TICK * (tick + 1 + 10 * bool(costs))
            process = make_process(run={0: TICK}, cpu_cores=1.0)
            snapshot = make_snapshot(make_survey(process, at=now, interval=TICK), make_placement({2: 256}))
            last = policy.decide(Window(now=replace(snapshot, copying=copying), before=None))
            if tick == 9:
                (verdict,) = last
                assert isinstance(verdict, Decision)
                costs.append(verdict.cost_seconds)
    assert costs == [pytest.approx(0.5), pytest.approx(0.25, rel=0.01)]


@pytest.mark.parametrize(
    ("tested_node", "method", "reason"),
    [
        (0, PlacementMethod.TEST, Reason.WELL_PLACED),
        (2, PlacementMethod.TEST, None),
        (0, PlacementMethod.SAMPLE, None),
    ],
)
def test_a_page_or_two_elsewhere_of_a_test_that_was_passed_at_this_home_are_chance(
    tested_node: int, method: PlacementMethod, reason: Reason | None
) -> None:
    intervals = {NodeId(tested_node): Interval(0.9, 0.99), NodeId(2 - tested_node): Interval(0.01, 0.1)}
    verdict = live([(0, 40)], {0: 250, 2: 6}, method=method, intervals=intervals)
    assert (verdict.reason if isinstance(verdict, Skip) else None) is reason


@pytest.mark.parametrize(("high", "reason"), [(0.95, Reason.WELL_PLACED), (0.949, None)])
def test_what_a_test_passes_is_up_to_the_highest_share_that_it_allows(high: float, reason: Reason | None) -> None:
    verdict = live([(0, 40)], {0: 250, 2: 6}, method=PlacementMethod.TEST, intervals={NodeId(0): Interval(0.5, high)})
    assert (verdict.reason if isinstance(verdict, Skip) else None) is reason


@pytest.mark.parametrize(
    ("stays", "mib_by_node", "detail", "needs"),
    [
        pytest.param([(0, 20)], {0: 255, 2: 1}, "99.6% on node 0", "", id="well placed"),
        pytest.param([(0, 2), (1, 2)] * 20, {2: 256}, "node 0 49%, node 1 51%", "", id="several homes"),
        pytest.param([(0, 2)], {2: 256}, "node 0 for 2.0 s", "1.0 s more on node 0", id="too young"),
        pytest.param([(0, 200), (1, 2)], {2: 256}, "away from node 0 at the moment", "a return to node 0", id="away"),
        pytest.param(
            [(0, 20)],
            {2: 4096},
            "4096 MiB away from node 0, gain 0.132 cores, cost 8.00 s, lost so far 2.64 s",
            "40.6 s more on node 0",
            id="not lost enough",
        ),
        pytest.param(
            [(0, 20)], {2: 256, 0: 128}, "256 MiB away from node 0, gain 0.088 cores, cost 0.50 s", "", id="moved"
        ),
    ],
)
def test_what_is_told_of_it(
    stays: list[tuple[int, float]], mib_by_node: dict[int, float], detail: str, needs: str
) -> None:
    verdict = live(stays, mib_by_node)
    assert verdict.detail == detail
    assert (verdict.needs if isinstance(verdict, Skip) else "") == needs


@pytest.mark.parametrize(("least", "reason"), [(4.0, Reason.MISPLACED), (4.1, Reason.HOME_TOO_YOUNG)])
def test_a_home_is_old_enough_when_it_is_as_old_as_is_asked(least: float, reason: Reason) -> None:
    options = FollowCpuOptions(min_home_age_seconds=least)
    assert live([(0, 4)], {2: 128}, options=options).reason is reason


def test_a_dear_move_waits_until_the_loss_reaches_its_cost() -> None:
    assert isinstance(live([(0, 50)], {2: 4096}), Skip)
    assert isinstance(live([(0, 70)], {2: 4096}), Decision)  # cost 8 s, loss 0.132 a second


@pytest.mark.parametrize("before", [4.0, 20.0, 60.0, 600.0])
def test_memory_follows_within_four_seconds_however_long_the_stay_before(before: float) -> None:
    assert isinstance(live([(2, before), (0, 2)], {2: 256}), Skip)
    verdict = live([(2, before), (0, 4)], {2: 256})
    assert isinstance(verdict, Decision)
    assert verdict.target == 0
    assert verdict.gain_cores == pytest.approx(1.0 * 0.12 * 1.1)


@pytest.mark.parametrize(
    ("stays", "mib", "reason"),
    [
        pytest.param([(0, 2)], 256, Reason.MISPLACED, id="at first sight"),
        pytest.param([(2, 20), (0, 2)], 256, Reason.MISPLACED, id="moved once"),
        pytest.param([(0, 2)], 9_000, Reason.MISPLACED, id="without waiting for a loss"),
        pytest.param([(0, 2)], 20 * 1024, Reason.GAIN_BELOW_COST, id="not what cannot pay"),
        pytest.param([(2, 20), (1, 20), (0, 2)], 256, Reason.HOME_TOO_YOUNG, id="moved twice: as anybody else"),
        pytest.param([(2, 60), (1, 60), (0, 2)], 256, Reason.MISPLACED, id="at once if it stayed long before"),
        pytest.param([(1, 2), (0, 2)] * 5, 256, Reason.HOME_TOO_YOUNG, id="not who is bound anew at each tick"),
        pytest.param([(1, 6), (0, 6)] * 5, 256, Reason.LOSS_BELOW_COST, id="nor who does not stay"),
    ],
)
def test_memory_follows_at_once_whoever_is_bound_until_it_has_left_twice_too_early(
    stays: list[tuple[int, float]], mib: float, reason: Reason
) -> None:
    assert live(stays, {2: mib}, is_bound=True).reason is reason
    if reason is Reason.MISPLACED:
        assert isinstance(live(stays, {2: mib}), Skip)


def test_a_stay_that_has_outlasted_the_price_is_enough_even_if_nothing_was_lost_on_the_way() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    told = []
    for tick in range(1, 17):  # 2 GiB away cost 4 s, which one core loses in 30.3 s
        survey = make_survey(make_process(run={0: TICK}), at=tick * TICK, interval=TICK)
        placed = make_placement({0: 1, 2: 2048} if tick >= 15 else {0: 2049})
        (verdict,) = policy.decide(Window(now=make_snapshot(survey, placed), before=None))
        told.append(type(verdict))
    assert told == [*[Skip] * 15, Decision]


def test_where_a_process_runs_is_noted_before_it_is_eligible() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    verdicts: tuple[Verdict, ...] = ()
    for tick in range(1, 11):
        survey = make_survey(make_process(run={0: TICK}), at=tick * TICK, interval=TICK)
        snapshot = make_snapshot(survey, make_placement({2: 256}))
        verdicts = tuple(policy.decide(Window(now=replace(snapshot, eligible=()), before=None)))
        assert verdicts == ()
    survey = make_survey(make_process(run={0: TICK}), at=22.0, interval=TICK)
    (verdict,) = policy.decide(Window(now=make_snapshot(survey, make_placement({2: 256})), before=None))
    assert isinstance(verdict, Decision)


def test_a_tick_that_told_nothing_of_its_threads_adds_no_loss() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    told = []
    for tick, run in enumerate(({0: TICK}, {0: TICK}, {0: TICK}, None, None), 1):
        process = replace(make_process(run=run), run_seconds=None if run is None else {NodeId(0): TICK})
        survey = make_survey(process, at=tick * TICK, interval=TICK)
        (verdict,) = policy.decide(Window(now=make_snapshot(survey, make_placement({2: 4096})), before=None))
        told.append(verdict.detail)
    assert told[2].endswith("lost so far 0.79 s")  # 0.132 a second
    assert told[2] == told[3] == told[4]


def test_a_wanderer_is_not_chased_but_a_settler_is() -> None:
    quick = FollowCpuOptions(run_time_window_seconds=1.0)
    wandering = [(node, 20.0) for node in (0, 1, 0, 1, 0, 1)]
    assert isinstance(live([*wandering, (0, 20)], {2: 4096}, options=quick), Skip)
    settled = [(node, 300.0) for node in (0, 1, 0, 1)]
    verdict = live([*settled, (0, 10)], {2: 4096}, options=quick)
    assert isinstance(verdict, Decision)
    assert verdict.target == 0


@pytest.mark.parametrize(
    ("stays", "is_followed"),
    [
        pytest.param((110, 90), False, id="more than three times, but only twice"),
        pytest.param((60,) * 16, False, id="twice, often"),
        pytest.param((210, 210), True, id="seven times, twice only"),
        pytest.param((130,) * 16, True, id="four times, often"),
    ],
)
def test_the_fewer_stays_a_process_has_ended_the_longer_they_must_have_been(
    stays: tuple[float, ...], *, is_followed: bool
) -> None:
    """It breaks even after 30 s. The mean of few stays is above three times that now and then, by luck."""
    life = [(number % 2, float(seconds)) for number, seconds in enumerate(stays)]
    assert isinstance(live([*life, (len(stays) % 2, 10)], {2: 2048}), Decision) is is_followed


def test_a_wanderer_that_stays_after_all_is_followed_when_it_has_lost_eight_times_the_cost() -> None:
    wandering = [(node, 10.0) for node in (0, 1) * 5]
    assert isinstance(live([*wandering, (0, 78)], {2: 676}), Skip)  # it breaks even after 10 s
    assert isinstance(live([*wandering, (0, 84)], {2: 676}), Decision)


def test_what_was_lost_at_one_home_is_no_reason_to_move_to_the_next() -> None:
    verdict = live([(0, 50), (1, 12)], {2: 4096})  # 60 s to break even
    assert isinstance(verdict, Skip)
    assert verdict.reason is Reason.LOSS_BELOW_COST


def test_the_gate_refuses_what_cannot_pay_twice_within_its_horizon() -> None:
    verdict = live([(0, 260)], {2: 13_517})  # cost 26.4 s is lost after 200 s, but 300 s win only 1.5 times as much
    assert isinstance(verdict, Skip)
    assert verdict.reason is Reason.GAIN_BELOW_COST
    assert isinstance(live([(0, 260)], {2: 9_000}), Decision)


def coming_home(*away_mib: float, total_mib: float = 1024.0, seconds: float = TICK) -> list[str]:
    return [verdict.reason.value for verdict in coming_home_verdicts(*away_mib, total_mib=total_mib, seconds=seconds)]


def coming_home_verdicts(*away_mib: float, total_mib: float = 1024.0, seconds: float = TICK) -> list[Verdict]:
    """One look each tick after a stay that has paid for any move; returns all verdicts."""
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=16 * GIB))
    told: list[Verdict] = []
    for look, away in enumerate(away_mib):
        at = 100.0 + look * seconds
        survey = make_survey(make_process(run={0: seconds}), at=at, interval=seconds)
        placed = make_placement({0: total_mib - away, 2: away}, taken_at=at)
        told += policy.decide(Window(now=make_snapshot(survey, placed), before=None))
    return told


def test_how_much_less_it_has_become_is_told() -> None:
    verdict = coming_home_verdicts(900, 700)[-1]
    assert verdict.detail.endswith(", 200 MiB less than a few seconds ago")


@pytest.mark.parametrize(
    ("away_mib", "last"),
    [
        pytest.param((900, 900, 900), "misplaced", id="nobody moves it"),
        pytest.param((900, 800, 700), "coming-home", id="more than a tenth is gone"),
        pytest.param((900, 820), "misplaced", id="less than a tenth"),
        pytest.param((100, 80), "misplaced", id="noise of the samples"),
        pytest.param((900, 950, 1000), "misplaced", id="it gets more"),
    ],
)
def test_what_comes_home_by_itself_is_waited_for(away_mib: tuple[float, ...], last: str) -> None:
    assert coming_home(*away_mib)[-1] == last


def beside(manager: Manager, cores: Iterable[float], *, active: bool = True) -> list[Verdict]:
    """Bind a process to node 0, with its memory on node 2 and that manager around: how busy it is in each tick."""
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=16 * GIB))
    told: list[Verdict] = []
    for tick, busy in enumerate(cores, 1):
        process = make_process(run={0: busy * TICK}, cpu_cores=busy)
        process = replace(process, cpus_allowed=make_topology(RING).nodes[0].cpus)
        survey = make_survey(process, at=tick * TICK, interval=TICK)
        survey = replace(survey, managers=(ManagerFinding(manager=manager, active=active),))
        told += policy.decide(Window(now=make_snapshot(survey, make_placement({2: 256})), before=None))
    return told


@pytest.mark.parametrize(
    ("manager", "active", "waits"),
    [(Manager.KERNEL_BALANCING, True, 1), (Manager.KERNEL_BALANCING, False, 0), (Manager.NUMAD, True, 0)],
)
def test_the_kernels_balancing_gets_four_seconds_at_each_home(manager: Manager, *, active: bool, waits: int) -> None:
    told = beside(manager, [1.0] * 5, active=active)
    assert [it.reason for it in told] == [Reason.HOME_TOO_YOUNG] * waits + [Reason.MISPLACED] * (5 - waits)
    for wait in told[:waits]:
        assert isinstance(wait, Skip)
        assert wait.detail == "node 0 for 2.0 of the 4 s in which the kernel's balancing comes first"
        assert wait.needs == "2.0 s more on node 0"


def test_the_kernels_balancing_gets_four_seconds_of_cpu_time_too() -> None:
    told = beside(Manager.KERNEL_BALANCING, [0.05] * 15 + [1.0] * 5)
    assert [it.reason for it in told] == [Reason.HOME_TOO_YOUNG] * 16 + [Reason.MISPLACED] * 4
    last = told[15]
    assert isinstance(last, Skip)
    assert last.detail == "node 0 for 3.5 of the 4 s of CPU time in which the kernel's balancing comes first"
    assert last.needs == "0.5 s of CPU time more on node 0"


def test_what_stops_to_come_home_is_moved_after_ten_seconds() -> None:
    told = coming_home(900, *[600] * 9)
    assert told[1:] == [*["coming-home"] * 5, *["misplaced"] * 4]


def test_what_this_policy_moves_itself_does_not_count() -> None:
    assert coming_home(900, 900, 700, 500, 300, 100)[1:] == ["misplaced"] * 5


def crowd(held_mib: dict[int, float], free_mib: dict[int, float], *, n: int = 1) -> tuple[Verdict, ...]:
    """Processes that all want to node 0, after a stay that has paid for any move."""
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=16 * GIB))
    verdicts: tuple[Verdict, ...] = ()
    free = {node: round(free_mib.get(node, 8192) * MIB) for node in range(4)}
    for tick in range(1, 5):
        processes = [make_process(pid, run={0: TICK}) for pid in range(100, 100 + n)]
        survey = make_survey(*processes, at=tick * TICK, interval=TICK, topology=make_topology(RING), free_bytes=free)
        placed = [make_placement(held_mib, pid=process.id.pid) for process in processes]
        verdicts = tuple(policy.decide(Window(now=make_snapshot(survey, *placed), before=None)))
    return verdicts


def test_what_a_full_home_cannot_take_goes_to_the_closest_node_that_can() -> None:
    (verdict,) = crowd({0: 100, 2: 300, 3: 200}, {0: 0})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.misplaced_bytes) == (1, 500 * MIB)
    assert verdict.sources == frozenset({N2, N3})
    assert verdict.source_bytes == {2: 300 * MIB, 3: 200 * MIB}
    assert verdict.gain_cores == pytest.approx(0.12 * ((300 * 1.1 + 200 * 2.1) - 500 * 0.2) / 600)
    assert verdict.detail.endswith("node 0 is full, and 500 MiB go to node 1")


def test_what_is_on_the_closest_node_waits_there_for_room_at_home() -> None:
    (verdict,) = crowd({0: 100, 1: 500}, {0: 0})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.sources) == (0, None)  # the plan says that the target is full


def test_of_two_processes_the_second_finds_the_home_full() -> None:
    first, second = crowd({2: 500}, {0: 2500}, n=2)
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert (first.target, second.target) == (0, 0)
    first, second = crowd({2: 500}, {0: 1350}, n=2)
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert (first.target, second.target) == (0, 1)


def test_a_home_without_memory_is_no_target() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    survey = make_survey(make_process(), at=2.0, topology=make_topology(memoryless={0}))
    (verdict,) = policy.decide(Window(now=make_snapshot(survey, make_placement({2: 256})), before=None))
    assert (verdict.reason, verdict.detail) == (Reason.HOME_WITHOUT_MEMORY, "node 0")


def test_run_time_on_a_node_that_has_gone_offline_is_forgotten() -> None:
    options = FollowCpuOptions(home_share=0.8)
    policy = plugin.build("home", options, PolicyContext(migration_bytes_per_second=GIB))
    verdict: Verdict | None = None
    for tick in range(1, 41):
        gone = tick > 20
        topology = make_topology(tuple(row[:3] for row in RING[:3]) if gone else RING)
        process = make_process(run={0: TICK} if gone else {0: 0.9 * TICK, 3: 0.1 * TICK}, cpu_cores=1.0)
        survey = make_survey(process, at=tick * TICK, interval=TICK, topology=topology)
        (verdict,) = policy.decide(Window(now=make_snapshot(survey, make_placement({2: 256})), before=None))
    assert isinstance(verdict, Decision)
    assert verdict.target == 0
    assert verdict.gain_cores == pytest.approx(1.0 * 0.12 * 1.1, rel=0.1)


def test_an_unsampled_process_is_said_to_be_unsampled() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    (verdict,) = policy.decide(Window(now=make_snapshot(make_survey(make_process(), at=2.0)), before=None))
    assert verdict.reason is Reason.NOT_SAMPLED


def test_two_runs_over_the_same_windows_agree() -> None:
    stays = [(0, 40.0), (1, 6.0), (0, 30.0)]
    assert live(stays, {2: 200, 1: 56}) == live(stays, {2: 200, 1: 56})


def test_a_process_that_is_gone_is_forgotten() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    first = make_snapshot(make_survey(make_process(), at=2.0), make_placement({2: 256}))
    policy.decide(Window(now=first, before=None))
    policy.decide(Window(now=make_snapshot(make_survey(at=4.0)), before=first))
    assert policy._memories == {}


def test_every_verdict_names_its_process() -> None:
    policy = plugin.build("home", FollowCpuOptions(), PolicyContext(migration_bytes_per_second=GIB))
    survey = make_survey(make_process(1), make_process(2), at=2.0)
    verdicts = list(policy.decide(Window(now=make_snapshot(survey), before=None)))
    assert [v.process for v in verdicts] == [ProcessId(1, 1), ProcessId(2, 1)]
    assert NodeId(0) in survey.topology.node_ids
