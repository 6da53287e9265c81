"""How long commands take to start, beside `python -c pass`: what a user waits for before anything happens.

    python -m tests.bench.bench_start [--rounds 20]

The commands are run turn by turn, so that what disturbs one disturbs all. No daemon is there, so each ends with its
exit code for that, having imported all that it needs to ask: the rest is the daemon's answer. Prints a table, then one
line of JSON: of each command its shortest and its median time, and the least CPU time, which other work on the machine
disturbs the least.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
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
    "doctor --help": ("doctor", "--help"),
    "config check": ("config", "check"),
    "policies list": ("policies", "list"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a command takes to start: seconds on the clock, and of CPU."""

    least_seconds: float
    median_seconds: float
    least_cpu_seconds: float


def measure(rounds: int) -> dict[str, Figures]:
    """Return the figures of each command, by its name, and of `python -c pass`."""
    found: dict[str, list[tuple[float, float]]] = {BARE: [], **{name: [] for name in COMMANDS}}
    with tempfile.TemporaryDirectory() as nowhere:
        base = (BALANCERCTL, "--socket", f"{nowhere}/none")
        runs = {BARE: (sys.executable, "-c", "pass"), **{name: (*base, *words) for name, words in COMMANDS.items()}}
        for _ in range(rounds + 1):  # the first round fills the caches
            for name, words in runs.items():
                found[name].append(_time(words))
    return {name: _figures(times[1:]) for name, times in found.items()}


def _time(words: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its seconds on the clock and of CPU."""
    started, used = time.perf_counter(), _cpu_seconds()
    subprocess.run(words, capture_output=True, check=False)
    return time.perf_counter() - started, _cpu_seconds() - used


def _cpu_seconds() -> float:
    """What all children that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _figures(times: Sequence[tuple[float, float]]) -> Figures:
    seconds = [each for each, _ in times]
    return Figures(
        least_seconds=min(seconds),
        median_seconds=statistics.median(seconds),
        least_cpu_seconds=min(cpu for _, cpu in times),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    found = measure(parser.parse_args(arguments).rounds)
    bare = found[BARE]
    print(f"{'command':16} {'least ms':>9} {'median ms':>10} {'beside pass':>12} {'CPU ms':>9} {'beside pass':>12}")
    for name, each in found.items():
        least, median, cpu = (1000 * seconds for seconds in astuple(each))
        by_median, by_cpu = each.median_seconds / bare.median_seconds, each.least_cpu_seconds / bare.least_cpu_seconds
        print(f"{name:16} {least:9.0f} {median:10.0f} {by_median:11.1f}x {cpu:9.0f} {by_cpu:11.1f}x")
    told = {name: {key: round(value, 4) for key, value in asdict(each).items()} for name, each in found.items()}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
