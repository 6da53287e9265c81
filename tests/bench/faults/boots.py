"""One boot of the fault suite: a fresh machine, the tests of faults inside, and what must be done to it from outside.

Owns the machine's options, its time-out, and holding it still. Must not know what is made of the figures.
"""

import sys
from collections.abc import Sequence

from tests.bench.faults.record import parse_figures
from tests.lab import topology
from tests.lab.faults.tally import OUT, Figures
from tests.lab.machine import Machine
from tests.lab.runner import NO_OTHER_PLUGINS, PLUGINS
from tests.lab.state import REPOSITORY, LabDirectory
from tests.lab.stillness import answer_requests

TESTS = "tests/lab/faults"
BOOT_SECONDS = 4 * 3600.0
TOPOLOGIES = ("four-nodes", "removable-node")
"""In this order; each has faults of its own."""


def run(name: str, arguments: Sequence[str], *, seed: int, lab: LabDirectory) -> tuple[int, tuple[Figures, ...]]:
    """Boot one machine and try its faults; return pytest's exit status, and the figures of what was tried.

    Raises LabError.
    """
    command = [sys.executable, "-m", "pytest", TESTS, *PLUGINS, "--faults", f"--fault-seed={seed}", *arguments]
    with Machine(topology.load(name), lab=lab) as machine, answer_requests(machine):
        ended = machine.run(
            command, cwd=REPOSITORY, env=NO_OTHER_PLUGINS, timeout_seconds=BOOT_SECONDS, on_output=_pass_on
        )
        found = sorted((machine.out / OUT.name).glob("*.json"))
        figures = tuple(parse_figures(path.read_text(encoding="utf-8"), str(path)) for path in found)
    return ended.exit_status, figures


def _pass_on(_stream: int, data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
