"""What rivals say of their moves in their logs, as plain data for the result of a boot.

Pure: texts in, records out. Must not know who started the rivals, nor where their logs are.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

PAGE_BYTES = 4096

TELLING = (
    re.compile(r"Advising pid \d+ .* move from nodes"),
    re.compile(r"PID (?P<pid>\d+) moved to node\(s\) (?P<to>\S+) in (?P<seconds>[\d.]+) seconds"),
    re.compile(r"Moving memory from node: \d+ to node \d+"),
    re.compile(r"Tried to move PID \d+"),
    re.compile(r"Process \d+ already \d+ percent localized"),
    re.compile(r"Could not migrate pid \d+"),
    re.compile(r"Bad sched_setaffinity\(\) on PID \d+"),
)
"""The lines of numad's log about moves, whatever came of them; the second tells of a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of a process: where to, when it ended, and what else is known of it.

    Times are of CLOCK_MONOTONIC, as logged: at the end of a tick. `decided_at` is when it was first said that this
    process should go there, `ended_at` the end of the last step, `seconds` how long it took as told, `move_id`
    balancerd's number of the move, `failed_pages` those that stayed, by status, `steps` the pieces it was done in.
    """

    pid: int
    to: str
    decided_at: float | None = None
    ended_at: float | None = None
    seconds: float | None = None
    move_id: int | None = None
    moved_bytes: int | None = None
    failed_pages: Mapping[str, int] | None = None
    steps: int | None = None
    calls: int | None = None
    longest_call_seconds: float | None = None


def numad_lines(text: str) -> tuple[str, ...]:
    """Return the lines of numad's log (`-l 7`) that are about moving, as they stand."""
    return tuple(line for line in text.splitlines() if any(pattern.search(line) for pattern in TELLING))


def numad_moves(text: str) -> tuple[Move, ...]:
    """Return the moves that numad says it has made. It does not tell how much went, nor, to the second, when."""
    found = (TELLING[1].search(line) for line in text.splitlines())
    return tuple(
        Move(pid=int(match["pid"]), to=match["to"], seconds=float(match["seconds"])) for match in found if match
    )


def parse_log(text: str) -> tuple[dict[str, Any], ...]:
    """Return the lines of balancerd's log in JSON; others, such as a last one that is cut off, are left out."""
    return tuple(json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}"))


def monotonic_of(line: Mapping[str, Any], clock_offset_seconds: float) -> float:
    """Return when a line of balancerd's was written; the offset is CLOCK_REALTIME less CLOCK_MONOTONIC."""
    return round(datetime.fromisoformat(line["timestamp"]).timestamp() - clock_offset_seconds, 3)


def balancerd_moves(lines: Iterable[Mapping[str, Any]], clock_offset_seconds: float) -> tuple[Move, ...]:
    """Return one record for each move that its log (`log.level=debug`) tells of, in the order of their beginnings.

    A decision counts for the next move of its process to that node; one without a move is in no record.
    """
    decided: dict[tuple[int, int], float] = {}
    moves: dict[tuple[int, int, int], Move] = {}
    for line in lines:
        if line["event"] == "decision":
            decided.setdefault((line["pid"], line["target"]), monotonic_of(line, clock_offset_seconds))
        elif line["event"] == "migration":
            key = (line["pid"], line["target"], line["move"])
            fresh = Move(pid=key[0], to=str(key[1]), move_id=key[2], decided_at=decided.pop(key[:2], None))
            moves[key] = _with_step(moves.get(key, fresh), line, clock_offset_seconds)
    return tuple(moves.values())


def _with_step(move: Move, line: Mapping[str, Any], clock_offset_seconds: float) -> Move:
    return replace(
        move,
        ended_at=monotonic_of(line, clock_offset_seconds),
        moved_bytes=(move.moved_bytes or 0) + line["moved_pages"] * PAGE_BYTES,
        failed_pages=dict(Counter(move.failed_pages or {}) + Counter(line["failed_pages"])),
        steps=(move.steps or 0) + 1,
        calls=(move.calls or 0) + line["calls"],
        longest_call_seconds=max(move.longest_call_seconds or 0.0, line["longest_call_seconds"]),
    )


def reason_changes(
    lines: Iterable[Mapping[str, Any]], pids: Iterable[int], clock_offset_seconds: float
) -> tuple[dict[str, Any], ...]:
    """Return when which of these processes came under which reason, as balancerd's log tells."""
    wanted = frozenset(pids)
    return tuple(
        {
            "at": monotonic_of(line, clock_offset_seconds),
            "pid": line["pid"],
            "reason": line["reason"],
            "detail": line["detail"],
        }
        for line in lines
        if line["event"] == "reason changed" and line["pid"] in wanted
    )


def troubles(lines: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return what balancerd warned of."""
    return tuple(line for line in lines if line["level"] in {"warning", "error", "critical"})
