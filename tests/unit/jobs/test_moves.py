"""Moves, whole moves, evictions and undo, page by page: what goes where, what stays, and why."""

import threading
from dataclasses import replace

import pytest

from balancerd.engine.budgets import Rates
from balancerd.jobs.record import Account, EvictRequest, JobState, MoveRequest, UndoRequest
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.migration import MigrationStep
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES, Mempolicy
from tests.unit.fakes import GIB, MIB, N0, N1, N2, N3
from tests.unit.jobs.machine import START, World, a_vma

BOUND = Mempolicy(mode="bind", nodes=frozenset({N0}))


def a_move(to: set[NodeId], frm: set[NodeId] | None = None, **options: bool) -> MoveRequest:
    return MoveRequest(pid=100, targets=frozenset(to), sources=None if frm is None else frozenset(frm), **options)


def check_sums(account: Account) -> None:
    assert account.submitted_pages == sum(account.pages.values())
    assert account.looked_pages == (
        account.on_target_pages + sum(account.passed_over.values()) + account.submitted_pages
    )


def test_without_sources_everything_goes_to_the_target_in_slices() -> None:
    world = World()
    memory = world.add(100, *[0] * 300, *[1] * 300, *[2] * 50, *[None] * 10)
    job = world.finish(a_move({N2}))
    assert (job.state, job.reason, job.detail) == (JobState.DONE, None, "")
    assert memory.nodes() == {2: 650, None: 10}
    assert job.target_of == {0: 2, 1: 2, 3: 2}
    assert (job.account.pages, job.account.moved_from) == ({PageStatus.MOVED: 600}, {0: 300, 1: 300})
    assert (job.account.on_target_pages, job.account.passed_over) == (50, {PageStatus.ABSENT: 10})
    assert (job.total_bytes, job.done_bytes) == (600 * PAGE_BYTES, 600 * PAGE_BYTES)
    assert len(world.kernel.steps) == 3  # 256 pages each
    assert {step.resume_at for step in world.kernel.steps} == {0, START + 256 * PAGE_BYTES, START + 512 * PAGE_BYTES}
    assert (job.account.calls, job.account.longest_call_seconds) == (6, 0.002)
    assert job.account.verified is not None
    assert (job.account.verified.asked_pages, job.account.throttled_seconds) == (6, {"duty": 1.5})
    check_sums(job.account)
    assert world.ended == [job]


def test_a_step_says_that_an_operator_asked_and_is_part_of_a_move_that_can_be_undone() -> None:
    world = World()
    world.add(100, *[0] * 10)
    job = world.finish(a_move({N1}, move_all=True))
    (step,) = world.kernel.steps
    assert isinstance(step, MigrationStep)
    assert (step.policy, step.reason, step.move_all, step.move_id) == ("command", Reason.COMMAND, True, job.move_id)
    assert job.move_id is not None
    move = world.engine.moves.find(job.move_id)
    assert move is not None
    assert (move.moved_pages, move.move_all, move.ended_at is not None) == (10, True, True)


def test_set_to_set_keeps_the_relative_position_and_leaves_other_nodes_alone() -> None:
    world = World()
    memory = world.add(100, *[0, 1, 2, 3] * 100)
    job = world.finish(a_move({N2, N3}, {N0, N1}))
    assert memory.vmas[a_vma(0, 400)] == [2, 3, 2, 3] * 100
    assert job.account.on_target_pages == 200
    assert job.account.pages == {PageStatus.MOVED: 200}


def test_two_nodes_swap_and_no_page_moves_twice() -> None:
    world = World()
    memory = world.add(100, *[0, 1, 2] * 200)
    job = world.finish(MoveRequest(pid=100, sources=frozenset({N0, N1, N2}), targets=frozenset({N0, N1, N3})))
    assert memory.vmas[a_vma(0, 600)] == [0, 1, 3] * 200
    check_sums(job.account)
    memory = world.add(200, *[0, 1] * 300)
    world.finish(MoveRequest(pid=200, sources=frozenset({N0, N1}), targets=frozenset({N1, N2})))
    assert memory.vmas[a_vma(0, 600)] == [1, 2] * 300


def test_pages_that_refuse_are_counted_by_status_and_the_job_is_done() -> None:
    world = World()
    memory = world.add(100, *[0] * 20)
    memory.status_of = {START: PageStatus.SHARED, START + PAGE_BYTES: PageStatus.BUSY}
    job = world.finish(a_move({N1}))
    assert job.state is JobState.DONE
    assert job.account.pages == {PageStatus.MOVED: 18, PageStatus.SHARED: 1, PageStatus.BUSY: 1}
    check_sums(job.account)


@pytest.mark.parametrize(("ignore", "moved", "held"), [(False, 10, 7 * PAGE_BYTES), (True, 17, 0)])
def test_mempolicies_are_respected_unless_told_otherwise(ignore: bool, moved: int, held: int) -> None:
    world = World()
    memory = world.add(100, *[0] * 10)
    memory.vmas[a_vma(1, 8, BOUND)] = [*[0] * 7, 2]
    job = world.finish(a_move({N1}, {N0}, ignore_mempolicy=ignore))
    assert (job.account.moved_bytes, job.account.held_back_bytes) == (moved * PAGE_BYTES, held)
    assert job.state is JobState.DONE


def test_memory_that_is_all_bound_fails_with_the_mempolicy() -> None:
    world = World()
    world.add(100, 0, 0, mempolicy=BOUND)
    job = world.finish(a_move({N1}))
    assert (job.state, job.reason, job.account.held_back_bytes) == (JobState.FAILED, Reason.MEMPOLICY, 2 * PAGE_BYTES)
    assert world.kernel.steps == []


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("allowed", "detail"),
    [(frozenset({N0, N2}), "node 3 is not in its Mems_allowed 0,2"), (None, "its Mems_allowed could not be read")],
)
def test_the_cpuset_is_obeyed(allowed: frozenset[NodeId] | None, detail: str, whole: bool) -> None:
    world = World()
    world.add(100, 0, 1, mems_allowed=allowed)
    job = world.finish(a_move({N2, N3}, {N0, N1}, whole=whole))
    assert (job.state, job.reason, job.detail) == (JobState.FAILED, Reason.OUTSIDE_CPUSET, detail)


def test_a_full_target_is_left_out_the_others_get_theirs_and_the_job_says_so() -> None:
    world = World(free_bytes={3: GIB // 2})
    memory = world.add(100, *[0, 1] * 300)
    job = world.finish(a_move({N2, N3}, {N0, N1}))
    assert (job.state, job.reason, job.detail) == (JobState.FAILED, Reason.TARGET_FULL, "no room left on node 3")
    assert memory.nodes() == {2: 300, 1: 300}
    assert job.account.passed_over == {PageStatus.LEFT_ALONE: 300}
    check_sums(job.account)


def test_a_slice_takes_no_more_than_there_is_room() -> None:
    world = World()
    world.kernel.page_seconds = 0.0
    kept = int(0.1 * 8 * GIB) + 16 * MIB  # the reserve and the high watermark, see engine.room
    world.free_bytes = {1: kept + 3 * MIB}
    world.add(100, *[0] * 2000)
    world.jobs.submit(a_move({N1}))
    world.step()
    (step,) = world.kernel.steps
    assert step.budget_bytes == 3 * MIB


SLOW = 4 * MIB
"""A second; buckets hold 8 MiB."""


@pytest.mark.parametrize("slow", ["machine", "process", "node_pair"])
def test_every_bucket_holds_a_move_back_and_the_time_it_waits_is_told(slow: str) -> None:
    rates = {f"{name}_bytes_per_second": float(GIB) for name in ("machine", "process", "node_pair", "evict")}
    world = World(rates=Rates(**{**rates, f"{slow}_bytes_per_second": float(SLOW)}, interval_seconds=2.0))
    world.kernel.page_seconds = 0.0
    world.add(100, *[0] * 8192)  # 32 MiB
    began = world.clock.now()
    job = world.finish(a_move({N1}))
    assert job.account.moved_bytes == 32 * MIB
    assert world.clock.now() - began == pytest.approx((32 - 8) / 4, abs=0.8)
    cause = {"machine": "migration-budget", "process": "process-budget", "node_pair": "node-pair-budget"}[slow]
    assert job.account.throttled_seconds[cause] == pytest.approx((32 - 8) / 4, abs=0.8)


def test_work_never_waits_but_says_when_to_come_back() -> None:
    world = World(
        rates=Rates(
            machine_bytes_per_second=SLOW,
            process_bytes_per_second=GIB,
            node_pair_bytes_per_second=GIB,
            evict_bytes_per_second=GIB,
            interval_seconds=2.0,
        )
    )
    world.kernel.page_seconds = 0.0
    world.add(100, *[0] * 4096)
    job = world.jobs.submit(a_move({N1}))
    now = world.clock.now()
    assert world.jobs.work(now + 2.0) == now
    assert world.jobs.work(now + 2.0) == now + 0.25
    assert world.jobs.work(now + 2.0) == now + 0.25
    assert len(world.kernel.steps) == 1
    assert world.clock.now() == now
    assert world.job(job.id).waiting_for is Reason.MIGRATION_BUDGET


def test_pressure_is_waited_out_however_long_it_lasts() -> None:
    world = World()
    world.add(100, 0, 0)
    world.kernel.stopped_by = [Reason.PRESSURE] * 50
    job = world.finish(a_move({N1}))
    assert job.state is JobState.DONE
    assert job.account.throttled_seconds["pressure"] == pytest.approx(50.0)


@pytest.mark.parametrize("reason", [Reason.STALLED, Reason.NO_MEMORY, Reason.CHANGED])
def test_what_may_pass_is_tried_again_ever_later_and_then_given_up(reason: Reason) -> None:
    world = World()
    memory = world.add(100, 0, 0)
    world.kernel.stopped_by = [reason] * 4
    began = world.clock.now()
    assert world.finish(a_move({N1})).state is JobState.DONE
    assert world.clock.now() - began == pytest.approx(1 + 2 + 4 + 8, abs=0.1)
    memory.vmas[a_vma(0, 2)] = [0, 0]
    world.kernel.stopped_by = [reason] * 99
    job = world.finish(a_move({N1}))
    assert (job.state, job.reason) == (JobState.FAILED, reason)
    assert len(world.kernel.stopped_by) == 99 - 5


def test_a_slice_too_short_for_its_first_call_is_no_failure_but_a_job_that_never_gets_on_ends() -> None:
    world = World()
    world.add(100, 0, 0)
    world.kernel.idle_steps = 20
    job = world.finish(a_move({N1}))
    assert (job.state, job.account.moved_bytes) == (JobState.DONE, 2 * PAGE_BYTES)
    world.add(200, 0)
    world.kernel.idle_steps = 10_000
    stuck = world.finish(MoveRequest(pid=200, targets=frozenset({N1})))
    assert (stuck.state, stuck.detail) == (JobState.FAILED, "it did not get any further")
    assert len(world.kernel.steps) < 1000


@pytest.mark.parametrize("reason", [Reason.EXITED, Reason.NO_ACCESS, Reason.CALL_FAILED, Reason.OBSERVE_MODE])
def test_what_will_not_pass_ends_a_move_at_once(reason: Reason) -> None:
    world = World()
    world.add(100, 0, 0)
    world.kernel.stopped_by = [reason]
    job = world.finish(a_move({N1}))
    assert (job.state, job.reason, len(world.kernel.steps)) == (JobState.FAILED, reason, 1)


def test_a_process_that_exits_in_the_middle_ends_the_job_and_the_account_stays_whole() -> None:
    world = World()
    world.add(100, *[0] * 600)
    job = world.jobs.submit(a_move({N1}))
    world.step()
    world.remove(100)
    ended = world.wait(job.id)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.EXITED)
    assert ended.account.moved_bytes == 256 * PAGE_BYTES
    check_sums(ended.account)


def test_after_a_command_policies_leave_the_process_alone_for_a_while() -> None:
    world = World()
    world.add(100, 0, 0)
    job = world.finish(a_move({N1}))
    hold = world.engine.ledger.hold(job.process, world.clock.now())
    assert hold is not None
    assert (hold.reason, hold.detail) == (Reason.COOLDOWN, "moved to node 1 by an operator, move 1")


def test_undo_puts_every_page_back_where_it_came_from() -> None:
    world = World()
    before: list[int | None] = [0, 1, 2, 3] * 100
    memory = world.add(100, *before)
    moved = world.finish(a_move({N2}))
    assert memory.nodes() == {2: 400}
    job = world.finish(UndoRequest(move_id=moved.move_id or 0))
    assert (job.state, job.account.moved_bytes) == (JobState.DONE, 300 * PAGE_BYTES)
    assert memory.vmas[a_vma(0, 400)] == before
    assert (job.total_bytes, job.done_bytes) == (300 * PAGE_BYTES, 300 * PAGE_BYTES)
    assert job.move_id == 2
    hold = world.engine.ledger.hold(job.process, world.clock.now())
    assert hold is not None
    assert hold.detail == "move 1 was undone by an operator"
    check_sums(job.account)


def test_undo_leaves_alone_what_somebody_moved_on_since_and_tells_what_is_not_recorded() -> None:
    world = World()
    memory = world.add(100, 0, 0, 1)
    moved = world.finish(a_move({N2}, {N0}))
    memory.vmas[a_vma(0, 3)][0] = 3
    log = world.engine.moves
    recorded = log.find(moved.move_id or 0)
    assert recorded is not None
    log._moves[recorded.id] = replace(recorded, pages={PageStatus.MOVED: 5})
    job = world.finish(UndoRequest(move_id=1))
    assert memory.vmas[a_vma(0, 3)] == [3, 0, 1]
    assert job.account.passed_over == {PageStatus.LEFT_ALONE: 1}
    assert job.detail == "where 3 more pages came from was not recorded"


def test_undo_can_be_undone() -> None:
    world = World()
    memory = world.add(100, *[0, 1] * 5)
    for move_id, expected in ((0, [2, 2]), (1, [0, 1]), (2, [2, 2])):
        world.finish(UndoRequest(move_id=move_id) if move_id else a_move({N2}))
        assert memory.vmas[a_vma(0, 10)] == expected * 5


def test_undo_to_a_full_node_says_so_and_puts_the_rest_back() -> None:
    world = World()
    memory = world.add(100, *[0] * 10, *[1] * 10)
    world.finish(a_move({N2}))
    world.free_bytes = {0: GIB // 2}
    job = world.finish(UndoRequest(move_id=1))
    assert (job.state, job.reason, job.detail) == (JobState.FAILED, Reason.TARGET_FULL, "no room left on node 0")
    assert memory.nodes() == {2: 10, 1: 10}


def test_an_undone_move_of_shared_pages_moves_shared_pages_again() -> None:
    world = World()
    world.add(100, 0)
    world.finish(a_move({N1}, move_all=True))
    world.finish(UndoRequest(move_id=1))
    last = world.kernel.steps[-1]
    assert isinstance(last, MigrationStep)
    assert last.move_all


def test_eviction_is_paced_and_counts_what_stays() -> None:
    world = World(
        rates=Rates(
            machine_bytes_per_second=GIB,
            process_bytes_per_second=GIB,
            node_pair_bytes_per_second=GIB,
            evict_bytes_per_second=SLOW,
            interval_seconds=2.0,
        )
    )
    world.kernel.page_seconds = 0.0
    memory = world.add(100, *[0] * 8190, None, None)
    memory.status_of = {START: PageStatus.LOCKED}
    began = world.clock.now()
    job = world.finish(EvictRequest(pid=100))
    assert job.state is JobState.DONE
    assert (job.account.advised_pages, job.account.evicted_pages, job.account.kept_pages) == (8190, 8189, 1)
    assert (job.account.absent_pages, job.account.looked_pages) == (2, 8192)
    assert world.clock.now() - began == pytest.approx((32 - 8) / 4, abs=0.8)
    assert job.move_id is None


def test_cold_only_advises_and_evicts_nothing() -> None:
    world = World()
    memory = world.add(100, *[0] * 10, mempolicy=BOUND)
    job = world.finish(EvictRequest(pid=100, cold_only=True))
    assert (job.account.advised_pages, job.account.evicted_pages) == (10, 0)
    assert memory.nodes() == {0: 10}


def test_a_whole_move_runs_beside_the_loop_and_tells_before_and_after() -> None:
    world = World()
    memory = world.add(100, *[0, 1, 2] * 10)
    world.add(200, 0, 0)
    go_on = threading.Event()
    world.kernel.on_whole = lambda: None if go_on.wait(30) else pytest.fail("nobody let it go on")
    whole = world.jobs.submit(a_move({N2, N3}, {N0, N1}, whole=True))
    world.step()
    assert world.finish(MoveRequest(pid=200, targets=frozenset({N1}))).state is JobState.DONE
    assert world.job(whole.id).state is JobState.RUNNING
    go_on.set()
    _until_ended(world, whole.id)
    job = world.job(whole.id)
    assert job.whole is not None
    assert memory.vmas[a_vma(0, 30)] == [2, 3, 2] * 10
    assert job.whole.before_bytes == {0: 10 * PAGE_BYTES, 1: 10 * PAGE_BYTES, 2: 10 * PAGE_BYTES}
    assert job.whole.after_bytes == {2: 20 * PAGE_BYTES, 3: 10 * PAGE_BYTES}
    assert (job.state, job.done_bytes, job.total_bytes) == (JobState.DONE, 20 * PAGE_BYTES, 20 * PAGE_BYTES)


def _until_ended(world: World, job_id: int) -> None:
    """The thread of a whole move needs real time; the loop polls for it."""
    pause = threading.Event()
    for _ in range(1000):
        world.step()
        if world.job(job_id).state.is_final:
            return
        pause.wait(0.005)
    raise AssertionError(world.job(job_id))


def test_whole_moves_come_one_at_a_time() -> None:
    world = World()
    world.add(100, 0)
    world.add(200, 0)
    go_on, inside = threading.Event(), threading.Semaphore(0)

    def on_whole() -> None:
        inside.release()
        go_on.wait(30)

    world.kernel.on_whole = on_whole
    first = world.jobs.submit(a_move({N1}, whole=True))
    second = world.jobs.submit(MoveRequest(pid=200, targets=frozenset({N1}), whole=True))
    for _ in range(10):
        world.step()
    assert inside.acquire(timeout=30)
    assert not inside.acquire(blocking=False)
    assert world.job(second.id).waiting_for is Reason.CLAIMED
    go_on.set()
    _until_ended(world, first.id)
    _until_ended(world, second.id)


def test_a_whole_move_that_raises_ends_its_job_and_lets_the_next_one_in() -> None:
    world = World()
    world.add(100, 0)
    world.kernel.raises = [OSError("broken")]
    job = world.jobs.submit(a_move({N1}, whole=True))
    _until_ended(world, job.id)
    assert (world.job(job.id).state, world.job(job.id).detail) == (JobState.FAILED, "OSError: broken")
    again = world.jobs.submit(a_move({N1}, whole=True))
    _until_ended(world, again.id)
    assert world.job(again.id).state is JobState.DONE


@pytest.mark.parametrize(
    ("mempolicy", "free", "reason"),
    [(BOUND, {}, Reason.MEMPOLICY), (Mempolicy(mode="default"), {1: GIB // 2}, Reason.TARGET_FULL)],
)
def test_a_whole_move_is_refused_where_a_paced_one_would_hold_back(
    mempolicy: Mempolicy, free: dict[int, int], reason: Reason
) -> None:
    world = World(free_bytes=free)
    world.add(100, 0, 0, mempolicy=mempolicy)
    job = world.finish(a_move({N1}, whole=True))
    assert (job.state, job.reason) == (JobState.FAILED, reason)
