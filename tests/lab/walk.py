"""What a newcomer sees: which process is remote, why, and what would be done, by the commands that --help names first.

    python -m tests.lab run --topology four-nodes -- .venv/bin/python -m tests.lab.walk

The README shows what it printed. Inside the guest; the daemon observes only, so that the picture stands still.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.service import BIN, Balancerd
from tests.lab.workloads import Hog

MIB = 256
HOME, WRONG = 0, 2


def main() -> int:
    """Print each command and what it said; 0 when all of them said something."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Hog("base", 128, touch_cpu=1, spin_cpu=1, busy_percent=20),
        Hog("base", MIB, touch_cpu=WRONG, spin_cpu=HOME) as hog,
        Balancerd(Path(folder), "mode: observe\n", overrides={"select.min_age": "5s"}) as daemon,
    ):
        daemon.wait_for_reason(hog.pid, "observe-mode", 90.0)
        ended = [
            show(daemon, *words)
            for words in (("status",), ("ps",), ("explain", str(hog.pid)), ("plan",), ("pause", "--for", "30m"))
        ]
    return max(ended)


def show(daemon: Balancerd, *words: str) -> int:
    """Print one command and what it says; return its exit status."""
    print(f"\n$ balancerctl {' '.join(words)}", flush=True)
    command = [str(BIN / "balancerctl"), "--socket", str(daemon.socket), *words]
    return subprocess.run(command, check=False, timeout=120).returncode


if __name__ == "__main__":
    sys.exit(main())
