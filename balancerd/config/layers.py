"""One tree of settings laid over another: mappings merge, lists replace, and lists of named entries merge by name.

Pure. It must not know where the layers come from, nor any setting.
"""

from collections.abc import Iterator

from balancerd.config.nodes import Entry, Items, Node, Scalar, Table


def lay_over(base: Table, layer: Table) -> Table:
    """Return the base with everything that the layer sets; each node keeps the place where it was written."""
    entries = dict(base.entries)
    for key, entry in layer.entries.items():
        under = entries.get(key)
        entries[key] = entry if under is None else Entry(place=entry.place, node=_merged(under.node, entry.node))
    return Table(place=base.place, entries=entries)


def name_of(node: Node) -> str | None:
    """Return what an entry of a list is called, None where it has no name."""
    if isinstance(node, Table) and "name" in node.entries:
        named = node.entries["name"].node
        return named.value if isinstance(named, Scalar) and isinstance(named.value, str) else None
    return None


def _merged(under: Node, over: Node) -> Node:
    if isinstance(under, Table) and isinstance(over, Table):
        return lay_over(under, over)
    if isinstance(under, Items) and isinstance(over, Items) and _have_names(under) and _have_names(over):
        return Items(place=under.place, nodes=tuple(_by_name(under, over)))
    return over


def _by_name(under: Items, over: Items) -> Iterator[Node]:
    """Yield the entries of both: those known by name merged where they stood, new ones before the one written next."""
    new_before: dict[str | None, list[Node]] = {}
    known = {name_of(node) for node in under.nodes}
    waiting: list[Node] = []
    changed: dict[str | None, Table] = {}
    for node in over.nodes:
        name = name_of(node)
        if name in known and isinstance(node, Table):
            new_before.setdefault(name, []).extend(waiting)
            changed[name], waiting = node, []
        else:
            waiting.append(node)
    for node in under.nodes:
        name = name_of(node)
        yield from new_before.get(name, ())
        over_it = changed.get(name)
        yield node if over_it is None or not isinstance(node, Table) else _changed(node, over_it)
    yield from waiting


def _changed(entry: Table, over: Table) -> Table:
    """Return an entry with what is said of it later; of another kind it has nothing left from before."""
    kinds = [table.entries["kind"].node for table in (entry, over) if "kind" in table.entries]
    values = {kind.value for kind in kinds if isinstance(kind, Scalar)}
    return over if len(values) > 1 else lay_over(entry, over)


def _have_names(items: Items) -> bool:
    return all(name_of(node) is not None for node in items.nodes)
