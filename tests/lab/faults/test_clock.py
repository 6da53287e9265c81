"""Clocks that jump, and a machine that is held still: ticks and moves go on, and nobody's age goes wrong."""

import time
from pathlib import Path

import pytest

from tests.lab.faults.asking import CALM, NO_POLICY, ask, elsewhere, settle
from tests.lab.faults.conftest import Fault
from tests.lab.service import Balancerd
from tests.lab.stillness import hold_still
from tests.lab.workloads import Hog

pytestmark = pytest.mark.topology("four-nodes")

MIB = 32
HOURS = 3600.0
STILL_SECONDS = 20.0


def test_the_time_of_day_jumps_by_hours_and_moves_go_on(fault: Fault, tmp_path: Path) -> None:
    told = "the time of day jumps forwards or backwards, by up to a day, while memory moves"
    with (
        fault("time-jumps", told, few=1, many=15) as tally,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog,
        Balancerd(tmp_path, NO_POLICY, overrides={**CALM, "state_directory": str(tmp_path)}) as daemon,
    ):
        began = time.monotonic()
        up_before = daemon.status()["uptime_seconds"]
        shift = 0.0
        try:
            for _ in tally.tries:
                with tally.trying():
                    job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog)))
                    time.sleep(tally.dice.uniform(0.0, 0.8))
                    jump = tally.dice.uniform(-24.0, 24.0) * HOURS
                    time.clock_settime(time.CLOCK_REALTIME, time.time() + jump)
                    shift += jump
                    tally.count("forwards" if jump > 0 else "backwards")
                    assert settle(tally, daemon, job)["state"] == "done"
                    tally.verify(hog.check(), MIB * 256)
                    tally.audit(daemon)
                    up = daemon.status()["uptime_seconds"] - up_before
                    assert abs(up - (time.monotonic() - began)) < 0.25 * HOURS, f"it believes to have run for {up} s"
                    assert daemon.balancerctl("history").returncode == 0
        finally:
            time.clock_settime(time.CLOCK_REALTIME, time.time() - shift)
        tally.verify(hog.end(), MIB * 256)


@pytest.mark.thorough
def test_a_machine_that_was_held_still_goes_on(fault: Fault, tmp_path: Path) -> None:
    told = f"the whole machine is held still for {STILL_SECONDS:.0f} s while memory moves, as one that is suspended"
    with (
        fault("held-still", told, few=1, many=3) as tally,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog,
        Balancerd(tmp_path, NO_POLICY, overrides=CALM) as daemon,
    ):
        for _ in tally.tries:
            with tally.trying():
                job = ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog)))
                time.sleep(tally.dice.uniform(0.0, 0.5))
                tally.count("seconds by its own clock", round(hold_still(STILL_SECONDS)))
                settle(tally, daemon, job)
                tally.verify(hog.check(), MIB * 256)
                tally.audit(daemon)
        tally.verify(hog.end(), MIB * 256)
