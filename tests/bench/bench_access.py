"""What it costs to count accesses by page, with a million different pages.

    python -m tests.bench.bench_access [--pages N] [--samples N] [--turns N]

Nanoseconds of CPU time of this thread; of each the least, as other programs only add to it. `first`: pages that the
table does not know, `add`: accesses of random ones that it knows, `drain`: samples as perf writes them, taken out of
their ring into the table, each with a register that points to a random page and fourteen that point elsewhere, `loads`:
samples of a PMU, of loads that memory answered, `judge`: each page of the table.
The table holds 1.3 million cells of 32 bytes, so nearly every access goes to memory.
Prints a table, then one line of JSON.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable
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


def records(addresses: list[int], choose: random.Random) -> bytes:
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
    times: dict[str, list[float]] = {part: [] for part in ("first", "add", "drain", "loads", "judge")}
    times["first"].append(ns_each(lambda: lib.bal_access_add(first, pages, 0, table.data), pages))
    ends = [BASE + n * pages // 8 * PAGE for n in range(9)]
    ranges = AddressRanges([(start, end - PAGE) for start, end in itertools.pairwise(ends)])
    ring_bytes = 1 << (168 * samples - 1).bit_length()
    for _ in range(turns):
        chosen = [choose.choice(known) for _ in range(samples)]
        again = packed(chosen)
        times["add"].append(ns_each(lambda: lib.bal_access_add(again, samples, 0, table.data), samples))  # noqa: B023
        chosen = [choose.choice(known) for _ in range(samples)]
        with filled(records(chosen, choose), kind=PerfKind.REGISTERS, data_bytes=ring_bytes) as rings:
            times["drain"].append(ns_each(lambda: rings.read(table, ranges), samples))
        chosen = [choose.choice(known) for _ in range(samples)]
        with filled(loads(chosen), kind=PerfKind.MEMORY, data_bytes=ring_bytes) as rings:
            times["loads"].append(ns_each(lambda: rings.read(table, ranges), samples))
        times["judge"].append(ns_each(lambda: table.judge(JudgeRule()), pages))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    rows = bench(options.pages, options.samples, options.turns)
    print_table(rows)
    print(json.dumps({"bench": "access", "rows": rows}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
