"""How fast memory is taken to move: expected at first, then as measured, within bounds, by the pair of nodes."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.copying import CopyRates, copy_rate, machine_rate, move_cost_seconds
from balancerd.model.copying import Copying
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES
from tests.unit.fakes import GIB, MIB, N0, N1, N2
from tests.unit.reports import an_outcome

EXPECTED = float(2 * GIB)


def outcome(mib: float, seconds: float, *, source: int = 1, target: int = 0, **changes: Any) -> MigrationOutcome:
    pages = round(mib * MIB / PAGE_BYTES)
    made = an_outcome(
        ProcessId(1, 1),
        target=target,
        pages={PageStatus.MOVED: pages},
        moved_from={source: pages},
        call_seconds=(seconds / 2, seconds / 2),
    )
    return replace(made, **changes)


def measured(*outcomes: MigrationOutcome, apart_seconds: float = 1.0) -> Copying:
    rates = CopyRates()
    for number, each in enumerate(outcomes):
        rates.note(each, 100.0 + number * apart_seconds)
    return rates.told()


def test_before_anything_moved_the_expected_rate_holds() -> None:
    assert machine_rate(Copying(), EXPECTED) == EXPECTED
    assert copy_rate(Copying(), EXPECTED, N1, N0) == EXPECTED
    assert Copying().bytes_per_second is None


def test_the_least_that_tells_and_what_the_expectation_counts_as() -> None:
    assert measured(outcome(16, 1.0)).copied_bytes == 16 * MIB
    as_much_at_half = measured(outcome(256, 256 * MIB / (EXPECTED / 2)))
    assert machine_rate(as_much_at_half, EXPECTED) == pytest.approx(EXPECTED * 2 / 3)


def test_what_is_measured_draws_the_rate_the_more_the_more_was_moved() -> None:
    slower = 1.5 * GIB
    one = machine_rate(measured(outcome(256, 256 * MIB / slower)), EXPECTED)
    many = machine_rate(measured(*[outcome(256, 256 * MIB / slower)] * 16), EXPECTED)
    assert slower < many < one < EXPECTED
    assert many == pytest.approx(slower, rel=0.03)
    assert measured(outcome(256, 256 * MIB / slower)).bytes_per_second == pytest.approx(slower)


@pytest.mark.parametrize(
    "ignored",
    [
        outcome(15.9, 1.0),
        outcome(256, 0.0),
        outcome(256, 0.0156),
        outcome(256, 1.0, pages={PageStatus.SHARED: 65536}, moved_from={}),
    ],
)
def test_a_step_that_moved_too_little_or_took_no_time_tells_nothing(ignored: MigrationOutcome) -> None:
    assert measured(ignored) == Copying()


@pytest.mark.parametrize(("seconds", "rate"), [(100.0, 0.5 * EXPECTED), (0.07, 4.0 * EXPECTED)])
def test_a_rate_is_believed_within_bounds_only(seconds: float, rate: float) -> None:
    told = measured(*[outcome(1024, seconds)] * 8)
    assert machine_rate(told, EXPECTED) == rate
    assert copy_rate(told, EXPECTED, N1, N0) == rate


def test_a_pair_of_nodes_has_a_rate_of_its_own_and_others_that_of_all() -> None:
    told = measured(*[outcome(1024, 0.25)] * 4, *[outcome(1024, 1.0, source=2)] * 4)
    near, far, other = (copy_rate(told, EXPECTED, *pair) for pair in ((N1, N0), (N2, N0), (N0, N1)))
    assert far < other < near
    assert other == machine_rate(told, EXPECTED)


def test_pages_of_several_nodes_tell_of_no_pair_and_those_with_targets_of_their_own_of_theirs() -> None:
    pages = 65536
    both = measured(outcome(256, 0.1, moved_from={NodeId(1): pages // 2, NodeId(2): pages // 2}))
    assert (both.pairs, both.copied_bytes) == ((), 256 * MIB)
    step = replace(outcome(256, 0.1).step, target_of={N1: N2})
    (pair,) = measured(outcome(256, 0.1, step=step)).pairs
    assert (pair.source, pair.target) == (1, 2)


def test_what_was_measured_long_ago_counts_little() -> None:
    slow, fast = outcome(1024, 1.0), outcome(64, 64 / 4096)
    soon = measured(slow, fast, apart_seconds=1.0)
    late = measured(slow, fast, apart_seconds=36_000.0)
    assert machine_rate(soon, EXPECTED) < 0.8 * EXPECTED
    assert machine_rate(late, EXPECTED) > EXPECTED


def test_after_an_hour_what_was_measured_counts_half() -> None:
    told = measured(outcome(1024, 1.0, source=2), outcome(1024, 1.0), apart_seconds=3600.0)
    newest = 0.5 ** (1 / 4)  # so much is left of what was before, by as many bytes more
    assert told.copied_bytes == pytest.approx((1 + 0.5 * newest) * GIB)
    assert told.seconds == pytest.approx(1 + 0.5 * newest)
    pairs: list[tuple[Any, Any, Any]] = [(pair.source, pair.copied_bytes, pair.seconds) for pair in told.pairs]
    assert pairs == [
        (N1, pytest.approx(GIB), pytest.approx(1.0)),
        (N2, pytest.approx(GIB / 2), pytest.approx(0.5)),
    ]


def test_what_was_moved_last_counts_most() -> None:
    slow, fast = [outcome(1024, 1.0)] * 16, [outcome(1024, 0.25)] * 16
    assert machine_rate(measured(*slow, *fast), EXPECTED) > 1.4 * EXPECTED
    assert machine_rate(measured(*fast, *slow), EXPECTED) < 0.7 * EXPECTED


def test_a_memory_that_goes_on_from_what_was_told_tells_the_same() -> None:
    told = measured(outcome(1024, 1.0), outcome(512, 0.1, source=2))
    rates = CopyRates()
    rates.restore(told)
    assert rates.told() == told


def test_a_move_costs_twice_its_copying_each_source_by_its_own_rate() -> None:
    told = measured(*[outcome(1024, 0.25)] * 8, *[outcome(1024, 1.0, source=2)] * 8)
    cost = move_cost_seconds({N1: GIB, N2: GIB}, N0, told, EXPECTED)
    assert cost == pytest.approx(sum(2 * GIB / copy_rate(told, EXPECTED, n, N0) for n in (N1, N2)))
    assert move_cost_seconds({N1: GIB}, N0, Copying(), EXPECTED) == 1.0
