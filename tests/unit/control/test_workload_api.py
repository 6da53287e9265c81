"""The answers about workloads and the live view: whole objects, order, bounds, and who may ask."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd.control import api, workload_api
from balancerd.control.client import ControlFailure
from balancerd.control.state import ControlState, View
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId
from balancerd.model.interval import Interval
from balancerd.model.machine import Machine, NodeState
from balancerd.model.page_status import PageStatus
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.states import STATES
from balancerd.model.workload import Workload, WorkloadKind
from tests.unit.control.daemon import Room, running
from tests.unit.reports import (
    GIB,
    MIB,
    a_decision,
    a_moving_report,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    a_workload_report,
    an_outcome,
)


def view_of(report: TickReport | None, now: float = 100.0) -> View:
    state = ControlState(lambda: now)
    if report is not None:
        state.emit(report)
    return state.view()


def through_json(answer: object) -> Any:
    return json.loads(json.dumps(answer))


def top(report: TickReport | None, sort: str = "remote", match: str = "") -> Any:
    return through_json(workload_api.top(view_of(report), workload_api.Asked(sort=sort, match=match), now=101.5))


def test_workloads_come_largest_first_and_tell_all_that_is_known() -> None:
    small = a_workload_report("a", rss_bytes=MIB, bytes_by_node={}, cores_by_node={}, local_ratio=None)
    large = a_workload_report(
        "b",
        kind=WorkloadKind.POD,
        members=(1, 2),
        bytes_by_node={0: 64 * MIB, 1: 128 * MIB},
        cores_by_node={0: 1.0, 1: 2.0},
        pending_bytes=7,
        moving_processes=1,
        held={Reason.COOLDOWN: 1},
    )
    answer = through_json(workload_api.workloads(view_of(a_report(number=9, workloads=(small, large)))))
    assert (answer["schema"], answer["tick"]) == (1, 9)
    first, second = answer["workloads"]
    assert first == {
        "name": "b",
        "kind": "pod",
        "cgroup": "/system.slice/b",
        "processes": 2,
        "threads": 2,
        "rss_bytes": 256 * MIB,
        "cpu_cores": 3.0,
        "cores_by_node": {"0": 1.0, "1": 2.0},
        "run_ratio": {"0": 0.3333, "1": 0.6667},
        "bytes_by_node": {"0": 64 * MIB, "1": 128 * MIB},
        "exact": False,
        "known_ratio": 0.75,
        "local_ratio": 0.25,
        "remote_bytes": 192 * MIB,
        "pending_bytes": 7,
        "moving_processes": 1,
        "held": {"cooldown": 1},
    }
    assert second["name"] == "a"
    assert [second[key] for key in ("run_ratio", "bytes_by_node", "local_ratio", "remote_bytes")] == [None] * 4
    assert second["known_ratio"] == 0


def test_before_the_first_tick_there_is_nothing_to_tell() -> None:
    assert workload_api.workloads(view_of(None)) == {"schema": 1, "tick": None, "workloads": []}
    assert top(None) == {
        "schema": 1,
        "tick": None,
        "mode": None,
        "age_seconds": None,
        "interval_seconds": None,
        "sort": "remote",
        "match": "",
        "nodes": [],
        "workloads": [],
        "processes": [],
        "left_out": {"workloads": 0, "processes": 0},
    }


def test_a_workload_whose_cgroup_tells_no_bytes_holds_none_and_one_of_which_nothing_is_known_says_so() -> None:
    exact = a_workload_report("a", bytes_by_node={}, exact=True)
    unknown = a_workload_report("b", bytes_by_node={})
    told = workload_api.workloads(view_of(a_report(workloads=(exact, unknown))))["workloads"]
    assert [(each["bytes_by_node"], each["known_ratio"]) for each in told] == [({}, 1.0), (None, 0.0)]


def test_top_holds_nodes_workloads_and_processes_with_what_is_done_about_them() -> None:
    moving = a_moving_report(3)
    loaded = Machine(nodes={NodeId(0): NodeState(node=NodeId(0), load_ratio=0.12345)})
    report = replace(
        moving, survey=replace(moving.survey, machine=loaded), workloads=(a_workload_report("web", members=(4242, 77)),)
    )
    answer = top(report)
    assert [answer[key] for key in ("tick", "mode", "age_seconds", "interval_seconds")] == [3, "enforce", 1.5, 2.0]
    assert answer["nodes"][0] == {
        "node": 0,
        "cpus": "0-1",
        "total_bytes": 4 * GIB,
        "free_bytes": 2 * GIB,
        "available_bytes": 3 * GIB,
        "load_ratio": 0.1235,
    }
    assert answer["nodes"][1]["load_ratio"] is None
    (workload,) = answer["workloads"]
    assert (workload["name"], workload["moved_bytes_per_second"]) == ("web", 1000 * 4096 / 2)
    first, second = answer["processes"]
    assert first == {
        **api.process_facts(report.processes[0], report.workloads[0].workload),
        "bytes_by_node": {"1": 256 * MIB},
        "workload": "web",
        "remote_bytes": 256 * MIB,
        "state": "moving",
        "next_move": {
            "policy": "home",
            "target": 0,
            "pending_bytes": 256 * MIB - 1000 * 4096,
            "reason": "misplaced",
        },
        "moved_bytes_per_second": 1000 * 4096 / 2,
    }
    assert (second["pid"], second["workload"], second["state"]) == (77, "web", STATES[Reason.BELOW_MIN_CPU])
    assert (second["remote_bytes"], second["next_move"], second["moved_bytes_per_second"]) == (None, None, 0.0)


def test_what_a_command_moved_counts_for_its_process_and_its_workload() -> None:
    process = a_process(7)
    told = a_report(
        processes=(a_process_report(process),),
        outcomes=(
            an_outcome(process.id, policy="move", pages={PageStatus.MOVED: 10}),
            an_outcome(process.id, policy="move", target=1, pages={PageStatus.MOVED: 5}),
        ),
        workloads=(a_workload_report("web", members=(7,)), a_workload_report("else", members=(8,))),
    )
    answer = top(told)
    assert answer["processes"][0]["moved_bytes_per_second"] == 15 * 4096 / 2
    assert {each["name"]: each["moved_bytes_per_second"] for each in answer["workloads"]} == {
        "web": 15 * 4096 / 2,
        "else": 0.0,
    }
    at_start = top(replace(told, survey=replace(told.survey, interval_seconds=None)))
    assert at_start["processes"][0]["moved_bytes_per_second"] is None


@pytest.mark.parametrize(
    ("moved_mib", "by", "pending_mib"),
    [(0, "home", 8), (3, "home", 5), (8, "home", None), (9, "home", None), (3, "another", 8)],
)
def test_the_next_move_is_what_is_still_wanted(moved_mib: int, by: str, pending_mib: int | None) -> None:
    process = a_process()
    outcome = an_outcome(process.id, policy=by, pages={PageStatus.MOVED: moved_mib * 256})
    decided = (a_decision(process.id, misplaced_bytes=8 * MIB), Skip(by="plan", process=process.id, reason=Reason.SELF))
    report = a_process_report(process, verdicts=decided, outcome=outcome)
    move = top(a_report(processes=(report,)))["processes"][0]["next_move"]
    assert (None if move is None else move["pending_bytes"]) == (None if pending_mib is None else pending_mib * MIB)


def a_process_that(pid: int, *, rss: int = 100 * MIB, local: float | None, cpu: float | None = 1.0) -> ProcessReport:
    return a_process_report(a_process(pid, rss_bytes=rss, cpu_cores=cpu), local_ratio=local)


@pytest.mark.parametrize(
    ("sort", "pids"),
    [
        ("remote", [2, 4, 3, 1, 5]),
        ("cpu", [3, 1, 4, 5, 2]),
        ("rss", [4, 1, 2, 3, 5]),
        ("local", [2, 3, 4, 1, 5]),
        ("moved", [4, 1, 2, 3, 5]),
    ],
)
def test_top_sorts_with_the_unknown_last(sort: str, pids: list[int]) -> None:
    processes = (
        a_process_that(5, local=None),
        a_process_that(4, rss=400 * MIB, local=0.8),
        a_process_that(3, local=0.5, cpu=3.0),
        a_process_that(2, local=0.0, cpu=None),
        a_process_that(1, local=1.0),
    )
    workloads = [
        a_workload_report(str(p.process.id.pid), rss_bytes=p.process.rss_bytes, local_ratio=p.local_ratio)
        for p in processes
    ]
    workloads = [replace(w, cpu_cores=p.process.cpu_cores) for w, p in zip(workloads, processes, strict=True)]
    workloads = [replace(w, members=(p.process.id,)) for w, p in zip(workloads, processes, strict=True)]
    moved = an_outcome(processes[1].process.id, pages={PageStatus.MOVED: 10})
    answer = top(a_report(processes=processes, workloads=workloads, outcomes=(moved,)), sort)
    assert [each["pid"] for each in answer["processes"]] == pids
    assert [int(each["name"]) for each in answer["workloads"]] == pids
    assert answer["sort"] == sort


@pytest.mark.parametrize(
    ("match", "pids", "names"),
    [
        ("", [41, 42, 43], ["web.service", "Batch"]),
        ("4", [41, 42, 43], []),
        ("42", [42], []),
        ("SPIN", [41], []),
        ("batch", [43], ["Batch"]),
        ("web", [41, 42], ["web.service"]),
        ("nobody", [], []),
    ],
)
def test_top_shows_those_whose_command_pid_or_workload_has_the_text(
    match: str, pids: list[int], names: list[str]
) -> None:
    processes = [a_process_report(a_process(pid, comm=comm)) for pid, comm in [(41, "Spin"), (42, "sh"), (43, "sh")]]
    workloads = [a_workload_report("web.service", members=(41, 42)), a_workload_report("Batch", members=(43,))]
    answer = top(a_report(processes=processes, workloads=workloads), match=match)
    assert sorted(each["pid"] for each in answer["processes"]) == pids
    assert sorted(each["name"] for each in answer["workloads"]) == sorted(names)
    assert (answer["match"], answer["left_out"]) == (match, {"workloads": 0, "processes": 0})


def test_top_is_bounded_and_says_what_it_leaves_out() -> None:
    processes = [a_process_that(pid, local=pid / 1000) for pid in range(1, 251)]
    workloads = [a_workload_report(f"w{n:03}", local_ratio=n / 1000) for n in range(120)]
    answer = top(a_report(processes=processes, workloads=workloads))
    assert [each["pid"] for each in answer["processes"]] == list(range(1, 101))
    assert [each["name"] for each in answer["workloads"]] == [f"w{n:03}" for n in range(100)]
    assert answer["left_out"] == {"workloads": 20, "processes": 150}


def test_a_process_is_told_with_the_workload_that_counts_it_and_else_with_its_own() -> None:
    idle, named = a_process(77, cgroup=None), a_process(78)
    unit = Workload(kind=WorkloadKind.UNIT, name="late.service")
    new = replace(a_process(79), workload=unit)
    report = a_report(
        processes=[a_process_report(each) for each in (idle, named, new)],
        workloads=(a_workload_report("web", kind=WorkloadKind.VM, members=(77,)),),
    )
    told = {each["pid"]: each for each in api.processes(view_of(report))["processes"]}
    assert {pid: (each["workload"], each["workload_kind"]) for pid, each in told.items()} == {
        77: ("web", "vm"),
        78: ("spin.service", "other"),
        79: ("late.service", "unit"),
    }
    alone = api.process(view_of(report), report.processes[0], now=0.0)["process"]
    assert (alone["workload"], alone["workload_kind"]) == ("web", "vm")


def test_a_placement_is_told_with_its_method_and_how_sure_it_is() -> None:
    process = a_process()
    sure = replace(
        a_placement(process.id),
        method=PlacementMethod.TEST,
        intervals={NodeId(1): Interval(0.1234561, 0.75), NodeId(0): Interval(0.25, 0.876544)},
    )
    told = api.process(view_of(None), a_process_report(process, placement=sure), now=0.0)["process"]["placement"]
    assert told["method"] == "test"
    assert list(told["share_intervals"].items()) == [("0", [0.25, 0.876544]), ("1", [0.123456, 0.75])]


@pytest.mark.parametrize(
    ("due_at", "now", "seconds"), [(None, 100.0, None), (120.5, 100.0, 20.5), (120.5, 120.5, 0.0), (120.5, 999.0, 0.0)]
)
def test_when_the_next_look_is_due_is_told_in_seconds_from_now(
    due_at: float | None, now: float, seconds: float | None
) -> None:
    report = a_process_report(a_process())
    due = {} if due_at is None else {report.process.id: due_at}
    view = view_of(replace(a_report(processes=(report,)), next_looks=due))
    assert api.process(view, report, now=now)["process"]["next_look_seconds"] == seconds


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Room]:
    room = Room(socket=tmp_path / "run" / "control.sock")
    room.state.emit(replace(a_moving_report(5), workloads=(a_workload_report("web"),)))
    with running(room.server()):
        yield room


def test_the_socket_answers_both_paths_and_takes_the_sort(served: Room) -> None:
    assert [each["name"] for each in served.client.get("/v1/workloads")["workloads"]] == ["web"]
    assert served.client.get("/v1/top")["sort"] == "remote"
    assert served.client.get("/v1/top?sort=cpu")["sort"] == "cpu"
    assert [each["pid"] for each in served.client.get("/v1/top")["processes"]] == [4242, 77]
    assert served.errors == []


@pytest.mark.parametrize(
    "query",
    [
        *("sort=", "sort=pid", "sort=cpu&sort=cpu", "limit=5", "sort=cpu%00"),
        *("match=a&match=b", f"match={'a' * 65}", "sort=cpu&match=a&a=b"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/top", "/v1/stream"])
def test_another_sort_is_refused_and_told_which_there_are(served: Room, path: str, query: str) -> None:
    with pytest.raises(ControlFailure, match=r"sort=remote\|cpu") as failure:
        served.client.get(f"{path}?{query}")
    assert failure.value.code == 400


@pytest.mark.parametrize("path", ["/v1/top", "/v1/workloads", "/v1/stream"])
def test_nothing_but_get_is_for_these_paths(served: Room, path: str) -> None:
    with pytest.raises(ControlFailure) as failure:
        served.client.post(path)
    assert failure.value.code == 405
