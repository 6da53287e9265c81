import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.machine.cpu_load import CpuTicks
from balancerd.kernel.moving.cpus import IDLE_RATIO, CopyingCpus
from balancerd.kernel.moving.migrate import Mover
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Node, Topology
from tests.unit.kernel.worlds import make_step, make_world, never

HERE, TARGET, SOURCE, BARE = map(NodeId, (0, 1, 2, 3))
OWN = {0, 1, 2, 3, 4, 5}
TICKS = os.sysconf("SC_CLK_TCK")
IDLE, BUSY = (0, TICKS), (TICKS, 0)


def topology() -> Topology:
    cpus = {HERE: (0, 1), TARGET: (2, 3), SOURCE: (4, 5), BARE: ()}
    return Topology(
        nodes=tuple(
            Node(id=node, cpus=frozenset(map(CpuId, numbers)), total_bytes=1, distances={})
            for node, numbers in cpus.items()
        ),
        node_of_cpu={CpuId(cpu): node for node, numbers in cpus.items() for cpu in numbers},
    )


class FakeThread:
    """The main thread's affinity, the calling thread's, and its CPU time; CPUs in `offline` are refused."""

    def __init__(self) -> None:
        self.main: set[int] = set(OWN)
        self.now: set[int] = set(OWN)
        self.seconds = 0.0
        self.offline: set[int] = set()
        self.asked: list[int] = []

    def sched_getaffinity(self, pid: int, /) -> set[int]:
        assert pid == os.getpid()
        return set(self.main)

    def sched_setaffinity(self, pid: int, mask: Iterable[int], /) -> None:
        assert pid == 0
        if not (wanted := set(mask) - self.offline):
            raise OSError(errno.EINVAL, "Invalid argument")
        self.now = wanted


class World:
    def __init__(self, permitted: Iterable[int] | None = None) -> None:
        self.thread = FakeThread()
        allowed = None if permitted is None else frozenset(map(CpuId, permitted))
        self.copying = CopyingCpus(allowed, self.thread, lambda: self.thread.seconds)

    def learn(self, **ticks: CpuTicks) -> None:
        """Tell what the CPUs have counted, by `cpu2` and so on; the others were busy."""
        known: dict[CpuId, CpuTicks] = {CpuId(cpu): ticks.get(f"cpu{cpu}", BUSY) for cpu in range(6)}
        self.copying.learn(topology(), known)

    def where(self, *nodes: NodeId, seconds: float = 0.0) -> set[int]:
        """Make a call that takes so much CPU time; returns where it could run."""

        def call() -> set[int]:
            self.thread.seconds += seconds
            return set(self.thread.now)

        seen = self.copying.run(nodes, call)
        assert self.thread.now == self.thread.main
        return seen


def test_a_call_runs_on_the_idle_cpus_of_the_first_node_that_has_some() -> None:
    world = World()
    world.learn(cpu0=IDLE, cpu3=IDLE, cpu4=IDLE, cpu5=IDLE)
    assert world.where(TARGET, SOURCE) == {3}
    assert world.where(SOURCE) == {4, 5}
    assert world.where(BARE, SOURCE) == {4, 5}
    world.learn(cpu0=IDLE, cpu5=IDLE)
    assert world.where(TARGET, SOURCE) == {5}


def test_it_stays_where_it_is_when_neither_node_has_an_idle_cpu_or_nothing_is_known() -> None:
    world = World()
    assert world.where(TARGET, SOURCE) == OWN
    world.learn(cpu0=IDLE)
    assert world.where(TARGET, SOURCE) == OWN
    assert world.where() == OWN
    assert world.where(NodeId(9)) == OWN


def test_a_cpu_is_idle_that_was_so_for_most_of_the_time_and_has_counted_any() -> None:
    world = World()
    world.learn(cpu2=(0, 0), cpu3=(25, 75), cpu4=(26, 74), cpu5=(0, 1))
    assert IDLE_RATIO == 0.75
    assert world.where(TARGET) == {3}
    assert world.where(SOURCE) == {5}
    world.learn(cpu2=(0, 0))
    assert world.where(TARGET) == OWN


def test_the_daemon_leaves_the_cpus_that_its_main_thread_may_run_on_only_when_told_so() -> None:
    world = World()
    world.thread.main = world.thread.now = {0, 4}
    world.learn(cpu3=IDLE, cpu4=IDLE, cpu5=IDLE)
    assert world.where(TARGET, SOURCE) == {4}
    world.copying.permitted = frozenset(map(CpuId, {3, 5}))
    assert world.where(TARGET, SOURCE) == {3}
    world.copying.permitted = frozenset(map(CpuId, {5}))
    assert world.where(TARGET, SOURCE) == {5}
    assert world.where(TARGET) == {0, 4}


def test_own_copies_do_not_make_a_cpu_busy_and_those_of_others_do() -> None:
    world = World()
    world.learn(cpu3=IDLE)
    assert world.where(TARGET, seconds=0.5) == {3}
    assert world.where(TARGET, seconds=0.3) == {3}
    world.learn(cpu3=(int(0.8 * TICKS), int(0.2 * TICKS)))
    assert world.where(TARGET, seconds=0.1) == {3}
    world.learn(cpu3=(int(0.8 * TICKS), int(0.2 * TICKS)))  # only a tenth of a second of it was ours
    assert world.where(TARGET) == OWN


def test_cpus_that_cannot_be_used_after_all_leave_the_call_where_it_is() -> None:
    world = World()
    world.learn(cpu3=IDLE)
    world.thread.offline = {3}
    assert world.where(TARGET) == OWN


def test_a_call_that_fails_leaves_nothing_behind() -> None:
    world = World()
    world.learn(cpu3=IDLE)

    def fail() -> None:
        raise OSError(errno.ESRCH, "No such process")

    with pytest.raises(ProcessLookupError):
        world.copying.run([TARGET], fail)
    assert world.thread.now == OWN


def test_a_step_copies_at_its_only_target_and_later_where_most_pages_come_from(tmp_path: Path) -> None:
    class Watched(CopyingCpus):
        def run(self, nodes: Any, make: Any) -> Any:
            asked.append(tuple(nodes))
            return make()

    asked: list[tuple[int, ...]] = []
    world = make_world(tmp_path, 3_000)
    mover = Mover(world.core, world.clock, world.pacer, world.claims, sysfs=str(tmp_path / "sys"), copying=Watched())
    assert mover.migrate(make_step(3_000), never).moved_pages == 3_000
    assert asked == [(3,), (3, 1), (3, 1)]
    asked.clear()
    world.fill(512)
    assert mover.migrate(make_step(512), never).moved_pages == 512
    assert asked == [(3, 1)]
    asked.clear()
    mover.forget_all_but(frozenset())
    mover.relearn()
    world.fill(3_000)
    assert mover.migrate(make_step(3_000, target_of={1: 3, 2: 0}), never).moved_pages == 3_000
    assert asked == [(), (1,), (1,)]
