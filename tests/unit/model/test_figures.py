"""What records work out of what they hold; what is not known stays so."""

from dataclasses import replace

import pytest

from balancerd.model.ids import NodeId
from balancerd.model.interval import Interval, wilson
from balancerd.model.machine import HugetlbPool, Link, Machine
from tests.unit.machine_reports import a_state
from tests.unit.reports import a_process, a_process_report, a_report, a_topology, a_workload_report


@pytest.mark.parametrize(
    ("share", "answers", "low", "high"),
    [
        (0.5, 0, 0.0, 1.0),
        (0.5, 100, 0.4038, 0.5962),
        (0.0, 10, 0.0, 0.2775),
        (1.0, 10, 0.7225, 1.0),
        (0.1, 50.5, 0.0436, 0.2129),
    ],
)
def test_the_interval_of_a_share_is_wilsons(share: float, answers: float, low: float, high: float) -> None:
    found = wilson(share, answers)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-4)
    assert found.low <= share <= found.high
    assert found.half_width == pytest.approx((high - low) / 2, abs=2e-4)


@pytest.mark.parametrize(("share", "answers"), [(-0.01, 5), (1.01, 5), (0.5, -1)])
def test_what_is_no_share_is_an_error(share: float, answers: float) -> None:
    with pytest.raises(ValueError, match="no share of answers"):
        wilson(share, answers)


def test_more_answers_tell_more() -> None:
    widths = [wilson(0.3, answers).half_width for answers in (0, 1, 10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert Interval(0.25, 0.25).half_width == 0


def test_distances_are_those_from_the_first_node_to_the_second() -> None:
    topology = a_topology(2)
    assert (topology.distance(NodeId(0), NodeId(0)), topology.distance(NodeId(0), NodeId(1))) == (10, 21)
    for pair in ((7, 0), (0, 7)):
        with pytest.raises(KeyError):
            topology.distance(*map(NodeId, pair))


@pytest.mark.parametrize("known", [None, "read_latency_seconds", "write_latency_seconds", "read_bytes_per_second"])
def test_a_link_is_known_when_any_figure_is(known: str | None) -> None:
    told = 0.0 if known is not None else None
    link = Link(
        read_latency_seconds=told if known == "read_latency_seconds" else None,
        write_latency_seconds=told if known == "write_latency_seconds" else None,
        read_bytes_per_second=told if known == "read_bytes_per_second" else None,
        write_bytes_per_second=None,
        initiators=frozenset(),
    )
    assert link.is_known is (known is not None)


@pytest.mark.parametrize(("total", "free", "in_use"), [(0, 0, False), (4, 4, False), (4, 3, True)])
def test_huge_pages_are_in_use_when_one_is_not_free(total: int, free: int, in_use: bool) -> None:
    pool = HugetlbPool(page_bytes=2 << 20, total_pages=total, free_pages=free)
    nodes = {NodeId(0): replace(a_state(0), hugetlb=()), NodeId(1): replace(a_state(1), hugetlb=(pool,))}
    assert Machine(nodes=nodes).is_hugetlb_in_use is in_use


def test_what_is_remote_of_a_process_and_of_a_workload() -> None:
    process = a_process()
    report = replace(a_process_report(process), local_ratio=0.25)
    assert report.remote_bytes == round(process.rss_bytes * 0.75)
    assert replace(report, local_ratio=None).remote_bytes is None
    workload = a_workload_report("a", local_ratio=None)
    assert (workload.local_ratio, workload.remote_bytes) == (None, None)
    known = replace(workload, judged_bytes=400, local_bytes=100)
    assert (known.local_ratio, known.remote_bytes) == (0.25, 300)


def test_the_share_of_a_core_that_observing_used_needs_an_interval() -> None:
    report = a_report()
    used = replace(report, scan_cpu_seconds=0.5, survey=replace(report.survey, interval_seconds=2.0))
    assert used.scan_cores == 0.25
    assert replace(used, survey=replace(report.survey, interval_seconds=None)).scan_cores is None
