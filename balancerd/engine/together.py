"""Several steps at once: while one process rests from a call, the memory of another moves.

Owns whose turn it is. Must not know how a step moves, nor how long a process rests. Time is the clock's.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep
from balancerd.ports import Clock

Work = Generator[float, None, MigrationOutcome]
"""A step on its way: it yields the time until when it has nothing to do, and returns its outcome."""


@dataclass(slots=True)
class _UnderWay:
    process: ProcessId
    work: Work
    until: float


def carry_out(
    steps: Sequence[MigrationStep],
    begin: Callable[[MigrationStep], Work | None],
    clock: Clock,
    should_stop: Callable[[], bool],
) -> Iterator[MigrationOutcome]:
    """Carry out steps in the order of their importance; yields their outcomes as they end.

    A step has its turn as soon as its process has rested, and a later one only while all earlier ones rest. The steps
    of one process follow each other. What `begin` returns None for does not start. Told to stop, everybody has a turn
    at once, and is expected to end.
    """
    waiting = list(steps)
    under_way: list[_UnderWay] = []
    while waiting or under_way:
        now, stopping = clock.now(), should_stop()
        turn = next((each for each in under_way if stopping or each.until <= now), None)
        if turn is None:
            busy = {each.process for each in under_way}
            step = next((step for step in waiting if step.process not in busy), None)
            if step is None:
                clock.wait_until(min(each.until for each in under_way))
                continue
            waiting.remove(step)
            work = begin(step)
            if work is None:
                continue
            turn = _UnderWay(step.process, work, now)
            under_way.append(turn)
        try:
            turn.until = next(turn.work)
        except StopIteration as ended:
            under_way.remove(turn)
            outcome: MigrationOutcome = ended.value
            yield outcome
