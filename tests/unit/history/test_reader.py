"""What the file answers, beside a daemon that writes, after it, and when there is none or it is damaged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from balancerd.history import reader as reader_module
from balancerd.history import schema
from balancerd.history.place import find_file, find_first_id
from balancerd.history.reader import HistoryUnreadableError, Query, read_history, read_last_id
from tests.unit.history.files import MIB, a_file, an_event, open_store, run_sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Events 1 to 9, a second apart, from unix second 1000 on."""
    return a_file(
        tmp_path / "history.sqlite",
        [
            an_event(
                n,
                pid=4240 + n % 3,
                workload="a.service" if n % 2 else "b.service",
                policy="home" if n < 6 else "parts",
            )
            for n in range(1, 10)
        ],
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (Query(since=1005.0), [9, 8, 7, 6]),
        (Query(until=1002.0), [2, 1]),
        (Query(since=1003.0, until=1005.0), [5, 4]),
        (Query(workload="b.service"), [8, 6, 4, 2]),
        (Query(pid=4240), [9, 6, 3]),
        (Query(policy="parts"), [9, 8, 7, 6]),
        (Query(policy="parts", pid=4240, workload="a.service"), [9]),
        (Query(before=3), [2, 1]),
        (Query(workload="nobody"), []),
        (Query(workload="' OR 1=1 --"), []),
    ],
)
def test_what_fits_is_told_newest_first(path: Path, query: Query, found: list[int]) -> None:
    page = read_history(path, query)
    assert ([event["id"] for event in page.events], page.left_off) == (found, 0)
    assert page.oldest_at == 1000.0


def test_a_page_tells_what_it_leaves_off_and_where_the_next_begins(path: Path) -> None:
    first = read_history(path, Query(workload="a.service", limit=2)).document()
    assert ([event["id"] for event in first["events"]], first["left_off"], first["next_before"]) == ([9, 7], 3, 7)
    second = read_history(path, Query(workload="a.service", limit=2, before=7)).document()
    assert ([event["id"] for event in second["events"]], second["left_off"], second["next_before"]) == ([5, 3], 1, 3)
    last = read_history(path, Query(workload="a.service", limit=2, before=3)).document()
    assert ([event["id"] for event in last["events"]], last["left_off"], last["next_before"]) == ([1], 0, None)


def test_a_page_has_a_bound_whatever_is_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MOST_EVENTS", 4)
    page = read_history(path, Query(limit=10_000_000))
    assert (len(page.events), page.left_off) == (4, 5)


def test_an_event_is_told_whole(path: Path) -> None:
    event = read_history(path, Query()).events[-1]
    assert event == {
        "id": 1,
        "at_unix_seconds": 1000.0,
        "kind": "move",
        "decision": 1,
        "policy": "home",
        "action": "migrate",
        "pid": 4241,
        "start_ticks": 1000,
        "comm": "spin",
        "workload": "a.service",
        "from": {"1": MIB},
        "to": 0,
        "bytes": MIB,
        "counts": {"moved": 256},
        "reason": "misplaced",
        "detail": "",
        "move": 3,
        "tick": 7,
        "daemon": 1,
    }


def test_it_is_read_while_it_is_written(path: Path) -> None:
    store = open_store(path)
    store.add([(2000.0, an_event(10))])
    assert path.with_name("history.sqlite-wal").stat().st_size > 0
    assert read_history(path, Query(limit=1)).events[0]["id"] == 10
    store.add([(2000.0, an_event(11))])
    assert read_history(path, Query(limit=1)).events[0]["id"] == 11
    store.close()


def test_reading_leaves_no_file_behind_and_changes_none(path: Path) -> None:
    before = path.read_bytes()
    read_history(path, Query())
    assert read_last_id(path) == 9
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["history.sqlite"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_who_may_read_the_file_and_not_write_beside_it_reads_it_without_the_daemon(path: Path) -> None:
    path.chmod(0o444)
    for each in path.parents[:-2]:
        each.chmod(each.stat().st_mode | 0o055)
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from balancerd.history.reader import Query, read_history
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(len(read_history(Path({str(path)!r}), Query()).events))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("9\n", "")


def test_a_question_that_takes_too_long_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_STEPS", 1)
    with pytest.raises(HistoryUnreadableError, match="too long: ask for less"):
        read_history(path, Query(), seconds=-1.0)


def test_without_a_file_there_is_no_history_and_the_numbers_begin(tmp_path: Path) -> None:
    with pytest.raises(HistoryUnreadableError, match="there is no "):
        read_history(tmp_path / "none", Query())
    assert read_last_id(tmp_path / "none") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_told_as_such(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * 20_000)
    with pytest.raises(HistoryUnreadableError, match="damaged"):
        read_history(path, Query())


@pytest.mark.parametrize("nonsense", ["{", "[" * 5000])
def test_nonsense_in_the_rows_is_told_as_damage(path: Path, nonsense: str) -> None:
    run_sql(path, f"UPDATE events SET sources = '{nonsense}'")  # noqa: S608 -- a test's own
    with pytest.raises(HistoryUnreadableError, match="damaged"):
        read_history(path, Query())


@pytest.mark.parametrize(
    ("pragma", "told"),
    [
        (f"user_version = {schema.VERSION + 1}", f"version {schema.VERSION + 1}"),
        ("application_id = 7", "not written it"),
    ],
)
def test_what_this_version_does_not_read_is_refused(path: Path, pragma: str, told: str) -> None:
    run_sql(path, f"PRAGMA {pragma}")
    with pytest.raises(HistoryUnreadableError, match=told):
        read_history(path, Query())


def test_a_history_is_kept_as_configured_or_in_the_daemons_directory_when_there_is_one(tmp_path: Path) -> None:
    assert find_file("/srv/numa.sqlite", tmp_path / "none") == Path("/srv/numa.sqlite")
    assert find_file(None, tmp_path) == tmp_path / "history.sqlite"
    assert find_file(None, tmp_path / "none") is None


def test_events_go_on_behind_those_of_the_file_or_with_the_time_when_it_does_not_tell(path: Path) -> None:
    assert find_first_id(None) == 1
    assert find_first_id(path) == 10
    path.write_bytes(b"nonsense" * 1000)
    assert find_first_id(path, lambda: 1_795_600_000.25) == 1_795_600_000_250


def test_numbers_go_on_where_the_file_ends_and_nonsense_is_no_number(path: Path) -> None:
    assert read_last_id(path) == 9
    run_sql(path, "UPDATE events SET id = 1152921504606846976 WHERE id = 9")  # 2**60
    assert read_last_id(path) == 0
    path.write_bytes(b"nonsense" * 1000)
    assert read_last_id(path) is None
