"""The accounts of workloads: sums, who belongs where, what is wanted of them, and that only changes cost anything."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.engine.accounts import Part, part_of
from balancerd.engine.workloads import Workloads, _differences, workload_of
from balancerd.model.decision import Decision, Eviction, Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.page_status import PageStatus
from balancerd.model.report import WorkloadReport
from balancerd.model.sample import PlacementSample, ProcessSample, Snapshot
from balancerd.model.workload import Workload, WorkloadKind
from tests.unit.engine.test_tick import PID, misplaced
from tests.unit.fakes import MIB, N0, N1, N2, make_placement, make_process, make_survey
from tests.unit.reports import a_decision, an_eviction, an_eviction_outcome, an_outcome

WEB = Workload(kind=WorkloadKind.UNIT, name="web.service", cgroup="/system.slice/web.service")
JOB = Workload(kind=WorkloadKind.POD, name="batch/job-1/main", cgroup="/kubepods/pod1/c1")


def snapshot(
    *processes: ProcessSample,
    placed: tuple[PlacementSample, ...] = (),
    exact: Mapping[str, Mapping[NodeId, int]] | None = None,
) -> Snapshot:
    survey = replace(make_survey(*processes), workload_bytes=exact or {})
    return Snapshot(taken_at=0.0, survey=survey, placements={p.process: p for p in placed}, eligible=())


def by_name(reports: tuple[WorkloadReport, ...]) -> dict[str, WorkloadReport]:
    assert len({report.workload.name for report in reports}) == len(reports)
    return {report.workload.name: report for report in reports}


def tell(*processes: ProcessSample, **given: Any) -> dict[str, WorkloadReport]:
    return by_name(Workloads().tell(snapshot(*processes, **given)))


@pytest.mark.parametrize(
    ("workload", "cgroup", "kind", "name"),
    [
        (WEB, "/anything", WorkloadKind.UNIT, "web.service"),
        (None, "/user.slice/app.scope", WorkloadKind.OTHER, "app.scope"),
        (None, "/a/b/", WorkloadKind.OTHER, "b"),
        (None, "/", WorkloadKind.OTHER, "other"),
        (None, "/../..", WorkloadKind.OTHER, "other"),
        (None, "", WorkloadKind.OTHER, "other"),
        (None, None, WorkloadKind.OTHER, "other"),
    ],
)
def test_a_process_that_nobody_has_named_belongs_to_its_cgroup(
    workload: Workload | None, cgroup: str | None, kind: WorkloadKind, name: str
) -> None:
    found = workload_of(make_process(workload=workload, cgroup=cgroup))
    assert (found.kind, found.name) == (kind, name)


def test_a_workload_is_the_sum_of_its_processes() -> None:
    first = make_process(1, workload=WEB, rss_bytes=100 * MIB, n_threads=3, cpu_cores=2.0, run={0: 1.0, 1: 3.0})
    second = make_process(2, workload=WEB, rss_bytes=300 * MIB, n_threads=1, cpu_cores=0.5, run={0: 4.0})
    third = make_process(3, workload=JOB, rss_bytes=64 * MIB, cpu_cores=None, run_seconds=None)
    # the first holds twice as many pages as it is large: what is estimated is scaled to its size
    placed = (make_placement({0: 50, 1: 150}, pid=1), make_placement({1: 300}, pid=2))
    told = tell(first, second, third, placed=placed)
    web, job = told["web.service"], told["batch/job-1/main"]
    assert (web.workload, web.members) == (WEB, (ProcessId(1, 1), ProcessId(2, 1)))
    assert (web.threads, web.rss_bytes, web.cpu_cores) == (4, 400 * MIB, 2.5)
    assert web.cores_by_node == {N0: 1.0, N1: 1.5}
    assert web.run_ratio == {N0: 0.4, N1: 0.6}
    assert web.bytes_by_node == {N0: 25 * MIB, N1: 375 * MIB}
    assert (web.exact, web.known_ratio) == (False, 1.0)
    # by memory: 100 MiB that are all local (a quarter on each side) and 300 MiB that are all remote
    assert web.local_ratio == 0.25
    assert (job.cpu_cores, job.run_ratio, job.local_ratio, job.known_ratio) == (None, None, None, 0.0)
    assert (job.bytes_by_node, job.cores_by_node) == ({}, {})


def test_what_is_not_known_lowers_the_known_share_and_nothing_else() -> None:
    known = make_process(1, workload=WEB, rss_bytes=100 * MIB)
    unknown = make_process(2, workload=WEB, rss_bytes=300 * MIB)
    idle = make_process(3, workload=WEB, rss_bytes=100 * MIB, cpu_cores=0.0, run_seconds=None)
    told = tell(known, unknown, idle, placed=(make_placement({0: 100}, pid=1), make_placement({1: 100}, pid=3)))
    web = told["web.service"]
    assert (web.known_ratio, web.local_ratio) == (0.4, 1.0)
    assert (web.known_bytes, web.judged_bytes, web.local_bytes) == (200 * MIB, 100 * MIB, 100 * MIB)
    assert web.bytes_by_node == {N0: 100 * MIB, N1: 100 * MIB}


def test_a_placement_in_which_nothing_was_found_is_not_known() -> None:
    web = tell(make_process(1, workload=WEB), placed=(make_placement({}, pid=1),))["web.service"]
    assert (web.known_bytes, web.bytes_by_node, web.local_ratio) == (0, {}, None)


def test_what_the_cgroup_tells_is_exact_and_replaces_the_estimate() -> None:
    web = make_process(1, workload=WEB, rss_bytes=100 * MIB)
    exact = {"/system.slice/web.service": {N1: 7 * MIB, N0: 0}, "/elsewhere": {N2: MIB}}
    told = tell(web, make_process(2, workload=JOB), placed=(make_placement({0: 100}, pid=1),), exact=exact)
    assert told["web.service"].bytes_by_node == {N0: 0, N1: 7 * MIB}
    assert (told["web.service"].exact, told["web.service"].known_ratio) == (True, 1.0)
    assert not told["batch/job-1/main"].exact


def test_a_cgroup_whose_file_tells_nothing_is_exact_all_the_same() -> None:
    placed = (make_placement({0: 100}, pid=1),)
    web = tell(make_process(1, workload=WEB), placed=placed, exact={"/system.slice/web.service": {}})["web.service"]
    assert (web.exact, web.bytes_by_node) == (True, {})


def test_a_workload_in_two_cgroups_is_estimated_because_neither_holds_all_of_it() -> None:
    again = replace(JOB, cgroup="/kubepods/pod1/c2")
    both = (make_process(1, workload=JOB), make_process(2, workload=again))
    job = tell(*both, exact={"/kubepods/pod1/c1": {N0: MIB}, "/kubepods/pod1/c2": {N0: MIB}})["batch/job-1/main"]
    assert (job.exact, job.workload.cgroup, job.workload.kind) == (False, None, WorkloadKind.POD)


def test_exact_numbers_come_go_and_change_while_no_process_does() -> None:
    accounts, web = Workloads(), make_process(1, workload=WEB)
    told = [
        by_name(accounts.tell(snapshot(web, exact=exact)))["web.service"]
        for exact in ({}, {str(WEB.cgroup): {N0: MIB}}, {str(WEB.cgroup): {N0: 2 * MIB}}, {})
    ]
    assert [(each.exact, dict(each.bytes_by_node)) for each in told] == [
        (False, {}),
        (True, {N0: MIB}),
        (True, {N0: 2 * MIB}),
        (False, {}),
    ]


def test_an_idle_process_stays_with_the_workload_that_was_read_while_it_was_busy() -> None:
    accounts = Workloads()
    busy = make_process(1, workload=JOB, cgroup=JOB.cgroup)
    accounts.tell(snapshot(busy))
    for rss in (1, 2, 3):
        idle = replace(busy, workload=None, cgroup=None, rss_bytes=rss * MIB)
        assert list(by_name(accounts.tell(snapshot(idle)))) == [JOB.name]
    same_cgroup = replace(busy, workload=None, rss_bytes=4 * MIB)
    assert list(by_name(accounts.tell(snapshot(same_cgroup)))) == [JOB.name]
    elsewhere = replace(busy, workload=None, cgroup="/user.slice/app.scope")
    assert list(by_name(accounts.tell(snapshot(elsewhere)))) == ["app.scope"]


def test_a_container_that_was_started_again_is_exact_once_the_old_one_is_gone() -> None:
    accounts = Workloads()
    old, new = make_process(1, workload=JOB), make_process(2, workload=replace(JOB, cgroup="/kubepods/pod1/c2"))
    exact = {str(JOB.cgroup): {N0: MIB}, "/kubepods/pod1/c2": {N1: MIB}}
    told = [by_name(accounts.tell(snapshot(*now, exact=exact)))[JOB.name] for now in ((old,), (old, new), (new,))]
    assert [each.exact for each in told] == [True, False, True]
    assert told[2].bytes_by_node == {N1: MIB}


def test_a_pid_that_is_used_again_is_another_process() -> None:
    accounts = Workloads()
    accounts.tell(snapshot(make_process(1, workload=WEB)))
    other = make_process(1, workload=None, cgroup=None, id=ProcessId(1, 999))
    assert list(by_name(accounts.tell(snapshot(other)))) == ["other"]


def test_a_workload_without_processes_is_gone() -> None:
    accounts = Workloads()
    accounts.tell(snapshot(make_process(1, workload=WEB), make_process(2, workload=JOB)))
    assert list(by_name(accounts.tell(snapshot(make_process(2, workload=JOB))))) == ["batch/job-1/main"]
    assert accounts.tell(snapshot()) == ()


def test_a_name_that_two_kinds_share_is_one_workload() -> None:
    named = make_process(1, workload=WEB)
    unnamed = make_process(2, workload=None, cgroup="/elsewhere/web.service")
    web = tell(unnamed, named)["web.service"]
    assert (len(web.members), web.workload) == (2, Workload(kind=WorkloadKind.UNIT, name="web.service"))


P1, P2, P3 = ProcessId(1, 1), ProcessId(2, 1), ProcessId(3, 1)


@pytest.mark.parametrize(
    ("wanted", "rejected", "done", "expected"),
    [
        ((), (), (), (0, 0, {})),
        ((a_decision(P1, misplaced_bytes=9 * MIB),), (), (), (9 * MIB, 1, {})),
        (
            (a_decision(P1, misplaced_bytes=9 * MIB), a_decision(P2, misplaced_bytes=MIB)),
            (Skip(by="plan", process=P2, reason=Reason.COOLDOWN),),
            (),
            (10 * MIB, 1, {Reason.COOLDOWN: 1}),
        ),
        (
            (a_decision(P1, misplaced_bytes=9 * MIB),),
            (),
            (an_outcome(P1, pages={PageStatus.MOVED: 1024}),),
            (5 * MIB, 1, {}),
        ),
        (
            (a_decision(P1, misplaced_bytes=MIB),),
            (),
            (an_outcome(P1, pages={PageStatus.MOVED: 1024}),),
            (0, 1, {}),
        ),
        (
            (a_decision(P1, misplaced_bytes=MIB),),
            (),
            (an_outcome(P1, pages={}, stopped_by=Reason.NO_MEMORY),),
            (MIB, 0, {Reason.NO_MEMORY: 1}),
        ),
        # two policies that want the same process moved want one move
        (
            (a_decision(P1, misplaced_bytes=MIB), a_decision(P1, policy="b", misplaced_bytes=3 * MIB)),
            (),
            (),
            (3 * MIB, 1, {}),
        ),
        # what the plan says of processes that nobody wants to move does not count, nor what is gone
        ((), (Skip(by="plan", process=P1, reason=Reason.COOLDOWN),), (), (0, 0, {})),
        ((a_decision(P3),), (), (), (0, 0, {})),
        ((a_decision(P3), a_decision(P1, misplaced_bytes=MIB)), (), (), (MIB, 1, {})),
        ((an_eviction(P1),), (), (), (0, 1, {})),
        ((an_eviction(P1),), (), (an_eviction_outcome(P1, stopped_by=Reason.NO_SWAP),), (0, 0, {Reason.NO_SWAP: 1})),
    ],
)
def test_what_is_wanted_is_pending_until_it_is_done(
    wanted: tuple[Decision | Eviction, ...], rejected: tuple[Skip, ...], done: Any, expected: Any
) -> None:
    outcomes = [each for each in done if hasattr(each, "moved_pages")]
    evictions = [each for each in done if not hasattr(each, "moved_pages")]
    accounts = Workloads()
    both = snapshot(make_process(1, workload=WEB), make_process(2, workload=WEB))
    told = accounts.tell(both, wanted=wanted, rejected=rejected, outcomes=outcomes, evictions=evictions)
    web = by_name(told)["web.service"]
    assert (web.pending_bytes, web.moving_processes, web.held) == expected
    quiet = by_name(accounts.tell(both))["web.service"]
    assert (quiet.pending_bytes, quiet.moving_processes, quiet.held) == (0, 0, {})


def test_a_workload_in_which_nothing_changed_is_told_by_the_very_same_report() -> None:
    accounts = Workloads()
    web, job = make_process(1, workload=WEB), make_process(2, workload=JOB)
    placed = (make_placement({0: 1}, pid=1), make_placement({0: 1}, pid=2))
    first = by_name(accounts.tell(snapshot(web, job, placed=placed)))
    again = by_name(accounts.tell(snapshot(replace(web, n_threads=7), job, placed=placed)))
    assert again["batch/job-1/main"] is first["batch/job-1/main"]
    assert again["web.service"].threads == 7
    moved = by_name(accounts.tell(snapshot(web, job, placed=(placed[0], make_placement({1: 1}, pid=2)))))
    assert moved["batch/job-1/main"].bytes_by_node == {N1: 256 * MIB}


def test_objects_that_did_not_change_are_not_added_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []

    def counted(process: ProcessSample, memory: Mapping[NodeId, float] | None) -> Part:
        added.append(process.id.pid)
        return part_of(process, memory)

    monkeypatch.setattr("balancerd.engine.workloads.part_of", counted)
    accounts = Workloads()
    crowd = [make_process(pid, workload=WEB) for pid in range(1, 51)]
    placed = tuple(make_placement({0: 1}, pid=pid) for pid in range(1, 51))
    accounts.tell(snapshot(*crowd, placed=placed))
    assert len(added) == 50
    added.clear()
    accounts.tell(snapshot(*crowd, placed=placed))
    assert added == []
    accounts.tell(snapshot(*crowd[1:], placed=placed[1:]))  # everybody moves up by one place
    assert added == []
    accounts.tell(snapshot(*crowd[1:], make_process(99, workload=WEB), placed=placed[1:]))
    assert added == [99]


@given(st.permutations(range(60)), st.integers(0, 60), st.permutations(range(90)), st.integers(0, 60), st.booleans())
def test_what_came_and_went_is_found_in_any_order(
    first: list[int], n_first: int, second: list[int], n_second: int, in_order: bool
) -> None:
    objects = [object() for _ in range(90)]
    before = tuple(objects[number] for number in first[:n_first])
    chosen = second[:n_second]
    if in_order:  # as a survey does it: what stays keeps its order, what is new comes last
        chosen = [n for n in first[:n_first] if n in chosen] + [n for n in chosen if n not in first[:n_first]]
    now = tuple(objects[number] for number in chosen)
    came, went = _differences(now, before)
    assert (len(came), len(went)) == (len(set(map(id, came))), len(set(map(id, went))))
    assert set(map(id, came)) == set(map(id, now)) - set(map(id, before))
    assert set(map(id, went)) == set(map(id, before)) - set(map(id, now))


@pytest.mark.parametrize(
    ("gone", "new"),
    [
        pytest.param({3, 7, 8, 9}, 0, id="a gap, and the last"),
        pytest.param({0, 2, 3}, 4, id="gaps, and new ones"),
        pytest.param(set(range(1, 80, 2)), 1, id="more gaps than are looked for"),
        pytest.param(set(range(20, 60)), 2, id="a gap wider than is looked for"),
    ],
)
def test_what_came_and_went_is_found_behind_gaps(gone: set[int], new: int) -> None:
    before = tuple(object() for _ in range(10 if max(gone) < 10 else 90))
    others = [object() for _ in range(new)]
    stayed = [each for number, each in enumerate(before) if number not in gone]
    came, went = _differences((*stayed, *others), before)
    assert came == others
    assert went == [each for number, each in enumerate(before) if number in gone]


SOME = st.tuples(
    st.sampled_from([None, WEB, JOB, replace(JOB, cgroup="/kubepods/pod1/c2")]),
    st.sampled_from([None, "/a/x", "/b/y"]),
    st.integers(1, 10**9),
    st.sampled_from([None, 0.0, 0.1, 1 / 3, 7.7]),
    st.sampled_from([None, {}, {0: 1.0}, {0: 0.1, 2: 0.7}]),
    st.sampled_from([None, {}, {0: 10.0}, {1: 3.3, 3: 6.6}]),
)


@given(st.lists(st.dictionaries(st.integers(1, 6), SOME), min_size=1, max_size=5))
def test_what_is_summed_up_over_ticks_is_what_one_look_would_tell(ticks: list[dict[int, Any]]) -> None:
    accounts = Workloads()
    told: tuple[WorkloadReport, ...] = ()
    now = snapshot()
    names: dict[int, tuple[Workload, str | None]] = {}
    for tick in ticks:
        processes, placed = [], []
        names = {pid: name for pid, name in names.items() if pid in tick}
        for pid, (workload, cgroup, rss, cores, run, held) in tick.items():
            known, where = names.get(pid, (None, None))
            process = make_process(pid, workload=workload, cgroup=cgroup, rss_bytes=rss, cpu_cores=cores, run=run or {})
            processes.append(process)
            if workload is not None or known is None or cgroup not in {None, where}:
                names[pid] = (workload_of(process), cgroup)
            if held is not None:
                placed.append(make_placement(held, pid=pid))
        now = snapshot(*processes, placed=tuple(placed))
        told = accounts.tell(now)
    # from scratch, with the names that were known on the way
    named = [replace(process, workload=names[process.id.pid][0]) for process in now.survey.processes]
    anew = by_name(Workloads().tell(snapshot(*named, placed=tuple(now.placements.values()))))
    found = by_name(told)
    assert {name: (set(r.members), r.workload.kind) for name, r in found.items()} == {
        name: (set(r.members), r.workload.kind) for name, r in anew.items()
    }
    for name, report in found.items():
        assert replace(report, members=(), workload=WEB) == replace(anew[name], members=(), workload=WEB)
        assert sum(report.bytes_by_node.values()) == pytest.approx(report.known_bytes, abs=8)
        assert 0 <= report.local_bytes <= report.judged_bytes <= report.known_bytes <= report.rss_bytes


def test_a_thousand_quiet_processes_cost_well_below_a_millisecond() -> None:
    names = [replace(WEB, name=f"u{n}.service", cgroup=f"/u{n}.service") for n in range(100)]
    crowd = [make_process(pid, workload=names[pid % 100]) for pid in range(1, 1001)]
    placed = tuple(make_placement({0: 1}, pid=pid) for pid in range(1, 1001))
    accounts = Workloads()
    accounts.tell(snapshot(*crowd, placed=placed))
    took = []
    for _ in range(20):
        now = snapshot(*crowd, placed=placed)
        begin = time.thread_time()
        accounts.tell(now)
        took.append(time.thread_time() - begin)
    assert min(took) < 0.0005  # 0.1 ms on the machine it was written on


@pytest.mark.parametrize("stuck_mib", [0.0, 256.0])
def test_a_tick_tells_its_workloads_and_agrees_with_what_it_tells_of_the_process(stuck_mib: float) -> None:
    run = misplaced()
    run.kernel.stuck_mib[PID] = stuck_mib
    reports = run.ticks(12)
    seen = set()
    for report in reports:
        (workload,) = report.workloads
        (process,) = (each for each in report.processes if each.process.id in workload.members)
        wanted = [v for v in process.verdicts if isinstance(v, Decision)]
        assert workload.local_ratio == pytest.approx(process.local_ratio, abs=1e-6)
        assert (workload.moving_processes + sum(workload.held.values())) == (1 if wanted else 0)
        if wanted:
            moving = process.reason is Reason.MISPLACED
            assert workload.moving_processes == moving
            assert workload.held == ({} if moving else {process.reason: 1})
        assert report.next_looks.keys() <= {process.process.id}
        seen.add((bool(wanted), process.reason))
    assert (True, Reason.MISPLACED) in seen
    assert ((True, Reason.QUARANTINE) in seen) is bool(stuck_mib)
    assert reports[-1].next_looks[PID] > reports[-1].survey.taken_at
    assert reports[-1].workloads[0].local_ratio == (0.0 if stuck_mib else 1.0)
    assert by_name(run.load().tick().workloads).keys() == by_name(reports[-1].workloads).keys()


def test_parts_that_one_policy_wants_add_up_and_what_another_wants_of_the_same_process_does_not() -> None:
    process = make_process(1, workload=WEB)
    parts = [a_decision(process.id, policy="parts", target=n, misplaced_bytes=(10 + n) * MIB) for n in (0, 1)]
    whole = a_decision(process.id, misplaced_bytes=15 * MIB)
    outcome = an_outcome(process.id, policy="parts", target=1, pages={PageStatus.MOVED: 256})
    (web,) = Workloads().tell(snapshot(process), wanted=[*parts, whole], outcomes=[outcome])
    assert web.pending_bytes == 20 * MIB
