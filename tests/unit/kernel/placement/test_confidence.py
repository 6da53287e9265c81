import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.kernel.placement.confidence import Part, allow_for_hidden, effective_answers, intervals, pages_by_node
from balancerd.kernel.placement.sampling import estimate_strata
from balancerd.model.ids import NodeId
from balancerd.model.interval import wilson
from balancerd.native.records import Tally
from tests.bench.bench_coverage import cases, summary
from tests.unit.kernel.placement.memories import Memory, nodes, random_memory

N0, N1 = NodeId(0), NodeId(1)


def make_part(
    on_node: Sequence[int], differing: Sequence[int] = (), lone: Sequence[int] = (), *, scale: float = 1000.0
) -> Part:
    asked = 2 * sum(on_node)
    tally = Tally(
        asked_units=asked,
        present_units=sum(on_node),
        units=round(scale * asked),
        on_node=tuple(on_node),
        differing_pairs=tuple(differing) or (0,) * len(on_node),
        lone_pairs=tuple(lone) or (0,) * len(on_node),
        rows=(),
        seconds=0.0,
    )
    return Part(strata=(1,), tally=tally, scale=scale)


def test_of_two_hundred_placements_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    found = summary(cases(200, seed=4, most_pages=1 << 15))
    assert found["cases"] > 500
    assert 93.0 <= found["inside %"] <= 97.0
    assert found["95 % error"] <= 1.5
    assert found["rms error"] <= 1.1


@pytest.mark.parametrize(
    ("page", "least", "most"),
    [
        (lambda _, chance: chance.randrange(2), 0.85, 1.15),
        (lambda i, _: i % 2, 0.85, 1.15),
        (lambda i, _: i // 512 % 2, 0.0, 0.35),
        (lambda i, _: i // 50_000 % 2, 0.0, 0.1),
    ],
    ids=["page by page", "interleaved", "huge pages", "halves"],
)
def test_clusters_larger_than_a_cell_make_the_interval_narrower(
    page: Callable[[int, random.Random], int], least: float, most: float
) -> None:
    chance = random.Random(1)  # noqa: S311 the same in every run
    memory = Memory([nodes([page(i, chance) for i in range(100_000)])], chance=chance)
    estimate = estimate_strata(memory.strata(), 100_000, 2048, memory.ask)
    width = intervals(estimate.parts)[N0].half_width
    assert least * wilson(0.5, 2048).half_width <= width <= most * wilson(0.5, 2048).half_width


def test_clusters_that_a_cell_cuts_across_make_the_interval_wider_than_answers_alone_would() -> None:
    sparse = make_part([1000, 1000], [600, 600], [300, 300])
    assert intervals([sparse])[N0].half_width > intervals([make_part([1000, 1000], [300, 300])])[N0].half_width


def test_one_pair_that_differs_may_as_well_have_been_two() -> None:
    half_width = intervals([make_part([1000, 1000], [1, 1])])[N0].half_width
    assert half_width == pytest.approx(1.96 * 2**0.5 / 2000, rel=0.02)


def test_pairs_that_are_one_on_the_node_and_one_nowhere_matter_less_the_larger_the_share() -> None:
    alone = intervals([make_part([1900, 100], [400, 0], [400, 0])])[N0]
    mixed = intervals([make_part([1900, 100], [400, 400])])[N0]
    assert alone.half_width < mixed.half_width / 3


def test_what_was_asked_in_full_adds_no_uncertainty() -> None:
    exact = make_part([50_000, 50_000], scale=1.0)
    assert exact.unasked_ratio == 0
    sampled = make_part([500, 500], [300, 300], scale=100.0)
    only, both = intervals([sampled])[N0], intervals([sampled, exact])[N0]
    assert both.half_width == pytest.approx(only.half_width / 2, rel=0.01)


def test_a_node_that_no_answer_named_may_still_hold_a_little() -> None:
    bounds = intervals([make_part([2048, 0])])
    assert bounds[N0] == wilson(1.0, 2048)
    assert bounds[N1] == wilson(0.0, 2048)
    assert 0.001 < bounds[N1].high < 0.002


def test_answers_that_stand_for_more_count_for_less() -> None:
    assert effective_answers([make_part([1000, 0])]) == pytest.approx(1000)
    assert effective_answers([make_part([1000, 0]), make_part([1, 0], scale=1e6)]) == pytest.approx(4.0, rel=0.01)
    assert effective_answers([]) == 0


def test_memory_that_no_answer_showed_may_lie_on_any_node() -> None:
    parts = [make_part([1000, 0], scale=10.0)]
    bounds = intervals(parts)
    assert allow_for_hidden(bounds, parts, 10_000) == bounds
    assert allow_for_hidden(bounds, parts, 11_000) == bounds, "less than a tenth is noise"
    wide = allow_for_hidden(bounds, parts, 40_000)
    assert wide[N0].low == pytest.approx(bounds[N0].low / 4)
    assert wide[N0].high == 1.0
    assert wide[N1].low == 0.0
    assert wide[N1].high == pytest.approx(0.75, abs=0.001)


def test_nothing_present_has_no_shares() -> None:
    assert intervals([]) == {}
    assert intervals([make_part([0, 0])]) == {}
    assert pages_by_node([]) == ()


@given(seed=st.integers(0, 2**32), samples=st.integers(2, 300))
def test_every_estimate_lies_inside_of_its_interval(seed: int, samples: int) -> None:
    memory = random_memory(random.Random(seed), most_pages=1 << 13)  # noqa: S311 hypothesis chooses the seed
    truth = memory.pages_by_node()
    estimate = estimate_strata(memory.strata(), sum(truth), samples, memory.ask)
    estimated, bounds = pages_by_node(estimate.parts), intervals(estimate.parts)
    if estimate.is_exact:
        assert list(estimated) == truth
    for node, interval in bounds.items():
        share = estimated[node] / sum(estimated)
        assert 0 <= interval.low <= share + 1e-12
        assert share - 1e-12 <= interval.high <= 1
    assert set(bounds) == (set(range(memory.n_nodes)) if sum(estimated) else set())
