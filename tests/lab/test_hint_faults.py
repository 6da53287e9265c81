"""While the kernel's balancing is on, hint faults tell whose each part of a process is, counters how much is local."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.kernel.accesses.hint_faults import HintFaultSource
from balancerd.kernel.accesses.kernel_counters import KernelCounters, local_ratio, parse_sched
from balancerd.kernel.accesses.rings import Surroundings
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.machine.topology import read_topology
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.access import AccessWindow
from balancerd.model.ids import ProcessId
from tests.lab.balancing import eager_balancing
from tests.lab.workloads.team import MIB, Team

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(180)]

PART_MIB = 16
PATIENCE_SECONDS = 90.0


@pytest.fixture
def balancing() -> Iterator[None]:
    with eager_balancing():
        yield


@pytest.fixture
def source() -> Iterator[HintFaultSource]:
    clock = MonotonicClock()
    topology = read_topology(Path("/sys"))
    reads = PatientReads(clock, ReadPool(), 5.0)
    around = Surroundings(clock=clock, reads=reads, mappings=Mappings(clock), topology=lambda: topology)
    yield HintFaultSource(around, table_bytes=8 * MIB, budget_ratio=0.5)
    reads.close()


def local_by_thread(team: Team) -> tuple[float | None, ...]:
    """For each thread with a part which share of its hint faults was local; None while the kernel has counted none."""
    paths = [f"/proc/{team.pid}/task/{tid}/sched" for tid in team.tids]
    found = [parse_sched(Path(path).read_bytes(), path) for path in paths]
    return tuple(None if faults is None else local_ratio([(faults, 1.0)]) for faults in found)


def owned(window: AccessWindow, team: Team) -> tuple[int, int]:
    """How many bytes of the parts the runs give to the node of their thread, and how many to another one."""
    right = wrong = 0
    for run in window.runs:
        for index, (start, end) in enumerate(team.parts):
            size = max(0, min(run.end, end) - max(run.start, start))
            right, wrong = (right + size, wrong) if run.node == index else (right, wrong + size)
    return right, wrong


@pytest.mark.usefixtures("balancing")
def test_parts_belong_to_the_threads_that_fault_on_them(source: HintFaultSource) -> None:
    assert source.probe() is None
    counters = KernelCounters(MonotonicClock())
    assert counters.probe() is None
    with Team("base", PART_MIB, busy_percent=20) as team:
        process = ProcessId(team.pid, read_start_ticks(team.pid, "/proc"))
        source.open(process)
        counters.open(process)
        ratio: float | None = None
        right = wrong = hits = lost = 0
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and not (
            right >= 0.9 * 4 * PART_MIB * MIB
            and (ratio or 0.0) >= 0.9
            and min(team.at_home()) >= 0.9
            and None not in local_by_thread(team)  # else main's faults have told the ratio, from when it was alone
        ):
            time.sleep(1.0)
            window = source.read(process)
            right, wrong = owned(window, team)
            hits, lost = hits + window.hits, lost + window.lost_samples
            ratio = counters.read(process).local_ratio
            told = f"{hits} hits, {lost} lost, {right // MIB} MiB right, {wrong // MIB} wrong, local {ratio}"
            print(f"{window.watched_seconds:6.1f} s: {told}; by thread {local_by_thread(team)}")
        source.close(process)
        assert right >= 0.9 * 4 * PART_MIB * MIB
        assert wrong <= 0.05 * (right + wrong)
        assert ratio is not None
        assert ratio >= 0.9
        assert min(team.at_home()) >= 0.9  # the kernel has moved them
        team.end()
