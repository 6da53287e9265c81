"""What a tick's survey takes with psutil: a process of its own that makes a pass for each line of its input.

    python -m tests.bench.psutil_pass MIN_RSS_BYTES MIN_CPU_CORES

Each pass reads CPU times, memory and the number of threads of every process, then threads and affinity of those
as large and as busy since the pass before as balancerd's defaults select. Prints a line of JSON for each.
"""

import json
import sys
import time

import psutil

ATTRIBUTES = ("pid", "name", "create_time", "cpu_times", "memory_info", "num_threads")

Ids = tuple[int, float]


def one_pass(before: dict[Ids, float], elapsed_seconds: float, min_rss: int, min_cores: float) -> tuple[int, ...]:
    """Look at every process, and keep in `before` what each has used; gives how many, how many selected, threads."""
    used: dict[Ids, float] = {}
    selected = threads = 0
    for process in psutil.process_iter(ATTRIBUTES):
        info = process.info
        key = (info["pid"], info["create_time"])
        used[key] = info["cpu_times"].user + info["cpu_times"].system
        cores = (used[key] - before.get(key, used[key])) / elapsed_seconds
        if info["memory_info"].rss >= min_rss and cores >= min_cores:
            try:
                threads += len(process.threads())
                process.cpu_affinity()
            except psutil.NoSuchProcess:
                continue
            selected += 1
    before.clear()
    before |= used
    return len(used), selected, threads


def main() -> None:
    min_rss, min_cores = int(sys.argv[1]), float(sys.argv[2])
    before: dict[Ids, float] = {}
    last = time.monotonic()
    for _ in sys.stdin:
        began, elapsed, last = time.process_time(), time.monotonic() - last, time.monotonic()
        processes, selected, threads = one_pass(before, elapsed, min_rss, min_cores)
        cpu = time.process_time() - began
        told = {"cpu_seconds": cpu, "processes": processes, "selected": selected, "threads": threads}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
