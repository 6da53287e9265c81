"""What the native core costs, as ratios taken in one run.

    python -m tests.bench.bench_native placement          on any machine; what has no room in its memory is skipped
    python -m tests.bench.bench_native move               on a machine with three nodes, such as the lab's

`placement`: `estimate(pid)` of kernel.placement.reader for processes of 0.25 to 16 GiB of base pages, among holes
and beside the 200 mappings of a Python program, and for processes of very many mappings; the daemon's own sample, and
its test whether all is at home; against reading numa_maps, and asking for every page of the largest mapping. CPU time.
"off" is the error of the number of pages present, since one node holds them all.
`move`: the daemon's mover against move_loop.c, a bare loop over move_pages(2), turn by turn over the same pages and
nodes.
Prints a table, then one line of JSON.
"""

import argparse
import ctypes
import json
import mmap
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from balancerd import native
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.moving.batch import BatchSize
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.migrate import Mover
from balancerd.kernel.moving.pacing import Pace, Pacer
from balancerd.kernel.moving.patience import PatientCalls
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.reader import PlacementReader, estimate
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep, Range
from balancerd.native import RangeArray, placement

MIB, GIB, PAGE = 1 << 20, 1 << 30, 4096
MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_POPULATE_WRITE = 14, 15, 23  # include/uapi/asm-generic/mman-common.h
SET_MEMPOLICY, MPOL_BIND = 238, 2
NODES = (2, 0, 1)  # every pair of turns uses other source and target nodes, so neither side has the better ones

UNPACED = Pace(
    stall_target_seconds=1.0,
    stall_limit_seconds=1e9,
    duty_ratio=1.0,
    max_memory_pressure_ratio=None,
    max_cpu_pressure_ratio=None,
)

Row = dict[str, float | int | str]


@contextmanager
def memory_of_a_child(
    length: int, *, present_share: float = 1.0, node: int | None = None, huge: bool = False
) -> Iterator[tuple[int, int, int]]:
    """A child process that holds `length` bytes present, among holes; gives (pid, start, end) of the mapping."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        if node is not None:
            libc.syscall(SET_MEMPOLICY, MPOL_BIND, ctypes.byref(ctypes.c_ulong(1 << node)), 64)
        area = mmap.mmap(-1, int(length / present_share) & -(2 * MIB), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area.madvise(MADV_HUGEPAGE if huge else MADV_NOHUGEPAGE)
        choose = random.Random(1)  # noqa: S311 where the holes are, the same in every run
        left = length
        for block in range(0, len(area), MIB):
            if left and (len(area) - block <= left or choose.random() < present_share):
                area.madvise(MADV_POPULATE_WRITE, block, MIB)
                left -= MIB
        libc.syscall(SET_MEMPOLICY, 0, None, 0)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        os.write(write, b"%d %d\n" % (address, address + len(area)))
        signal.pause()
    os.close(write)  # or a child that dies would be waited for without an end
    try:
        start, end = map(int, os.read(read, 64).split())
        yield pid, start, end
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def cpu_seconds_of(function: Callable[[], object]) -> float:
    """CPU time of this thread, in the kernel too: all ways are calls of its own, and other programs do not count."""
    began = time.thread_time()
    function()
    return time.thread_time() - began


def available_gib() -> float:
    """What may be used without anybody being pushed out."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) / (1 << 20)


@contextmanager
def many_mappings(count: int) -> Iterator[tuple[int, int, int]]:
    """A child with so many mappings of one present page each; gives (pid, start, end) of them all."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        area = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area.madvise(MADV_NOHUGEPAGE)
        area.madvise(MADV_POPULATE_WRITE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for page in range(0, count, 2):
            libc.mprotect(address + page * PAGE, PAGE, mmap.PROT_READ)
        os.write(write, b"%d %d\n" % (address, address + len(area)))
        signal.pause()
    os.close(write)
    try:
        start, end = map(int, os.read(read, 64).split())
        yield pid, start, end
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def bench_process(name: str, pid: int, start: int, end: int, turns: int) -> Row:
    """Every way to find out where the pages of one process are, turn by turn.

    Of each the least, since other programs only add to it, by what they do to the caches.
    """
    process, clock = ProcessId(pid, read_start_ticks(pid)), MonotonicClock()
    reader = PlacementReader(native, clock)
    rss_bytes = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    ranges = RangeArray([(start, end, PAGE)])
    numa_maps = Path(f"/proc/{pid}/numa_maps")
    ways: dict[str, Callable[[], object]] = {
        "estimate": lambda: estimate(pid),
        "sample": lambda: reader.read(process, n_nodes=1, rss_bytes=rss_bytes),
        "test": lambda: reader.read(process, n_nodes=1, rss_bytes=rss_bytes, home=NodeId(0)),
        "numa_maps": numa_maps.read_bytes,
        "every page": lambda: placement(pid, ranges, n_nodes=1),
    }
    slow = {"numa_maps", "every page"}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns):
        for way, function in ways.items():
            if turn < 5 or way not in slow:
                times[way].append(cpu_seconds_of(function))
    clock.close()
    least = {way: min(values) for way, values in times.items()}
    told = estimate(pid)
    truth = estimate(pid, exact=True)
    total = sum(truth.bytes_by_node.values())
    return {
        "process": name,
        "mappings": told.n_vmas,
        "way": str(told.method),
        **{f"{way} ms": round(seconds * 1e3, 2) for way, seconds in least.items()},
        "numa_maps/estimate": round(least["numa_maps"] / least["estimate"], 1),
        "every page/estimate": round(least["every page"] / least["estimate"], 1),
        "off %": round(100 * abs(sum(told.bytes_by_node.values()) / total - 1), 2),
    }


def bench_placement(turns: int, sizes_gib: list[float]) -> list[Row]:
    rows: list[Row] = []
    for gib in sizes_gib:
        if available_gib() < gib + 1:
            print(f"skipped: {gib:g} GiB, as {available_gib():.1f} GiB are available", file=sys.stderr)
            continue
        with memory_of_a_child(int(gib * GIB), present_share=0.8) as (pid, start, end):
            rows.append(bench_process(f"{gib:g} GiB", pid, start, end, turns))
    for count in (1_000, 60_000):
        with many_mappings(count) as (pid, start, end):
            rows.append(bench_process(f"{count} VMAs", pid, start, end, turns))
    return rows


class FixedBatch(BatchSize):
    """A batch that does not adapt, to be compared with a loop that does not either."""

    def __init__(self, pages: int) -> None:
        super().__init__(1.0)
        self._pages = pages
        self._last_call_seconds = 0.0  # as on hardware, where such calls are short

    def took(self, longest_call_seconds: float, largest_call_pages: int) -> None:
        """Learn nothing."""


CALLS = PatientCalls(MonotonicClock())


def move_as_the_daemon_does(pid: int, start: int, end: int, node: int, batch_pages: int) -> MigrationOutcome:
    """One whole step of the real Mover: identity, idle calls, a check before each call, the account of every page."""
    clock = MonotonicClock()
    mover = Mover(native, clock, Pacer(clock, UNPACED), Claims(Mappings(clock), CALLS))
    mover._calls.batch = FixedBatch(batch_pages)
    step = MigrationStep(
        policy="bench",
        process=ProcessId(pid, read_start_ticks(pid)),
        target=NodeId(node),
        ranges=(Range(start=start, end=end, page_bytes=PAGE),),
        resume_at=0,
        budget_bytes=end - start,
        budget_seconds=600.0,
        reason=Reason.MISPLACED,
    )
    return mover.migrate(step, lambda: False)


def bench_move(mib: int, batch_pages: int, turns: int, loop: str, *, huge: bool) -> Row:
    ours, bare, query, moving = [], [], [], []
    with memory_of_a_child(mib * MIB, node=NODES[0], huge=huge) as (pid, start, end):
        for turn in range(2 * turns):
            node = NODES[(turn + 1) % len(NODES)]
            if turn % 2 == 0:
                began = time.perf_counter()
                done = move_as_the_daemon_does(pid, start, end, node, batch_pages)
                ours.append(time.perf_counter() - began)
                query.append(done.query_seconds)
                moving.append(sum(done.call_seconds))
                if done.moved_pages != mib * MIB // PAGE:
                    raise RuntimeError("not every page moved: the comparison is void")
            else:
                argv = [loop, str(pid), f"{start:x}", f"{end:x}", str(node), str(batch_pages)]
                words = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
                bare.append(float(words[1]))
    return {
        "pages": "THP" if huge else "4 KiB",
        "MiB": mib,
        "batch": batch_pages,
        "ours MiB/s": round(mib / statistics.median(ours), 1),
        "bare loop MiB/s": round(mib / statistics.median(bare), 1),
        "ours/bare": round(statistics.median(bare) / statistics.median(ours), 3),
        "queries %": round(100 * statistics.median(query) / statistics.median(ours), 1),
        "moving calls %": round(100 * statistics.median(moving) / statistics.median(ours), 1),
        "ours s": " ".join(f"{value:.2f}" for value in ours),
        "bare s": " ".join(f"{value:.2f}" for value in bare),
    }


def print_table(rows: list[Row]) -> None:
    columns = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in columns]
    for cells in (columns, *([str(row[name]) for name in columns] for row in rows)):
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    place = verbs.add_parser("placement")
    place.add_argument("--turns", type=int, default=25)
    place.add_argument("--gib", type=float, nargs="*", default=[0.25, 1, 4, 16])
    move = verbs.add_parser("move")
    move.add_argument("--mib", type=int, default=256)
    move.add_argument("--batch-pages", type=int, nargs="+", default=[512, 4096])
    move.add_argument("--turns", type=int, default=6)
    move.add_argument("--huge", action="store_true", help="transparent huge pages too")
    options = parser.parse_args()
    if options.verb == "placement":
        rows = bench_placement(options.turns, options.gib)
    else:
        with tempfile.TemporaryDirectory() as folder:
            loop = f"{folder}/move_loop"
            source = Path(__file__).with_name("move_loop.c")
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", str(source), "-o", loop], check=True)
            rows = [
                bench_move(options.mib, batch, options.turns, loop, huge=huge)
                for huge in ((False, True) if options.huge else (False,))
                for batch in options.batch_pages
            ]
    print_table(rows)
    print(json.dumps({"bench": f"native-{options.verb}", "rows": rows}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
