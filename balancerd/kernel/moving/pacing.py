"""How gently memory moves: what one call may take, what share of the time calls may fill, when to pause.

Owns the waiting between calls and what is counted of it. It must not know what moves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balancerd.kernel.machine.pressure import read_pressure
from balancerd.kernel.moving.batch import START_PAGES
from balancerd.model.decision import Reason
from balancerd.ports import Clock

DUTY_CYCLE = "duty-cycle"
RETRY = "retry"
"""Causes of waiting, as `throttled_seconds` of an outcome names them."""

_PRESSURE_SECONDS = 0.5
"""How often pressure is read while memory moves. The kernel renews its averages every two seconds, psi.rst."""

_MOST_STALLS = 2
"""So many end a step: one may be chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The gentleness of one configuration.

    Calls aim at `stall_target_seconds`; a call beyond `stall_limit_seconds` is a stall, and two of them end a step.
    Calls fill at most `duty_ratio` of the time. Above `max_memory_pressure_ratio` or `max_cpu_pressure_ratio` (PSI,
    some avg10) nothing is moved; None never pauses.
    """

    stall_target_seconds: float
    stall_limit_seconds: float
    duty_ratio: float
    max_memory_pressure_ratio: float | None
    max_cpu_pressure_ratio: float | None
    max_swap_used_ratio: float = 0.8
    first_batch_pages: int = START_PAGES


class Pacer:
    """Paces all steps of one kernel: what a call owes to the duty cycle is owed by the next one, of any step."""

    def __init__(self, clock: Clock, pace: Pace, procfs: str = "/proc") -> None:
        self.pace = pace
        self.clock = clock
        self.procfs = procfs
        self.next_call_at = 0.0

    def step(self, *, budget_seconds: float, should_stop: Callable[[], bool], for_cpu: bool = True) -> "StepPace":
        """Begin a step, which ends after `budget_seconds`; without `for_cpu` only pressure on memory ends it."""
        return StepPace(self, budget_seconds, should_stop, for_cpu=for_cpu)


class StepPace:
    """The pace of one step, and what it cost: seconds of waiting by cause, and the calls that were stalls."""

    def __init__(self, pacer: Pacer, budget_seconds: float, should_stop: Callable[[], bool], *, for_cpu: bool) -> None:
        self._pacer = pacer
        self._clock = pacer.clock
        self._should_stop = should_stop
        self._for_cpu = for_cpu
        self._deadline = pacer.clock.now() + budget_seconds
        self._look_at = pacer.clock.now()
        self.refusal: tuple[Reason, str] | None = None
        self.throttled_seconds: dict[str, float] = {}
        self.stalls: list[tuple[float, int]] = []

    def is_ready(self, alive: Callable[[], bool]) -> bool:
        """Wait for the turn of the next call; False when there is none, and then `refusal` may say why.

        `alive` tells whether the process still runs.
        """
        while self.refusal is None:
            self.refusal = self._objection() or (None if alive() else (Reason.EXITED, ""))
            now, turn = self._clock.now(), self._pacer.next_call_at
            if self.refusal is not None or max(now, turn) >= self._deadline:
                break
            if now >= turn:
                return True
            self.wait_until(turn, DUTY_CYCLE)
        return False

    def wait_until(self, when: float, cause: str) -> None:
        """Wait until `when`, at most to the end of the step. A stop ends the wait.

        A clock that is woken for another reason is asked to wait again.
        """
        began = self._clock.now()
        until = min(when, self._deadline)
        while (now := self._clock.now()) < until and not self._should_stop():
            self._clock.wait_until(until)
        if now > began:
            self.throttled_seconds[cause] = self.throttled_seconds.get(cause, 0.0) + now - began

    def called(self, call_seconds: Sequence[float], price_seconds: float, batch_pages: int) -> None:
        """Learn how long calls took; the target does not feel `price_seconds` of each."""
        pace = self._pacer.pace
        felt = [max(0.0, seconds - price_seconds) for seconds in call_seconds]
        self.stalls += [(seconds, batch_pages) for seconds in felt if seconds > pace.stall_limit_seconds]
        self._pacer.next_call_at = self._clock.now() + (1 / pace.duty_ratio - 1) * sum(felt)

    def _objection(self) -> tuple[Reason, str] | None:
        """Return why nothing more should be moved now, and the detail; None when nothing speaks against it."""
        if self._should_stop():
            return Reason.STOPPING, ""
        if len(self.stalls) >= _MOST_STALLS:
            calls = " and ".join(
                f"{seconds * 1e3:.1f} ms (batch of {pages} pages)" for seconds, pages in self.stalls[:2]
            )
            limit = self._pacer.pace.stall_limit_seconds
            return Reason.STALLED, f"calls took {calls}, above the limit of {limit * 1e3:.1f} ms"
        if self._clock.now() >= self._look_at:
            self._look_at = self._clock.now() + _PRESSURE_SECONDS
            return self._pressure()
        return None

    def _pressure(self) -> tuple[Reason, str] | None:
        pace = self._pacer.pace
        pressure = read_pressure(self._pacer.procfs)
        for name, ratio, limit in (
            ("memory", pressure.memory_ratio, pace.max_memory_pressure_ratio),
            ("CPU", pressure.cpu_ratio, pace.max_cpu_pressure_ratio if self._for_cpu else None),
        ):
            if ratio is not None and limit is not None and ratio > limit:
                return Reason.PRESSURE, f"{name} pressure {100 * ratio:.1f} %, above the limit of {100 * limit:.1f} %"
        return None
