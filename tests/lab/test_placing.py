"""Policies that say where memory belongs, on a real kernel: rules, cpusets that change, nodes that are emptied."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, share

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

BRISK = {"select.min_age": "1s", "tick_interval": "1s", "migrate.duty_cycle": "100%"}
MIB = 96
VERIFIED = Ended(status=0, told=f"verified {MIB * 256} pages")


@pytest.fixture
def cpuset() -> Iterator[Path]:
    group = Path("/sys/fs/cgroup/moved")
    group.mkdir()
    yield group
    group.rmdir()


def test_memory_is_inside_of_a_cpuset_that_changed_and_stays_there(tmp_path: Path, cpuset: Path) -> None:
    """On cgroup v2 the kernel moves it, too, at once (cgroup-v2.rst). What it leaves follows; nothing comes back."""
    join = ("sh", "-c", f'echo $$ > {cpuset}/cgroup.procs; exec "$@"', "sh")
    config = "policies: [{name: cpusets, kind: cpuset-follow}, {name: home, kind: follow-cpu}]\n"
    with (
        Balancerd(tmp_path, config, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=2, prefix=join) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "well-placed", 60.0)
        assert share(hog.pid, 2) > 0.95
        (cpuset / "cpuset.mems").write_text("1,3", encoding="ascii")
        daemon.wait_for(lambda: share(hog.pid, 1, 3) > 0.98, 90.0, "memory inside of the cpuset")
        daemon.wait_ticks(12)
        assert share(hog.pid, 1, 3) > 0.98, "its home is node 2, where it may not be"
        print(f"moved by the daemon: {daemon.check_accounts()}")
        assert hog.end() == VERIFIED


@pytest.mark.thorough
def test_memory_follows_an_affinity_that_is_narrowed(tmp_path: Path) -> None:
    config = "policies: [{name: cpusets, kind: cpuset-follow}]\n"
    with (
        Balancerd(tmp_path, config, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        os.sched_setaffinity(hog.pid, {0, 1, 2, 3})
        daemon.wait_for_reason(hog.pid, "inside-cpuset", 60.0)
        daemon.wait_ticks(12)  # an affinity is read anew every 10 s
        assert share(hog.pid, 2) > 0.95
        os.sched_setaffinity(hog.pid, {1})
        daemon.wait_for(lambda: share(hog.pid, 1) > 0.98, 90.0, "memory on node 1")
        assert hog.end() == VERIFIED


@pytest.mark.thorough
def test_a_rule_says_where_memory_belongs_whatever_threads_do(tmp_path: Path) -> None:
    config = (
        "policies:\n"
        "  - {name: fixed, kind: rule, rules: [{match: [{comm: hog}], nodes: 3}]}\n"
        "  - {name: home, kind: follow-cpu}\n"
    )
    with (
        Balancerd(tmp_path, config, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "as-ruled", 90.0)
        assert share(hog.pid, 3) > 0.98
        daemon.wait_ticks(5)
        assert share(hog.pid, 3) > 0.98, "it does not follow its thread to node 0"
        assert hog.end() == VERIFIED


def blocks_of(node: int) -> list[Path]:
    return [path / "state" for path in Path(f"/sys/devices/system/node/node{node}").glob("memory[0-9]*")]


def offline(blocks: list[Path]) -> list[Path]:
    """Take memory blocks offline; returns those that went."""
    gone = []
    for block in blocks:
        try:
            block.write_text("offline", encoding="ascii")
        except OSError as error:
            print(f"{block}: {error}")
        else:
            gone.append(block)
    return gone


def test_a_drained_node_holds_nothing_and_its_memory_goes_offline(tmp_path: Path) -> None:
    config = "policies: [{name: empty, kind: drain, nodes: 2}, {name: home, kind: follow-cpu}]\n"
    with (
        Balancerd(tmp_path, config, overrides=BRISK) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=2) as hog,  # at home, where nobody may stay
        Hog("base", MIB, touch_cpu=2, spin_cpu=0) as other,
    ):
        for each in (hog, other):
            daemon.wait_for(lambda pid=each.pid: share(pid, 2) < 0.02, 120.0, "an empty node 2")  # type: ignore[misc]
        gone = offline(blocks_of(2))
        try:
            print(f"{len(gone)} of {len(blocks_of(2))} blocks went offline")
            assert gone
            assert share(hog.pid, 2) < 0.02
            assert hog.end() == VERIFIED
            assert other.end() == VERIFIED
            daemon.check_accounts()
        finally:
            for block in gone:
                block.write_text("online", encoding="ascii")
