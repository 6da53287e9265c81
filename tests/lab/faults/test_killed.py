"""SIGKILL of the daemon at any moment of its life: memory stays whole, and the next one gives affinities back."""

import json
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from balancerd.control.client import ControlFailure
from tests.lab.faults.conftest import Fault
from tests.lab.faults.tally import Tally
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, mib_by_node, vmstat

pytestmark = pytest.mark.topology("four-nodes")

MIB, PINNED_MIB = 48, 16
ALL = {0, 1, 2, 3}
PINNED_NODE = 1
LIFE_SECONDS = 3.0
"""A daemon takes a second or two to its first tick here, and as long until it has pinned a thread."""

CONFIG = f"""\
policies:
  - name: gather
    kind: threads
    method: pin
    min_wait: 0s
    match: [{{cmdline: ".*hog base {PINNED_MIB} .*"}}]
"""
LEFT_BEHIND = "a daemon before has left"


def settings(state: Path) -> dict[str, str]:
    return {
        "tick_interval": "300ms",
        "select.min_age": "1s",
        "select.min_rss": "8MiB",
        "migrate.duty_cycle": "100%",
        "migrate.max_cpu_pressure": "null",
        "migrate.process_rate_limit": "32MiB/s",
        "state_directory": str(state),
    }


def ask_for_a_move(daemon: Balancerd, hog: Hog, dice: Random) -> None:
    """Have all of its memory go to a node where most of it is not."""
    held = mib_by_node(hog.pid)
    node = dice.choice([node for node in sorted(ALL) if held.get(node, 0.0) < MIB / 2])
    daemon.client.post("/v1/jobs", {"kind": "move", "pid": hog.pid, "to": str(node)})


def look_after(tally: Tally, journal: Path, pinned: Hog) -> bool:
    """See what a life has left behind; return whether that is a thread that is not where it was."""
    is_narrowed = os.sched_getaffinity(pinned.pid) != ALL
    told = json.loads(journal.read_bytes()) if journal.exists() else {"threads": []}
    if is_narrowed:
        tally.count("left a thread pinned")
        assert pinned.pid in [thread["tid"] for thread in told["threads"]], "it was changed before it was written down"
    return is_narrowed


def live_and_die(tally: Tally, folder: Path, hog: Hog, pinned: Hog, *, is_late: bool, was_narrowed: bool) -> None:
    """One life, to SIGKILL at a moment that the dice choose: after its start, or, `is_late`, after its first tick."""
    dice = tally.dice
    seconds = dice.uniform(0.0, LIFE_SECONDS)
    moved_before = vmstat("pgmigrate_success")
    with Balancerd(folder, CONFIG, overrides=settings(folder.parent / "state"), wait=False) as daemon:
        if is_late:
            daemon.wait_for(daemon.has_ticked, 60.0, "the first tick")
        end = time.monotonic() + seconds
        has_ticked = False
        while time.monotonic() < end:
            try:
                if not has_ticked and daemon.has_ticked():
                    has_ticked = True
                    if os.sched_getaffinity(pinned.pid) == ALL:
                        os.sched_setaffinity(pinned.pid, {0})
                        os.sched_setaffinity(pinned.pid, ALL)
                    ask_for_a_move(daemon, hog, dice)
            except ControlFailure:
                assert not has_ticked, daemon.log_text()[-2000:]
            time.sleep(min(0.1, max(0.0, end - time.monotonic())))
        assert daemon.process.poll() is None, daemon.log_text()[-2000:]
        daemon.stop(signal.SIGKILL)
        told = daemon.log_text()
    tally.count("came to its first tick" if has_ticked else "did not come to its first tick")
    tally.count("pages moved meanwhile", max(0, vmstat("pgmigrate_success") - moved_before))
    if len(nodes_of(hog)) > 1:
        tally.count("memory lay on several nodes at the end")
    assert "tick failed" not in told, told[-2000:]
    if was_narrowed and has_ticked:
        assert LEFT_BEHIND in told
        tally.count("gave back what the one before had pinned")


def nodes_of(hog: Hog) -> list[int]:
    return [node for node, mib in mib_by_node(hog.pid).items() if mib > 0.05 * MIB]


TOLD = {
    "killed-early": "SIGKILL of the daemon up to 3 s after its start, at most while it moves memory and pins a thread",
    "killed-late": "SIGKILL of the daemon up to 3 s after its first tick, while it moves memory and pins a thread",
}


@pytest.mark.parametrize("name", [pytest.param("killed-early", marks=pytest.mark.thorough), "killed-late"])
def test_killed_at_any_moment_the_memory_is_whole_and_the_next_one_gives_threads_back(
    fault: Fault, tmp_path: Path, name: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    journal = state / "threads.json"
    with (
        fault(name, TOLD[name], few=2, many=100) as tally,
        Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5) as hog,
        Hog("base", PINNED_MIB, touch_cpu=PINNED_NODE, spin_cpu=0, busy_percent=16) as pinned,
    ):
        os.sched_setaffinity(pinned.pid, ALL)
        was_narrowed = False
        for number in tally.tries:
            with tally.trying():
                folder, is_late = tmp_path / f"life-{number}", name == "killed-late"
                live_and_die(tally, folder, hog, pinned, is_late=is_late, was_narrowed=was_narrowed)
                was_narrowed = look_after(tally, journal, pinned)
                tally.verify(hog.check(), MIB * 256)
                tally.verify(pinned.check(), PINNED_MIB * 256)
        with Balancerd(tmp_path / "last", "policies: []\n", overrides=settings(state)) as daemon:
            assert os.sched_getaffinity(pinned.pid) == ALL
            assert not journal.exists()
            tally.audit(daemon)
        tally.verify(hog.end(), MIB * 256)
        tally.verify(pinned.end(), PINNED_MIB * 256)
