"""Counters worked out by hand: CPU 0 is on node 0, from where the others are 12, 21 and 31 away; CPU 4 is on node 3."""

import pytest

from tests.bench.locality import figures
from tests.bench.locality.figures import Point, late_rate, lost_seconds, seconds_to_close, thinned
from tests.unit.bench.counted import KERNEL, USER, By, counters, points, reading

Lines = tuple[int, int, int, int]
NONE: Lines = (0, 0, 0, 0)


def run(*, begin: By | None = None, late: By | None = None, done: By | None = None) -> figures.Figures:
    return figures.figures(
        counters(
            reading("mark", 1, 5.0, begin or {}),
            reading("mark", 2, 80.0, late or {}),
            reading("mark", 3, 105.5, done or {}),
        )
    )


def test_a_cost_is_the_sum_of_accesses_times_distance_over_ten_apart_for_workload_own_code_and_kernel() -> None:
    found = run(
        begin={(0, USER): (1000, (7, 7, 7, 7), NONE), (4, USER): (9, (5, 0, 0, 0), NONE)},
        done={
            (0, USER): (5000, (107, 7, 57, 7), (0, 0, 0, 10)),  # 100 x 1 + 50 x 2.1 + 10 x 3.1
            (3, USER): (600, (0, 10, 0, 0), NONE),  # 10 x 2.1
            (4, USER): (19, (15, 0, 0, 0), NONE),  # 10 x 3.1
            (1, KERNEL): (40, (0, 10, 0, 0), NONE),  # 10
            (4, KERNEL): (40, (0, 0, 20, 0), (20, 0, 0, 0)),  # 20 x 1.2 + 20 x 3.1
        },
    )
    assert found.seconds == 100.5
    assert found.accesses == 170
    assert found.workload_cost == pytest.approx(257)
    assert found.own_cost == pytest.approx(31)
    assert found.kernel_cost == pytest.approx(96)
    assert found.memory_time == pytest.approx(384)
    assert found.time_without_own == pytest.approx(353)
    assert found.cost_per_access == pytest.approx(257 / 170)
    assert found.remote_ratio == pytest.approx(70 / 170)


@pytest.mark.parametrize(
    ("late", "done", "whole", "last_quarter"),
    [
        pytest.param((0, 30, 0, 0), (10, 30, 0, 0), 0.75, 0.0, id="all local in the end"),
        pytest.param((30, 0, 0, 0), (30, 10, 0, 0), 0.25, 1.0, id="all remote in the end"),
        pytest.param((30, 10, 0, 0), (30, 10, 0, 0), 0.25, None, id="nothing in the end"),
        pytest.param(NONE, NONE, None, None, id="nothing at all"),
    ],
)
def test_the_remote_share_is_told_of_the_whole_and_of_the_last_quarter(
    late: Lines, done: Lines, whole: float | None, last_quarter: float | None
) -> None:
    found = run(late={(0, USER): (0, late, NONE)}, done={(0, USER): (0, done, NONE)})
    assert found.remote_ratio == whole
    assert found.last_quarter_remote_ratio == last_quarter


def test_neither_the_kernels_accesses_nor_those_on_the_house_keeper_are_in_the_remote_share() -> None:
    far = (50, 0, 0, 0)
    found = run(done={(0, USER): (0, (10, 0, 0, 0), NONE), (4, USER): (0, far, NONE), (3, KERNEL): (0, far, NONE)})
    assert found.remote_ratio == 0


@pytest.mark.parametrize(
    ("by_cpu", "balance"),
    [((10, 10, 10, 10), 1), ((40, 0, 0, 0), 4), ((30, 10, 20, 20), 1.5), ((0, 0, 0, 0), None)],
)
def test_balance_is_the_busiest_workload_cpu_over_the_mean(by_cpu: Lines, balance: float | None) -> None:
    done: By = {(cpu, USER): (n, NONE, NONE) for cpu, n in enumerate(by_cpu)}
    assert run(done={**done, (4, USER): (1000, NONE, NONE)}).balance_ratio == balance


def test_a_marker_that_was_never_executed_is_named() -> None:
    with pytest.raises(ValueError, match="marker 3 was never executed"):
        figures.figures(counters(reading("mark", 1, 1.0, {}), reading("mark", 2, 2.0, {})))


def test_the_series_goes_from_the_first_marker_to_the_last_and_adds_up_to_their_difference() -> None:
    def at(n: int) -> By:
        return {(2, USER): (0, (n, 0, 10 * n, 0), NONE)}

    counted = counters(
        reading("tick", 0, 0.5, at(100)),
        reading("mark", 1, 0.75, at(110)),
        reading("tick", 0, 1.0, at(120)),
        reading("mark", 2, 1.25, at(125)),
        reading("tick", 0, 1.5, at(130)),
        reading("mark", 3, 1.75, at(170)),
        reading("tick", 0, 2.0, at(500)),
        reading("exit", 0, 2.1, at(600)),
    )
    found = figures.series(counted)
    assert [point.seconds for point in found] == [0.25, 0.75, 1.0]
    assert [point.accesses for point in found] == [110, 110, 440]
    assert [point.remote for point in found] == [10, 10, 40]
    whole = figures.figures(counted)
    assert sum(point.cost for point in found) == pytest.approx(whole.workload_cost)


@pytest.mark.parametrize(("n", "at_most", "left"), [(3, 3, 3), (4, 3, 2), (10, 3, 3), (1, 3, 1), (0, 3, 0)])
def test_thinning_joins_neighbours_and_loses_no_access(n: int, at_most: int, left: int) -> None:
    found = thinned(points(*((i + 1.0, 1.5) for i in range(n))), at_most)
    assert len(found) == left
    assert sum(point.accesses for point in found) == 100 * n
    assert sum(point.cost for point in found) == 150.0 * n
    assert [point.seconds for point in found][-1:] == ([float(n)] if n else [])


# nothing costs 2.1, bound 1.1: the ceiling is 1.2; windows hold 2 s
@pytest.mark.parametrize(
    ("course", "seconds"),
    [
        pytest.param([(1, 1.1), (2, 1.2), (3, 1.0)], 0.0, id="at once"),
        pytest.param([(1, 2.1), (2, 2.1), (3, 2.1)], None, id="never"),
        pytest.param([(1, 2.1), (2, 1.1), (3, 1.1), (4, 1.1)], 3.0, id="when the window has left the last bad second"),
        pytest.param([(1, 2.1), (2, 2.1), (4, 1.1), (6, 1.1)], 4.0, id="points longer than half a window"),
        pytest.param([(3, 2.1), (6, 1.1), (9, 1.1)], 6.0, id="points longer than a window"),
        pytest.param([(1, 2.1), (3, 1.1), (5, 2.1), (7, 1.1), (9, 1.1)], 7.0, id="again, after a relapse"),
        pytest.param([(1, 2.1), (3, 1.1), (5, 2.1)], None, id="a relapse at the end"),
        pytest.param([(2, 1.1), (4, 2.1), (6, 1.1)], 6.0, id="good at first, then bad"),
        pytest.param([(2, 2.1), (4, 1.21)], None, id="not far enough"),
        pytest.param([], None, id="nothing seen"),
    ],
)
def test_t90_is_when_the_cost_of_an_access_has_come_down_for_good(
    course: list[tuple[float, float]], seconds: float | None
) -> None:
    assert seconds_to_close(points(*course), nothing=2.1, bound=1.1) == seconds


def test_a_window_in_which_nothing_was_accessed_says_nothing_of_t90() -> None:
    idle = Point(seconds=6.0, accesses=0, remote=0, cost=0.0)
    bad, good = points((2.0, 2.1), (9.0, 1.1))
    assert seconds_to_close([bad, idle, good], nothing=2.1, bound=1.1) == 9.0
    assert seconds_to_close([bad, idle], nothing=2.1, bound=1.1) is None
    assert seconds_to_close([idle], nothing=2.1, bound=1.1) is None


def paced(*course: tuple[float, int]) -> list[Point]:
    """Points by when they ended and what was accessed."""
    return [Point(seconds=seconds, accesses=n, remote=0, cost=0.0) for seconds, n in course]


@pytest.mark.parametrize(
    ("course", "lost"),
    [
        pytest.param([(1, 100), (2, 100), (3, 100)], 0.0, id="even"),
        pytest.param([(1, 100), (2, 25), (3, 100)], 0.75, id="a quarter of the usual for a second"),
        pytest.param([(1, 100), (2, 0), (3, 0), (4, 100), (5, 100)], 2.0, id="nothing for two"),
        pytest.param([(1, 100), (2, 75), (3, 100)], 0.0, id="a little less is the host's doing"),
        pytest.param([(1, 100), (3, 100), (4, 100)], 1.0, id="half the rate in a longer stretch"),
        pytest.param([(1, 0), (2, 0), (3, 100)], 0.0, id="no usual rate"),
        pytest.param([(1, 100), (1, 0), (2, 100)], 0.0, id="a stretch of no length"),
        pytest.param([], 0.0, id="nothing seen"),
    ],
)
def test_seconds_are_lost_where_much_less_was_done_than_usual(course: list[tuple[float, int]], lost: float) -> None:
    assert lost_seconds(paced(*course)) == pytest.approx(lost)


@pytest.mark.parametrize(
    ("ends", "rate"),
    [
        pytest.param([1, 2, 3, 4], 100.0, id="a hundred each second"),
        pytest.param([1, 2, 3, 3.5, 4], 200.0, id="twice as many in the last quarter"),
        pytest.param([1, 6, 8], 50.0, id="what ended at three quarters is early"),
        pytest.param([1, 7, 8], 200 / 7, id="what reaches into the last quarter is late"),
        pytest.param([4], 25.0, id="a single point"),
        pytest.param([], None, id="nothing seen"),
    ],
)
def test_the_late_rate_is_that_of_the_points_that_end_in_the_last_quarter(
    ends: list[float], rate: float | None
) -> None:
    assert late_rate(points(*((end, 1.0) for end in ends))) == rate
