"""Whether moving with two threads at once is faster than one after the other.

    python -m tests.bench.bench_threads [--turns 6]

Needs three nodes, as in the lab, where --threads multi gives each virtual CPU a thread of the host. Two processes with
two targets, then two halves of one process with one target, each by two threads; `gain` is the throughput together
over that in turn; times of calls are given in turn and together. Prints a table, then one line of JSON.

Seen on Debian's 6.12, emulated on two cores, six turns: base pages gain 1.74 (two processes) and 1.78 (two halves), THP
0.78 and 1.63, where single turns took 0.4 to 2.6 s for no reason of ours; an earlier run of five turns, on a busier
machine, 1.28, 1.63, 1.11 and 1.24. Calls hardly take longer, 48 ms and 51 to 53 ms for 2048 base pages, but two of
them bear on the memory at a time. On hardware this was not measured.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Sequence

from tests.bench.bench_batch import MIB, NODES, PAGE, SMALL_MIB, Area, move, ms, touch_all_free_memory
from tests.bench.bench_native import FixedBatch, Row, memory_of_a_child, print_table

BATCH_PAGES = 2048


def move_all(areas: Sequence[Area], *, together: bool) -> tuple[float, list[float]]:
    """Move each area on by one node, each in a thread of its own; gives the seconds, and the stall of each call."""
    failed: list[BaseException] = []
    stalls: list[float] = []

    def work(area: Area) -> None:
        try:
            stalls.extend(move(area, FixedBatch(BATCH_PAGES))[1])
        except (OSError, RuntimeError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(area,)) for area in areas]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
        if not together:
            thread.join()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for error in failed:
        raise error
    return seconds, stalls


def compare(where: Row, areas: Sequence[Area], turns: int) -> Row:
    in_turn: list[float] = []
    together: list[float] = []
    stalls: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(turns):
        for is_together, seconds in ((False, in_turn), (True, together)):
            took, calls = move_all(areas, together=is_together)
            seconds.append(took)
            stalls[is_together] += calls
    mib = sum(area.pages for area in areas) * PAGE / MIB
    return {
        **where,
        "in turn MiB/s": round(mib / statistics.median(in_turn), 1),
        "together MiB/s": round(mib / statistics.median(together), 1),
        "gain": round(statistics.median(in_turn) / statistics.median(together), 2),
        "median call ms": f"{ms(statistics.median(stalls[False]))} {ms(statistics.median(stalls[True]))}",
        "longest ms": f"{ms(max(stalls[False]))} {ms(max(stalls[True]))}",
        "in turn s": " ".join(f"{value:.2f}" for value in in_turn),
        "together s": " ".join(f"{value:.2f}" for value in together),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=6)
    turns = parser.parse_args().turns
    touch_all_free_memory()
    rows: list[Row] = []
    length = SMALL_MIB * MIB
    for huge in (False, True):
        pages = "thp" if huge else "base"
        with (
            memory_of_a_child(2 * length, node=NODES[0], huge=huge) as (first, start, _),
            memory_of_a_child(length, node=NODES[1], huge=huge) as (second, other, _),
        ):
            lower, upper = Area(first, start, start + length), Area(first, start + length, start + 2 * length)
            stranger = Area(second, other, other + length, visits=1)
            rows.append(compare({"pages": pages, "of": "two processes, two targets"}, [lower, stranger], turns))
            while upper.visits % len(NODES) != lower.visits % len(NODES):
                move(upper, FixedBatch(BATCH_PAGES))
            rows.append(compare({"pages": pages, "of": "two halves of one, one target"}, [lower, upper], turns))
    print_table(rows)
    print(json.dumps({"bench": "threads", "rows": rows}))


if __name__ == "__main__":
    main()
