"""The rate of sampling by table, and when judging comes again."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.kernel.accesses.rate import (
    CALM_SECONDS,
    FIRST_HZ,
    LEAST_HZ,
    LEAST_INTEREST,
    MOST_HZ,
    RINGS_BYTES,
    SAMPLE_SECONDS,
    Governor,
    Interest,
    Standing,
    Turns,
    most_hz,
    ring_pages,
    standing,
)
from balancerd.model.access import REGION_BYTES, AccessRegion, AccessRun
from balancerd.model.ids import NodeId, ProcessId


@pytest.mark.parametrize(
    ("running", "budget", "most_hz", "expected"),
    [
        pytest.param(2, 0.01, 2000, MOST_HZ, id="few threads"),
        pytest.param(4, 0.01, 1000, 781, id="some threads"),
        pytest.param(31.25, 0.01, 1000, FIRST_HZ, id="just as many as the first rate allows"),
        pytest.param(100, 0.01, 1000, 31, id="many"),
        pytest.param(10_000, 0.01, 1000, LEAST_HZ, id="very many"),
        pytest.param(35, 0.01, 1000, FIRST_HZ, id="nearly right"),
        pytest.param(4, 0.01, 160, 160, id="the ring bounds it"),
        pytest.param(31.25, 0.01, 80, 80, id="the ring bounds what is nearly right, too"),
        pytest.param(4, 0.0001, 1000, 7, id="a small budget"),
        pytest.param(0, 0.01, 1000, FIRST_HZ, id="nobody runs"),
    ],
)
def test_the_rate_that_keeps_the_budget(running: float, budget: float, most_hz: float, expected: int) -> None:
    governor = Governor(budget)
    governor.note(ProcessId(1, 1), samples=round(running * 2.0 * FIRST_HZ), seconds=2.0, at_hz=FIRST_HZ)
    rate = governor.choose(most_hz)
    assert rate == expected
    if rate not in {LEAST_HZ, FIRST_HZ}:
        assert rate * running * SAMPLE_SECONDS <= budget


def test_all_processes_share_the_budget_and_one_that_is_not_watched_any_more_needs_nothing() -> None:
    governor = Governor(0.01)
    for pid in (1, 2):
        governor.note(ProcessId(pid, 1), samples=10_000, seconds=2.0, at_hz=100)
    assert governor.choose(1000) == 31
    governor.forget_all_but({ProcessId(1, 1)})
    assert governor.choose(1000) == 62


def test_of_a_new_process_all_threads_are_expected_to_run_until_more_is_known() -> None:
    governor, process = Governor(0.01), ProcessId(1, 1)
    governor.expect(process, 128)
    assert governor.choose(1000) == 24
    governor.note(process, samples=round(4 * 2.0 * 24), seconds=2.0, at_hz=24)
    assert governor.choose(1000) == 781


def test_a_rate_once_changed_is_what_later_samples_are_counted_by() -> None:
    governor = Governor(0.01)
    rate = FIRST_HZ
    rates = []
    for _ in range(5):
        governor.note(ProcessId(1, 1), samples=round(100 * 2.0 * rate), seconds=2.0, at_hz=rate)
        rate = governor.choose(1000)
        rates.append(rate)
    assert rates == [31] * 5


def test_a_reading_of_no_time_says_nothing() -> None:
    governor = Governor(0.01)
    governor.note(ProcessId(1, 1), samples=0, seconds=0.0, at_hz=100)
    assert governor.choose(1000) == FIRST_HZ


@pytest.mark.parametrize(("threads", "pages"), [(0, 64), (1, 64), (7, 64), (8, 32), (30, 16), (128, 4), (4096, 4)])
def test_the_rings_of_a_process_share_what_a_user_may_lock(threads: int, pages: int) -> None:
    assert ring_pages(threads) == pages
    assert threads * (pages + 1) * 4096 <= RINGS_BYTES or pages == 4


def test_no_ring_fills_before_it_is_read() -> None:
    assert most_hz(64, 2.0) * 2.0 * 1.25 * 168 == pytest.approx(64 * 4096)
    assert most_hz(64, 0.0) == FIRST_HZ


def test_judging_waits_for_as_long_as_its_cost_needs_to_fit_the_budget() -> None:
    turns = Turns()
    assert turns.is_due(0.0)
    turns.note(10.0, 0.05, 0.01)
    assert not turns.is_due(14.9)
    assert turns.is_due(15.0)


N0, N1, N2 = NodeId(0), NodeId(1), NodeId(2)
PAGE = 4096


def run(weight: float, pages_by_node: dict[NodeId, float] | None, **changes: Any) -> AccessRun:
    """A run that belongs to node 0."""
    found = AccessRun(
        start=0, end=REGION_BYTES, node=N0, weight=weight, node_weight=weight, pages_by_node=pages_by_node
    )
    return replace(found, **changes)


def region(
    number: int, weight_by_node: dict[NodeId, float], pages_by_node: dict[NodeId, float] | None = None
) -> AccessRegion:
    return AccessRegion(
        start=number * REGION_BYTES, weight_by_node=weight_by_node, node=None, pages_by_node=pages_by_node
    )


@pytest.mark.parametrize(
    ("runs", "others", "expected"),
    [
        pytest.param([run(50, {N0: 512.0})], 0.0, True, id="all at home"),
        pytest.param([run(50, {N0: 510.0, N1: 2.0})], 0.0, True, id="nearly all at home"),
        pytest.param([run(50, {N0: 500.0, N1: 12.0})], 0.0, False, id="some away"),
        pytest.param([run(999, {N0: 512.0}), run(1, {N1: 512.0})], 0.0, True, id="hardly used memory away"),
        pytest.param([run(98, {N0: 512.0}), run(2, {N1: 512.0})], 0.0, False, id="used memory away"),
        pytest.param([run(50, {N0: 512.0})], 5.0, True, id="little of which nothing is known"),
        pytest.param([run(50, {N0: 512.0})], 6.0, False, id="much of which nothing is known"),
        pytest.param([run(50, {N0: 512.0}), run(6, None)], 0.0, False, id="much that lies nobody knows where"),
        pytest.param([run(50, {N0: 512.0}), run(6, {})], 0.0, False, id="much that is not there any more"),
        pytest.param([], 50.0, False, id="nothing that belongs to one node"),
        pytest.param([], 0.0, False, id="nothing was seen"),
    ],
)
def test_all_is_in_place_when_nearly_all_that_is_used_is_known_and_lies_where_it_is_used(
    runs: list[AccessRun], others: float, expected: bool
) -> None:
    used = sum(each.weight for each in runs)
    found = standing(runs, [region(0, {N0: used + others})])
    assert found == Standing(is_in_place=expected)


SHARED = {N0: 10.0, N1: 10.0}
HALF = {N0: 256.0, N1: 256.0}


@pytest.mark.parametrize(
    ("runs", "regions", "expected", "shared_on"),
    [
        pytest.param([], [region(0, SHARED, HALF)], True, {N0: 0.5, N1: 0.5}, id="all is shared"),
        pytest.param([], [region(0, SHARED, {N2: 512.0})], True, {N2: 1.0}, id="wherever it lies"),
        pytest.param([], [region(0, SHARED, {})], False, {}, id="it is not there any more"),
        pytest.param([], [region(0, SHARED)], False, {}, id="nobody knows where it lies"),
        pytest.param([], [region(0, {N0: 4.0, N1: 3.0}, HALF)], False, {}, id="too few samples to say so"),
        pytest.param([], [region(0, {N0: 16.0, N1: 4.0}, HALF)], False, {}, id="somebody's, and not for sure"),
        pytest.param([], [replace(region(0, SHARED, HALF), node=N0)], False, {}, id="somebody's"),
        pytest.param(
            [run(20, {N0: 512.0})],
            [region(0, {N0: 20.0}), region(1, {N0: 30.0, N1: 30.0}, HALF)],
            True,
            {N0: 0.375, N1: 0.375},
            id="the rest is shared",
        ),
        pytest.param(
            [run(20, {N1: 512.0})],
            [region(0, {N0: 20.0}), region(1, SHARED, HALF)],
            False,
            {N0: 0.25, N1: 0.25},
            id="what belongs to one node is away",
        ),
        pytest.param(
            [run(10, {N1: 1.0}, end=PAGE)],
            [region(0, SHARED, HALF)],
            False,
            {N0: 0.25, N1: 0.25},
            id="a page of a shared region belongs to one node, and is away",
        ),
        pytest.param(
            [run(6, {N1: 1.0}, end=PAGE)],
            [region(0, SHARED, HALF)],
            True,
            {N0: 0.5, N1: 0.5},
            id="a page of a shared region that may as well be shared",
        ),
        pytest.param(
            [run(20, None, start=REGION_BYTES - PAGE, end=REGION_BYTES + PAGE)],
            [region(0, {N0: 20.0, N1: 10.0}, HALF), region(1, {N0: 20.0, N1: 10.0}, HALF)],
            False,
            {N0: pytest.approx(1 / 3), N1: pytest.approx(1 / 3)},
            id="what nobody knows of two shared regions is a third",
        ),
        pytest.param(
            [run(50, {N0: 1.0}, end=PAGE)],
            [region(0, SHARED, {N2: 512.0})],
            True,
            {},
            id="a page has all of it",
        ),
    ],
)
def test_what_several_nodes_share_is_known_where_it_is_known_where_it_lies(
    runs: list[AccessRun], regions: list[AccessRegion], expected: bool, shared_on: dict[NodeId, float]
) -> None:
    found = standing(runs, regions)
    assert found.is_in_place is expected
    assert found.shared_on == shared_on


CALM = Standing(is_in_place=True)


def test_the_longer_all_is_in_place_the_fewer_samples_are_taken_and_at_the_first_doubt_all_of_them() -> None:
    interest = Interest()
    seen = []
    for tick in range(10):
        interest.note(100.0 + tick * CALM_SECONDS, CALM)
        seen.append(interest.ratio)
    assert seen == [1.0, 0.5, 0.25, 0.125, 0.0625, *([LEAST_INTEREST] * 5)]
    interest.note(300.0, Standing(is_in_place=False))
    assert interest.ratio == 1.0
    interest.note(300.0 + CALM_SECONDS, CALM)
    assert interest.ratio == 1.0, "calm counts from here"
    interest.note(300.0 + 1.9 * CALM_SECONDS, CALM)
    assert interest.ratio == 1.0
    interest.note(300.0 + 2.0 * CALM_SECONDS, CALM)
    assert interest.ratio == 0.5


@pytest.mark.parametrize(
    ("on", "ratio"),
    [
        pytest.param({N0: 0.8}, 0.25, id="it stays"),
        pytest.param({N0: 0.76, N1: 0.04}, 0.25, id="hardly any goes elsewhere"),
        pytest.param({N0: 0.7, N1: 0.1}, 1.0, id="some goes elsewhere"),
        pytest.param({}, 1.0, id="it is not shared any more"),
        pytest.param({N0: 0.8, N1: 0.1}, 0.25, id="more is shared"),
    ],
)
def test_while_what_is_shared_goes_elsewhere_all_samples_are_taken(on: dict[NodeId, float], ratio: float) -> None:
    interest = Interest()
    for tick in range(2):
        interest.note(100.0 + tick * CALM_SECONDS, Standing(is_in_place=True, shared_on={N0: 0.8}))
    assert interest.ratio == 0.5
    interest.note(100.0 + 2 * CALM_SECONDS, Standing(is_in_place=True, shared_on=on))
    assert interest.ratio == ratio


def test_what_moves_little_by_little_has_moved_in_the_end_and_is_calm_from_then_on() -> None:
    interest = Interest()
    ratios = []
    for tick in range(8):
        away = min(0.12, 0.02 * tick)
        shared_on = {N0: 0.8 - away, N1: away}
        interest.note(100.0 + tick * CALM_SECONDS, Standing(is_in_place=True, shared_on=shared_on))
        ratios.append(interest.ratio)
    assert ratios == [1.0, 0.5, 0.25, 1.0, 0.5, 0.25, 1.0, 0.5]
