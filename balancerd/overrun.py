"""Tells which policy hangs while it hangs: the loop itself cannot, for it waits for the policy.

Owns one thread that sleeps unless somebody is late. It must not know what a policy is, nor end one: Python cannot.
"""

import threading
from collections.abc import Callable


class Overrun:
    """Called with a name when something begins and with None when it ends; `tell` hears of what lasts too long, once.

    `tell` is called in a thread of its own, with the name and the limit. The thread ends with the process.
    """

    def __init__(self, limit_seconds: float, tell: Callable[[str, float], None]) -> None:
        self._limit_seconds = limit_seconds
        self._tell = tell
        self._name: str | None = None
        self._begun = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def __call__(self, name: str | None) -> None:
        """Take note of what begins, or that it has ended."""
        with self._changed:
            self._name = name
            self._begun += 1
            if name is not None and self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="overrun", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._name is not None)
                begun, name = self._begun, self._name
                has_ended = self._changed.wait_for(lambda: self._begun != begun, self._limit_seconds)  # noqa: B023 - asked here
            if name is not None and not has_ended:
                self._tell(name, self._limit_seconds)
                with self._changed:
                    self._changed.wait_for(lambda: self._begun != begun)  # noqa: B023 - asked here
