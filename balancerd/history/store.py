"""The file: opened, checked, brought to this version, added to, and kept within its bounds. One thread's alone.

Owns what makes a file usable, damaged, or none of ours. It must not know queues, nor what is done about trouble.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from balancerd.config.custody import objection
from balancerd.history import schema
from balancerd.model.event import Event

LOCK_SECONDS: Final = 1.0
"""How long to wait for another process that holds the file."""

CACHE_KIB: Final = 512

DELETED_RATIO: Final = 0.05
"""Of the oldest rows this share goes at once when the file is full."""

KEPT_ASIDE: Final = 2
"""Damaged files that are kept; older ones are removed, so that a broken disk does not fill with them."""


class DamagedError(Exception):
    """What is in the file is not to be trusted; the message says what is wrong."""


class UnusableError(Exception):
    """The file is in order, and not for this balancerd to write: a newer version's, or another program's."""


class MovedError(Exception):
    """The file has been removed or replaced since it was opened."""


class Store:
    """The open file of one daemon. Raises sqlite3.Error and OSError, beside what it says.

    Opening it makes the file when there is none, for the daemon's user only, and checks it. `max_bytes` bounds it
    with what sqlite keeps beside it.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_rows: int,
        max_bytes: int,
        version: str,
        started_at: float,
        scripts: Sequence[Sequence[str]] = schema.SCRIPTS,
    ) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        is_new = _make(path)
        self._file = _identity(path)
        self._connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None
        )
        try:
            self._open(scripts, is_new=is_new)
            self._daemon = self._sign(version, started_at)
            self.rows: int = self._ask("SELECT count(*) FROM events")
        except BaseException as error:
            self._connection.close()
            if is_damage(error):
                raise DamagedError(str(error)) from error
            raise

    def add(self, events: Iterable[tuple[float, Event]]) -> None:
        """Write events down in one commit, and drop the oldest beyond the bounds.

        Raises DamagedError, MovedError, and TimeoutError while a reader keeps sqlite from reusing its log.
        """
        if _identity(self._path) != self._file:
            raise MovedError
        try:
            self._bound_log()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                added = schema.rows(events, self._daemon)
                self._connection.executemany(schema.INSERT, added)
                rows = self.rows + len(added)
                rows -= self._drop(rows)
                self._connection.execute("COMMIT")
                self.rows = rows
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            if self._ask("PRAGMA page_count") * self._page_bytes > self._room_bytes:
                self._connection.executescript("PRAGMA incremental_vacuum")  # execute() would give back one page only
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise DamagedError(str(error)) from error
            raise

    def size_bytes(self) -> int:
        """Return how much the file takes, with what sqlite keeps beside it."""
        return _size(self._path) + _size(self._log)

    def close(self) -> None:
        """Close the file; when nobody else reads it, sqlite's log goes into it."""
        self._connection.close()

    def _open(self, scripts: Sequence[Sequence[str]], *, is_new: bool) -> None:
        connection = self._connection
        told = self._ask("PRAGMA quick_check(1)")
        if told != "ok":
            raise DamagedError(str(told).partition("\n")[0])
        is_empty = self._ask("SELECT count(*) FROM sqlite_master") == 0
        if not is_empty and self._ask("PRAGMA application_id") != schema.APPLICATION_ID:
            raise UnusableError("it is the database of another program: name another file in history.path")
        version = self._ask("PRAGMA user_version")
        if version > len(scripts):
            known = f"this balancerd writes version {len(scripts)}"
            raise UnusableError(f"it has version {version}, {known}: move it away, or install the newer one again")
        if is_new or is_empty:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if self._ask("PRAGMA journal_mode = WAL") != "wal":
            raise UnusableError("sqlite can keep no write-ahead log beside it: name a file on a local disk")
        connection.execute("PRAGMA synchronous = NORMAL")
        self._page_bytes: int = self._ask("PRAGMA page_size")
        log_pages = max(16, min(1000, self._max_bytes // 8 // self._page_bytes))
        self._room_bytes = self._max_bytes - 2 * log_pages * self._page_bytes
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_pages}")
        connection.execute(f"PRAGMA journal_size_limit = {log_pages * self._page_bytes}")
        for number in range(version, len(scripts)):
            self._raise_version(number + 1, scripts[number])

    def _raise_version(self, version: int, script: Sequence[str]) -> None:
        """Run one script, whole or not at all."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in script:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {version}")
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _sign(self, version: str, started_at: float) -> int:
        """Enter this daemon, unless it is there from before, and forget those of which nothing is left."""
        known = self._connection.execute(
            "SELECT id FROM daemons WHERE started_at = ? AND pid = ?", (started_at, os.getpid())
        ).fetchone()
        if known is not None:
            return int(known[0])
        self._connection.execute("DELETE FROM daemons WHERE id NOT IN (SELECT DISTINCT daemon FROM events)")
        entered = self._connection.execute(
            "INSERT INTO daemons (id, started_at, pid, version) "
            "VALUES ((SELECT max(coalesce((SELECT max(daemon) FROM events), 0), coalesce(max(id), 0)) + 1 "
            "FROM daemons), ?, ?, ?)",
            (started_at, os.getpid(), version),
        )
        return int(entered.lastrowid or 0)

    def _drop(self, rows: int) -> int:
        """Delete the oldest of so many rows until the bounds are met; return how many went."""
        dropped = 0
        if rows > self._max_rows:
            dropped = self._delete(rows - self._max_rows)
        while self._used_bytes() > self._room_bytes and dropped < rows:
            gone = self._delete(max(100, int(rows * DELETED_RATIO)))
            dropped += gone
            if not gone:
                break
        return dropped

    def _delete(self, count: int) -> int:
        oldest = "SELECT id FROM events ORDER BY id LIMIT ?"
        gone = self._connection.execute(f"DELETE FROM events WHERE id IN ({oldest})", (count,))  # noqa: S608 -- ours
        return max(0, gone.rowcount)

    def _used_bytes(self) -> int:
        used_pages: int = self._ask("PRAGMA page_count") - self._ask("PRAGMA freelist_count")
        return used_pages * self._page_bytes

    def _bound_log(self) -> None:
        """Have sqlite's log written back when it is large: whoever reads for long keeps it from that by itself."""
        if _size(self._log) <= self._max_bytes // 4:
            return
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if _size(self._log) > self._max_bytes // 2:
            raise TimeoutError("somebody reads it all the time, and its log cannot be written back")

    def _ask(self, question: str) -> Any:
        """Return the one value that answers a question."""
        return self._connection.execute(question).fetchone()[0]


def is_damage(error: BaseException) -> bool:
    """Return whether sqlite says that the file itself is wrong, and not the disk, a lock or the statement."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    if isinstance(error, UnicodeDecodeError):  # it quotes what is wrong, which is no text
        return True
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def put_aside(path: Path, now: Callable[[], float] = time.time) -> Path:
    """Rename a damaged file, with what sqlite keeps beside it, and return its new name. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now()))
    number, aside = 1, path.with_name(f"{path.name}.bad-{stamp}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.bad-{stamp}-{number}")
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    _forget_asides(path)
    return aside


def _forget_asides(path: Path) -> None:
    kept = sorted(p for p in path.parent.glob(f"{path.name}.bad-*") if not p.name.endswith(("-wal", "-shm")))
    for old in kept[:-KEPT_ASIDE]:
        for suffix in ("", "-wal", "-shm"):
            old.with_name(old.name + suffix).unlink(missing_ok=True)


def _make(path: Path) -> bool:
    """Make an empty file that only the daemon's user may read, when there is none; return whether it is new.

    A file that is there is not opened here: closing it would take the locks of this process with it, see fcntl(2).
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            raise UnusableError("it is no regular file") from None
        problem = objection(about)
        if problem is not None:
            raise UnusableError(problem) from None
        return False
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
