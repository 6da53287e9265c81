"""Real processes to look at: each says when it is ready and ends when its stdin is closed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId


@contextmanager
def child(code: str = "") -> Iterator[tuple[subprocess.Popen[str], ProcessId]]:
    """Run Python `code` in a process of its own, which then waits; `mmap` is imported there."""
    program = f"import sys, mmap\n{code}\nprint('ready', flush=True)\nsys.stdin.read()\n"
    process = subprocess.Popen(
        [sys.executable, "-ISE", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process, ProcessId(process.pid, read_start_ticks(process.pid))
    finally:
        process.kill()
        process.communicate()
