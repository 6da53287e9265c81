"""How gently memory moves: what one call may take, what share of its time a process may lose, when to pause.

Owns the waiting between calls and what is counted of it. It must not know what moves.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from balancerd.kernel.clock import process_cpu_seconds
from balancerd.kernel.machine.pressure import read_pressure
from balancerd.kernel.moving.batch import START_PAGES
from balancerd.kernel.moving.held_up import HeldUp
from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, ProcessId
from balancerd.ports import Clock

T = TypeVar("T")

GROUP_PAGES = 128
"""Left to itself the kernel unmaps 512. Smaller groups make waits shorter, but each has a price: waiting for the CPUs
where the process runs, and waking who waits for it. See docs/moving.md."""

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
    A process loses at most `duty_ratio` of its time to calls, which hold it up as long as they take, or as much as it
    is known to be held up by them. Above `max_memory_pressure_ratio` or `max_cpu_pressure_ratio` (PSI,
    some avg10) nothing is moved; None never pauses. Calls copy on CPUs of `copying_cpus`; None: on the daemon's.
    `group_pages` of a call are out of reach together while they are copied, or more where such groups wait for long
    (see group.py); 0 leaves that to the kernel.
    """

    stall_target_seconds: float
    stall_limit_seconds: float
    duty_ratio: float
    max_memory_pressure_ratio: float | None
    max_cpu_pressure_ratio: float | None
    max_swap_used_ratio: float = 0.8
    first_batch_pages: int = START_PAGES
    copying_cpus: frozenset[CpuId] | None = None
    group_pages: int = GROUP_PAGES


class Pacer:
    """Paces all steps of one kernel: what a call owes to the duty cycle is owed by the next one in the same process."""

    def __init__(
        self,
        clock: Clock,
        pace: Pace,
        procfs: str = "/proc",
        cpu_seconds_of: Callable[[int], float | None] = process_cpu_seconds,
    ) -> None:
        self.pace = pace
        self.clock = clock
        self.procfs = procfs
        self.held_up = HeldUp(clock, cpu_seconds_of)
        self._next_call_at: dict[ProcessId, float] = {}

    def step(
        self,
        process: ProcessId,
        *,
        budget_seconds: float,
        should_stop: Callable[[], bool],
        for_cpu: bool = True,
    ) -> "StepPace":
        """Begin a step, which ends after `budget_seconds`; without `for_cpu` only pressure on memory ends it."""
        return StepPace(self, process, budget_seconds, should_stop, for_cpu=for_cpu)

    def next_call_at(self, process: ProcessId) -> float:
        """Return when a process has rested from its last call."""
        return self._next_call_at.get(process, 0.0)

    def rest(self, process: ProcessId, seconds: float) -> None:
        """Let a process rest from now on for so long; who has rested is forgotten."""
        now = self.clock.now()
        self._next_call_at = {each: at for each, at in self._next_call_at.items() if at > now}
        self._next_call_at[process] = now + seconds


class StepPace:
    """The pace of one step, and what it cost: seconds of waiting by cause, and the calls that were stalls."""

    def __init__(
        self,
        pacer: Pacer,
        process: ProcessId,
        budget_seconds: float,
        should_stop: Callable[[], bool],
        *,
        for_cpu: bool,
    ) -> None:
        self._pacer = pacer
        self._process = process
        self.clock = pacer.clock
        self._should_stop = should_stop
        self._for_cpu = for_cpu
        self._deadline = pacer.clock.now() + budget_seconds
        self._look_at = pacer.clock.now()
        self.refusal: tuple[Reason, str] | None = None
        self.throttled_seconds: dict[str, float] = {}
        self.stalls: list[tuple[float, int]] = []
        self._felt_seconds = 0.0

    @property
    def held_up_ratio(self) -> float:
        """Which part of its calls' time the process has lost in earlier steps, see HeldUp."""
        return self._pacer.held_up.ratio(self._process)

    def begin(self) -> None:
        """Measure from now on how much the process is held up."""
        self._pacer.held_up.begin(self._process)

    def end(self) -> None:
        """Measure no longer: the step has ended."""
        self._pacer.held_up.end(self._process, self._felt_seconds)

    def wait_ready(self, alive: Callable[[], bool]) -> Generator[float, None, bool]:
        """Wait for the turn of the next call; False when there is none, and then `refusal` may say why.

        Yields the time until when there is nothing to do. `alive` tells whether the process still runs.
        """
        while self.refusal is None:
            self.refusal = self._objection() or (None if alive() else (Reason.EXITED, ""))
            now, turn = self.clock.now(), self._pacer.next_call_at(self._process)
            if self.refusal is not None or max(now, turn) >= self._deadline:
                break
            if now >= turn:
                return True
            yield from self.wait_until(turn, DUTY_CYCLE)
        return False

    def wait_until(self, when: float, cause: str) -> Generator[float, None, None]:
        """Wait until `when`, at most to the end of the step. A stop ends the wait.

        Whoever comes back too early is told the time once more; who comes late has waited no longer for it.
        """
        began = self.clock.now()
        until = min(when, self._deadline)
        while self.clock.now() < until and not self._should_stop():
            yield until
        ended = min(self.clock.now(), until)
        if ended > began:
            self.throttled_seconds[cause] = self.throttled_seconds.get(cause, 0.0) + ended - began

    def called(self, call_seconds: Sequence[float], price_seconds: float, batch_pages: int) -> None:
        """Learn how long calls took; the target does not feel `price_seconds` of each."""
        pace = self._pacer.pace
        felt = [max(0.0, seconds - price_seconds) for seconds in call_seconds]
        self.stalls += [(seconds, batch_pages) for seconds in felt if seconds > pace.stall_limit_seconds]
        self._felt_seconds += sum(felt)
        self._pacer.rest(self._process, (1 / pace.duty_ratio - 1) * self.held_up_ratio * sum(felt))

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
        if self.clock.now() >= self._look_at:
            self._look_at = self.clock.now() + _PRESSURE_SECONDS
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


def finish(clock: Clock, work: Generator[float, None, T]) -> T:
    """Carry work out to its end, and wait whenever it says so."""
    while True:
        try:
            until = next(work)
        except StopIteration as ended:
            value: T = ended.value
            return value
        clock.wait_until(until)
