"""The main promise, on a real kernel: memory on the wrong node comes home, whole; its neighbours lose nothing."""

import mmap
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab.balancing import eager_balancing
from tests.lab.room import room_mib
from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, mib_by_node, share, vmstat

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

HUGE = Path("/sys/devices/system/node")
YOUNG = {"select.min_age": "1s"}
BRISK = {**YOUNG, "tick_interval": "1s", "migrate.duty_cycle": "100%"}
MIB = 96


def hog_verified(mib: int) -> Ended:
    return Ended(status=0, told=f"verified {mib * 256} pages")


@pytest.fixture
def hugetlb_pools() -> Iterator[None]:
    pools = [HUGE / f"node{n}/hugepages/hugepages-2048kB/nr_hugepages" for n in (0, 2)]
    for pool in pools:
        pool.write_text("60")
        assert pool.read_text().strip() == "60"
    yield
    for pool in pools:
        pool.write_text("0")


def test_a_misplaced_process_comes_home_within_30_seconds_and_its_neighbours_lose_not_a_page(tmp_path: Path) -> None:
    with (
        Hog("base", 96, touch_cpu=1, spin_cpu=1, busy_percent=10) as neighbour,
        Hog("base", 96, touch_cpu=3, spin_cpu=3, busy_percent=10) as other,
        Balancerd(tmp_path, overrides=YOUNG, as_command=True) as daemon,
        Hog("base", 256, touch_cpu=2, spin_cpu=0) as hog,
    ):
        before = {pid: mib_by_node(pid) for pid in (neighbour.pid, other.pid)}
        assert share(hog.pid, 2) > 0.99
        took = daemon.wait_for(lambda: daemon.explain(hog.pid)["reason"] == "well-placed", 60.0, "homecoming")
        assert share(hog.pid, 0) >= 0.99
        print(f"home after {took:.1f} s")
        assert took <= 30.0 + 1.0  # min_age is the second after which it became eligible
        for pid, node in ((neighbour.pid, 1), (other.pid, 3)):
            assert daemon.explain(pid)["reason"] == "well-placed"
            assert daemon.explain(pid)["history"] == []
            assert mib_by_node(pid)[node] >= before[pid][node] >= 96
        pages = daemon.check_accounts()
        assert pages["moved"] >= 256 * 256
        assert hog.end() == hog_verified(256)
        ended = daemon.stop()
        assert ended == 0
        assert daemon.log_lines("stopped")


PROGRAM_PAGES = 1024
WANDERER = f"""
import mmap, os, sys
def run(path):
    with open(path, "w+b") as file:
        file.write(bytes({PROGRAM_PAGES} << 12))
        file.flush()
        program = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    program[:: 4096]
    return program
programs = [run(path) for path in sys.argv[1:]]
memory = bytearray(b"x") * (96 << 20)
os.sched_setaffinity(0, {{0}})
print("ready", flush=True)
while True:
    memory[:: 4096] = bytes(len(memory) // 4096)
"""


def pages_by_node(pid: int, permissions: str, name: str = "") -> Counter[int]:
    """Pages in a process's mappings of files with these permissions, and of this one if it is named, by node."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    files = [line for line in lines if f" {permissions} " in line and line.split()[4] != "0" and line.endswith(name)]
    starts = {line.partition("-")[0] for line in files}
    found: Counter[int] = Counter()
    for line in Path(f"/proc/{pid}/numa_maps").read_text(encoding="ascii").splitlines():
        if line.split()[0] in starts:
            found.update({int(node): int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)})
    return found


def test_a_program_comes_home_with_its_memory_unless_others_run_it_too(tmp_path: Path) -> None:
    alone, common = tmp_path / "alone", tmp_path / "common"
    command = ["taskset", "-c", "2", sys.executable, "-c", WANDERER, str(alone), str(common)]
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program,
    ):
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            with common.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as also_here:
                assert not any(also_here[::4096])
                variables = pages_by_node(program.pid, "rw-p")
                assert variables[2] >= 20
                assert pages_by_node(program.pid, "r-xp", alone.name) == {2: PROGRAM_PAGES}
                daemon.wait_for_reason(program.pid, "well-placed", 60.0)
                after = pages_by_node(program.pid, "rw-p")
                assert after[0] >= 0.95 * after.total() >= 0.95 * variables.total()
                assert pages_by_node(program.pid, "r-xp", alone.name) == {0: PROGRAM_PAGES}
                assert pages_by_node(program.pid, "r-xp", common.name) == {2: PROGRAM_PAGES}
                assert program.poll() is None
        finally:
            program.kill()


@pytest.mark.parametrize(
    "kind", ["thp", pytest.param("file", marks=pytest.mark.thorough), pytest.param("mlock", marks=pytest.mark.thorough)]
)
def test_every_kind_of_memory_comes_home(kind: str, tmp_path: Path) -> None:
    path = Path("/run/hog.file") if kind == "file" else None
    split = vmstat("thp_split_page")
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog(kind, MIB, touch_cpu=2, spin_cpu=0, path=path) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "well-placed", 60.0)
        assert share(hog.pid, 0) >= 0.98  # of which the rest is files mapped by others too
        assert daemon.check_accounts()["moved"] >= MIB * 256
        if kind == "thp":
            assert vmstat("thp_split_page") == split
        assert hog.end() == hog_verified(MIB)
    if path is not None:
        path.unlink()


@pytest.mark.usefixtures("hugetlb_pools")
def test_hugetlb_pages_come_home(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog("hugetlb", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "well-placed", 60.0)
        assert share(hog.pid, 0) >= 0.97
        assert daemon.check_accounts()["moved"] >= MIB * 256
        assert hog.end() == hog_verified(MIB)


def test_pages_shared_with_a_child_stay_and_are_counted_as_such(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog("shared", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "cooldown", 60.0)
        pages = daemon.check_accounts()
        assert pages["eacces"] >= MIB // 2 * 256
        assert pages["moved"] >= MIB // 2 * 256
        assert share(hog.pid, 0) == pytest.approx(0.5, abs=0.03)
        assert hog.end() == hog_verified(MIB)


@contextmanager
def room_left(node: int, mib: float) -> Iterator[list[Hog]]:
    """Idle processes fill a node until about `mib` are left for the daemon to move there."""
    Path("/proc/sys/vm/drop_caches").write_text("3")  # or the node has more room with every file that is forgotten
    with ExitStack() as stack:
        idle: list[Hog] = []
        while (surplus := room_mib(node) - mib) > mib / 4:
            idle.append(stack.enter_context(Hog("base", round(surplus), touch_cpu=node, spin_cpu=node, busy_percent=1)))
        yield idle


def test_what_a_full_home_cannot_take_goes_to_its_close_neighbour(tmp_path: Path) -> None:
    mib = 160
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        room_left(0, 0.5 * mib) as idle,
        Hog("base", mib, touch_cpu=2, spin_cpu=0) as hog,
    ):
        idle_mib = [mib_by_node(each.pid)[0] for each in idle]
        daemon.wait_for(lambda: share(hog.pid, 2) < 0.02, 90.0, "flight to node 1")
        held = mib_by_node(hog.pid)
        assert held[0] > mib / 8
        assert held[1] > mib / 8
        assert held[0] + held[1] >= 0.98 * mib
        for each, before in zip(idle, idle_mib, strict=True):
            assert mib_by_node(each.pid)[0] >= 0.98 * before
        daemon.check_accounts()
        assert hog.end() == hog_verified(mib)


def pages_the_kernel_moved(pid: int) -> int:
    """What the kernel's balancing moved for a process of one thread, from /proc/PID/sched."""
    for line in Path(f"/proc/{pid}/sched").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "numa_pages_migrated":
            return int(value)
    raise KeyError("numa_pages_migrated")


def test_where_the_kernel_balances_too_no_page_moves_twice(tmp_path: Path) -> None:
    with (
        eager_balancing(),
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "well-placed", 90.0)
        daemon.wait_ticks(3)
        # the last hundredth is nothing to the daemon, but the kernel brings it, too
        daemon.wait_for(lambda: share(hog.pid, 0) >= 0.98, 60.0, "last page by the kernel")
        by_kernel, by_daemon = pages_the_kernel_moved(hog.pid), daemon.check_accounts().get("moved", 0)
        print(f"moved by the kernel {by_kernel}, by the daemon {by_daemon} pages")
        assert by_kernel >= MIB * 256 / 2, "the kernel had its chance"
        assert by_kernel + by_daemon <= 1.05 * MIB * 256
        assert hog.end() == hog_verified(MIB)


def test_observe_mode_decides_the_same_and_moves_nothing(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, "mode: observe\n", overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        before, held = vmstat("pgmigrate_success"), mib_by_node(hog.pid)
        told = daemon.wait_for_reason(hog.pid, "observe-mode", 60.0)
        assert told["detail"] == "would move to node 0"
        assert [v["action"] for v in told["verdicts"]] == ["migrate"]
        daemon.wait_ticks(3)
        # the kernel moves some pages, to compact memory
        assert vmstat("pgmigrate_success") - before < MIB * 256 / 20
        assert mib_by_node(hog.pid)[2] >= held[2] >= MIB
        assert daemon.status()["totals"]["submitted_pages"] == 0
        assert hog.end() == hog_verified(MIB)


def test_killed_while_moving_the_workload_is_unharmed_and_a_restart_goes_on(tmp_path: Path) -> None:
    with Hog("base", 192, touch_cpu=2, spin_cpu=0) as hog:
        with Balancerd(tmp_path, overrides=BRISK) as first:
            first.wait_for(lambda: share(hog.pid, 0) > 0.02, 60.0, "beginning of the move")
            first.process.kill()
            first.process.wait()
        assert 0.0 < share(hog.pid, 2) < 1.0
        with Balancerd(tmp_path, overrides=BRISK) as second:
            second.wait_for_reason(hog.pid, "well-placed", 60.0)
            assert share(hog.pid, 0) >= 0.98
            second.check_accounts()
            assert 0 < second.status()["totals"]["moved_bytes"] < 192 << 20
        assert hog.end() == hog_verified(192)


def test_sigterm_in_the_middle_of_a_move_ends_it_within_a_call(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides=BRISK) as daemon,
        Hog("base", 192, touch_cpu=2, spin_cpu=0) as hog,
    ):
        daemon.wait_for(lambda: share(hog.pid, 0) > 0.02, 60.0, "beginning of the move")
        assert daemon.stop() == 0
        assert share(hog.pid, 2) > 0.01
        assert hog.end() == hog_verified(192)
