"""Tables for the policy cpuset-follow: what lies outside, what an affinity has left, where it goes, and what stays."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.sample import ProcessSample, Snapshot, Window
from balancerd.policies.cpuset_follow import CpusetFollow, CpusetFollowOptions, plugin
from balancerd.ports import PlacingPlugin, PolicyContext
from tests.unit.fakes import GIB, MIB, N0, N1, N2, N3, make_placement, make_process, make_snapshot, make_survey
from tests.unit.fakes import make_topology as topology


def policy(**options: Any) -> CpusetFollow:
    return plugin.build("cpusets", CpusetFollowOptions(**options), PolicyContext(migration_bytes_per_second=GIB))


def process(
    mems: Iterable[int] | None = range(4), cpus: Iterable[int] | None = range(4), **changes: Any
) -> ProcessSample:
    """CPUs are numbered as their nodes."""
    return make_process(
        mems_allowed=None if mems is None else frozenset(map(NodeId, mems)),
        cpus_allowed=None if cpus is None else frozenset(map(CpuId, cpus)),
        **changes,
    )


def judged(policy: CpusetFollow, who: ProcessSample, held: Mapping[int, float] | None, **survey: Any) -> Verdict:
    placements = () if held is None else (make_placement(held),)
    (verdict,) = policy.decide(Window(now=make_snapshot(make_survey(who, **survey), *placements), before=None))
    return verdict


@pytest.mark.parametrize(
    ("mems", "held", "reason"),
    [
        (range(4), {2: 256}, Reason.INSIDE_CPUSET),
        (range(4), None, Reason.INSIDE_CPUSET),
        ([0, 1], None, Reason.NOT_SAMPLED),
        ([0, 1], {0: 100, 1: 156}, Reason.INSIDE_CPUSET),
        ([0, 1], {0: 254, 2: 2}, Reason.INSIDE_CPUSET),
        ([0, 1], {0: 252, 2: 4}, Reason.CPUSET),
        ([0, 1], {2: 256}, Reason.CPUSET),
        ([0, 1], {}, Reason.INSIDE_CPUSET),
        (None, {2: 256}, Reason.OUTSIDE_CPUSET),
    ],
)
def test_what_lies_outside_of_mems_allowed_follows_at_first_sight(
    mems: Iterable[int] | None, held: Mapping[int, float] | None, reason: Reason
) -> None:
    assert judged(policy(), process(mems), held).reason is reason


def test_a_process_that_had_the_same_affinity_since_first_sight_is_left_alone() -> None:
    cpusets = policy()
    for _ in range(3):
        assert judged(cpusets, process(cpus=[0]), {2: 256}).reason is Reason.INSIDE_CPUSET


def test_memory_follows_a_narrowed_affinity_from_the_nodes_that_were_left() -> None:
    cpusets = policy()
    judged(cpusets, process(cpus=[0, 2]), {2: 100, 3: 156})
    verdict = judged(cpusets, process(cpus=[0]), {2: 100, 3: 156})
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.sources, verdict.misplaced_bytes) == (N0, frozenset({N2}), 100 * MIB)
    assert verdict.detail == "its affinity has left node 2"
    assert judged(cpusets, process(cpus=[0]), {0: 100, 3: 156}).reason is Reason.INSIDE_CPUSET


def test_an_affinity_that_is_widened_again_calls_nothing_back() -> None:
    cpusets = policy()
    verdicts = [judged(cpusets, process(cpus=cpus), {2: 256}) for cpus in ([0, 2], [0], [0, 1, 2, 3])]
    assert [verdict.reason for verdict in verdicts] == [Reason.INSIDE_CPUSET, Reason.CPUSET, Reason.INSIDE_CPUSET]


def test_an_affinity_that_moved_twice_has_left_both_nodes() -> None:
    cpusets = policy()
    verdict = [judged(cpusets, process(cpus=cpus), {2: 100, 3: 156}) for cpus in ([3], [2], [0])][-1]
    assert isinstance(verdict, Decision)
    assert verdict.sources == frozenset({N2, N3})


def test_affinity_is_an_option() -> None:
    cpusets = policy(affinity=False)
    judged(cpusets, process(cpus=[0, 2]), {2: 256})
    assert judged(cpusets, process(cpus=[0]), {2: 256}).reason is Reason.INSIDE_CPUSET


def test_where_the_cpuset_allows_memory_only_on_the_node_that_was_left_it_stays() -> None:
    cpusets = policy()
    judged(cpusets, process([2], [0, 2]), {2: 256})
    assert judged(cpusets, process([2], [0]), {2: 256}).reason is Reason.INSIDE_CPUSET


@pytest.mark.parametrize(
    ("mems", "cpus", "free", "target"),
    [
        ([0, 3], [0, 1, 2, 3], {}, N3),  # from node 2 it is 12 to node 3 and 31 to node 0... the nearest
        ([0, 1], [1], {}, N1),  # where its threads may run
        ([0, 1], [2], {}, N0),
        ([0, 3], [0, 1, 2, 3], {3: 0}, N0),
        ([0, 3], [0, 1, 2, 3], {0: 0, 3: 0}, None),
    ],
)
def test_it_goes_to_the_nearest_allowed_node_with_room(
    mems: list[int], cpus: list[int], free: dict[int, int], target: NodeId | None
) -> None:
    verdict = judged(policy(), process(mems, cpus), {2: 256}, free_bytes=free)
    if target is None:
        assert isinstance(verdict, Skip)
        assert verdict.reason is Reason.TARGET_FULL
        assert verdict.detail == "node 2 is not in its Mems_allowed; no room on node 0,3"
    else:
        assert isinstance(verdict, Decision)
        assert verdict.target == target
        assert verdict.reason is Reason.CPUSET


def test_nodes_without_memory_are_no_target_and_nothing_is_outside_of_them() -> None:
    verdict = judged(policy(), process([0, 1, 2]), {2: 256}, topology=topology(memoryless=(3,)))
    assert verdict.reason is Reason.INSIDE_CPUSET
    verdict = judged(policy(), process([1, 3]), {2: 256}, topology=topology(memoryless=(3,)))
    assert isinstance(verdict, Decision)
    assert verdict.target == N1


def test_a_move_under_way_goes_on_to_the_last_permille() -> None:
    cpusets = policy()
    assert judged(cpusets, process([0]), {2: 256}).reason is Reason.CPUSET
    assert judged(cpusets, process([0]), {0: 254, 2: 2}).reason is Reason.CPUSET
    assert judged(cpusets, process([0]), {0: 254, 2: 2}).reason is Reason.INSIDE_CPUSET


def test_an_idle_process_follows_as_well() -> None:
    idle = process([0], cpu_cores=0.0)
    now = Snapshot(
        taken_at=0.0,
        survey=make_survey(idle),
        placements={idle.id: make_placement({2: 256})},
        eligible=(),
        idle=(idle,),
    )
    (verdict,) = policy().decide(Window(now=now, before=None))
    assert verdict.reason is Reason.CPUSET
    assert isinstance(plugin, PlacingPlugin)


def test_a_move_wins_nothing_and_costs_what_copying_does() -> None:
    verdict = judged(policy(), process([0, 1]), {2: 512})
    assert isinstance(verdict, Decision)
    assert (verdict.gain_cores, verdict.cost_seconds, verdict.misplaced_bytes) == (0.0, 1.0, 512 * MIB)
    assert verdict.detail == "node 2 is not in its Mems_allowed"


@pytest.mark.parametrize(("held", "target"), [({2: 64, 3: 64}, N0), ({2: 64, 3: 65}, N1), ({2: 65, 3: 64}, N0)])
def test_what_lies_on_several_nodes_goes_to_the_one_nearest_to_most_of_it(
    held: dict[int, float], target: NodeId
) -> None:
    verdict = judged(policy(), process([0, 1]), held)
    assert isinstance(verdict, Decision)
    assert verdict.target == target
    assert verdict.sources == frozenset({N2, N3})


def test_of_what_it_has_lost_both_ways_both_are_told_and_nothing_goes_there() -> None:
    cpusets = policy()
    judged(cpusets, process(), {})
    verdict = judged(cpusets, process([0, 1, 3], [0, 1]), {2: 100, 3: 100})
    assert isinstance(verdict, Decision)
    assert verdict.detail == "node 2 is not in its Mems_allowed, its affinity has left node 3"
    assert verdict.source_bytes == {N2: 100 * MIB, N3: 100 * MIB}
    assert verdict.target == N0


def test_without_room_it_is_told_where_there_is_none() -> None:
    verdict = judged(policy(), process([0, 1]), {2: 256}, free_bytes={0: 0, 1: 0})
    assert isinstance(verdict, Skip)
    assert verdict.detail == "node 2 is not in its Mems_allowed; no room on node 0-1"
