"""How much calls that move its memory hold a process up: told by its CPU time, within steps against between them.

Owns what is remembered of it. Must not know what moves, nor what is concluded from it (see pacing.py).

A thread that touches a page on its way sleeps until the call has ended, and one that does not runs on. How many do is
the business of the program: one that walks through its memory meets a call once in a round, another one all the time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from balancerd.model.ids import ProcessId
from balancerd.ports import Clock

LEAST_RATIO = 0.1
"""No process is said to be held up less, so that it rests at least so much of what its duty cycle says."""

LEAST_FELT_SECONDS = 0.1
LEAST_FREE_SECONDS = 0.1
"""Below these the CPU time, which the kernel counts by its ticks of up to 10 ms, tells nothing."""

IDLE_CORES = 0.05
"""Who uses less between steps has nothing to tell within them."""

FORGET_SECONDS = 60.0
"""What a process did longer ago is no measure for what it would do now."""

_DECAY = 0.5
"""Of what was known before, at each step."""


@dataclass(slots=True)
class _Known:
    """Sums over the latest steps, and the latest step, which is judged once it is known what came behind it."""

    at: float
    cpu_seconds: float
    free_seconds: float = 0.0
    free_cpu_seconds: float = 0.0
    felt_seconds: float = 0.0
    lost_seconds: float = 0.0
    step: tuple[float, float, float] | None = None


class HeldUp:
    """All processes whose memory moves. `cpu_seconds_of` returns the CPU time of a pid, None when it cannot be told."""

    def __init__(self, clock: Clock, cpu_seconds_of: Callable[[int], float | None]) -> None:
        self._clock = clock
        self._cpu_seconds_of = cpu_seconds_of
        self._known: dict[ProcessId, _Known] = {}

    def begin(self, process: ProcessId) -> None:
        """A step begins: what the process has used since the last one tells what that one was worth."""
        now, cpu = self._clock.now(), self._cpu_seconds_of(process.pid)
        self._known = {each: known for each, known in self._known.items() if now - known.at <= FORGET_SECONDS}
        if cpu is None:
            self._known.pop(process, None)
            return
        known = self._known.setdefault(process, _Known(at=now, cpu_seconds=cpu))
        known.free_seconds = _DECAY * known.free_seconds + now - known.at
        known.free_cpu_seconds = _DECAY * known.free_cpu_seconds + cpu - known.cpu_seconds
        known.at, known.cpu_seconds = now, cpu
        if known.step is not None and known.free_seconds >= LEAST_FREE_SECONDS:
            _judge(known, *known.step)
            known.step = None

    def end(self, process: ProcessId, felt_seconds: float) -> None:
        """A step has ended, whose calls took `felt_seconds` in all."""
        known, cpu = self._known.get(process), self._cpu_seconds_of(process.pid)
        if known is None or cpu is None:
            return
        now = self._clock.now()
        known.step = (now - known.at, cpu - known.cpu_seconds, felt_seconds)
        known.at, known.cpu_seconds = now, cpu

    def ratio(self, process: ProcessId) -> float:
        """Return which part of the calls' time the process has lost, in (0, 1]; 1 as long as nobody knows.

        It is as if one thread had lost all of it: another one may lose less, none has lost more.
        """
        known = self._known.get(process)
        if known is None or known.felt_seconds < LEAST_FELT_SECONDS:
            return 1.0
        return min(1.0, max(LEAST_RATIO, known.lost_seconds / known.felt_seconds))


def _judge(known: _Known, seconds: float, cpu_seconds: float, felt_seconds: float) -> None:
    """Add a step: what the process would have used in its time, and has not. One of less than a core waits, too."""
    cores = known.free_cpu_seconds / known.free_seconds
    if cores < IDLE_CORES:
        return
    known.lost_seconds = _DECAY * known.lost_seconds + cores * seconds - cpu_seconds
    known.felt_seconds = _DECAY * known.felt_seconds + min(1.0, cores) * felt_seconds
