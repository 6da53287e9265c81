"""Pages that fail for a moment are tried again, with their last status as the only one that counts."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.kernel.errors import AccountingError
from balancerd.kernel.moving.retry import BACK_OFF_SECONDS, Retries
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.migration import MovedRun
from balancerd.model.page_status import PageStatus
from balancerd.native.records import Cursor, Migration, Run
from tests.unit.kernel.worlds import PAGE, START, World, make_step, make_world, never

MEMINFO = "Node 3 MemTotal: 8388608 kB\nNode 3 MemFree: {} kB\nNode 3 Inactive(file): 0 kB\n"


def failing(root: Path, number: int, *, tries: int, n_pages: int = 10, pages: int = 1000) -> World:
    """A process of which the first `n_pages` fail with `number` so many times."""
    world = make_world(root, pages)
    for page in range(n_pages):
        world.core.fails[START + page * PAGE] = [number] * tries
    return world


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EIO, -1])
@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_transient_failure_is_tried_again_up_to_three_times(tmp_path: Path, number: int, tries: int) -> None:
    world = failing(tmp_path, number, tries=tries)
    outcome = world.move(make_step(1000))
    assert outcome.pages == {PageStatus.MOVED: 1000}
    assert outcome.moved_from == {1: 1000}
    assert outcome.submitted_pages == 1000
    assert outcome.retried_pages == 10 * tries
    assert outcome.failed_runs == ()
    assert outcome.unrecorded_pages == 0
    assert outcome.throttled_seconds["retry"] == pytest.approx(sum(BACK_OFF_SECONDS[:tries]), rel=0.2)


def test_after_three_further_tries_the_last_status_stays(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=3)
    for page in range(4):
        world.core.fails[START + page * PAGE] += [errno.EIO]
    outcome = world.move(make_step(1000))
    assert outcome.pages == {PageStatus.MOVED: 996, PageStatus.IO_ERROR: 4}
    assert outcome.retried_pages == 30
    assert [(run.start, run.end, run.status) for run in outcome.failed_runs] == [
        (START, START + 4 * PAGE, PageStatus.IO_ERROR)
    ]
    assert (outcome.stopped_by, outcome.resume_at) == (None, None)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EFAULT, errno.EINVAL, errno.ENOENT])
def test_a_permanent_failure_is_not_tried_again(tmp_path: Path, number: int) -> None:
    outcome = failing(tmp_path, number, tries=1).move(make_step(1000))
    assert (outcome.moved_pages, outcome.retried_pages) == (990, 0)
    assert outcome.throttled_seconds == {}


def test_a_failure_that_becomes_permanent_counts_as_that(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, n_pages=3)
    world.core.fails[START] = [errno.EBUSY, errno.EPERM]
    outcome = world.move(make_step(1000))
    assert outcome.pages == {PageStatus.MOVED: 999, PageStatus.LOCKED: 1}
    assert [run.status for run in outcome.failed_runs] == [PageStatus.LOCKED]


def test_what_has_changed_before_the_retry_counts_as_it_is_found(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, n_pages=6)

    def meanwhile() -> None:
        if len(world.core.calls) == 3:  # the two before moved the rest
            world.core.nodes[START] = 3
            del world.core.nodes[START + PAGE]
            world.core.nodes[START + 2 * PAGE] = -errno.EFAULT

    world.core.before_call = meanwhile
    outcome = world.move(make_step(1000))
    assert outcome.pages == {PageStatus.MOVED: 998, PageStatus.ABSENT: 1, PageStatus.FAULT: 1}
    assert outcome.moved_from == {1: 998}
    assert outcome.retried_pages == 3
    assert outcome.passed_over == {}


def test_a_page_that_went_to_a_node_that_is_left_alone_keeps_its_status(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, n_pages=2)

    def meanwhile() -> None:
        if len(world.core.calls) == 3:
            world.core.nodes[START] = 2

    world.core.before_call = meanwhile
    outcome = world.move(make_step(1000, target_of={1: 3}))
    assert outcome.pages == {PageStatus.MOVED: 999, PageStatus.BUSY: 1}
    assert outcome.passed_over == {}
    assert outcome.unrecorded_pages == 1


def test_retries_wait_for_the_end_of_the_pass_unless_that_takes_long(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, pages=6_000)
    world.core.seconds_per_page = 2e-4
    outcome = world.move(make_step(6_000))
    retried_at = [
        call["at"]
        for call, rows in zip(world.core.calls, world.core.ranges, strict=True)
        if len(rows) == 1 and rows[0][1] == START + 10 * PAGE
    ]
    assert outcome.moved_pages == 6_000
    assert len(retried_at) == 1
    assert world.core.calls[-1]["at"] > retried_at[0]  # type: ignore[operator]


def test_retries_end_with_the_time_of_the_step(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=4)
    outcome = world.move(make_step(1000, budget_seconds=0.03))
    assert outcome.retried_pages == 10
    assert outcome.pages == {PageStatus.MOVED: 990, PageStatus.BUSY: 10}
    assert [run.status for run in outcome.failed_runs] == [PageStatus.BUSY]
    assert world.clock.time <= 1000.03 + 1e-9
    assert outcome.stopped_by is None


def test_a_stop_ends_the_back_off(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=4)
    outcome = world.move(make_step(1000), lambda: bool(world.clock.time >= 1000.01))
    assert outcome.stopped_by is Reason.STOPPING
    assert outcome.pages == {PageStatus.MOVED: 990, PageStatus.BUSY: 10}
    assert [(run.end - run.start) // PAGE for run in outcome.failed_runs] == [10]


def gives_up_in_the_third_call(world: World) -> None:
    """Let the core leave two pages of the first retry unattempted, with others behind them that it tried."""

    def give_up(done: Migration) -> Migration:
        if len(world.core.calls) != 3:
            return done
        world.core.nodes.update({START + page * PAGE: 1 for page in (4, 5)})
        run = done.runs[0]
        return replace(
            done,
            moved_pages=8,
            from_node=((1, 8),),
            not_attempted_pages=2,
            runs=(replace(run, end=START + 4 * PAGE), replace(run, start=START + 6 * PAGE)),
            cursor=Cursor(address=START + 4 * PAGE),
            is_done=False,
        )

    world.core.change = give_up


def test_what_a_retry_does_not_reach_is_tried_again(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, n_pages=10)
    gives_up_in_the_third_call(world)
    outcome = world.move(make_step(1000))
    assert outcome.pages == {PageStatus.MOVED: 1000}
    assert outcome.retried_pages == 10
    assert world.core.ranges[3] == [(START + 4 * PAGE, START + 6 * PAGE, PAGE)]


def test_what_a_retry_does_not_reach_keeps_its_status_and_its_place(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, n_pages=10)
    gives_up_in_the_third_call(world)
    outcome = world.move(make_step(1000), lambda: len(world.core.calls) == 3)
    assert outcome.pages == {PageStatus.MOVED: 998, PageStatus.BUSY: 2}
    assert [(run.start, run.end, run.status) for run in outcome.failed_runs] == [
        (START + 4 * PAGE, START + 6 * PAGE, PageStatus.BUSY)
    ]
    assert outcome.unrecorded_pages == 0


def test_more_pages_at_a_retry_than_had_failed_are_never_silent(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.EBUSY, tries=1, n_pages=2)

    def invent(done: Migration) -> Migration:
        if len(world.core.calls) != 3:
            return done
        return replace(done, looked_pages=3, submitted_pages=3, moved_pages=3, from_node=((1, 3),))

    world.core.change = invent
    with pytest.raises(AccountingError, match="had failed"):
        world.mover.migrate(make_step(1000), never)


def test_pages_without_room_are_tried_again_when_there_is_room(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.ENOMEM, tries=2)
    world.write({"sys/devices/system/node/node3/meminfo": MEMINFO.format(4 << 20)})
    outcome = world.move(make_step(1000))
    assert outcome.pages == {PageStatus.MOVED: 1000}
    assert (outcome.stopped_by, outcome.retried_pages) == (None, 20)


def test_a_target_without_room_ends_the_step_and_nothing_else_is_tried_before(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.ENOMEM, tries=1)
    world.write({"sys/devices/system/node/node3/meminfo": MEMINFO.format(64)})
    outcome = world.move(make_step(1000))
    assert len(world.core.calls) == 1
    assert outcome.stopped_by is Reason.NO_MEMORY
    assert outcome.detail == "10 pages found no room"
    assert outcome.pages == {PageStatus.MOVED: 502, PageStatus.NO_MEMORY: 10}
    assert outcome.resume_at == START + 512 * PAGE


def test_a_target_that_says_it_has_room_and_has_not_ends_the_step_after_three_tries(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.ENOMEM, tries=9)
    world.write({"sys/devices/system/node/node3/meminfo": MEMINFO.format(4 << 20)})
    outcome = world.move(make_step(1000))
    assert len(world.core.calls) == 4
    assert (outcome.stopped_by, outcome.retried_pages) == (Reason.NO_MEMORY, 30)
    assert outcome.pages[PageStatus.NO_MEMORY] == 10


@pytest.mark.parametrize("refusals", [1, 3, 4])
def test_a_call_that_found_no_room_is_made_again_when_there_is_room(tmp_path: Path, refusals: int) -> None:
    world = make_world(tmp_path, 2000)
    world.write({"sys/devices/system/node/node3/meminfo": MEMINFO.format(4 << 20)})

    def refuse(done: Migration) -> Migration:
        if len(world.core.calls) > refusals:
            return done
        first, half = done.runs[0].start, done.submitted_pages // 2
        at = first + half * PAGE
        world.fill(half, start=at)
        return replace(
            done,
            error=errno.ENOMEM,
            error_target=3,
            moved_pages=half,
            from_node=((1, half),),
            not_attempted_pages=half,
            runs=(replace(done.runs[0], end=at),),
            cursor=Cursor(address=at),
            is_done=False,
        )

    world.core.change = refuse
    outcome = world.move(make_step(2000, budget_pages=1000))
    if refusals < 4:
        assert outcome.pages == {PageStatus.MOVED: 1000}
        assert outcome.stopped_by is None
        assert outcome.throttled_seconds == {"retry": pytest.approx(sum(BACK_OFF_SECONDS[:refusals]))}
    else:
        assert outcome.stopped_by is Reason.NO_MEMORY
        assert outcome.pages[PageStatus.NOT_ATTEMPTED] == outcome.submitted_pages - outcome.moved_pages > 0
        assert len(world.core.calls) == 4
    assert outcome.moved_runs == (
        MovedRun(
            start=START,
            end=START + outcome.moved_pages * PAGE,
            page_bytes=PAGE,
            source=NodeId(1),
            target=NodeId(3),
        ),
    )


def test_pages_without_room_that_nobody_recorded_end_the_step_at_once(tmp_path: Path) -> None:
    world = failing(tmp_path, errno.ENOMEM, tries=1)
    world.core.change = lambda done: replace(done, runs=(), unrecorded_pages=done.submitted_pages)
    outcome = world.move(make_step(1000))
    assert (len(world.core.calls), outcome.stopped_by) == (1, Reason.NO_MEMORY)
    assert outcome.unrecorded_pages == 512


def busy(page: int, *, error: int = errno.EBUSY, source: int = 1) -> Run:
    start = START + page * PAGE
    return Run(start=start, end=start + PAGE, page_bytes=PAGE, source=source, target=3, error=error)


def test_what_waits_is_taken_by_sort_when_it_is_due() -> None:
    retries = Retries()
    assert retries.next_at(idle=True) is None
    assert (
        retries.add([busy(2), busy(0, error=errno.EIO), busy(1), busy(3, source=2), busy(9, error=errno.EPERM)], 5.0)
        == ()
    )
    assert retries.add([busy(7)], 5.2, tries=1) == ()
    assert retries.next_at(idle=True) == pytest.approx(5.01)
    taken = retries.take(5.01)
    assert taken == ((0, [busy(1), busy(2)]), (0, [busy(3, source=2)]), (0, [busy(0, error=errno.EIO)]))
    assert retries.next_at(idle=True) == pytest.approx(5.24)
    assert retries.next_at(idle=False) == pytest.approx(5.26)
    assert not retries.needs_memory
    assert retries.add([busy(8), busy(4, error=errno.EPERM)], 6.0, tries=3) == (busy(8),)
    retries.add([busy(5, error=errno.ENOMEM)], 6.0)
    assert retries.needs_memory
    retries.forget_behind(START + 7 * PAGE)
    assert retries.take(99.0) == ((0, [busy(5, error=errno.ENOMEM)]),)
