"""Listens in on the ports of the engine: everything that it is told, in order, as it was told it.

While nobody records, each call costs one look at a flag. While somebody does, it costs one entry in a list: the records
are frozen, so they are kept as they are, and made into lines later by whoever asks for them. It must not know lines.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from balancerd.model.access import Accesses
from balancerd.model.decision import Skip
from balancerd.model.heat import Heats
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationStep,
    RunsNow,
    VerifyRequest,
    WholeMove,
)
from balancerd.model.report import TickReport
from balancerd.model.sample import SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerOutcome, SteerStep
from balancerd.ports import AccessWatch, Clock, HeatWatch, Kernel, SurveyScope

T = TypeVar("T")


class Failure(NamedTuple):
    """In the place of an answer: the port raised an exception of this class."""

    error: str


class Event(NamedTuple):
    """One thing that the engine was told, or that somebody told it to do: `kind` is a key of `records.KINDS`."""

    kind: str
    question: object = None
    answer: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTick:
    """One tick, and what came before it since the one before. Without a report it failed, with an exception.

    `before` is the report of the tick before, None at the first tick of all.
    """

    events: tuple[Event, ...]
    report: TickReport | None
    failed: str | None = None
    before: TickReport | None = None


class Listener(Protocol):
    """Takes ticks, and must neither wait nor raise."""

    @property
    def is_listening(self) -> bool:
        """Whether it takes any."""
        ...

    def offer(self, tick: RawTick) -> None:
        """Take a tick."""
        ...

    def keep_time(self) -> None:
        """Stop listening when the time for it is over."""
        ...


class TickEngine(Protocol):
    """What the daemon's loop asks of an engine."""

    def tick(self) -> TickReport:
        """Run one tick."""
        ...

    def note_moving(self, cpu_seconds: float) -> None:
        """Take note of CPU time that is not observing's."""
        ...

    def due_at(self, began_at: float, regular_at: float) -> float:
        """Return when the next tick is due."""
        ...

    def next_tick_at(self, due_at: float) -> float:
        """Return when the next tick may begin."""
        ...


class Tap:
    """Collects what passes through its ports. `should_stop` and `claimed` are asked as the engine asks them."""

    def __init__(
        self, *, should_stop: Callable[[], bool], claimed: Callable[[], frozenset[ProcessId]] = frozenset
    ) -> None:
        self.raw_should_stop = should_stop
        self._claimed = claimed
        self._events: list[Event] | None = None
        self._begun = 0

    @property
    def is_open(self) -> bool:
        """Whether anything is collected."""
        return self._events is not None

    def open(self) -> None:
        """Collect from now on."""
        self._events, self._begun = [], 0

    def close(self) -> tuple[Event, ...]:
        """Collect no more; return what was collected."""
        events, self._events = self._events, None
        return tuple(events or ())

    def note(self, kind: str, question: object = None, answer: object = None) -> None:
        """Take note of one thing."""
        if self._events is not None:
            self._events.append(Event(kind, question, answer))

    def ask(self, kind: str, question: object, call: Callable[[], T]) -> T:
        """Return what `call` returns, and take note of it, or of what it raises."""
        try:
            answer = call()
        except Exception as error:
            self.note(kind, question, Failure(type(error).__name__))
            raise
        self.note(kind, question, answer)
        return answer

    def should_stop(self) -> bool:
        """Ask, for the engine."""
        return self.ask("stop", None, self.raw_should_stop)

    def claimed(self) -> frozenset[ProcessId]:
        """Ask, for the engine."""
        return self.ask("claimed", None, self._claimed)

    def begin(self, step: MigrationStep) -> int:
        """Take note of a migration's beginning; return its number in this tick."""
        self._begun += 1
        self.note("begin", step, self._begun)
        return self._begun


class TapClock:
    """A Clock that is listened to."""

    def __init__(self, clock: Clock, tap: Tap) -> None:
        self._clock = clock
        self._tap = tap

    def now(self) -> float:
        """Return what the clock says."""
        return self._tap.ask("now", None, self._clock.now)

    def cpu_seconds(self) -> float:
        """Return what the clock says."""
        return self._tap.ask("cpu", None, self._clock.cpu_seconds)

    def wait_until(self, deadline: float) -> None:
        """Wait."""
        self._tap.note("wait", deadline)
        self._clock.wait_until(deadline)


class TapKernel:
    """A Kernel that is listened to. It asks `should_stop` by itself, past the tap: replay has no use for that."""

    def __init__(self, kernel: Kernel, tap: Tap) -> None:
        self._kernel = kernel
        self._tap = tap

    @property
    def mode(self) -> str:
        """Return the kernel's."""
        return self._kernel.mode

    def survey(self, scope: SurveyScope) -> Survey:
        """Survey."""
        return self._tap.ask("survey", scope, lambda: self._kernel.survey(scope))

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """Sample."""
        return self._tap.ask("sample", requests, lambda: self._kernel.sample(requests))

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Verify."""
        return self._tap.ask("verify", request, lambda: self._kernel.verify(request))

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Steer."""
        return self._tap.ask("steer", step, lambda: self._kernel.steer(step))

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Evict."""
        del should_stop
        return self._tap.ask("evict", step, lambda: self._kernel.evict(step, self._tap.raw_should_stop))

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Migrate without telling of rests."""
        del should_stop
        number = self._tap.begin(step)
        return self._tap.ask("end", number, lambda: self._kernel.migrate(step, self._tap.raw_should_stop))

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        """Migrate, and tell of each rest."""
        del should_stop
        work = self._kernel.begin_migration(step, self._tap.raw_should_stop)
        return self._follow(step, work) if self._tap.is_open else work

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        """Move a whole process, which no tick does."""
        return self._kernel.migrate_whole(process, target_of)

    def _follow(
        self, step: MigrationStep, work: Generator[float, None, MigrationOutcome]
    ) -> Generator[float, None, MigrationOutcome]:
        number = self._tap.begin(step)
        try:
            while True:
                until = next(work)
                self._tap.note("rest", number, until)
                yield until
        except StopIteration as ended:
            outcome: MigrationOutcome = ended.value
            self._tap.note("end", number, outcome)
            return outcome
        except Exception as error:
            self._tap.note("end", number, Failure(type(error).__name__))
            raise
        finally:
            work.close()


class TapAccessWatch:
    """An AccessWatch that is listened to."""

    def __init__(self, watch: AccessWatch, tap: Tap) -> None:
        self._watch = watch
        self._tap = tap

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        """Read."""
        asked = tuple(processes)
        return self._tap.ask("accesses", asked, lambda: self._watch.read(asked))


class TapHeatWatch:
    """A HeatWatch that is listened to."""

    def __init__(self, watch: HeatWatch, tap: Tap) -> None:
        self._watch = watch
        self._tap = tap

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        """Read."""
        return self._tap.ask("heats", tuple(asked), lambda: self._watch.read(asked, others))


class TapEngine:
    """An engine whose ports are tapped, as the daemon's loop sees it. Hands each tick to `listener`, if it listens.

    What the listener's own work takes is no more observing than moving is.
    """

    def __init__(self, engine: TickEngine, tap: Tap, listener: Listener) -> None:
        self._engine = engine
        self._tap = tap
        self._listener = listener
        self._last: TickReport | None = None

    def note_moving(self, cpu_seconds: float) -> None:
        """Take note of CPU time that is not observing's."""
        self._listener.keep_time()
        self._tap.note("moving", cpu_seconds)
        self._engine.note_moving(cpu_seconds)

    def due_at(self, began_at: float, regular_at: float) -> float:
        """Return when the next tick is due."""
        return self._engine.due_at(began_at, regular_at)

    def next_tick_at(self, due_at: float) -> float:
        """Return when the next tick may begin."""
        self._tap.note("next", due_at)
        return self._engine.next_tick_at(due_at)

    def tick(self) -> TickReport:
        """Run one tick; whatever it raises is handed on as well."""
        if not self._listener.is_listening:
            self._tap.close()
            self._last = self._engine.tick()
            return self._last
        if not self._tap.is_open:
            self._tap.open()
        self._tap.note("tick")
        try:
            report = self._engine.tick()
        except Exception as error:
            self._hand_over(None, type(error).__name__)
            raise
        self._hand_over(report, None)
        self._last = report
        return report

    def _hand_over(self, report: TickReport | None, failed: str | None) -> None:
        events = self._tap.close()
        self._tap.open()
        self._listener.offer(RawTick(events=events, report=report, failed=failed, before=self._last))
