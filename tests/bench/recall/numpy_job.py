"""A job of numpy with several threads, each with arrays of its own, and one table that all read. Run by programs.py.

    python3 numpy_job.py MIB CPU[,CPU...]

Stock code in the system's own interpreter; imports nothing else from here. numpy lets go of the interpreter's lock
while it computes. Each thread multiplies its matrix by a vector, adds to it in place, and gathers from the table by
random indexes; all of that a panel of 1 MiB at a time. Says "ready", and works until it is killed.
"""

import os
import sys
import threading

import numpy as np  # only the interpreter that runs this has it

ROWS, COLUMNS = 128, 1024
TABLE_SHARE = 8
"""One part in so many of the memory is the table."""


def main(mib: int, cpus: list[int]) -> None:
    """Make everything in this thread, and work in others."""
    table = np.arange(mib // TABLE_SHARE * ROWS * COLUMNS, dtype=np.float64)
    panels = (mib - mib // TABLE_SHARE) // len(cpus)
    made = []
    for number, cpu in enumerate(cpus):
        indexes = np.random.default_rng(number).integers(0, table.size, ROWS * COLUMNS)
        made.append((cpu, np.ones((panels, ROWS, COLUMNS)), indexes))
    for cpu, matrix, indexes in made:
        threading.Thread(target=work, args=(cpu, matrix, indexes, table), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def work(cpu: int, matrix: np.ndarray, indexes: np.ndarray, table: np.ndarray) -> None:
    """Compute for ever on one CPU; the affinity of "this process" is that of the calling thread."""
    os.sched_setaffinity(0, {cpu})
    vector = np.arange(COLUMNS, dtype=np.float64)
    product, gathered = np.empty(ROWS), np.empty(ROWS * COLUMNS)
    while True:
        for panel in matrix:
            np.matmul(panel, vector, out=product)
            np.add(panel, 1.0, out=panel)
        np.take(table, indexes, out=gathered, mode="clip")


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(word) for word in sys.argv[2].split(",")])
