"""Packing under a real shortage of memory: the same growth that ends in an OOM kill without it goes on with it."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Hog, Verifier, binary, mib_by_node, share, vmstat

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

BRISK = {"select.min_age": "1s", "tick_interval": "1s", "migrate.duty_cycle": "100%"}
NODE = 2
STEP_MIB = 48
LEFT_MIB = 160
"""What the grower leaves at first: more than what makes a node of 1 GiB short."""
BEYOND_MIB = 64
"""By so much more than it was killed for does the grower want in the end."""

HOME = "  - {name: home, kind: follow-cpu}\n"
PACK = "  - {name: pack, kind: packing}\n"


@pytest.fixture
def cpuset() -> Iterator[Path]:
    """A cgroup whose memory is on one node."""
    group = Path("/sys/fs/cgroup/grows")
    group.mkdir()
    (group / "cpuset.mems").write_text(str(NODE), encoding="ascii")
    yield group
    group.rmdir()


def node_mib(*names: str) -> int:
    """Figures of the node's meminfo, together."""
    text = Path(f"/sys/devices/system/node/node{NODE}/meminfo").read_text(encoding="ascii")
    kib = {line.split()[2].rstrip(":"): int(line.split()[3]) for line in text.splitlines()}
    return sum(kib[name] for name in names) >> 10


def is_calm() -> bool:
    """Whether nobody has waited for memory lately."""
    text = Path("/proc/pressure/memory").read_text(encoding="ascii")
    return float(text.split("avg10=")[1].split()[0]) < 5.0


class Grower(Verifier):
    """One `grower` process inside of a cgroup; see grower.c."""

    def __init__(self, group: Path, first_mib: int, most_mib: int) -> None:
        join = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        super().__init__([*join, binary("grower"), str(first_mib), str(STEP_MIB), str(most_mib)])
        self.mib, self.most_mib = first_mib, most_mib

    def grow(self, after_step: Callable[[], object]) -> bool:
        """Grow step by step up to the end; False if it was killed on the way."""
        assert self.process.stdout is not None
        while self.mib < self.most_mib:
            self.process.send_signal(signal.SIGUSR1)
            word, _, told = self.process.stdout.readline().partition(" ")
            if word != "grown":
                return False
            self.mib = int(told)
            after_step()
        return True


def test_a_growth_that_was_killed_goes_on_when_packing_makes_room(tmp_path: Path, cpuset: Path) -> None:
    """The hog may be anywhere and lies where the grower must be; nothing but packing would move it."""
    hog_mib = node_mib("MemFree") * 2 // 5
    with (
        Hog("base", hog_mib, touch_cpu=NODE, spin_cpu=NODE, busy_percent=20) as hog,
        Balancerd(tmp_path, "policies:\n" + HOME, overrides=BRISK) as daemon,
    ):
        daemon.wait_for_reason(hog.pid, "well-placed", 90.0)
        free_mib = node_mib("MemFree")
        first_mib = free_mib - LEFT_MIB
        print(f"node {NODE}: hog {hog_mib} MiB, free {free_mib}; growth from {first_mib}", flush=True)
        killed = vmstat("oom_kill")
        with Grower(cpuset, first_mib, free_mib + hog_mib) as grower:
            assert not grower.grow(lambda: daemon.wait_ticks(1))
            assert grower.process.wait(30) == -signal.SIGKILL
            print(f"without packing it is killed at {grower.mib} MiB", flush=True)
        most_mib = grower.mib + STEP_MIB + BEYOND_MIB
        assert vmstat("oom_kill") == killed + 1
        assert share(hog.pid, NODE) > 0.98

        daemon.reload("policies:\n" + PACK + HOME)
        daemon.wait_for(is_calm, 90.0, "calm after the kill")
        daemon.wait_for_reason(hog.pid, "well-placed", 60.0)
        with Grower(cpuset, first_mib, most_mib) as grower:
            began = time.monotonic()
            assert grower.grow(
                lambda: daemon.wait_for(lambda: node_mib("MemFree", "Inactive(file)") > 2 * STEP_MIB, 90.0, "room")
            )
            print(f"with packing it grew to {grower.mib} MiB in {time.monotonic() - began:.0f} s", flush=True)
            told = daemon.wait_for_reason(hog.pid, "kept-away", 60.0)
            print(f"hog: {mib_by_node(hog.pid)}, {told['detail']}", flush=True)
            assert grower.end() == Ended(status=0, told=f"verified {most_mib * 256} pages")
        assert vmstat("oom_kill") == killed + 1
        assert share(hog.pid, 3) > 0.5, "the nearest node has most of what made room"
        daemon.check_accounts()
        assert hog.end() == Ended(status=0, told=f"verified {hog_mib * 256} pages")
