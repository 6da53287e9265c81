"""What of a process was moved last, its threads or its memory: the other stays for a while, or both chase each other.

Owns these holds, and which threads are held on a node at the moment. It knows nothing of policies; all times are
handed in.
"""

import math
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from balancerd.engine.holds import LONGEST_HOLD_SECONDS, Hold, Holds
from balancerd.model.decision import Eviction, Reason, Steer, Wanted
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationPlan
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep
from balancerd.ports import Kernel

LEAST_SECONDS: Final = 60.0
"""So long the other one stays at least."""

BREAK_EVENS: Final = 2.0
"""And so many times as long as a move takes to pay for itself."""

RETURN_SECONDS: Final = 600.0
"""Threads that must be moved again so soon have not stayed where they were moved."""


class Owners:
    """The book. Mutated only by the engine, after the facts."""

    def __init__(self) -> None:
        self._memory = Holds()
        self._threads = Holds()
        self._rested_at: dict[ProcessId, float] = {}
        self._held: dict[ProcessId, SteerStep] = {}
        self._lock_seconds: dict[tuple[ProcessId, bool], float] = {}

    def memory_hold(self, process: ProcessId, now: float) -> Hold | None:
        """Return what holds the memory of a process at time `now`, or None."""
        return self._memory.find(process, now)

    def explain_hold(self, steer: Steer, now: float) -> tuple[Reason, str] | None:
        """Return why the threads of a process must stay where they are at time `now`, or None."""
        held = self._held.get(steer.process)
        if held is not None:
            return Reason.COOLDOWN, f"its threads are still held on node {held.target}"
        hold = self._threads.find(steer.process, now)
        return None if hold is None else (hold.reason, hold.tell(now))

    def is_pinned(self, steer: Steer) -> bool:
        """Return whether threads are held as they are to be."""
        step = self._held.get(steer.process)
        return (
            steer.pin
            and step is not None
            and step.kind is SteerKind.PIN
            and (step.policy, step.cpus) == (steer.policy, steer.cpus)
        )

    def releases(self, pinned: AbstractSet[ProcessId]) -> tuple[SteerStep, ...]:
        """Return the steps that let all threads go that are held, but for processes that go on being `pinned`."""
        return tuple(
            replace(step, kind=SteerKind.RELEASE) for process, step in self._held.items() if process not in pinned
        )

    def expect(self, wanted: Iterable[Wanted]) -> None:
        """Take note of how long it takes until what is wanted pays, for the case that it is done."""
        self._lock_seconds = {
            (want.process, isinstance(want, Steer)): lock_seconds(want.gain_cores, want.cost_seconds)
            for want in wanted
            if not isinstance(want, Eviction)
        }

    def note_memory(self, process: ProcessId, now: float) -> None:
        """Take note that memory of a process was moved."""
        until = now + self._lock_seconds.get((process, False), LEAST_SECONDS)
        self._threads.rest(process, Reason.MEMORY_MOVED, "", until)

    def note(self, outcome: SteerOutcome, now: float) -> None:
        """Take note of what one step did with threads."""
        step, process = outcome.step, outcome.step.process
        if outcome.stopped_by is Reason.OBSERVE_MODE:
            return
        before = self._held.pop(process, None)
        if outcome.held_threads:
            self._held[process] = before or step
        if step.kind is SteerKind.RELEASE:
            if before is not None and before.kind is SteerKind.PIN:
                self._threads.rest(process, Reason.COOLDOWN, "its threads were let go", now + LEAST_SECONDS)
        elif outcome.steered_threads:
            told = f"{outcome.steered_threads} to node {step.target} by policy {step.policy}"
            seconds = self._lock_seconds.get((process, True), LEAST_SECONDS)
            self._memory.rest(process, Reason.THREADS_MOVED, told, now + seconds)
            if step.kind is SteerKind.KICK:
                self._note_kick(process, told, now)
        elif outcome.stopped_by is not None:
            self._threads.strike(process, outcome.stopped_by, outcome.detail, now, LEAST_SECONDS)
        else:
            self._threads.rest(process, Reason.COOLDOWN, "its threads were there already", now + LEAST_SECONDS)

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is known of processes that are gone; of threads that are held the kernel is told to let go."""
        self._memory.forget_all_but(alive)
        self._threads.forget_all_but(alive)
        for process in self._rested_at.keys() - alive:
            del self._rested_at[process]

    def _note_kick(self, process: ProcessId, told: str, now: float) -> None:
        """Leave its threads alone for a while, and longer each time that they had to be moved again soon after."""
        if now - self._rested_at.get(process, -math.inf) > RETURN_SECONDS:
            self._threads.forgive_one(process, Reason.THREADS_RETURNED)
        self._threads.strike(process, Reason.THREADS_RETURNED, told, now, LEAST_SECONDS)
        hold = self._threads.find(process, now)
        self._rested_at[process] = now if hold is None else hold.until


def step_of(steer: Steer) -> SteerStep:
    """Return the step that does what is wanted."""
    return SteerStep(
        policy=steer.policy,
        process=steer.process,
        target=steer.target,
        cpus=steer.cpus,
        kind=SteerKind.PIN if steer.pin else SteerKind.KICK,
        own_affinity=steer.own_affinity,
        reason=steer.reason,
    )


def lock_seconds(gain_cores: float, cost_seconds: float) -> float:
    """Return how long the other one stays after a move that costs and wins so much: an hour at most."""
    pays_after = cost_seconds / gain_cores if gain_cores > 0 else 0.0
    return min(max(LEAST_SECONDS, BREAK_EVENS * pays_after), LONGEST_HOLD_SECONDS)


def steer_all(
    kernel: Kernel, plan: MigrationPlan, owners: Owners, now: Callable[[], float], should_stop: Callable[[], bool]
) -> tuple[SteerOutcome, ...]:
    """Carry out the steps about threads, unless a stop was asked for: then everything is given back anyway."""
    outcomes: list[SteerOutcome] = []
    for step in plan.steers:
        if should_stop():
            break
        outcome = kernel.steer(step)
        owners.note(outcome, now())
        outcomes.append(outcome)
    return tuple(outcomes)
