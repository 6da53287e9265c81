"""The rate of sampling by table, and when judging comes again."""

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
    Turns,
    is_all_in_place,
    most_hz,
    ring_pages,
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


N0, N1 = NodeId(0), NodeId(1)


def run(weight: float, pages_by_node: dict[NodeId, float] | None) -> AccessRun:
    """A run that belongs to node 0."""
    return AccessRun(start=0, end=REGION_BYTES, node=N0, weight=weight, node_weight=weight, pages_by_node=pages_by_node)


@pytest.mark.parametrize(
    ("runs", "shared", "expected"),
    [
        pytest.param([run(50, {N0: 512.0})], 0.0, True, id="all at home"),
        pytest.param([run(50, {N0: 510.0, N1: 2.0})], 0.0, True, id="nearly all at home"),
        pytest.param([run(50, {N0: 500.0, N1: 12.0})], 0.0, False, id="some away"),
        pytest.param([run(999, {N0: 512.0}), run(1, {N1: 512.0})], 0.0, True, id="hardly used memory away"),
        pytest.param([run(98, {N0: 512.0}), run(2, {N1: 512.0})], 0.0, False, id="used memory away"),
        pytest.param([run(50, {N0: 512.0})], 5.0, True, id="little that is shared"),
        pytest.param([run(50, {N0: 512.0})], 6.0, False, id="much that is shared"),
        pytest.param([run(50, {N0: 512.0}), run(6, None)], 0.0, False, id="much that lies nobody knows where"),
        pytest.param([run(50, {N0: 512.0}), run(6, {})], 0.0, False, id="much that is not there any more"),
        pytest.param([], 50.0, False, id="nothing that belongs to one node"),
        pytest.param([], 0.0, False, id="nothing was seen"),
    ],
)
def test_all_is_in_place_when_nearly_all_that_is_used_is_known_and_lies_where_it_is_used(
    runs: list[AccessRun], shared: float, expected: bool
) -> None:
    used = sum(each.weight for each in runs)
    regions = [AccessRegion(start=0, weight_by_node={N0: used + shared / 2, N1: shared / 2})]
    assert is_all_in_place(runs, regions) is expected


def test_the_longer_all_is_in_place_the_fewer_samples_are_taken_and_at_the_first_doubt_all_of_them() -> None:
    interest = Interest()
    seen = []
    for tick in range(10):
        interest.note(100.0 + tick * CALM_SECONDS, is_in_place=True)
        seen.append(interest.ratio)
    assert seen == [1.0, 0.5, 0.25, 0.125, *([LEAST_INTEREST] * 6)]
    interest.note(300.0, is_in_place=False)
    assert interest.ratio == 1.0
    interest.note(300.0 + CALM_SECONDS, is_in_place=True)
    assert interest.ratio == 1.0, "calm counts from here"
    interest.note(300.0 + 1.9 * CALM_SECONDS, is_in_place=True)
    assert interest.ratio == 1.0
    interest.note(300.0 + 2.0 * CALM_SECONDS, is_in_place=True)
    assert interest.ratio == 0.5
