"""The queue and its thread: what a tick leaves gets into the file, and no trouble with the file gets into a tick."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.history import book as book_module
from balancerd.history.book import History
from balancerd.history.reader import Query, read_history
from balancerd.history.store import Store
from balancerd.model.decision import Reason, Skip
from balancerd.model.report import TickReport
from tests.unit.history.files import a_file, a_history, an_event, ask, open_store, run_sql, wait_until
from tests.unit.reports import a_decision, a_moving_report, a_process, a_process_report, a_report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def history(path: Path, told: list[str]) -> Iterator[History]:
    history = a_history(path, told)
    yield history
    history.close()


def a_crowd(number: int, processes: int) -> TickReport:
    """All want to move, and all are turned down."""
    seen = [a_process_report(p, verdicts=(a_decision(p.id),)) for p in map(a_process, range(1, processes + 1))]
    held = [Skip(by="plan", process=each.process.id, reason=Reason.COOLDOWN) for each in seen]
    return a_report(number=number, processes=seen, rejected=held)


def test_what_a_tick_leaves_is_in_the_file_and_the_figures_tell(path: Path, history: History) -> None:
    history.start()
    history.emit(a_moving_report(1))
    history.emit(a_report(number=2))
    wait_until(lambda: history.figures().written_events == 2)
    page = read_history(path, Query())
    assert [(e["kind"], e["at_unix_seconds"], e["tick"]) for e in page.events] == [
        ("move", 1000.0, 1),
        ("decision", 1000.0, 1),
    ]
    figures = history.figures()
    assert (figures.rows, figures.trouble, set(figures.lost_events.values())) == (2, None, {0})
    assert figures.kept_bytes is not None
    assert figures.kept_bytes >= path.stat().st_size


def test_what_is_queued_at_the_end_is_written(path: Path, told: list[str]) -> None:
    opening, gate = threading.Event(), threading.Event()

    def hang(path: Path) -> Store:
        opening.set()
        assert gate.wait(20.0)
        return open_store(path)

    history = a_history(path, told, open_with=hang)
    history.emit(a_moving_report(1))
    history.start()
    assert opening.wait(20.0)
    history.emit(a_moving_report(2))  # is not in the batch at hand
    closing = threading.Thread(target=history.close)
    closing.start()
    wait_until(lambda: history._ends)
    gate.set()
    closing.join()
    assert [event["tick"] for event in read_history(path, Query()).events] == [2, 1, 1]
    assert history.figures().lost_events["end"] == 0
    assert not path.with_name("history.sqlite-wal").exists()


def test_a_disk_that_hangs_holds_up_no_tick_and_the_queue_has_a_bound(
    path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "MOST_QUEUED", 5)
    gate = threading.Event()

    def hang(path: Path) -> Store:
        gate.wait(30.0)
        return open_store(path)

    history = a_history(path, told, open_with=hang)
    history.start()
    begin = time.monotonic()
    for number in range(1, 11):
        history.emit(a_moving_report(number))  # 11 events: one decision, ten moves
    assert time.monotonic() - begin < 5.0
    assert history.figures().lost_events["queue"] == 6
    gate.set()
    wait_until(lambda: history.figures().written_events == 5)
    history.close()
    assert ask(path, "SELECT group_concat(id) FROM events") == "1,2,3,4,5"


def test_of_a_storm_what_was_done_is_kept_before_what_was_only_wanted(
    path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "MOST_OF_A_TICK", 12)
    crowd = a_crowd(1, 10)
    history.emit(replace(crowd, outcomes=a_moving_report(1).outcomes))
    history.start()
    history.close()
    kinds = [event["kind"] for event in read_history(path, Query()).events]
    assert sorted(kinds) == ["decision"] * 10 + ["held"] + ["move"]
    assert history.figures().lost_events["limit"] == 9


def test_many_ticks_that_waited_are_few_commits(path: Path, told: list[str]) -> None:
    batches: list[int] = []

    class Counting(Store):
        def add(self, events: object) -> None:
            batches.append(len(list(events)))  # type: ignore[call-overload]

    history = a_history(
        path,
        told,
        open_with=lambda path: Counting(path, max_rows=10, max_bytes=1 << 20, version="1", started_at=0.0),
    )
    for number in range(50):
        history.emit(a_moving_report(number))
    history.start()
    history.close()
    assert batches == [51]


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(path: Path, history: History, told: list[str]) -> None:
    path.write_bytes(b"no database at all" * 1000)
    history.start()
    history.emit(a_moving_report(1))
    wait_until(lambda: history.figures().written_events == 2)
    (aside,) = path.parent.glob("*.bad-*")
    assert aside.name == "history.sqlite.bad-19700101T001640Z"
    assert aside.read_bytes().startswith(b"no database")
    assert told == [f"{path} is damaged (file is not a database): it is {aside.name} now, and a new one begins"]
    figures = history.figures()
    assert (figures.errors["corrupt"], figures.trouble) == (1, None)


def test_a_file_that_is_damaged_while_it_is_written_loses_no_event_of_the_queue(
    path: Path, history: History, told: list[str]
) -> None:
    store = open_store(path, max_rows=100_000)
    store.add([(1.0, an_event(100 + i, detail="x" * 300)) for i in range(10_000)])
    store.close()
    history.start()
    wait_until(lambda: history.figures().rows is not None)
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xa5" * (path.stat().st_size - 4096))
    for number in range(1, 60):
        history.emit(a_moving_report(number))
        wait_until(lambda number=number: history.figures().written_events == number + 1)  # type: ignore[misc]
        if told:
            break
    assert "is damaged" in told[0]
    assert history.figures().errors["corrupt"] == 1
    assert read_history(path, Query()).events[0]["tick"] == number


def test_a_file_that_was_removed_is_made_anew(path: Path, history: History, told: list[str]) -> None:
    history.start()
    history.emit(a_moving_report(1))
    wait_until(lambda: history.figures().written_events == 2)
    path.unlink()
    history.emit(a_moving_report(2))
    wait_until(lambda: history.figures().written_events == 3)
    assert [event["tick"] for event in read_history(path, Query()).events] == [2]
    assert told == []


def test_a_full_disk_is_told_once_and_all_that_waited_is_written_later(path: Path, told: list[str]) -> None:
    """The disk is full for real: sqlite may not have another page."""
    full = threading.Event()
    full.set()

    class OnFullDisk(Store):
        def add(self, events: object) -> None:
            pages = 3 if full.is_set() else 100_000
            self._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
            super().add(events)  # type: ignore[arg-type]

    history = a_history(
        path,
        told,
        open_with=lambda path: OnFullDisk(path, max_rows=1000, max_bytes=1 << 20, version="1", started_at=0.0),
    )
    history.start()
    history.emit(a_crowd(1, 100))
    wait_until(lambda: history.figures().errors["full"] >= 3)
    assert told == [f"{path} cannot be written, and is tried again later: database or disk is full"]
    assert history.figures().trouble == "database or disk is full"
    full.clear()
    wait_until(lambda: history.figures().written_events == 200)
    assert told[1:] == [f"{path} is written again"]
    assert history.figures().trouble is None
    assert ask(path, "SELECT count(*) FROM events") == 200
    history.close()


def test_a_directory_that_comes_later_is_used_then(tmp_path: Path, told: list[str]) -> None:
    path = tmp_path / "later" / "history.sqlite"
    history = a_history(path, told)
    history.emit(a_moving_report(1))
    history.start()
    wait_until(lambda: history.figures().errors["read-only"] >= 2)
    assert len(told) == 1
    assert "No such file or directory" in told[0]
    path.parent.mkdir()
    wait_until(lambda: history.figures().written_events == 2)
    history.close()


def test_somebody_who_holds_the_file_is_waited_for_and_then_it_goes_on(
    path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancerd.history.store.LOCK_SECONDS", 0.01)
    a_file(path, [])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    history.emit(a_moving_report(1))
    history.start()
    wait_until(lambda: history.figures().errors["busy"] >= 1)
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: history.figures().written_events == 2)


@pytest.mark.parametrize("version", [2, 99])
def test_a_newer_version_switches_history_off_and_says_so(
    path: Path, history: History, told: list[str], version: int
) -> None:
    a_file(path, [an_event(70)])
    run_sql(path, f"PRAGMA user_version = {version}")
    history.start()
    wait_until(lambda: bool(told))
    history.emit(a_moving_report(1))
    why = f"it has version {version}, this balancerd writes version 1: move it away, or install the newer one again"
    assert told == [f"no history is kept in {path}: {why}"]
    assert history.figures().trouble is not None
    history._thread.join(20.0)
    assert not history._thread.is_alive()  # nothing is tried again
    assert ask(path, "SELECT count(*) FROM events") == 1


def test_two_that_write_one_file_do_not_go_on(path: Path, history: History, told: list[str]) -> None:
    a_file(path, [an_event(1)])
    history.start()
    history.emit(a_moving_report(1))
    wait_until(lambda: bool(told))
    assert told == [f"no history is kept in {path}: another balancerd writes it, too"]


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file(path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.unit.history.files import an_event, open_store
store = open_store(Path({str(path)!r}), max_rows=100_000)
for batch in range(10_000):
    store.add([(1.0, an_event(batch * 20 + i + 1)) for i in range(20)])
    print(batch, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline() != "20\n":
            assert child.poll() is None
        child.kill()
    rows = read_history(path, Query()).left_off + 100
    assert rows % 20 == 0
    store = open_store(path, max_rows=100_000)  # it is checked
    assert store.rows == rows >= 21 * 20
    store.close()
