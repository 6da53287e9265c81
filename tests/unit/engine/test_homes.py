"""Tables for homes: each row where a process ran, two seconds a tick, and what is known of its home at the end."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from balancerd.engine.homes import HomeRule, Residence, cores_by_node, find_binding
from balancerd.model.ids import CpuId, NodeId
from tests.unit.fakes import RING, make_process, make_topology

TICK = 2.0
RULE = HomeRule(share=0.9, least_seconds=5.0, window_seconds=60.0)
NODES = frozenset(NodeId(node) for node in range(4))
Run = Mapping[int, float]
A, B, C = {0: 1.0}, {1: 1.0}, {2: 1.0}
IDLE: Run = {}


def live(life: Iterable[Run], *, rule: HomeRule = RULE, bound: Mapping[int, int] | None = None) -> Residence:
    """Show one tick after the other, the first at 2 s; `bound` tells from which tick on it is bound to which node."""
    residence = Residence(rule)
    node_of_tick = {} if bound is None else bound
    bound_to: int | None = None
    for number, run in enumerate(life, 1):
        cores = {NodeId(node): cores for node, cores in run.items()}
        bound_to = node_of_tick.get(number, bound_to)
        node = None if bound_to is None else NodeId(bound_to)
        residence.observe(cores, number * TICK, TICK, NODES, bound_to=node)
    return residence


@pytest.mark.parametrize(
    ("life", "home", "since"),
    [
        pytest.param([], None, 0.0, id="never seen"),
        pytest.param([IDLE] * 5, None, 0.0, id="never runs"),
        pytest.param([A], 0, 0.0, id="the first tick names a home"),
        pytest.param([A] * 90 + [B] * 2, 0, 0.0, id="four seconds elsewhere are a visit"),
        pytest.param([A] * 90 + [B] * 3, 1, 180.0, id="six seconds are a new home, after however long a stay"),
        pytest.param([A] * 900 + [B] * 3, 1, 1800.0, id="after half an hour, too"),
        pytest.param([A] * 30 + [B, B, A] * 30, None, 0.0, id="mostly elsewhere, but never for long: no home"),
        pytest.param([A] * 30 + [A] * 8 + [B] + [A] * 9, 0, 0.0, id="a visit ends no stay"),
        pytest.param([A, B] * 30, None, 0.0, id="a hopper has no home"),
        pytest.param([{0: 1.0, 1: 1.0}] * 30, None, 0.0, id="two threads on two nodes"),
        pytest.param([{0: 9.0, 1: 1.0}], 0, 0.0, id="nine tenths are enough"),
        pytest.param([{0: 8.9, 1: 1.1}], None, 0.0, id="less are not"),
        pytest.param([{0: 9.5, 1: 0.5}, {0: 8.7, 1: 1.3}] * 30, 0, 0.0, id="shares that waver about 90 %"),
        pytest.param([{0: 9.5, 1: 0.5}] * 30 + [{0: 8.5, 1: 1.5}] * 200, 0, 0.0, id="a little below keeps the title"),
        pytest.param([{0: 9.5, 1: 0.5}] * 30 + [{0: 7.0, 1: 3.0}] * 60, None, 0.0, id="far below does not"),
        pytest.param([A] * 30 + [IDLE] * 4 + [A], 0, 0.0, id="idle times end no stay"),
        pytest.param([A] * 30 + [{1: 0.1}] * 15, 0, 0.0, id="idling elsewhere, at a tenth, is no new home"),
        pytest.param([A] * 30 + [{1: 0.1}] * 90, 1, None, id="until it has done so for minutes"),
        pytest.param([A] * 30 + [{1: 0.4}] * 3, 1, 60.0, id="with less to do than before it may well have moved"),
    ],
)
def test_home(life: list[Run], home: int | None, since: float | None) -> None:
    residence = live(life)
    assert residence.home == home
    if home is not None and since is not None:
        assert residence.since == since


@pytest.mark.parametrize(
    ("life", "bound", "home", "is_bound"),
    [
        pytest.param([A] * 30 + [B], {31: 1}, 1, True, id="bound, and there: at once"),
        pytest.param([A] * 30 + [{0: 1.0, 1: 9.0}], {31: 1}, 1, True, id="bound, and nearly all there"),
        pytest.param([A] * 30 + [B], {31: 2}, 0, False, id="bound to where it does not run"),
        pytest.param([A] * 30, {31: 1}, 0, False, id="not yet"),
        pytest.param([A] * 30 + [{0: 1.0, 1: 3.0}], {31: 1}, 0, False, id="some of its threads stayed behind"),
        pytest.param([A] * 30, {20: 0}, 0, True, id="bound to its home"),
        pytest.param([A] * 30 + [B] * 3, {20: 0}, 1, False, id="bound once, but runs elsewhere"),
        pytest.param([A] * 30 + [B], {20: 0}, 0, True, id="a visit, for all that is known"),
    ],
)
def test_who_is_bound_to_a_node_and_runs_there_is_at_home(
    life: list[Run], bound: dict[int, int], home: int, is_bound: bool
) -> None:
    residence = live(life, bound=bound)
    assert (residence.home, residence.is_bound) == (home, is_bound)


def test_a_stay_of_a_process_that_was_bound_counts_however_short() -> None:
    residence = live([A, B, A, B, A], bound={1: 0, 2: 1, 3: 0, 4: 1, 5: 0})
    assert residence.n_stays == 4
    assert residence.expected_stay_seconds == 0.0
    assert live([A, B, A, B, A]).n_stays == 0


@pytest.mark.parametrize(
    ("cpus", "node"), [((1,), 1), ((1, 2), None), ((99, 1), 1), ((), None), ((99,), None), (None, None)]
)
def test_the_cpus_that_it_may_use_bind_a_process_to_a_node(cpus: tuple[int, ...] | None, node: int | None) -> None:
    allowed = None if cpus is None else frozenset(map(CpuId, cpus))
    process = replace(make_process(), cpus_allowed=allowed)
    assert find_binding(process, make_topology(RING)) == node


def test_on_a_machine_with_one_node_nobody_is_bound_to_it() -> None:
    process = replace(make_process(), cpus_allowed=frozenset({CpuId(0)}))
    assert find_binding(process, make_topology(((10,),))) is None


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        pytest.param([A] * 30, None, id="none has ended"),
        pytest.param([A] * 30 + [B] * 3, (55.0 + 1.0) / (1 + 1), id="one of 60 s, and 6 s of the next"),
        pytest.param([A] * 30 + [B] * 15 + [A] * 3, (55.0 + 25.0 + 1.0) / (2 + 2**0.5), id="two"),
        pytest.param([A] * 30 + [B] * 15 + [C] * 63, (55.0 + 25.0 + 121.0) / (2 + 2**0.5), id="who stays is believed"),
        pytest.param(([A] * 4 + [B] * 4) * 10, (16 * 3.0 + 3.0) / (16 + 4), id="sixteen are remembered"),
        pytest.param([A] * 300 + ([A] * 4 + [B] * 4) * 10, (16 * 3.0 + 3.0) / (16 + 4), id="and older ones are not"),
    ],
)
def test_expected_stay(life: list[Run], expected: float | None) -> None:
    told = live(life).expected_stay_seconds
    assert told == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("life", "ran"),
    [
        pytest.param([IDLE] * 5, 0.0, id="never runs"),
        pytest.param([{0: 0.5}] * 10, 10.0, id="half a core"),
        pytest.param([{0: 0.5}] * 10 + [IDLE] * 10 + [{0: 3.0}], 16.0, id="idle times add nothing"),
        pytest.param([A] * 30 + [B], 62.0, id="a visit counts"),
        pytest.param([A] * 30 + [{1: 1.0}, {1: 2.0}, {1: 1.0}], 8.0, id="a new home begins anew"),
    ],
)
def test_cpu_time_of_a_stay(life: list[Run], ran: float) -> None:
    assert live(life).ran_seconds == pytest.approx(ran)


def test_what_ran_before_a_change_is_forgotten() -> None:
    residence = live([A] * 300 + [{1: 3.0}] * 3)
    assert residence.shares == {NodeId(1): 1.0}
    assert residence.cores == pytest.approx(3.0)
    assert (residence.age_seconds, residence.new_seconds) == (6.0, 6.0)


@pytest.mark.parametrize(
    ("life", "is_at_home"),
    [([A] * 9, True), ([A] * 9 + [B], False), ([A] * 9 + [B, A], True), ([IDLE], False), ([A, {0: 0.0}], True)],
)
def test_who_is_on_a_visit_is_not_at_home(life: list[Run], is_at_home: bool) -> None:
    assert live(life).is_at_home is is_at_home


def test_a_longer_time_to_count_makes_longer_visits() -> None:
    patient = HomeRule(share=0.9, least_seconds=30.0, window_seconds=60.0)
    assert live([A] * 60 + [B] * 12, rule=patient).home != 1
    newcomer = live([A] * 60 + [B] * 15, rule=patient)
    assert (newcomer.home, newcomer.age_seconds) == (1, 30.0)
    hasty = HomeRule(share=0.9, least_seconds=0.0, window_seconds=60.0)
    assert live([A] * 60 + [B], rule=hasty).home == 1


def test_after_a_long_time_unseen_one_tick_elsewhere_is_not_taken_for_all_of_it() -> None:
    residence = live([A] * 28 + [B] * 2)
    residence.observe({NodeId(1): 1.0}, 660.0, TICK, NODES)
    assert (residence.home, residence.new_seconds) == (0, TICK)
    for at in (662.0, 664.0):
        residence.observe({NodeId(1): 1.0}, at, TICK, NODES)
    assert (residence.home, residence.since) == (1, 658.0)


def test_ticks_that_told_nothing_of_the_threads_count_with_the_next_one_that_does() -> None:
    residence = live([A] * 30)
    residence.observe({NodeId(0): 1.0}, 66.0, TICK, NODES)
    assert residence.new_seconds == 6.0


def test_a_node_that_has_gone_offline_is_no_home_and_has_no_share() -> None:
    residence = live([{3: 0.95, 0: 0.05}] * 30)
    residence.observe({NodeId(0): 1.0}, 62.0, TICK, NODES - {3})
    assert (residence.home, residence.shares) == (0, {NodeId(0): 1.0})
    for at in (64.0, 66.0, 68.0):
        residence.observe({NodeId(3): 1.0}, at, TICK, NODES - {3})
    assert (residence.home, residence.shares, residence.is_at_home) == (0, {NodeId(0): 1.0}, True)


@pytest.mark.parametrize(
    ("cores", "run", "seconds", "by_node"),
    [
        pytest.param(1.5, {0: 2.0, 1: 4.0}, 2.0, {0: 0.5, 1: 1.0}, id="its cores, by the time of the threads read"),
        pytest.param(None, {0: 2.0, 1: 4.0}, 4.0, {0: 0.5, 1: 1.0}, id="cores not known: the time that was seen"),
        pytest.param(None, {0: 2.0}, 0.0, {0: 0.0}, id="nor the interval"),
        pytest.param(1.5, {0: 0.0, 1: 0.0}, 2.0, {}, id="no thread ran"),
        pytest.param(1.5, {}, 2.0, {}, id="no thread was read"),
        pytest.param(0.0, {2: 3.0}, 2.0, {2: 0.0}, id="idle as a whole"),
    ],
)
def test_cores_by_node(cores: float | None, run: dict[int, float], seconds: float, by_node: dict[int, float]) -> None:
    ran = {NodeId(node): ran for node, ran in run.items()}
    assert cores_by_node(make_process(cpu_cores=cores), ran, seconds) == pytest.approx(by_node)


def test_shares_are_of_the_averaged_run_time_and_so_are_the_cores() -> None:
    residence = live([{0: 1.5, 1: 0.5}] * 5)
    assert residence.shares == pytest.approx({0: 0.75, 1: 0.25})
    assert residence.cores == pytest.approx(2.0)
    assert (live([IDLE] * 5).shares, live([]).shares, live([]).cores) == ({}, {}, 0.0)
    assert live([A] * 30 + [IDLE] * 30).cores == pytest.approx(0.2689, abs=1e-4)  # half by window, twice: 1/(1 + e)
    assert live([{0: 1.0}] * 30 + [{0: 0.95, 1: 0.05}] * 30).shares[NodeId(1)] == pytest.approx(0.0366, abs=1e-4)


@pytest.mark.parametrize(("run", "is_at_home"), [({0: 1.0, 1: 1.0}, True), ({0: 1.0, 1: 1.1}, False)])
def test_who_runs_half_of_its_time_at_home_is_there(run: dict[int, float], *, is_at_home: bool) -> None:
    assert live([A] * 9 + [run]).is_at_home is is_at_home


def test_a_visit_of_just_as_long_as_counts_is_a_new_home() -> None:
    rule = HomeRule(share=0.9, least_seconds=6.0, window_seconds=60.0)
    assert live([A] * 30 + [B] * 2, rule=rule).home == 0
    assert live([A] * 30 + [B] * 3, rule=rule).home == 1


def test_a_quarter_as_busy_as_before_is_enough_to_have_moved() -> None:
    assert live([{0: 4.0}] * 200 + [{1: 0.9}] * 3).home == 0
    assert live([{0: 4.0}] * 200 + [{1: 1.0}] * 3).home == 1


def test_a_stay_lasts_until_it_ran_at_its_home_for_the_last_time() -> None:
    residence = live([A] * 30 + [IDLE] * 10 + [B] * 3)
    assert residence.n_stays == 1
    assert residence.expected_stay_seconds == pytest.approx((55.0 + 1.0) / 2)
    assert live([A] * 2 + [B] * 3).n_stays == 0
    assert live([A] * 3 + [B] * 3).n_stays == 1


@pytest.mark.parametrize(
    ("gap", "new_seconds", "home"),
    [
        pytest.param(10.0, 10.0, 1, id="ten seconds are told of by what ran at their end"),
        pytest.param(10.5, TICK, 0, id="longer ones are not"),
        pytest.param(0.0, 0.0, 0, id="the same moment again"),
    ],
)
def test_how_long_a_time_without_news_may_be(gap: float, new_seconds: float, home: int) -> None:
    residence = live([A] * 30)
    residence.observe({NodeId(1): 1.0}, 60.0 + gap, TICK, NODES)
    assert (residence.new_seconds, residence.home) == (new_seconds, home)
    assert residence.seen_at == 60.0 + gap


def test_with_long_intervals_each_of_them_is_news() -> None:
    residence = Residence(RULE)
    for number in (1, 2):
        residence.observe({NodeId(0): 1.0}, number * 30.0, 30.0, NODES)
        assert residence.new_seconds == 30.0
    assert (residence.home, residence.since, residence.age_seconds) == (0, 0.0, 60.0)


def test_who_was_at_home_on_a_node_that_has_gone_has_no_home_until_it_runs_again() -> None:
    residence = live([{3: 1.0}] * 30, bound={1: 3})
    assert (residence.is_at_home, residence.is_bound) == (True, True)
    residence.observe({}, 62.0, TICK, NODES - {3})
    assert (residence.home, residence.is_at_home, residence.is_bound) == (None, False, False)
    assert (residence.shares, residence.age_seconds, residence.n_stays) == ({}, 0.0, 0)
