"""What a scrape shows of workloads and of what observing costs: bounded, without flapping, and never half known."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from balancerd.metrics import Metrics
from balancerd.metrics.workloads import ENTER, LEAVE, LONGEST_LABEL_BYTES, OTHER, Largest, label
from balancerd.model.ids import ProcessId
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.report import WorkloadReport
from tests.unit.reports import MIB, a_placement, a_report, a_topology, a_workload_report


def scrape(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by label values in the order of the labels' names, by metric; each series is there once."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render()[1].decode()):
        for sample in family.samples:
            series = found.setdefault(sample.name.removeprefix("balancerd_"), {})
            key = tuple(value for _, value in sorted(sample.labels.items()))
            assert key not in series, f"{sample.name} has {key} twice"
            series[key] = sample.value
    return found


def scraped(*workloads: WorkloadReport, metrics: Metrics | None = None) -> dict[str, dict[tuple[str, ...], float]]:
    """One tick and a scrape, on a machine whose node 2 has no CPUs."""
    metrics = metrics or Metrics(version="1")
    metrics.emit(a_report(workloads=workloads, topology=a_topology(3, memory_only={2})))
    return scrape(metrics)


def sized(sizes: Iterable[tuple[str, int]]) -> list[WorkloadReport]:
    return [a_workload_report(name, rss_bytes=size) for name, size in sizes]


def test_a_workload_is_told_by_node_with_a_zero_where_it_could_be() -> None:
    half = a_workload_report("a", rss_bytes=8 * MIB, bytes_by_node={0: 2 * MIB, 2: 6 * MIB}, cores_by_node={1: 0.5})
    told = scraped(half)
    assert told["workloads"] == {(): 1}
    assert told["workload_resident_bytes"] == {("0", "a"): 2 * MIB, ("1", "a"): 0, ("2", "a"): 6 * MIB}
    assert told["workload_cpu_cores"] == {("0", "a"): 0, ("1", "a"): 0.5}
    assert told["workload_locality_ratio"] == {("a",): 0.25}


def test_what_is_not_known_of_a_workload_has_no_series() -> None:
    told = scraped(a_workload_report("a", bytes_by_node={}, cores_by_node={}, local_ratio=None))
    assert told["workloads"] == {(): 1}
    assert not {"workload_resident_bytes", "workload_cpu_cores", "workload_locality_ratio"} & told.keys()


def test_a_workload_that_is_gone_has_no_series_any_more() -> None:
    metrics = Metrics(version="1")
    assert ("a",) in scraped(a_workload_report("a"), metrics=metrics)["workload_locality_ratio"]
    assert list(scraped(a_workload_report("b"), metrics=metrics)["workload_locality_ratio"]) == [("b",)]


def test_what_is_not_among_the_largest_is_told_as_one_weighted_by_memory() -> None:
    large = sized((f"large{n}", (1000 + n) * MIB) for n in range(ENTER))
    small = (
        a_workload_report("small", rss_bytes=3 * MIB, local_ratio=1.0),
        a_workload_report("tiny", rss_bytes=MIB, local_ratio=0.0, cores_by_node={0: 0.5, 1: 2.0}),
        a_workload_report("dark", rss_bytes=2 * MIB, local_ratio=None, bytes_by_node={}, cores_by_node={}),
    )
    told = scraped(*large, *small)
    assert told["workloads"] == {(): ENTER + 3}
    assert told["workload_resident_bytes"]["1", OTHER] == 4 * MIB
    assert told["workload_cpu_cores"]["0", OTHER] == 2.0
    assert told["workload_cpu_cores"]["1", OTHER] == 2.0
    assert told["workload_locality_ratio"][OTHER,] == 0.75
    assert {name for (name,) in told["workload_locality_ratio"]} == {OTHER, *(f"large{n}" for n in range(ENTER))}


def test_a_workload_called_other_is_one_of_the_others_however_large() -> None:
    named = sized((f"w{n}", MIB) for n in range(ENTER))
    told = scraped(a_workload_report(OTHER, rss_bytes=9000 * MIB), *named)
    assert told["workload_resident_bytes"]["1", OTHER] == 9000 * MIB
    assert len(told["workload_locality_ratio"]) == ENTER + 1


def test_two_workloads_that_take_turns_at_the_edge_keep_their_series() -> None:
    largest = Largest()
    rest = [(f"w{n:02}", 1000 - n) for n in range(ENTER - 1)]
    largest.rank(sized([*rest, ("a", 100), ("b", 90)]))
    assert "a" in largest.names
    assert "b" not in largest.names
    for turn in range(6):
        largest.rank(sized([*rest, ("a", 100 - turn % 2 * 20), ("b", 90)]))
        assert {"a", "b"} & largest.names == ({"a"} if turn == 0 else {"a", "b"})


def test_a_workload_leaves_when_it_has_fallen_below_the_last_place_that_keeps() -> None:
    largest = Largest()
    crowd = [(f"w{n:03}", 2 * (1000 - n)) for n in range(200)]
    largest.rank(sized([("a", 3000), *crowd]))
    for place, stays in ((ENTER, True), (LEAVE - 1, True), (LEAVE, False), (ENTER, False), (ENTER - 1, True)):
        largest.rank(sized([*crowd, ("a", 2 * (1000 - place) + 1)]))  # so many are larger
        assert ("a" in largest.names) is stays, place


@given(st.lists(st.dictionaries(st.integers(0, 150), st.integers(0, 100), min_size=1), max_size=6))
def test_there_are_never_too_many_series_and_the_largest_are_always_among_them(ticks: list[dict[int, int]]) -> None:
    largest = Largest()
    for tick in ticks:
        reports = sized((f"w{n:03}", size) for n, size in tick.items())
        before = largest.names
        largest.rank(reports)
        ranked = [r.workload.name for r in sorted(reports, key=lambda r: (-r.rss_bytes, r.workload.name))]
        assert set(ranked[:ENTER]) <= largest.names <= set(ranked[:LEAVE])
        assert largest.names - set(ranked[:ENTER]) <= before


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nginx.service", "nginx.service"),
        ("ns/pod/c é 東", "ns/pod/c é 東"),
        ("a\nb\x1b[31m\u202e", "a?b?[31m?"),
        ("\udcff.service", "?.service"),
        ("x" * 300, "x" * LONGEST_LABEL_BYTES),
        ("é" * 300, "é" * (LONGEST_LABEL_BYTES // 2)),
        ("x" + "東" * 300, "x" + "東" * ((LONGEST_LABEL_BYTES - 1) // 3)),
        ("", OTHER),
    ],
)
def test_a_label_is_one_short_printable_text(name: str, shown: str) -> None:
    assert label(name) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_any_name_makes_a_label_that_can_be_scraped(name: str) -> None:
    assert len(label(name).encode()) <= LONGEST_LABEL_BYTES
    assert label(name).isprintable()
    assert scraped(a_workload_report(name))["workload_locality_ratio"] == {(label(name),): 0.25}


def test_names_that_are_the_same_after_cutting_are_one_series() -> None:
    long = "x" * LONGEST_LABEL_BYTES
    told = scraped(a_workload_report(f"{long}1", rss_bytes=MIB), a_workload_report(f"{long}2", rss_bytes=2 * MIB))
    assert told["workload_resident_bytes"]["1", long] == 3 * MIB


def test_the_worst_machine_stays_below_twelve_hundred_series_at_eight_nodes() -> None:
    metrics = Metrics(version="1")
    nodes = dict.fromkeys(range(8), MIB)
    for shift in (0, 20):  # ten of the first round stay beyond the fiftieth place
        metrics.emit(
            a_report(
                workloads=[
                    a_workload_report(
                        f"w{n:03}",
                        rss_bytes=(1000 - n if n >= shift else 1000 - n - 55) * MIB,
                        bytes_by_node=nodes,
                        cores_by_node=dict.fromkeys(range(8), 1.0),
                    )
                    for n in range(300)
                ],
                topology=a_topology(8),
            )
        )
    series = sum(len(values) for name, values in scrape(metrics).items() if name.startswith("workload"))
    assert 1 + 17 * (ENTER + 1) < series <= 1 + 17 * (LEAVE + 1) < 1200


def test_what_observing_cost_adds_up() -> None:
    metrics = Metrics(version="1")
    sampled = a_placement(ProcessId(1, 1))
    mapped = replace(a_placement(ProcessId(2, 1)), method=PlacementMethod.NUMA_MAPS, queried_pages=0)
    report = a_report()
    survey = replace(report.survey, read_processes=12, unreadable_processes=2)
    ticked = replace(report, survey=survey, sampled=(sampled, sampled, mapped), scan_cpu_seconds=0.25)
    for _ in range(2):
        metrics.emit(ticked)
    told = scrape(metrics)
    assert told["survey_processes_read_total"] == {(): 24}
    assert told["placements_total"] == {("sample",): 4, ("numa-maps",): 2, ("test",): 0, ("every-page",): 0}
    assert told["sample_pages_total"] == {(): 4 * 2048}
    assert told["scan_cpu_seconds_total"] == {(): 0.5}
    assert told["source_errors_total"]["unreadable", "survey"] == 4
    assert "scan_budget_ratio" not in told
    metrics.emit(replace(ticked, scan_budget_ratio=0.5))
    assert scrape(metrics)["scan_budget_ratio"] == {(): 0.5}
