"""What the size of a batch makes of throughput and of the longest call, and how the adaptive batch fares beside that.

    python -m tests.bench.bench_batch [--targets-ms 5 20 50 200] [--turns 6]

Needs three nodes and four CPUs, as in the lab. Batches of 64 to 65536 pages move the memory of a process from node to
node, turn by turn, for base pages and for THP, while the process sleeps (quiet) and while it runs (busy), which makes
unmapping wait for its CPU. Then for each stall target the fastest fixed batch whose median stall respects it runs in
turn with a `BatchSize` of that target: `ratio` is adaptive over fixed throughput once the batch has settled, the
median of the turns but the first; `overall` is of all turns. A call's stall is its time less the price of a call that
moves nothing. A call never moves less than one folio, so batches below 512 are the same for THP and left out. Prints
tables, then one line of JSON. Every page must move, or the comparison is void.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from balancerd import native
from balancerd.kernel.moving.batch import START_PAGES, BatchSize
from balancerd.native.records import Cursor, Migration
from tests.bench.bench_native import FixedBatch, Row, memory_of_a_child, print_table
from tests.lab import workloads

MIB, PAGE, HUGE = 1 << 20, 4096, 2 << 20
NODES = (0, 1, 2)
TOUCH_CPU, RUN_CPU, BENCH_CPU = 2, 3, 0
SMALL_MIB, LARGE_MIB = 64, 256
"""What one turn moves; the large one with batches that the small one would not fill."""

SIZES = {
    "base": tuple(2**n for n in range(6, 17)),
    "thp": tuple(2**n for n in range(9, 17)),
}
IDLE_CALLS = 3  # as the mover does before a step


@dataclass(slots=True)
class Area:
    """Memory of another process that goes from node to node as a whole."""

    pid: int
    start: int
    end: int
    visits: int = 0

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE

    def next_node(self) -> int:
        """Return the node to go to now; each turn uses another pair."""
        self.visits += 1
        return NODES[self.visits % len(NODES)]


class RespectfulBatch(BatchSize):
    """A fixed batch that also looks up as often as the stall target asks for."""

    def __init__(self, pages: int, stall_target_seconds: float) -> None:
        super().__init__(stall_target_seconds)
        self._pages = pages

    def took(self, longest_call_seconds: float, largest_call_pages: int) -> None:  # noqa: ARG002 of any size
        """Learn nothing about sizes."""
        self._last_call_seconds = longest_call_seconds


@dataclass(slots=True)
class Tries:
    """What was seen of one kind of batch, turn by turn; seconds of calls are stalls."""

    mib_per_second: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    settled_stalls: list[float] = field(default_factory=list)

    def add(self, mib_per_second: float, stalls: list[float]) -> None:
        if self.mib_per_second:
            self.settled_stalls += stalls
        self.mib_per_second.append(mib_per_second)
        self.stalls += stalls

    @property
    def rate(self) -> float:
        return statistics.median(self.mib_per_second)

    @property
    def settled_rate(self) -> float:
        return statistics.median(self.mib_per_second[1:])

    @property
    def overall_rate(self) -> float:
        return len(self.mib_per_second) / sum(1 / rate for rate in self.mib_per_second)


def quantile(values: list[float], ratio: float) -> float:
    return sorted(values)[min(len(values) - 1, int(ratio * len(values)))]


def ms(seconds: float) -> float:
    return round(1e3 * seconds, 2)


def steps(area: Area, node: int, batch: BatchSize) -> Iterator[Migration]:
    """Move an area as the mover does: several batches a step while they fit the stall target together."""
    ranges = native.RangeArray([(area.start, area.end, PAGE)])
    cursor, is_done = Cursor(), False
    while not is_done:
        pages = batch.pages
        done = native.migrate(
            area.pid,
            ranges,
            node=node,
            cursor=cursor,
            batch_pages=pages,
            look_pages=area.pages,
            step_pages=batch.batches * pages,
        )
        if done.error is not None:
            raise RuntimeError(f"move_pages: {os.strerror(done.error)}")
        if done.calls:
            batch.took(done.longest_call_seconds, done.largest_call_pages)
        yield done
        cursor, is_done = done.cursor, done.is_done


def move(area: Area, batch: BatchSize) -> tuple[float, list[float]]:
    """Move an area on by one node; gives MiB/s, queries and all, and the stall of each call."""
    for _ in range(IDLE_CALLS):
        batch.idle_call_took(native.idle_call())
    moved_pages = 0
    calls: list[float] = []
    node = area.next_node()
    began = time.perf_counter()
    for done in steps(area, node, batch):
        moved_pages += done.moved_pages
        calls += done.call_seconds
    seconds = time.perf_counter() - began
    if moved_pages != area.pages:
        raise RuntimeError(f"{moved_pages} of {area.pages} pages moved: the comparison is void")
    return moved_pages * PAGE / MIB / seconds, [max(0.0, call - batch.idle_price_seconds) for call in calls]


def touch_all_free_memory() -> None:
    """Write to what is free on each node, so that an emulator's own first touch of a page falls into no turn."""
    for node in NODES:
        text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text(encoding="ascii")
        free_kib = next(int(line.split()[3]) for line in text.splitlines() if "MemFree" in line)
        with memory_of_a_child(max(0, free_kib // 1024 - 96) * MIB, node=node):
            pass


@contextmanager
def areas(kind: str) -> Iterator[tuple[int, Area, Area]]:
    """A process that runs, with a small and a large area of base pages or THP; checks their contents at the end."""
    with workloads.Hog(kind, SMALL_MIB + LARGE_MIB, touch_cpu=TOUCH_CPU, spin_cpu=RUN_CPU) as hog:
        lines = Path(f"/proc/{hog.pid}/maps").read_text(encoding="ascii").splitlines()
        bounds = [tuple(int(word, 16) for word in line.split()[0].split("-")) for line in lines]
        low, _ = max(bounds, key=lambda pair: pair[1] - pair[0])
        start = -(-low // HUGE) * HUGE
        middle = start + SMALL_MIB * MIB
        yield hog.pid, Area(hog.pid, start, middle), Area(hog.pid, middle, middle + LARGE_MIB * MIB)
        os.kill(hog.pid, signal.SIGCONT)
        ended = hog.end()
        if ended.status:
            raise RuntimeError(f"the memory did not survive: {ended.told}")


def scan(kind: str, small: Area, large: Area, turns: int) -> dict[int, Tries]:
    """Try every fixed size, one after the other, in each turn."""
    found = {pages: Tries() for pages in SIZES[kind]}
    for _ in range(turns):
        for pages, tries in found.items():
            tries.add(*move(large if pages > small.pages else small, FixedBatch(pages)))
    return found


def duel(area: Area, target_seconds: float, fixed_pages: int, turns: int) -> tuple[Tries, Tries, int]:
    """Move with an adaptive batch and a fixed one in turn; gives what was seen of each, and the former's last size."""
    adaptive, batch = Tries(), BatchSize(target_seconds)
    fixed, other = Tries(), RespectfulBatch(fixed_pages, target_seconds)
    for _ in range(turns):
        fixed.add(*move(area, other))
        adaptive.add(*move(area, batch))
    return adaptive, fixed, batch.pages


def bench_scenario(
    where: Row, small: Area, large: Area, targets_seconds: list[float], turns: tuple[int, int]
) -> tuple[list[Row], list[Row]]:
    found = scan(str(where["pages"]), small, large, turns[0])
    sizes: list[Row] = [
        {
            **where,
            "batch": pages,
            "MiB/s": round(tries.rate, 1),
            "median ms": ms(statistics.median_high(tries.stalls)),
            "p95 ms": ms(quantile(tries.stalls, 0.95)),
            "longest ms": ms(max(tries.stalls)),
            "calls": len(tries.stalls),
        }
        for pages, tries in found.items()
    ]
    print_table(sizes)
    duels: list[Row] = []
    for target_seconds in targets_seconds:
        respecting = {n: tries for n, tries in found.items() if statistics.median_high(tries.stalls) <= target_seconds}
        least = min(found, key=lambda n: statistics.median_high(found[n].stalls))
        best = max(respecting, key=lambda n: found[n].rate, default=least)
        area = large if best > small.pages else small
        adaptive, fixed, settled_pages = duel(area, target_seconds, best, turns[1])
        ratios = [a / f for a, f in zip(adaptive.mib_per_second, fixed.mib_per_second, strict=True)][1:]
        duels.append(
            {
                **where,
                "target ms": ms(target_seconds),
                "respected": "yes" if respecting else "by none",
                "fixed": best,
                "fixed MiB/s": round(fixed.settled_rate, 1),
                "its median ms": ms(statistics.median_high(fixed.settled_stalls)),
                "its p99 ms": ms(quantile(fixed.settled_stalls, 0.99)),
                "settled at": settled_pages,
                "MiB/s": round(adaptive.settled_rate, 1),
                "median ms": ms(statistics.median_high(adaptive.settled_stalls)),
                "p99 ms": ms(quantile(adaptive.settled_stalls, 0.99)),
                "longest ms": ms(max(adaptive.stalls)),
                "overall": round(adaptive.overall_rate / fixed.overall_rate, 3),
                "ratio": round(statistics.median(ratios), 3),
                "of turns": " ".join(f"{ratio:.2f}" for ratio in ratios),
            }
        )
    print_table(duels)
    sys.stdout.flush()
    return sizes, duels


def bench_sizes(targets_seconds: list[float], turns: tuple[int, int]) -> list[Row]:
    touch_all_free_memory()
    rows: list[Row] = []
    for kind in SIZES:
        with areas(kind) as (pid, small, large):
            for _ in NODES:  # the pages that they will land on
                for area in (small, large):
                    move(area, FixedBatch(START_PAGES))
            for scenario in ("quiet", "busy"):
                os.kill(pid, signal.SIGCONT if scenario == "busy" else signal.SIGSTOP)
                price = statistics.median(native.idle_call() for _ in range(15))
                print(f"\n{kind}, {scenario}: a call that moves nothing takes {ms(price)} ms", flush=True)
                for table in bench_scenario({"pages": kind, "process": scenario}, small, large, targets_seconds, turns):
                    rows += table
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets-ms", type=float, nargs="+", default=[5.0, 20.0, 50.0, 200.0])
    parser.add_argument("--turns", type=int, default=6, help="of each duel; the sizes get half as many")
    options = parser.parse_args()
    os.sched_setaffinity(0, {BENCH_CPU})
    rows = bench_sizes([target / 1e3 for target in options.targets_ms], (max(1, options.turns // 2), options.turns))
    print(json.dumps({"bench": "batch", "rows": rows}))


if __name__ == "__main__":
    main()
