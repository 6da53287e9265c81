"""Whose turn it is."""

import pytest

from balancerd.control.turns import Turns


def waiting(*items: str) -> Turns[str]:
    """Items wait in this order; the first letter says who."""
    turns: Turns[str] = Turns()
    for item in items:
        turns.add(item[0], item)
    return turns


def taken(turns: Turns[str]) -> list[str]:
    found = []
    while turns:
        found.append(turns.take())
    return found


def test_who_asks_much_delays_itself() -> None:
    assert taken(waiting("a1", "a2", "a3", "a4", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_who_comes_while_others_wait_gets_a_turn_in_the_same_round() -> None:
    turns = waiting("a1", "a2", "a3")
    assert turns.take() == "a1"
    turns.add("b", "b1")
    assert taken(turns) == ["a2", "b1", "a3"]


def test_who_leaves_is_passed_over() -> None:
    turns = waiting("a1", "a2", "b1")
    turns.discard("b", "b1")
    turns.discard("a", "a1")
    turns.discard("a", "a9")
    turns.discard("z", "z1")
    assert list(turns) == ["a2"]
    assert taken(turns) == ["a2"]
    assert not turns


def test_where_nobody_waits_there_is_no_turn() -> None:
    with pytest.raises(IndexError):
        waiting().take()
