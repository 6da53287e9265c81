"""CPUs and nodes that go, nodes without room, the OOM killer, and errors that the kernel makes up: under moves."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.faults.asking import CALM, NO_POLICY, ask, elsewhere, settle
from tests.lab.faults.conftest import Fault
from tests.lab.hotplug import (
    DIMM,
    SECONDS,
    bring_everything_back,
    memory_blocks,
    node_numbers,
    node_of,
    set_blocks,
    set_cpu,
)
from tests.lab.room import room_mib
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, Verifier, binary, vmstat

MIB = 32
CGROUP = Path("/sys/fs/cgroup/lab-oom")
DEBUG = Path("/sys/kernel/debug")
INJECTIONS = {"failslab": "allocations of small objects fail", "fail_page_alloc": "allocations of pages fail"}


@pytest.fixture
def everything_online() -> Iterator[None]:
    """Whatever a test took out is there again afterwards, but for a DIMM that was ejected."""
    yield
    bring_everything_back()


def wait_for_cpus(daemon: Balancerd, node: int, *, online: bool) -> None:
    """Wait until it says that a node has CPUs, or none."""
    daemon.wait_for(lambda: bool(node_of(daemon, node)["cpus"]) == online, SECONDS, "word of the CPUs")


@pytest.mark.topology("four-nodes")
@pytest.mark.usefixtures("everything_online")
def test_cpus_go_and_come_back_while_memory_moves(fault: Fault, tmp_path: Path) -> None:
    told = "one to three of four CPUs go offline while memory moves, and come back"
    with (
        fault("cpus-offline", told, few=1, many=6) as tally,
        Balancerd(tmp_path, overrides={**CALM, "select.min_age": "1s"}) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=20) as hog,
    ):
        for _ in tally.tries:
            with tally.trying():
                chosen = tally.dice.sample((1, 2, 3), tally.dice.randint(1, 3))
                job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog)))
                time.sleep(tally.dice.uniform(0.0, 0.8))
                for cpu in chosen:
                    set_cpu(cpu, online=False)
                tally.count("CPUs that went", len(chosen))
                wait_for_cpus(daemon, chosen[-1], online=False)
                settle(tally, daemon, job)
                for cpu in chosen:
                    set_cpu(cpu, online=True)
                wait_for_cpus(daemon, chosen[-1], online=True)
                tally.verify(hog.check(), MIB * 256)
                tally.audit(daemon)
        tally.verify(hog.end(), MIB * 256)


@pytest.mark.topology("four-nodes")
@pytest.mark.thorough
def test_a_node_without_room_takes_what_it_can(fault: Fault, tmp_path: Path) -> None:
    told = "the node that memory is to go to is full, or fills up meanwhile"
    with (
        fault("node-full", told, few=1, many=6) as tally,
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("base", 96, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog,
    ):
        for _ in tally.tries:
            with tally.trying(), ExitStack() as stack:
                node = tally.dice.choice(elsewhere(hog))
                job = ask(daemon, hog.pid, node) if (is_meanwhile := tally.dice.random() < 0.5) else None
                surplus = round(room_mib(node) - tally.dice.uniform(0.0, 48.0))
                if surplus > 0:
                    stack.enter_context(Hog("base", surplus, touch_cpu=node, spin_cpu=node, busy_percent=1))
                settle(tally, daemon, ask(daemon, hog.pid, node) if job is None else job)
                tally.count("filled up meanwhile" if is_meanwhile else "full before")
                tally.verify(hog.check(), 96 * 256)
                tally.audit(daemon)
        tally.verify(hog.end(), 96 * 256)


@pytest.mark.topology("four-nodes")
@pytest.mark.thorough
def test_the_oom_killer_takes_a_process_whose_memory_moves(fault: Fault, tmp_path: Path) -> None:
    told = "the OOM killer ends a process whose memory moves, in a cgroup that is too small for it"
    with (
        fault("oom-killer", told, few=1, many=6) as tally,
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as bystander,
    ):
        CGROUP.mkdir()
        (CGROUP / "memory.max").write_text(f"{MIB + 24}M", encoding="ascii")
        for _ in tally.tries:
            with tally.trying():
                killed = vmstat("oom_kill")
                join = ("sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs; exec "$@"', "sh")
                with Verifier([*join, binary("grower"), str(MIB), "4", "512"]) as grower:
                    (CGROUP / "memory.swap.max").write_text("0", encoding="ascii")
                    jobs = [ask(daemon, grower.pid, tally.dice.randrange(4))]
                    jobs.append(ask(daemon, bystander.pid, tally.dice.choice(elsewhere(bystander))))
                    time.sleep(tally.dice.uniform(0.0, 0.8))
                    while grower.process.poll() is None:
                        os.kill(grower.pid, signal.SIGUSR1)
                        time.sleep(0.02)
                    assert grower.process.returncode == -signal.SIGKILL
                tally.count("processes that the OOM killer took", vmstat("oom_kill") - killed)
                for job in jobs:
                    settle(tally, daemon, job)
                tally.verify(bystander.check(), MIB * 256)
                tally.audit(daemon)
        CGROUP.rmdir()
        tally.verify(bystander.end(), MIB * 256)


@pytest.mark.topology("four-nodes")
@pytest.mark.thorough
@pytest.mark.parametrize("name", INJECTIONS)
def test_errors_that_the_kernel_makes_up_are_survived(fault: Fault, tmp_path: Path, name: str) -> None:
    place = DEBUG / name
    with fault(name, f"fault injection: {INJECTIONS[name]}", few=1, many=6) as tally:
        if not place.exists():
            tally.lack(f"Debian's kernel is built without CONFIG_FAULT_INJECTION: there is no {place}")
            return
        with (
            Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
            Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog,
        ):
            for _ in tally.tries:
                with tally.trying():
                    job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog)))
                    (place / "times").write_text("100", encoding="ascii")
                    (place / "probability").write_text("5", encoding="ascii")
                    time.sleep(tally.dice.uniform(0.2, 1.0))
                    (place / "probability").write_text("0", encoding="ascii")
                    settle(tally, daemon, job)
                    tally.verify(hog.check(), MIB * 256)
                    tally.audit(daemon)


@pytest.mark.topology("removable-node")
@pytest.mark.thorough
@pytest.mark.usefixtures("everything_online")
def test_a_node_loses_its_memory_while_memory_moves_there_and_back(fault: Fault, tmp_path: Path) -> None:
    told = "all memory of a node goes offline while memory moves there, or back, and comes online again"
    with (
        fault("node-offline", told, few=1, many=6) as tally,
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=1, busy_percent=5) as hog,
    ):
        whole = len(memory_blocks(2))
        for _ in tally.tries:
            with tally.trying():
                job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog, (0, 1, 2))))
                time.sleep(tally.dice.uniform(0.0, 0.8))
                tally.count("blocks that went", set_blocks(2, "offline"))
                settle(tally, daemon, job)
                if set_blocks(2, "offline") == whole:
                    tally.count("times that the node had no memory left")
                    daemon.wait_for(lambda: node_of(daemon, 2)["total_bytes"] == 0, SECONDS, "node without memory")
                assert set_blocks(2, "online_movable") == 0  # it says "online" then
                tally.verify(hog.check(), MIB * 256)
                tally.audit(daemon)
        tally.verify(hog.end(), MIB * 256)


@pytest.mark.topology("removable-node")
@pytest.mark.thorough
@pytest.mark.usefixtures("everything_online")
def test_what_is_left_of_a_machine_is_one_node_with_a_cpu(fault: Fault, tmp_path: Path) -> None:
    # The last fault of its machine: nothing brings the DIMM back.
    told = "one node is taken out, another one loses its CPU and what memory it can lose: one node is left to run on"
    with (
        fault("one-node-left", told, few=1, many=1) as tally,
        Balancerd(tmp_path, overrides={**CALM, "select.min_age": "1s"}) as daemon,
        Hog("base", MIB, touch_cpu=1, spin_cpu=0, busy_percent=20) as hog,
    ):
        for _ in tally.tries:
            with tally.trying():
                job = ask(daemon, hog.pid, 2)
                time.sleep(tally.dice.uniform(0.0, 0.8))
                assert set_blocks(2, "offline") == len(memory_blocks(2))
                (DIMM / "eject").write_text("1")
                set_cpu(1, online=False)
                tally.count("blocks of node 1 that went", set_blocks(1, "offline"))
                tally.count("blocks of node 1", len(memory_blocks(1)))
                settle(tally, daemon, job)
                daemon.wait_for(lambda: node_numbers(daemon) == [0, 1], SECONDS, "end of the node")
                daemon.wait_ticks(3)
                assert daemon.balancerctl("nodes").returncode == 0
                tally.verify(hog.check(), MIB * 256)
                tally.audit(daemon)
        tally.verify(hog.end(), MIB * 256)
