import math

import pytest

from tests.bench.locality import compare, verdicts
from tests.bench.locality.compare import Comparison, Spread, spread
from tests.bench.locality.record import Boot
from tests.unit.bench.counted import boot, points


def only(*boots: Boot) -> Comparison:
    (comparison,) = compare.compare(boots)
    return comparison


def median(found: Spread | None) -> float:
    assert found is not None
    return found.median


def test_a_spread_is_the_median_and_range_of_what_is_known() -> None:
    assert spread([3, None, 1, 8]) == Spread(median=3, low=1, high=8, n=3)
    assert spread([None]) is None


def test_times_are_relative_to_the_median_of_bound_and_told_with_and_without_the_balancers_own_code() -> None:
    found = only(
        boot("bound", 1, workload_cost=90.0, own_cost=10.0),
        boot("bound", 2, workload_cost=120.0),
        boot("bound", 3, workload_cost=90.0),
        boot("balancerd", 1, workload_cost=100.0, own_cost=30.0, kernel_cost=20.0),
        boot("balancerd", 2, workload_cost=100.0, own_cost=0.0, kernel_cost=25.0),
    )
    ours = found.cells["balancerd"]
    assert ours.to_bound == Spread(median=1.375, low=1.25, high=1.5, n=2)
    assert ours.to_bound_without_own == Spread(median=1.225, low=1.2, high=1.25, n=2)


def test_the_gap_is_closed_in_what_the_workloads_accesses_cost_and_apart_from_that_in_all_time() -> None:
    found = only(
        boot("nothing", workload_cost=200.0),
        boot("bound", workload_cost=100.0),
        boot("kernel", workload_cost=120.0, kernel_cost=30.0, own_cost=10.0),
    )
    assert median(found.cells["kernel"].closed_ratio) == pytest.approx(0.8)
    assert median(found.cells["kernel"].closed_time_ratio) == pytest.approx(0.4)
    assert median(found.cells["kernel"].kernel_to_bound) == pytest.approx(0.3)
    assert median(found.cells["nothing"].closed_ratio) == 0
    assert median(found.cells["bound"].closed_ratio) == 1


def test_without_a_gap_nothing_is_closed_and_never_was() -> None:
    series = points((2.0, 1.0))
    found = only(
        boot("nothing", workload_cost=101.0, series=series), boot("bound", series=series), boot("numad", series=series)
    )
    assert found.cells["numad"].closed_ratio is None
    assert found.cells["numad"].closed_seconds is None
    assert found.cells["numad"].to_bound is not None


@pytest.mark.parametrize("missing", ["nothing", "bound"])
def test_without_nothing_or_bound_a_figure_relative_to_them_is_unknown(missing: str) -> None:
    found = only(boot("bound" if missing == "nothing" else "nothing", workload_cost=150.0), boot("kernel"))
    kernel = found.cells["kernel"]
    assert (kernel.to_bound is None) == (missing == "bound")
    assert kernel.closed_ratio is None
    assert kernel.closed_seconds is None
    assert kernel.kernel_to_bound is None


def test_a_gap_that_is_closed_in_most_boots_has_a_median_and_the_longest_is_never() -> None:
    ends = (boot("nothing", workload_cost=200.0), boot("bound"))
    good, bad = points((2.0, 2.0), (4.0, 1.0)), points((2.0, 2.0))
    found = only(*ends, *(boot("numad", n, series=series) for n, series in enumerate((good, bad, good), 1)))
    assert found.cells["numad"].closed_seconds == Spread(median=4.0, low=4.0, high=math.inf, n=3)


def test_the_stall_tail_is_that_of_the_thread_that_fares_worst() -> None:
    gaps = {
        "a": {"n": 9, "p999_ns": 5, "longest_ns": 60},
        "b": {"n": 9, "p999_ns": 7, "longest_ns": 50},
    }
    cell = only(boot("kernel", result={"gaps": gaps})).cells["kernel"]
    assert median(cell.p999_ns) == 7
    assert median(cell.longest_ns) == 60
    assert only(boot("kernel")).cells["kernel"].p999_ns is None


def test_boots_with_other_work_compare_with_none_and_are_named() -> None:
    short = boot("balancerd", 2, work=500)
    found = only(boot("nothing"), boot("balancerd"), short)
    assert found.work == 1000
    assert found.left_out == (short,)
    assert len(found.cells["balancerd"].boots) == 1


def test_rivals_come_in_their_order_and_misplaced_workloads_first() -> None:
    found = compare.compare(
        [
            boot("bound", workload="b"),
            boot("zeta", workload="b"),
            boot("nothing", workload="b"),
            boot("nothing", workload="a", is_misplaced=False),
        ]
    )
    assert [it.workload for it in found] == ["b", "a"]
    assert list(found[0].cells) == ["nothing", "bound", "zeta"]


STALLS = {"gaps": {"t": {"n": 9, "p999_ns": 100, "longest_ns": 1000}}}
SHORTER = {"gaps": {"t": {"n": 9, "p999_ns": 90, "longest_ns": 1001}}}
MOVED = {"daemon": {"cpu_seconds": 1.0, "moves": [{"pid": 7}], "lines": []}}
IDLE = {"daemon": {"cpu_seconds": 1.0, "moves": [], "lines": []}}
(
    COSTS_NOTHING,
    NEAR_BOUND,
    BELOW_NUMAD,
    CLOSES,
    AS_GOOD_AS_KERNEL,
    CLEARLY_BELOW_KERNEL,
    SHORTER_P999,
    SHORTER_LONGEST,
    ADDS_NOTHING,
    NUMAD_MOVED,
) = range(10)


@pytest.mark.parametrize(
    ("number", "boots", "holds"),
    [
        pytest.param(COSTS_NOTHING, [boot("nothing"), boot("balancerd", own_cost=1.0)], True, id="a hundredth more"),
        pytest.param(COSTS_NOTHING, [boot("nothing"), boot("balancerd", own_cost=1.1)], False, id="more than that"),
        pytest.param(COSTS_NOTHING, [boot("nothing")], None, id="without ours"),
        pytest.param(NEAR_BOUND, [boot("bound"), boot("balancerd", kernel_cost=5.0)], True, id="near bound"),
        pytest.param(NEAR_BOUND, [boot("bound"), boot("balancerd", kernel_cost=5.1)], False, id="not near bound"),
        pytest.param(
            NEAR_BOUND, [boot("bound"), boot("balancerd", kernel_cost=5.1, seconds=90.0)], None, id="too short to tell"
        ),
        pytest.param(
            NEAR_BOUND,
            [boot("bound", stays_seconds=60), boot("balancerd", kernel_cost=5.1, stays_seconds=60)],
            None,
            id="moved too soon to tell",
        ),
        pytest.param(
            NEAR_BOUND,
            [boot("bound", stays_seconds=300), boot("balancerd", kernel_cost=5.1, stays_seconds=300)],
            False,
            id="moved late enough to tell",
        ),
        pytest.param(
            NEAR_BOUND, [boot("bound"), boot("balancerd", kernel_cost=5.0, seconds=90.0)], True, id="short and near"
        ),
        pytest.param(BELOW_NUMAD, [boot("numad"), boot("balancerd")], False, id="as numad"),
        pytest.param(BELOW_NUMAD, [boot("numad", kernel_cost=0.1), boot("balancerd")], True, id="below numad"),
        pytest.param(
            CLOSES, [boot("nothing", workload_cost=200.0), boot("bound"), boot("balancerd", workload_cost=109.0)], True
        ),
        pytest.param(
            CLOSES, [boot("nothing", workload_cost=200.0), boot("bound"), boot("balancerd", workload_cost=111.0)], False
        ),
        pytest.param(CLOSES, [boot("nothing"), boot("bound"), boot("balancerd")], None, id="no gap"),
        pytest.param(SHORTER_P999, [boot("kernel", result=STALLS), boot("balancerd", result=SHORTER)], True),
        pytest.param(SHORTER_LONGEST, [boot("kernel", result=STALLS), boot("balancerd", result=SHORTER)], False),
        pytest.param(SHORTER_P999, [boot("kernel"), boot("balancerd")], None, id="no gaps told"),
        pytest.param(ADDS_NOTHING, [boot("kernel"), boot("balancerd+kernel", own_cost=1.0)], True),
        pytest.param(ADDS_NOTHING, [boot("kernel"), boot("balancerd+kernel", own_cost=1.1)], False),
        pytest.param(NUMAD_MOVED, [boot("numad", result=MOVED), boot("numad", 2, result=MOVED)], True),
        pytest.param(NUMAD_MOVED, [boot("numad", result=MOVED), boot("numad", 2, result=IDLE)], False),
    ],
)
def test_a_requirement_holds_fails_or_is_unknown(number: int, boots: list[Boot], holds: bool | None) -> None:
    verdict = verdicts.verdicts([only(*boots)])[number]
    assert verdict.outcomes["single"].holds is holds
    assert verdict.holds is holds


@pytest.mark.parametrize(
    ("number", "kernel_seconds", "ours_seconds", "told"),
    [
        pytest.param(SHORTER_P999, 10.0, 10.0, (True, "0.900"), id="shorter on the same host"),
        pytest.param(SHORTER_P999, 12.5, 10.0, (True, "0.900"), id="shorter, the kernel's host nearly as fast"),
        pytest.param(SHORTER_P999, 13.0, 10.0, (None, "0.900 (kernel 1.3 times slower)"), id="doubtful"),
        pytest.param(SHORTER_P999, 10.0, 20.0, (True, "0.900"), id="shorter in spite of a slower host"),
        pytest.param(SHORTER_LONGEST, 10.0, 12.5, (False, "1.001"), id="longer, our host nearly as fast"),
        pytest.param(SHORTER_LONGEST, 10.0, 20.0, (None, "1.001 (balancerd 2.0 times slower)"), id="doubtfully longer"),
        pytest.param(SHORTER_LONGEST, 20.0, 10.0, (False, "1.001"), id="longer in spite of a faster host"),
    ],
)
def test_gaps_are_not_judged_where_a_slower_host_may_have_lengthened_them(
    number: int, kernel_seconds: float, ours_seconds: float, told: tuple[bool | None, str]
) -> None:
    found = only(
        boot("kernel", result=STALLS, series=points((kernel_seconds, 1.0))),
        boot("balancerd", result=SHORTER, series=points((ours_seconds, 1.0))),
    )
    outcome = verdicts.verdicts([found])[number].outcomes["single"]
    assert (outcome.holds, outcome.told) == told


@pytest.mark.parametrize(
    ("kernel_cost", "ours_cost", "as_good", "clearly_below"),
    [
        pytest.param(105.0, 107.0, True, None, id="the kernel does well, and we as well"),
        pytest.param(105.0, 108.0, False, None, id="the kernel does better"),
        pytest.param(150.0, 142.0, None, True, id="the kernel falls short, and we are clearly below"),
        pytest.param(150.0, 143.0, None, False, id="the kernel falls short, and we, too"),
    ],
)
def test_ours_must_be_as_good_as_the_kernel_or_clearly_below_where_that_falls_short(
    kernel_cost: float, ours_cost: float, as_good: bool | None, clearly_below: bool | None
) -> None:
    found = only(
        boot("nothing", workload_cost=200.0),
        boot("bound"),
        boot("kernel", workload_cost=kernel_cost),
        boot("balancerd", workload_cost=ours_cost),
    )
    told = verdicts.verdicts([found])
    assert told[AS_GOOD_AS_KERNEL].holds is as_good
    assert told[CLEARLY_BELOW_KERNEL].holds is clearly_below


def test_a_requirement_that_fails_on_one_workload_fails() -> None:
    found = compare.compare(
        [
            boot("nothing"),
            boot("balancerd"),
            boot("nothing", workload="storm", is_misplaced=False),
            boot("balancerd", workload="storm", is_misplaced=False, own_cost=2.0),
            boot("nothing", workload="parts"),
        ]
    )
    verdict = verdicts.verdicts(found)[COSTS_NOTHING]
    assert {name: outcome.holds for name, outcome in verdict.outcomes.items()} == {
        "single": True,
        "storm": False,
        "parts": None,
    }
    assert verdict.holds is False
    assert "storm" not in verdicts.verdicts(found)[NEAR_BOUND].outcomes


def test_with_the_policy_access_a_workload_is_judged_once_more_but_not_its_rivals() -> None:
    found = only(
        boot("nothing", workload_cost=200.0),
        boot("bound"),
        boot("numad", workload_cost=150.0, result=MOVED),
        boot("balancerd", workload_cost=200.0),
        boot("balancerd+access", workload_cost=104.0),
    )
    told = verdicts.verdicts([found])
    assert {name: it.holds for name, it in told[NEAR_BOUND].outcomes.items()} == {
        "single": False,
        "single with access": True,
    }
    assert told[COSTS_NOTHING].outcomes["single with access"].told == "0.520"
    assert set(told[ADDS_NOTHING].outcomes) == set(told[NUMAD_MOVED].outcomes) == {"single"}


def quick(nothing: float, ours: float, bound: float) -> tuple[str, ...]:
    return verdicts.quick_faults(
        [
            only(
                boot("nothing", last_quarter_remote_ratio=nothing),
                boot("balancerd", last_quarter_remote_ratio=ours),
                boot("bound", last_quarter_remote_ratio=bound),
            )
        ]
    )


def test_a_quick_check_names_who_is_not_in_its_band() -> None:
    assert quick(0.9, 0.01, 0.0) == ()
    assert quick(0.4, 0.05, 0.06) == (
        "single under nothing: 40.0% remote in the last quarter, not more than 40%",
        "single under balancerd: 5.0% remote in the last quarter, not less than 5%",
        "single under bound: 6.0% remote in the last quarter, not less than 5%",
    )
    assert verdicts.quick_faults([only(boot("nothing", last_quarter_remote_ratio=0.9))]) == (
        "single under balancerd: not measured",
        "single under bound: not measured",
    )
