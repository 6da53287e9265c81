"""GET /v1/nodes: its keys are a contract, so whole objects are compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.control import machine_api
from balancerd.control.api import Json
from balancerd.control.client import ControlFailure
from balancerd.control.state import ControlState
from balancerd.model.report import TickReport
from tests.unit.control.daemon import Room, running
from tests.unit.machine_reports import BLOCKS, a_tiered_report
from tests.unit.reports import GIB, MIB, a_report


def answer(report: TickReport | None) -> Json:
    state = ControlState(lambda: 97.5)
    if report is not None:
        state.emit(report)
    told: Json = json.loads(json.dumps(machine_api.nodes(state.view(), now=100.0)))
    return told


def test_before_the_first_tick_nothing_is_known() -> None:
    assert answer(None) == {
        "schema": 1,
        "tick": None,
        "age_seconds": None,
        "nodes": [],
        "devices": [],
        "kernel": None,
        "processes": None,
    }


def test_a_node_is_told_with_all_that_is_known_of_it() -> None:
    told = answer(a_tiered_report())
    assert (told["tick"], told["age_seconds"], [node["node"] for node in told["nodes"]]) == (7, 2.5, [0, 1, 2])
    assert told["nodes"][2] == {
        "node": 2,
        "cpus": "",
        "load_ratio": None,
        "total_bytes": 4 * GIB,
        "free_bytes": 2 * GIB,
        "available_bytes": 3 * GIB,
        "known_bytes": MIB,
        "free_blocks": list(BLOCKS),
        "min_watermark_bytes": 8 * MIB,
        "low_watermark_bytes": 12 * MIB,
        "high_watermark_bytes": 16 * MIB,
        "tier": 180,
        "link": {
            "initiators": "0-1",
            "read_latency_seconds": 4e-07,
            "write_latency_seconds": None,
            "read_bytes_per_second": GIB,
            "write_bytes_per_second": GIB / 2,
        },
        "hugetlb": [
            {"page_bytes": 2 * MIB, "total_pages": 16, "free_pages": 12},
            {"page_bytes": GIB, "total_pages": 0, "free_pages": 0},
        ],
        "distances": {"0": 21, "1": 21, "2": 10},
    }


def test_known_bytes_are_summed_over_the_processes_whose_placement_is_known() -> None:
    told = answer(a_tiered_report())
    assert [node["known_bytes"] for node in told["nodes"]] == [6 * MIB, 0, MIB]
    assert told["processes"] == {"surveyed": 3, "known": 2}


def test_devices_and_settings_are_told() -> None:
    told = answer(a_tiered_report())
    assert told["devices"] == [
        {"kind": "net", "name": "eth0", "node": 1},
        {"kind": "nvme", "name": "nvme0", "node": 0},
        {"kind": "nvme", "name": "nvme1", "node": 0},
    ]
    assert told["kernel"] == {
        "numa_balancing": 1,
        "demotion": False,
        "transparent_huge_pages": "madvise",
        "transparent_huge_defrag": "defer+madvise",
    }


def test_unknown_is_null_and_never_0() -> None:
    report = a_report()
    told = answer(replace(report, survey=replace(report.survey, memory={})))
    assert told["kernel"] is None
    node = told["nodes"][0]
    known = {key for key, value in node.items() if value is not None}
    assert known == {"node", "cpus", "total_bytes", "hugetlb", "distances"}
    assert node["hugetlb"] == []


def test_the_daemon_answers_readers_and_only_get(tmp_path: Path) -> None:
    room = Room(tmp_path / "s")
    room.state.emit(a_tiered_report())
    with running(room.server()):
        assert room.client.get("/v1/nodes")["nodes"][1]["load_ratio"] == 1.0
        with pytest.raises(ControlFailure) as failure:
            room.client.post("/v1/nodes")
        assert failure.value.code == 405
