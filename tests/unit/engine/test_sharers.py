"""Who has a say in where shared memory goes, and what each says."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.sharers import Sharers
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.manager import Manager
from balancerd.model.sample import PlacementSample, Snapshot, VmaPlacement
from tests.unit.fakes import N0, N2, make_placement, make_process, make_snapshot, make_survey, make_vma

OWN, OTHER = ProcessId(100, 1), ProcessId(101, 1)
SHARED = "0:1:7"


def mapping(*backings: str, pid: int) -> PlacementSample:
    """A process with some memory of its own and some shared memory."""
    placed = [
        VmaPlacement(vma=make_vma(64, 1 + at, shared=True, backing=backing), pages_by_node={N2: 1.0}, absent_pages=0.0)
        for at, backing in enumerate(backings)
    ]
    private = make_placement({2: 64}, pid=pid)
    return replace(private, vmas=(*private.vmas, *placed))


def snapshot(*, run: dict[int, float] | None = None, maps: str = SHARED, **changes: Any) -> Snapshot:
    """The process runs on node 0; of the other one `changes` are told."""
    own, other = make_process(OWN.pid), make_process(OTHER.pid, run=run, **changes)
    return make_snapshot(make_survey(own, other), mapping(SHARED, pid=OWN.pid), mapping(maps, pid=OTHER.pid))


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        pytest.param({"run": {0: 2.0}}, True, id="runs there"),
        pytest.param({"run": {0: 1.8, 1: 0.2}}, True, id="was elsewhere for a tenth"),
        pytest.param({"run": {0: 1.7, 1: 0.3}}, False, id="was elsewhere for longer"),
        pytest.param({"run": {1: 0.1}}, False, id="runs elsewhere"),
        pytest.param({"run": {1: 0.1}, "maps": "0:1:8"}, True, id="shares something else"),
        pytest.param({"run": {1: 0.1}, "maps": ""}, True, id="shares nothing"),
        pytest.param({"run": {}}, True, id="did not run"),
        pytest.param({"run_seconds": None}, True, id="hardly runs"),
        pytest.param({"run_seconds": None, "mems_allowed": None}, True, id="nothing is known"),
        pytest.param({"run_seconds": None, "mems_allowed": frozenset({N2})}, False, id="may not be there"),
        pytest.param({"opt_out": "BALANCERD=off"}, False, id="opted out"),
        pytest.param({"manager": Manager.LIBVIRT, "run_seconds": None}, False, id="placed by somebody else"),
        pytest.param({"manager": Manager.AFFINITY}, True, id="bound to CPUs"),
    ],
)
def test_it_moves_when_nobody_objects(other: dict[str, Any], agrees: bool) -> None:
    assert Sharers(snapshot(**other)).agreed(OWN, N0) == (frozenset({SHARED}) if agrees else frozenset())


def test_who_is_left_alone_but_runs_there_objects() -> None:
    seen = snapshot()
    assert Sharers(replace(seen, eligible=seen.eligible[:1])).agreed(OWN, N0) == frozenset()
    idle = snapshot(run={})
    assert Sharers(replace(idle, eligible=idle.eligible[:1])).agreed(OWN, N0) == frozenset({SHARED})


def test_one_that_runs_elsewhere_itself_does_not_draw_it_away() -> None:
    assert Sharers(snapshot()).agreed(OWN, NodeId(1)) == frozenset()


def test_each_target_is_judged_by_itself() -> None:
    sharers = Sharers(snapshot())
    told = [sharers.agreed(OWN, NodeId(node)) for node in (0, 1, 0)]
    assert told == [frozenset({SHARED}), frozenset(), frozenset({SHARED})]


def test_each_memory_is_judged_by_those_who_map_it() -> None:
    processes = make_process(1), make_process(2), make_process(3, run={2: 1.0})
    maps = mapping("0:1:1", "0:1:2", pid=1), mapping("0:1:1", pid=2), mapping("0:1:2", pid=3)
    seen = make_snapshot(make_survey(*processes), *maps)
    assert Sharers(seen).agreed(ProcessId(1, 1), N0) == frozenset({"0:1:1"})
    unknown = make_snapshot(make_survey(*processes), *maps[:2])
    assert Sharers(unknown).agreed(ProcessId(1, 1), N0) == frozenset({"0:1:1", "0:1:2"})
