"""Tables for the policy threads: when threads go to memory, when memory should come to them, and when nothing moves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from balancerd.model.decision import Reason, Skip, Steer, Verdict
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.sample import ProcessSample, Window
from balancerd.model.topology import Topology
from balancerd.policies.threads import Threads, ThreadsOptions, plugin
from balancerd.ports import PolicyContext, SteeringPlugin
from tests.unit.fakes import RING, make_placement, make_process, make_snapshot, make_survey, make_topology

IDLE = {0: 0.25, 1: 0.0, 2: 0.0, 3: 0.0}
LARGE = {1: 8192.0}


def topology(cpus: int = 4) -> Topology:
    """So many CPUs a node, numbered node by node."""
    plain = make_topology(RING)
    nodes = tuple(
        replace(node, cpus=frozenset(CpuId(node.id * cpus + number) for number in range(cpus))) for node in plain.nodes
    )
    return Topology(nodes=nodes, node_of_cpu={cpu: node.id for node in nodes for cpu in node.cpus})


ALL_CPUS = frozenset(topology().node_of_cpu)


class Ticks:
    """A policy, and looks at one machine every two seconds."""

    def __init__(self, **options: Any) -> None:
        self.policy = Threads("threads", ThreadsOptions(**options), PolicyContext(migration_bytes_per_second=1 << 30))
        self.at = 0.0

    def look(
        self,
        *processes: ProcessSample,
        mib: Mapping[int, float] = LARGE,
        loads: Mapping[int, float] | None = IDLE,
        ticks: int = 1,
        cpus: int = 4,
    ) -> list[Verdict]:
        """The verdicts of the last of so many looks."""
        verdicts: list[Verdict] = []
        for _ in range(ticks):
            self.at += 2.0
            survey = make_survey(*processes, at=self.at, topology=topology(cpus), loads=loads)
            placements = [make_placement(mib, pid=process.id.pid) for process in processes]
            verdicts = list(self.policy.decide(Window(now=make_snapshot(survey, *placements), before=None)))
        return verdicts


def a_process(pid: int = 100, *, run: Mapping[int, float] | None = None, **changes: Any) -> ProcessSample:
    changes = {"cpus_allowed": ALL_CPUS, **changes}
    return make_process(pid, run={0: 2.0} if run is None else run, **changes)


def test_threads_go_to_memory_that_is_dear_to_move() -> None:
    (verdict,) = Ticks().look(a_process(), ticks=3)
    assert isinstance(verdict, Steer)
    assert (verdict.policy, verdict.target, verdict.pin, verdict.own_affinity) == ("threads", 1, False, False)
    assert verdict.cpus == {4, 5, 6, 7}
    assert verdict.gain_cores == pytest.approx(0.12 * 0.2)
    assert 0.005 < verdict.cost_seconds < 0.02
    assert verdict.reason is Reason.STEER
    assert verdict.detail.startswith("8192 of 8192 MiB on node 1, 1.00 cores run elsewhere; threads cost 0.01 s")


@pytest.mark.parametrize(
    ("mib", "changes", "loads", "reason"),
    [
        ({1: 8192.0}, {}, IDLE, None),
        ({1: 7000.0, 0: 3000.0}, {}, IDLE, None),
        ({1: 6900.0, 0: 3100.0}, {}, IDLE, Reason.NO_MAIN_NODE),
        ({1: 2.0}, {}, IDLE, Reason.MEMORY_CHEAPER),
        ({1: 64.0}, {"n_threads": 100}, IDLE, Reason.MEMORY_CHEAPER),
        ({1: 64.0}, {"n_threads": 4}, IDLE, None),
        ({0: 8192.0}, {}, IDLE, Reason.WELL_PLACED),
        (LARGE, {}, {0: 0.95, 1: 0.70}, None),
        (LARGE, {}, {0: 0.95, 1: 0.72}, Reason.NODE_BUSY),
        (LARGE, {}, None, Reason.NODE_BUSY),
        (LARGE, {}, {0: 0.3, 2: 0.0}, Reason.NODE_BUSY),
        (LARGE, {}, {0: 0.55, 1: 0.45}, Reason.UNBALANCED),
        (LARGE, {}, {0: 0.60, 1: 0.40}, Reason.UNBALANCED),
        (LARGE, {}, {0: 0.60, 1: 0.30}, None),
        (LARGE, {"cpu_cores": 0.05, "run": {0: 0.1}}, IDLE, Reason.BELOW_MIN_CPU),
        (LARGE, {"run": {}}, IDLE, Reason.NO_HOME),
        (LARGE, {"cpus_allowed": frozenset({CpuId(0)})}, IDLE, Reason.OUTSIDE_AFFINITY),
        (LARGE, {"cpus_allowed": frozenset({CpuId(0), CpuId(4)})}, IDLE, Reason.NODE_BUSY),
        (LARGE, {"run": {1: 2.0}}, IDLE, Reason.WELL_PLACED),
        (LARGE, {"run": {0: 1.0, 2: 1.0}}, {0: 0.125, 1: 0.0, 2: 0.125}, None),
        (LARGE, {"run": {0: 1.0, 2: 1.0}}, {0: 0.125, 1: 0.05, 2: 0.125}, Reason.UNBALANCED),
        (LARGE, {"n_threads": 64, "cpu_cores": 0.2, "run": {0: 0.4}}, IDLE, Reason.LOSS_BELOW_COST),
    ],
)
def test_where_threads_belong(
    mib: Mapping[int, float], changes: Mapping[str, Any], loads: Mapping[int, float] | None, reason: Reason | None
) -> None:
    (verdict,) = Ticks().look(a_process(**changes), mib=mib, loads=loads, ticks=4)
    if reason is None:
        assert isinstance(verdict, Steer), verdict
        assert verdict.target == 1
    else:
        assert isinstance(verdict, Skip), verdict
        assert (verdict.reason, verdict.by) == (reason, "threads")


@pytest.mark.parametrize(
    ("mib", "changes", "loads", "detail"),
    [
        ({1: 6900.0, 0: 3100.0}, {}, IDLE, "69% of its memory is on node 1"),
        (LARGE, {"cpu_cores": 0.05, "run": {0: 0.1}}, IDLE, "0.050 of 0.100 cores"),
        (
            LARGE,
            {"cpus_allowed": frozenset({CpuId(0)})},
            IDLE,
            "100% of its memory is on node 1, which is outside of its Cpus_allowed",
        ),
        (LARGE, {"run": {1: 2.0}}, IDLE, "100% of its memory is on node 1, where its threads run"),
        (LARGE, {}, None, "how busy node 1 is, is not known"),
        (
            LARGE,
            {},
            {0: 0.95, 1: 0.72},
            "8192 of 8192 MiB on node 1, 1.00 cores run elsewhere; 1.12 cores are idle there",
        ),
        (
            {1: 2.0},
            {},
            IDLE,
            "2 of 2 MiB on node 1, 1.00 cores run elsewhere; threads cost 0.01 s, memory 0.00 s",
        ),
        (
            {1: 6000.0, 0: 2000.0},
            {"cpu_cores": 2.0, "run": {0: 3.0, 1: 1.0}},
            IDLE,
            (
                "6000 of 8000 MiB on node 1, 1.50 cores run elsewhere; threads cost 3.91 s, memory 11.72 s; "
                "gain 0.018 cores; imbalance 25%, then 50%"
            ),
        ),
        (
            LARGE,
            {},
            {0: 0.55, 1: 0.45},
            (
                "8192 of 8192 MiB on node 1, 1.00 cores run elsewhere; threads cost 0.01 s, memory 16.00 s; "
                "gain 0.024 cores; imbalance 10%, then 40%"
            ),
        ),
        (
            LARGE,
            {"n_threads": 64, "cpu_cores": 0.2, "run": {0: 0.4}},
            IDLE,
            (
                "8192 of 8192 MiB on node 1, 0.20 cores run elsewhere; threads cost 0.33 s, memory 16.00 s; "
                "gain 0.005 cores; away for 8.0 s"
            ),
        ),
    ],
)
def test_what_is_told_of_it(
    mib: Mapping[int, float], changes: Mapping[str, Any], loads: Mapping[int, float] | None, detail: str
) -> None:
    (verdict,) = Ticks().look(a_process(**changes), mib=mib, loads=loads, ticks=4)
    assert verdict.detail == detail


def test_the_busiest_are_judged_first_and_those_of_which_it_is_not_known_last() -> None:
    processes = [a_process(pid, cpu_cores=cores) for pid, cores in ((1, 0.5), (2, None), (3, 0.0), (4, 2.0), (5, 0.5))]
    assert [verdict.process.pid for verdict in Ticks().look(*processes)] == [4, 1, 5, 2, 3]


@pytest.mark.parametrize(("seconds", "reason"), [(4.0, Reason.STEER), (4.1, Reason.HOME_TOO_YOUNG)])
def test_who_has_been_away_for_as_long_as_is_asked_has_been_away_long_enough(seconds: float, reason: Reason) -> None:
    ticks = Ticks(min_wait_seconds=seconds)
    (verdict,) = ticks.look(a_process(), ticks=2)
    assert verdict.reason is reason


@pytest.mark.parametrize(("cores", "reason"), [(2.0, Reason.STEER), (0.5, Reason.NODE_BUSY)])
def test_the_cpus_that_threads_leave_are_idle_for_the_next_process(cores: float, reason: Reason) -> None:
    """One CPU of node 0 is idle, and as many more as the first process leaves; the second needs 1.4."""
    one, other = a_process(1, cpu_cores=cores, run={0: 2 * cores}), a_process(2, cpu_cores=0.45, run={2: 1.0})
    third = a_process(3, cpu_cores=1.4, run={2: 2.8})
    ticks, verdicts = Ticks(), {}
    for at in range(2, 10, 2):
        loads = {0: 0.75, 1: 0.2, 2: 0.9, 3: 0.0}
        survey = make_survey(one, other, third, at=float(at), topology=topology(), loads=loads)
        placed = [make_placement({1: 8192.0}, pid=1), make_placement({0: 8192.0}, pid=3)]
        judged = ticks.policy.decide(Window(now=make_snapshot(survey, *placed), before=None))
        verdicts = {verdict.process.pid: verdict.reason for verdict in judged}
    assert verdicts[3] is reason
    assert verdicts[1] is Reason.STEER


@pytest.mark.parametrize(("away", "reason"), [(1, Reason.HOME_TOO_YOUNG), (2, Reason.STEER)])
def test_threads_that_have_just_left_are_waited_for(away: int, reason: Reason) -> None:
    ticks = Ticks()
    ticks.look(a_process(run={1: 2.0}), ticks=5)
    (verdict,) = ticks.look(a_process(run={0: 2.0}), ticks=away)
    assert verdict.reason is reason


def test_threads_that_were_there_in_between_are_waited_for_anew() -> None:
    ticks = Ticks()
    ticks.look(a_process(run={0: 2.0}), ticks=2)
    ticks.look(a_process(run={1: 2.0}))
    (verdict,) = ticks.look(a_process(run={0: 2.0}))
    assert verdict.reason is Reason.HOME_TOO_YOUNG


def test_memory_whose_node_is_not_known_is_left_alone() -> None:
    ticks = Ticks()
    survey = make_survey(a_process(), at=2.0, topology=topology(), loads=IDLE)
    (verdict,) = ticks.policy.decide(Window(now=make_snapshot(survey), before=None))
    assert verdict.reason is Reason.NOT_SAMPLED
    (verdict,) = ticks.look(a_process(), mib={})
    assert verdict.reason is Reason.NOTHING_PRESENT


def test_two_processes_do_not_get_the_same_idle_cpu() -> None:
    one, other = a_process(1, cpu_cores=2.0, run={0: 4.0}), a_process(2, cpu_cores=1.5, run={2: 3.0})
    verdicts = Ticks().look(one, other, loads={0: 0.75, 1: 0.2, 2: 0.6, 3: 0.0}, ticks=4)
    assert [type(verdict) for verdict in verdicts] == [Steer, Skip]
    assert verdicts[1].reason is Reason.NODE_BUSY


def test_pinned_threads_stay_wanted_until_it_is_not_right_any_more() -> None:
    ticks = Ticks(method="pin")
    (verdict,) = ticks.look(a_process(), ticks=3)
    assert isinstance(verdict, Steer)
    assert verdict.pin
    (verdict,) = ticks.look(a_process(run={1: 2.0}), ticks=20)
    assert isinstance(verdict, Steer)
    assert (verdict.pin, verdict.target) == (True, 1)
    (verdict,) = ticks.look(a_process(run={1: 2.0}), mib={1: 6000, 0: 4000})
    assert isinstance(verdict, Steer), "it has lost some of its share, not enough"
    (verdict,) = ticks.look(a_process(run={1: 2.0}), mib={1: 5500, 0: 4500})
    assert verdict.reason is Reason.NO_MAIN_NODE


@pytest.mark.parametrize(
    ("changes", "loads", "reason"),
    [
        ({}, {1: 0.99}, Reason.NODE_BUSY),
        ({}, {1: 0.90}, Reason.STEER),
        ({}, None, Reason.NODE_BUSY),
    ],
)
def test_pinned_threads_are_let_go_when_others_want_the_node(
    changes: Mapping[str, Any], loads: Mapping[int, float] | None, reason: Reason
) -> None:
    ticks = Ticks(method="pin")
    ticks.look(a_process(), ticks=3)
    (verdict,) = ticks.look(a_process(run={1: 2.0}, **changes), loads=loads)
    assert verdict.reason is reason


def test_what_was_wanted_and_not_done_is_weighed_again() -> None:
    ticks = Ticks(method="pin")
    ticks.look(a_process(), ticks=3)
    (verdict,) = ticks.look(a_process(), loads=IDLE | {1: 0.9})
    assert verdict.reason is Reason.NODE_BUSY, "its threads are not there, so that they need the room"


def test_kicked_threads_that_are_there_are_well_placed_at_once() -> None:
    ticks = Ticks()
    ticks.look(a_process(), ticks=3)
    (verdict,) = ticks.look(a_process(run={1: 2.0}))
    assert verdict.reason is Reason.WELL_PLACED


def test_options_are_handed_on_and_checked() -> None:
    (verdict,) = Ticks(own_affinity=True).look(a_process(), ticks=3)
    assert isinstance(verdict, Steer)
    assert verdict.own_affinity
    options = ThreadsOptions.from_text({"method": "pin", "min_share": "90%", "min_cpu": 0.5, "min_wait": "10s"})
    assert (options.method, options.min_share, options.min_cpu_cores, options.min_wait_seconds) == ("pin", 0.9, 0.5, 10)
    for wrong in ({"method": "push"}, {"min_share": "50%"}, {"min_wait": "2h"}, {"other": 1}):
        with pytest.raises(ValidationError):
            ThreadsOptions.from_text(wrong)


def test_its_plugin_says_that_it_moves_threads() -> None:
    assert isinstance(plugin, SteeringPlugin)
    assert plugin.moves_threads
    assert plugin.build("x", ThreadsOptions(), PolicyContext(migration_bytes_per_second=1.0)).name == "x"


def test_a_node_without_cpus_takes_no_threads() -> None:
    plain = topology()
    nodes = tuple(replace(node, cpus=frozenset()) if node.id == NodeId(1) else node for node in plain.nodes)
    survey = make_survey(a_process(), at=2.0, topology=replace(plain, nodes=nodes), loads=IDLE)
    snapshot = make_snapshot(survey, make_placement(LARGE))
    (verdict,) = Ticks().policy.decide(Window(now=snapshot, before=None))
    assert verdict.reason is Reason.OUTSIDE_AFFINITY
