"""The daemon under a profiler: python -m tests.bench.profiled FILE [OPTION OF BALANCERD ...].

Counts the calls of the main thread, which ticks, and their CPU time, from SIGUSR1 on, so that the start is not among
them, and writes the statistics to FILE at the end. Counting costs, too: shares mean something, times do not.
"""

import cProfile
import pstats
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from balancerd.cli.daemon import main


def run(file: str, arguments: list[str]) -> int:
    profiler = cProfile.Profile(time.thread_time)

    def begin(_number: int, _frame: FrameType | None) -> None:
        profiler.enable()

    signal.signal(signal.SIGUSR1, begin)
    try:
        return main(arguments)
    finally:
        profiler.disable()
        profiler.dump_stats(file)


def print_top(file: Path, n: int = 15) -> None:
    """Print the functions that took most CPU time themselves."""
    pstats.Stats(str(file)).sort_stats("tottime").print_stats(n)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
