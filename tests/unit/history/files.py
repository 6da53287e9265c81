"""Files of history for tests: made by the store itself, in a folder of the test."""

import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from balancerd.engine.chronicle import Chronicle
from balancerd.history.book import History
from balancerd.history.store import Store
from balancerd.model.event import Action, Event, EventKind
from balancerd.model.ids import NodeId, ProcessId

MIB = 1 << 20
PATIENCE_SECONDS = 20.0


def an_event(
    number: int,
    *,
    kind: EventKind = EventKind.MOVE,
    pid: int = 4242,
    comm: str | None = "spin",
    workload: str | None = "spin.service",
    policy: str = "home",
    detail: str = "",
) -> Event:
    """A move of one MiB from node 1 to node 0."""
    return Event(
        id=number,
        kind=kind,
        tick=7,
        decision=1,
        policy=policy,
        process=ProcessId(pid, 1000),
        comm=comm,
        workload=workload,
        action=Action.MIGRATE,
        bytes_by_node={NodeId(1): MIB},
        target=NodeId(0),
        amount_bytes=MIB,
        counts={"moved": 256},
        reason="misplaced",
        detail=detail,
        move=3,
    )


def open_store(path: Path, *, max_rows: int = 1000, max_bytes: int = 16 * MIB, started_at: float = 500.0) -> Store:
    return Store(path, max_rows=max_rows, max_bytes=max_bytes, version="1.2.3", started_at=started_at)


def a_file(path: Path, events: Iterable[Event], *, at: float = 1000.0) -> Path:
    """A file with events a second apart, closed."""
    store = open_store(path)
    store.add([(at + number, event) for number, event in enumerate(events)])
    store.close()
    return path


def ask(path: Path, question: str) -> object:
    connection = sqlite3.connect(path)
    try:
        (answer,) = connection.execute(question).fetchone()
    finally:
        connection.close()
    return answer


def run_sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def a_history(
    path: Path, told: list[str], *, retry_seconds: float = 0.05, open_with: Callable[[Path], Store] = open_store
) -> History:
    return History(
        path, Chronicle(), open_with, tell=told.append, unix_seconds=lambda: 1000.0, retry_seconds=retry_seconds
    )


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for the history's thread."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)
