"""A machine that is held still for some seconds, as one that is suspended: its own clocks do not know where they went.

The inside asks, by a file in `out`; the outside stops QEMU for so long. Owns the file's name and meaning.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.machine import Machine

OUT = Path("/run/lab/out")
REQUEST = "hold-still"
POLL_SECONDS = 0.1


class NobodyAnswersError(Exception):
    """Nobody outside holds this machine still."""


def hold_still(seconds: float, *, patience_seconds: float = 60.0) -> float:
    """Have this machine held still, from inside; return how much longer that took by its own monotonic clock.

    Raises NobodyAnswersError.
    """
    request = OUT / REQUEST
    part = request.with_suffix(".part")
    part.write_text(str(seconds), encoding="ascii")
    began = time.monotonic()
    part.rename(request)
    while request.exists():
        if time.monotonic() - began > seconds + patience_seconds:
            raise NobodyAnswersError(f"{request} is still there after {patience_seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


@contextlib.contextmanager
def answer_requests(machine: Machine) -> Iterator[None]:
    """Hold a machine still whenever its inside asks for it, until the block ends."""
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(machine, over))
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(machine: Machine, over: threading.Event) -> None:
    request = machine.out / REQUEST
    while not over.wait(POLL_SECONDS):
        if not request.exists() or machine.pid is None:
            continue
        os.kill(machine.pid, signal.SIGSTOP)
        over.wait(float(request.read_text(encoding="ascii")))
        os.kill(machine.pid, signal.SIGCONT)
        request.unlink()
