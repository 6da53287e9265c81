"""The tables of the file, their versions, and an event as a row. It must not know when anything is written.

Names of processes are bytes: what is no UTF-8 is kept as it is, so texts go in through CAST, and come out through
`decode`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from balancerd.model.event import Event

APPLICATION_ID: Final = 0x62616C68
"""PRAGMA application_id: "balh"; a database with another one is not ours."""

SCRIPTS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE daemons (
            id INTEGER PRIMARY KEY,
            started_at REAL NOT NULL,
            pid INTEGER NOT NULL,
            version TEXT NOT NULL
        )""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            daemon INTEGER NOT NULL,
            tick INTEGER NOT NULL,
            kind TEXT NOT NULL,
            decision INTEGER,
            policy TEXT NOT NULL,
            action TEXT NOT NULL,
            pid INTEGER NOT NULL,
            start_ticks INTEGER NOT NULL,
            comm TEXT,
            workload TEXT,
            sources TEXT NOT NULL,
            target INTEGER,
            bytes INTEGER,
            counts TEXT NOT NULL,
            reason TEXT NOT NULL,
            detail TEXT NOT NULL,
            move INTEGER
        )""",
    ),
)
"""Script number n makes version n + 1 of version n; PRAGMA user_version tells which one a file has."""

VERSION: Final = len(SCRIPTS)

LONGEST_TEXT: Final = 500
"""Characters of a text that are kept."""

INSERT: Final = (
    "INSERT INTO events (id, at, daemon, tick, kind, decision, policy, action, pid, start_ticks, comm, workload, "
    "sources, target, bytes, counts, reason, detail, move) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
    "CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, CAST(? AS TEXT), ?)"
)

SELECT: Final = (
    "SELECT id, at, daemon, tick, kind, decision, policy, action, pid, start_ticks, comm, workload, sources, target, "
    "bytes, counts, reason, detail, move FROM events"
)

Row: TypeAlias = tuple[Any, ...]


def encode(text: str | None) -> bytes | None:
    """Return a text as the file holds it: the bytes that the kernel gave."""
    return None if text is None else text[:LONGEST_TEXT].encode("utf-8", "surrogateescape")


def decode(text: bytes) -> str:
    """Return a text of the file: the text factory of every connection that reads."""
    return text.decode("utf-8", "surrogateescape")


def rows(events: Iterable[tuple[float, Event]], daemon: int) -> list[Row]:
    """Return events of that daemon, each with its unix time, as INSERT wants them."""
    return [
        (
            event.id,
            at,
            daemon,
            event.tick,
            event.kind.value,
            event.decision,
            event.policy,
            event.action.value,
            event.process.pid,
            event.process.start_ticks,
            encode(event.comm),
            encode(event.workload),
            _spell(event.bytes_by_node),
            event.target,
            event.amount_bytes,
            _spell(event.counts),
            event.reason,
            encode(event.detail),
            event.move,
        )
        for at, event in events
    ]


def document(row: Row) -> dict[str, Any]:
    """Return what SELECT gave as an answer tells it: see control/history_api.py."""
    (event_id, at, daemon, tick, kind, decision, policy, action, pid, start_ticks, comm, workload, *rest) = row
    sources, target, amount_bytes, counts, reason, detail, move = rest
    return {
        "id": event_id,
        "at_unix_seconds": at,
        "kind": kind,
        "decision": decision,
        "policy": policy,
        "action": action,
        "pid": pid,
        "start_ticks": start_ticks,
        "comm": comm,
        "workload": workload,
        "from": json.loads(sources),
        "to": target,
        "bytes": amount_bytes,
        "counts": json.loads(counts),
        "reason": reason,
        "detail": detail,
        "move": move,
        "tick": tick,
        "daemon": daemon,
    }


def _spell(numbers: Mapping[Any, int]) -> str:
    return json.dumps({str(key): value for key, value in numbers.items()}, separators=(",", ":"))
