"""What operators switch, on a real kernel with four nodes: a pause holds a move up, all of it is taken back, advice."""

from pathlib import Path
from typing import Any

import pytest

from tests.lab.service import Balancerd
from tests.lab.test_commands import CALM, MIB, NO_POLICY
from tests.lab.workloads import Hog, mib_by_node

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]


def test_a_pause_holds_a_move_up_and_what_moved_lately_is_taken_back(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
        Hog("base", MIB, touch_cpu=0, spin_cpu=0, busy_percent=10) as hog,
    ):

        def job(number: int) -> dict[str, Any]:
            found: dict[str, Any] = daemon.client.get(f"/v1/jobs/{number}")["job"]
            return found

        assert daemon.client.post("/v1/pause")["pause"]["left_seconds"] is None
        begun = daemon.client.post("/v1/jobs", {"kind": "move", "pid": hog.pid, "to": "2"})["job"]
        daemon.wait_ticks(1)
        assert daemon.status()["paused"]
        assert job(begun["id"])["state"] == "queued"
        assert mib_by_node(hog.pid)[2] < MIB

        assert daemon.client.post("/v1/resume")["was_paused"]
        daemon.wait_for(lambda: job(begun["id"])["state"] == "done", 120.0, "the move")
        assert mib_by_node(hog.pid)[2] >= MIB
        done = daemon.balancerctl("undo", "--since", "1h")
        print(done.stdout, done.stderr)
        assert done.returncode == 0
        assert mib_by_node(hog.pid)[0] >= MIB

        first = daemon.balancerctl("advise", "--numad", "0:64")  # leases it to root
        assert first.stdout in {f"{node}\n" for node in range(4)}
        (lease,) = daemon.client.get("/v1/advice")["leases"]
        assert lease["nodes"] == first.stdout.strip()
