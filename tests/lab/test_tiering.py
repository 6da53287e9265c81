"""Hot memory comes from a memory-only node to the node of its threads, and cold memory leaves a node that is short."""

import subprocess
from pathlib import Path

import pytest

from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId
from balancerd.native import RangeArray, placement
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, Program, binary

pytestmark = [pytest.mark.topology("memory-only-tier"), pytest.mark.timeout(300)]

MIB = 1 << 20
PAGE = 4096
HOT_MIB, COLD_MIB = 16, 48
HOME, SLOW = 1, 2  # warm runs on CPU 1
CONFIG = """
policies:
  - {name: tiers, kind: tiering, min_watched: 5s, min_rss: 32MiB, headroom: 10%}
  - {name: home, kind: follow-cpu}
"""
BRISK = {
    "select.min_age": "1s",
    "select.min_rss": "32MiB",
    "tick_interval": "1s",
    "migrate.duty_cycle": "100%",
    "migrate.max_memory_pressure": "null",
    "migrate.max_cpu_pressure": "null",
    "accesses.heat": "damon",
    "accesses.sources": "[]",
    "accesses.budget": "100%",  # emulated, a look takes 50 times as long
}


class Warm(Program):
    """One `warm` process, all of its memory on `node`; see warm.c."""

    def __init__(self, node: int) -> None:
        super().__init__([binary("warm"), str(HOT_MIB), str(COLD_MIB), "20"])
        start = int(self.added, 16)
        middle = start + HOT_MIB * MIB
        self.hot, self.cold = (start, middle), (middle, middle + COLD_MIB * MIB)
        self.id = ProcessId(self.pid, read_start_ticks(self.pid))
        if node != HOME:
            subprocess.run(["migratepages", str(self.pid), str(HOME), str(node)], check=True)

    def mib_on(self, node: int, part: tuple[int, int]) -> float:
        """How much of a part lies on a node, every page asked for."""
        found = placement(self.pid, RangeArray([(*part, PAGE)]), n_nodes=3, samples=0, phase=0.0)
        return sum(row.on_node[node] for row in found.per_range) * PAGE / MIB


def meminfo(node: int) -> dict[str, float]:
    """The fields of a node's meminfo, in MiB."""
    lines = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text(encoding="ascii").splitlines()
    return {words[2].rstrip(":"): int(words[3]) / 1024 for words in map(str.split, lines)}


def filler_mib(node: int) -> int:
    """How much must be filled so that a sixth of a node is left: less than watermark, reserve and headroom."""
    now = meminfo(node)
    return round(now["MemFree"] + now["Inactive(file)"] - now["MemTotal"] / 6)


def test_hot_memory_comes_up_and_cold_memory_leaves_once_the_fast_node_is_short(tmp_path: Path) -> None:
    with Balancerd(tmp_path, CONFIG, overrides=BRISK) as daemon:
        with Warm(SLOW) as slow:
            assert slow.mib_on(SLOW, slow.hot) > 0.95 * HOT_MIB
            seconds = daemon.wait_for(
                lambda: slow.mib_on(HOME, slow.hot) > 0.9 * HOT_MIB, 120.0, "hot memory on the node of its threads"
            )
            print(f"after {seconds:.1f} s {slow.mib_on(HOME, slow.hot):.1f} of {HOT_MIB} MiB are up")
            daemon.wait_for_reason(slow.pid, "in-its-tier", 60.0)
            print(f"{slow.mib_on(SLOW, slow.cold):.1f} of {COLD_MIB} MiB stay")
            assert slow.mib_on(SLOW, slow.cold) > 0.8 * COLD_MIB, "nobody uses it"
        with Warm(HOME) as fast:
            daemon.wait_for_reason(fast.pid, "in-its-tier", 60.0)
            assert fast.mib_on(HOME, fast.cold) == COLD_MIB, "there is room"
            with Hog("base", filler_mib(HOME), touch_cpu=HOME, spin_cpu=0, busy_percent=1):
                print({name: round(meminfo(HOME)[name]) for name in ("MemTotal", "MemFree", "Inactive(file)")})
                seconds = daemon.wait_for(
                    lambda: fast.mib_on(SLOW, fast.cold) > 0.8 * COLD_MIB, 120.0, "cold memory on the slow node"
                )
                up = fast.mib_on(HOME, fast.hot)
                print(f"after {seconds:.1f} s {fast.mib_on(SLOW, fast.cold):.1f} MiB have left, {up:.1f} hot ones stay")
                assert up > 0.8 * HOT_MIB
        print(f"moved by the daemon: {daemon.check_accounts()}")
        reasons = {(move["pid"], move["reason"]) for move in daemon.client.get("/v1/moves")["moves"]}
        assert {(slow.pid, "promotion"), (fast.pid, "demotion")} <= reasons
