"""GET /v1/processes/PID/heat: its keys are a contract, so whole objects are compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.control import heat_api
from balancerd.control.api import Json
from balancerd.control.client import ControlFailure
from balancerd.control.state import ControlState
from balancerd.model.access import Obstacle
from balancerd.model.decision import Decision, Reason, Skip
from balancerd.model.heat import HeatMethod, Heats
from balancerd.model.ids import ProcessId
from balancerd.model.report import TickReport
from tests.unit.control.daemon import Room, running
from tests.unit.heat_reports import HEAP, PID, a_parts_report, a_region, a_window, parts_process, some_heats
from tests.unit.reports import MIB, a_decision, a_process, a_process_report, a_report


def answer(report: TickReport, cells: int = 64) -> Json:
    state = ControlState(lambda: 100.0)
    state.emit(report)
    told: Json = json.loads(json.dumps(heat_api.heat(state.view(), report.processes[0], cells=cells, now=100.5)))
    return told


def test_everything_about_a_watched_process_is_told() -> None:
    told = answer(a_parts_report())
    mappings = told.pop("mappings")
    assert told == {
        "schema": 1,
        "tick": 7,
        "cell_bytes": 8 * MIB,
        "process": {
            "pid": 4242,
            "start_ticks": 1000,
            "comm": "parts",
            "rss_bytes": 258 * MIB,
            "run_ratio": {"0": 0.25, "1": 0.25, "2": 0.25, "3": 0.25},
        },
        "placement": {"age_seconds": 0.5, "method": "sample", "queried_pages": 2048, "exact": False},
        "accesses": {
            "method": "registers",
            "age_seconds": 0.5,
            "seconds": 2.0,
            "watched_seconds": 42.0,
            "samples": 1200,
            "hits": 980,
            "lost_samples": 0,
            "throttled": 0,
            "threads": 4,
            "unreported_regions": 0,
        },
        "unwatched": None,
        "heat": None,
        "left_out": {"mappings": 1, "bytes_by_node": {"0": 16384}, "weight": 0.0},
    }
    heap, library = mappings
    cells = heap.pop("cells")
    assert heap == {
        "start": "7f0000000000",
        "end": "7f0010000000",
        "kind": "anon",
        "name": "",
        "shared": False,
        "vmas": 1,
        "bytes_by_node": {"0": 256 * MIB},
        "weight": 270800.0,
        "sparse": False,
    }
    assert (library["name"], len(library["cells"]), len(cells)) == ("/usr/lib/libc.so.6", 1, 32)
    assert cells[2] == {
        "start": "7f0001000000",
        "end": "7f0001800000",
        "node": 0,
        "bytes_by_node": {"0": 8 * MIB},
        "asked": False,
        "weight": 400.0,
        "weight_by_node": {"0": 400.0},
        "use": "local",
        "weight_by_use": {"local": 400.0},
        "heat": None,
    }


def test_more_cells_are_smaller_ones() -> None:
    assert [answer(a_parts_report(), cells)["cell_bytes"] // MIB for cells in (64, 128, 512)] == [8, 4, 2]


@pytest.mark.parametrize(
    ("verdicts", "reason", "detail"),
    [
        ((), None, ""),
        ((Skip(by="home", process=PID, reason=Reason.WELL_PLACED),), None, ""),
        ((a_decision(PID),), None, ""),
        ((Skip(by="select", process=PID, reason=Reason.BELOW_MIN_CPU, detail="0.001"),), "below-min-cpu", "0.001"),
        (
            (
                Skip(by="parts", process=PID, reason=Reason.ONE_HOME, detail="97% on one node at a time"),
                Skip(by="home", process=PID, reason=Reason.WELL_PLACED),
            ),
            "one-home",
            "97% on one node at a time",
        ),
        ((Skip(by="parts", process=PID, reason=Reason.NOT_WATCHED, detail="EPERM"),), "not-watched", "EPERM"),
    ],
)
def test_of_a_process_that_is_not_watched_the_reason_is_told(
    verdicts: tuple[Skip | Decision, ...], reason: str | None, detail: str
) -> None:
    report = a_report(processes=(a_process_report(parts_process().process, verdicts=verdicts),))
    told = answer(report)
    assert told["accesses"] is None
    assert (told["unwatched"]["reason"], told["unwatched"]["detail"]) == (reason, detail)
    assert (told["placement"], told["mappings"]) == (None, [])


def test_the_window_of_another_process_of_the_same_pid_is_not_its_own() -> None:
    stranger = replace(a_window([a_region(HEAP, {0: 1.0})]), process=PID._replace(start_ticks=1))
    assert answer(a_parts_report(window=stranger))["accesses"] is None


def test_the_daemon_answers_readers_and_only_get(tmp_path: Path) -> None:
    room = Room(tmp_path / "s")
    room.state.emit(a_parts_report())
    room.known[9] = a_process_report(a_process(9))
    with running(room.server()):
        assert len(room.client.get("/v1/processes/4242/heat")["mappings"][0]["cells"]) == 128
        assert room.client.get("/v1/processes/4242/heat?cells=64")["cell_bytes"] == 8 * MIB
        assert room.client.get("/v1/processes/9/heat")["mappings"] == []
        for path, code in (
            *(("/v1/processes/4242/heat?cells=63", 400), ("/v1/processes/4242/heat?cells=2049", 400)),
            *(("/v1/processes/4242/heat?cells=", 400), ("/v1/processes/4242/heat?cells=64&cells=64", 400)),
            *(("/v1/processes/4242/heat?x=1", 400), ("/v1/processes/x/heat", 400)),
            *(("/v1/processes/10/heat", 404), ("/v1/processes/4242/cold", 404)),
        ):
            with pytest.raises(ControlFailure) as failure:
                room.client.get(path)
            assert (path, failure.value.code) == (path, code)
        with pytest.raises(ControlFailure) as failure:
            room.client.post("/v1/processes/4242/heat")
        assert failure.value.code == 405
    assert room.errors == []


def test_heat_by_a_source_is_told_with_its_age_and_what_it_costs() -> None:
    report = replace(a_parts_report(), accesses=(), heats=some_heats((0, 16, 1.0), (16, 32, 0.123456)))
    told = answer(report)
    assert told["heat"] == {
        "method": "damon",
        "age_seconds": 1.5,
        "seconds": 0.1,
        "watched_seconds": 42.0,
        "regions": 2,
        "cpu_ratio": 0.004,
        "told": "",
    }
    assert [cell["heat"] for cell in told["mappings"][0]["cells"][:5]] == [1.0, 1.0, 0.1235, 0.1235, None]


@pytest.mark.parametrize(
    ("heats", "told"),
    [
        (Heats(method=HeatMethod.DAMON), "not looked at yet, or others are watched"),
        (Heats(method=HeatMethod.DAMON, missed={PID: "it is gone"}), "it is gone"),
        (Heats(method=HeatMethod.DAMON, obstacle=Obstacle(seen="no DAMON", fix="boot")), "no DAMON; fix: boot"),
        (some_heats((0, 1, 1.0), process=ProcessId(1, 1)), "not looked at yet, or others are watched"),
    ],
)
def test_why_there_is_no_heat_is_told(heats: Heats, told: str) -> None:
    found = answer(replace(a_parts_report(), heats=heats))["heat"]
    assert found.pop("method") == "damon"
    assert found.pop("told") == told
    assert set(found.values()) == {None}
