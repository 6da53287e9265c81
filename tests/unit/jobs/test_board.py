"""The board: who is taken up, in which order, how many, and what is left when things go wrong."""

import threading

import pytest

from balancerd.jobs.board import MOST_QUEUED, MOST_REMEMBERED, MOST_RUNNING
from balancerd.jobs.record import EvictRequest, JobRequest, JobState, MoveRequest, UndoRequest
from balancerd.jobs.refusal import Refusal, Refused
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES
from tests.unit.fakes import N0, N1, N2
from tests.unit.jobs.machine import World
from tests.unit.reports import a_report, an_outcome


def move(pid: int = 100, *to: int) -> MoveRequest:
    return MoveRequest(pid=pid, targets=frozenset(NodeId(n) for n in to or (1,)))


@pytest.mark.parametrize(
    ("request_", "refusal", "message"),
    [
        (move(99), Refusal.NOT_FOUND, "there is no process 99"),
        (EvictRequest(pid=99), Refusal.NOT_FOUND, "there is no process 99"),
        (move(1), Refusal.INVALID, "process 1: the daemon does not move itself"),
        (move(2), Refusal.INVALID, "process 2: a kernel thread has no memory of its own"),
        (move(100, 1, 7, 8), Refusal.INVALID, '"to": node 7-8 is not online'),
        (move(100, 3), Refusal.INVALID, '"to": node 3 has no memory'),
        (
            MoveRequest(pid=100, targets=frozenset({N1}), sources=frozenset({NodeId(9)})),
            Refusal.INVALID,
            '"from": node 9 is not online',
        ),
        (
            MoveRequest(pid=100, targets=frozenset({N1}), sources=frozenset({N1})),
            Refusal.INVALID,
            "nothing would move: every node would keep what it has",
        ),
        (move(100, 0, 1, 2), Refusal.INVALID, "nothing would move: every node would keep what it has"),
        (UndoRequest(move_id=5), Refusal.NOT_FOUND, "there is no move 5, or it is forgotten"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(request_: JobRequest, refusal: Refusal, message: str) -> None:
    world = World(memoryless=(3,))
    world.add(100, 0)
    world.add(1, 0)
    world.add(2, kernel_thread=True)
    with pytest.raises(Refused) as refused:
        world.jobs.submit(request_)
    assert (refused.value.refusal, str(refused.value)) == (refusal, message)
    assert world.jobs.all() == ()


def test_a_move_of_a_process_that_is_gone_cannot_be_undone() -> None:
    world = World()
    world.add(100, 0)
    world.finish(move())
    world.remove(100)
    with pytest.raises(Refused, match="there is no process 100"):
        world.jobs.submit(UndoRequest(move_id=1))
    world.add(100, 0, id=world.processes[100].id if 100 in world.processes else _other_id())
    with pytest.raises(Refused, match="the process of move 1 is gone: 100 is another one now"):
        world.jobs.submit(UndoRequest(move_id=1))


def _other_id() -> object:
    from balancerd.model.ids import ProcessId

    return ProcessId(100, 77)


def test_submitting_wakes_the_loop_and_claims_the_process_until_the_job_has_ended() -> None:
    world = World()
    world.add(100, 0)
    job = world.jobs.submit(move())
    assert (job.state, world.wakes) == (JobState.QUEUED, 1)
    assert world.jobs.claimed() == {job.process}
    with pytest.raises(Refused, match="process 100 has job 1 already") as refused:
        world.jobs.submit(EvictRequest(pid=100))
    assert refused.value.refusal is Refusal.CONFLICT
    world.wait(job.id)
    assert world.jobs.claimed() == frozenset()
    assert world.jobs.submit(EvictRequest(pid=100)).id == 2


def test_so_many_run_so_many_wait_and_the_next_one_is_refused() -> None:
    world = World()
    pids = range(100, 100 + MOST_RUNNING + MOST_QUEUED)
    for pid in (*pids, 999):
        world.add(pid, *[0] * 500)
    for pid in pids:
        if pid - 100 == MOST_RUNNING:
            world.step()
        world.jobs.submit(move(pid))
    assert world.running() == list(range(1, MOST_RUNNING + 1))
    with pytest.raises(Refused, match="16 jobs are waiting already"):
        world.jobs.submit(move(999))
    for job in world.jobs.all():
        assert world.wait(job.id).state is JobState.DONE


def test_running_jobs_take_turns() -> None:
    world = World()
    for pid in (100, 200, 300):
        world.add(pid, *[0] * 600)
        world.jobs.submit(move(pid))
    for _ in range(6):
        world.step()
    assert [step.process.pid for step in world.kernel.steps] == [100, 200, 300] * 2


def test_a_slice_ends_before_the_next_tick_is_due() -> None:
    world = World()
    world.add(100, *[0] * 600)
    world.jobs.submit(move())
    world.jobs.work(world.clock.now() + 0.1)
    assert [step.budget_seconds for step in world.kernel.steps] == [pytest.approx(0.1)]


def test_nothing_to_do_needs_no_call() -> None:
    assert World().jobs.work(1e9) is None


def test_only_the_latest_that_ended_are_remembered() -> None:
    world = World()
    world.add(100, 0)
    for _ in range(MOST_REMEMBERED + 3):
        world.finish(move())
    assert [job.id for job in world.jobs.all()] == list(range(4, MOST_REMEMBERED + 4))
    assert world.jobs.find(3) is None


def test_cancelling_ends_a_running_job_after_the_call_at_hand_with_its_account() -> None:
    world = World()
    world.add(100, *[0] * 600)
    job = world.jobs.submit(move())
    pages = 0

    def on_page() -> None:
        nonlocal pages
        pages += 1
        if pages == 100:
            world.jobs.cancel(job.id)

    world.kernel.on_page = on_page
    ended = world.wait(job.id)
    assert (ended.state, ended.reason, ended.cancel_requested) == (JobState.CANCELLED, None, True)
    assert ended.account.pages == {PageStatus.MOVED: 100}
    assert ended.account.submitted_pages == 100
    assert len(world.kernel.steps) == 1


def test_cancelling_a_waiting_or_queued_job_ends_it_at_once() -> None:
    world = World()
    world.add(100, 0)
    world.kernel.stopped_by = [Reason.STALLED] * 4
    job = world.jobs.submit(move())
    for _ in range(3):
        world.step()
    now = world.clock.now()
    assert world.jobs.work(now + 60.0) == now + 8.0
    cancelled = world.jobs.cancel(job.id)
    assert cancelled is not None
    assert cancelled.cancel_requested
    world.jobs.work(now + 60.0)
    assert (world.job(job.id).state, world.clock.now()) == (JobState.CANCELLED, now)
    queued = world.jobs.submit(move())
    world.jobs.cancel(queued.id)
    world.step()
    assert (world.job(queued.id).state, world.job(queued.id).started_at) == (JobState.CANCELLED, None)
    assert world.kernel.steps[4:] == []


def test_cancelling_what_has_ended_or_never_was_changes_nothing() -> None:
    world = World()
    world.add(100, 0)
    job = world.finish(move())
    assert world.jobs.cancel(job.id) == job
    assert world.jobs.cancel(99) is None


def test_when_the_daemon_stops_every_job_ends_and_tells_why() -> None:
    world = World()
    for pid in range(100, 106):
        world.add(pid, *[0] * 600)
        world.jobs.submit(move(pid))
    world.step()
    world.stop = True
    world.jobs.stop()
    assert [(job.state, job.reason) for job in world.ended] == [(JobState.CANCELLED, Reason.STOPPING)] * 6
    assert world.ended[0].account.moved_bytes == 256 * PAGE_BYTES
    assert world.jobs.claimed() == frozenset()
    moved = world.engine.moves.find(1)
    assert moved is not None
    assert moved.ended_at is not None


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (ValueError("no sums"), None, "ValueError: no sums"),
        (PermissionError("not yours"), Reason.NO_ACCESS, "not yours"),
    ],
)
def test_what_the_kernel_raises_ends_the_job_and_not_the_daemon(
    error: Exception, reason: Reason | None, detail: str
) -> None:
    world = World()
    world.add(100, 0)
    world.add(200, 0)
    world.kernel.raises = [error]
    failed, fine = world.jobs.submit(move()), world.jobs.submit(move(200))
    ended = world.wait(failed.id)
    assert (ended.state, ended.reason, ended.detail) == (JobState.FAILED, reason, detail)
    assert world.wait(fine.id).state is JobState.DONE


def test_in_observe_mode_a_job_ends_with_that_and_moves_nothing() -> None:
    world = World()
    memory = world.add(100, 0)
    world.kernel.mode = "observe"
    job = world.finish(move())
    assert (job.state, job.reason) == (JobState.FAILED, Reason.OBSERVE_MODE)
    assert memory.nodes() == {0: 1}


def test_the_next_report_holds_each_move_once_and_only_once() -> None:
    world = World()
    world.add(100, *[0] * 600)
    world.add(200, *[2] * 300)
    world.add(300, *[2] * 10)
    for request in (move(), move(200), EvictRequest(pid=300)):
        world.jobs.submit(request)
    for job in world.jobs.all():
        world.wait(job.id)
    ticked = a_report(outcomes=(an_outcome(world.processes[100].id),))
    report = world.jobs.add_to(ticked)
    assert report.outcomes[0] == ticked.outcomes[0]
    moved = {outcome.step.process.pid: outcome for outcome in report.outcomes[1:]}
    assert {pid: outcome.pages for pid, outcome in moved.items()} == {
        100: {PageStatus.MOVED: 600},
        200: {PageStatus.MOVED: 300},
    }
    assert len(moved[100].call_seconds) == 2 * 3
    assert moved[100].moved_from == {N0: 600}
    assert moved[100].resume_at is None
    assert moved[100].verified is not None
    assert moved[100].verified.asked_pages == 6
    (eviction,) = report.evictions
    assert (eviction.step.process.pid, eviction.evicted_pages) == (300, 10)
    assert world.jobs.add_to(ticked) is ticked


def test_recent_moves_can_be_read_from_any_thread_while_the_loop_works() -> None:
    world = World()
    for pid in range(100, 140):
        world.add(pid, *[0] * 20)
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(len(world.jobs.moves()) + len(world.jobs.all()) + len(world.jobs.claimed()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for pid in range(100, 140):
            world.finish(move(pid, 2))
    finally:
        stop.set()
        reader.join()
    assert [each.target for each in world.jobs.moves()] == [N2] * 40
    assert max(seen) <= 40 + 40 + 1


def test_progress_is_told_while_it_runs() -> None:
    world = World()
    world.add(100, *[0] * 1000)
    job = world.jobs.submit(move())
    assert (job.total_bytes, job.seconds(world.clock.now()), job.eta_seconds(world.clock.now())) == (None, None, None)
    world.step()
    now = world.clock.now()
    running = world.job(job.id)
    assert (running.total_bytes, running.done_bytes) == (1000 * PAGE_BYTES, 256 * PAGE_BYTES)
    assert running.rate_bytes_per_second(now) == 256 * PAGE_BYTES
    assert running.eta_seconds(now) == 744 / 256
    assert world.wait(job.id).eta_seconds(world.clock.now()) is None
