"""Where the daemon's mover copies on a real kernel: at the target, or at the source, on a CPU that has nothing to do.

Inside the guest, whose nodes have one CPU each.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from balancerd.model.ids import CpuId
from balancerd.model.page_status import PageStatus
from balancerd.ports import SurveyScope
from tests.lab.live import WatchedCore, carry_out, live_kernel, step_of
from tests.lab.native_targets import MIB, PAGE, SOURCE, TARGET, base_pages, child
from tests.lab.workloads import Hog

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(120)]

HERE = 3
LENGTH = 32 * MIB
SCOPE = SurveyScope(min_rss_bytes=MIB, min_cpu_cores=0.05)
LOOK_SECONDS = 1.5
PROCESSOR = 36
"""Of what stands behind the name in proc_pid_stat(5): the CPU that a thread ran on last."""


@contextmanager
def main_thread_on(cpus: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_now() -> int:
    return int(Path("/proc/thread-self/stat").read_bytes().rpartition(b")")[2].split()[PROCESSOR])


def cpu_of(node: int) -> int:
    return int(Path(f"/sys/devices/system/node/node{node}/cpulist").read_text(encoding="ascii"))


def copied_on(busy_nodes: Sequence[int], own_nodes: Sequence[int], permitted: Sequence[int] | None = None) -> set[int]:
    """Move memory while CPUs of some nodes are busy; return on which CPUs it was copied.

    The first call is not counted: it does not know yet where pages come from.
    """
    seen: list[int] = []
    cpus = None if permitted is None else frozenset(CpuId(cpu_of(node)) for node in permitted)
    live = live_kernel(WatchedCore(before=lambda: seen.append(cpu_now())), copying_cpus=cpus)
    with ExitStack() as stack:
        stack.callback(live.close)
        stack.enter_context(main_thread_on({cpu_of(node) for node in own_nodes}))
        for node in busy_nodes:
            stack.enter_context(Hog("base", 1, touch_cpu=cpu_of(node), spin_cpu=cpu_of(node)))
        target = stack.enter_context(child(LENGTH, base_pages))
        live.survey(SCOPE)
        time.sleep(LOOK_SECONDS)
        live.survey(SCOPE)
        outcome = carry_out(live, step_of(target.pid, [(target.address, target.end)], TARGET))
        assert outcome.pages == {PageStatus.MOVED: LENGTH // PAGE}
        assert target.checksum() == target.sum_before
    assert len(seen) >= 2
    return set(seen[1:])


@pytest.mark.parametrize(
    ("busy_nodes", "own_nodes", "permitted", "copying_node"),
    [
        pytest.param([], [0, 1, 2, 3], None, TARGET, id="target"),
        pytest.param([TARGET], [0, 1, 2, 3], None, SOURCE, id="source"),
        pytest.param([], [HERE], None, HERE, id="confined"),
        pytest.param([TARGET], [HERE], [0, 1, 2, 3], SOURCE, id="confined-but-for-copies"),
        pytest.param([TARGET, SOURCE], [HERE], [0, 1, 2, 3], HERE, id="both-busy"),
    ],
)
def test_calls_copy_on_an_idle_cpu_near_the_memory(
    busy_nodes: Sequence[int], own_nodes: Sequence[int], permitted: Sequence[int] | None, copying_node: int
) -> None:
    assert copied_on(busy_nodes, own_nodes, permitted) == {cpu_of(copying_node)}
