"""How much of the gap the policy `access` closes from register sampling alone, by the oracle; kernel.numa_balancing=0.

Outside; a boot of its own for each run. Ticks come sooner than by default: emulated programs do in a minute what takes
real ones a few seconds, in which the default has one tick or two.
"""

import pytest

from tests.bench.locality import boots, compare
from tests.bench.locality.boots import Wanted
from tests.bench.locality.workloads import WORKLOADS
from tests.lab.conftest import MachinePool
from tests.lab.state import lab_directory

pytestmark = [pytest.mark.host, pytest.mark.thorough]

MIB = 128
ASKED_SECONDS = 75.0
"""About a minute, on two CPUs that nobody else uses."""

ACCESS = "balancerd+access"
SETTINGS = {"tick_interval": "500ms"}


@pytest.mark.timeout(1200)
def test_lists_that_main_touched_are_local_to_their_threads_before_long(machine_pool: MachinePool) -> None:
    machine_pool.shutdown()  # one machine at a time
    lab, workload = lab_directory(), WORKLOADS["parts"]
    boots.prepare([workload.name], lab)
    made = [
        boots.run(
            Wanted(workload=workload, rival=rival, boot=1, seconds=ASKED_SECONDS, mib=MIB, settings=SETTINGS), lab
        )
        for rival in ("nothing", "bound", ACCESS)
    ]
    (found,) = compare.compare(made)
    closed = found.cells[ACCESS].closed_ratio
    print({boot.rival: (boot.figures.seconds, boot.figures.remote_ratio) for boot in made}, closed)
    assert closed is not None
    assert closed.median >= 0.95
    nothing, _, access = (boot.figures.last_quarter_remote_ratio for boot in made)
    assert nothing is not None
    assert nothing > 0.7
    assert access is not None
    assert access < 0.01
