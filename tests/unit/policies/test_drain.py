"""Tables for the policy drain: what is left, where it goes, in which order, what cannot move, and when it is done."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import PAGE_BYTES, ProcessSample, Snapshot, VmaKind, VmaPlacement, Window
from balancerd.policies.drain import Drain, DrainOptions, plugin
from balancerd.ports import ClosingPolicy, PlacingPlugin, PolicyContext
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N1,
    N2,
    N3,
    make_placement,
    make_process,
    make_snapshot,
    make_survey,
    make_vma,
)
from tests.unit.fakes import make_topology as topology


def policy(*nodes: int, **options: Any) -> Drain:
    given = DrainOptions(nodes=tuple(NodeId(n) for n in nodes or (2,)), **options)
    return plugin.build("empty", given, PolicyContext(migration_bytes_per_second=GIB))


def judged(
    policy: Drain, held: Mapping[int, Mapping[int, float]], processes: Iterable[ProcessSample] = (), **survey: Any
) -> dict[int, Verdict]:
    """Verdicts by pid, in their order; `held` is MiB by node, by pid."""
    known = {process.id.pid: process for process in processes}
    everybody = [known.get(pid) or make_process(pid) for pid in sorted({*held, *known})]
    placements = [make_placement(mib, pid=pid) for pid, mib in held.items()]
    now = make_snapshot(make_survey(*everybody, **survey), *placements)
    return {verdict.process.pid: verdict for verdict in policy.decide(Window(now=now, before=None))}


def test_what_is_on_the_node_goes_to_the_nearest_one_and_the_rest_stays() -> None:
    verdict = judged(policy(2), {1: {0: 100, 2: 156}})[1]
    assert isinstance(verdict, Decision)
    assert (verdict.target, verdict.sources, verdict.misplaced_bytes) == (N3, frozenset({N2}), 156 * MIB)
    assert (verdict.reason, verdict.holds) == (Reason.DRAIN, False)
    assert verdict.detail == "156.0 MiB left on node 2; node 2: 156 MiB of 1 processes left"


@pytest.mark.parametrize(
    ("nodes", "free", "target"),
    [
        ((2,), {3: 0}, N0),
        ((2, 3), {}, N0),
        ((2,), {3: 0, 0: 0}, N1),
    ],
)
def test_the_nearest_node_with_room_that_is_not_emptied_itself(
    nodes: tuple[int, ...], free: dict[int, int], target: NodeId
) -> None:
    verdict = judged(policy(*nodes), {1: {2: 256}}, free_bytes=free)[1]
    assert isinstance(verdict, Decision)
    assert verdict.target == target


def test_slow_memory_without_cpus_comes_last() -> None:
    ring = topology()
    nodes = tuple(replace(node, cpus=frozenset()) if node.id == 3 else node for node in ring.nodes)
    verdict = judged(policy(2), {1: {2: 256}}, topology=replace(ring, nodes=nodes))[1]
    assert isinstance(verdict, Decision)
    assert verdict.target == N0


def test_targets_never_go_above_watermark_and_reserve_and_are_filled_one_after_the_other() -> None:
    kept = int(0.1 * 8 * GIB) + 16 * MIB
    free = {3: kept + 200 * MIB, 0: kept + 100 * MIB, 1: kept}
    found = judged(policy(2), {pid: {2: 150} for pid in (1, 2, 3)}, free_bytes=free)
    assert [v.target if isinstance(v, Decision) else v.reason for v in found.values()] == [N3, N3, N0]
    last = judged(policy(2), {1: {2: 150}}, free_bytes={3: kept, 0: kept, 1: kept})[1]
    assert isinstance(last, Skip)
    assert last.reason is Reason.TARGET_FULL
    assert last.detail.startswith(
        "150.0 MiB left on node 2; no room on node 0-1,3; node 2: 150 MiB of 1 processes left"
    )


@pytest.mark.parametrize(("order", "pids"), [("largest", [2, 3, 1]), ("smallest", [1, 3, 2]), ("idle", [3, 1, 2])])
def test_the_order_is_an_option(order: str, pids: list[int]) -> None:
    processes = [make_process(pid, cpu_cores=cores) for pid, cores in ((1, 1.0), (2, 2.0), (3, 0.0))]
    assert list(judged(policy(2, order=order), {1: {2: 10}, 2: {2: 30}, 3: {2: 20}}, processes)) == pids


def test_what_cannot_move_says_why_and_how_much() -> None:
    bound = make_process(1, mems_allowed=frozenset({N2}))
    found = judged(policy(2), {1: {2: 64}}, [bound, make_process(2)])
    assert found[1].reason is Reason.OUTSIDE_CPUSET
    assert (
        found[1].detail
        == "64.0 MiB left on node 2; its Mems_allowed 2 has no other; node 2: 64 MiB of 1 processes left"
    )
    assert (found[2].reason, found[2].detail) == (Reason.NOT_SAMPLED, "what it has on node 2 is not known yet")


def judged_with_program_file(mib: int, pages: float) -> Verdict:
    """The verdict on a process with a program file, of which so many pages are on node 2."""
    placement = make_placement({0: 64})
    program = VmaPlacement(
        vma=make_vma(mib, 1, kind=VmaKind.FILE, executable=True, program=True),
        pages_by_node={N2: pages},
        absent_pages=mib * MIB / PAGE_BYTES - pages,
    )
    placement = replace(placement, vmas=(*placement.vmas, program))
    (verdict,) = policy(2).decide(Window(now=make_snapshot(make_survey(make_process()), placement), before=None))
    return verdict


def test_program_files_stay_and_are_told() -> None:
    verdict = judged_with_program_file(8, 2048.0)
    assert verdict.reason is Reason.DRAINED
    assert verdict.detail.startswith("8 MiB of program files stay; node 2: nothing of the processes looked at is left")


def test_less_than_a_mebibyte_of_program_files_is_not_worth_a_word() -> None:
    verdict = judged_with_program_file(1, 255.0)
    assert verdict.detail.startswith("node 2: nothing of the processes looked at is left")


@pytest.mark.parametrize(
    ("held", "target"), [({2: 64, 3: 64}, N0), ({2: 64, 3: 65}, N1), ({2: 65, 3: 64}, N0), ({1: 64, 3: 64}, N0)]
)
def test_what_lies_on_several_nodes_goes_to_the_one_nearest_to_most_of_it(
    held: dict[int, float], target: NodeId
) -> None:
    verdict = judged(policy(*held), {1: held})[1]
    assert isinstance(verdict, Decision)
    assert verdict.target == target
    assert verdict.source_bytes == {NodeId(node): round(mib * MIB) for node, mib in held.items()}


def test_of_which_it_is_not_known_how_busy_it_is_counts_as_idle() -> None:
    processes = [make_process(pid, cpu_cores=cores) for pid, cores in ((1, 0.5), (2, None), (3, 0.0))]
    assert list(judged(policy(2, order="idle"), {pid: {2: 10} for pid in (1, 2, 3)}, processes)) == [2, 3, 1]


def test_a_move_wins_nothing_and_costs_what_copying_does() -> None:
    verdict = judged(policy(2), {1: {2: 512}})[1]
    assert isinstance(verdict, Decision)
    assert (verdict.gain_cores, verdict.cost_seconds) == (0.0, 1.0)


def test_a_node_is_drained_when_nothing_is_left_and_what_others_use_is_told() -> None:
    found = judged(policy(2), {1: {0: 100}, 2: {3: 100}}, free_bytes={2: 8 * GIB - 300 * MIB})
    assert {verdict.reason for verdict in found.values()} == {Reason.DRAINED}
    assert {verdict.detail for verdict in found.values()} == {
        "node 2: nothing of the processes looked at is left, 300 MiB in use by others"
    }


def test_a_node_that_is_offline_is_drained() -> None:
    verdict = judged(policy(7), {1: {0: 100}})[1]
    assert (verdict.reason, verdict.detail) == (Reason.DRAINED, "node 7 is offline")


def test_idle_processes_move_too_and_the_nodes_are_closed() -> None:
    idle = make_process(1, cpu_cores=0.0)
    now = Snapshot(
        taken_at=0.0,
        survey=make_survey(idle),
        placements={ProcessId(1, 1): make_placement({2: 100}, pid=1)},
        eligible=(),
        idle=(idle,),
    )
    drain = policy(2, 3)
    (verdict,) = drain.decide(Window(now=now, before=None))
    assert isinstance(verdict, Decision)
    assert isinstance(drain, ClosingPolicy)
    assert drain.closed_nodes == {N2, N3}
    assert isinstance(plugin, PlacingPlugin)
    assert verdict.target == N0
    assert N1 not in drain.closed_nodes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{}", "missing key 'nodes'"),
        ("{nodes: []}", "an empty list names no node"),
        ("{nodes: 2, order: fastest}", "expected 'largest', 'smallest' or 'idle'"),
    ],
)
def test_options_are_checked(options: str, message: str) -> None:
    text = f"policies: [{{name: e, kind: drain, {options[1:]}]\n"
    with pytest.raises(ConfigError) as caught:
        loader.load_text(text, plugins={"drain": DrainOptions})
    assert message in str(caught.value)
