"""Hot memory comes from a memory-only node to the node of its threads, and cold memory leaves a node that is short."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Hog
from tests.lab.workloads.warm import MIB, Part, Warm

pytestmark = [pytest.mark.topology("memory-only-tier"), pytest.mark.timeout(300)]

HOT_MIB, COLD_MIB = 8, 56
HOME, SLOW = 1, 2  # warm runs on CPU 1
CONFIG = """
policies:
  - {name: tiers, kind: tiering, min_watched: 5s, min_rss: 32MiB, headroom: 10%}
accesses: {heat: damon, sources: []}
"""
BRISK = {
    "select.min_age": "1s",
    "select.min_rss": "32MiB",
    "tick_interval": "1s",
    "migrate.duty_cycle": "100%",
    "migrate.max_memory_pressure": "null",
    "migrate.max_cpu_pressure": "null",
    "accesses.budget": "100%",  # emulated, a look takes 50 times as long
}


def is_there(daemon: Balancerd, warm: Warm, node: int, part: Part, ratio: float) -> Callable[[], bool]:
    """Whether so much of a part lies on a node; tells each time what the daemon says."""

    def look() -> bool:
        here, told = warm.mib_on(part, node), daemon.explain(warm.pid)
        print(f"{here:.1f} MiB on node {node}; {told['reason']}: {told['detail']}", flush=True)
        return here > ratio * (part[1] - part[0]) / MIB

    return look


def meminfo(node: int) -> dict[str, float]:
    """The fields of a node's meminfo, in MiB."""
    lines = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text(encoding="ascii").splitlines()
    return {words[2].rstrip(":"): int(words[3]) / 1024 for words in map(str.split, lines)}


def filler_mib(node: int) -> int:
    """How much must be filled so that a sixth of a node is left: less than watermark, reserve and headroom."""
    now = meminfo(node)
    return round(now["MemFree"] + now["Inactive(file)"] - now["MemTotal"] / 6)


def moves(daemon: Balancerd) -> set[tuple[int, str]]:
    """Pid and reason of all moves, once every page of them is accounted for."""
    print(f"moved by the daemon: {daemon.check_accounts()}")
    return {(move["pid"], move["reason"]) for move in daemon.client.get("/v1/moves")["moves"]}


def test_what_is_hot_comes_up_from_the_memory_only_node_and_what_is_cold_stays(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, CONFIG, overrides=BRISK) as daemon,
        Warm(HOT_MIB, COLD_MIB, busy_percent=50) as warm,
    ):
        subprocess.run(["migratepages", str(warm.pid), str(HOME), str(SLOW)], check=True)
        assert warm.mib_on(warm.hot, SLOW) > 0.95 * HOT_MIB
        daemon.wait_for(is_there(daemon, warm, HOME, warm.hot, 0.8), 120.0, "hot memory near its threads")
        daemon.wait_for_reason(warm.pid, "in-its-tier", 60.0)
        daemon.wait_ticks(15)
        assert warm.mib_on(warm.cold, SLOW) > 0.8 * COLD_MIB, "nobody uses it"
        assert moves(daemon) == {(warm.pid, "promotion")}


def test_what_is_cold_leaves_a_node_that_is_short_and_what_is_hot_stays(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, CONFIG, overrides=BRISK) as daemon,
        Warm(HOT_MIB, COLD_MIB, busy_percent=50) as warm,
    ):
        daemon.wait_for_reason(warm.pid, "in-its-tier", 90.0)
        assert warm.mib_on(warm.cold, HOME) == COLD_MIB, "there is room"
        with Hog("base", filler_mib(HOME), touch_cpu=HOME, spin_cpu=0, busy_percent=1):
            print({name: round(meminfo(HOME)[name]) for name in ("MemTotal", "MemFree", "Inactive(file)")})
            daemon.wait_for(is_there(daemon, warm, SLOW, warm.cold, 0.7), 120.0, "cold memory elsewhere")
            daemon.wait_ticks(5)
            assert warm.mib_on(warm.hot, HOME) > 0.7 * HOT_MIB
        assert (warm.pid, "demotion") in moves(daemon)
