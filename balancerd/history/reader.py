"""What the file answers: a page of events, newest first. For any process, while the daemon writes or after it ended.

It opens the file to read and never writes to it. Standard library and the model only: commands must start fast. It must
not know who asks.
"""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from balancerd.history import schema

FILE_NAME: Final = "history.sqlite"
EVENTS: Final = 100
MOST_EVENTS: Final = 1000
"""Events of one page: unless asked otherwise, and at most."""

SECONDS: Final = 2.0
"""How long one question may take."""

_STEPS: Final = 20_000
"""Of sqlite's machine, between two looks at the clock: a few milliseconds."""

LARGEST_ID: Final = (1 << 53) - 1


class HistoryUnreadableError(Exception):
    """There is no answer; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which events: all that fit what is not None. Times are unix seconds, `since` included and `until` not.

    `before` is the id below which the page begins: the last one of the page before it.
    """

    since: float | None = None
    until: float | None = None
    workload: str | None = None
    pid: int | None = None
    policy: str | None = None
    before: int | None = None
    limit: int = EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events, newest first, as documents; `left_off` are the older ones that fit, too, and do not fit on the page.

    `oldest_at` is the unix time of the oldest event that is kept, whether it fits or not; None when there is none.
    `daemons` are those that the events are of.
    """

    events: tuple[dict[str, Any], ...]
    left_off: int
    oldest_at: float | None
    daemons: tuple[dict[str, Any], ...]

    def document(self) -> dict[str, Any]:
        """Return the page as an answer tells it, without "schema"."""
        return {
            "events": list(self.events),
            "left_off": self.left_off,
            "next_before": self.events[-1]["id"] if self.events and self.left_off else None,
            "oldest_at_unix_seconds": self.oldest_at,
            "daemons": list(self.daemons),
        }


def read_history(path: Path, query: Query, *, seconds: float = SECONDS) -> Page:
    """Return the page that a query asks for. Raises HistoryUnreadableError."""
    connection = _connect(path)
    try:
        connection.text_factory = schema.decode
        end = time.monotonic() + seconds
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        _check(connection)
        connection.execute("BEGIN")
        return _read(connection, query)
    except sqlite3.Error as error:
        raise HistoryUnreadableError(_explain(error)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise HistoryUnreadableError(f"it is damaged: {error}") from error
    finally:
        connection.close()


def read_last_id(path: Path) -> int | None:
    """Return the highest number that is taken, 0 where there is no file; None when it cannot be told."""
    if not path.exists():
        return 0
    try:
        connection = _connect(path)
    except HistoryUnreadableError:
        return None
    try:
        last = connection.execute("SELECT max(id) FROM events").fetchone()[0]
    except (sqlite3.Error, UnicodeDecodeError):
        return None
    finally:
        connection.close()
    return last if isinstance(last, int) and 0 < last < LARGEST_ID else 0


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file to read. Where nobody writes it is whole by itself, and sqlite is to make nothing beside it.

    A daemon that writes, or that was killed, leaves a log there, which belongs to it.
    """
    if not path.exists():
        raise HistoryUnreadableError(f"there is no {path}")
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        return _try(how, path)
    except sqlite3.Error as error:
        raise HistoryUnreadableError(_explain(error)) from error
    except UnicodeDecodeError as error:  # sqlite quotes what is damaged in its message
        raise HistoryUnreadableError(f"it is damaged: {error}") from error


def _try(how: str, path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=1.0, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != schema.APPLICATION_ID:
        raise HistoryUnreadableError("balancerd has not written it")
    if version != schema.VERSION:
        raise HistoryUnreadableError(f"it has version {version}, and this reads version {schema.VERSION}")


def _read(connection: sqlite3.Connection, query: Query) -> Page:
    where, values = _conditions(query)
    limit = max(1, min(query.limit, MOST_EVENTS))
    rows = connection.execute(f"{schema.SELECT}{where} ORDER BY id DESC LIMIT ?", (*values, limit)).fetchall()
    (fit,) = connection.execute(f"SELECT count(*) FROM events{where}", values).fetchone()  # noqa: S608 -- conditions are ours
    oldest = connection.execute("SELECT at FROM events ORDER BY id LIMIT 1").fetchone()
    events = tuple(map(schema.document, rows))
    wanted = {event["daemon"] for event in events}
    daemons = connection.execute("SELECT id, started_at, pid, version FROM daemons ORDER BY id").fetchall()
    if any(isinstance(value, bytes) for row in (*rows, *daemons, oldest or ()) for value in row):
        raise ValueError("bytes stand where a text or a number was")
    return Page(
        events=events,
        left_off=fit - len(events),
        oldest_at=None if oldest is None else oldest[0],
        daemons=tuple(
            {"id": number, "started_at_unix_seconds": started_at, "pid": pid, "version": version}
            for number, started_at, pid, version in daemons
            if number in wanted
        ),
    )


def _conditions(query: Query) -> tuple[str, tuple[object, ...]]:
    """Return the WHERE clause, "" for none, and its values."""
    asked: tuple[tuple[str, object], ...] = (
        ("at >= ?", query.since),
        ("at < ?", query.until),
        ("workload = CAST(? AS TEXT)", schema.encode(query.workload)),
        ("pid = ?", query.pid),
        ("policy = ?", query.policy),
        ("id < ?", query.before),
    )
    used = [(condition, value) for condition, value in asked if value is not None]
    return (
        f" WHERE {' AND '.join(condition for condition, _ in used)}" if used else "",
        tuple(value for _, value in used),
    )


def _explain(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return "it took too long: ask for less"
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return f"it is damaged: {error}"
    return str(error)
