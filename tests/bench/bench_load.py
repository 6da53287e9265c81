"""What a machine throws at the daemon: a crowd of processes and threads, very many mappings, a storm of children.

    python -m tests.bench.bench_load [--processes 5000] [--threads 50000] [--maps 60000] [--children 100000]

One daemon, in observe mode with fast looks, goes through one after the other: nothing; a crowd; nothing; a process with
very many mappings; children that exit at once; nothing. Aims: no tick fails, none comes later than half of the
watchdog's patience, and when all is over the daemon has the descriptors and threads that it had after the crowd, and no
more memory: what it needed for the crowd may stay with its allocator. Metrics stay bounded. Needs root; kernel.pid_max
is raised where it does not allow the threads, and set back. Prints a table and a line of JSON, and ends with 1 when an
aim is missed.
"""

import argparse
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.bench.bench_native import Row, print_table
from tests.bench.crowd import Shape, build, crowd
from tests.bench.endurance import print_document
from tests.bench.series import COUNT, Point, Watch
from tests.bench.watchers import Balancerd, balancerd, free_port

SETTINGS = ("select.min_cpu=0.002", "select.min_age=1s", "select.scan_budget=100%")
TICK_SECONDS = 2.0
LATE_SECONDS = 30.0
"""Half of what the unit's watchdog waits for (WatchdogSec=60s)."""

GROWTH_MIB = 2.0
MOST_SERIES = 4000
LOOK_SECONDS = 2.0
PID_MAX = Path("/proc/sys/kernel/pid_max")
SPARE_PIDS = 5000


@dataclass
class Phase:
    """What was seen while the machine did one thing."""

    name: str
    points: list[Point]
    lines: list[dict[str, Any]] = field(repr=False)

    def row(self) -> Row:
        """Return its line of the table."""
        ticks = [float(sum(line["seconds"].values())) for line in self.lines]
        last = self.points[-1]
        return {
            "the machine has": self.name,
            "ticks": len(ticks),
            "longest tick ms": round(1000 * max(ticks)),
            "latest by s": round(max(late(self.lines), default=0.0), 2),
            "processes": max(int(line["surveyed"]) for line in self.lines),
            "RSS MiB": last.rss_mib,
            "descriptors": last.descriptors,
            "threads": last.threads,
            "series": max(point.series for point in self.points),
        }


def late(lines: Sequence[dict[str, Any]]) -> list[float]:
    """How much later than after the interval each tick ended."""
    at = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]
    return [max(0.0, after - before - TICK_SECONDS) for before, after in itertools.pairwise(at)]


@contextlib.contextmanager
def many_pids(n: int) -> Iterator[None]:
    """Allow so many processes and threads for the length of a block."""
    before = PID_MAX.read_text("ascii")
    if int(before) < n + SPARE_PIDS:
        PID_MAX.write_text(f"{n + SPARE_PIDS}\n", "ascii")
    try:
        yield
    finally:
        PID_MAX.write_text(before, "ascii")


@contextlib.contextmanager
def flood(program: Path, *words: object) -> Iterator["subprocess.Popen[str]"]:
    """Run flood.c from when it is ready; its input ends with the block."""
    command = [str(program), *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{' '.join(command)} ended with {process.wait()}")
        yield process


class Ordeal:
    """One daemon and what it has gone through."""

    def __init__(self, daemon: Balancerd, watch: Watch) -> None:
        self.phases: list[Phase] = []
        self._daemon, self._watch = daemon, watch

    def go_through(self, name: str, seconds: float, is_over: Callable[[], bool] = lambda: True) -> Phase:
        """Tick for so long at least, and until it `is_over`."""
        self._daemon.catch_up()
        began, first, end = self._watch.seconds, len(self._daemon.lines), time.monotonic() + seconds
        while time.monotonic() < end or not is_over():
            self._daemon.next_tick()
        time.sleep(2 * LOOK_SECONDS)
        self.phases.append(Phase(name, self._watch.since(began), self._daemon.lines[first:]))
        print_table([self.phases[-1].row()])
        return self.phases[-1]


def find_missed(phases: Sequence[Phase], crowd_is_gone: Phase) -> list[str]:
    """Return the aims that were missed: at the end the daemon has as little as when the crowd had gone."""
    missed = []
    for phase in phases:
        row = phase.row()
        if float(row["latest by s"]) > LATE_SECONDS:
            missed.append(f"{phase.name}: a tick came {row['latest by s']} s late")
        if int(row["series"]) > MOST_SERIES:
            missed.append(f"{phase.name}: {row['series']} series")
    first, crowded, last = (phase.points[-1] for phase in (phases[0], crowd_is_gone, phases[-1]))
    for what, then, now in (
        ("MiB of RSS", crowded.rss_mib + GROWTH_MIB, last.rss_mib),
        ("descriptors", max(first.descriptors, crowded.descriptors) + COUNT, last.descriptors),
        ("threads", max(first.threads, crowded.threads) + COUNT, last.threads),
    ):
        if now > then:
            missed.append(f"at the end {now:g} {what}, allowed {then:g}")
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through all of it and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=50_000, help="in all")
    parser.add_argument("--maps", type=int, default=60_000)
    parser.add_argument("--children", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=1000, help="children a second")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each phase")
    given = parser.parse_args(arguments)
    shape = Shape(
        processes=given.processes, threads=given.threads, large=given.processes // 20, busy=10, mib=80, percent=1
    )
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        many_pids(given.threads),
        balancerd(Path(name), (*SETTINGS, f"metrics.listen=127.0.0.1:{port}")) as daemon,
    ):
        folder = Path(name)
        programs = build(folder), build(folder, "flood")
        daemon.next_tick()
        with Watch(daemon.pid, port, LOOK_SECONDS) as watch:
            ordeal = Ordeal(daemon, watch)
            ordeal.go_through("nothing to do", given.seconds / 2)
            with crowd(programs[0], shape):
                ordeal.go_through(f"{given.processes} processes, {given.threads} threads", given.seconds)
            crowd_is_gone = ordeal.go_through("nothing to do any more", given.seconds / 2)
            with flood(programs[1], "maps", given.maps):
                ordeal.go_through(f"a process with {given.maps} mappings", given.seconds)
            with flood(programs[1], "storm", given.children, given.rate) as storm:
                ordeal.go_through(
                    f"{given.children} children that exit at once", given.seconds, lambda: storm.poll() is not None
                )
                failed = [f"the storm ended with {storm.returncode}"] if storm.returncode else []
            ordeal.go_through("nothing to do again", given.seconds)
    rows = [phase.row() for phase in ordeal.phases]
    missed = failed + find_missed(ordeal.phases, crowd_is_gone)
    print_table(rows)
    print("no aim was missed" if not missed else f"aim missed: {'; '.join(missed)}")
    series = [asdict(point) for phase in ordeal.phases for point in phase.points]
    print_document({"bench": "load", "rows": rows, "series": series, "missed": missed})
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
