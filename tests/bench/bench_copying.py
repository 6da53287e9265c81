"""What a copy costs by where it is made: on a CPU of the node that pages go to, come from, or of a third one.

    python -m tests.bench.bench_copying [--mib 64] [--turns 3]

Boots the machine with the oracle, and moves a quiet process's memory from node 2 to node 0 on a CPU of each node by
turns: with calls of 64 pages, of 512, and of 512 that the kernel copies by groups of 64. For each line of 64 bytes that
moves, `cost` is what the kernel's accesses to memory cost on all CPUs (distance / 10 each), and `crossings` how many of
them went to another node than the CPU's: medians over the turns; `ratio` is of cost to that on the target. A node's
cache of the model holds 1 MiB, less than 512 pages: a kernel that clears a group before it copies into it
(init_on_alloc=1, Debian's default) writes it twice then.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass
from itertools import product

from balancerd import native
from balancerd.kernel.moving.pacing import GROUP_PAGES
from balancerd.native.records import Cursor
from tests.bench.bench_native import Row, memory_of_a_child, print_table
from tests.bench.locality.boots import topology
from tests.lab.machine import Machine, Options
from tests.lab.oracle import OracleOptions, mark
from tests.lab.oracle.counters import LINE_BYTES, Counters, difference, read_counters
from tests.lab.state import REPOSITORY, lab_directory

MIB, PAGE = 1 << 20, 4096
SOURCE, TARGET = 2, 0
CPUS = {"target": 0, "source": 2, "third, near the target": 1, "third, near the source": 3}
HOUSE_CPU = 4
BATCHES = ((64, 0), (512, 0), (512, GROUP_PAGES))


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a copy is made, and how many pages a call takes."""

    where: str
    batch_pages: int
    group_pages: int


KINDS = tuple(Kind(where, *batch) for batch, where in product(BATCHES, CPUS))


def marks(turn: int, kind: Kind) -> tuple[int, int]:
    """Return the markers around a move."""
    number = 2 * (turn * len(KINDS) + KINDS.index(kind)) + 1
    return number, number + 1


def move(pid: int, start: int, end: int, node: int, batch_pages: int, group_pages: int = 0) -> None:
    """Move all of it; RuntimeError when not every page moves."""
    pages = (end - start) // PAGE
    ranges = native.RangeArray([(start, end, PAGE)])
    done = native.migrate(
        pid,
        ranges,
        node=node,
        cursor=Cursor(),
        batch_pages=batch_pages,
        group_pages=group_pages,
        look_pages=pages,
        step_pages=pages,
    )
    if (done.error, done.moved_pages) != (None, pages):
        raise RuntimeError(f"{done.moved_pages} of {pages} pages moved: the comparison is void")


def inside(mib: int, turns: int) -> None:
    """Move to and fro, with markers around what counts."""
    os.sched_setaffinity(0, {CPUS["source"]})
    with memory_of_a_child(mib * MIB, node=SOURCE) as (pid, start, end):
        for turn, kind in product(range(turns), KINDS):
            os.sched_setaffinity(0, {CPUS[kind.where]})
            before, after = marks(turn, kind)
            mark(before)
            move(pid, start, end, TARGET, kind.batch_pages, kind.group_pages)
            mark(after)
            os.sched_setaffinity(0, {HOUSE_CPU})
            move(pid, start, end, SOURCE, 512)


def cost_and_crossings(counters: Counters, turn: int, kind: Kind, lines: int) -> tuple[float, float]:
    """Return both for each of `lines`; ValueError when a marker is missing."""
    begin, end = (counters.mark(number) for number in marks(turn, kind))
    if begin is None or end is None:
        raise ValueError(f"{kind}: a marker is missing in turn {turn}")
    cost = crossings = 0
    for (cpu, is_kernel), counts in difference(begin, end).counts.items():
        if is_kernel:
            home = counters.header.node_of_cpu[cpu]
            for node, (reads, writes) in enumerate(zip(counts.reads_by_node, counts.writes_by_node, strict=True)):
                cost += (reads + writes) * counters.header.distances[home][node]
                crossings += (reads + writes) * (node != home)
    return cost / 10 / lines, crossings / lines


def report(counters: Counters, mib: int, turns: int) -> list[Row]:
    lines = mib * MIB // LINE_BYTES
    found = {kind: [cost_and_crossings(counters, turn, kind, lines) for turn in range(turns)] for kind in KINDS}
    cost = {kind: statistics.median(cost for cost, _ in each) for kind, each in found.items()}
    return [
        {
            "batch": kind.batch_pages,
            "group": kind.group_pages,
            "copied on": kind.where,
            "cost": round(cost[kind], 2),
            "crossings": round(statistics.median(crossings for _, crossings in each), 2),
            "ratio": round(cost[kind] / cost[Kind("target", kind.batch_pages, kind.group_pages)], 2),
        }
        for kind, each in found.items()
    ]


def main() -> int:
    """Print a table and a line of JSON; the exit status of what ran inside."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.mib, options.turns)
        return 0
    command = [sys.executable, "-m", "tests.bench.bench_copying", "--inside"]
    command += ["--mib", str(options.mib), "--turns", str(options.turns)]
    lab = lab_directory()
    with Machine(topology(), options=Options(threads="multi", oracle=OracleOptions()), lab=lab) as machine:
        ended = machine.run(command, cwd=REPOSITORY, env={"BALANCERD_LAB_DIR": str(lab.root)}, timeout_seconds=600.0)
        counters = machine.counters
    if ended.exit_status:
        sys.stderr.write(ended.stderr.decode("utf-8", "replace"))
        return ended.exit_status
    rows = report(read_counters(counters), options.mib, options.turns)
    print_table(rows)
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
