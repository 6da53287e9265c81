"""Where the seconds go from "its threads are elsewhere" to "its memory has followed": the time line of two moves.

    python -m tests.lab run --topology four-nodes --threads multi -- python -m tests.bench.bench_timeline --mib 400

Runs inside the virtual machine, with the real daemon. First a process whose memory was touched on the wrong node; then,
when it has been at home for a while, the same process is moved to yet another node. Each time: every reason that the
daemon gives, when it gave it first, and when the first page, half and 99 % of the pages had moved; then JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from balancerd.control.client import ControlFailure
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, vmstat

POLL_SECONDS = 0.25
LONGEST_SECONDS = 150.0
PAGES_OF_A_MIB = 256


def follow(daemon: Balancerd, pid: int, pages: int, began: float, touch: Callable[[], None]) -> dict[str, float]:
    """Call `touch` and watch until the memory has followed; return the seconds after `began` by what happened first."""
    before = vmstat("pgmigrate_success")
    touch()
    seen: dict[str, float] = {}
    while time.monotonic() - began < LONGEST_SECONDS and "99 % moved" not in seen:
        now = time.monotonic() - began
        moved = vmstat("pgmigrate_success") - before
        for told, share in (("first page moved", 0.0), ("half moved", 0.5), ("99 % moved", 0.99)):
            if moved > share * pages:
                seen.setdefault(told, now)
        try:
            seen.setdefault(str(daemon.explain(pid)["reason"]), now)
        except ControlFailure as error:
            seen.setdefault(str(error), now)
        time.sleep(POLL_SECONDS)
    return seen


def cost(daemon: Balancerd, since: int) -> dict[str, float]:
    """Return what the steps of a move took, in seconds by phase of their ticks and by what they waited for.

    `since` is how many steps were logged before.
    """
    steps = daemon.log_lines("migration")[since:]
    sums = {"steps": float(len(steps)), "calls": float(sum(step["calls"] for step in steps))}
    sums["longest call"] = max((step["longest_call_seconds"] for step in steps), default=0.0)
    for step in steps:
        for cause, seconds in step["throttled_seconds"].items():
            sums[f"waiting for {cause}"] = sums.get(f"waiting for {cause}", 0.0) + seconds
    for line in [line for line in daemon.log_lines("tick") if line["moved_pages"]][-len(steps) :]:
        for phase, seconds in line["seconds"].items():
            sums[f"in {phase}"] = sums.get(f"in {phase}", 0.0) + seconds
    return {name: round(value, 2) for name, value in sums.items()}


def show(title: str, seen: dict[str, float], costs: dict[str, float]) -> None:
    print(f"\n{title}", *(f"{seconds:8.1f} s  {told}" for told, seconds in seen.items()), sep="\n")
    print("the steps:", ", ".join(f"{name} {value:g}" for name, value in costs.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=400)
    parser.add_argument("--touch", type=int, default=2, help="CPU that touches the memory; CPU n is on node n")
    parser.add_argument("--first", type=int, default=0, help="CPU where the process runs then")
    parser.add_argument("--second", type=int, default=2, help="CPU where it is sent when its memory has followed")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds between the two")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the daemon")
    options = parser.parse_args()
    overrides = {"log.level": "debug", **dict(word.split("=", 1) for word in options.set)}
    pages = options.mib * PAGES_OF_A_MIB
    with (
        tempfile.TemporaryDirectory() as folder,
        Balancerd(Path(folder), overrides=overrides) as daemon,
        Hog("base", options.mib, touch_cpu=options.touch, spin_cpu=options.first) as hog,
    ):
        first = follow(daemon, hog.pid, pages, hog.ready_at, lambda: None)
        first_cost = cost(daemon, 0)
        show(f"{options.mib} MiB touched on node {options.touch}, running on node {options.first}", first, first_cost)
        time.sleep(options.settle)
        since = len(daemon.log_lines("migration"))
        moved_at = time.monotonic()
        second = follow(daemon, hog.pid, pages, moved_at, lambda: os.sched_setaffinity(hog.pid, {options.second}))
        second_cost = cost(daemon, since)
        show(f"sent to node {options.second} after {options.settle:.0f} s", second, second_cost)
    print(
        json.dumps(
            {
                "bench": "timeline",
                "mib": options.mib,
                "first": first,
                "second": second,
                "costs": [first_cost, second_cost],
            }
        )
    )


if __name__ == "__main__":
    main()
