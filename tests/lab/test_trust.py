"""On a real kernel: a part moves first, and the rest when that has stayed."""

from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Hog

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

BRISK = {"select.min_age": "1s", "tick_interval": "1s", "migrate.duty_cycle": "100%"}
MIB = 128
PART_PAGES = 64 * 256


def test_a_part_goes_first_and_the_rest_when_it_has_stayed(tmp_path: Path) -> None:
    with Balancerd(tmp_path, overrides=BRISK) as daemon, Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog:
        daemon.wait_for_reason(hog.pid, "well-placed", 90.0)
        daemon.wait_for(lambda: daemon.explain(hog.pid)["judged"] is not None, 30.0, "judgement")
        told = daemon.explain(hog.pid)
        steps = [step["submitted_pages"] for step in reversed(told["history"])]
        print(f"steps of {[pages // 256 for pages in steps]} MiB, {told['judged']['detail']}")
        assert (
            steps[0] < PART_PAGES + 512
        )  # pages are collected by blocks: a step ends with that which reaches its budget
        assert len(steps) >= 2
        assert (told["judged"]["result"], told["judged"]["is_trial"]) == ("improved", False)
        assert told["deciding"]["by"] == "home"
        planned = daemon.client.get("/v1/plan")
        assert [move for move in planned["moves"] if move["pid"] == hog.pid] == []
        copying = daemon.status()["copying"]
        print(f"copied {copying['bytes_per_second']} B/s in calls")
        assert copying["measured_bytes"] >= 16 << 20
        daemon.check_accounts()
