"""Tables for the policy access: what a window of accesses leads to, and which processes it wants watched."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.model.access import AccessMethod, AccessRun, AccessWindow
from balancerd.model.copying import Copying
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.extent import Extent
from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample, Snapshot, Window
from balancerd.model.topology import Topology
from balancerd.policies import access
from balancerd.policies.access import Access, AccessOptions, plugin
from balancerd.ports import AccessPolicy, PolicyContext
from tests.unit.fakes import (
    GIB,
    MIB,
    N0,
    N1,
    N2,
    N3,
    VMA_START,
    make_access_run,
    make_access_window,
    make_process,
    make_region,
    make_snapshot,
    make_survey,
    make_topology,
)

EVERYWHERE = {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}
PID = ProcessId(100, 1)


def policy(**options: Any) -> Access:
    return plugin.build("parts", AccessOptions(**options), PolicyContext(migration_bytes_per_second=GIB))


def spread(pid: int = 100, **changes: Any) -> ProcessSample:
    """Four threads at work on four nodes."""
    process = {"run": EVERYWHERE, "cpu_cores": 4.0, "rss_bytes": GIB, **changes}
    return make_process(pid, **process)


def seen(process: ProcessSample, *windows: AccessWindow, at: float = 2.0, topology: Topology | None = None) -> Snapshot:
    return make_snapshot(make_survey(process, at=at, topology=topology), windows=windows)


def judge(*runs: AccessRun, process: ProcessSample | None = None, **window: Any) -> list[Verdict]:
    snapshot = seen(process or spread(), make_access_window(*runs, **window))
    return list(policy().decide(Window(now=snapshot, before=None)))


def only_skip(verdicts: list[Verdict]) -> tuple[Reason, str]:
    (skip,) = verdicts
    assert isinstance(skip, Skip)
    assert skip.by == "parts"
    return skip.reason, skip.detail


def test_what_the_machine_has_measured_is_what_a_part_costs() -> None:
    snapshot = seen(spread(), make_access_window(make_access_run(64, 1, {0: 64}, weight=100)))
    fast = replace(snapshot, copying=Copying(copied_bytes=float(64 * GIB), seconds=32.0))
    costs = []
    for now in (snapshot, fast):
        (decision,) = policy().decide(Window(now=now, before=None))
        assert isinstance(decision, Decision)
        costs.append(decision.cost_seconds)
    assert costs[1] == pytest.approx(costs[0] / 2, rel=0.01)


def test_it_is_a_policy_that_asks_for_accesses() -> None:
    assert isinstance(policy(), AccessPolicy)


def test_each_part_is_called_to_the_node_of_its_threads_with_its_size_its_sources_and_its_gain() -> None:
    runs = [make_access_run(16, node, {0: 16}, at_mib=16 * node, weight=100) for node in range(4)]
    decisions = judge(*runs)
    told = [(d.target, d.misplaced_bytes, d.source_bytes, d.extents) for d in decisions if isinstance(d, Decision)]
    assert told == [
        (n, 16 * MIB, {N0: 16 * MIB}, (Extent(VMA_START + n * 16 * MIB, VMA_START + (n + 1) * 16 * MIB),))
        for n in (1, 2, 3)
    ]
    # a quarter of the accesses of 4 cores each, at distances 12, 21 and 31 of RING
    gains = [d.gain_cores for d in decisions if isinstance(d, Decision)]
    assert gains == pytest.approx([0.12 * 0.2, 0.12 * 1.1, 0.12 * 2.1])
    assert [d.cost_seconds for d in decisions if isinstance(d, Decision)] == pytest.approx([2 * 16 / 1024] * 3)
    assert {d.reason for d in decisions} == {Reason.MISPLACED}


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        pytest.param({"run": {0: 2.0}}, Reason.ONE_HOME, "100% on one node at a time", id="one node"),
        pytest.param({"run": {0: 1.9, 1: 0.1}}, Reason.ONE_HOME, "95% on one node at a time", id="nearly one node"),
        pytest.param({"run": {}}, Reason.NO_HOME, "", id="never ran"),
        pytest.param({"cpu_cores": 0.4}, Reason.NOT_WATCHED, "0.40 of 0.50 cores", id="hardly runs"),
        pytest.param({"cpu_cores": None}, Reason.NOT_WATCHED, "0.00 of 0.50 cores", id="first sight"),
        pytest.param({"rss_bytes": 127 * MIB}, Reason.NOT_WATCHED, "127 of 128 MiB", id="small"),
    ],
)
def test_whom_it_does_not_want_watched_and_why(changes: dict[str, Any], reason: Reason, detail: str) -> None:
    process = spread(**changes)
    watcher = policy()
    assert list(watcher.watch(seen(process))) == []
    assert only_skip(list(watcher.decide(Window(now=seen(process), before=None)))) == (reason, detail)


def test_with_processes_all_a_process_with_one_home_is_watched_too_and_the_busiest_comes_first() -> None:
    alone, busier = spread(run={0: 2.0}), spread(101, run={0: 2.0}, cpu_cores=5.0)
    snapshot = make_snapshot(make_survey(alone, busier, at=2.0))
    assert list(policy().watch(snapshot)) == []
    assert list(policy(processes="all").watch(snapshot)) == [ProcessId(101, 1), PID]


def test_a_thread_that_wanders_from_node_to_node_is_on_one_node_at_a_time() -> None:
    watcher = policy()
    for tick in range(1, 30):
        process = spread(run={tick % 4: 2.0}, cpu_cores=1.0)
        assert list(watcher.watch(seen(process, at=2.0 * tick))) == []


def test_a_process_is_watched_on_while_it_gathers_and_no_more_once_it_has() -> None:
    watcher, watched = policy(), []
    for tick in range(1, 61):
        run = EVERYWHERE if tick < 20 else {0: 7.4, 1: 0.6} if tick < 50 else {0: 8.0}
        watched.append(bool(list(watcher.watch(seen(spread(run=run), at=2.0 * tick)))))
    assert all(watched[:50])  # 92.5 % on one node is not yet one home for it, but would not make it watched
    assert not watched[-1]
    assert not list(policy().watch(seen(spread(run={0: 7.4, 1: 0.6}))))


@pytest.mark.parametrize(("processes", "moves"), [("several-homes", False), ("all", True)])
def test_parts_stay_with_the_process_once_it_has_gathered_though_it_is_watched_on(processes: str, moves: bool) -> None:
    it, run = policy(processes=processes), make_access_run(16, 1, {0: 16}, weight=100)
    for tick in range(1, 30):
        snapshot = seen(spread(), make_access_window(run), at=2.0 * tick)
        assert all(isinstance(each, Decision) for each in it.decide(Window(now=snapshot, before=None)))
    gathered = seen(spread(run={2: 7.6, 0: 0.4}), make_access_window(run), at=60.0)
    assert list(it.watch(gathered))
    verdicts = list(it.decide(Window(now=gathered, before=None)))
    if moves:
        assert all(isinstance(each, Decision) for each in verdicts)
    else:
        assert only_skip(verdicts) == (Reason.ONE_HOME, "95% on one node now")


def test_a_process_that_nobody_could_watch_is_told_with_the_reason() -> None:
    assert only_skip(list(policy().decide(Window(now=seen(spread()), before=None)))) == (
        Reason.NOT_WATCHED,
        "no source of accesses is at work",
    )
    missed = Skip(by="accesses", process=PID, reason=Reason.NOT_WATCHED, detail="perf_event_open is refused")
    snapshot = replace(seen(spread()), unwatched={PID: missed})
    assert only_skip(list(policy().decide(Window(now=snapshot, before=None)))) == (
        Reason.NOT_WATCHED,
        "perf_event_open is refused",
    )


FAR = make_access_run(16, 2, {0: 16})


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        pytest.param({"lost_samples": 100, "samples": 800}, Reason.SAMPLES_LOST, id="11 % lost"),
        pytest.param({"lost_samples": 80, "samples": 800}, None, id="9 % lost"),
        pytest.param({"cut_samples": 8000, "samples": 800}, None, id="cut off for all alike"),
        pytest.param({"throttled": 1}, Reason.SAMPLES_LOST, id="throttled once"),
        pytest.param({"watched_seconds": 0.05}, Reason.LOSS_BELOW_COST, id="has not yet lost what the move costs"),
        pytest.param({"watched_seconds": 0.06}, None, id="has lost as much: 0.528 cores, 0.03125 s"),
        pytest.param({"hits": 1, "samples": 100_000}, Reason.GAIN_BELOW_COST, id="hardly any sample tells an address"),
    ],
)
def test_windows_that_say_too_little_are_left(window: dict[str, Any], reason: Reason | None) -> None:
    verdicts = judge(FAR, **window)
    assert (only_skip(verdicts)[0] if reason else type(verdicts[0])) == (reason or Decision)


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (None, (Reason.TOO_FEW_SAMPLES, "the kernel has counted no hint faults of it yet")),
        (0.26, (Reason.TOO_FEW_SAMPLES, "26.0% of its hint faults were local by the kernel's counters, which tell no")),
        (0.98, (Reason.TOO_FEW_SAMPLES, "98.0% of its hint faults were local")),
        (0.989, (Reason.TOO_FEW_SAMPLES, "98.9% of its hint faults were local by the kernel's counters, which")),
        (0.99, (Reason.WELL_PLACED, "99.0% of its hint faults were local by the kernel's counters")),
        (0.995, (Reason.WELL_PLACED, "99.5% of its hint faults were local by the kernel's counters")),
    ],
)
def test_the_kernels_counters_move_nothing_and_tell_how_much_is_local(
    ratio: float | None, told: tuple[Reason, str]
) -> None:
    window: dict[str, Any] = {"samples": 0, "hits": 0, "method": AccessMethod.KERNEL_COUNTERS, "local_ratio": ratio}
    reason, detail = only_skip(judge(**window))
    assert reason is told[0]
    assert detail.startswith(told[1])


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        pytest.param([], Reason.TOO_FEW_SAMPLES, id="nothing judged"),
        pytest.param([make_access_run(16, 2, {2: 16})], Reason.WELL_PLACED, id="all at home"),
        pytest.param([make_access_run(16, 2, {2: 15.9, 0: 0.1})], Reason.WELL_PLACED, id="a trace elsewhere"),
        pytest.param([make_access_run(100, 2, {2: 99.1, 0: 0.9})], Reason.WELL_PLACED, id="less than a hundredth"),
        pytest.param([make_access_run(16, 2, None)], Reason.TOO_FEW_SAMPLES, id="nobody knows where it lies"),
        pytest.param([make_access_run(16, 2, {})], Reason.TOO_FEW_SAMPLES, id="nothing of it is present"),
        pytest.param(
            [make_access_run(16, 2, {0: 16}, node_weight=50.0)], Reason.GAIN_BELOW_COST, id="half of it is others'"
        ),
        pytest.param(
            [make_access_run(16, 2, {2: 16}, weight=1e6), make_access_run(64, 1, {0: 64}, at_mib=16, weight=1)],
            Reason.GAIN_BELOW_COST,
            id="hardly used",
        ),
    ],
)
def test_runs_that_do_not_move(runs: list[AccessRun], reason: Reason) -> None:
    assert only_skip(judge(*runs))[0] is reason


@pytest.mark.parametrize(
    ("pages", "weight_of_each", "moves"),
    [
        pytest.param(1, 2.0, False, id="one page"),
        pytest.param(31, 2.0, False, id="not enough pages"),
        pytest.param(32, 2.0, True, id="enough pages"),
        pytest.param(32, 1.9, False, id="some of them without samples"),
        pytest.param(511, 0.1, False, id="most of them without samples"),
        pytest.param(511, 0.13, True, id="most without, and the others enough"),
        pytest.param(512, 0.02, True, id="a region as a whole"),
        pytest.param(1, 7.4, True, id="a page with many"),
        pytest.param(8, 7.0, True, id="pages with many each"),
        pytest.param(8, 6.9, False, id="pages with not quite as many"),
    ],
)
def test_scattered_pages_of_which_few_samples_were_seen_may_as_well_be_shared(
    pages: int, weight_of_each: float, moves: bool
) -> None:
    mib = pages / 256
    (verdict,) = judge(make_access_run(mib, 2, {0: mib}, weight=pages * weight_of_each))
    assert isinstance(verdict, Decision) == moves
    if not moves:
        assert only_skip([verdict])[0] is Reason.SHARED_ACCESS


def test_a_node_without_memory_is_no_target() -> None:
    snapshot = seen(spread(), make_access_window(FAR), topology=make_topology(memoryless={2}))
    verdicts = list(policy().decide(Window(now=snapshot, before=None)))
    assert only_skip(verdicts)[0] is Reason.HOME_WITHOUT_MEMORY


def test_memory_that_nobody_owns_is_said_to_be_shared() -> None:
    regions = (make_region(0, is_mixed=True, n0=40.0, n2=40.0), make_region(1, is_mixed=True, n0=9.0, n1=8.0))
    assert only_skip(judge(regions=regions)) == (Reason.SHARED_ACCESS, "4.0 MiB belong to several nodes")


def test_accesses_outside_of_all_runs_count_in_what_a_run_is_worth() -> None:
    (alone,) = judge(FAR)
    (beside,) = judge(FAR, regions=(make_region(100, n0=300.0), make_region(0, n2=100.0)))
    assert isinstance(alone, Decision)
    assert isinstance(beside, Decision)
    assert beside.gain_cores == pytest.approx(alone.gain_cores / 4)


def test_the_hottest_move_first_and_no_more_than_until_the_next_tick() -> None:
    process = spread(cpu_cores=64.0, rss_bytes=100 * GIB)
    weights = [1.0, 5.0, 3.0, 4.0, 2.0]
    runs = [make_access_run(1024, 2, {0: 1024}, at_mib=1024 * i, weight=w) for i, w in enumerate(weights)]
    (decision,) = judge(*runs, process=process)
    assert isinstance(decision, Decision)
    assert decision.extents == (
        Extent(VMA_START + 1 * GIB, VMA_START + 2 * GIB),
        Extent(VMA_START + 3 * GIB, VMA_START + 4 * GIB),
    )
    assert decision.misplaced_bytes == 2 * GIB  # 1 GiB/s for 2 s


HUGE = (Extent(VMA_START, VMA_START + 64 * MIB),)


@pytest.mark.parametrize(
    ("huge", "halves"),
    [
        pytest.param((), {1: 1.0, 2: 1.0}, id="base pages go each to its node"),
        pytest.param(None, {}, id="any may be huge"),
        pytest.param(HUGE, {}, id="a huge page"),
        pytest.param((Extent(VMA_START + 64 * MIB, VMA_START + 65 * MIB),), {1: 1.0, 2: 1.0}, id="huge elsewhere"),
    ],
)
def test_a_region_whose_halves_belong_to_two_nodes_moves_only_where_pages_are_small(
    huge: tuple[Extent, ...] | None, halves: dict[int, float]
) -> None:
    runs = [
        make_access_run(1, 1, {0: 1}, weight=500, is_mixed=True),
        make_access_run(1, 2, {0: 1}, at_mib=1, weight=500, is_mixed=True),
    ]
    verdicts = judge(*runs, huge=huge)
    assert {d.target: d.misplaced_bytes / MIB for d in verdicts if isinstance(d, Decision)} == halves
    if not halves:
        assert only_skip(verdicts)[0] is Reason.SHARED_ACCESS


@pytest.mark.parametrize(
    ("huge", "end_mib", "start_mib"),
    [
        pytest.param((), 4.5, 4.5, id="base pages"),
        pytest.param(HUGE, 4.0, 6.0, id="huge"),
        pytest.param(None, 4.0, 6.0, id="may be huge"),
        pytest.param((Extent(VMA_START, VMA_START + 4 * MIB),), 4.5, 4.5, id="huge up to there"),
        pytest.param((Extent(VMA_START, VMA_START + 5 * MIB),), 4.5, 4.5, id="the mapping ends within the region"),
        pytest.param((Extent(VMA_START + 4 * MIB, VMA_START + 64 * MIB),), 4.0, 6.0, id="huge from there on"),
    ],
)
def test_of_memory_in_huge_pages_only_whole_regions_move(
    huge: tuple[Extent, ...] | None, end_mib: float, start_mib: float
) -> None:
    runs = [
        make_access_run(4.5, 1, {0: 4.5}, weight=500),  # ends with a quarter of the third region
        make_access_run(3.5, 2, {0: 3.5}, at_mib=4.5, weight=500),
    ]
    verdicts = judge(*runs, huge=huge)
    extents = {d.target: d.extents for d in verdicts if isinstance(d, Decision)}
    assert extents == {
        N1: (Extent(VMA_START, VMA_START + round(end_mib * MIB)),),
        N2: (Extent(VMA_START + round(start_mib * MIB), VMA_START + 8 * MIB),),
    }


def test_the_same_snapshot_gives_the_same_verdicts_whether_or_not_it_was_asked_whom_to_watch() -> None:
    runs = [make_access_run(16, node, {0: 16}, at_mib=16 * node) for node in range(4)]
    asked, not_asked = policy(), policy()
    for tick in range(1, 5):
        snapshot = seen(spread(), make_access_window(*runs, at=2.0 * tick, hits=100 * tick), at=2.0 * tick)
        list(asked.watch(snapshot))
        window = Window(now=snapshot, before=None)
        assert list(asked.decide(window)) == list(not_asked.decide(window))


def test_every_run_is_told_of_in_the_detail_when_nothing_moves() -> None:
    runs = [make_access_run(16, 2, {2: 16}), make_access_run(4, 1, None, at_mib=16)]
    reason, detail = only_skip(judge(*runs))
    assert reason is Reason.WELL_PLACED
    assert detail == (
        "16 MiB lie where the threads run that use them; "
        "4.0 MiB are used by one node each, but where they lie is not known"
    )


def test_pages_of_nodes_that_have_gone_offline_count_nowhere() -> None:
    topology = make_topology(((10, 21), (21, 10)))
    run = make_access_run(16, 1, {0: 8, 3: 8})
    snapshot = seen(spread(run={0: 2.0, 1: 2.0}), make_access_window(run), topology=topology)
    (decision,) = policy().decide(Window(now=snapshot, before=None))
    assert isinstance(decision, Decision)
    assert decision.source_bytes == {N0: 8 * MIB}
    assert N2 not in topology.node_ids


def test_what_wins_most_for_its_cost_moves_first_however_small_it_is() -> None:
    process = spread(cpu_cores=64.0, rss_bytes=100 * GIB)
    runs = [
        make_access_run(8 * 1024, 2, {0: 8 * 1024}, weight=10),
        make_access_run(2 * 1024, 2, {0: 2 * 1024}, at_mib=8 * 1024, weight=5),
    ]
    (decision,) = judge(*runs, process=process)
    assert isinstance(decision, Decision)
    assert decision.extents == (Extent(VMA_START + 8 * GIB, VMA_START + 10 * GIB),)


@pytest.mark.parametrize(("seconds", "gib"), [(1.0, 1), (3.0, 3), (2.5, 3)])
def test_as_much_moves_as_can_until_the_next_tick(seconds: float, gib: int) -> None:
    process = spread(cpu_cores=64.0, rss_bytes=100 * GIB)
    runs = [make_access_run(1024, 2, {0: 1024}, at_mib=1024 * i, weight=5 - i) for i in range(5)]
    now = seen(process, make_access_window(*runs))
    now = replace(now, survey=replace(now.survey, interval_seconds=seconds))
    (decision,) = policy().decide(Window(now=now, before=None))
    assert isinstance(decision, Decision)
    assert decision.misplaced_bytes == gib * GIB


@pytest.mark.parametrize(("most", "parts"), [(1, 1), (2, 2), (3, 3), (0, 1)])
def test_a_decision_is_about_so_many_ranges_at_most_and_the_hottest_of_them(
    most: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_EXTENTS", most)
    runs = [make_access_run(16, 2, {0: 16}, at_mib=32 * i, weight=900 - 100 * i) for i in range(4)]
    (decision,) = judge(*runs, process=spread(cpu_cores=64.0))
    assert isinstance(decision, Decision)
    starts = [VMA_START + 32 * MIB * i for i in range(parts)]
    assert [extent.start for extent in decision.extents or ()] == starts


def test_a_part_comes_from_all_nodes_on_which_it_lies_and_is_told_with_what_it_wins() -> None:
    (decision,) = judge(make_access_run(48, 1, {0: 16, 1: 16, 3: 16}, weight=100))
    assert isinstance(decision, Decision)
    assert decision.source_bytes == {N0: 16 * MIB, N3: 16 * MIB}
    assert decision.misplaced_bytes == 32 * MIB
    gain = 4.0 * 0.12 * (0.2 + 1.1) / 3  # at distances 12 and 21
    assert decision.gain_cores == pytest.approx(gain)
    assert decision.detail == "32 MiB in 1 ranges that threads on node 1 use, gain 0.208 cores, cost 0.06 s"


@pytest.mark.parametrize(
    ("run", "detail"),
    [
        (make_access_run(31 / 256, 2, {0: 31 / 256}, weight=62.0), "0.1 MiB are scattered pages with few samples each"),
        (make_access_run(16, 2, {0: 16}, node_weight=50.0), "16 MiB would cost more to move than they win"),
        (make_access_run(16, 2, None), "16 MiB are used by one node each, but where they lie is not known"),
        (make_access_run(16, 2, {2: 16}), "16 MiB lie where the threads run that use them"),
    ],
)
def test_what_stays_is_told_with_its_size(run: AccessRun, detail: str) -> None:
    assert only_skip(judge(run))[1].startswith(detail)


def test_what_part_of_a_window_told_an_address_is_told() -> None:
    _, detail = only_skip(judge(hits=3, samples=800, threads=4, watched_seconds=10.0))
    assert detail == "3 of 800 samples of 4 threads told an address, watched for 10 s"


def test_what_of_a_run_may_be_part_of_huge_pages_is_told_beside_the_rest() -> None:
    reason, detail = only_skip(judge(make_access_run(4.5, 1, {1: 4.5}, weight=500), huge=None))
    assert reason is Reason.WELL_PLACED
    assert detail == (
        "4.0 MiB lie where the threads run that use them; 0.5 MiB may be part of huge pages that others use, too"
    )
