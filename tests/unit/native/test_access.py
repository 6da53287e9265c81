"""Counting accesses by page and node, and saying where pages belong."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.native import AccessNodes, AccessRun, AccessTable, JudgeRule
from balancerd.native.accessing import GATHER_RATIO

PAGE = 4096
REGION_PAGES = 512
BASE = 0x7F12_3460_0000  # where a region begins
NODES = AccessNodes([(0, 0), (1, 0), (2, 3), (3, 5), (5, 2)])  # CPU 4 is on no node
NODE_OF_CPU = {0: 0, 1: 0, 2: 3, 3: 5, 5: 2}
CELL = 32
BY_PAGE = JudgeRule(region_pages=10**6)

Access = tuple[int, float, int, int]


def table_of(cells: int, nodes: AccessNodes = NODES) -> AccessTable:
    return AccessTable(nodes, cells * CELL)


def at(page: int) -> int:
    return BASE + page * PAGE


class Model:
    """The same table as plain Python: page -> what is known of it."""

    def __init__(self) -> None:
        self.pages: dict[int, tuple[Counter[int], list[int], float, float]] = {}

    def add(self, page: int, seconds: float, tid: int, cpu: int) -> None:
        if cpu not in NODE_OF_CPU:
            return
        weights, tids, first, last = self.pages.setdefault(page, (Counter(), [], seconds, seconds))
        tids.append(tid)
        for node in weights:
            weights[node] = weights[node] * 64225 >> 16
        weights[NODE_OF_CPU[cpu]] += 1024
        self.pages[page] = (weights, tids, first, max(last, seconds))

    def forget(self, before: float) -> int:
        gone = [page for page, known in self.pages.items() if known[3] < before]
        for page in gone:
            del self.pages[page]
        return len(gone)


ACCESS = st.tuples(st.integers(0, 45), st.integers(0, 40), st.integers(1, 3), st.integers(0, 6))
STEPS = st.lists(st.one_of(st.lists(ACCESS, max_size=40), st.integers(0, 40)), max_size=12)


@given(steps=STEPS, spread=st.sampled_from([1, 7, 512, 4096, 1 << 20]))
def test_a_table_holds_what_a_plain_one_does(steps: list[list[tuple[int, int, int, int]] | int], spread: int) -> None:
    table, model, taken = table_of(64), Model(), 0
    for step in steps:
        if isinstance(step, int):
            assert table.forget(step / 4) == model.forget(step / 4)
            continue
        table.add((at(page * spread), quarter / 4, tid, cpu) for page, quarter, tid, cpu in step)
        taken += len(step)
        for page, quarter, tid, cpu in step:
            model.add(page, quarter / 4, tid, cpu)
    totals = table.totals()
    assert (totals.pages, totals.taken, totals.lost_pages) == (len(model.pages), taken, 0)
    assert totals.counted + totals.unknown_cpus == taken
    for page in range(46):
        found = table.page(at(page * spread) + 5)
        if page not in model.pages:
            assert found is None
            continue
        weights, tids, first, last = model.pages[page]
        assert found is not None
        assert found.start == at(page * spread)
        assert found.samples == len(tids)
        assert found.weights == tuple((node, weights[node] / 1024) for node in sorted(weights) if weights[node])
        assert found.sole_thread == (tids[0] if len(set(tids)) == 1 else None)
        assert found.threads == len(set(tids))
        assert (found.first_seconds, found.last_seconds) == (first, last)
    table.close()


def test_the_weight_of_a_page_is_that_of_its_last_fifty_samples() -> None:
    table = table_of(4)
    table.add([(at(0), 1.0, 1, 0)] * 2000)
    (found,) = [known for known in [table.page(at(0))] if known]
    assert found.weights[0][1] == pytest.approx(50, abs=0.1)
    table.add([(at(0), 1.0, 1, 2)] * 35)
    (found,) = [known for known in [table.page(at(0))] if known]
    assert dict(found.weights) == pytest.approx({0: 50 * 0.98**35, 3: 50 * (1 - 0.98**35)}, abs=0.1)


def test_a_page_seen_very_often_keeps_the_highest_number_of_samples() -> None:
    table = table_of(4)
    for _ in range(7):
        table.add([(at(0), 1.0, 1, 0)] * 10_000)
    found = table.page(at(0))
    assert found is not None
    assert found.samples == 65535


@settings(max_examples=40)
@given(cells=st.integers(1, 40), pages=st.lists(st.integers(0, 120), max_size=400))
def test_a_full_table_gives_up_pages_and_counts_them(cells: int, pages: list[int]) -> None:
    table = table_of(cells)
    table.add((at(page), 1.0 + number / 16, 1, 0) for number, page in enumerate(pages))
    totals = table.totals()
    found = [known for known in map(table.page, map(at, range(121))) if known]
    assert len(found) == totals.pages <= cells
    assert sum(known.samples for known in found) + totals.lost_samples == len(pages) == totals.counted
    assert totals.lost_pages <= totals.lost_samples
    table.close()


def test_pages_seen_often_stay_when_many_others_come_by_once() -> None:
    table = table_of(2000)
    hot = range(0, 20_000, 200)
    choose = random.Random(1)  # noqa: S311 the same in every run
    for turn in range(200):
        cold = (at(1 + choose.randrange(10**6) * 2) for _ in range(200))
        table.add((address, float(turn), 1, 0) for address in [*map(at, hot), *cold])
    kept = [page for page in hot if (known := table.page(at(page))) is not None and known.samples > 150]
    assert len(kept) >= 97
    assert table.totals().lost_pages > 30_000
    assert table.totals().capacity_pages == 1500
    assert 1500 <= table.totals().pages <= 1505


def test_a_million_pages_have_room_where_they_are_said_to() -> None:
    pages = 1_000_000
    table = AccessTable(NODES, 43 * pages)
    assert table.totals().capacity_pages >= pages
    for first in range(0, pages, 100_000):
        table.add((at(page), 1.0, 1, 0) for page in range(first, first + 100_000))
    totals = table.totals()
    assert (totals.pages, totals.lost_pages, totals.counted) == (pages, 0, pages)
    judged = table.judge(JudgeRule())
    assert [(run.start, run.end, run.node) for run in judged.runs] == [
        (at(0), at(-(-pages // REGION_PAGES) * REGION_PAGES), 0)
    ]
    table.close()


def test_a_first_touch_makes_a_page_known_and_says_nothing_of_who_uses_it() -> None:
    table = table_of(16)
    table.add([(at(0), 1.0, 7, 0), (at(1), 1.0, 7, 0), (at(0), 2.0, 8, 2)], first_is_touch=True)
    assert (table.totals().touches, table.totals().counted) == (2, 1)
    used, touched = table.page(at(0)), table.page(at(1))
    assert used is not None
    assert touched is not None
    assert (used.weights, used.sole_thread) == (((3, 1.0),), 8)
    assert (touched.weights, touched.samples) == ((), 0)


def lower_bound(part: float, whole: float, z: float = 1.2816) -> float:
    """Wilson's, as Wikipedia writes it."""
    share = part / whole
    middle = share + z * z / (2 * whole)
    return (middle - z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole**2))) / (1 + z * z / whole)


def owner(table: AccessTable, page: int, rule: JudgeRule) -> int | None:
    known = table.page(at(page))
    if known is None or not known.weights:
        return None
    node, weight = max(known.weights, key=lambda pair: pair[1])
    whole = sum(each for _, each in known.weights)
    is_sole = len(known.weights) == 1 and known.sole_thread is not None and known.samples >= rule.sole_samples
    is_sure = known.samples >= rule.min_samples and lower_bound(weight, whole) > rule.min_share
    return node if is_sole or is_sure else None


def pages_of(runs: tuple[AccessRun, ...]) -> dict[int, int]:
    return {page: run.node for run in runs for page in range((run.start - BASE) // PAGE, (run.end - BASE) // PAGE)}


@given(
    accesses=st.lists(
        st.tuples(
            st.sampled_from([0, 2, 5, 6, 9, 511, 512, 513, 5000]), st.sampled_from([1, 1, 1, 2]), st.integers(0, 3)
        ),
        max_size=150,
    )
)
def test_each_page_is_judged_by_its_own_samples(accesses: list[tuple[int, int, int]]) -> None:
    table = table_of(64)
    table.add((at(page), 1.0, tid, cpu) for page, tid, cpu in accesses)
    judged = table.judge(BY_PAGE)
    known = sorted({page for page, _, _ in accesses})
    owners = {page: owner(table, page, BY_PAGE) for page in known}
    covered = pages_of(judged.runs)
    assert {page: covered.get(page) for page in known if owners[page] is not None} == {
        page: node for page, node in owners.items() if node is not None
    }
    assert (
        judged.judged_pages
        == sum(run.judged_pages for run in judged.runs)
        == len([page for page in owners.values() if page is not None])
    )
    assert judged.pages == len(known)
    starts = [(run.start, run.end) for run in judged.runs]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(starts))
    table.close()


@pytest.mark.parametrize(
    ("samples", "node"),
    [
        ([(1, 0)], None),  # one is chance
        ([(1, 0)] * 2, 0),
        ([(1, 2)] * 2, 3),
        ([(1, 0), (2, 0)], None),  # two threads
        ([(1, 0), (2, 0)] * 4, 0),  # of one node, eight times
        ([(1, 0), (1, 2)], None),
        ([(1, 0)] * 6 + [(2, 2)], None),  # 7
        ([(2, 2)] + [(1, 0)] * 7, 0),
        ([(1, 0), (2, 2)] * 40, None),
        ([(1, 0)] * 4 + [(2, 2)] * 3 + [(1, 0)] * 2, None),  # two thirds of 9 may be half
        (([(1, 0)] * 2 + [(2, 2)]) * 20, 0),  # but not of 60
        ([(1, 0)] * 200 + [(2, 2)] * 60, 3),  # what is long ago counts little
    ],
)
def test_a_page_belongs_to_a_node_by_this_evidence(samples: list[tuple[int, int]], node: int | None) -> None:
    table = table_of(8)
    table.add((at(3), 1.0, tid, cpu) for tid, cpu in samples)
    assert [(run.start, run.end, run.node) for run in table.judge(JudgeRule()).runs] == (
        [] if node is None else [(at(3), at(4), node)]
    )


MOVES_PER_1000 = {0.5: (0.02, 0.2), 0.6: (0.19, 0.23), 0.7: (0.19, 0.21), 0.8: (0.19, 0.21), 0.9: (0.19, 0.21)}
"""algorithms.md: .1/.2/.2/.2/.2, which is one move in 5,000 samples of a page that began on the wrong node."""


@pytest.mark.parametrize("share", MOVES_PER_1000)
def test_pages_used_by_two_nodes_move_as_seldom_as_planned(share: float) -> None:
    choose = random.Random(int(share * 10))  # noqa: S311 the same in every run
    table, moves = table_of(256), 0
    pages = range(0, 60 * REGION_PAGES, REGION_PAGES)
    where = dict.fromkeys(pages, 3)
    for turn in range(250):
        cpus = ((page, 0 if choose.random() < share else 2) for page in pages for _ in range(20))
        table.add((at(page), turn / 4, 1 + cpu, cpu) for page, cpu in cpus)
        for page, node in pages_of(table.judge(JudgeRule()).runs).items():
            moves += where[page] != node
            where[page] = node
    low, high = MOVES_PER_1000[share]
    assert low <= 1000 * moves / (250 * 20 * len(pages)) <= high
    table.close()


def spread(pages: range, cpu: int, times: int = 1, tid: int | None = None) -> list[Access]:
    return [(at(page), 1.0, tid or 10 + cpu, cpu) for page in pages for _ in range(times)]


def runs_of(*accesses: list[Access], rule: JudgeRule | None = None) -> list[tuple[int, int, int, bool]]:
    table = table_of(4096)
    for some in accesses:
        table.add(some)
    runs = table.judge(rule or JudgeRule()).runs
    return [((run.start - BASE) // PAGE, (run.end - BASE) // PAGE, run.node, run.is_mixed) for run in runs]


def test_a_region_that_agrees_is_judged_as_a_whole() -> None:
    assert runs_of(spread(range(3, 500, 20), 2)) == [(0, 512, 3, False)]  # though no page was seen twice


@pytest.mark.parametrize(
    "accesses",
    [
        spread(range(3, 500, 80), 2),  # 7 samples are too few
        spread(range(3, 243, 20), 2) + spread(range(4, 184, 20), 0),  # 12 to 9
    ],
)
def test_a_region_with_little_evidence_is_not_judged(accesses: list[Access]) -> None:
    assert runs_of(accesses) == []


def test_a_region_seen_at_few_pages_is_not_judged_by_them() -> None:
    assert runs_of(spread(range(7, 10), 2, times=5)) == [(7, 10, 3, False)]


def test_noise_does_not_keep_a_region_from_being_judged() -> None:
    noisy = spread(range(0, 512, 5), 2) + spread(range(1, 512, 50), 0)
    assert runs_of(noisy) == [(0, 512, 3, False)]


def test_one_page_of_another_owner_leaves_only_what_lies_between_pages_that_agree() -> None:
    first, second = spread(range(0, 300, 10), 2, times=2), spread(range(305, 306), 0, times=2)
    assert runs_of(first, second, spread(range(320, 400, 10), 2, times=2)) == [
        (0, 291, 3, False),
        (305, 306, 0, False),
        (320, 391, 3, False),
    ]


def test_a_single_sample_from_elsewhere_keeps_a_gap_open() -> None:
    accesses = spread(range(0, 30, 10), 2, times=2) + spread(range(15, 16), 0) + spread(range(25, 26), 2)
    assert runs_of(accesses, rule=BY_PAGE) == [(0, 11, 3, False), (20, 21, 3, False)]


@pytest.mark.parametrize(("of_other", "is_mixed"), [(100, False), (140, True), (256, True)])
def test_a_region_of_two_owners_is_mixed_from_three_tenths_on(of_other: int, is_mixed: bool) -> None:
    edge = 400 - of_other
    accesses = spread(range(edge), 2, times=2), spread(range(edge, 400), 3, times=2)
    assert runs_of(*accesses) == [(0, edge, 3, is_mixed), (edge, 400, 5, is_mixed)]


def test_runs_join_over_regions() -> None:
    accesses = spread(range(3, 1500, 20), 2), spread(range(1540, 2040, 20), 0)
    assert runs_of(*accesses) == [(0, 1536, 3, False), (1536, 2048, 0, False)]


def test_a_run_tells_its_weights_and_when_it_was_last_used() -> None:
    table = table_of(1024)
    table.add(spread(range(0, 512, 8), 2) + spread(range(4, 512, 128), 0))
    table.add([(at(0), 7.25, 12, 2)])
    (run,) = table.judge(JudgeRule()).runs
    assert (run.judged_pages, run.weight) == (1, run.node_weight + 4)
    assert run.node_weight == pytest.approx(64.98, abs=0.01)
    assert run.last_seconds == 7.25


def test_only_pages_accessed_since_a_time_are_judged() -> None:
    table = table_of(64)
    table.add([(at(0), 1.0, 1, 0)] * 2 + [(at(5), 9.0, 1, 0)] * 2)
    judged = table.judge(BY_PAGE, since_seconds=5.0)
    assert ([run.start for run in judged.runs], judged.pages) == ([at(5)], 1)


def test_what_does_not_fit_is_counted() -> None:
    table = table_of(4096)
    table.add(spread(range(0, 20 * REGION_PAGES, REGION_PAGES), 2, times=2))
    judged = table.judge(JudgeRule(), most_runs=15)
    assert (len(judged.runs), judged.missed_runs, judged.judged_pages) == (15, 5, 20)
    assert table.judge(JudgeRule(), most_runs=0).missed_runs == 20
    regions = table.regions(JudgeRule(), most_regions=3)
    assert (len(regions.regions), regions.missed_regions) == (3, 17)


def test_runs_and_regions_are_the_same_when_found_together() -> None:
    table = table_of(4096)
    table.add(spread(range(0, 20 * REGION_PAGES, REGION_PAGES), 2, times=2) + spread(range(600, 650, 2), 3, times=9))
    for most in (1, 100):
        runs, regions = table.judge_all(JudgeRule(), since_seconds=0.5, most_runs=most, most_regions=most)
        alone = table.judge(JudgeRule(), since_seconds=0.5, most_runs=most)
        assert (runs.runs, runs.missed_runs, runs.judged_pages) == (alone.runs, alone.missed_runs, alone.judged_pages)
        known = table.regions(JudgeRule(), since_seconds=0.5, most_regions=most)
        assert (regions.regions, regions.missed_regions) == (known.regions, known.missed_regions)
        assert runs.runs
        assert regions.regions


def test_regions_add_up_their_pages() -> None:
    table = table_of(4096)
    table.add(spread(range(0, 512, 10), 2) + spread(range(5, 512, 100), 0) + spread(range(600, 610), 3, times=2))
    whole, part = table.regions(JudgeRule()).regions
    assert (whole.start, whole.pages, whole.judged_pages, whole.node) == (at(0), 58, 0, 3)
    assert whole.weights == ((0, 6.0), (3, 52.0))
    assert (part.start, part.pages, part.judged_pages, part.node, part.is_mixed) == (at(512), 10, 10, 5, False)
    assert dict(part.weights) == {5: pytest.approx(19.8, abs=0.01)}


def test_a_table_of_nothing_judges_nothing() -> None:
    table = table_of(8)
    assert table.judge(JudgeRule()).runs == ()
    assert table.regions(JudgeRule()).regions == ()
    assert table.forget(100.0) == 0
    assert table.page(0) is None
    table.close()


def test_sixteen_nodes_are_told_apart_and_no_more() -> None:
    nodes = AccessNodes([(cpu, 4 * cpu) for cpu in range(16)])
    table = AccessTable(nodes, 4096)
    table.add([(at(0), 1.0, 1, cpu) for cpu in range(16)])
    found = table.page(at(0))
    assert found is not None
    assert [node for node, _ in found.weights] == list(range(0, 64, 4))
    for bad in ([], [(cpu, cpu) for cpu in range(17)]):
        with pytest.raises(ValueError, match="can be told apart"):
            AccessNodes(bad)


def test_arguments_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="no page has room in 31 bytes"):
        AccessTable(NODES, 31)
    with pytest.raises(OSError, match="Invalid argument"):
        table_of(4).judge(JudgeRule(min_samples=0))
    with pytest.raises(OverflowError):
        table_of(4).add([(-1, 1.0, 1, 0)])


def test_a_time_before_the_last_one_leaves_the_last_one() -> None:
    table = table_of(4)
    table.add([(at(0), 5.0, 1, 0), (at(0), 4.0, 1, 0)])
    found = table.page(at(0))
    assert found is not None
    assert (found.first_seconds, found.last_seconds) == (5.0, 5.0)


def test_what_is_added_to_a_copy_is_not_in_the_table_it_was_made_of() -> None:
    table = table_of(64)
    table.add([(at(1), 1.0, 7, 0)] * 3)
    copy = table.copy()
    copy.add([(at(1), 2.0, 7, 2), (at(2), 2.0, 7, 0)])
    before, after = table.page(at(1)), copy.page(at(1))
    assert before is not None
    assert after is not None
    assert (before.samples, after.samples, table.page(at(2))) == (3, 4, None)
    assert (table.totals().pages, copy.totals().pages) == (1, 2)
    table.close()
    assert copy.page(at(2)) is not None
    copy.close()


def test_a_table_in_use_is_put_on_huge_pages_once_and_holds_what_it_held() -> None:
    table = table_of(1 << 17)  # 4 MiB, so that a whole huge page lies inside
    few = round(GATHER_RATIO * table.totals().capacity_pages) - 1
    table.add((at(page), 1.0, 1 + page % 3, page % 4) for page in range(few))
    assert not table.gather()
    table.add((at(page), 1.0, 1 + page % 3, page % 4) for page in range(few, few + 2))
    before = [table.page(at(page)) for page in range(few + 2)]
    assert table.gather()
    assert not table.gather()
    assert [table.page(at(page)) for page in range(few + 2)] == before
    table.close()


@pytest.mark.parametrize("n_nodes", [1, 4, 5, 16])
def test_weights_fall_alike_on_machines_of_any_number_of_nodes(n_nodes: int) -> None:
    table = AccessTable(AccessNodes([(cpu, cpu) for cpu in range(n_nodes)]), 1 << 16)
    choose = random.Random(n_nodes)  # noqa: S311 the same in every run
    model = Counter[int]()
    for _ in range(300):
        cpu = choose.randrange(n_nodes)
        table.add([(at(0), 1.0, 1, cpu)])
        for node in model:
            model[node] = model[node] * 64225 >> 16
        model[cpu] += 1024
    found = table.page(at(0))
    assert found is not None
    assert found.weights == tuple((node, model[node] / 1024) for node in sorted(model) if model[node])
    table.close()
