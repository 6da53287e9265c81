from balancerd.model.ids import NodeId
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import PAGE_BYTES
from balancerd.web.past import MINUTES, Hour, add_up, last_hour
from tests.unit.reports import a_moving_report, a_process, a_report, an_eviction_outcome, an_outcome

FLOW = (NodeId(1), NodeId(0))


def test_ticks_of_one_minute_are_one_minute() -> None:
    hour = Hour()
    for second in (60.0, 62.0, 119.9, 120.0):
        hour.add(a_moving_report(), second)
    first, second_minute = hour.minutes()
    assert (first.number, first.flows, first.failed_pages) == (1, {FLOW: 3000 * PAGE_BYTES}, 72)
    assert (second_minute.number, second_minute.moved_bytes) == (2, 1000 * PAGE_BYTES)
    assert first.pages == {PageStatus.MOVED: 3000, PageStatus.SHARED: 72}


def test_no_more_than_an_hour_is_kept() -> None:
    hour = Hour()
    for minute in range(500):
        hour.add(a_moving_report(), 60.0 * minute)
    assert [minute.number for minute in hour.minutes()] == list(range(440, 500))


def test_a_tick_that_did_nothing_takes_no_room() -> None:
    hour = Hour()
    hour.add(a_report(), 60.0)
    assert hour.minutes() == ()


def test_a_minute_without_moves_is_zero_and_one_before_the_start_is_unknown() -> None:
    hour = Hour()
    hour.add(a_moving_report(), 600.0)
    told = last_hour(hour.minutes(), 660.0, started_at=540.0)
    assert len(told) == MINUTES
    assert told[:-3] == (None,) * 57
    assert [minute.moved_bytes for minute in told[-3:] if minute is not None] == [0, 1000 * PAGE_BYTES, 0]


def test_what_is_older_than_an_hour_is_not_told() -> None:
    hour = Hour()
    hour.add(a_moving_report(), 60.0)
    assert add_up(last_hour(hour.minutes(), 60.0 + 59 * 60, 0.0)).moved_bytes == 1000 * PAGE_BYTES
    assert add_up(last_hour(hour.minutes(), 60.0 + 60 * 60, 0.0)).moved_bytes == 0


def test_several_sources_go_to_the_target_of_each() -> None:
    process = a_process()
    outcome = an_outcome(process.id, pages={PageStatus.MOVED: 30}, moved_from={1: 10, 2: 20})
    hour = Hour()
    hour.add(a_report(outcomes=[outcome]), 60.0)
    assert hour.minutes()[0].flows == {FLOW: 10 * PAGE_BYTES, (NodeId(2), NodeId(0)): 20 * PAGE_BYTES}


def test_evictions_count_unless_memory_was_only_marked() -> None:
    process = a_process().id
    hour = Hour()
    hour.add(a_report(evictions=[an_eviction_outcome(process), an_eviction_outcome(process, cold_only=True)]), 60.0)
    assert hour.minutes()[0].evicted_bytes == 900 * PAGE_BYTES
