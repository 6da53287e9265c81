"""Small groups are the rule, large ones where each group has a high price; both are tried, and tried again."""

from itertools import repeat

import pytest

from balancerd.kernel.moving.group import AGAIN_AFTER_CALLS, ENOUGH_CALLS, LARGEST_PAGES, GroupSize

USUAL = 128


def learn(size: GroupSize, n_calls: int, *, waiting: float) -> list[int]:
    """Make calls of groups that wait as long as it takes to copy so many pages; return the size of each call's."""
    sizes: list[int] = []
    for _ in repeat(None, n_calls):
        sizes.append(size.pages)
        size.took(size.pages, (waiting / max(size.pages, 1) + 1) * 1e-6)
    return sizes


def test_both_sizes_are_tried_in_turns() -> None:
    assert learn(GroupSize(USUAL), 2 * ENOUGH_CALLS, waiting=0) == [USUAL, LARGEST_PAGES] * ENOUGH_CALLS


@pytest.mark.parametrize(("waiting", "better"), [(0, USUAL), (50, USUAL), (80, LARGEST_PAGES), (5000, LARGEST_PAGES)])
def test_groups_are_large_where_a_small_one_waits_for_a_third_of_its_time(waiting: float, better: int) -> None:
    size = GroupSize(USUAL)
    learn(size, 2 * ENOUGH_CALLS, waiting=waiting)
    assert size.pages == better


def test_one_odd_call_changes_nothing() -> None:
    size = GroupSize(USUAL)
    learn(size, 2 * ENOUGH_CALLS, waiting=0)
    size.took(USUAL, 1e-3)
    assert size.pages == USUAL


def test_the_other_size_is_tried_again_and_a_change_is_felt() -> None:
    size = GroupSize(USUAL)
    learn(size, 2 * ENOUGH_CALLS, waiting=0)
    busier = learn(size, 3 * (AGAIN_AFTER_CALLS + 1), waiting=1000)
    assert busier.count(LARGEST_PAGES) >= ENOUGH_CALLS
    assert size.pages == LARGEST_PAGES
    learn(size, 10 * (AGAIN_AFTER_CALLS + 1), waiting=0)
    assert size.pages == USUAL


def test_calls_that_cost_nothing_but_the_call_keep_the_usual_size() -> None:
    size = GroupSize(USUAL)
    for _ in range(2 * ENOUGH_CALLS):
        size.took(size.pages, 0.0)
    assert size.pages == USUAL


@pytest.mark.parametrize("usual", [0, LARGEST_PAGES, 2 * LARGEST_PAGES])
def test_a_size_that_is_no_smaller_stays(usual: int) -> None:
    assert set(learn(GroupSize(usual), 10, waiting=1000)) == {usual}
