"""Heat of a process that nobody samples: its hot part is told from its cold one, and nothing outlives the daemon."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.heat.damon import DamonHeat
from balancerd.kernel.heat.damon_obstacles import find_obstacle
from balancerd.kernel.heat.kdamonds import TREE, Kdamonds
from balancerd.kernel.heat.soft_dirty import SoftDirtyHeat
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.heat import HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.ports import HeatSource
from tests.lab.service import Balancerd
from tests.lab.workloads.warm import Warm

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

HOT_MIB, COLD_MIB = 16, 48
TREE_PATH = Path("/sys") / TREE
POLICIES = "policies: [{name: home, kind: follow-cpu}]"
WATCHING = {
    "select.min_age": "1s",
    "select.min_rss": "32MiB",
    "tick_interval": "1s",
    "accesses.budget": "100%",  # emulated, a look takes 50 times as long
}


@pytest.fixture
def warm() -> Iterator[Warm]:
    with Warm(HOT_MIB, COLD_MIB, busy_percent=30) as program:
        yield program


@pytest.fixture
def kdamonds() -> Kdamonds:
    return Kdamonds(ProcessId(os.getpid(), read_start_ticks(os.getpid())))


def are_told_apart(hot: float, cold: float) -> bool:
    return hot >= 0.05 and hot >= 4 * cold


def wait_for_heat(source: HeatSource, warm: Warm, seconds: float) -> HeatWindow:
    """Read until hot and cold are told apart."""
    source.open(warm.id)
    end, told = time.monotonic() + seconds, "nothing"
    while time.monotonic() < end:
        time.sleep(0.5)
        window = source.read(warm.id)
        if window is None:
            continue
        hot, cold = (window.ratio_within(*part) or 0.0 for part in (warm.hot, warm.cold))
        told = f"{len(window.regions)} regions, hot {hot:.3f}, cold {cold:.3f}, {window.cpu_ratio} of a core"
        print(f"{window.watched_seconds:6.1f} s: {told}")
        if are_told_apart(hot, cold):
            return window
    raise AssertionError(told)


def has_cells_apart(daemon: Balancerd, warm: Warm) -> Callable[[], bool]:
    def look() -> bool:
        answer = daemon.client.get(f"/v1/processes/{warm.pid}/heat?cells=2048")
        sums = []
        for start, end in (warm.hot, warm.cold):
            cells = [
                cell
                for mapping in answer["mappings"]
                for cell in mapping["cells"]
                if start <= int(cell["start"], 16) and int(cell["end"], 16) <= end and cell["heat"] is not None
            ]
            sums.append(sum(cell["heat"] for cell in cells) / max(1, len(cells)))
        print(answer["heat"], sums)
        return are_told_apart(*sums)

    return look


def threads_of_damon() -> list[str]:
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):
            names.append(path.read_text(encoding="ascii", errors="replace").strip())
    return [name for name in names if name.startswith("kdamond.")]


def n_kdamonds() -> int:
    return int((TREE_PATH / "nr_kdamonds").read_text(encoding="ascii"))


def test_damon_tells_hot_from_cold_and_is_gone_when_it_is_shut(kdamonds: Kdamonds, warm: Warm) -> None:
    assert find_obstacle() is None
    source = DamonHeat(MonotonicClock(), kdamonds, slots=2, budget_ratio=1.0)
    assert source.probe() is None
    try:
        wait_for_heat(source, warm, 60.0)
        (thread,) = threads_of_damon()
        assert thread == "kdamond.0"
        source.close(warm.id)
        assert threads_of_damon() == []
        assert n_kdamonds() == 2
    finally:
        source.shut()
    assert (n_kdamonds(), threads_of_damon()) == (0, [])


def test_a_thread_ends_with_its_process_and_serves_the_next_one(kdamonds: Kdamonds, warm: Warm) -> None:
    source = DamonHeat(MonotonicClock(), kdamonds, slots=1, budget_ratio=1.0)
    assert source.probe() is None
    try:
        with Warm(HOT_MIB, COLD_MIB, busy_percent=30) as other:
            source.open(other.id)
            assert threads_of_damon() == ["kdamond.0"]
        end = time.monotonic() + 20.0
        while threads_of_damon() and time.monotonic() < end:
            time.sleep(0.2)
        assert threads_of_damon() == []
        source.close(other.id)
        wait_for_heat(source, warm, 60.0)
    finally:
        source.shut()
    assert n_kdamonds() == 0


@pytest.mark.kernel("6.12", "6.1")
def test_soft_dirty_tells_what_is_written_from_what_is_not(warm: Warm) -> None:
    source = SoftDirtyHeat(MonotonicClock(), budget_ratio=1.0)
    assert source.probe() is None
    window = wait_for_heat(source, warm, 60.0)
    assert all(0 <= region.ratio <= 1 for region in window.regions)
    source.shut()


@pytest.mark.kernel("6.1")
def test_a_kernel_without_damon_says_so() -> None:
    obstacle = find_obstacle()
    assert obstacle is not None
    assert "CONFIG_DAMON_SYSFS" in obstacle.fix


def test_a_tree_that_is_somebody_elses_is_left_as_it_is(kdamonds: Kdamonds) -> None:
    (TREE_PATH / "nr_kdamonds").write_text("1", encoding="ascii")
    (TREE_PATH / "0/contexts/nr_contexts").write_text("1", encoding="ascii")
    try:
        source = DamonHeat(MonotonicClock(), kdamonds, slots=2, budget_ratio=0.5)
        for obstacle in (find_obstacle(), source.probe()):
            assert obstacle is not None
            assert "somebody else" in obstacle.seen
        source.recover()
        source.shut()
        assert n_kdamonds() == 1
        assert (TREE_PATH / "0/contexts/0").is_dir()
    finally:
        (TREE_PATH / "nr_kdamonds").write_text("0", encoding="ascii")


@pytest.mark.thorough
def test_what_a_daemon_leaves_is_nothing_and_after_a_crash_the_next_one_cleans_up(tmp_path: Path, warm: Warm) -> None:
    config = {**WATCHING, "accesses.heat": "damon"}
    with Balancerd(tmp_path / "1", POLICIES, overrides=config) as daemon:
        daemon.wait_for(has_cells_apart(daemon, warm), 90.0, "heat")
        print(daemon.balancerctl("heat", str(warm.pid), "--format", "picture").stdout)
        assert find_obstacle() is None  # seen from outside, balancerd's own use of it is none
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert n_kdamonds() == 4
    assert threads_of_damon() != []
    with Balancerd(tmp_path / "2", POLICIES, overrides=WATCHING) as daemon:
        daemon.wait_for(lambda: n_kdamonds() == 0, 30.0, "end of what was left")
        assert threads_of_damon() == []
        daemon.config.write_text(POLICIES + "\naccesses: {heat: damon}\n", encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda: threads_of_damon() != [], 30.0, "a thread after the reload")
        assert daemon.stop() == 0
    assert (n_kdamonds(), threads_of_damon()) == (0, [])
