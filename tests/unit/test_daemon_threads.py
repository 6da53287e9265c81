"""The real daemon starts after one that crashed while it held threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from balancerd.kernel.affinity.journal import NAME
from tests.unit.kernel.affinity.test_steerer import affinities, spinning

BIN = Path(sys.executable).parent

CRASHES = """
import os, sys
from pathlib import Path
from balancerd.kernel.affinity.journal import Journal
from balancerd.kernel.affinity.steerer import Steerer
from balancerd.kernel.clock import MonotonicClock
from balancerd.model.ids import ProcessId
from balancerd.model.steering import SteerKind, SteerStep
directory, pid, start_ticks = sys.argv[1:]
step = SteerStep(policy="t", process=ProcessId(int(pid), int(start_ticks)), target=0, cpus=frozenset({1}),
                 kind=SteerKind.PIN, own_affinity=True)
Steerer(MonotonicClock(), Journal(Path(directory)), print).steer(step)
os._exit(9)
"""


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_what_a_crashed_daemon_has_pinned_is_free_once_the_next_has_started(tmp_path: Path, mode: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with spinning() as process:
        words = [str(state), str(process.pid), str(process.start_ticks)]
        assert subprocess.run([sys.executable, "-c", CRASHES, *words], check=False).returncode == 9
        assert affinities(process) == [{1}, {1}]
        sets = {"mode": mode, "state_directory": state, "control.socket": tmp_path / "s", "metrics.listen": "null"}
        words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        command = [str(BIN / "balancerd"), "--once", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert affinities(process) == [os.sched_getaffinity(0)] * 2
    assert "a daemon before has left 2 threads with an affinity: 2 restored" in done.stderr
    assert not (state / NAME).exists()
