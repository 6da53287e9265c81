"""CPU time that answering has used. Answering is not observing: the loop takes it out of what the scan budget pays for.

Without that, live views of a large machine would use up the budget, and ticks would wait for it. It must not know what
is answered.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Spent:
    """Sums up over threads. `cpu_seconds` is the CPU time of the thread that asks."""

    def __init__(self, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._untold_seconds = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count what this thread uses inside."""
        begin = self._cpu_seconds()
        try:
            yield
        finally:
            used = self._cpu_seconds() - begin
            with self._lock:
                self._untold_seconds += used

    def take(self) -> float:
        """Return what was used since this was last asked."""
        with self._lock:
            used, self._untold_seconds = self._untold_seconds, 0.0
            return used
