"""Whether the daemon stays as it is while it works on: memory, descriptors, threads and CPU time over half an hour.

    python -m tests.lab run --topology four-nodes --threads multi -- python -m tests.bench.bench_soak [--minutes 30]

Inside the virtual machine. All the time misplaced processes come, are brought home by the real daemon, check their
memory and end; others exit as soon as they are there; metrics are scraped, and the control socket is asked. Aims: in
the last third of the time everything is as it was in the third before (see series.py), every page is accounted for,
no tick fails, and each process finds its memory as it left it. Prints a table and a line of JSON; ends with 1 when an
aim is missed.
"""

import argparse
import collections
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.bench_load import flood
from tests.bench.bench_native import print_table
from tests.bench.crowd import build
from tests.bench.endurance import print_document
from tests.bench.series import Watch, growth, rows
from tests.bench.watchers import free_port
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog

HOGS = 3
"""At a time."""

HOG_SECONDS = 90.0
MIB = 80
STORM, STORM_RATE = 60, 5
LOOK_SECONDS = 10.0
PARTS = 10
SETTINGS = {"select.min_age": "2s"}


class Herd:
    """Misplaced processes that come and go; each leaves with its memory checked."""

    def __init__(self) -> None:
        self.ended = 0
        self.wrong: list[str] = []
        self._hogs: collections.deque[tuple[float, Hog]] = collections.deque()
        self._places = itertools.cycle(
            (kind, touch, spin) for touch, spin in itertools.permutations(range(4), 2) for kind in ("base", "thp")
        )

    def renew(self) -> None:
        """Let the oldest go when it has been there for long enough, and another come where there is room."""
        now = time.monotonic()
        if self._hogs and now - self._hogs[0][0] >= HOG_SECONDS:
            self._end(self._hogs.popleft()[1])
        if len(self._hogs) < HOGS and (not self._hogs or now - self._hogs[-1][0] >= HOG_SECONDS / HOGS):
            kind, touch, spin = next(self._places)
            self._hogs.append((now, Hog(kind, MIB, touch_cpu=touch, spin_cpu=spin, busy_percent=60)))

    def end(self) -> None:
        """Let all of them go."""
        while self._hogs:
            self._end(self._hogs.popleft()[1])

    def _end(self, hog: Hog) -> None:
        with hog:
            ended = hog.end()
        self.ended += 1
        if ended.status:
            self.wrong.append(ended.told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Go on for so long, then judge; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    given = parser.parse_args(arguments)
    port, herd = free_port(), Herd()
    overrides = {**SETTINGS, "metrics.listen": f"127.0.0.1:{port}"}
    with tempfile.TemporaryDirectory() as name, Balancerd(Path(name), overrides=overrides, as_command=True) as daemon:
        program = build(Path(name), "flood")
        end = time.monotonic() + 60.0 * given.minutes
        with Watch(daemon.process.pid, port, LOOK_SECONDS) as watch:
            while time.monotonic() < end:
                herd.renew()
                with flood(program, "storm", STORM, STORM_RATE) as storm:
                    storm.wait()
                for question in ("/v1/status", "/v1/processes", "/v1/moves", "/v1/nodes"):
                    daemon.client.get(question)
        herd.end()
        pages = daemon.check_accounts()
        totals = daemon.status()["totals"]
        failed = daemon.log_lines("tick failed")
        status = daemon.stop()
    missed = growth(watch.points)
    missed += [f"a process found its memory changed: {told}" for told in herd.wrong]
    missed += [f"{len(failed)} ticks failed"] if failed else []
    missed += [f"it ended with {status}"] if status else []
    missed += ["nothing was moved"] if not pages.get("moved") else []
    table = rows(watch.points, PARTS)
    print_table(table)
    print(f"{herd.ended} processes came home and went; pages by status: {pages}")
    print("no aim was missed" if not missed else f"aim missed: {'; '.join(missed)}")
    told = {"minutes": given.minutes, "processes": herd.ended, "pages": pages, "totals": totals, "missed": missed}
    print_document({"bench": "soak", **told, "rows": table, "series": [asdict(point) for point in watch.points]})
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
