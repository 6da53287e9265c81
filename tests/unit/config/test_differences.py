"""What two configurations have different."""

from typing import Any

import pytest

from balancerd.config.differences import find_differences

HOME = {"name": "home", "kind": "follow-cpu"}
ROOM = {"name": "room", "kind": "packing"}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({"mode": "enforce"}, {"mode": "enforce"}, []),
        ({"mode": "enforce"}, {"mode": "observe"}, [("mode", "enforce", "observe")]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [("a.c", 2, 3)]),
        ({"a": None}, {"a": 0}, [("a", None, 0)]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [("a", [1, 2], [2, 1])]),
        ({"a": {"b": 1}}, {"a": None}, [("a", {"b": 1}, None)]),
        ({}, {"a": 1}, [("a", None, 1)]),
        ({"a": 1}, {}, [("a", 1, None)]),
        ({"p": [HOME]}, {"p": [{**HOME, "mode": "observe"}]}, [("p.home.mode", None, "observe")]),
        ({"p": [HOME]}, {"p": [HOME, ROOM]}, [("p.room", None, ROOM)]),
        ({"p": [HOME, ROOM]}, {"p": [ROOM]}, [("p.home", HOME, None)]),
        ({"p": [HOME, ROOM]}, {"p": [ROOM, HOME]}, [("p", ["home", "room"], ["room", "home"])]),
        ({"p": [HOME]}, {"p": []}, [("p.home", HOME, None)]),
        ({"p": [HOME, HOME]}, {"p": [HOME]}, [("p", [HOME, HOME], [HOME])]),
    ],
)
def test_each_key_that_differs_is_told(first: dict[str, Any], second: dict[str, Any], found: list[Any]) -> None:
    told = find_differences(first, second)
    assert [(each.key, each.before, each.after) for each in told] == found
    back = find_differences(second, first)
    assert sorted((each.key, str(each.after), str(each.before)) for each in back) == sorted(
        (key, str(before), str(after)) for key, before, after in found
    )


def test_what_is_not_there_is_told_from_what_is_null() -> None:
    (added,) = find_differences({}, {"a": None})
    assert (added.in_first, added.in_second) == (False, True)
