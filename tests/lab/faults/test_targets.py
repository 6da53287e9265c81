"""Processes to which something happens while their memory moves: they end, stop, freeze, block, fork, shift."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from balancerd.control.client import ControlFailure
from tests.lab.faults.asking import CALM, NO_POLICY, Inner, ask, children, elsewhere, settle, wait_for_job
from tests.lab.faults.conftest import Fault
from tests.lab.faults.tally import Tally
from tests.lab.native_targets import libc
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, binary
from tests.lab.workloads.shifter import Shifter

pytestmark = pytest.mark.topology("four-nodes")

MIB, SHIFTER_MIB = 32, 16
CGROUP = Path("/sys/fs/cgroup/lab-fault")
PTRACE_ATTACH, PTRACE_DETACH = 16, 17  # include/uapi/linux/ptrace.h
MOST_BOMBS = "60"
BOMB = "b() { b | b & }; while :; do b; sleep 0.2; done"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
PATIENCE_SECONDS = 30.0
DISK_BYTES = 128 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancerd]:
    """One daemon for all of these: what happens to one process is nothing to the others, either."""
    with Balancerd(tmp_path_factory.mktemp("targets"), NO_POLICY, overrides=CALM) as running:
        yield running


def wait_for_state(pid: int, states: str) -> None:
    """Wait until a process is in one of these states of proc_pid_stat(5)."""
    end = time.monotonic() + PATIENCE_SECONDS
    stat = Path(f"/proc/{pid}/stat")
    while (state := stat.read_text(encoding="ascii", errors="replace").rpartition(") ")[2][0]) not in states:
        assert time.monotonic() < end, f"process {pid} is in state {state}, not in one of {states}"
        time.sleep(0.01)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP, then SIGCONT."""
    os.kill(pid, signal.SIGSTOP)
    wait_for_state(pid, "T")
    yield
    os.kill(pid, signal.SIGCONT)


@contextmanager
def cgroup(pid: int) -> Iterator[Path]:
    """Put a process into a cgroup of its own, and out of it again."""
    CGROUP.mkdir()
    (CGROUP / "cgroup.procs").write_text(str(pid), encoding="ascii")
    try:
        yield CGROUP
    finally:
        (CGROUP.parent / "cgroup.procs").write_text(str(pid), encoding="ascii")
        CGROUP.rmdir()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze its cgroup, then thaw it."""
    with cgroup(pid) as group:
        (group / "cgroup.freeze").write_text("1", encoding="ascii")
        end = time.monotonic() + PATIENCE_SECONDS
        while "frozen 1" not in (group / "cgroup.events").read_text(encoding="ascii"):
            assert time.monotonic() < end, "it does not freeze"
            time.sleep(0.01)
        yield
        (group / "cgroup.freeze").write_text("0", encoding="ascii")


@contextmanager
def traced(pid: int) -> Iterator[None]:
    """Attach a tracer, which stops it, and let it go."""
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    wait_for_state(pid, "t")
    os.waitpid(pid, os.WUNTRACED)
    yield
    assert libc.ptrace(PTRACE_DETACH, pid, None, None) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def blocked(pid: int) -> Iterator[None]:
    """Let it wait in state D for a child that has its address space, and end that child."""
    os.kill(pid, signal.SIGUSR2)
    wait_for_state(pid, "D")
    yield
    for child in children(pid):
        os.kill(child, signal.SIGKILL)


@contextmanager
def bombed(_pid: int) -> Iterator[None]:
    """Let a fork bomb go off beside it, of so many processes at most."""
    CGROUP.mkdir()
    (CGROUP / "pids.max").write_text(MOST_BOMBS, encoding="ascii")
    (CGROUP / "cpu.max").write_text("20000 100000", encoding="ascii")
    command = f"echo $$ > {CGROUP}/cgroup.procs; {BOMB}"
    with subprocess.Popen(["sh", "-c", command], stderr=subprocess.DEVNULL) as bomb:
        yield
        while "populated 1" in (CGROUP / "cgroup.events").read_text(encoding="ascii"):
            (CGROUP / "cgroup.kill").write_text("1", encoding="ascii")
            time.sleep(0.05)
        bomb.kill()
    CGROUP.rmdir()


Happening = Callable[[int], AbstractContextManager[None]]
HAPPENINGS: dict[str, tuple[str, Happening]] = {
    "stopped": ("SIGSTOP of a process whose memory moves, later SIGCONT", stopped),
    "frozen": ("the cgroup of a process whose memory moves is frozen, later thawed", frozen),
    "traced": ("a tracer attaches to a process whose memory moves, and lets it go", traced),
    "blocked": ("a process whose memory moves is in state D for a while (parent of a vfork)", blocked),
    "fork-bomb": (f"a fork bomb of {MOST_BOMBS} processes goes off beside a process whose memory moves", bombed),
}


def few_of(name: str) -> object:
    """Only those that differ most are tried whenever lab tests run."""
    return name if name in {"frozen", "blocked"} else pytest.param(name, marks=pytest.mark.thorough)


@pytest.mark.parametrize("name", [few_of(name) for name in HAPPENINGS])
def test_whatever_happens_to_it_its_memory_is_whole_and_its_move_comes_to_an_end(
    fault: Fault, daemon: Balancerd, name: str
) -> None:
    told, happening = HAPPENINGS[name]
    with (
        fault(name, told, few=1, many=10) as tally,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog,
    ):
        let_happen(tally, daemon, hog, happening)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["modprobe", "-a", "loop", "ext4"], check=True)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.thorough
def test_memory_that_is_a_file_on_a_frozen_file_system_is_whole(fault: Fault, daemon: Balancerd, disk: Path) -> None:
    @contextmanager
    def disk_frozen(_pid: int) -> Iterator[None]:
        subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
        with subprocess.Popen(["touch", str(disk / "blocked")]) as blocked:
            try:
                wait_for_state(blocked.pid, "D")
                yield
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)

    told = "the memory is a file, whose file system is frozen (fsfreeze) while it moves; another process waits for that"
    with (
        fault("frozen-disk", told, few=1, many=10) as tally,
        Hog("file", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5, path=disk / "memory") as hog,
    ):
        let_happen(tally, daemon, hog, disk_frozen)


def let_happen(tally: Tally, daemon: Balancerd, hog: Hog, happening: Happening) -> None:
    """Have all of its memory move, let something happen to it meanwhile for a while, and look after it, in each try."""
    for _ in tally.tries:
        with tally.trying():
            job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog)))
            time.sleep(tally.dice.uniform(0.0, 0.8))
            with happening(hog.pid):
                time.sleep(tally.dice.uniform(0.0, 1.0))
                if tally.dice.random() < 0.5:
                    wait_for_job(daemon, job)
                    tally.count("moves that ended meanwhile")
            settle(tally, daemon, job)
            tally.verify(hog.check(), MIB * 256)
            tally.audit(daemon)
    tally.verify(hog.end(), MIB * 256)


def test_who_ends_in_the_middle_of_a_move_is_told_of(fault: Fault, daemon: Balancerd) -> None:
    with fault("ends", "a process is killed while its memory moves", few=1, many=30) as tally:
        for _ in tally.tries:
            with tally.trying(), Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog:
                job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog)))
                time.sleep(tally.dice.uniform(0.0, 1.0))
                hog.process.kill()
                hog.process.wait()
                settle(tally, daemon, job)
                tally.audit(daemon)


@pytest.mark.thorough
def test_a_process_in_namespaces_of_its_own_moves_as_any_other(fault: Fault, daemon: Balancerd) -> None:
    told = "the process is in a pid and a user namespace of its own"
    with (
        fault("namespaces", told, few=1, many=10) as tally,
        Inner("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5, prefix=NAMESPACES) as hog,
    ):
        for _ in tally.tries:
            with tally.trying():
                assert settle(tally, daemon, ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog))))["state"] == "done"
                tally.verify(hog.check(), MIB * 256)
                tally.audit(daemon)
        tally.verify(hog.end(), MIB * 256)


ACTS = {
    "munmap": "a process unmaps, maps anew and fills parts of its memory while it moves",
    "mremap": "a process shifts, grows and shrinks mappings while they move",
    "fork": "a process forks, and both write, while its memory moves",
    "exec": "a process executes itself over and over while its memory moves",
    "exit": "a process exits and another one takes its place, over and over, while memory moves",
    "touch": "threads on two CPUs write all of the memory while it moves",
}


@pytest.mark.thorough
@pytest.mark.parametrize("act", ACTS)
def test_memory_that_shifts_while_it_moves_is_whole(fault: Fault, daemon: Balancerd, act: str, tmp_path: Path) -> None:
    with fault(act, ACTS[act], few=1, many=10) as tally:
        for number in tally.tries:
            (tmp_path / str(number)).mkdir()
            seed = tally.dice.randrange(1, 1 << 30)
            with (
                tally.trying(),
                Shifter(act, SHIFTER_MIB, tmp_path / str(number), cpu=0, seed=seed) as shifter,
            ):
                end = time.monotonic() + tally.dice.uniform(1.0, 3.0)
                while time.monotonic() < end:
                    with suppress(ControlFailure):  # it is gone again, or has a job already
                        settle(tally, daemon, ask(daemon, shifter.counters["pid"], tally.dice.randrange(4)))
                shifter.rest()
                tally.count("acts", shifter.counters["done"])
                told = shifter.finish()
                tally.figures.workload_errors += not told.endswith("status 0, 0 pages were wrong")
                tally.figures.pages_lost += shifter.counters["wrong"]
                assert told.endswith("status 0, 0 pages were wrong"), told
                tally.audit(daemon)


@pytest.mark.thorough
def test_a_process_that_keeps_its_address_space_locked_is_not_waited_for(fault: Fault, daemon: Balancerd) -> None:
    told = "sixteen threads of a process change the protection of 256 MiB without end (mprotect) while its memory moves"
    with fault("mprotect", told, few=1, many=10) as tally:
        for _ in tally.tries:
            command = [str(binary("locker")), str(MIB), "2", "0", "256"]
            with tally.trying(), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as locker:
                assert locker.stdout is not None
                assert locker.stdout.readline() == "ready\n"
                job = ask(daemon, locker.pid, tally.dice.choice((0, 1, 3)))
                time.sleep(tally.dice.uniform(1.0, 4.0))
                tally.audit(daemon)
                tally.figures.workload_errors += locker.poll() is not None
                assert locker.poll() is None
                locker.kill()
                settle(tally, daemon, job)
