"""Memory that nobody uses goes to a real swap area bit by bit; what is used stays, and comes back as it was."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads.warm import Warm

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

ZRAM = Path("/sys/block/zram0")
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


def swapped_mib(pid: int) -> float:
    """How much of a process is in swap."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmSwap"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmSwap")


@pytest.mark.usefixtures("_swap")
def test_what_nobody_uses_goes_to_swap_and_what_is_used_stays(tmp_path: Path) -> None:
    with Balancerd(tmp_path, CONFIG, overrides=BRISK) as daemon, Warm(HOT_MIB, COLD_MIB, busy_percent=30) as warm:
        assert swapped_mib(warm.pid) == 0

        def is_gone() -> bool:
            left, told = warm.mib_on(warm.cold), daemon.explain(warm.pid)
            print(f"{left:.1f} MiB left; {told['reason']}: {told['detail']}", flush=True)
            return left < 0.5 * COLD_MIB  # DAMON finds the rest out bit by bit

        seconds = daemon.wait_for(is_gone, 200.0, "cold memory in swap")
        hot, cold, swapped = warm.mib_on(warm.hot), warm.mib_on(warm.cold), swapped_mib(warm.pid)
        print(f"after {seconds:.1f} s {swapped:.1f} MiB are in swap; in memory {hot:.1f} hot, {cold:.1f} cold")
        assert hot > 0.8 * HOT_MIB
        assert swapped > 0.4 * COLD_MIB
