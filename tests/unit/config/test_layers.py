import pytest

from balancerd.config import yaml_source
from balancerd.config.layers import lay_over
from balancerd.config.nodes import Table, find_place, to_plain

STACK = "policies: [{name: a, kind: drain, nodes: [1]}, {name: b, kind: follow-cpu, min_home_age: 3s}]"


def tree(text: str, path: str) -> Table:
    root = yaml_source.read_text(text, path).root
    assert root is not None
    return root


def merged(base: str, *layers: str) -> Table:
    root = tree(base, "base")
    for layer in layers:
        root = lay_over(root, tree(layer, "layer"))
    return root


@pytest.mark.parametrize(
    ("base", "layer", "becomes"),
    [
        ("a: 1", "b: 2", {"a": 1, "b": 2}),
        ("a: 1", "a: 2", {"a": 2}),
        ("a: {b: 1, c: 2}", "a: {c: 3, d: 4}", {"a": {"b": 1, "c": 3, "d": 4}}),
        ("a: {b: 1}", "a: 5", {"a": 5}),
        ("a: 5", "a: {b: 1}", {"a": {"b": 1}}),
        ("a: {b: 1}", "a:", {"a": None}),
        ("a: [1, 2]", "a: [3]", {"a": (3,)}),
        ("a: [{comm: x}, {comm: y}]", "a: [{comm: z}]", {"a": ({"comm": "z"},)}),
        ("a: [{name: x}]", "a: [{comm: z}]", {"a": ({"comm": "z"},)}),
        ("a: [{name: x, b: 1}]", "a: []", {"a": ({"name": "x", "b": 1},)}),
        ("a: []", "a: [{name: x}]", {"a": ({"name": "x"},)}),
        ("a: [{name: 5}]", "a: [{name: x}]", {"a": ({"name": "x"},)}),
    ],
)
def test_mappings_merge_and_lists_replace(base: str, layer: str, becomes: object) -> None:
    assert to_plain(merged(base, layer)) == becomes


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        ("[{name: c}]", "abc"),
        ("[{name: c}, {name: b}]", "acb"),
        ("[{name: c}, {name: a}]", "cab"),
        ("[{name: a}, {name: c}]", "abc"),
        ("[{name: c}, {name: a}, {name: d}, {name: b}, {name: e}]", "cadbe"),
        ("[{name: b}, {name: c}, {name: a}]", "cab"),
    ],
)
def test_new_entries_go_before_the_known_one_that_is_written_next(layer: str, names: str) -> None:
    plain = to_plain(merged(STACK, f"policies: {layer}"))
    assert isinstance(plain, dict)
    assert "".join(entry["name"] for entry in plain["policies"]) == names


def test_an_entry_of_a_known_name_is_changed_and_one_of_another_kind_is_replaced() -> None:
    plain = to_plain(
        merged(STACK, "policies: [{name: b, mode: observe}, {name: a, kind: rule}]", "policies: [{name: a, to: 0}]")
    )
    assert plain == {
        "policies": (
            {"name": "a", "kind": "rule", "to": 0},
            {"name": "b", "kind": "follow-cpu", "min_home_age": "3s", "mode": "observe"},
        )
    }


def test_each_value_keeps_the_place_where_it_was_written() -> None:
    root = merged("a: {b: 1, c: 2}\n" + STACK, "\n\na: {c: 3}\npolicies: [{name: b, min_home_age: 9s}]")
    assert str(find_place(root, ("a", "b"))) == "base:1:8"
    assert str(find_place(root, ("a", "c"))) == "layer:3:8"
    assert str(find_place(root, ("policies", 1, "kind"))) == "base:2:64"
    assert str(find_place(root, ("policies", 1, "min_home_age"))) == "layer:4:36"
