"""Names of users in the configuration become their numbers, once, when the file is loaded.

Owns where such names may stand. A name that nobody has stays a text, which the settings refuse at that very place.
Pure: the loader gives the function that asks the machine. It must not know what the numbers are for.
"""

from collections.abc import Callable, Sequence
from typing import Final

from balancerd.config.nodes import Entry, Items, Node, Scalar, Table

_EACH: Final = "*"
_PLACES: Final[Sequence[Sequence[str]]] = (
    ("select", "include", _EACH, "uid"),
    ("select", "exclude", _EACH, "uid"),
    ("workloads", _EACH, "match", _EACH, "uid"),
    ("policies", _EACH, "match", _EACH, "uid"),
    ("policies", _EACH, "rules", _EACH, "match", _EACH, "uid"),
)


def resolve_users(root: Table, find_uid: Callable[[str], int | None]) -> Table:
    """Return the tree with the number of each user that `find_uid` finds in place of the name."""
    for path in _PLACES:
        changed = _resolve(root, path, find_uid)
        root = changed if isinstance(changed, Table) else root
    return root


def _resolve(node: Node, path: Sequence[str], find_uid: Callable[[str], int | None]) -> Node:
    match node:
        case Scalar(value=str(name)) if not path:
            uid = find_uid(name)
            return node if uid is None else Scalar(place=node.place, value=uid)
        case Items() if not path or path[0] == _EACH:
            return Items(place=node.place, nodes=tuple(_resolve(each, path[1:], find_uid) for each in node.nodes))
        case Table() if path and path[0] in node.entries:
            entry = node.entries[path[0]]
            changed = Entry(place=entry.place, node=_resolve(entry.node, path[1:], find_uid))
            return Table(place=node.place, entries={**node.entries, path[0]: changed})
    return node
