"""What `top` takes from frames: rates, who holds a node, states, what is wrong; bars and sparklines."""

from typing import Any

import pytest

from balancerd.cli.top import marks
from balancerd.cli.top.frame import Frame, Rates, SchemaError, Share, by_state, held_by, of_answers, of_event, warnings
from balancerd.cli.top.rows import next_move, rate, shares
from tests.unit.cli.top.frames import a_frame, an_event

GIB = 1 << 30


def rates_of(*frames: Frame) -> list[float]:
    rates = Rates()
    for frame in frames:
        rates.note(frame)
    return list(rates.rates)


def test_what_was_moved_is_the_difference_between_ticks_in_a_second() -> None:
    first, second, third = (a_frame(tick=n, moved_bytes=b) for n, b in [(1, 0), (2, 4000), (3, 4000)])
    assert rates_of(first) == []
    assert rates_of(first, second, third) == [2000.0, 0.0]
    assert Rates().last() is None


def test_missed_ticks_share_what_was_moved_in_them_and_the_same_tick_again_tells_nothing() -> None:
    first, later = a_frame(tick=1, moved_bytes=0), a_frame(tick=4, moved_bytes=12000)
    assert rates_of(first, first, later, later) == [2000.0, 2000.0, 2000.0]


@pytest.mark.parametrize(("pid", "tick"), [(900, 9), (812, 1)])
def test_another_daemon_begins_anew(pid: int, tick: int) -> None:
    first, second = a_frame(tick=4, moved_bytes=0), a_frame(tick=5, moved_bytes=2000)
    assert rates_of(first, second, a_frame(moved_bytes=0, pid=pid, tick=tick)) == []


def test_an_event_has_the_age_of_when_it_was_sent() -> None:
    assert of_event(an_event(age_seconds=3.5)).status["tick"]["age_seconds"] == 3.5


def test_another_version_of_the_api_is_told_apart() -> None:
    event = an_event()
    with pytest.raises(SchemaError):
        of_event({**event, "schema": 2})
    with pytest.raises(SchemaError):
        of_answers({**event["status"], "schema": 2}, event["top"])
    assert of_answers(event["status"], event["top"]).missed == 0


def node(free: int | None = GIB, total: int = 4 * GIB) -> dict[str, Any]:
    return {"node": 1, "total_bytes": total, "free_bytes": free}


def workload(name: str, held: int | None) -> dict[str, Any]:
    return {"name": name, "bytes_by_node": None if held is None else {"1": held, "0": 9 * GIB}}


@pytest.mark.parametrize(
    ("told", "workloads", "expected"),
    [
        (node(), [], [("", 0.75)]),
        (node(), [workload("a", GIB), workload("b", 2 * GIB)], [("b", 0.5), ("a", 0.25), ("", 0.0)]),
        (node(), [workload("a", GIB), workload("b", None)], [("a", 0.25), ("", 0.5)]),
        (node(), [workload("a", 9 * GIB), workload("b", GIB)], [("a", 0.75), ("", 0.0)]),
        (node(), [workload(n, GIB // 4) for n in "edcba"], [("a", 0.0625), ("b", 0.0625), ("c", 0.0625), ("", 0.5625)]),
        (node(total=0), [workload("a", GIB)], []),
        (node(free=None), [workload("a", GIB)], []),
    ],
)
def test_who_holds_a_node_is_named_most_first_and_the_rest_is_what_is_used_beside(
    told: dict[str, Any], workloads: list[dict[str, Any]], expected: list[tuple[str, float]]
) -> None:
    assert held_by(told, workloads) == tuple(Share(name=name, ratio=ratio) for name, ratio in expected)


def test_states_come_as_people_want_to_know_them_and_count_small_ones() -> None:
    assert by_state(a_frame().status) == [
        ("moving", 1),
        ("held", 1),
        ("unsampled", 1),
        ("well-placed", 1),
        ("small", 90),
        ("unselected", 1),
    ]
    assert by_state({"counts": None}) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"paused": True, "paused_detail": "node 1 is\x1b full"}, [r"paused: node 1 is\x1b full"]),
        (
            {"paused": True, "paused_detail": "x", "pause": {"since_seconds": 3.0, "left_seconds": None}},
            ["paused by an operator"],
        ),
        (
            {"paused": True, "paused_detail": "x", "pause": {"since_seconds": 3.0, "left_seconds": 90.0}},
            ["paused by an operator for 1m30s more"],
        ),
        (
            {"disabled_policies": {"home": {"cause": "slow", "detail": "took 6 s"}}},
            ["policy home disabled: took 6 s"],
        ),
        (
            {"config": {"path": None, "last_reload": {"succeeded": False, "at_unix_seconds": 1.0, "error": "line 3"}}},
            ["reload failed, the old configuration stays: line 3"],
        ),
        (
            {"managers": [{"manager": "numad", "active": True, "yields": True, "detail": "pid 7"}]},
            ["yields to numad: pid 7"],
        ),
        ({"managers": [{"manager": "numad", "active": True, "yields": False, "detail": "pid 7"}]}, []),
    ],
)
def test_what_is_wrong_is_told_in_words(changed: dict[str, Any], told: list[str]) -> None:
    assert warnings(a_frame(**{"managers": [], **changed}).status) == told


def test_a_tick_that_does_not_come_is_a_stall() -> None:
    assert warnings(a_frame(age_seconds=61.0, managers=[]).status) == ["stalled: no tick has ended for 1m1s"]


@pytest.mark.parametrize(
    ("values", "blocks", "drawn"),
    [
        ([], True, ""),
        ([0.0, 0.0], True, "··"),
        ([0.0, 1.0, 4.0, 8.0], True, "·▁▄█"),
        ([0.0, 1.0, 4.0, 8.0], False, ".148"),
        ([0.001, 1000.0], True, "▁█"),
    ],
)
def test_heights_are_relative_to_the_largest_and_only_nothing_is_nothing(
    values: list[float], blocks: bool, drawn: str
) -> None:
    assert marks.heights(values, blocks=blocks) == drawn


@pytest.mark.parametrize(
    ("held", "drawn"),
    [
        (None, "???"),
        ({}, "···"),
        ({"0": 5}, "█··"),
        ({"0": 1, "2": 3}, "▂·▆"),
        ({"0": 999, "1": 1}, "█▁·"),
        ({"7": 1}, "···"),
    ],
)
def test_each_node_has_a_bar_of_its_share(held: dict[str, int] | None, drawn: str) -> None:
    assert marks.by_node(held, ["0", "1", "2"], blocks=True) == drawn


def test_a_sparkline_shows_the_latest() -> None:
    assert marks.spark([8.0, 1.0, 4.0, 8.0], 3, blocks=True) == "▁▄█"
    assert marks.spark([8.0], 0, blocks=True) == ""


@pytest.mark.parametrize(
    ("ratios", "cells", "parts"),
    [
        ([], 10, []),
        ([0.5, 0.25], 8, [4, 2]),
        ([0.33, 0.33, 0.34], 10, [3, 4, 3]),
        ([0.04, 0.04, 0.04], 10, [0, 1, 0]),
        ([0.9, 0.9], 10, [9, 1]),
    ],
)
def test_cells_are_dealt_out_so_that_their_sum_is_right(ratios: list[float], cells: int, parts: list[int]) -> None:
    assert marks.split(ratios, cells) == parts


def test_the_rest_always_has_the_fill_of_the_rest() -> None:
    assert [marks.fills(n, blocks=True) for n in (0, 1, 3, 4)] == [[], ["░"], ["█", "▓", "░"], ["█", "▓", "▒", "░"]]
    assert marks.fills(4, blocks=False) == ["#", "=", "+", "-"]


def test_cells_say_unknown_nothing_and_something_apart() -> None:
    assert [rate(value) for value in (None, 0.0, 2048.0)] == ["-", "", "2KiB"]
    assert [next_move(move) for move in (None, {"pending_bytes": 2048, "target": 3})] == ["", "2KiB to 3"]
    assert [shares(held) for held in (None, {}, {"0": 1, "1": 3})] == [None, None, {"0": 0.25, "1": 0.75}]
