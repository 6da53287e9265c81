import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.live import LiveKernel
from balancerd.kernel.placement import estimate
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.sample import SampleRequest
from balancerd.native.records import Migration, Placement, ProcessSurvey, ThreadSurvey
from balancerd.ports import Kernel, SurveyScope
from tests.unit.fakes import FakeClock
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import MACHINES, sys_tree, write_tree

SCOPE = SurveyScope(min_rss_bytes=1 << 20, min_cpu_cores=0.05)


class SpoiltCore:
    """The native core, but for the placement of some processes, which fails."""

    def __init__(self) -> None:
        self.errors: dict[int, OSError] = {}
        self.survey: Callable[..., ProcessSurvey] = native.survey
        self.threads: Callable[..., ThreadSurvey] = native.threads
        self.migrate: Callable[..., Migration] = native.migrate
        self.idle_call: Callable[[], float] = native.idle_call

    def placement(
        self, pid: int, ranges: native.RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0
    ) -> Placement:
        if pid in self.errors:
            raise self.errors[pid]
        return native.placement(pid, ranges, n_nodes=n_nodes, samples=samples, phase=phase)


@pytest.fixture
def kernel() -> Iterator[LiveKernel]:
    live = LiveKernel(MonotonicClock(), stall_target_seconds=0.005)
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
    live = LiveKernel(FakeClock(), stall_target_seconds=0.005, core=core)
    with child() as (_, refused), child() as (_, broken), child() as (dead, gone):
        dead.kill()
        dead.wait()
        core.errors = {
            refused.pid: PermissionError(errno.EPERM, "Operation not permitted"),
            broken.pid: OSError(errno.EIO, "odd"),
        }
        own = request(os.getpid())
        requests = [SampleRequest(process=id_, rss_bytes=1 << 20) for id_ in (refused, broken, gone)]
        sampling = live.sample((*requests, request(refused.pid + 0, start_ticks=1), own))
    live.close()
    assert [placement.process for placement in sampling.placements] == [own.process]
    assert [(skip.process.pid, skip.reason, skip.by) for skip in sampling.missed] == [
        (refused.pid, Reason.NO_ACCESS, "kernel"),
        (broken.pid, Reason.UNREADABLE, "kernel"),
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
        live = LiveKernel(FakeClock(), stall_target_seconds=0.005, procfs=procfs)
        sampling = live.sample((SampleRequest(process=id_, rss_bytes=1 << 20),))
        live.close()
    assert [skip.reason for skip in sampling.missed] == [reason]


def test_the_topology_is_read_again_when_a_cpu_goes_offline(tmp_path: Path) -> None:
    procfs = write_tree(tmp_path / "proc", {"zoneinfo": (MACHINES / "four-nodes-6.12/proc/zoneinfo").read_bytes()})
    sysfs = sys_tree(
        tmp_path / "sys",
        nodes={0: ("0-1", 1024), 1: ("2", 1024)},
        distances={0: "10 20", 1: "20 10"},
        online_cpus="0-2",
        has_memory="0-1",
    )
    live = LiveKernel(FakeClock(), stall_target_seconds=0.005, procfs=procfs, sysfs=sysfs)
    first = live.survey(SCOPE)
    assert first.topology.node_of_cpu == {0: 0, 1: 0, 2: 1}
    assert live.survey(SCOPE).topology is first.topology
    write_tree(sysfs, {"devices/system/node/node0/cpulist": "0\n", "devices/system/cpu/online": "0,2\n"})
    assert live.survey(SCOPE).topology.node_of_cpu == {0: 0, 2: 1}
    live.close()


def test_watermarks_are_read_again_after_a_minute(tmp_path: Path) -> None:
    procfs = write_tree(tmp_path / "proc", {"zoneinfo": "Node 0, zone DMA\n        high 1\n"})
    sysfs = sys_tree(tmp_path / "sys", nodes={0: ("0", 64)}, distances={0: "10"}, online_cpus="0", has_memory="0")
    clock = FakeClock()
    live = LiveKernel(clock, stall_target_seconds=0.005, procfs=procfs, sysfs=sysfs)
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
    assert own.threads is not None
    assert os.getpid() in {thread.tid for thread in own.threads}
