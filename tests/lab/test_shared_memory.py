"""Shared memory on a real kernel: it comes home for all who map it once all of them run there, and not before."""

import os
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, Verifier, binary, share

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

MIB = 96
BRISK = {
    "select.min_age": "1s",
    "tick_interval": "1s",
    "migrate.duty_cycle": "100%",
    "migrate.cooldown": "2s",
    "migrate.max_cpu_pressure": "null",  # readers of one node share its only CPU
}
VERIFIED = Ended(status=0, told=f"verified {MIB * 256} pages")


class Sharers(Verifier):
    """A process that touched shared memory on node 2, and readers on these CPUs; see sharers.c."""

    def __init__(self, kind: str, *cpus: int) -> None:
        super().__init__([binary("sharers"), kind, str(MIB), "2", *map(str, cpus)])
        self.readers = tuple(map(int, self.added.split()))


@pytest.mark.parametrize("kind", ["anonymous", "memfd"])
def test_memory_comes_home_when_all_who_share_it_run_there(kind: str, tmp_path: Path) -> None:
    with Balancerd(tmp_path, overrides=BRISK) as daemon, Sharers(kind, 0, 0) as sharers:
        for reader in sharers.readers:
            daemon.wait_for_reason(reader, "well-placed", 60.0)
            assert share(reader, 0) >= 0.97
        assert daemon.check_accounts()["moved"] >= MIB * 256
        assert sharers.end() == VERIFIED


def test_memory_stays_while_one_who_shares_it_runs_elsewhere_and_comes_when_he_does(tmp_path: Path) -> None:
    with Balancerd(tmp_path, overrides=BRISK) as daemon, Sharers("anonymous", 0, 1) as sharers:
        near, far = sharers.readers
        daemon.wait_for_reason(near, "quarantine", 60.0)
        assert share(near, 2) >= 0.97
        os.sched_setaffinity(far, {0})
        daemon.wait_for_reason(far, "well-placed", 60.0)
        assert share(near, 0) >= 0.97
        assert sharers.end() == VERIFIED


@pytest.mark.parametrize(("kind", "settings"), [("named", {}), ("anonymous", {"migrate.move_shared": "false"})])
def test_memory_with_a_name_stays_and_all_of_it_does_when_nothing_is_to_move_for_others(
    kind: str, settings: dict[str, str], tmp_path: Path
) -> None:
    with Balancerd(tmp_path, overrides=BRISK | settings) as daemon, Sharers(kind, 0, 0) as sharers:
        daemon.wait_for_reason(sharers.readers[0], "quarantine", 60.0)
        assert share(sharers.readers[0], 2) >= 0.97
        assert daemon.check_accounts()["eacces"] >= MIB // 2 * 256
        assert sharers.end() == VERIFIED
