"""Parts of one process go to the threads that use them, from register sampling alone: the kernel's balancing is off."""

import time
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended
from tests.lab.workloads.team import Team

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

PART_MIB = 16
POLICIES = """
policies:
  - {name: home, kind: follow-cpu}
  - {name: parts, kind: access, min_cpu: 0.1, min_rss: 32MiB}
"""
WATCHING = {
    "select.min_age": "1s",
    "select.min_rss": "32MiB",
    "tick_interval": "1s",
    "migrate.duty_cycle": "100%",
    "accesses.budget": "50%",  # emulated, judging takes 50 times as long
}


@pytest.mark.parametrize("kind", ["base", "thp"])
def test_what_main_touched_goes_to_the_threads_that_use_it(kind: str, tmp_path: Path) -> None:
    balancing = Path("/proc/sys/kernel/numa_balancing").read_text(encoding="ascii").strip()
    assert balancing == "0"
    with Balancerd(tmp_path, POLICIES, overrides=WATCHING) as daemon, Team(kind, PART_MIB, busy_percent=20) as team:
        began = time.monotonic()
        shares: list[tuple[float, tuple[float, ...]]] = []

        def is_home() -> bool:
            # the first one is before the daemon has seen it: all of it is where main has touched it
            shares.append((time.monotonic() - began, team.at_home()))
            return min(shares[-1][1]) >= 0.95

        is_home()
        assert shares[0][1] == pytest.approx((1.0, 0.0, 0.0, 0.0), abs=0.01)
        try:
            took = daemon.wait_for(is_home, 120.0, "parts at home")
        finally:
            for seconds, told in shares:
                print(f"{seconds:6.1f} s: " + " ".join(f"{share:.3f}" for share in told))
            print(daemon.explain(team.pid))
        print(f"{kind}: parts at home after {took:.1f} s: {team.at_home()}")
        daemon.wait_for_reason(team.pid, "well-placed", 60.0)
        pages = daemon.check_accounts()
        assert pages["moved"] >= 0.95 * 3 * PART_MIB * 256
        assert pages["moved"] <= 1.05 * 3 * PART_MIB * 256  # nothing moved twice
        assert team.end() == Ended(status=0, told=f"verified {4 * PART_MIB * 256} pages")
