"""The answer about what was decided and done: a question taken apart strictly, and a page of the history's file.

GET /v1/history?since=&until=&workload=&pid=&policy=&before=&limit=
    each may be left out; since and until are unix seconds, with a minus seconds before now (since=-7200); since is
    included, until is not; limit is 1 to 1000 (100 unless given); before is the id below which the page begins
    (400: not understood; 404: no history is kept; 503: it cannot be read at the moment, or that took too long)
    schema, events: newest first: [{id, at_unix_seconds, kind, decision (the id of the event of kind decision that this
            one belongs to, its own for such a one; null for an operator's command), policy, action ("migrate", "evict",
            "steer"), pid, start_ticks, comm, workload (both null where not known), from {node: bytes}, to (a node, or
            null), bytes (wanted, or done; null of threads), counts {status: pages}, of threads {fate: threads}, reason,
            detail, move (the id for undo while that daemon runs, or null), tick, daemon}]
        kind is decision (a policy wants something that it did not want a tick before), held (it was turned down, for
        another reason than a tick before), move, eviction, threads, or result (what a move came to: its reason is
        improved, neutral or worse)
    left_off (older events that fit, too), next_before (what to ask for next; null when that is all),
    oldest_at_unix_seconds (of all that is kept, or null), daemons: [{id, started_at_unix_seconds, pid, version}]
"""

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from balancerd.control.api import SCHEMA, Json
from balancerd.control.requests import BadRequest
from balancerd.history.reader import EVENTS, LARGEST_ID, MOST_EVENTS, HistoryUnreadableError, Page, Query

KEYS: Final = ("since", "until", "workload", "pid", "policy", "before", "limit")
LONGEST_NAME: Final = 4096
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_SECONDS: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)
_TURN_SECONDS: Final = 2.0
"""How long a question waits for the one before: one at a time is read, whoever asks."""


class HistoryDesk:
    """Answers from one file. `read` reads a page; `unix_seconds` is the wall clock."""

    def __init__(self, read: Callable[[Query], Page], unix_seconds: Callable[[], float] = time.time) -> None:
        self._read = read
        self._unix_seconds = unix_seconds
        self._turn = threading.Lock()

    def answer(self, query: str) -> Json:
        """Answer GET /v1/history. Raises BadRequest and HistoryUnreadableError."""
        asked = parse_query(query, now=self._unix_seconds())
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise HistoryUnreadableError("too many ask at once")
        try:
            return {"schema": SCHEMA, **self._read(asked).document()}
        finally:
            self._turn.release()


def parse_query(text: str, *, now: float) -> Query:
    """Return what a query string asks for, at unix second `now`. Raises BadRequest."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="surrogateescape")
    except ValueError as error:
        raise BadRequest("the question is not understood") from error
    asked = dict(pairs)
    if len(asked) != len(pairs) or not asked.keys() <= set(KEYS):
        raise BadRequest(f"only {', '.join(KEYS)} may be asked for, each once")
    given = {key: value for key, value in asked.items() if value}
    return Query(
        since=_seconds(given, "since", now),
        until=_seconds(given, "until", now),
        workload=_name(given, "workload"),
        pid=_number(given, "pid", 1 << 22),
        policy=_name(given, "policy"),
        before=_number(given, "before", LARGEST_ID),
        limit=_number(given, "limit", MOST_EVENTS) or EVENTS,
    )


def _seconds(given: Mapping[str, str], key: str, now: float) -> float | None:
    text = given.get(key)
    if text is None:
        return None
    if not _SECONDS.fullmatch(text) or not math.isfinite(float(text)):
        raise BadRequest(f"{key} is unix seconds, or with a minus seconds before now, such as -7200")
    return now + float(text) if text.startswith("-") else float(text)


def _number(given: Mapping[str, str], key: str, largest: int) -> int | None:
    text = given.get(key)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > largest:
        raise BadRequest(f"{key} is a number from 1 to {largest}")
    return int(text)


def _name(given: Mapping[str, str], key: str) -> str | None:
    text = given.get(key)
    if text is not None and len(text) > LONGEST_NAME:
        raise BadRequest(f"{key} has at most {LONGEST_NAME} characters")
    return text
