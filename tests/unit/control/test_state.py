"""What the control state remembers, and that it stays bounded."""

import threading

from balancerd.control.state import ControlState
from balancerd.model.page_status import PageStatus
from tests.unit.reports import a_moving_report


def test_totals_add_up_and_the_last_report_is_kept() -> None:
    state = ControlState(lambda: 7.0)
    for number in (1, 2, 3):
        state.emit(a_moving_report(number, moved_pages=1000, shared_pages=24))
    state.tick_failed()
    view = state.view()
    assert view.report is not None
    assert (view.report.number, view.told_at) == (3, 7.0)
    assert (view.totals.ticks, view.totals.failed_ticks) == (3, 1)
    assert view.totals.moved_bytes == 3 * 1000 * 4096
    assert view.totals.submitted_pages == sum(view.totals.pages.values()) == 3 * 1024
    assert view.totals.pages[PageStatus.SHARED] == 72


def test_only_the_latest_outcomes_are_kept_and_without_their_ranges() -> None:
    state = ControlState(lambda: 7.0, kept_outcomes=2)
    for number in range(1, 6):
        state.emit(a_moving_report(number))
    outcomes = state.view().outcomes
    assert [outcome.tick for outcome in outcomes] == [4, 5]
    assert (outcomes[0].calls, outcomes[0].longest_call_seconds) == (2, 0.003)
    assert not hasattr(outcomes[0], "step")


def test_a_view_does_not_change_any_more() -> None:
    state = ControlState(lambda: 7.0)
    before = state.view()
    state.emit(a_moving_report(1))
    state.reloaded(path="/etc/x.yaml", succeeded=False, at=5.0, error="bad")
    assert (before.report, before.totals.ticks, before.outcomes, before.reload) == (None, 0, (), None)
    after = state.view()
    assert after.reload is not None
    assert (after.config_path, after.reload.error) == ("/etc/x.yaml", "bad")


def test_readers_never_see_a_report_without_its_totals() -> None:
    state = ControlState(lambda: 7.0)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            state.emit(a_moving_report(number))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2000):
            view = state.view()
            assert view.totals.ticks == (0 if view.report is None else view.report.number)
            assert view.totals.submitted_pages == 1024 * view.totals.ticks
    finally:
        stop.set()
        writer.join()
