import random
import statistics

import pytest

from balancerd.kernel.placement.sequential import (
    Verdict,
    dense_group,
    groups_like,
    is_worth_a_test,
    judge_home,
    plain_intervals,
)
from balancerd.model.ids import NodeId
from balancerd.native.records import Stratum
from tests.unit.kernel.placement.memories import Mapping, Memory, first_present

HOME, OTHER = NodeId(1), NodeId(0)
PAGES = 1 << 20


def misplaced(ratio: float, seed: int, *, present_ratio: float = 1.0) -> Memory:
    """A memory whose pages are placed by chance; each page is drawn when it is asked for, which is once at most."""
    chance = random.Random(seed)  # noqa: S311 the same in every run

    def node_of(_: int) -> int:
        if chance.random() >= present_ratio:
            return -1
        return OTHER if chance.random() < ratio else HOME

    return Memory([Mapping(units=PAGES, node_of=node_of)], chance=chance)


def judge(memory: Memory, present_ratio: float = 1.0) -> Verdict:
    groups = dense_group(memory.strata(), round(PAGES * present_ratio))
    assert groups is not None
    return judge_home(groups, HOME, memory.ask, lambda _: True)


@pytest.mark.parametrize(
    ("ratio", "least_well", "most_well", "most_pages"),
    [(0.0, 1.0, 1.0, 28), (0.01, 0.99, 1.0, 36), (0.05, 0.95, 1.0, 65), (0.15, 0.0, 0.05, 55), (0.5, 0.0, 0.0, 29)],
)
def test_the_test_is_as_right_and_as_short_as_promised(
    ratio: float, least_well: float, most_well: float, most_pages: int
) -> None:
    verdicts = [judge(misplaced(ratio, seed)) for seed in range(400)]
    well = statistics.mean(v.is_well_placed for v in verdicts)
    assert least_well <= well <= most_well
    assert 28 <= statistics.mean(v.queried_pages for v in verdicts) <= most_pages


def test_the_intervals_hold_the_truth_also_when_the_test_ended_early() -> None:
    # those that are not well placed are sampled in full: only accepted tests are ever told
    outside = 0
    for seed in range(2000):
        ratio = random.Random(seed).uniform(0.0, 0.2)  # noqa: S311 the same in every run
        verdict = judge(misplaced(ratio, seed))
        interval = plain_intervals(verdict.parts)[OTHER]
        outside += verdict.is_well_placed and not interval.low <= ratio <= interval.high
    assert outside / 2000 <= 0.05


def test_absent_pages_cost_questions_and_no_answers() -> None:
    verdict = judge(misplaced(0.0, 1, present_ratio=0.5), 0.5)
    assert verdict.is_well_placed
    assert 54 <= verdict.queried_pages <= 120
    assert 27 <= sum(part.tally.present_units for part in verdict.parts) <= 60


def test_a_test_that_does_not_end_gives_up() -> None:
    verdict = judge(misplaced(0.0, 1, present_ratio=0.0))
    assert (verdict.is_well_placed, verdict.queried_pages) == (False, 324)
    assert plain_intervals(verdict.parts) == {}


def test_program_files_are_not_misplaced_wherever_they_are() -> None:
    memory = Memory([first_present(PAGES, PAGES, HOME), first_present(PAGES, PAGES, OTHER)])
    groups = dense_group(memory.strata(), 2 * PAGES)
    assert groups is not None
    assert judge_home(groups, HOME, memory.ask, lambda vma: vma == 0).is_well_placed
    assert not judge_home(groups, HOME, memory.ask, lambda _: True).is_well_placed


def test_each_group_is_asked_as_its_pages_deserve() -> None:
    memory = Memory([first_present(1 << 11, 1 << 11), first_present(1 << 20, 1 << 17), first_present(1 << 30, 0)])
    known: dict[tuple[int, ...], float] = {(2,): 1.0, (3,): 1 / 8, (5,): 0.0}
    groups = groups_like(memory.strata(), known)
    assert groups is not None
    assert is_worth_a_test(groups)
    verdict = judge_home(groups, HOME, memory.ask, lambda _: True)
    assert verdict.is_well_placed
    (sparse,) = (part for part in verdict.parts if part.strata == (3,))
    assert sparse.present_pages == pytest.approx(1 << 17, rel=0.6)
    assert not any(part.strata == (5,) for part in verdict.parts), "nothing was there, and nothing is asked"


def test_other_mappings_than_last_time_are_not_tested() -> None:
    strata = Memory([first_present(1 << 20, 1 << 20)]).strata()
    assert groups_like(strata, {(3,): 0.5}) is not None
    assert groups_like(strata, {(3,): 0.5, (1,): 1.0}) is None
    assert groups_like(strata, {(1,): 0.5}) is None
    assert groups_like((*strata, Stratum(index=1, units=9, unit_bytes=4096)), {(3,): 0.5}) is None


def test_memory_that_is_mostly_absent_small_or_huge_pages_has_no_dense_group() -> None:
    strata = Memory([first_present(PAGES, PAGES)]).strata()
    assert dense_group(strata, PAGES // 3) is None
    assert dense_group((), 100) is None
    assert dense_group((*strata, Stratum(index=8, units=9, unit_bytes=2 << 20)), PAGES) is None
    group = dense_group(strata, 2 * PAGES)
    assert group is not None
    assert group[0].present_ratio == 1.0


@pytest.mark.parametrize(
    ("units", "present_ratio", "worth"),
    [(PAGES, 1.0, True), (PAGES, 0.2, True), (PAGES, 0.1, False), (2048, 1.0, False)],
)
def test_a_test_must_be_cheaper_than_a_sample(units: int, present_ratio: float, worth: bool) -> None:
    known: dict[tuple[int, ...], float] = {(1,): present_ratio}
    groups = groups_like([Stratum(index=1, units=units, unit_bytes=4096)], known)
    assert groups is not None
    assert is_worth_a_test(groups) is worth
    assert not is_worth_a_test(())
