"""ps by workload, bars, and what explain says of workload, method and intervals: text, JSON, exit codes."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.cli import bars, ps_workloads, words
from balancerd.cli.explain import _interval
from balancerd.cli.ps import SORT_KEYS
from balancerd.control import workload_api
from balancerd.control.state import ControlState
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId
from balancerd.model.interval import Interval
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.report import TickReport
from balancerd.model.workload import WorkloadKind
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED, a_crowd, answers
from tests.unit.reports import GIB, MIB, a_placement, a_process, a_process_report, a_report, a_workload_report

TABLE = """\
WORKLOAD        KIND   PROCS     RSS   CPU  NODE 0  NODE 1  KNOWN  RUNS ON      LOCAL  MOVES
web.service     unit       2    3GiB  2.00    1GiB    2GiB  exact  0:75% 1:25%    25%  1 moving, 1 cooldown, 12MiB to go
batch/job/main  pod        1  512MiB  1.50      0B  128MiB    25%  0              75%
other           other      2    1GiB  0.00       -       -     0%  -                -
"""


def a_machine(name: str = "web.service") -> TickReport:
    """Process 4242 and 51 are of a unit, 5 of a pod, and 52 and 77 of nothing known."""
    web = a_workload_report(
        name,
        members=(4242, 51),
        rss_bytes=3 * GIB,
        bytes_by_node={0: GIB, 1: 2 * GIB},
        cores_by_node={0: 1.5, 1: 0.5},
        exact=True,
        pending_bytes=12 * MIB,
        moving_processes=1,
        held={Reason.COOLDOWN: 1},
    )
    pod = a_workload_report(
        "batch/job/main",
        kind=WorkloadKind.POD,
        members=(5,),
        rss_bytes=512 * MIB,
        bytes_by_node={1: 128 * MIB},
        local_ratio=0.75,
    )
    rest = a_workload_report(
        "other",
        kind=WorkloadKind.OTHER,
        members=(52, 77),
        rss_bytes=GIB,
        bytes_by_node={},
        cores_by_node={},
        local_ratio=None,
    )
    return replace(a_crowd(), workloads=(pod, rest, web))


def all_answers(report: TickReport | None = None) -> dict[str, tuple[int, Any]]:
    state = ControlState(lambda: 100.0)
    told = a_machine() if report is None else report
    state.emit(told)
    return {**answers(told), "/v1/workloads": (200, workload_api.workloads(state.view()))}


def test_workloads_are_listed_with_most_remote_memory_first(serve: Serve, run: Run) -> None:
    done = run("ps", "--workloads", socket=serve(all_answers()))
    assert (done.exit_code, done.stdout, done.stderr) == (0, TABLE, "")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--sort", "rss"], ["web.service", "other", "batch/job/main"]),
        (["--sort", "local"], ["web.service", "batch/job/main", "other"]),
        (["--sort", "cpu"], ["web.service", "batch/job/main", "other"]),
        (["--sort", "processes"], ["other", "web.service", "batch/job/main"]),
        (["--sort", "workload", "--limit", "2"], ["batch/job/main", "other"]),
        (["--workload", "other"], ["other"]),
    ],
)
def test_workloads_are_sorted_limited_and_picked_in_text_and_json_alike(
    serve: Serve, run: Run, options: list[str], names: list[str]
) -> None:
    socket = serve(all_answers())
    lines = run("ps", "--workloads", *options, socket=socket).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == names
    document = json.loads(run("ps", "--workloads", "--json", *options, socket=socket).stdout)
    assert [each["name"] for each in document["workloads"]] == names
    assert (document["schema"], document["tick"]) == (1, 7)


def test_workloads_in_json_are_the_daemons_answer(serve: Serve, run: Run) -> None:
    told = all_answers()
    document = json.loads(run("ps", "--workloads", "--sort", "rss", "--json", socket=serve(told)).stdout)
    assert document == told["/v1/workloads"][1]


def test_the_processes_of_one_workload_are_picked_by_its_name(serve: Serve, run: Run) -> None:
    socket = serve(all_answers())
    done = run("ps", "--workload", "other", socket=socket)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["PID", "52"]
    assert done.stderr == "1 skipped process not shown (--all)\n"
    document = json.loads(run("ps", "--workload", "web.service", "--json", socket=socket).stdout)
    assert [(each["pid"], each["workload"]) for each in document["processes"]] == [
        (4242, "web.service"),
        (51, "web.service"),
    ]


@pytest.mark.parametrize("options", [[], ["--workloads"], ["--json"]])
def test_a_workload_that_is_not_there_is_a_failure_and_no_empty_table(
    serve: Serve, run: Run, options: list[str]
) -> None:
    done = run("ps", "--workload", "no\x1bwhere", *options, socket=serve(all_answers()))
    assert (done.exit_code, done.stdout) == (1, "")
    assert r"there is no workload no\x1bwhere" in done.stderr


def test_a_hostile_workload_name_cannot_touch_the_terminal(serve: Serve, run: Run) -> None:
    socket = serve(all_answers(a_machine(HOSTILE)))
    for command in (["ps", "--workloads"], ["explain", "4242"]):
        done = run(*command, socket=socket)
        assert HOSTILE_ESCAPED in done.stdout
        assert all(line.isprintable() for line in done.stdout.split("\n"))


@pytest.mark.parametrize("sort", ["remote", "rss", "cpu", "local", "processes"])
def test_a_workload_of_which_something_is_not_known_comes_after_one_where_it_is_zero(sort: str) -> None:
    unknown = dict.fromkeys(("remote_bytes", "rss_bytes", "cpu_cores", "local_ratio", "processes"))
    zero = dict.fromkeys(unknown, 0)
    assert ps_workloads.SORT_KEYS[sort](zero) < ps_workloads.SORT_KEYS[sort](unknown)


def test_every_sort_is_told_by_help(run: Run) -> None:
    told = run("ps", "--help").stdout
    for sort in {*SORT_KEYS, *ps_workloads.SORT_KEYS}:
        assert re.search(rf"[\[|\s]{sort}[\]|\s]", told), sort


@pytest.mark.parametrize(
    ("ratio", "drawn"),
    [
        (0.0, ""),
        (1e-9, "▏"),
        (0.5, "██▌"),
        (0.2, "█"),
        (0.999999, "████▉"),
        (1.0, "█████"),
    ],
)
def test_a_bar_is_full_only_for_all_and_empty_only_for_nothing(ratio: float, drawn: str) -> None:
    assert bars.bar(ratio) == drawn


@given(st.floats(0, 1))
def test_no_bar_is_longer_than_its_room(ratio: float) -> None:
    assert len(bars.bar(ratio)) <= bars.CELLS


def test_a_terminal_without_blocks_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "can_print", lambda _text: False)
    assert [bars.bar(ratio) for ratio in (0.0, 0.01, 0.5, 0.99, 1.0)] == ["", "#", "##", "####", "#####"]


@pytest.mark.parametrize("columns", [113, 114])
def test_bars_are_drawn_only_where_there_is_room(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(bars, "on_terminal", lambda: True)
    socket = serve(all_answers())
    width = {"COLUMNS": str(columns)}
    for command in (["ps", "--workloads", "--sort", "rss"], ["ps", "--sort", "rss"]):
        drawn = run(*command, socket=socket, env=width).stdout
        assert ("█" in drawn) is (columns == 114)
    shown = run("ps", "--workloads", "--sort", "rss", socket=socket, env=width).stdout.splitlines()[1]
    if columns == 114:
        assert "█▋         1GiB  ███▍       2GiB" in shown
    assert "█" not in run("ps", "--workloads", "--json", socket=socket, env=width).stdout


def explained(serve: Serve, run: Run, **changes: Any) -> list[str]:
    """What explain says of a process that holds 64 MiB on node 0 and 192 MiB on node 1."""
    process = a_process()
    placement = replace(a_placement(process.id, {0: 16384.0, 1: 49152.0}), **changes)
    report = a_process_report(
        process, placement=placement, verdicts=(Skip(by="home", process=process.id, reason=Reason.NO_HOME),)
    )
    return run("explain", "4242", socket=serve(answers(a_report(processes=(report,))))).stdout.splitlines()


def shares(*bounds: tuple[int, float, float]) -> Mapping[NodeId, Interval]:
    return {NodeId(node): Interval(low, high) for node, low, high in bounds}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"intervals": shares((0, 0.23149, 0.26901), (1, 0.73099, 0.76851), (2, 0.0, 0.0018))},
            [
                "Where its memory is (estimated by a sample of 2048 pages, with 95 % intervals, 500ms ago)",
                "  node 0      64MiB, 25% (23.1% to 27.0%)",
                "  node 1      192MiB, 75% (73.0% to 76.9%)",
                "  node 2      0B, 0% (0.0% to 0.2%)",
            ],
        ),
        (
            {"method": PlacementMethod.TEST, "queried_pages": 38, "intervals": shares((1, 0.7, 0.8))},
            [
                "Where its memory is (estimated by a first test of 38 pages, with 95 % intervals, 500ms ago)",
                "  node 0      64MiB, 25%",
                "  node 1      192MiB, 75% (70.0% to 80.0%)",
            ],
        ),
        (
            {"method": PlacementMethod.NUMA_MAPS, "exact": True, "intervals": shares((0, 0.25, 0.25))},
            [
                "Where its memory is (exactly by numa_maps, 500ms ago)",
                "  node 0      64MiB, 25%",
                "  node 1      192MiB, 75%",
            ],
        ),
        (
            {"method": PlacementMethod.EVERY_PAGE, "exact": True, "queried_pages": 65536},
            [
                "Where its memory is (exactly by asking for every page, 65536 pages, 500ms ago)",
                "  node 0      64MiB, 25%",
                "  node 1      192MiB, 75%",
            ],
        ),
    ],
)
def test_explain_says_how_memory_was_looked_at_and_how_sure_that_is(
    serve: Serve, run: Run, changes: dict[str, Any], lines: list[str]
) -> None:
    told = explained(serve, run, **changes)
    start = told.index(lines[0])
    assert told[start : start + len(lines)] == lines


@pytest.mark.parametrize(
    ("due_at", "line"),
    [
        (None, None),
        (112.5, "  looked at again in 12s, or when it changes"),
        (90.0, "  looked at again at one of the next ticks, or when it changes"),
    ],
)
def test_explain_says_when_memory_is_looked_at_again(
    serve: Serve, run: Run, due_at: float | None, line: str | None
) -> None:
    process = a_process()
    seen = a_process_report(process, placement=a_placement(process.id))
    report = replace(a_report(processes=(seen,)), next_looks={} if due_at is None else {process.id: due_at})
    told = run("explain", "4242", socket=serve(answers(report))).stdout.splitlines()
    assert [each for each in told if "looked at again" in each] == ([] if line is None else [line])


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        (None, ""),
        ([0.5, 0.5], ""),
        ([0.0, 1.0], " (0.0% to 100.0%)"),
        ([0.123, 0.124], " (12.3% to 12.4%)"),
        ([0.1239, 0.1241], " (12.3% to 12.5%)"),
    ],
)
def test_an_interval_is_never_told_narrower_than_it_is(bounds: list[float] | None, shown: str) -> None:
    assert _interval(bounds) == shown


def test_explain_names_the_workload(serve: Serve, run: Run) -> None:
    assert "  workload    web.service (unit)" in run("explain", "4242", socket=serve(all_answers())).stdout.splitlines()


def test_every_method_has_words_and_a_newer_one_is_passed_on() -> None:
    assert all(words.method(method.value, 7) != method.value for method in PlacementMethod)
    assert words.method("brand-new", 7) == "brand-new"
