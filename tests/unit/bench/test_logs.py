"""What rivals say of their moves, read from their own logs of one run each."""

import json
from typing import Any

import pytest

from tests.bench.locality import logs
from tests.bench.locality.logs import Move
from tests.unit.kernel.trees import MACHINES

LOGS = MACHINES / "locality-6.12/var/log"
NUMAD = (LOGS / "numad.log").read_text(encoding="utf-8")
OURS = (LOGS / "balancerd.log").read_text(encoding="utf-8")
OFFSET = 1795294150.0
"""CLOCK_REALTIME less CLOCK_MONOTONIC: about what it was there."""


def line(event: str, second: int, **values: Any) -> dict[str, Any]:
    """A line as balancerd writes it, at a second after the offset."""
    return {"timestamp": f"2026-11-21T20:49:{10 + second:02}.500000Z", "level": "debug", "event": event, **values}


def step(
    second: int, *, pid: int = 7, target: int = 0, move: int = 1, pages: int = 10, **failed: int
) -> dict[str, Any]:
    return line(
        "migration",
        second,
        pid=pid,
        target=target,
        move=move,
        moved_pages=pages,
        failed_pages=failed,
        calls=2,
        longest_call_seconds=second / 10,
    )


def test_numad_s_move_is_found_in_its_log_with_what_it_said_of_it() -> None:
    assert logs.numad_moves(NUMAD) == (Move(pid=225, to="3", seconds=8.4),)
    assert logs.numad_lines(NUMAD) == (
        "Sat Nov 21 20:49:42 2026: Advising pid 225 (hog) move from nodes (0-3) to nodes (3)",
        "Sat Nov 21 20:49:42 2026: Moving memory from node: 2 to node 3",
        "Sat Nov 21 20:49:50 2026: PID 225 moved to node(s) 3 in 8.4 seconds",
    )


@pytest.mark.parametrize(
    "said",
    [
        "Tried to move PID 12, but 77 pages would not move.",
        "Tried to move PID 12, but it apparently went away.",
        "Process 12 already 95 percent localized to target nodes.",
        "Bad sched_setaffinity() on PID 12, TID 13 -- errno: 22",
    ],
)
def test_what_came_of_a_try_is_told_and_is_no_move(said: str) -> None:
    text = f"Sat Nov 21 20:49:50 2026: {said}\n"
    assert logs.numad_lines(text) == (text.strip(),)
    assert logs.numad_moves(text) == ()


def test_lines_about_the_machine_are_no_moves() -> None:
    assert logs.numad_lines("Sat Nov 21 20:49:30 2026: Nodes: 4\nNode 0: MBs_total 1007, MBs_free    986\n") == ()


def test_our_move_is_one_however_many_steps_it_took() -> None:
    (move,) = logs.balancerd_moves(logs.parse_log(OURS), OFFSET)
    steps = [told for told in logs.parse_log(OURS) if told["event"] == "migration"]
    assert len(steps) == 6
    assert (move.pid, move.to, move.move_id, move.steps) == (233, "0", 1, 6)
    assert move.moved_bytes == sum(told["moved_pages"] for told in steps) * 4096 == 13312 * 4096
    assert move.failed_pages == {}
    assert move.calls == 104
    assert move.longest_call_seconds == 0.260827
    assert (move.decided_at, move.ended_at) == (128.719, 139.467)


def test_reasons_are_told_when_they_change() -> None:
    changes = logs.reason_changes(logs.parse_log(OURS), [233], OFFSET)
    reasons = [change["reason"] for change in changes]
    assert reasons == ["below-min-age", "home-too-young", "misplaced", "call-failed"]
    assert changes[0] == {"at": 94.964, "pid": 233, "reason": "below-min-age", "detail": "4 of 30 s"}
    assert logs.reason_changes(logs.parse_log(OURS), [1], OFFSET) == ()


def test_what_was_warned_of_is_told() -> None:
    (warning,) = logs.troubles(logs.parse_log(OURS))
    assert warning["event"] == "configuration"


def test_moves_are_kept_apart_by_process_target_and_number() -> None:
    lines = [
        line("decision", 0, pid=7, target=0),
        line("decision", 1, pid=7, target=0),
        line("decision", 1, pid=8, target=1),
        step(2, pid=7),
        step(2, pid=8, target=1, move=2),
        line("decision", 3, pid=7, target=0),
        step(3, pid=7, ebusy=4),
        line("decision", 9, pid=7, target=3),
        step(10, pid=7, target=3, move=3),
        step(11, pid=7, target=0, move=4),
    ]
    moves = logs.balancerd_moves(lines, OFFSET)
    told = [(move.pid, move.to, move.move_id, move.steps, move.decided_at, move.ended_at) for move in moves]
    assert told == [
        (7, "0", 1, 2, 0.5, 3.5),
        (8, "1", 2, 1, 1.5, 2.5),
        (7, "3", 3, 1, 9.5, 10.5),
        (7, "0", 4, 1, None, 11.5),
    ]
    assert moves[0].failed_pages == {"ebusy": 4}
    assert moves[0].longest_call_seconds == 0.3


def test_a_last_line_that_is_cut_off_is_left_out() -> None:
    whole = json.dumps(line("tick", 1))
    assert logs.parse_log(f"Traceback\n{whole}\n{whole[:30]}") == (json.loads(whole),)
