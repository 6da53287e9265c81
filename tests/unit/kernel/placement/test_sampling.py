from collections.abc import Sequence

import pytest

from balancerd.kernel.placement.sampling import Estimate, estimate_ranges
from balancerd.native.records import RangePlacement

SAMPLES = 2048
TIB_PAGES = 1 << 28


class Memory:
    """Ranges in which the first `present` pages are on node 1, and a systematic sampler over them that counts."""

    def __init__(self, *ranges: tuple[int, int], phase: float = 0.37) -> None:
        self.pages = [pages for pages, _ in ranges]
        self.present = [present for _, present in ranges]
        self.phase = phase
        self.asked = 0

    def ask(self, indexes: Sequence[int], samples: int) -> list[RangePlacement]:
        total = sum(self.pages[i] for i in indexes)
        step = 1 if samples in {0, total} else total / samples
        count = total if step == 1 else samples
        self.asked += count
        rows = []
        at, before = 0, 0
        for i in indexes:
            hits = missing = 0
            while at < count and (page := int((at + self.phase) * step if step != 1 else at)) - before < self.pages[i]:
                hits, missing = (hits + 1, missing) if page - before < self.present[i] else (hits, missing + 1)
                at += 1
            before += self.pages[i]
            rows.append(RangePlacement(on_node=(0, hits), absent_pages=missing, other_pages=0))
        return rows

    def estimate(self, *, exact: bool = False) -> Estimate:
        return estimate_ranges(self.pages, sum(self.present), SAMPLES, self.ask, exact=exact)


def total(estimate: Estimate) -> float:
    return sum(row.on_node[1] * scale for row, scale in zip(estimate.found, estimate.scale, strict=True))


def test_a_small_process_is_asked_for_every_page() -> None:
    memory = Memory((1000, 1000), (1048, 7))
    estimate = memory.estimate()
    assert estimate.exact
    assert [row.on_node[1] for row in estimate.found] == [1000, 7]
    assert estimate.scale == (1.0, 1.0)
    assert memory.asked == estimate.queried_pages == 2048


def test_everything_is_asked_for_when_it_must_be_exact() -> None:
    memory = Memory((5000, 1234))
    assert total(memory.estimate(exact=True)) == 1234


def test_a_dense_process_is_sampled_once() -> None:
    memory = Memory((2_000_000, 2_000_000))
    estimate = memory.estimate()
    assert memory.asked == estimate.queried_pages == estimate.present_pages == SAMPLES
    assert not estimate.exact
    assert total(estimate) == pytest.approx(2_000_000)


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
    memory = Memory(*ranges)
    estimate = memory.estimate()
    assert total(estimate) == pytest.approx(sum(present for _, present in ranges), rel=0.02)
    assert memory.asked == estimate.queried_pages
    assert memory.asked <= 8 * SAMPLES


def test_a_hit_in_a_huge_reservation_does_not_hide_the_dense_ranges() -> None:
    memory = Memory((20_000, 20_000), (100 * TIB_PAGES, TIB_PAGES))
    memory.present[1] = TIB_PAGES  # the sampler hits it, but resident size says that it cannot be that much
    estimate = estimate_ranges(memory.pages, 20_000, SAMPLES, memory.ask, exact=False)
    assert estimate.found[0].on_node[1] * estimate.scale[0] == pytest.approx(20_000, rel=0.02)
    assert estimate.found[0].on_node[1] >= 1000


def test_nothing_mapped_is_nothing_found() -> None:
    estimate = Memory().estimate()
    assert (estimate.found, estimate.queried_pages, estimate.present_pages) == ((), 0, 0)
