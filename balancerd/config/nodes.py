"""The tree a configuration is read into: plain values that remember where they were written.

Owns looking things up in such trees and flattening them; layers of configuration (file, --set) are put together as
trees before anything is validated. Pure. It must not know YAML syntax or any setting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from balancerd.config.findings import Place

Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value without parts."""

    place: Place
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list of nodes."""

    place: Place
    nodes: tuple["Node", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key's place and its value."""

    place: Place
    node: "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A mapping from keys to entries, in the order written."""

    place: Place
    entries: Mapping[str, Entry]


Node: TypeAlias = Scalar | Items | Table


def to_plain(node: Node) -> object:
    """The node as dicts, tuples and scalars, which is what pydantic validates."""
    match node:
        case Scalar():
            return node.value
        case Items():
            return tuple(to_plain(each) for each in node.nodes)
        case Table():
            return {key: to_plain(entry.node) for key, entry in node.entries.items()}


def from_plain(value: object, place: Place) -> Node:
    """The inverse of to_plain, for lists too; every node gets the same place. Raises TypeError for other data."""
    match value:
        case None | str() | int() | float():
            return Scalar(place=place, value=value)
        case dict():
            entries = {str(key): Entry(place=place, node=from_plain(each, place)) for key, each in value.items()}
            return Table(place=place, entries=entries)
        case list() | tuple():
            return Items(place=place, nodes=tuple(from_plain(each, place) for each in value))
    raise TypeError(f"{type(value).__name__} is no plain data")


def find_place(root: Node, path: Sequence[str | int], *, key: bool = False) -> Place:
    """Where the value at `path` was written, or its key; for a path that leaves the tree, the last node on the way."""
    node, place = root, root.place
    for step in path:
        if isinstance(node, Table) and (entry := node.entries.get(str(step))) is not None:
            node = entry.node
            place = entry.place if key else node.place
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.nodes):
            node = node.nodes[step]
            place = node.place
        else:
            return node.place
    return place


def list_origins(root: Node, prefix: str = "") -> Iterator[tuple[str, Place]]:
    """The dotted key of each scalar and of each empty list ("policies.0.kind"), and where its value was written."""
    match root:
        case Scalar() | Items(nodes=()):
            yield prefix, root.place
        case Items():
            for index, each in enumerate(root.nodes):
                yield from list_origins(each, f"{prefix}.{index}")
        case Table():
            for key, entry in root.entries.items():
                yield from list_origins(entry.node, f"{prefix}.{key}" if prefix else key)
