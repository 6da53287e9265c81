import errno
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from balancerd import native
from balancerd.kernel.errors import AccountingError
from balancerd.kernel.identity import read_start_ticks
from balancerd.kernel.migrate import Mover
from balancerd.kernel.observe import ObserveKernel
from balancerd.kernel.placement import estimate
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep, PageStatus, Range
from balancerd.native.records import Cursor, Migration
from tests.unit.fakes import FakeClock, FakeKernel
from tests.unit.kernel.children import child

PAGE = 4096
START = 0x7F0000000000
OWN = ProcessId(os.getpid(), read_start_ticks(os.getpid()))


class FakeCore:
    """One range of misplaced pages that move at a constant speed; `change` may spoil what a call tells."""

    def __init__(self, clock: FakeClock, n_pages: int, seconds_per_page: float = 1e-6) -> None:
        self.clock = clock
        self.n_pages = n_pages
        self.seconds_per_page = seconds_per_page
        self.batches: list[int] = []
        self.change: Callable[[Migration], Migration] = lambda done: done
        self.before_call: Callable[[], None] = lambda: None

    def idle_call(self) -> float:
        return 0.0

    def migrate(
        self,
        pid: int,
        ranges: native.RangeArray,
        *,
        node: int,
        cursor: Cursor,
        batch_pages: int,
        look_pages: int,
        step_pages: int,
    ) -> Migration:
        assert step_pages >= batch_pages
        assert pid == OWN.pid
        assert len(ranges) == 1
        assert node == 3
        assert look_pages >= batch_pages
        self.before_call()
        first = max(0, cursor.address - START) // PAGE
        n = min(batch_pages, self.n_pages - first)
        self.batches.append(batch_pages)
        seconds = n * self.seconds_per_page
        self.clock.time += seconds
        at_end = first + n == self.n_pages
        return self.change(
            Migration(
                cursor=Cursor(range_index=1) if at_end else Cursor(address=START + (first + n) * PAGE),
                is_done=at_end,
                error=None,
                looked_pages=n,
                already_on_target_pages=0,
                absent_pages=0,
                other_before_pages=0,
                submitted_pages=n,
                moved_pages=n,
                by_errno=(),
                not_attempted_pages=0,
                unwritten_pages=0,
                from_node=((1, n),),
                refused_pages=0,
                whole_folios=0,
                calls=1,
                resubmissions=0,
                query_calls=1,
                moving_seconds=seconds,
                query_seconds=seconds / 8,
                largest_call_pages=n,
                longest_call_seconds=seconds,
            )
        )


def make_step(n_pages: int, *, budget_pages: int = 1 << 30, budget_seconds: float = 1e9, at: int = 0) -> MigrationStep:
    return MigrationStep(
        policy="home",
        process=OWN,
        target=NodeId(3),
        ranges=(Range(start=START, end=START + n_pages * PAGE, page_bytes=PAGE),),
        resume_at=at,
        budget_bytes=budget_pages * PAGE,
        budget_seconds=budget_seconds,
        reason=Reason.MISPLACED,
    )


def never() -> bool:
    return False


def move(core: FakeCore, step: MigrationStep, *, should_stop: Callable[[], bool] = never) -> MigrationOutcome:
    return Mover(core, core.clock, 0.005).migrate(step, should_stop)


def test_a_step_moves_its_ranges_to_the_end_and_accounts_for_every_page() -> None:
    core = FakeCore(FakeClock(), 10_000)
    outcome = move(core, make_step(10_000))
    assert outcome.submitted_pages == outcome.moved_pages == outcome.looked_pages == 10_000
    assert outcome.pages == {PageStatus.MOVED: 10_000}
    assert outcome.passed_over == {}
    assert outcome.moved_from == {1: 10_000}
    assert len(outcome.call_seconds) == len(core.batches)
    assert sum(outcome.call_seconds) == pytest.approx(0.01)
    assert outcome.query_seconds == pytest.approx(0.01 / 8)
    assert (outcome.resume_at, outcome.stopped_by, outcome.detail) == (None, None, "")


def test_batches_grow_while_calls_are_short() -> None:
    core = FakeCore(FakeClock(), 10_000)
    assert move(core, make_step(10_000)).batch_pages > 512
    assert core.batches[:4] == [512, 1024, 1536, 2048]


def test_batches_shrink_below_512_on_a_slow_machine_and_it_goes_on() -> None:
    core = FakeCore(FakeClock(), 5_000, seconds_per_page=1e-4)
    outcome = move(core, make_step(5_000))
    assert outcome.moved_pages == 5_000
    assert core.batches[:4] == [512, 256, 128, 64]
    assert outcome.call_seconds[-1] <= 0.010


def test_the_size_of_the_batch_is_kept_from_step_to_step() -> None:
    core = FakeCore(FakeClock(), 2_000)
    mover = Mover(core, core.clock, 0.005)
    first = mover.migrate(make_step(1_536), never)
    core.batches.clear()
    mover.migrate(make_step(2_000), never)
    assert first.batch_pages == 1536
    assert core.batches[0] == 1536


def test_the_byte_budget_is_kept_to_the_page() -> None:
    core = FakeCore(FakeClock(), 10_000)
    outcome = move(core, make_step(10_000, budget_pages=700))
    assert outcome.submitted_pages == 700
    assert core.batches == [512, 188]
    assert outcome.resume_at == START + 700 * PAGE
    assert outcome.stopped_by is None


def test_the_time_budget_is_overrun_by_one_call_at_most() -> None:
    core = FakeCore(FakeClock(), 100_000)
    outcome = move(core, make_step(100_000, budget_seconds=0.02))
    assert outcome.seconds >= 0.02
    assert sum(outcome.call_seconds[:-1]) < 0.02
    assert outcome.resume_at == START + outcome.moved_pages * PAGE


def test_a_step_goes_on_where_the_one_before_ended() -> None:
    core = FakeCore(FakeClock(), 1_000)
    first = move(core, make_step(1_000, budget_pages=300))
    assert first.resume_at is not None
    second = move(core, make_step(1_000, at=first.resume_at))
    assert first.moved_pages + second.moved_pages == 1_000
    assert second.resume_at is None


def test_an_address_behind_all_ranges_leaves_nothing_to_do() -> None:
    core = FakeCore(FakeClock(), 10)
    outcome = move(core, make_step(10, at=START + 10 * PAGE))
    assert core.batches == []
    assert (outcome.submitted_pages, outcome.resume_at) == (0, None)


def test_a_step_without_budget_submits_nothing_and_keeps_its_place() -> None:
    core = FakeCore(FakeClock(), 10)
    outcome = move(core, make_step(10, budget_pages=0))
    assert (core.batches, outcome.submitted_pages, outcome.resume_at) == ([], 0, START)


def test_a_stop_ends_the_step_between_two_calls() -> None:
    core = FakeCore(FakeClock(), 100_000)
    outcome = move(core, make_step(100_000), should_stop=lambda: len(core.batches) == 2)
    assert len(core.batches) == 2
    assert outcome.stopped_by is Reason.STOPPING
    assert outcome.resume_at == START + outcome.moved_pages * PAGE


def test_a_process_that_exits_between_two_calls_is_left_alone() -> None:
    clock = FakeClock()
    with child() as (process, id_):
        core = FakeCore(clock, 100_000)
        mover = Mover(core, clock, 0.005)

        def kill() -> bool:
            process.kill()
            process.wait()
            return False

        outcome = mover.migrate(replace(make_step(100_000), process=id_), kill)
    assert core.batches == []
    assert outcome.stopped_by is Reason.EXITED
    assert outcome.resume_at == START


@pytest.mark.parametrize("other", [ProcessId(OWN.pid, OWN.start_ticks + 1), ProcessId(2**22 - 1, 5)])
def test_another_process_under_the_same_pid_is_not_touched(other: ProcessId) -> None:
    core = FakeCore(FakeClock(), 10)
    outcome = move(core, replace(make_step(10), process=other))
    assert core.batches == []
    assert outcome.stopped_by is Reason.EXITED
    assert str(other.pid) in outcome.detail
    assert outcome.resume_at == START


@pytest.mark.parametrize(
    ("number", "reason", "name"),
    [
        (errno.ESRCH, Reason.EXITED, "ESRCH"),
        (errno.ENOMEM, Reason.NO_MEMORY, "ENOMEM"),
        (errno.EPERM, Reason.NO_ACCESS, "EPERM"),
        (errno.EACCES, Reason.CPUSET, "EACCES"),
        (errno.ENODEV, Reason.CALL_FAILED, "ENODEV"),
        (9999, Reason.CALL_FAILED, "9999"),
    ],
)
def test_a_refused_call_ends_the_step_with_its_reason_and_loses_no_page(number: int, reason: Reason, name: str) -> None:
    core = FakeCore(FakeClock(), 2_000)

    def refuse(done: Migration) -> Migration:
        moved = done.submitted_pages // 2
        return replace(
            done,
            error=number,
            moved_pages=moved,
            from_node=((1, moved),),
            not_attempted_pages=done.submitted_pages - moved,
            cursor=Cursor(address=START + moved * PAGE),
            is_done=False,
        )

    core.change = refuse
    outcome = move(core, make_step(2_000))
    assert len(core.batches) == 1
    assert outcome.stopped_by is reason
    assert outcome.detail.startswith(f"move_pages: {name} (")
    assert outcome.pages == {PageStatus.MOVED: 256, PageStatus.NOT_ATTEMPTED: 256}
    assert sum(outcome.pages.values()) == outcome.submitted_pages
    assert outcome.resume_at == START + 256 * PAGE


def test_every_status_of_the_kernel_has_its_name_in_the_outcome() -> None:
    errors = [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EFAULT, errno.EIO, errno.EINVAL]
    core = FakeCore(FakeClock(), 100)

    def spoil(done: Migration) -> Migration:
        return replace(
            done,
            moved_pages=100 - 28 - 8 - 9 - 10 - 11,
            by_errno=((0, 3), (errno.ENOTTY, 5), *((number, i) for i, number in enumerate(errors, 1))),
            not_attempted_pages=9,
            unwritten_pages=10,
            looked_pages=100 - 11 + 30,
            submitted_pages=89,
            already_on_target_pages=12,
            absent_pages=13,
            other_before_pages=5,
        )

    core.change = spoil
    outcome = move(core, make_step(100))
    assert outcome.pages == {
        PageStatus.MOVED: 34,
        PageStatus.ABSENT: 1,
        PageStatus.SHARED: 2,
        PageStatus.LOCKED: 3,
        PageStatus.BUSY: 4,
        PageStatus.FAULT: 5,
        PageStatus.IO_ERROR: 6,
        PageStatus.INVALID: 7,
        PageStatus.OTHER_ERROR: 8,
        PageStatus.NOT_ATTEMPTED: 9,
        PageStatus.UNWRITTEN: 10,
    }
    assert sum(outcome.pages.values()) == outcome.submitted_pages == 89
    assert outcome.on_target_pages == 12
    assert outcome.passed_over == {PageStatus.ABSENT: 13, PageStatus.OTHER_ERROR: 5}


def test_pages_that_found_no_room_end_the_step() -> None:
    core = FakeCore(FakeClock(), 5_000)
    core.change = lambda done: replace(done, moved_pages=done.moved_pages - 4, by_errno=((errno.ENOMEM, 4),))
    outcome = move(core, make_step(5_000))
    assert len(core.batches) == 1
    assert outcome.stopped_by is Reason.NO_MEMORY
    assert outcome.pages[PageStatus.NO_MEMORY] == 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda done: replace(done, moved_pages=done.moved_pages - 1),
        lambda done: replace(done, looked_pages=done.looked_pages + 1),
        lambda done: replace(done, looked_pages=0, submitted_pages=0, moved_pages=0, is_done=False),
    ],
    ids=["a page without a status", "a page looked at and forgotten", "no progress"],
)
def test_sums_that_do_not_hold_are_never_silent(spoil: Callable[[Migration], Migration]) -> None:
    core = FakeCore(FakeClock(), 5_000)
    core.change = spoil
    with pytest.raises(AccountingError):
        move(core, make_step(5_000))


def test_of_several_calls_in_one_the_longest_is_kept_and_the_sum_is_right() -> None:
    core = FakeCore(FakeClock(), 500)
    core.change = lambda done: replace(done, calls=3, moving_seconds=0.009, longest_call_seconds=0.005)
    assert move(core, make_step(500)).call_seconds == pytest.approx((0.005, 0.002, 0.002))


def test_an_error_outside_of_move_pages_ends_the_step_too() -> None:
    core = FakeCore(FakeClock(), 500)

    def fail() -> None:
        raise OSError(errno.ENOMEM, "no working memory")

    core.before_call = fail
    outcome = move(core, make_step(500))
    assert outcome.stopped_by is Reason.CALL_FAILED
    assert "no working memory" in outcome.detail


def test_on_a_machine_with_one_node_everything_is_on_target_already() -> None:
    with child("m = mmap.mmap(-1, 16 << 20); m.write(b'x' * (16 << 20))") as (_, id_):
        placement = estimate(id_.pid)
        (node,) = placement.bytes_by_node
        vmas = [p.vma for p in placement.vmas]
        step = replace(
            make_step(1),
            process=id_,
            target=node,
            ranges=tuple(Range(start=vma.start, end=vma.end, page_bytes=PAGE) for vma in vmas),
        )
        outcome = Mover(native, FakeClock(), 0.005).migrate(step, never)
    assert outcome.on_target_pages >= 16 << 20 >> 12
    assert outcome.submitted_pages == 0
    assert outcome.looked_pages == sum(vma.end - vma.start for vma in vmas) // PAGE
    assert outcome.looked_pages == outcome.on_target_pages + sum(outcome.passed_over.values())
    assert outcome.resume_at is None
    assert outcome.stopped_by is None


def test_observing_looks_with_the_eyes_of_the_kernel_and_moves_nothing() -> None:
    kernel = ObserveKernel(FakeKernel(FakeClock()))
    step = make_step(10)
    outcome = kernel.migrate(step, never)
    assert kernel.mode == "observe"
    assert (outcome.submitted_pages, outcome.looked_pages, outcome.pages) == (0, 0, {})
    assert outcome.stopped_by is Reason.OBSERVE_MODE
    assert outcome.resume_at == step.resume_at
