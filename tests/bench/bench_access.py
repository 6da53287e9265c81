"""What it costs to count accesses by page, with a million different pages.

    python -m tests.bench.bench_access [--pages N] [--samples N] [--turns N] [--beside FOLDER]

Nanoseconds of CPU time of this thread; of each the least, as other programs only add to it. `first`: pages that the
table does not know, `add`: accesses of random ones that it knows, `drain`: samples as perf writes them, taken out of
their ring into the table, each with a register that points to a random page and fourteen that point elsewhere, `loads`:
samples of a PMU, of loads that memory answered, `judge`: each page of the table. What is a part of `drain`: `pass`:
samples that point nowhere, which are only read, and `few`: samples of 200 pages, whose cells are in the cache.
The table holds 1.3 million cells of 32 bytes, so nearly every access goes to memory. All is measured twice, on base
pages and (`huge`) after the table was put on huge pages, as it is once that many are in use. With --beside FOLDER each
turn is a process of its own, and of another checkout in turn; then the ratios are told, of huge pages to what is there.
Prints a table, then one line of JSON.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from balancerd.native import AccessNodes, AccessTable, AddressRanges, JudgeRule, PerfKind
from balancerd.native._core import ffi, lib
from tests.bench.bench_native import Row, print_table
from tests.unit.native.rings import filled, memory_record, registers_record

PAGE = 4096
BASE = 0x7F00_0000_0000
STACK = 0x7FFF_0000_0000
FROM_MEMORY = 0x02 | 0x82 << 5 | 0x0D << 33  # PERF_MEM_OP_LOAD; PERF_MEM_LVL_HIT, _LOC_RAM; PERF_MEM_LVLNUM_RAM
NODES = AccessNodes([(cpu, cpu // 4) for cpu in range(16)])


def ns_each(function: Callable[[], object], count: int) -> float:
    began = time.thread_time_ns()
    function()
    return (time.thread_time_ns() - began) / count


def packed(addresses: list[int]) -> Any:
    return ffi.new(
        "struct bal_access[]", [(address, 10**9, 1 + at % 4, at % 16) for at, address in enumerate(addresses)]
    )


def records(addresses: Iterable[int], choose: random.Random) -> bytes:
    """Samples whose other registers hold small numbers and places on the stack."""
    return b"".join(
        registers_record(
            [
                *(choose.randrange(1 << 32) for _ in range(7)),
                address + 8 * choose.randrange(512),
                *(STACK + choose.randrange(1 << 20) for _ in range(7)),
            ],
            tid=1 + at % 4,
            cpu=at % 16,
        )
        for at, address in enumerate(addresses)
    )


def loads(addresses: list[int]) -> bytes:
    return b"".join(
        memory_record(address, FROM_MEMORY, tid=1 + at % 4, cpu=at % 16, cycles=300, frame=address)
        for at, address in enumerate(addresses)
    )


def bench(pages: int, samples: int, turns: int) -> list[Row]:
    choose = random.Random(1)  # noqa: S311 the same pages in every run
    table = AccessTable(NODES, 43 * pages)
    known = [BASE + page * PAGE for page in range(pages)]
    choose.shuffle(known)
    first = packed(known)
    times: dict[str, list[float]] = {}

    def time_part(part: str, function: Callable[[], object], count: int) -> None:
        times.setdefault(part, []).append(ns_each(function, count))

    time_part("first", lambda: lib.bal_access_add(first, pages, 0, table.data), pages)
    ends = [BASE + n * pages // 8 * PAGE for n in range(9)]
    ranges = AddressRanges([(start, end - PAGE) for start, end in itertools.pairwise(ends)])
    ring_bytes = 1 << (168 * samples - 1).bit_length()

    def pick() -> list[int]:
        return [choose.choice(known) for _ in range(samples)]

    def time_rings(part: str, samples_of_kind: bytes, kind: PerfKind) -> None:
        with filled(samples_of_kind, kind=kind, data_bytes=ring_bytes) as rings:
            time_part(part, lambda: rings.read(table, ranges), samples)

    for suffix in ("", " huge"):
        for _ in range(turns):
            again = packed(pick())
            time_part("add" + suffix, partial(lib.bal_access_add, again, samples, 0, table.data), samples)
            time_rings("drain" + suffix, records(pick(), choose), PerfKind.REGISTERS)
            time_rings("loads" + suffix, loads(pick()), PerfKind.MEMORY)
            time_part("judge" + suffix, lambda: table.judge(JudgeRule()), pages)
            if not suffix:
                time_rings("pass", records([0] * samples, choose), PerfKind.REGISTERS)
                time_rings(
                    "few", records(itertools.islice(itertools.cycle(known[:200]), samples), choose), PerfKind.REGISTERS
                )
        table.gather()
    totals = table.totals()
    table.close()
    return [
        {
            "part": part,
            "ns each": round(min(values), 1),
            "turns": " ".join(f"{value:.0f}" for value in values),
            "pages": totals.pages,
            "lost pages": totals.lost_pages,
        }
        for part, values in times.items()
    ]


def beside(folder: str, pages: int, samples: int, turns: int) -> list[Row]:
    """Run this checkout and another one by turns; return the least of each, and their ratio if both have the part."""
    sizes = f"--pages={pages}", f"--samples={samples}", "--turns=1"
    least: dict[str, dict[str, float]] = {".": {}, folder: {}}
    for _ in range(turns):
        for where, values in least.items():
            command = (f"{where}/.venv/bin/python", "-m", "tests.bench.bench_access", *sizes)
            done = subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)
            for row in json.loads(done.stdout.splitlines()[-1])["rows"]:
                part = str(row["part"])
                values[part] = min(float(row["ns each"]), values.get(part, float("inf")))
    rows: list[Row] = []
    for part, ns in least["."].items():
        before = least[folder].get(part, least[folder].get(part.partition(" ")[0], float("nan")))
        rows.append({"part": part, "ns each": ns, "there": before, "ratio": round(ns / before, 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--beside", metavar="FOLDER")
    options = parser.parse_args()
    sizes = options.pages, options.samples, options.turns
    rows = beside(options.beside, *sizes) if options.beside else bench(*sizes)
    print_table(rows)
    print(json.dumps({"bench": "access", "rows": rows}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
