"""The events of one recorded tick, and how far they were told to an engine that is played the same world.

Owns the order. The engine may have another configuration than the one that was recorded, and ask what nobody asked
then. So light things (the time, whether to stop) are told in their order, from where the last answer of the kernel was
found. It must not know what answers mean, nor files.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from balancerd.model.ids import ProcessId
from balancerd.model.sample import PlacementSample, Sampling
from balancerd.trace.tap import Event, Failure

LIGHT: Final = frozenset({"now", "cpu", "wait", "stop", "claimed", "moving", "next"})


class ReplayedError(Exception):
    """What a port raised when it was recorded, by the name of its class."""


class Stage:
    """The events of one tick and how far they were told. `missing` counts what no record answers, `asked` all."""

    def __init__(self, known: Iterable[PlacementSample] = ()) -> None:
        self.missing: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self._events: tuple[Event, ...] = ()
        self._waiting: dict[str, list[int]] = {}
        self._rests: dict[int, deque[int]] = {}
        self._ends: dict[int, int] = {}
        self._at = 0
        self._last: dict[str, Any] = {"now": 0.0, "cpu": 0.0, "stop": False, "claimed": frozenset[ProcessId]()}
        self._known = {placement.process: placement for placement in known}
        self._told: set[ProcessId] = set()

    def set(self, events: Sequence[Event]) -> None:
        """Play these from now on. What was found out in those before can still be asked for, if it was not told."""
        for event in self._events:
            if isinstance(event.answer, Sampling):
                self._known |= {p.process: p for p in event.answer.placements if p.process not in self._told}
        self._events, self._at = tuple(events), 0
        self._told.clear()
        self._last["stop"] = False
        self._waiting, self._rests, self._ends = {}, {}, {}
        for index, event in enumerate(self._events):
            if event.kind == "rest" and isinstance(event.question, int):
                self._rests.setdefault(event.question, deque()).append(index)
            elif event.kind == "end" and isinstance(event.question, int):
                self._ends[event.question] = index
            elif event.kind not in LIGHT:
                self._waiting.setdefault(event.kind, []).append(index)

    def go_to(self, index: int) -> None:
        """Let everything before the event at `index`, and the event itself, have happened."""
        for event in self._events[self._at : index + 1]:
            if event.kind in self._last and not isinstance(event.answer, Failure):
                self._last[event.kind] = event.answer
        self._at = max(self._at, index + 1)

    def light(self, kind: str) -> Any:
        """Return the next answer of its kind before the next of another port; the last one when there is none."""
        index = self._next_light(kind)
        if index is None:
            return self._last[kind]
        self.go_to(index)
        return answer_of(self._events[index])

    def wait(self, deadline: float) -> None:
        """Let time pass."""
        index = self._next_light("wait")
        if index is not None:
            self.go_to(index)
        self._last["now"] = max(self._last["now"], deadline)

    def find(self, kind: str, fits: Callable[[Event], bool]) -> Event | None:
        """Return the first event of its kind that fits and was not told before, and have it told."""
        waiting = self._waiting.get(kind, [])
        for index in waiting:
            if fits(self._events[index]):
                waiting.remove(index)
                self.go_to(index)
                return self._events[index]
        return None

    def rest(self, number: int) -> Event | None:
        """Return the next rest of the migration of that number in this tick."""
        rests = self._rests.get(number)
        if not rests:
            return None
        index = rests.popleft()
        self.go_to(index)
        return self._events[index]

    def ended(self, number: int, *, tell: bool = True) -> Event | None:
        """Return the end of the migration of that number in this tick."""
        index = self._ends.get(number)
        if index is None:
            return None
        if tell:
            self.go_to(index)
        return self._events[index]

    def samplings(self) -> Iterator[Event]:
        """Yield what was found out of where memory lies in this tick, told or not."""
        return (event for event in self._events if event.kind == "sample")

    def older(self, process: ProcessId) -> PlacementSample | None:
        """Return what was found out of a process before this tick, None when there is nothing that was not told."""
        return self._known.get(process)

    def tell(self, process: ProcessId) -> None:
        """Take note that what is known of where a process's memory lies was told."""
        self._known.pop(process, None)
        self._told.add(process)

    def miss(self, what: str) -> None:
        """Count a question that no record answers."""
        self.missing[what] += 1

    def _next_light(self, kind: str) -> int | None:
        for index in range(self._at, len(self._events)):
            if self._events[index].kind == kind:
                return index
            if self._events[index].kind not in LIGHT:
                return None
        return None


def answer_of(event: Event) -> Any:
    """Return what an event was answered with. Raises ReplayedError where the port raised something."""
    if isinstance(event.answer, Failure):
        raise ReplayedError(event.answer.error)
    return event.answer
