import pytest

from balancerd.kernel.placement.sampling import Estimate, estimate_strata
from tests.unit.kernel.placement.memories import HUGE_PAGES, Memory, first_present, nodes

SAMPLES = 2048
TIB_PAGES = 1 << 28


def memory_of(*ranges: tuple[int, int]) -> Memory:
    """Mappings of so many pages, of which the first so many are on node 1."""
    return Memory([first_present(pages, present) for pages, present in ranges])


def estimate(memory: Memory, *, exact: bool = False, resident_pages: int | None = None) -> Estimate:
    truth = sum(memory.pages_by_node()) if resident_pages is None else resident_pages
    found = estimate_strata(memory.strata(), truth, SAMPLES, memory.ask, exact=exact)
    assert found.queried_pages == memory.asked
    return found


def total(estimate: Estimate) -> float:
    return sum(part.present_pages for part in estimate.parts)


def test_a_small_process_is_asked_for_every_page() -> None:
    memory = memory_of((1000, 1000), (1048, 7))
    found = estimate(memory)
    assert found.is_exact
    assert {row.vma: row.on_node for part in found.parts for row in part.tally.rows} == {0: (0, 1000), 1: (0, 7)}
    assert [part.scale for part in found.parts] == [1.0]
    assert memory.asked == 2048


def test_one_page_more_is_not_asked_in_full() -> None:
    assert not estimate(memory_of((1000, 1000), (1049, 1049))).is_exact


def test_everything_is_asked_for_when_it_must_be_exact() -> None:
    found = estimate(memory_of((5000, 1234), (100_000, 0)), exact=True)
    assert (found.is_exact, total(found), found.queried_pages) == (True, 1234, 105_000)


def test_a_dense_process_is_sampled_once() -> None:
    found = estimate(memory := memory_of((2_000_000, 2_000_000)))
    assert memory.asked == found.present_pages == SAMPLES
    assert not found.is_exact
    assert total(found) == pytest.approx(2_000_000)


def test_a_process_that_is_half_empty_is_asked_for_twice_as_many_addresses() -> None:
    found = estimate(memory := memory_of((1_000_000, 600_000)))
    assert memory.asked == pytest.approx(SAMPLES / 0.6, abs=2)
    assert found.present_pages == pytest.approx(SAMPLES, abs=5)
    assert len(found.parts) == 1


@pytest.mark.parametrize(
    "ranges",
    [
        [(1_000_000, 300_000)],
        [(100_000, 100_000), (1_000_000, 0)],
        [(10_000, 10_000), (2 * TIB_PAGES, 0)],
        [(10_000, 10_000), (100 * TIB_PAGES, 0), (7, 7)],
        [(100, 100)] * 500 + [(100 * TIB_PAGES, 0)],
        [(2_000_000, 1_900_000), (30_000_000, 0), (TIB_PAGES, 0)],
        [(2048, 700)] * 3000,
    ],
    ids=["a third", "half empty", "2 TiB", "100 TiB", "small ones beside 100 TiB", "three sizes", "3000 stacks"],
)
def test_absent_pages_cost_questions_and_not_truth(ranges: list[tuple[int, int]]) -> None:
    memory = memory_of(*ranges)
    found = estimate(memory)
    assert total(found) == pytest.approx(sum(present for _, present in ranges), rel=0.05)
    assert found.present_pages >= SAMPLES / 2
    assert memory.asked <= 8 * SAMPLES


def test_a_hit_in_a_huge_reservation_does_not_hide_the_dense_ranges() -> None:
    memory = memory_of((20_000, 20_000), (100 * TIB_PAGES, TIB_PAGES))
    found = estimate(memory, resident_pages=20_000)  # says that it cannot be as much as the answers make it look
    small = found.parts[0]
    assert small.present_pages == pytest.approx(20_000)
    assert small.tally.present_units >= 1000


def test_memory_hidden_in_a_huge_mapping_is_looked_for() -> None:
    memory = memory_of((20_000, 20_000), (1 << 30, 1 << 20))  # one page of a thousand is present
    found = estimate(memory)
    assert found.parts[1].tally.asked_units == 4 * SAMPLES
    assert found.parts[1].tally.present_units > 0
    untouched = memory_of((20_000, 20_000), (1 << 30, 0))
    assert estimate(untouched).parts[1].tally.asked_units == 128


def test_resident_pages_that_are_wrong_cost_questions_and_not_truth() -> None:
    found = estimate(memory_of((1_000_000, 100_000)), resident_pages=1_000_000)
    assert total(found) == pytest.approx(100_000, rel=0.1)
    assert found.queried_pages <= 8 * SAMPLES


def test_hugetlb_pages_are_one_question_each_and_count_their_base_pages() -> None:
    memory = Memory([nodes([0] * 30 + [1] * 10 + [-1] * 5, HUGE_PAGES), first_present(1000, 10)])
    found = estimate(memory)
    assert memory.asked == 1045
    assert found.is_exact
    assert sorted((part.scale, part.tally.on_node) for part in found.parts) == [(1.0, (0, 10)), (512.0, (30, 10))]


def test_resident_hugetlb_pages_do_not_make_other_mappings_look_dense() -> None:
    memory = Memory([nodes([0] * 2000, HUGE_PAGES), first_present(1_000_000, 10_000)])
    found = estimate(memory)
    looked_up = sum(part.tally.asked_units for part in found.parts)
    assert memory.asked == looked_up + 128, "one look at the density, and no vain sample before"


def test_of_very_many_hugetlb_pages_some_are_asked() -> None:
    memory = Memory([nodes([0, 1] * 5000, HUGE_PAGES)])
    found = estimate(memory)
    assert memory.asked == SAMPLES
    assert total(found) == pytest.approx(10_000 * 512)
    assert estimate(Memory([nodes([0, 1] * 5000, HUGE_PAGES)]), exact=True).is_exact


def test_nothing_mapped_is_nothing_found() -> None:
    found = estimate(Memory([]))
    assert (found.parts, found.queried_pages, found.present_pages) == ((), 0, 0)
