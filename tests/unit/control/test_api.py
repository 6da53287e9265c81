"""The answers: their keys are a contract, so whole objects are compared."""

import json
from dataclasses import replace

from balancerd.config.places import Places
from balancerd.control import api
from balancerd.control.state import ControlState
from balancerd.model.copying import Copying, PairCopied
from balancerd.model.decision import REASON_TEXT, Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import Mempolicy, PlacementSample
from tests.unit.reports import (
    GIB,
    MIB,
    a_decision,
    a_moving_report,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    an_outcome,
)


def test_status_before_the_first_tick_knows_what_it_does_not_know() -> None:
    state = ControlState(lambda: 90.0)
    answer = api.status(state.view(), version="1.2.3", pid=4711, now=100.0)
    assert answer == {
        "schema": 1,
        "version": "1.2.3",
        "mode": None,
        "pid": 4711,
        "uptime_seconds": 10.0,
        "paused": False,
        "paused_detail": None,
        "tick": None,
        "scan": None,
        "nodes": [],
        "copying": None,
        "counts": None,
        "managers": None,
        "totals": {"ticks": 0, "failed_ticks": 0, "moved_bytes": 0, "submitted_pages": 0, "pages": {}},
        "policy_errors": {},
        "disabled_policies": {},
        "config": {"path": None, "files": [], "last_reload": None},
    }


def test_status_tells_the_machine_the_tick_and_the_totals() -> None:
    state = ControlState(lambda: 97.5)
    state.emit(replace(a_moving_report(12), scan_cpu_seconds=0.005, scan_budget_ratio=0.01))
    files = ("/etc/balancerd/balancerd.yaml", "/etc/balancerd/conf.d/50-x.yaml")
    state.reloaded(path=files[0], succeeded=False, at=1e9, error="x.yaml:1:1: error: no", places=Places(files=files))
    answer = json.loads(json.dumps(api.status(state.view(), version="1", pid=1, now=100.0)))
    assert answer["mode"] == "enforce"
    assert answer["tick"] == {
        "number": 12,
        "age_seconds": 2.5,
        "interval_seconds": 2.0,
        "phase_seconds": {"survey": 0.004, "sample": 0.002, "migrate": 0.006},
    }
    assert answer["copying"] == {"bytes_per_second": None, "measured_bytes": 0, "pairs": []}
    assert answer["scan"] == {"used_ratio": 0.0025, "budget_ratio": 0.01}
    assert answer["nodes"][1] == {
        "node": 1,
        "cpus": "2-3",
        "total_bytes": 4 * GIB,
        "free_bytes": 2 * GIB,
        "available_bytes": 3 * GIB,
        "distances": {"0": 21, "1": 10},
    }
    assert answer["counts"] == {
        "surveyed": 2,
        "sampled": 1,
        "decided": 1,
        "planned": 1,
        "small_processes": 90,
        "kernel_threads": 120,
        "vanished_processes": 3,
        "by_reason": {"misplaced": 1, "below-min-cpu": 1},
    }
    assert answer["totals"] == {
        "ticks": 1,
        "failed_ticks": 0,
        "moved_bytes": 4096000,
        "submitted_pages": 1024,
        "pages": {"moved": 1000, "eacces": 24},
    }
    assert answer["config"] == {
        "path": "/etc/balancerd/balancerd.yaml",
        "files": ["/etc/balancerd/balancerd.yaml", "/etc/balancerd/conf.d/50-x.yaml"],
        "last_reload": {"succeeded": False, "at_unix_seconds": 1e9, "error": "x.yaml:1:1: error: no"},
    }


def test_status_tells_how_fast_memory_has_moved_and_between_which_nodes() -> None:
    pair = PairCopied(source=NodeId(1), target=NodeId(0), copied_bytes=3e9, seconds=2.0)
    state = ControlState(lambda: 90.0)
    state.emit(a_report(copying=Copying(copied_bytes=4e9, seconds=2.5, pairs=(pair,))))
    assert api.status(state.view(), version="1.2.3", pid=4711, now=100.0)["copying"] == {
        "bytes_per_second": 1_600_000_000,
        "measured_bytes": 4_000_000_000,
        "pairs": [{"from": 1, "to": 0, "bytes_per_second": 1_500_000_000, "measured_bytes": 3_000_000_000}],
    }


def test_a_node_whose_memory_is_not_known_is_null_and_not_zero() -> None:
    report = a_moving_report()
    blind = replace(report, survey=replace(report.survey, memory={}))
    state = ControlState(lambda: 0.0)
    state.emit(blind)
    node = api.status(state.view(), version="1", pid=1, now=0.0)["nodes"][0]
    assert (node["free_bytes"], node["available_bytes"]) == (None, None)


def test_processes_come_largest_first_and_unknown_is_null() -> None:
    state = ControlState(lambda: 0.0)
    small, large = a_process(5, rss_bytes=MIB, cpu_cores=None, uid=None, cgroup=None), a_process(6, comm="big\n")
    skip = Skip(by="select", process=small.id, reason=Reason.FIRST_SIGHT)
    state.emit(
        a_report(
            number=3,
            processes=(
                a_process_report(small, verdicts=(skip,)),
                a_process_report(
                    large, placement=a_placement(large.id), run_ratio={0: 2 / 3, 1: 1 / 3}, local_ratio=1 / 3
                ),
            ),
        )
    )
    answer = json.loads(json.dumps(api.processes(state.view())))
    assert (answer["schema"], answer["tick"]) == (1, 3)
    first, second = answer["processes"]
    assert first == {
        "pid": 6,
        "start_ticks": 1000,
        "comm": "big\n",
        "uid": 1000,
        "cgroup": "/system.slice/spin.service",
        "workload": "spin.service",
        "workload_kind": "other",
        "age_seconds": 60.0,
        "rss_bytes": 256 * MIB,
        "cpu_cores": 1.0,
        "threads": 1,
        "bytes_by_node": {"1": 256 * MIB},
        "run_ratio": {"0": 0.6667, "1": 0.3333},
        "local_ratio": 0.3333,
        "reason": "well-placed",
        "reason_text": REASON_TEXT[Reason.WELL_PLACED],
        "detail": "",
    }
    assert [second[key] for key in ("pid", "reason")] == [5, "first-sight"]
    for unknown in ("cpu_cores", "uid", "cgroup", "bytes_by_node", "run_ratio", "local_ratio"):
        assert second[unknown] is None


def test_explain_holds_every_verdict_in_order_and_the_last_outcome_by_status() -> None:
    process = a_process()
    decision = a_decision(process.id)
    skip = Skip(by="plan", process=process.id, reason=Reason.COOLDOWN, detail="again in 50 s")
    report = a_process_report(process, verdicts=(decision, skip), placement=a_placement(process.id), run_ratio={0: 1.0})
    state = ControlState(lambda: 110.0)
    state.emit(a_moving_report(1))
    state.emit(a_report(number=2, processes=(report,)))
    answer = json.loads(json.dumps(api.process(state.view(), report, now=112.0)))["process"]
    assert answer["verdicts"] == [
        {
            "by": "home",
            "action": "migrate",
            "reason": "misplaced",
            "reason_text": REASON_TEXT[Reason.MISPLACED],
            "detail": "home is node 0",
            "target": 0,
            "misplaced_bytes": 256 * MIB,
            "gain_cores": 0.13,
            "cost_seconds": 0.5,
            "setting": None,
            "at": None,
        },
        {
            "by": "plan",
            "action": "leave",
            "reason": "cooldown",
            "reason_text": REASON_TEXT[Reason.COOLDOWN],
            "detail": "again in 50 s",
            "setting": "migrate.cooldown",
            "at": None,
            "needs": "",
            "wanted": None,
        },
    ]
    assert (answer["cpus_allowed"], answer["mems_allowed"]) == ("0-1", "0-1")
    assert answer["outcome"] == answer["history"][0]
    assert answer["outcome"] == {
        "tick": 1,
        "age_seconds": 2.0,
        "policy": "home",
        "target": 0,
        "move": None,
        "submitted_pages": 1024,
        "pages": {"moved": 1000, "eacces": 24},
        "moved_from": {"1": 1000},
        "calls": 2,
        "longest_call_seconds": 0.003,
        "seconds": 0.006,
        "stopped_by": None,
        "detail": "",
    }


def test_explain_shows_the_mappings_with_most_pages_off_home_and_counts_the_rest() -> None:
    process = a_process()
    base = a_placement(process.id).vmas[0]
    vmas = tuple(
        replace(
            base,
            vma=replace(base.vma, start=n * 0x1000000, end=n * 0x1000000 + 0x1000, name=f"[{n}]"),
            pages_by_node={NodeId(0): 5000.0, NodeId(1): float(n)},
        )
        for n in range(1, 31)
    )
    bound = replace(vmas[29], vma=replace(vmas[29].vma, mempolicy=Mempolicy(mode="bind", nodes=frozenset({NodeId(1)}))))
    placement: PlacementSample = replace(a_placement(process.id), vmas=(*vmas[:29], bound))
    report = a_process_report(process, placement=placement, run_ratio={0: 0.9, 1: 0.1})
    view = ControlState(lambda: 0.0).view()
    shown = api.process(view, report, now=104.0)["process"]["placement"]
    assert [vma["name"] for vma in shown["vmas"]] == [f"[{n}]" for n in range(30, 10, -1)]
    assert shown["vmas_left_out"] == 10
    assert (shown["age_seconds"], shown["mempolicies_age_seconds"]) == (4.0, 4.0)
    assert shown["vmas"][0]["mempolicy"] == "bind:1"
    assert shown["vmas"][0]["bytes_by_node"] == {"0": 5000 * 4096, "1": 30 * 4096}
    assert shown["vmas"][1]["mempolicy"] is None


def test_history_is_that_of_the_very_process_newest_first_and_bounded() -> None:
    old, new = ProcessId(4242, 1), ProcessId(4242, 1000)
    state = ControlState(lambda: 0.0)
    state.emit(a_report(number=1, outcomes=(an_outcome(old),)))
    for number in range(2, 40):
        outcome = an_outcome(new, pages={PageStatus.MOVED: number}, stopped_by=Reason.NO_MEMORY)
        state.emit(a_report(number=number, outcomes=(outcome,)))
    report = a_process_report(a_process(4242, start_ticks=1000))
    history = api.process(state.view(), report, now=0.0)["process"]["history"]
    assert [entry["tick"] for entry in history] == list(range(39, 19, -1))
    assert history[0]["stopped_by"] == "no-memory"


def test_a_comm_that_is_no_text_survives_json() -> None:
    report = a_process_report(a_process(comm=b"\xff\xfe".decode("utf-8", "surrogateescape")))
    text = json.dumps(api.process(ControlState(lambda: 0.0).view(), report, now=0.0))
    assert text.isascii()
    assert json.loads(text)["process"]["comm"].encode("utf-8", "surrogateescape") == b"\xff\xfe"
