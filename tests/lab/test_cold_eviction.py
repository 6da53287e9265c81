"""Memory that nobody uses goes to a real swap area bit by bit; what is used stays, and comes back as it was."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.native import RangeArray, placement
from tests.lab.service import Balancerd
from tests.lab.workloads import Program, binary

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

ZRAM = Path("/sys/block/zram0")
MIB = 1 << 20
PAGE = 4096
HOT_MIB, COLD_MIB = 16, 48
# DAMON counts its looks for seconds, and emulated they take longer: 2 s are about 6
POLICY = "{name: cold, kind: cold-eviction, cold_after: 2s, step: 50%, rate_limit: 16MiB/s, min_rss: 16MiB"
CONFIG = f"policies: [{POLICY}, max_pressure: 100%}}]\naccesses: {{heat: damon, sources: []}}\n"
BRISK = {
    "select.min_age": "1s",
    "select.min_rss": "16MiB",
    "tick_interval": "1s",
    "migrate.duty_cycle": "100%",
    "migrate.max_memory_pressure": "null",
    "accesses.budget": "100%",  # emulated, a look takes 50 times as long
}


@pytest.fixture
def _swap() -> Iterator[None]:
    subprocess.run(["modprobe", "zram"], check=True)
    (ZRAM / "disksize").write_text("256M")
    subprocess.run(["mkswap", "/dev/zram0"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", "/dev/zram0"], check=True)
    yield
    subprocess.run(["swapoff", "/dev/zram0"], check=True)
    (ZRAM / "reset").write_text("1")


class Warm(Program):
    """One `warm` process; see warm.c."""

    def __init__(self) -> None:
        super().__init__([binary("warm"), str(HOT_MIB), str(COLD_MIB), "30"])
        start = int(self.added, 16)
        middle = start + HOT_MIB * MIB
        self.hot, self.cold = (start, middle), (middle, middle + COLD_MIB * MIB)

    def present_mib(self, part: tuple[int, int]) -> float:
        """How much of a part is in memory, every page asked for."""
        found = placement(self.pid, RangeArray([(*part, PAGE)]), n_nodes=4, samples=0, phase=0.0)
        return sum(sum(row.on_node) for row in found.per_range) * PAGE / MIB

    def swapped_mib(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmSwap"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmSwap")


@pytest.mark.usefixtures("_swap")
def test_what_nobody_uses_goes_to_swap_and_what_is_used_stays(tmp_path: Path) -> None:
    with Balancerd(tmp_path, CONFIG, overrides=BRISK) as daemon, Warm() as warm:
        assert warm.swapped_mib() == 0

        def is_gone() -> bool:
            left, told = warm.present_mib(warm.cold), daemon.explain(warm.pid)
            print(f"{left:.1f} MiB left; {told['reason']}: {told['detail']}", flush=True)
            return left < 0.5 * COLD_MIB  # DAMON finds the rest out bit by bit

        seconds = daemon.wait_for(is_gone, 200.0, "cold memory in swap")
        hot, cold, swapped = warm.present_mib(warm.hot), warm.present_mib(warm.cold), warm.swapped_mib()
        print(f"after {seconds:.1f} s {swapped:.1f} MiB are in swap; in memory {hot:.1f} hot, {cold:.1f} cold")
        assert hot > 0.8 * HOT_MIB
        assert swapped > 0.4 * COLD_MIB
