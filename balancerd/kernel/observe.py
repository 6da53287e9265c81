"""The mode "observe": everything is looked at and decided as ever, and nothing is moved."""

from collections.abc import Callable, Generator, Mapping

from balancerd.model.decision import Reason, Skip
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
from balancerd.model.sample import SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, nothing_steered
from balancerd.model.untouched import nothing_evicted, nothing_moved, stayed_whole
from balancerd.ports import Kernel, SurveyScope


class ObserveKernel:
    """A Kernel that looks through the eyes of another one and has no hands."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @property
    def mode(self) -> str:
        """Return "observe"."""
        return "observe"

    def survey(self, scope: SurveyScope) -> Survey:
        """Survey as the other kernel does."""
        return self._kernel.survey(scope)

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """Sample as the other kernel does."""
        return self._kernel.sample(requests)

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Submit nothing; the outcome says that it is the mode's doing."""
        del should_stop
        return nothing_moved(step, Reason.OBSERVE_MODE)

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        """Submit nothing, and wait for nothing."""
        yield from ()
        return self.migrate(step, should_stop)

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Advise nothing; the outcome says that it is the mode's doing."""
        del should_stop
        return nothing_evicted(step, Reason.OBSERVE_MODE)

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Move no thread; those that are held, since the mode was another one before, are let go."""
        if step.kind is SteerKind.RELEASE:
            return self._kernel.steer(step)
        return nothing_steered(step, Reason.OBSERVE_MODE)

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Ask as the other kernel does: asking moves nothing."""
        return self._kernel.verify(request)

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        """Move nothing; the outcome says that it is the mode's doing."""
        return stayed_whole(process, target_of, Reason.OBSERVE_MODE)
