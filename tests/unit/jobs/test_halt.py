"""Jobs while an operator has paused everything."""

from balancerd.jobs.record import JobState, MoveRequest
from balancerd.model.decision import Reason
from tests.unit.fakes import N0, N1
from tests.unit.jobs.machine import World

TO_N1 = MoveRequest(pid=100, targets=frozenset({N1}), sources=frozenset({N0}))


def steps(world: World, count: int = 20) -> None:
    for _ in range(count):
        world.step()


def test_a_job_handed_in_during_a_pause_waits_for_its_end() -> None:
    world = World(halted=True)
    world.add(100, *[0] * 600)
    job = world.jobs.submit(TO_N1)
    steps(world)
    assert world.job(job.id).state is JobState.QUEUED
    assert world.kernel.steps == []
    world.halted = False
    assert world.wait(job.id).state is JobState.DONE


def test_a_job_under_way_rests_and_goes_on_where_it_was() -> None:
    world = World()
    memory = world.add(100, *[0] * 600)
    job = world.jobs.submit(TO_N1)
    world.step()
    moved = memory.nodes()[1]
    assert 0 < moved < 600
    world.halted = True
    steps(world)
    told = world.job(job.id)
    assert (told.state, told.waiting_for, memory.nodes()[1]) == (JobState.RUNNING, Reason.HALTED, moved)
    world.halted = False
    assert world.wait(job.id).state is JobState.DONE
    assert memory.nodes() == {1: 600}


def test_a_resting_job_can_be_cancelled() -> None:
    world = World()
    world.add(100, *[0] * 600)
    job = world.jobs.submit(TO_N1)
    world.step()
    world.halted = True
    world.jobs.cancel(job.id)
    assert world.wait(job.id, 60.0).state is JobState.CANCELLED
