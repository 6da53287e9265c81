import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from balancerd import native
from balancerd.kernel.accesses.watch import AccessSettings
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.live import LiveKernel
from balancerd.kernel.moving.patience import LateAnswers
from balancerd.kernel.moving.verify import NOTHING
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.placement.reader import estimate
from balancerd.model.access import AccessMethod
from balancerd.model.decision import Reason, Skip
from balancerd.model.heat import HeatMethod, Heats
from balancerd.model.ids import CpuId, ProcessId
from balancerd.model.migration import Range, RunsNow, VerifyRequest
from balancerd.model.sample import Pressure, SampleRequest, Survey
from balancerd.native.records import Eviction, Migration, Placement, ProcessSurvey, Tally, ThreadSurvey
from balancerd.ports import Kernel, SurveyScope
from tests.unit.fakes import FakeClock
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import MACHINES, sys_tree, write_tree
from tests.unit.kernel.worlds import NO_LIMITS, make_eviction, make_step, never

T = TypeVar("T")
SCOPE = SurveyScope(min_rss_bytes=1 << 20, min_cpu_cores=0.05)


class SpoiltCore:
    """The native core, but for the placement of some processes, which fails."""

    def __init__(self) -> None:
        self.errors: dict[int, OSError] = {}
        self.survey: Callable[..., ProcessSurvey] = native.survey
        self.threads: Callable[..., ThreadSurvey] = native.threads
        self.migrate: Callable[..., Migration] = native.migrate
        self.idle_call: Callable[[], float] = native.idle_call
        self.evict: Callable[..., Eviction] = native.evict
        self.migrate_process: Callable[..., int] = native.migrate_process

        self.placement: Callable[..., Placement] = native.placement

    def sample(
        self, pid: int, table: native.VmaTable, *, n_nodes: int, strata: Iterable[int], questions: int, seed: int
    ) -> Tally:
        if pid in self.errors:
            raise self.errors[pid]
        return native.sample(pid, table, n_nodes=n_nodes, strata=strata, questions=questions, seed=seed)


@pytest.fixture
def kernel() -> Iterator[LiveKernel]:
    live = LiveKernel(MonotonicClock(), pace=NO_LIMITS)
    yield live
    live.close()


def request(pid: int, *, start_ticks: int | None = None) -> SampleRequest:
    start = estimate(pid).process.start_ticks if start_ticks is None else start_ticks
    return SampleRequest(process=ProcessId(pid, start), rss_bytes=32 << 20)


def test_it_is_a_kernel_that_acts(kernel: LiveKernel) -> None:
    port: Kernel = kernel
    assert port.mode == "enforce"


def test_a_survey_of_this_machine_knows_its_nodes_and_this_process(kernel: LiveKernel) -> None:
    survey = kernel.survey(SCOPE)
    assert os.getpid() in {process.id.pid for process in survey.processes}
    assert set(survey.memory) == set(survey.topology.node_ids)
    assert all(memory.high_watermark_bytes > 0 for memory in survey.memory.values() if memory.total_bytes)
    assert set(survey.topology.node_of_cpu) >= os.sched_getaffinity(0)
    assert survey.kernel_threads >= 0


def test_one_process_that_cannot_be_read_does_not_stop_the_others() -> None:
    core = SpoiltCore()
    live = LiveKernel(FakeClock(), pace=NO_LIMITS, core=core)
    with child() as (_, refused), child() as (_, broken), child() as (_, leaving), child() as (dead, gone):
        dead.kill()
        dead.wait()
        core.errors = {
            refused.pid: PermissionError(errno.EPERM, "Operation not permitted"),
            broken.pid: OSError(errno.EIO, "odd"),
            leaving.pid: OSError(errno.EINVAL, "no memory any more"),
        }
        own = request(os.getpid())
        requests = [SampleRequest(process=id_, rss_bytes=1 << 30) for id_ in (refused, broken, leaving, gone)]
        sampling = live.sample((*requests, request(refused.pid + 0, start_ticks=1), own))
    live.close()
    assert [placement.process for placement in sampling.placements] == [own.process]
    assert [(skip.process.pid, skip.reason, skip.by) for skip in sampling.missed] == [
        (refused.pid, Reason.NO_ACCESS, "kernel"),
        (broken.pid, Reason.UNREADABLE, "kernel"),
        (leaving.pid, Reason.VANISHED, "kernel"),
        (gone.pid, Reason.VANISHED, "kernel"),
        (refused.pid, Reason.VANISHED, "kernel"),
    ]
    assert all(skip.detail for skip in sampling.missed)


@pytest.mark.parametrize(("maps", "reason"), [("", Reason.NOTHING_PRESENT), ("nonsense\n", Reason.UNREADABLE)])
def test_a_process_without_pages_and_one_that_is_not_understood_are_skipped(
    tmp_path: Path, maps: str, reason: Reason
) -> None:
    with child() as (_, id_):
        stat = Path(f"/proc/{id_.pid}/stat").read_text()
        procfs = write_tree(tmp_path, {f"{id_.pid}/maps": maps, f"{id_.pid}/stat": stat, "self/mountinfo": ""})
        live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs)
        sampling = live.sample((SampleRequest(process=id_, rss_bytes=1 << 30),))
        live.close()
    assert [skip.reason for skip in sampling.missed] == [reason]


def test_a_process_that_cannot_be_read_in_time_is_blocked_and_the_others_are_read(tmp_path: Path) -> None:
    with child("m = mmap.mmap(-1, 1 << 20); m.write(b'x' * (1 << 20))") as (_, locked), child() as (_, free):
        fifo = tmp_path / str(locked.pid) / "maps"  # opening it waits until somebody writes
        stats = {f"{id_.pid}/stat": Path(f"/proc/{id_.pid}/stat").read_text() for id_ in (locked, free)}
        maps = {f"{id_.pid}/maps": Path(f"/proc/{id_.pid}/maps").read_bytes() for id_ in (locked, free)}
        procfs = write_tree(tmp_path, {**stats, "self/mountinfo": ""})
        write_tree(procfs, {f"{free.pid}/maps": maps[f"{free.pid}/maps"]})
        os.mkfifo(fifo)
        live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs, read_timeout_seconds=0.0)
        descriptors = Path("/proc/self/fd")
        before = len(list(descriptors.iterdir()))
        wanted = tuple(SampleRequest(process=id_, rss_bytes=1 << 30) for id_ in (locked, free))
        first = live.sample(wanted[:1])
        live.set_read_timeout(60.0)
        second = live.sample(wanted)
        verified = live.verify(VerifyRequest(process=locked, runs=(), asked_pages=8))
        with fifo.open("wb") as writer:  # now the late read goes on, to its end
            writer.write(maps[f"{locked.pid}/maps"])
        fifo.unlink()
        write_tree(procfs, maps)
        third = live.sample(wanted)
        while any(skip.reason is Reason.BLOCKED for skip in third.missed):
            third = live.sample(wanted)
        assert len(list(descriptors.iterdir())) == before
        live.close()
    assert [(skip.process, skip.reason, skip.detail) for skip in first.missed] == [
        (locked, Reason.BLOCKED, "no answer within 0 ms")
    ]
    assert [(skip.process, skip.reason) for skip in second.missed] == [(locked, Reason.BLOCKED)]
    assert [placement.process for placement in second.placements] == [free]
    assert isinstance(verified, Skip)
    assert verified.reason is Reason.BLOCKED
    assert {placement.process for placement in third.placements} == {locked, free}


def test_a_late_read_keeps_the_reader_that_it_is_at_work_in(tmp_path: Path) -> None:
    with child() as (_, id_):
        stat = Path(f"/proc/{id_.pid}/stat").read_text()
        procfs = write_tree(tmp_path, {f"{id_.pid}/stat": stat, "self/mountinfo": ""})
        os.mkfifo(tmp_path / str(id_.pid) / "maps")
        live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs, read_timeout_seconds=0.0)
        reader = live._placements
        live.sample((SampleRequest(process=id_, rss_bytes=1 << 20),))
        other = live._placements
        assert other is not reader
        live.sample((SampleRequest(process=id_, rss_bytes=1 << 20),))  # not begun, so it has no reader to keep
        assert live._placements is other
        (tmp_path / str(id_.pid) / "maps").open("wb").close()
        live.close()


def test_reading_mempolicies_may_take_longer_where_there_is_much_memory(kernel: LiveKernel) -> None:
    asked: list[float] = []

    class Reads(PatientReads):
        def read(self, process: ProcessId, read: Callable[[], T], *, extra_seconds: float = 0.0) -> T:
            asked.append(extra_seconds)
            return super().read(process, read, extra_seconds=extra_seconds)

    kernel._reads = Reads(FakeClock(), ReadPool(), 60.0)
    own = replace(request(os.getpid()), rss_bytes=64 << 30)
    kernel.sample((own, replace(own, read_mempolicies=True)))
    assert asked == [0.0, pytest.approx(2.5, rel=0.02)]


def test_a_process_that_opted_out_is_told_with_where(monkeypatch: pytest.MonkeyPatch, kernel: LiveKernel) -> None:
    monkeypatch.setenv("BALANCERD", "off")
    with child() as (_, id_):
        looked = kernel.look(id_.pid)
    assert looked is not None
    assert looked.opt_out == "BALANCERD=off in its environment"


def test_the_topology_is_read_again_when_a_cpu_goes_offline(tmp_path: Path) -> None:
    procfs = write_tree(tmp_path / "proc", {"zoneinfo": (MACHINES / "four-nodes-6.12/proc/zoneinfo").read_bytes()})
    sysfs = sys_tree(
        tmp_path / "sys",
        nodes={0: ("0-1", 1024), 1: ("2", 1024)},
        distances={0: "10 20", 1: "20 10"},
        online_cpus="0-2",
        has_memory="0-1",
    )
    live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs, sysfs=sysfs)
    first = live.survey(SCOPE)
    assert first.topology.node_of_cpu == {0: 0, 1: 0, 2: 1}
    assert live.survey(SCOPE).topology is first.topology
    write_tree(sysfs, {"devices/system/node/node0/cpulist": "0\n", "devices/system/cpu/online": "0,2\n"})
    assert live.survey(SCOPE).topology.node_of_cpu == {0: 0, 2: 1}
    live.close()


def test_a_survey_forgets_late_answers_about_processes_that_have_ended() -> None:
    clock = FakeClock()
    live = LiveKernel(clock, pace=NO_LIMITS)
    both: tuple[LateAnswers[Any], ...] = (live._mover._calls.late, live._evictor._late)
    with child() as (_, process):
        live.survey(SCOPE)
        for late in both:
            late.keep(process, "pages")
        live.survey(SCOPE)
        assert [late.take(process) for late in both] == [["pages"], ["pages"]]
        for late in both:
            late.keep(process, "pages")
    clock.time += 60.0
    live.survey(SCOPE)
    assert [late.take(process) for late in both] == [[], []]
    live.close()


@pytest.mark.parametrize(
    ("status", "may"),
    [("CapEff:\t0000000000800000\n", True), ("CapEff:\t000001ffff7fffff\n", False), ("Name:\tbalancerd\n", True)],
)
def test_shared_memory_moves_for_all_where_the_capability_is_not_missing(
    tmp_path: Path, status: str, may: bool
) -> None:
    procfs = write_tree(tmp_path / "proc", {"self/status": status})
    live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs)
    assert live._mover._may_move_all is may
    live.close()


def test_the_survey_is_told_how_many_cpus_were_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoneinfo = (MACHINES / "four-nodes-6.12/proc/zoneinfo").read_bytes()
    idle = "cpu0 0 0 0 100 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0\n"
    procfs = write_tree(tmp_path / "proc", {"zoneinfo": zoneinfo, "stat": idle})
    sysfs = sys_tree(tmp_path / "sys", nodes={0: ("0-1", 1024)}, distances={0: "10"}, online_cpus="0-1", has_memory="0")
    live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs, sysfs=sysfs)
    told: list[float | None] = []
    survey = live._surveyor.survey

    def tell(*given: Any, busy_cpus: float | None, **more: Any) -> Survey:
        told.append(busy_cpus)
        return survey(*given, busy_cpus=busy_cpus, **more)

    monkeypatch.setattr(live._surveyor, "survey", tell)
    live.survey(SCOPE)
    write_tree(procfs, {"stat": "cpu0 90 0 0 110 0 0 0 0\ncpu1 30 0 0 170 0 0 0 0\n"})
    live.survey(SCOPE)
    assert told == [None, pytest.approx(1.2)]
    live.close()


def test_the_topology_is_read_again_when_some_of_a_nodes_memory_goes_offline(tmp_path: Path) -> None:
    procfs = write_tree(tmp_path / "proc", {"zoneinfo": (MACHINES / "four-nodes-6.12/proc/zoneinfo").read_bytes()})
    nodes = {0: ("0", 1024), 1: ("1", 1024)}
    shape = {"distances": {0: "10 20", 1: "20 10"}, "online_cpus": "0-1", "has_memory": "0-1"}
    sysfs = sys_tree(tmp_path / "sys", nodes=nodes, **shape)  # type: ignore[arg-type]
    live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs, sysfs=sysfs)
    assert [node.total_bytes >> 20 for node in live.survey(SCOPE).topology.nodes] == [1024, 1024]
    sys_tree(tmp_path / "sys", nodes={**nodes, 1: ("1", 640)}, **shape)  # type: ignore[arg-type]
    second = live.survey(SCOPE)
    assert [node.total_bytes >> 20 for node in second.topology.nodes] == [1024, 640]
    assert [memory.total_bytes >> 20 for memory in second.memory.values()] == [1024, 640]
    assert live.survey(SCOPE).topology is second.topology
    live.close()


def test_a_survey_tells_how_the_nodes_of_this_machine_do(kernel: LiveKernel) -> None:
    first, second = kernel.survey(SCOPE), kernel.survey(SCOPE)
    assert first.machine is not None
    assert second.machine is not None
    assert set(second.machine.nodes) == set(second.topology.node_ids)
    assert all(state.load_ratio is None for state in first.machine.nodes.values())
    assert any(sum(state.free_blocks or ()) > 0 for state in second.machine.nodes.values())


def test_watermarks_are_read_again_after_a_minute(tmp_path: Path) -> None:
    procfs = write_tree(tmp_path / "proc", {"zoneinfo": "Node 0, zone DMA\n        high 1\n"})
    sysfs = sys_tree(tmp_path / "sys", nodes={0: ("0", 64)}, distances={0: "10"}, online_cpus="0", has_memory="0")
    clock = FakeClock()
    live = LiveKernel(clock, pace=NO_LIMITS, procfs=procfs, sysfs=sysfs)
    seen = []
    for _ in range(3):
        (memory,) = live.survey(SCOPE).memory.values()
        seen.append(memory.high_watermark_bytes)
        write_tree(procfs, {"zoneinfo": "Node 0, zone DMA\n        high 2\n"})
        clock.time += 30
    live.close()
    assert seen == [4096, 4096, 8192]


def test_a_look_finds_a_kernel_thread_and_nobody(kernel: LiveKernel) -> None:
    looked = kernel.look(2)
    if looked is not None:  # in a container there is no pid 2, or it is another process
        assert looked.kernel_thread == (looked.rss_bytes == 0)
    assert kernel.look(2**22 - 1) is None
    own = kernel.look(os.getpid())
    assert own is not None
    assert own.id.pid == os.getpid()


def test_a_survey_tells_the_pressure_of_the_machine(tmp_path: Path) -> None:
    files = {"pressure/memory": "some avg10=1.50 avg60=0.00 avg300=0.00 total=0\n", "zoneinfo": "Node 0, zone DMA\n"}
    procfs = write_tree(tmp_path / "proc", files)
    sysfs = sys_tree(tmp_path / "sys", nodes={0: ("0", 64)}, distances={0: "10"}, online_cpus="0", has_memory="0")
    live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs, sysfs=sysfs)
    assert live.survey(SCOPE).pressure == Pressure(cpu_ratio=None, memory_ratio=pytest.approx(0.015))  # type: ignore[arg-type]
    live.close()


def test_the_parts_of_a_live_kernel_share_their_claims_and_their_pace(kernel: LiveKernel) -> None:
    with child("m = mmap.mmap(-1, 4 << 20); m.write(b'x' * (4 << 20))") as (_, id_):
        ranges = tuple(
            Range(start=p.vma.start, end=p.vma.end, page_bytes=4096) for p in estimate(id_.pid).vmas if p.pages_by_node
        )
        step = replace(make_step(1, ranges=ranges), process=id_, target=max(kernel.topology().memory_nodes))
        eviction = replace(make_eviction(ranges, cold_only=True), process=id_)
        whole = {step.target: step.target}
        assert kernel.migrate(step, never).stopped_by is None
        assert kernel.evict(eviction, never).stopped_by is None
        assert kernel.migrate_whole(id_, whole).stopped_by is None
        request = VerifyRequest(process=id_, runs=(), asked_pages=8)
        assert kernel.verify(request) == RunsNow(process=id_, runs=(), total=NOTHING)

        def stop() -> bool:  # asked while the step holds its claim
            reasons.append(kernel.evict(eviction, never).stopped_by)
            reasons.append(kernel.migrate_whole(id_, whole).stopped_by)
            return True

        reasons: list[Reason | None] = []
        assert kernel.migrate(step, stop).stopped_by is Reason.STOPPING
        assert set(reasons) == {Reason.CLAIMED}


def test_only_another_stall_target_makes_batches_be_learnt_anew(kernel: LiveKernel) -> None:
    before = kernel._mover._calls.batch
    kernel.set_pace(replace(NO_LIMITS, duty_ratio=0.1))
    assert kernel._mover._calls.batch is before
    assert kernel._pacer.pace.duty_ratio == 0.1
    kernel.set_pace(replace(NO_LIMITS, stall_target_seconds=0.05))
    assert kernel._mover._calls.batch is not before


def test_another_pace_names_other_cpus_to_copy_on(kernel: LiveKernel) -> None:
    assert kernel._copying.permitted is None
    kernel.set_pace(replace(NO_LIMITS, copying_cpus=frozenset({CpuId(7)})))
    assert kernel._copying.permitted == {7}


def test_heat_is_watched_by_the_source_that_the_settings_name(tmp_path: Path) -> None:
    told: list[str] = []
    live = LiveKernel(MonotonicClock(), pace=NO_LIMITS, sysfs=tmp_path, tell_heat=told.append)
    assert live.heat.read([], []) == Heats()
    live.heat.wait()
    live.set_accesses(AccessSettings(heat=HeatMethod.DAMON, most_processes=3, budget_ratio=0.5))
    live.heat.read([], [])
    live.heat.wait()
    found = live.heat.read([], [])
    assert found.method is HeatMethod.DAMON
    assert found.obstacle is not None
    assert [text.startswith(f"damon: {found.obstacle.seen}") for text in told] == [True]
    assert (live._damon.slots, live._damon.budget_ratio, live._soft_dirty.budget_ratio) == (3, 0.5, 0.5)
    live.close()


def test_sources_of_accesses_are_tried_in_the_order_in_which_they_are_named(kernel: LiveKernel) -> None:
    def methods() -> list[AccessMethod]:
        return [source.method for source in kernel.accesses._sources]

    assert methods() == [AccessMethod.REGISTERS]
    named = (AccessMethod.KERNEL_COUNTERS, AccessMethod.HINT_FAULTS, AccessMethod.KERNEL_COUNTERS)
    kernel.set_accesses(AccessSettings(methods=named, table_bytes=1 << 20, budget_ratio=0.5))
    assert methods() == [AccessMethod.KERNEL_COUNTERS, AccessMethod.HINT_FAULTS]
    every = tuple(method for method in AccessMethod if method is not AccessMethod.PERF_LOG)
    kernel.set_accesses(AccessSettings(methods=every))
    assert methods() == list(every)
    assert {(source.table_bytes, source.budget_ratio) for source in kernel._counting} == {(32 << 20, 0.01)}
