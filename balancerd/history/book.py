"""The keeping of events beside the loop: a queue with a bound, and one thread that writes what is in it.

Owns what is done about trouble: a damaged file is put aside and a new one begun, a full disk or a file that cannot be
written is tried again later, and what does not fit in the queue until then is counted and lost. The loop waits for none
of it, and nothing here raises into it. It must not know sqlite's tables.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from balancerd.engine.chronicle import Chronicle
from balancerd.history.store import DamagedError, MovedError, Store, UnusableError, put_aside
from balancerd.model.event import Event, EventKind, HistoryFigures
from balancerd.model.report import TickReport

MOST_OF_A_TICK: Final = 2000
"""Events of one tick that are kept: those of a storm tell the same again and again."""

MOST_QUEUED: Final = 10_000
"""Events, of about half a KiB each, that wait for the disk."""

MOST_OF_A_COMMIT: Final = 2000

RETRY_SECONDS: Final = 60.0
END_SECONDS: Final = 2.0
"""How long the end of the daemon waits for what is in the queue."""

_TROUBLE: Final = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_CANTOPEN: "read-only",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
}

_IMPORTANCE: Final = {EventKind.HELD: 2, EventKind.DECISION: 1}
"""What is left out last comes first; all other kinds tell what was done, and stay."""


class History:
    """The sink that keeps what the chronicle tells. `start` begins the thread, `close` ends it.

    `open_store` opens the file as it should be now. `tell` is given a line for people when trouble begins or ends; it
    is called by the thread. `unix_seconds` is the wall clock.
    """

    def __init__(
        self,
        path: Path,
        chronicle: Chronicle,
        open_store: Callable[[Path], Store],
        *,
        tell: Callable[[str], None],
        unix_seconds: Callable[[], float] = time.time,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._path = path
        self._chronicle = chronicle
        self._open_store = open_store
        self._tell = tell
        self._unix_seconds = unix_seconds
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._queue: deque[tuple[float, Event]] = deque()
        self._ends = False
        self._is_off = False
        self._trouble: str | None = None
        self._written = 0
        self._lost: dict[str, int] = dict.fromkeys(("queue", "limit", "end"), 0)
        self._errors: dict[str, int] = dict.fromkeys(("corrupt", "full", "read-only", "busy", "other"), 0)
        self._rows: int | None = None
        self._kept_bytes: int | None = None
        self._store: Store | None = None
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    # for the loop

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def emit(self, report: TickReport) -> None:
        """Queue the events of a finished tick; what finds no room is lost, and counted."""
        events = self._chronicle.of(report)
        if not events:
            return
        at, kept = self._unix_seconds(), _most_important(events)
        with self._changed:
            if self._is_off:
                return
            free = max(0, MOST_QUEUED - len(self._queue))
            self._lost["limit"] += len(events) - len(kept)
            self._lost["queue"] += max(0, len(kept) - free)
            self._queue.extend((at, event) for event in kept[:free])
            self._changed.notify()

    def close(self) -> None:
        """Write what is in the queue, if that can be done at once, and end."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    # for any thread

    def figures(self) -> HistoryFigures:
        """Return how it goes."""
        with self._changed:
            return HistoryFigures(
                written_events=self._written,
                lost_events=dict(self._lost),
                errors=dict(self._errors),
                rows=self._rows,
                kept_bytes=self._kept_bytes,
                trouble=self._trouble,
            )

    # the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ends or self._is_due(), self._patience())
                if self._ends and (not self._queue or self._trouble is not None):
                    break
                if not self._is_due():
                    continue
                batch = [self._queue[i] for i in range(min(len(self._queue), MOST_OF_A_COMMIT))]
            if not self._write(batch):
                if self._is_off:
                    break
                self._retry_at = time.monotonic() + self._retry_seconds
        if self._store is not None:
            self._store.close()
        with self._changed:
            self._lost["end"] += len(self._queue)
            self._queue.clear()

    def _is_due(self) -> bool:
        """Whether there is anything to do now: the file is opened before there is, so that its trouble is known."""
        return (bool(self._queue) or self._store is None) and time.monotonic() >= self._retry_at

    def _patience(self) -> float | None:
        return max(0.0, self._retry_at - time.monotonic()) if self._trouble is not None else None

    def _write(self, batch: Sequence[tuple[float, Event]]) -> bool:
        """Have a batch written, and take it out of the queue; False when that failed."""
        try:
            rows, kept_bytes = self._add(batch)
        except UnusableError as why:
            return self._fail("other", str(why), for_good=True)
        except sqlite3.IntegrityError:
            return self._fail("other", "another balancerd writes it, too", for_good=True)
        except TimeoutError as why:
            return self._fail("busy", str(why))
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", -1) & 0xFF
            kind = _TROUBLE.get(code, "read-only" if isinstance(error, OSError) else "other")
            return self._fail(kind, str(error))
        except Exception as error:  # noqa: BLE001 -- a thread that ends unseen would be worse than any line in the log
            return self._fail("other", f"{type(error).__name__}: {error}")
        self._succeed(len(batch), rows, kept_bytes)
        return True

    def _add(self, batch: Sequence[tuple[float, Event]]) -> tuple[int, int]:
        """Write a batch, and return what is kept then; a file that is damaged or gone is replaced, once."""
        for is_last in (False, True):
            try:
                if self._store is None:
                    self._store = self._open_store(self._path)
                if batch:
                    self._store.add(batch)
                return self._store.rows, self._store.size_bytes()
            except (DamagedError, MovedError) as why:
                self._close_store()
                if isinstance(why, DamagedError):
                    self._put_aside(why)
                if is_last:
                    raise OSError(f"a new file was no better: {why}") from why
        raise AssertionError("the second try ends one way or the other")

    def _put_aside(self, why: DamagedError) -> None:
        with self._changed:
            self._errors["corrupt"] += 1
        aside = put_aside(self._path, self._unix_seconds)
        self._tell(f"{self._path} is damaged ({why}): it is {aside.name} now, and a new one begins")

    def _succeed(self, written: int, rows: int, kept_bytes: int) -> None:
        with self._changed:
            for _ in range(written):
                self._queue.popleft()
            self._written += written
            self._rows, self._kept_bytes = rows, kept_bytes
            had, self._trouble = self._trouble, None
        if had is not None:
            self._tell(f"{self._path} is written again")

    def _fail(self, kind: str, why: str, *, for_good: bool = False) -> bool:
        """Take note of trouble, told once for as long as it lasts; the file is opened anew when it is tried again."""
        self._close_store()
        with self._changed:
            self._errors[kind] += 1
            had, self._trouble = self._trouble, why
            self._is_off = for_good
            if for_good:
                self._queue.clear()
        if for_good:
            self._tell(f"no history is kept in {self._path}: {why}")
        elif had is None:
            self._tell(f"{self._path} cannot be written, and is tried again later: {why}")
        return False

    def _close_store(self) -> None:
        if self._store is not None:
            store, self._store = self._store, None
            try:
                store.close()
            except sqlite3.Error as error:
                self._tell(f"{self._path}: {error}")


def _most_important(events: Sequence[Event]) -> Sequence[Event]:
    """Return as many events as a tick may leave, in their order: what was done before what was only wanted or held."""
    if len(events) <= MOST_OF_A_TICK:
        return events
    ranked = sorted(events, key=lambda event: (_IMPORTANCE.get(event.kind, 0), event.id))
    return sorted(ranked[:MOST_OF_A_TICK], key=lambda event: event.id)
