"""Tables for the policy cold-eviction: what is cold, how much of it goes, and under which pressure nothing does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from balancerd.model.decision import Eviction, Reason, Skip, Verdict
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.sample import PlacementSample, Pressure, ProcessSample, Snapshot, VmaKind, Window
from balancerd.model.workload import Workload, WorkloadKind
from balancerd.policies.cold_eviction import ColdEviction, ColdEvictionOptions, plugin
from balancerd.ports import AccessPolicy, EvictingPlugin, PlacingPlugin, PolicyContext
from tests.unit.fakes import GIB, MIB, N0, VMA_START, make_placement, make_process, make_snapshot, make_survey
from tests.unit.policies.tiers import make_heat

CALM = Pressure(cpu_ratio=0.0, memory_ratio=0.0)
PROCESS = make_process(rss_bytes=1024 * MIB)
COLD = ((256, 0.8), (768, 0.0))


def policy(**options: Any) -> ColdEviction:
    options = {"rate_limit_bytes_per_second": GIB, **options}
    return plugin.build("cold", ColdEvictionOptions(**options), PolicyContext(migration_bytes_per_second=GIB))


def snapshot(
    heat: Sequence[tuple[float, float]] | HeatWindow | None = COLD,
    *,
    at: float = 0.0,
    age: float | None = 120.0,
    process: ProcessSample = PROCESS,
    placement: PlacementSample | None = None,
    pressure: Pressure = CALM,
    workload_pressure: Mapping[str, float] | None = None,
    interval: float | None = 2.0,
    idle: bool = False,
) -> Snapshot:
    survey = make_survey(process, at=at, pressure=pressure, interval=interval)
    survey = replace(survey, workload_pressure=workload_pressure or {})
    found = make_snapshot(survey, placement or make_placement({0: 1024}, pid=process.id.pid))
    if idle:
        found = replace(found, eligible=(), idle=(process,))
    if heat is not None:
        window = heat if isinstance(heat, HeatWindow) else make_heat(heat, at=at, age=age)
        found = replace(found, heats=Heats(method=HeatMethod.DAMON, windows={process.id: window}))
    return found


def one(evictor: ColdEviction, now: Snapshot) -> Verdict:
    (verdict,) = evictor.decide(Window(now=now, before=None))
    return verdict


def spans(eviction: Eviction) -> list[tuple[float, float]]:
    """In MiB."""
    return [((e.start - VMA_START) / MIB, (e.end - VMA_START) / MIB) for e in eviction.extents or ()]


def test_what_nobody_used_for_two_minutes_goes_a_hundredth_every_six_seconds() -> None:
    verdict = one(policy(), snapshot())
    assert isinstance(verdict, Eviction)
    assert spans(verdict) == [(256, 1024)]
    assert verdict.evict_bytes == pytest.approx(0.01 * 1024 * MIB * 2.0 / 6.0, abs=4096)
    assert verdict.evict_bytes % 4096 == 0
    assert (verdict.reason, verdict.cold_only, verdict.detail) == (
        Reason.EVICT,
        False,
        "768 MiB were not used for 2m",
    )


def test_what_is_cold_begins_and_ends_anywhere() -> None:
    verdict = one(policy(), snapshot(((255.4, 0.8), (700.3, 0.0), (68.3, 0.8))))
    assert isinstance(verdict, Eviction)
    assert spans(verdict) == [(256, 956)]


def test_what_was_told_as_used_stays_for_as_long_though_its_neighbour_lends_it_an_age() -> None:
    evictor, taken_as_one = policy(), ((1024, 0.0),)
    one(evictor, snapshot(((256, 0.05), (768, 0.0)), at=0.0, age=600.0))
    for at in (5.0, 60.0, 119.0):
        verdict = one(evictor, snapshot(taken_as_one, at=at, age=600.0))
        assert isinstance(verdict, Eviction)
        assert spans(verdict) == [(256, 1024)]
    one(evictor, snapshot(((100, 0.0), (50, 0.05), (874, 0.0)), at=120.0, age=600.0))
    verdict = one(evictor, snapshot(taken_as_one, at=140.0, age=600.0))
    assert isinstance(verdict, Eviction)
    assert spans(verdict) == [(0, 100), (150, 1024)]


def test_what_was_used_while_nothing_might_go_was_used() -> None:
    evictor = policy()
    waiting = Pressure(cpu_ratio=0.0, memory_ratio=0.5)
    assert one(evictor, snapshot(((1024, 0.05),), at=0.0, pressure=waiting)).reason is Reason.PRESSURE
    assert one(evictor, snapshot(((1024, 0.0),), at=10.0, age=600.0)).reason is Reason.NOTHING_COLD


@pytest.mark.parametrize("seconds", [6.0, 60.0])
def test_after_a_long_tick_no_more_than_one_step_goes(seconds: float) -> None:
    verdict = one(policy(), snapshot(interval=seconds))
    assert isinstance(verdict, Eviction)
    assert verdict.evict_bytes == pytest.approx(0.01 * 1024 * MIB, abs=4096)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        pytest.param(snapshot(age=119.0), Reason.NOTHING_COLD, id="not for long enough"),
        pytest.param(snapshot(age=None), Reason.NOTHING_COLD, id="for how long is not known"),
        pytest.param(snapshot(((1024, 0.01),)), Reason.NOTHING_COLD, id="used now and then"),
        pytest.param(snapshot(None), Reason.HEAT_UNKNOWN, id="nobody looks"),
        pytest.param(snapshot(make_heat(COLD, age=300.0, watched_seconds=60.0)), Reason.HEAT_UNKNOWN, id="new"),
        pytest.param(snapshot(process=replace(PROCESS, rss_bytes=MIB)), Reason.HEAT_UNKNOWN, id="small"),
        pytest.param(snapshot(interval=None), Reason.MIGRATION_BUDGET, id="the first tick"),
        pytest.param(
            snapshot(placement=make_placement({0: 1024}, kind=VmaKind.SHMEM)), Reason.NOTHING_COLD, id="shared memory"
        ),
        pytest.param(snapshot(placement=make_placement({0: 1024}, shared=True)), Reason.NOTHING_COLD, id="shared"),
    ],
)
def test_what_stays(now: Snapshot, reason: Reason) -> None:
    verdict = one(policy(), now)
    assert isinstance(verdict, Skip)
    assert verdict.reason is reason


@pytest.mark.parametrize(
    ("machine", "cgroup", "limit", "goes"),
    [
        pytest.param(0.0, None, 0.001, True, id="calm"),
        pytest.param(0.001, None, 0.001, True, id="just so"),
        pytest.param(0.0011, None, 0.001, False, id="the machine"),
        pytest.param(0.5, 0.0, 0.001, True, id="its cgroup counts, not the machine"),
        pytest.param(0.0, 0.002, 0.001, False, id="its cgroup"),
        pytest.param(0.02, None, 0.05, True, id="an option"),
        pytest.param(None, None, 0.001, False, id="nobody tells"),
        pytest.param(None, 0.0, 0.001, True, id="only the cgroup does"),
    ],
)
def test_nothing_goes_under_pressure(machine: float | None, cgroup: float | None, limit: float, goes: bool) -> None:
    workload = Workload(kind=WorkloadKind.UNIT, name="a.service", cgroup="/a.service")
    process = replace(PROCESS, workload=workload)
    known = {"/b.service": 1.0} if cgroup is None else {"/a.service": cgroup, "/b.service": 1.0}
    pressure = Pressure(cpu_ratio=None, memory_ratio=machine)
    now = snapshot(process=process, pressure=pressure, workload_pressure=known)
    verdict = one(policy(max_pressure_ratio=limit), now)
    assert isinstance(verdict, Eviction) if goes else verdict.reason is Reason.PRESSURE


def test_all_processes_share_one_rate_and_who_has_most_that_is_cold_is_first() -> None:
    evictor = policy(rate_limit_bytes_per_second=2 * MIB, step_ratio=1.0)
    processes = [replace(PROCESS, id=make_process(pid).id) for pid in (1, 2, 3)]
    colds = {1: 100.0, 2: 800.0, 3: 200.0}
    windows = {
        p.id: make_heat(((1024 - colds[p.id.pid], 0.5), (colds[p.id.pid], 0.0)), pid=p.id.pid, age=500.0)
        for p in processes
    }
    survey = make_survey(*processes, pressure=CALM)
    now = make_snapshot(survey, *(make_placement({0: 1024}, pid=p.id.pid) for p in processes))
    now = replace(now, heats=Heats(method=HeatMethod.DAMON, windows=windows))
    first, *rest = evictor.decide(Window(now=now, before=None))
    assert isinstance(first, Eviction)
    assert (first.process.pid, first.evict_bytes) == (2, 4 * MIB)
    assert [verdict.reason for verdict in rest] == [Reason.MIGRATION_BUDGET] * 2


def test_an_idle_process_is_judged_and_all_are_to_be_watched() -> None:
    evictor = policy()
    now = snapshot(process=replace(PROCESS, cpu_cores=0.0, run_seconds=None), idle=True)
    assert isinstance(evictor, AccessPolicy)
    assert tuple(evictor.watch(now)) == (PROCESS.id,)
    assert isinstance(one(evictor, now), Eviction)
    assert isinstance(plugin, PlacingPlugin)
    assert isinstance(plugin, EvictingPlugin)


def test_those_with_most_memory_are_watched_first_and_the_small_ones_not_at_all() -> None:
    sizes = {1: 64 * MIB, 2: 64 * MIB - 1, 3: GIB, 4: 64 * MIB}
    processes = [make_process(pid, rss_bytes=size) for pid, size in sizes.items()]
    idle = make_process(5, rss_bytes=512 * MIB, cpu_cores=0.0)
    now = replace(make_snapshot(make_survey(*processes, idle)), eligible=tuple(processes), idle=(idle,))
    assert [process.pid for process in policy().watch(now)] == [3, 5, 1, 4]


def test_what_was_not_evicted_in_one_tick_may_be_in_the_next_but_no_more_than_a_step() -> None:
    evictor = policy(rate_limit_bytes_per_second=MIB, step_ratio=1.0)
    sizes = []
    for tick, is_calm in enumerate((True, False, True, False, False, False, False, True), 1):
        pressure = CALM if is_calm else Pressure(cpu_ratio=0.0, memory_ratio=1.0)
        verdict = one(evictor, snapshot(at=2.0 * tick, interval=2.0, pressure=pressure))
        sizes.append(verdict.evict_bytes // MIB if isinstance(verdict, Eviction) else None)
    assert sizes == [2, None, 4, None, None, None, None, 6]
    verdict = one(evictor, snapshot(at=100.0, interval=92.0))
    assert isinstance(verdict, Eviction)
    assert verdict.evict_bytes == 6 * MIB


def test_of_very_many_cold_parts_the_largest_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancerd.policies.cold_eviction.MOST_EXTENTS", 2)
    heat = ((100, 0.0), (200, 0.8), (300, 0.0), (124, 0.8), (200, 0.0), (50, 0.8), (50, 0.0))
    verdict = one(policy(), snapshot(heat))
    assert isinstance(verdict, Eviction)
    assert spans(verdict) == [(300, 600), (724, 924)]
    assert verdict.detail == "500 MiB were not used for 2m"


@pytest.mark.parametrize(("mib", "reason"), [(1.0, Reason.NOTHING_COLD), (2.0, Reason.EVICT)])
def test_what_is_cold_must_be_worth_a_call(mib: float, reason: Reason) -> None:
    assert one(policy(), snapshot(((1024 - mib, 0.8), (mib, 0.0)))).reason is reason


@pytest.mark.parametrize(
    ("now", "detail"),
    [
        (snapshot(((1024, 0.8),)), "0.0 MiB are cold"),
        (snapshot(interval=None), "768 MiB were not used for 2m; rate_limit of policy cold"),
        (
            snapshot(pressure=Pressure(cpu_ratio=0.0, memory_ratio=0.0123)),
            "memory pressure of the machine 1.23% of 0.10%",
        ),
        (
            snapshot(pressure=Pressure(cpu_ratio=0.0, memory_ratio=None)),
            "the kernel does not tell how long tasks wait for memory",
        ),
    ],
)
def test_why_nothing_goes_is_told(now: Snapshot, detail: str) -> None:
    verdict = one(policy(), now)
    assert isinstance(verdict, Skip)
    assert verdict.detail == detail


def test_what_is_not_there_any_more_is_not_asked_for() -> None:
    regions = (
        HeatRegion(start=VMA_START, end=VMA_START + 256 * MIB, ratio=0.0, age_seconds=500.0, pages_by_node={}),
        HeatRegion(
            start=VMA_START + 256 * MIB,
            end=VMA_START + 512 * MIB,
            ratio=0.0,
            age_seconds=500.0,
            pages_by_node={N0: 1024.0},
        ),
    )
    verdict = one(policy(), snapshot(replace(make_heat(()), regions=regions)))
    assert isinstance(verdict, Eviction)
    assert spans(verdict) == [(256, 512)]
    assert verdict.detail.startswith("4.0 MiB were")
    gone = one(policy(), snapshot(replace(make_heat(()), regions=regions[:1])))
    assert gone.reason is Reason.NOTHING_COLD


def test_soft_dirty_does_not_tell_what_is_only_read() -> None:
    verdict = one(policy(), snapshot(make_heat(COLD, age=500.0, method=HeatMethod.SOFT_DIRTY)))
    assert isinstance(verdict, Skip)
    assert (verdict.reason, verdict.detail) == (Reason.HEAT_UNKNOWN, "soft-dirty does not see what is only read")
