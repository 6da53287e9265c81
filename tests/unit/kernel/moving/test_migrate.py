import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.errors import AccountingError
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.migrate import Mover
from balancerd.kernel.moving.pacing import GROUP_PAGES, Pacer
from balancerd.kernel.observe import ObserveKernel
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.reader import estimate
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MovedRun, Range
from balancerd.model.page_status import PageStatus
from balancerd.native.records import Cursor, Migration
from tests.unit.fakes import FakeClock, FakeKernel
from tests.unit.kernel.children import child
from tests.unit.kernel.worlds import (
    NO_LIMITS,
    OWN,
    PAGE,
    START,
    AtOnce,
    anon,
    assert_sums,
    make_step,
    make_world,
    never,
)


def run_of(first: int, n_pages: int, source: int = 1, target: int = 3) -> MovedRun:
    start = START + first * PAGE
    return MovedRun(start=start, end=start + n_pages * PAGE, page_bytes=PAGE, source=source, target=target)  # type: ignore[arg-type]


def test_a_step_moves_its_ranges_to_the_end_and_accounts_for_every_page(tmp_path: Path) -> None:
    world = make_world(tmp_path, 5_000)
    outcome = world.move(make_step(5_000))
    assert outcome.submitted_pages == outcome.moved_pages == outcome.looked_pages == 5_000
    assert outcome.pages == {PageStatus.MOVED: 5_000}
    assert outcome.passed_over == {}
    assert outcome.moved_from == {1: 5_000}
    assert outcome.moved_runs == (run_of(0, 5_000),)
    assert (outcome.failed_runs, outcome.unrecorded_pages, outcome.retried_pages) == ((), 0, 0)
    assert len(outcome.call_seconds) == len(world.core.batches)
    assert sum(outcome.call_seconds) == pytest.approx(0.005)
    assert outcome.query_seconds == pytest.approx(0.005 / 8)
    assert (outcome.resume_at, outcome.stopped_by, outcome.detail) == (None, None, "")
    assert (outcome.throttled_seconds, outcome.stalls) == ({}, 0)
    assert set(world.core.nodes.values()) == {3}


def test_pages_are_out_of_reach_by_groups_as_the_pace_says(tmp_path: Path) -> None:
    world = make_world(tmp_path, 500)
    world.move(make_step(500))
    assert [call["group_pages"] for call in world.core.calls] == [GROUP_PAGES] == [128]
    world = make_world(tmp_path / "other", 10_000, pace=replace(NO_LIMITS, group_pages=0))
    world.move(make_step(10_000))
    assert {call["group_pages"] for call in world.core.calls} == {0}


@pytest.mark.parametrize(("group_seconds", "at_last"), [(0.0, 128), (20e-6, 128), (1e-3, 512)])
def test_groups_grow_where_each_waits_for_long(tmp_path: Path, group_seconds: float, at_last: int) -> None:
    world = make_world(tmp_path, 20_000, pace=replace(NO_LIMITS, first_batch_pages=512))
    world.core.group_seconds, world.core.price_seconds = group_seconds, 300e-6
    world.move(make_step(20_000))
    groups = [call["group_pages"] for call in world.core.calls]
    assert groups[:4] == [128, 512, 128, 512]
    assert set(groups[6:]) == {at_last}


@pytest.mark.parametrize("status", [0, errno.EBUSY])
def test_pages_that_fail_or_are_huge_say_nothing_of_groups(tmp_path: Path, status: int) -> None:
    world = make_world(tmp_path, 20_000, pace=replace(NO_LIMITS, first_batch_pages=512))
    if status:
        world.core.fails = {START + PAGE * page: [status] * 9 for page in range(0, 20_000, 100)}
    else:
        world.core.change = lambda done: replace(done, whole_folios=1)
    world.move(make_step(20_000))
    assert len(world.core.calls) > 4
    assert {call["group_pages"] for call in world.core.calls} == {128}


def test_batches_grow_while_calls_are_short(tmp_path: Path) -> None:
    world = make_world(tmp_path, 8_000)
    assert world.move(make_step(8_000)).batch_pages > 512
    assert world.core.batches[:2] == [512, 1024]


def test_batches_shrink_below_512_on_a_slow_machine_and_it_goes_on(tmp_path: Path) -> None:
    world = make_world(tmp_path, 3_000, seconds_per_page=1e-4)
    outcome = world.move(make_step(3_000))
    assert outcome.moved_pages == 3_000
    assert outcome.batch_pages < 128
    assert outcome.call_seconds[-1] <= 0.010


def test_the_size_of_the_batch_is_kept_from_step_to_step_and_learnt_anew_when_told(tmp_path: Path) -> None:
    world = make_world(tmp_path, 3_000)
    mover = world.mover
    first = mover.migrate(make_step(1_536), never)
    mover.migrate(make_step(3_000), never)
    assert first.batch_pages > 512
    assert world.core.batches[2] == first.batch_pages
    mover.relearn()
    world.fill(3_000)
    mover.migrate(make_step(3_000), never)
    assert world.core.batches[3] == 512


def test_what_a_call_costs_that_moves_nothing_is_asked_again_after_ten_seconds_not_at_each_step(tmp_path: Path) -> None:
    world = make_world(tmp_path, 3_000)
    mover = world.mover
    asked = []
    for seconds in (0.0, 0.0, 9.0, 2.0, 2.0):
        world.clock.time += seconds
        world.fill(3_000)
        mover.migrate(make_step(3_000), never)
        asked.append(world.core.idle_calls)
    assert asked == [3, 3, 3, 6, 6]


def test_the_byte_budget_is_kept_to_the_page(tmp_path: Path) -> None:
    world = make_world(tmp_path, 3_000)
    outcome = world.move(make_step(3_000, budget_pages=700))
    assert outcome.submitted_pages == 700
    assert world.core.batches == [512, 188]
    assert outcome.resume_at == START + 700 * PAGE
    assert outcome.stopped_by is None


def test_the_time_budget_is_overrun_by_one_call_at_most(tmp_path: Path) -> None:
    world = make_world(tmp_path, 8_000, seconds_per_page=1e-5)
    outcome = world.move(make_step(8_000, budget_seconds=0.02))
    assert outcome.seconds >= 0.02
    assert sum(outcome.call_seconds[:-1]) < 0.02
    assert outcome.resume_at == START + outcome.moved_pages * PAGE


def test_a_step_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1_000)
    first = world.move(make_step(1_000, budget_pages=300))
    assert first.resume_at is not None
    second = world.move(make_step(1_000, at=first.resume_at))
    assert first.moved_pages + second.moved_pages == 1_000
    assert second.resume_at is None


def test_an_address_behind_all_ranges_leaves_nothing_to_do(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    outcome = world.move(make_step(10, at=START + 10 * PAGE))
    assert world.core.batches == []
    assert (outcome.submitted_pages, outcome.resume_at) == (0, None)


def test_a_step_without_budget_submits_nothing_and_keeps_its_place(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    outcome = world.move(make_step(10, budget_pages=0))
    assert (world.core.batches, outcome.submitted_pages, outcome.resume_at) == ([], 0, START)


def test_a_stop_ends_the_step_between_two_calls(tmp_path: Path) -> None:
    world = make_world(tmp_path, 8_000)
    outcome = world.move(make_step(8_000), lambda: len(world.core.batches) == 2)
    assert len(world.core.batches) == 2
    assert outcome.stopped_by is Reason.STOPPING
    assert outcome.resume_at == START + outcome.moved_pages * PAGE


def test_a_process_that_exits_before_the_first_call_is_left_alone(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1_000)
    with child() as (process, id_):
        world.write({f"proc/{id_.pid}/{name}": Path(f"/proc/{id_.pid}/{name}").read_bytes() for name in ("stat",)})
        world.write({f"proc/{id_.pid}/maps": anon(START, 1_000)})

        def kill() -> bool:
            process.kill()
            process.wait()
            return False

        outcome = world.move(replace(make_step(1_000), process=id_), kill)
    assert world.core.batches == []
    assert outcome.stopped_by is Reason.EXITED
    assert outcome.resume_at == START


@pytest.mark.parametrize("other", [ProcessId(OWN.pid, OWN.start_ticks + 1), ProcessId(2**22 - 1, 5)])
def test_another_process_under_the_same_pid_is_not_touched(tmp_path: Path, other: ProcessId) -> None:
    world = make_world(tmp_path, 10)
    outcome = world.move(replace(make_step(10), process=other))
    assert world.core.batches == []
    assert outcome.stopped_by is Reason.EXITED
    assert str(other.pid) in outcome.detail
    assert outcome.resume_at == START


def test_memory_that_is_claimed_already_is_not_touched(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    with world.claims.claim(OWN, make_step(10).ranges):
        outcome = world.mover.migrate(make_step(10), never)
    assert (world.core.batches, outcome.stopped_by, outcome.resume_at) == ([], Reason.CLAIMED, START)


def test_what_is_no_longer_mapped_is_left_out_and_told(tmp_path: Path) -> None:
    world = make_world(tmp_path, 100)
    world.maps(anon(START, 30), anon(START + 60 * PAGE, 40))
    outcome = world.move(make_step(100))
    assert outcome.moved_pages == 70
    assert world.core.ranges[0] == [(START, START + 30 * PAGE, PAGE), (START + 60 * PAGE, START + 100 * PAGE, PAGE)]
    assert outcome.detail == "120 KiB of what was asked for are no longer mapped, or hold something else"


def test_nothing_left_of_the_ranges_ends_the_step_as_changed(tmp_path: Path) -> None:
    world = make_world(tmp_path, 100)
    world.maps(anon(START + (1 << 30), 100))
    outcome = world.move(make_step(100))
    assert (world.core.batches, outcome.stopped_by) == ([], Reason.CHANGED)
    assert "400 KiB" in outcome.detail


@pytest.mark.parametrize(
    ("number", "reason", "name"),
    [
        (errno.ESRCH, Reason.EXITED, "ESRCH"),
        (errno.EINVAL, Reason.EXITED, "EINVAL"),
        (errno.ENOMEM, Reason.NO_MEMORY, "ENOMEM"),
        (errno.EPERM, Reason.NO_ACCESS, "EPERM"),
        (errno.EACCES, Reason.OUTSIDE_CPUSET, "EACCES"),
        (errno.ENODEV, Reason.CALL_FAILED, "ENODEV"),
        (9999, Reason.CALL_FAILED, "9999"),
    ],
)
def test_a_refused_call_ends_the_step_with_its_reason_and_loses_no_page(
    tmp_path: Path, number: int, reason: Reason, name: str
) -> None:
    world = make_world(tmp_path, 2_000)

    def refuse(done: Migration) -> Migration:
        moved = done.submitted_pages // 2
        return replace(
            done,
            error=number,
            moved_pages=moved,
            from_node=((1, moved),),
            runs=(replace(done.runs[0], end=START + moved * PAGE),),
            not_attempted_pages=done.submitted_pages - moved,
            cursor=Cursor(address=START + moved * PAGE),
            is_done=False,
            error_target=3,
        )

    world.core.change = refuse
    outcome = world.move(make_step(2_000))
    assert len(world.core.batches) == 1
    assert outcome.stopped_by is reason
    assert outcome.detail.startswith(f"move_pages: {name} (")
    assert outcome.detail.endswith(") for node 3")
    assert outcome.pages == {PageStatus.MOVED: 256, PageStatus.NOT_ATTEMPTED: 256}
    assert outcome.unrecorded_pages == 0
    assert outcome.resume_at == START + 256 * PAGE


def test_every_status_of_the_kernel_has_its_name_in_the_outcome(tmp_path: Path) -> None:
    errors = [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EFAULT, errno.EINVAL, errno.ENOTTY]
    world = make_world(tmp_path, 100)
    for i, number in enumerate(errors, 1):
        for page in range(i):
            world.core.fails[START + (10 * i + page) * PAGE] = [number]
    for page, node in enumerate((-errno.EFAULT, -errno.EFAULT, -errno.EIO, 3, 3, 3)):
        world.core.nodes[START + page * PAGE] = node
    del world.core.nodes[START + 99 * PAGE]
    outcome = world.move(make_step(100))
    assert outcome.pages == {
        PageStatus.MOVED: 72,
        PageStatus.ABSENT: 1,
        PageStatus.SHARED: 2,
        PageStatus.LOCKED: 3,
        PageStatus.FAULT: 4,
        PageStatus.INVALID: 5,
        PageStatus.OTHER_ERROR: 6,
    }
    assert outcome.on_target_pages == 3
    assert outcome.passed_over == {PageStatus.ABSENT: 1, PageStatus.FAULT: 2, PageStatus.IO_ERROR: 1}
    assert [(run.status, (run.end - run.start) // PAGE) for run in outcome.failed_runs] == [
        (PageStatus.ABSENT, 1),
        (PageStatus.SHARED, 2),
        (PageStatus.LOCKED, 3),
        (PageStatus.FAULT, 4),
        (PageStatus.INVALID, 5),
        (PageStatus.OTHER_ERROR, 6),
    ]
    assert outcome.retried_pages == 0


def test_pages_behind_too_many_failures_count_when_they_are_looked_at_again(tmp_path: Path) -> None:
    world = make_world(tmp_path, 100)
    world.core.fails[START + 90 * PAGE] = [errno.EBUSY, errno.EPERM]

    def give_up(done: Migration) -> Migration:
        if len(world.core.batches) > 1:
            return done
        for page in range(40, 80):
            world.core.nodes[START + page * PAGE] = 1
        runs = done.runs
        return replace(
            done,
            moved_pages=59,
            from_node=((1, 59),),
            not_attempted_pages=40,
            runs=(replace(runs[0], end=START + 40 * PAGE), replace(runs[0], start=START + 80 * PAGE), *runs[1:]),
            cursor=Cursor(address=START + 40 * PAGE),
            is_done=False,
        )

    world.core.change = give_up
    outcome = world.move(make_step(100))
    assert outcome.pages == {PageStatus.MOVED: 99, PageStatus.LOCKED: 1}
    assert [(run.start - START) // PAGE for run in outcome.failed_runs] == [90]
    assert outcome.submitted_pages == 100
    assert outcome.unrecorded_pages == 0


def test_a_core_that_gets_nowhere_ends_the_step(tmp_path: Path) -> None:
    world = make_world(tmp_path, 100)

    def stand_still(done: Migration) -> Migration:
        return replace(
            done, moved_pages=0, from_node=(), runs=(), not_attempted_pages=100, cursor=Cursor(), is_done=False
        )

    world.core.change = stand_still
    outcome = world.move(make_step(100))
    assert len(world.core.batches) == 1
    assert (outcome.stopped_by, outcome.submitted_pages) == (Reason.CALL_FAILED, 0)
    assert outcome.resume_at == START


@pytest.mark.parametrize(
    "spoil",
    [
        lambda done: replace(done, moved_pages=done.moved_pages - 1, from_node=((1, done.moved_pages - 1),)),
        lambda done: replace(done, looked_pages=done.looked_pages + 1),
        lambda done: replace(done, from_node=((1, done.moved_pages - 1),)),
        lambda done: replace(done, other_before_pages=2, looked_pages=done.looked_pages + 2),
        lambda done: replace(
            done, looked_pages=0, submitted_pages=0, moved_pages=0, from_node=(), runs=(), is_done=False
        ),
    ],
    ids=[
        "a page without a status",
        "a page looked at and forgotten",
        "a page from nowhere",
        "an error without errno",
        "no progress",
    ],
)
def test_sums_that_do_not_hold_are_never_silent(tmp_path: Path, spoil: Callable[[Migration], Migration]) -> None:
    world = make_world(tmp_path, 5_000)
    world.core.change = spoil
    with pytest.raises(AccountingError):
        world.mover.migrate(make_step(5_000), never)
    assert world.claims.processes() == frozenset()


def test_of_calls_beyond_those_that_the_core_tells_the_sum_is_right(tmp_path: Path) -> None:
    world = make_world(tmp_path, 500)
    world.core.change = lambda done: replace(
        done, calls=3, moving_seconds=0.009, longest_call_seconds=0.005, call_seconds=(0.005,)
    )
    assert world.move(make_step(500)).call_seconds == pytest.approx((0.005, 0.002, 0.002))


def test_an_error_outside_of_move_pages_ends_the_step_too(tmp_path: Path) -> None:
    world = make_world(tmp_path, 500)

    def fail() -> None:
        raise OSError(errno.ENOMEM, "no working memory")

    world.core.before_call = fail
    outcome = world.move(make_step(500))
    assert outcome.stopped_by is Reason.CALL_FAILED
    assert "no working memory" in outcome.detail


def test_each_page_goes_to_the_node_that_its_own_is_mapped_to(tmp_path: Path) -> None:
    world = make_world(tmp_path, 40)
    world.fill(10, start=START + 10 * PAGE, node=0)
    world.fill(10, start=START + 20 * PAGE, node=2)
    world.fill(10, start=START + 30 * PAGE, node=3)
    world.write({"proc/buddyinfo": "".join(f"Node {n}, zone Normal{f' {100000 * (n > 1)}' * 11}\n" for n in range(4))})
    outcome = world.move(make_step(40, target_of={0: 2, 1: 3, 3: 3}, move_all=True))
    assert outcome.moved_from == {0: 10, 1: 10}
    assert outcome.moved_runs == (run_of(0, 10, 1, 3), run_of(10, 10, 0, 2))
    assert outcome.passed_over == {PageStatus.LEFT_ALONE: 10}
    assert outcome.on_target_pages == 10
    assert world.core.calls[0]["move_all"] is True
    assert world.core.calls[0]["large_room_pages"] == (3 * 100000 - 8) * 512  # of nodes 2 and 3, not of node 1
    assert outcome.verified is not None
    assert (outcome.verified.asked_pages, outcome.verified.on_target_pages) == (20, 20)


def for_all(first: int, last: int) -> Range:
    return Range(start=START + first * PAGE, end=START + last * PAGE, page_bytes=PAGE, all_sharers=True)


@pytest.mark.parametrize("may_move_all", [True, False])
def test_what_all_sharers_agree_on_moves_for_all_and_the_rest_does_not(tmp_path: Path, *, may_move_all: bool) -> None:
    world = make_world(tmp_path, 40)
    world.may_move_all = may_move_all
    own = [replace(for_all(*pages), all_sharers=False) for pages in ((0, 10), (30, 40))]
    outcome = world.move(make_step(0, ranges=[own[0], for_all(10, 30), own[1]]))
    assert [each.all_sharers for each in outcome.step.ranges] == [False, may_move_all, False]
    calls = zip(world.core.ranges, world.core.calls, strict=True)
    asked = {(rows[0][0] - START) // PAGE: call["move_all"] for rows, call in calls}
    assert asked == ({0: False, 10: True, 30: False} if may_move_all else {0: False})
    assert world.core.nodes[START + 29 * PAGE] == 3


def test_what_moves_for_all_is_tried_again_for_all(tmp_path: Path) -> None:
    world = make_world(tmp_path, 40)
    for page in (3, 25):
        world.core.fails[START + page * PAGE] = [errno.EBUSY]
    outcome = world.move(make_step(0, ranges=[replace(for_all(0, 10), all_sharers=False), for_all(10, 30)]))
    assert outcome.pages == {PageStatus.MOVED: 30}
    retries = [
        ((rows[0][0] - START) // PAGE, call["move_all"])
        for rows, call in zip(world.core.ranges, world.core.calls, strict=True)
        if rows[0][1] - rows[0][0] == PAGE
    ]
    assert retries == [(3, False), (25, True)]


def test_runs_are_recorded_up_to_a_bound_and_the_rest_is_counted(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10_000)
    for page in range(0, 10_000, 2):
        world.core.nodes[START + page * PAGE] = 2
    outcome = world.move(make_step(10_000))
    assert outcome.moved_pages == 10_000
    assert len(outcome.moved_runs) == 4096
    assert outcome.unrecorded_pages == 10_000 - 4096


def test_a_step_is_verified_by_asking_for_some_of_its_pages_again(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1_024)

    def come_back(done: Migration) -> Migration:
        if not done.is_done:
            return done
        for page in range(0, 1_024, 8):  # every second one of those that are asked for: 256 of 1024, from the middle
            world.core.nodes[START + (page + 2) * PAGE] = 0
        world.core.nodes[START + 6 * PAGE] = -errno.EFAULT
        del world.core.nodes[START + 14 * PAGE]
        return done

    world.core.change = come_back
    verified = world.move(make_step(1_024, budget_pages=1_024)).verified
    assert verified is not None
    assert verified.asked_pages == 256
    assert (verified.on_target_pages, verified.elsewhere_pages) == (126, 128)
    assert (verified.absent_pages, verified.unknown_pages) == (1, 1)


@pytest.mark.parametrize(("n_pages", "gone"), [(0, errno.ESRCH), (50, errno.ESRCH), (50, errno.EINVAL)])
def test_nothing_is_verified_when_nothing_moved_or_the_process_is_gone(tmp_path: Path, n_pages: int, gone: int) -> None:
    world = make_world(tmp_path, 50)
    world.core.gone = gone
    outcome = world.move(make_step(50, budget_pages=n_pages))
    assert (outcome.verified, outcome.moved_pages) == (None, n_pages)
    assert outcome.stopped_by is not Reason.CALL_FAILED


def test_on_a_machine_with_one_node_everything_is_on_target_already() -> None:
    clock = FakeClock()
    mover = Mover(native, clock, Pacer(clock, NO_LIMITS), Claims(Mappings(clock), AtOnce()))
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
        outcome = mover.migrate(step, never)
    assert_sums(outcome)
    assert outcome.on_target_pages >= 16 << 20 >> 12
    assert outcome.submitted_pages == 0
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
