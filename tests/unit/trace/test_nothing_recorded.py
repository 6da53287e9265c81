"""What an engine hears that asks for what nobody asked when the world was recorded: that it is not known, counted."""

from typing import Any

import pytest

from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.migration import EvictionStep, VerifyRequest
from balancerd.model.steering import SteerKind, SteerStep
from balancerd.ports import SurveyScope
from balancerd.trace.replay_ports import ReplayAccessWatch, ReplayKernel
from balancerd.trace.stage import ReplayedError, Stage
from balancerd.trace.tap import Event, Failure
from tests.unit.reports import an_outcome

PROCESS = ProcessId(100, 7)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def kernel(stage: Stage) -> ReplayKernel:
    return ReplayKernel(stage)


def test_a_survey_that_was_not_made_ends_the_tick(kernel: ReplayKernel) -> None:
    with pytest.raises(ReplayedError, match="no survey was made"):
        kernel.survey(SurveyScope(min_rss_bytes=0, min_cpu_cores=0.0))


def test_pages_that_were_not_looked_at_are_not_known(kernel: ReplayKernel, stage: Stage) -> None:
    answer = kernel.verify(VerifyRequest(process=PROCESS, runs=(), asked_pages=1))
    assert isinstance(answer, Skip)
    assert (answer.process, answer.reason) == (PROCESS, Reason.NOT_RECORDED)
    assert (stage.missing["verifications"], stage.asked["verifications"]) == (1, 1)


def test_a_step_that_was_not_made_moves_nothing(kernel: ReplayKernel, stage: Stage) -> None:
    moved = kernel.migrate(an_outcome(PROCESS).step, lambda: False)
    assert (moved.stopped_by, moved.moved_pages, moved.submitted_pages) == (Reason.NOT_RECORDED, 0, 0)
    assert stage.missing["migrations"] == 1


def test_an_eviction_that_was_not_made_gives_nothing_back(kernel: ReplayKernel, stage: Stage) -> None:
    step = EvictionStep(
        policy="p", process=PROCESS, ranges=(), resume_at=0, budget_bytes=1, budget_seconds=1.0, reason=Reason.EVICT
    )
    evicted = kernel.evict(step, lambda: False)
    assert (evicted.stopped_by, evicted.evicted_pages) == (Reason.NOT_RECORDED, 0)
    assert stage.missing["evictions"] == 1


def test_threads_that_were_not_moved_stay(kernel: ReplayKernel, stage: Stage) -> None:
    step = SteerStep(policy="p", process=PROCESS, target=NodeId(0), cpus=frozenset({CpuId(0)}), kind=SteerKind.PIN)
    steered = kernel.steer(step)
    assert (steered.stopped_by, steered.threads) == (Reason.NOT_RECORDED, {})
    assert stage.missing["thread moves"] == 1


def test_no_tick_moves_a_process_whole(kernel: ReplayKernel) -> None:
    assert kernel.migrate_whole(PROCESS, {NodeId(0): NodeId(1)}).stopped_by is Reason.NOT_RECORDED


def test_accesses_that_nobody_watched_are_not_known(stage: Stage) -> None:
    told = ReplayAccessWatch(stage).read([PROCESS])
    assert told.windows == {}
    assert told.missed[PROCESS].reason is Reason.NOT_RECORDED
    assert stage.missing["watched processes"] == 1


@pytest.mark.parametrize("kind", ["now", "cpu", "stop"])
def test_what_failed_then_fails_again_and_the_answer_before_is_remembered(stage: Stage, kind: str) -> None:
    def event(answer: Any) -> Event:
        return Event(kind=kind, question=None, answer=answer)

    stage.set([event(5.0), event(Failure("OSError"))])
    assert stage.light(kind) == 5.0
    with pytest.raises(ReplayedError, match="OSError"):
        stage.light(kind)
    assert stage.light(kind) == 5.0
