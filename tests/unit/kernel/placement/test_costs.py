import pytest

from balancerd.kernel.placement.costs import NumaMapsCosts
from balancerd.model.ids import ProcessId

P = ProcessId(7, 1)
GIB_PAGES = 1 << 18


@pytest.mark.parametrize(
    ("pages", "n_vmas", "questions", "cheaper"),
    [
        (2_000, 100, 2048, True),
        (9_000, 20, 2048, True),
        (20_000, 20, 2048, False),
        (100, 600, 2048, False),
        (9_000, 20, 200, False),
    ],
)
def test_of_a_process_never_read_base_pages_are_assumed(pages: int, n_vmas: int, questions: int, cheaper: bool) -> None:
    assert NumaMapsCosts().is_cheaper(P, resident_pages=pages, n_vmas=n_vmas, questions=questions) is cheaper


def test_what_a_reading_cost_is_what_the_next_will_cost() -> None:
    costs = NumaMapsCosts()
    costs.learn(P, present_pages=GIB_PAGES, n_vmas=100, seconds=230e-6)  # all in huge pages
    assert costs.is_cheaper(P, resident_pages=GIB_PAGES, n_vmas=100, questions=2048)
    assert costs.is_cheaper(P, resident_pages=3 * GIB_PAGES // 2, n_vmas=100, questions=2048)
    assert not costs.is_cheaper(P, resident_pages=8 * GIB_PAGES, n_vmas=100, questions=2048)
    costs.learn(P, present_pages=GIB_PAGES, n_vmas=100, seconds=11e-3)  # they were split
    assert not costs.is_cheaper(P, resident_pages=GIB_PAGES, n_vmas=100, questions=2048)
    other = ProcessId(8, 1)
    assert not costs.is_cheaper(other, resident_pages=GIB_PAGES, n_vmas=100, questions=2048)


def test_it_is_never_read_for_longer_than_two_milliseconds() -> None:
    costs = NumaMapsCosts()
    assert not costs.is_cheaper(P, resident_pages=50_000, n_vmas=10, questions=1 << 30)
    assert costs.is_cheaper(P, resident_pages=30_000, n_vmas=10, questions=1 << 30)


def test_a_reading_that_found_nothing_teaches_nothing_and_the_dead_are_forgotten() -> None:
    costs = NumaMapsCosts()
    costs.learn(P, present_pages=0, n_vmas=3, seconds=1.0)
    assert costs.is_cheaper(P, resident_pages=1000, n_vmas=3, questions=2048)
    costs.learn(P, present_pages=1000, n_vmas=3, seconds=1.0)
    assert not costs.is_cheaper(P, resident_pages=1000, n_vmas=3, questions=2048)
    costs.forget_all_but({P})
    assert not costs.is_cheaper(P, resident_pages=1000, n_vmas=3, questions=2048)
    costs.forget_all_but(set())
    assert costs.is_cheaper(P, resident_pages=1000, n_vmas=3, questions=2048)
