"""Whose turn it is to be answered: clients take turns by who they are, so that one who asks much delays itself.

Pure. It must not know requests, nor what makes a client who it is.
"""

import itertools
from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, in the order of its turns: round after round one of each, and each one's in the order of coming."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[T]] = {}
        """By whom, whose turn is next first."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[T]:
        """Yield what waits, each one's in the order of coming."""
        return itertools.chain.from_iterable(self._waiting.values())

    def add(self, who: Hashable, item: T) -> None:
        """Let an item wait."""
        self._waiting.setdefault(who, deque()).append(item)

    def discard(self, who: Hashable, item: T) -> None:
        """Let an item wait no more; nothing happens when it does not."""
        items = self._waiting.get(who, deque())
        if item in items:
            items.remove(item)
            if not items:
                del self._waiting[who]

    def take(self) -> T:
        """Return the item whose turn it is. Raises IndexError when none waits."""
        if not self._waiting:
            raise IndexError("nobody waits")
        who = next(iter(self._waiting))
        items = self._waiting.pop(who)
        item = items.popleft()
        if items:
            self._waiting[who] = items
        return item
