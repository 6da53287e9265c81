"""The size of groups, by what calls are told to have cost: a price of each page, and one of each group."""

import pytest

from balancerd.kernel.moving.groups import TELLING_PAGES, GroupSize

PAGE_SECONDS = 50e-6


def learn(groups: GroupSize, group_seconds: float, calls: int, *, pages: int = 2048) -> list[int]:
    """Make so many calls, and return the sizes of their groups."""
    sizes = []
    for _ in range(calls):
        size = groups.for_next_call()
        groups.took(size, pages * (PAGE_SECONDS + group_seconds / size), pages)
        sizes.append(size)
    return sizes


@pytest.mark.parametrize(
    ("group_seconds", "wanted"),
    [
        pytest.param(0.0, 64, id="free"),
        pytest.param(5e-6, 64, id="a real machine"),
        pytest.param(0.5e-3, 64, id="64 cost 8 % more than 128"),
        pytest.param(1.5e-3, 128, id="64 cost 19 % more than 128, these 10 % more than 256"),
        pytest.param(2.6e-3, 256, id="virtual CPUs that wait for real ones"),
        pytest.param(20e-3, 512, id="whatever it costs, 512 is what the kernel does"),
    ],
)
def test_the_smallest_group_that_costs_hardly_more_is_found_and_kept(group_seconds: float, wanted: int) -> None:
    groups = GroupSize(64)
    learn(groups, group_seconds, 30)
    assert groups.pages == wanted
    later = learn(groups, group_seconds, 80)
    assert groups.pages == wanted
    assert later.count(wanted) >= 60
    assert set(later) <= {wanted // 2, wanted, wanted * 2} & {64, 128, 256, 512}


def test_the_size_of_a_few_calls_is_tried_early_and_afterwards_now_and_then() -> None:
    groups = GroupSize(64)
    assert sorted(learn(groups, 0.0, 6)) == [64, 64, 64, 128, 128, 128]
    assert learn(groups, 0.0, 16).count(128) == 2


def test_groups_become_small_again_when_waiting_for_cpus_costs_little() -> None:
    groups = GroupSize(64)
    learn(groups, 20e-3, 40)
    assert groups.pages == 512
    learn(groups, 5e-6, 200)
    assert groups.pages == 64


def test_an_odd_call_and_calls_of_few_pages_change_nothing() -> None:
    groups = GroupSize(64)
    learn(groups, 0.0, 20)
    groups.took(64, 100.0, 2048)
    assert groups.pages == 64
    for _ in range(10):
        groups.took(64, 100.0, TELLING_PAGES - 1)
    assert groups.pages == 64


def test_where_the_kernel_decides_nothing_is_tried() -> None:
    groups = GroupSize(0)
    for _ in range(40):
        assert groups.for_next_call() == 0
        groups.took(0, 1.0, 2048)
    assert groups.pages == 0
