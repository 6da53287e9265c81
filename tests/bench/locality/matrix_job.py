"""A job of numpy: products of a large matrix and a vector, panel by panel, over and over. Run by matrix.py.

    python3 matrix_job.py MIB

Stock code in the system's own interpreter; imports nothing else from here. Everything in it is a whole number small
enough for a float to hold exactly, so that each sum has one right value in whatever order it is made. Words on stdin:
"work N" computes N panels and answers "worked CHECKSUM" and the nanoseconds of each panel; "verify" compares every word
of the matrix; "end". After the start, and after each word, there is a line on stdout.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np  # only the interpreter that runs this has it

ROWS, COLUMNS = 128, 1024
PERIOD, FACTORS = 1021, 7
"""Panel p holds 0 to 1020 in a row, over and over, plus p; the vector 0 to 6."""


def main(mib: int) -> None:
    """Make the matrix, a panel a MiB, and answer until the end."""
    pattern = (np.arange(ROWS * COLUMNS) % PERIOD).reshape(ROWS, COLUMNS)
    vector = np.arange(COLUMNS, dtype=np.float64) % FACTORS
    matrix = np.empty((mib, ROWS, COLUMNS))
    for number, panel in enumerate(matrix):
        np.add(pattern, float(number), out=panel)
    say("ready")
    turns = panels(mib)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "work":
            times, total = work(matrix, vector, turns, int(rest[0]))
            say("worked", int(total), *times)
        elif word == "verify":
            wrong = sum(int(np.count_nonzero(panel != pattern + number)) for number, panel in enumerate(matrix))
            say("verified" if wrong == 0 else "wrong", matrix.size - wrong)
        elif word == "spoil":
            matrix[int(rest[0]), 0, 0] += 1.0
            say("spoilt")
        else:
            return


def panels(n: int) -> Iterator[int]:
    """Yield the numbers of the panels, again and again."""
    while True:
        yield from range(n)


def work(matrix: np.ndarray, vector: np.ndarray, turns: Iterator[int], n: int) -> tuple[list[int], float]:
    """Multiply the next n panels; gives the nanoseconds of each, and the sum of all products."""
    times, total = [], 0.0
    for _ in range(n):
        began = time.perf_counter_ns()
        total += float((matrix[next(turns)] @ vector).sum())
        times.append(time.perf_counter_ns() - began)
    return times, total


def say(*words: object) -> None:
    """Print a line that is read at once."""
    print(*words, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
