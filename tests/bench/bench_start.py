"""How long commands take to start, beside `python -c pass`: what a user waits for before anything happens.

    python -m tests.bench.bench_start [--rounds 20]

The commands are run turn by turn, so that what disturbs one disturbs all. No daemon is there, so each ends with its
exit code for that, having imported all that it needs to ask: the rest is the daemon's answer. Prints a table of
medians, then one line of JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BALANCERCTL = str(Path(sys.executable).parent / "balancerctl")
BARE = "python -c pass"

COMMANDS: dict[str, tuple[str, ...]] = {
    "--version": ("--version",),
    "--help": ("--help",),
    "status": ("status",),
    "ps": ("ps",),
    "explain": ("explain", "1"),
    "plan": ("plan",),
    "move": ("move", "1", "--to", "0"),
    "pause": ("pause",),
    "advise": ("advise", "--list"),
    "advise, itself": ("advise", "--numad", "1:1"),
    "config check": ("config", "check"),
    "policies list": ("policies", "list"),
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the wall-clock seconds of each command, by its name, and of `python -c pass`."""
    found: dict[str, list[float]] = {BARE: [], **{name: [] for name in COMMANDS}}
    with tempfile.TemporaryDirectory() as nowhere:
        base = (BALANCERCTL, "--socket", f"{nowhere}/none")
        runs = {BARE: (sys.executable, "-c", "pass"), **{name: (*base, *words) for name, words in COMMANDS.items()}}
        for _ in range(rounds + 1):  # the first round fills the caches
            for name, words in runs.items():
                started = time.perf_counter()
                subprocess.run(words, capture_output=True, check=False)
                found[name].append(time.perf_counter() - started)
    return {name: seconds[1:] for name, seconds in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    found = measure(parser.parse_args(arguments).rounds)
    bare = statistics.median(found[BARE])
    rows = {name: statistics.median(seconds) for name, seconds in found.items()}
    print(f"{'command':16} {'ms':>6} {'beside pass':>12}")
    for name, seconds in rows.items():
        print(f"{name:16} {seconds * 1000:6.0f} {seconds / bare:11.1f}x")
    print(json.dumps({name: round(seconds, 4) for name, seconds in rows.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
