"""The ports of the engine, answered from a trace as they were answered when it was recorded.

Owns which record answers which question: one for the very same, or one that says as much. What none answers is told as
not known, with a Reason, and counted: nothing is made up. Nothing reacts, either: pages that another configuration
moves are told to lie where they lay.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from balancerd.model.access import Accesses
from balancerd.model.decision import Reason, Skip
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
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PAGE_BYTES, PlacementSample, SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerOutcome, SteerStep, nothing_steered
from balancerd.model.untouched import nothing_evicted, nothing_moved, stayed_whole
from balancerd.ports import SurveyScope
from balancerd.trace.stage import ReplayedError, Stage, answer_of
from balancerd.trace.tap import Event

BY: Final = "replay"
NOT_RECORDED: Final = "nobody asked when it was recorded"


class ReplayClock:
    """A Clock that says what the clock said."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def now(self) -> float:
        """Return the recorded time."""
        return float(self._stage.light("now"))

    def cpu_seconds(self) -> float:
        """Return the recorded CPU time."""
        return float(self._stage.light("cpu"))

    def wait_until(self, deadline: float) -> None:
        """Wait for nothing."""
        self._stage.wait(deadline)


class ReplayKernel:
    """A Kernel that answers what the kernel answered."""

    mode = "enforce"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def survey(self, scope: SurveyScope) -> Survey:
        """Return the recorded survey. Raises ReplayedError where none was made."""
        self._stage.asked["surveys as wide"] += 1
        event = self._stage.find("survey", _any)
        if event is None:
            raise ReplayedError("no survey was made")
        survey: Survey = answer_of(event)
        if isinstance(event.question, SurveyScope) and _is_wider(scope, event.question):
            self._stage.miss("surveys as wide")
        return survey

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """Return what was found then: in this tick, or before it and not told yet."""
        stage = self._stage
        stage.asked["samples"] += len(requests)
        same = stage.find("sample", lambda event: event.question == requests)
        if same is not None:
            sampling: Sampling = answer_of(same)
            for placement in sampling.placements:
                stage.tell(placement.process)
            return sampling
        found = [self._sample(request) for request in requests]
        return Sampling(
            placements=tuple(each for each in found if isinstance(each, PlacementSample)),
            missed=tuple(each for each in found if isinstance(each, Skip)),
        )

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Return where pages were then, for the very same pages."""
        self._stage.asked["verifications"] += 1
        event = self._stage.find("verify", lambda event: event.question == request)
        if event is None:
            self._stage.miss("verifications")
            return Skip(by=BY, process=request.process, reason=Reason.NOT_RECORDED, detail=NOT_RECORDED)
        answer: RunsNow | Skip = answer_of(event)
        return answer

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Return what the step came to then."""
        work = self.begin_migration(step, should_stop)
        while True:
            try:
                next(work)
            except StopIteration as ended:
                outcome: MigrationOutcome = ended.value
                return outcome

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        """Rest as it rested then, and return what the step came to; nothing for one that was not made."""
        del should_stop
        self._stage.asked["migrations"] += 1
        begun = self._stage.find("begin", lambda event: self._answers(event, step))
        if begun is None or not isinstance(begun.answer, int):
            self._stage.miss("migrations")
            return nothing_moved(step, Reason.NOT_RECORDED, NOT_RECORDED)
        while (rest := self._stage.rest(begun.answer)) is not None:
            yield float(answer_of(rest))
        ended = self._stage.ended(begun.answer)
        if ended is None:
            raise ReplayedError("the tick ended before the step")
        return MigrationOutcome(step=step, **answer_of(ended))

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Return what the step came to; nothing for one that was not made."""
        del should_stop
        self._stage.asked["evictions"] += 1
        wanted = replace(step, budget_seconds=0.0)
        event = self._stage.find("evict", lambda event: _without_seconds(event.question) == wanted)
        if event is None:
            self._stage.miss("evictions")
            return nothing_evicted(step, Reason.NOT_RECORDED, NOT_RECORDED)
        return EvictionOutcome(step=step, **answer_of(event))

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Return what became of the threads; nothing for a step that was not made."""
        self._stage.asked["thread moves"] += 1
        event = self._stage.find("steer", lambda event: event.question == step)
        if event is None:
            self._stage.miss("thread moves")
            return nothing_steered(step, Reason.NOT_RECORDED, NOT_RECORDED)
        return SteerOutcome(step=step, **answer_of(event))

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        """Move nothing: no tick does."""
        return stayed_whole(process, target_of, Reason.NOT_RECORDED, NOT_RECORDED)

    def _sample(self, request: SampleRequest) -> PlacementSample | Skip:
        stage, process = self._stage, request.process
        for event in stage.samplings():
            sampling: Sampling = answer_of(event)
            answers: tuple[PlacementSample | Skip, ...] = (*sampling.placements, *sampling.missed)
            for answer in answers:
                if answer.process == process and _is_enough(answer, request, event.question):
                    stage.tell(process)
                    return answer
        older = stage.older(process)
        if older is not None and _is_enough(older, request, ()):
            stage.tell(process)
            stage.asked["samples of ticks before"] += 1
            return older
        stage.miss("samples")
        return Skip(by=BY, process=process, reason=Reason.NOT_RECORDED, detail=NOT_RECORDED)

    def _answers(self, event: Event, step: MigrationStep) -> bool:
        """Return whether a step that was made says what this one would have come to.

        It wants the same memory moved in the same way, and has the same budget, or neither budget was used up.
        """
        made = event.question
        if not isinstance(made, MigrationStep) or not isinstance(event.answer, int):
            return False
        like = replace(made, budget_bytes=step.budget_bytes, budget_seconds=step.budget_seconds, move_id=step.move_id)
        if like != step:
            return False
        if made.budget_bytes == step.budget_bytes:
            return True
        ended = self._stage.ended(event.answer, tell=False)
        if ended is None or not isinstance(ended.answer, dict):
            return False
        return int(ended.answer["submitted_pages"]) * PAGE_BYTES < min(made.budget_bytes, step.budget_bytes)


class ReplayAccessWatch:
    """An AccessWatch that knows what was seen then."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        """Return the recorded windows of these processes; of those that nobody watched, that it is not known."""
        asked = tuple(processes)
        self._stage.asked["watched processes"] += len(asked)
        event = self._stage.find("accesses", _any)
        told: Accesses = Accesses() if event is None else answer_of(event)
        if event is not None and event.question == asked:
            return told
        windows = {process: told.windows[process] for process in asked if process in told.windows}
        missed = {process: told.missed[process] for process in asked if process in told.missed}
        for process in asked:
            if process not in windows and process not in missed:
                self._stage.miss("watched processes")
                missed[process] = Skip(by=BY, process=process, reason=Reason.NOT_RECORDED, detail=NOT_RECORDED)
        return Accesses(windows=windows, missed=missed)


class ReplayHeatWatch:
    """A HeatWatch that knows what was known then."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        """Return what was known."""
        del asked, others
        event = self._stage.find("heats", _any)
        heats: Heats = Heats() if event is None else answer_of(event)
        return heats


def _any(_event: Event) -> bool:
    return True


def _is_enough(answer: PlacementSample | Skip, request: SampleRequest, asked: object) -> bool:
    """Return whether an answer to another request answers this one: a test for one home says nothing of another."""
    if isinstance(answer, Skip):
        return True
    if request.read_mempolicies and (answer.mempolicies_at is None or not answer.complete):
        return False
    if answer.method is not PlacementMethod.TEST:
        return True
    requests = asked if isinstance(asked, tuple) else ()
    return request.home is not None and any(r.process == request.process and r.home == request.home for r in requests)


READS = ("read_exe", "read_cmdline", "read_idle", "read_workload_pressure")


def _is_wider(scope: SurveyScope, recorded: SurveyScope) -> bool:
    """Return whether a survey of that scope would have read what the recorded one did not."""
    return (
        scope.min_rss_bytes < recorded.min_rss_bytes
        or scope.min_cpu_cores < recorded.min_cpu_cores
        or any(getattr(scope, name) > getattr(recorded, name) for name in READS)
    )


def _without_seconds(step: object) -> object:
    return replace(step, budget_seconds=0.0) if isinstance(step, EvictionStep) else step
