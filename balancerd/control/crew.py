"""A few threads that do what they are given, in the order in which it comes.

They are daemonic: what hangs never keeps the process alive. They last, so that their CPU time can be asked for. It must
not know what they do.
"""

import threading
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from queue import SimpleQueue


class Crew:
    """So many threads, from start() on. What fails is told to `on_error`, and the thread goes on."""

    def __init__(self, n_threads: int, *, name: str, on_error: Callable[[], None]) -> None:
        self._on_error = on_error
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(n_threads)]

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """As the kernel numbers them, gettid(2)."""
        return {thread.native_id for thread in self._threads if thread.native_id is not None}

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def do(self, task: Callable[[], None]) -> None:
        """Have something done by whoever is free first. For any thread; returns at once."""
        self._tasks.put(task)

    def stop(self, seconds: float) -> None:
        """Have nothing done any more, and wait for what is being done, but for so long at most."""
        started = [thread for thread in self._threads if thread.ident is not None]
        for _ in started:
            self._tasks.put(None)
        end = time.monotonic() + seconds
        for thread in started:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:  # noqa: BLE001 -- the thread outlives whatever a task meets
                self._on_error()
            del task  # or it would live on until the next one comes
