"""What a daemon takes of the machine, seen from outside at intervals: its memory, descriptors, threads and CPU time.

Owns the looking, and what counts as flat. It must not know what the daemon is put through.
"""

import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.bench.bench_native import Row
from tests.bench.watchers import cpu_seconds

RSS_MIB = 1.0
"""So much more at the end than before is no growth: the allocator's pages come and go."""

COUNT = 2
"""The same of descriptors and threads: a client may be there at the moment."""

CPU_FACTOR = 1.5
SERIES_FACTOR = 1.1
SCRAPE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Point:
    """One look. `at` and `cpu_seconds` are since the first; `series` are the lines of /metrics that hold a value."""

    at: float
    rss_mib: float
    descriptors: int
    threads: int
    cpu_seconds: float
    series: int


class Watch:
    """Looks at a daemon every so many seconds, from start to stop; a look scrapes `port`, as Prometheus would."""

    def __init__(self, pid: int, port: int, every_seconds: float) -> None:
        self.points: list[Point] = []
        self._pid, self._port, self._every = pid, port, every_seconds
        self._began, self._cpu = time.monotonic(), cpu_seconds(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def since(self, at: float) -> list[Point]:
        """The points from a second on."""
        return [point for point in self.points if point.at >= at]

    @property
    def seconds(self) -> float:
        """How long it has watched."""
        return time.monotonic() - self._began

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.points.append(self._look())

    def _look(self) -> Point:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=SCRAPE_SECONDS) as answer:
            lines = answer.read().decode("utf-8").splitlines()
        folder = Path(f"/proc/{self._pid}")
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text("utf-8").splitlines() if line)
        return Point(
            at=round(self.seconds, 1),
            rss_mib=round(int(status["VmRSS"].split()[0]) / 1024, 2),
            descriptors=sum(1 for _ in (folder / "fd").iterdir()),
            threads=int(status["Threads"]),
            cpu_seconds=round(cpu_seconds(self._pid) - self._cpu, 3),
            series=sum(not line.startswith("#") for line in lines),
        )


def growth(points: Sequence[Point]) -> list[str]:
    """Return what was more in the last third than in the one before, in words; nothing where all is flat.

    Raises ValueError for fewer points than can tell.
    """
    third = len(points) // 3
    if third < 3:
        raise ValueError(f"{len(points)} looks cannot tell what grows")
    before, last = points[-2 * third : -third], points[-third:]
    found = []

    def compare(name: str, unit: str, value: Callable[[Point], float], allowed: Callable[[float], float]) -> None:
        then, now = (statistics.median(map(value, part)) for part in (before, last))
        if now > allowed(then):
            found.append(f"{name} {then:g}{unit}, then {now:g}{unit}")

    compare("RSS", " MiB", lambda point: point.rss_mib, lambda then: then + RSS_MIB)
    compare("descriptors", "", lambda point: point.descriptors, lambda then: then + COUNT)
    compare("threads", "", lambda point: point.threads, lambda then: then + COUNT)
    compare("series", "", lambda point: point.series, lambda then: then * SERIES_FACTOR)
    then, now = (_share(part) for part in (before, last))
    if now > CPU_FACTOR * then:
        found.append(f"CPU {then:.2%} of a core, then {now:.2%}")
    return found


def rows(points: Sequence[Point], n: int) -> list[Row]:
    """Return a table of `n` parts of the time: medians, and the share of a core."""
    told: list[Row] = []
    for part in range(n):
        here = points[part * len(points) // n : (part + 1) * len(points) // n]
        if len(here) < 2:
            continue
        told.append(
            {
                "until s": round(here[-1].at),
                "RSS MiB": round(statistics.median(point.rss_mib for point in here), 1),
                "most": round(max(point.rss_mib for point in here), 1),
                "descriptors": round(statistics.median(point.descriptors for point in here)),
                "threads": round(statistics.median(point.threads for point in here)),
                "% of a core": round(100 * _share(here), 2),
                "series": round(statistics.median(point.series for point in here)),
            }
        )
    return told


def _share(points: Sequence[Point]) -> float:
    return (points[-1].cpu_seconds - points[0].cpu_seconds) / (points[-1].at - points[0].at)
