"""The benchmark of locality in small: what it measures of nobody, of balancerd, and of a binding, each in a boot.

Outside; a boot of its own for each run, as the benchmark makes them. The bands are wide: a busy host makes a guest
slow, and then a move takes longer, but what the oracle counts stays the same.
"""

import os

import pytest

from tests.bench.locality import boots
from tests.bench.locality.boots import Wanted
from tests.bench.locality.workloads import WORKLOADS
from tests.lab.conftest import MachinePool
from tests.lab.state import lab_directory

pytestmark = pytest.mark.host

MIB = 24
SETTINGS = {"select.min_rss": "16MiB"}
"""Enough for what the caches of the model hold many times over, and no more to bring home than shows it."""

SECONDS = {"nothing": 5.0, "bound": 5.0}
"""What does not change over time is seen at once."""

BALANCING_SECONDS = {"single": 24.0, "crossed": 32.0}
"""All must be home when three quarters of it are over, on a busy host too."""


@pytest.mark.parametrize("name", BALANCING_SECONDS)
@pytest.mark.timeout(900)
def test_misplaced_memory_is_remote_until_balancerd_has_brought_it_home(name: str, machine_pool: MachinePool) -> None:
    machine_pool.shutdown()  # one machine at a time
    lab = lab_directory()
    boots.prepare([name], lab)
    workload = WORKLOADS[name]
    kept = {
        rival: boots.run(
            Wanted(workload=workload, rival=rival, boot=1, seconds=seconds, mib=MIB, settings=SETTINGS), lab
        )
        for rival, seconds in {**SECONDS, "balancerd": BALANCING_SECONDS[name]}.items()
    }
    assert all(boot.is_house_first for boot in kept.values()) or os.geteuid()
    remote = {rival: boot.figures.last_quarter_remote_ratio for rival, boot in kept.items()}
    print(f"{name}: remote in the last quarter {remote}")
    assert remote["nothing"] is not None
    assert remote["nothing"] > 0.4
    assert remote["bound"] is not None
    assert remote["bound"] < 0.05
    assert remote["balancerd"] is not None
    assert remote["balancerd"] < 0.05
