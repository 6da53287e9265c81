"""The file itself: versions, bounds, damage; and what is not ours stays as it is."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from balancerd.history import schema
from balancerd.history import store as store_module
from balancerd.history.reader import Query, read_history
from balancerd.history.store import KEPT_ASIDE, DamagedError, MovedError, Store, UnusableError, put_aside
from tests.unit.history.files import MIB, a_file, an_event, ask, open_store, run_sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def ids(path: Path) -> list[int]:
    return [event["id"] for event in read_history(path, Query(limit=1000)).events]


def test_the_file_is_for_the_daemons_user_only_and_of_this_version(path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(path)
        store.add([(1.0, an_event(1))])
        for each in path.parent.iterdir():
            assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
        store.close()
    finally:
        os.umask(before)
    assert ask(path, "PRAGMA user_version") == schema.VERSION
    assert ask(path, "PRAGMA journal_mode") == "wal"


def test_only_the_newest_rows_are_kept(path: Path) -> None:
    store = open_store(path, max_rows=10)
    store.add([(1.0, an_event(number)) for number in range(1, 9)])
    store.add([(1.0, an_event(number)) for number in range(9, 16)])
    assert store.rows == 10
    assert ids(path) == list(range(15, 5, -1))
    store.add([(1.0, an_event(number)) for number in range(16, 40)])
    assert ids(path) == list(range(39, 29, -1))
    store.close()


def test_the_file_with_its_log_stays_below_its_bytes(path: Path) -> None:
    store = open_store(path, max_rows=1_000_000, max_bytes=MIB)
    sizes = []
    for batch in range(80):
        store.add([(1.0, an_event(batch * 100 + i + 1, detail="x" * 300)) for i in range(100)])
        sizes.append(store.size_bytes())
    assert max(sizes) <= MIB
    kept = ids(path)
    assert kept[0] == 8000
    assert kept == list(range(8000, 8000 - len(kept), -1))
    assert len(kept) * 300 > MIB // 4  # and it is no quarter empty
    assert store.rows == ask(path, "SELECT count(*) FROM events")
    store.close()


def test_a_smaller_bound_makes_the_file_smaller(path: Path) -> None:
    store = open_store(path, max_rows=100_000)
    store.add([(1.0, an_event(i + 1, detail="x" * 300)) for i in range(10_000)])
    store.close()
    large = path.stat().st_size
    store = open_store(path, max_rows=100_000, max_bytes=MIB)
    store.add([(1.0, an_event(20_000))])
    store.close()
    assert path.stat().st_size <= MIB < large


def test_who_reads_for_long_lets_the_log_grow_to_half_the_bound_and_not_further(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.01)
    store = open_store(path, max_rows=1_000_000, max_bytes=MIB)
    store.add([(1.0, an_event(1))])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    number = 1

    def fill() -> None:
        nonlocal number
        for _ in range(200):
            store.add([(1.0, an_event(number + i + 1, detail="x" * 300)) for i in range(100)])
            number += 100

    with pytest.raises(TimeoutError):
        fill()
    assert store.size_bytes() < 2 * MIB
    reader.execute("COMMIT")
    reader.close()
    store.add([(1.0, an_event(number + 1))])
    assert store.size_bytes() <= MIB
    store.close()


def test_what_is_no_utf_8_comes_back_as_it_was(path: Path) -> None:
    hostile = "a\n\x1b[31m\udcff\u202eé"
    a_file(path, [an_event(1, comm=hostile, workload=hostile, detail=hostile), an_event(2, comm=None, workload=None)])
    without, with_names = read_history(path, Query()).events
    assert [with_names[key] for key in ("comm", "workload", "detail")] == [hostile] * 3
    assert (without["comm"], without["workload"]) == (None, None)
    assert [event["id"] for event in read_history(path, Query(workload=hostile)).events] == [1]


@pytest.mark.parametrize("version", range(schema.VERSION))
def test_a_file_of_an_older_version_is_brought_to_this_one(path: Path, version: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for script in schema.SCRIPTS[:version]:
        for statement in script:
            connection.execute(statement)
    if version:
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    a_file(path, [an_event(1)])
    assert ask(path, "PRAGMA user_version") == schema.VERSION
    assert ids(path) == [1]


NEXT = (*schema.SCRIPTS, ("ALTER TABLE events ADD COLUMN mood TEXT", "UPDATE events SET mood = 'calm'"))


def open_next(path: Path, scripts: tuple[tuple[str, ...], ...] = NEXT) -> Store:
    return Store(path, max_rows=10, max_bytes=MIB, version="2", started_at=1.0, scripts=scripts)


def test_a_new_version_keeps_what_the_one_before_has_written(path: Path) -> None:
    a_file(path, [an_event(1), an_event(2)])
    open_next(path).close()
    assert ask(path, "SELECT group_concat(id || mood) FROM events") == "1calm,2calm"
    assert ask(path, "PRAGMA user_version") == len(NEXT)


def test_a_script_that_fails_changes_nothing(path: Path) -> None:
    a_file(path, [an_event(1)])
    with pytest.raises(sqlite3.OperationalError):
        open_next(path, (*schema.SCRIPTS, ("ALTER TABLE events ADD COLUMN mood TEXT", "DELETE FROM nowhere")))
    assert ask(path, "PRAGMA user_version") == schema.VERSION
    assert ids(path) == [1]


def test_a_newer_version_is_left_alone(path: Path) -> None:
    a_file(path, [an_event(1)])
    run_sql(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(UnusableError, match=f"it has version {schema.VERSION + 1}, this balancerd writes version"):
        open_store(path)
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    run_sql(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(UnusableError, match="another program"):
        open_store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_left_alone(path: Path, make: object) -> None:
    assert callable(make)
    make(path)
    with pytest.raises(UnusableError, match="no regular file"):
        open_store(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_is_left_alone(path: Path) -> None:
    a_file(path, [an_event(1)])
    os.chown(path, 4242, 4242)
    with pytest.raises(UnusableError, match="user 4242"):
        open_store(path)


def spoil_pages(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(2 * 4096)
        stream.write(b"\xa5" * 3 * 4096)


def spoil_free_pages(path: Path) -> None:
    """Say that a page of a table is free, which nothing but a check of the whole file notices before it is too late."""
    run_sql(path, "PRAGMA auto_vacuum", "DELETE FROM events WHERE id > 1")
    with path.open("r+b") as stream:
        stream.seek(32)  # the first page of the list of free ones, see https://www.sqlite.org/fileformat.html
        stream.write((3).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_free_pages,
        lambda path: path.write_bytes(b"no database at all" * 1000),
        spoil_pages,
        lambda path: path.write_bytes(path.read_bytes()[: 3 * 4096]),
    ],
    ids=["free-pages", "another-file", "pages", "cut-off"],
)
def test_damage_is_found_when_the_file_is_opened(path: Path, spoil: object) -> None:
    assert callable(spoil)
    a_file(path, [an_event(i + 1) for i in range(500)])
    spoil(path)
    with pytest.raises(DamagedError):
        open_store(path)


def test_damage_is_found_when_the_file_is_written(path: Path) -> None:
    store = open_store(path, max_rows=100_000)
    store.add([(1.0, an_event(i + 1, detail="x" * 300)) for i in range(10_000)])  # more than sqlite remembers
    store.close()
    store = open_store(path, max_rows=100)
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xa5" * (path.stat().st_size - 4096))

    def fill() -> None:
        for number in range(20_000, 20_100):
            store.add([(1.0, an_event(number))])

    with pytest.raises(DamagedError):
        fill()
    store.close()


def test_a_file_that_is_gone_or_replaced_is_noticed(path: Path) -> None:
    store = open_store(path)
    path.rename(path.with_name("away"))
    with pytest.raises(MovedError):
        store.add([(1.0, an_event(1))])
    open_store(path).close()
    with pytest.raises(MovedError):
        store.add([(1.0, an_event(1))])
    store.close()


def test_a_batch_that_fails_leaves_nothing(path: Path) -> None:
    store = open_store(path)
    store.add([(1.0, an_event(1))])
    with pytest.raises(sqlite3.IntegrityError):
        store.add([(1.0, an_event(2)), (1.0, an_event(1))])
    assert store.rows == 1
    store.add([(1.0, an_event(2))])
    assert ids(path) == [2, 1]
    store.close()


def test_damaged_files_are_kept_under_a_name_with_the_time_but_not_too_many(path: Path) -> None:
    aside = path
    for day in range(4):
        path.write_text(f"damaged {day}")
        path.with_name("history.sqlite-wal").write_text("log")
        aside = put_aside(path, lambda day=day: 86_400.0 * day)  # type: ignore[misc]
        assert aside.read_text() == f"damaged {day}"
        assert aside.with_name(f"{aside.name}-wal").read_text() == "log"
    assert aside.name == "history.sqlite.bad-19700104T000000Z"
    assert len(list(path.parent.iterdir())) == 2 * KEPT_ASIDE
    path.write_text("again")
    assert put_aside(path, lambda: 86_400.0 * 3).name == "history.sqlite.bad-19700104T000000Z-2"


def test_daemons_of_which_nothing_is_left_are_forgotten(path: Path) -> None:
    for number in range(1, 6):
        store = open_store(path, started_at=499.0 + number)
        store.add([(1.0, an_event(number))] if number % 2 else [])
        store.close()
    daemons = read_history(path, Query()).daemons
    assert [daemon["id"] for daemon in daemons] == sorted({e["daemon"] for e in read_history(path, Query()).events})
    assert len(daemons) == 3
    assert ask(path, "SELECT count(*) FROM daemons") == 3
    assert daemons[0] == {"id": 1, "started_at_unix_seconds": 500.0, "pid": os.getpid(), "version": "1.2.3"}


def test_a_daemon_that_opens_the_file_again_is_the_same_one(path: Path) -> None:
    for number in (1, 2):
        a_file(path, [an_event(number)])
    assert [event["daemon"] for event in read_history(path, Query()).events] == [1, 1]
