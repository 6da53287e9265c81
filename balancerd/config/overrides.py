"""`--set key=value`: one setting given on the command line, laid over the tree that came from the files.

Owns the syntax of such arguments: dotted keys, list items by number or, where they have one, by name, and a value
read by the rules of unquoted YAML scalars. Pure. It must not know any setting.
"""

from balancerd.config import scalars
from balancerd.config.findings import Finding, Place, error
from balancerd.config.layers import name_of
from balancerd.config.nodes import Entry, Items, Node, Scalar, Table, from_plain
from balancerd.config.units import ascii_safe, shorten


class _RefusedError(ValueError):
    """The argument names something that cannot be set."""


def override(root: Table, argument: str, defaults: object) -> tuple[Table, Finding | None]:
    """The tree with the setting laid over it, or the tree as it was and a finding.

    `defaults` is the plain data of the default configuration: where the files say nothing, list items are taken from
    it.
    """
    key, equals, text = ascii_safe(argument).partition("=")
    key = key.strip()
    place = Place(path=f"--set {key}" if key else "--set")
    steps = key.split(".")
    if not equals or not all(steps):
        return root, error(place, f"expected KEY=VALUE such as migrate.stall_target=10ms, got {shorten(argument)}")
    try:
        leaf = Scalar(place=place, value=scalars.resolve(text.strip()))
        changed = _lay(root, steps, leaf, defaults)
    except ValueError as reason:
        return root, error(place, str(reason))
    return (changed if isinstance(changed, Table) else root), None


def _lay(node: Node | None, steps: list[str], leaf: Scalar, defaults: object) -> Node:
    if not steps:
        return leaf
    if node is None and isinstance(defaults, list | tuple):
        node = from_plain(defaults, leaf.place)
    step, rest = steps[0], steps[1:]
    if isinstance(node, Items):
        index = _find_item(node, step)
        default = defaults[index] if isinstance(defaults, list | tuple) and index < len(defaults) else None
        changed = _lay(node.nodes[index], rest, leaf, default)
        return Items(place=node.place, nodes=(*node.nodes[:index], changed, *node.nodes[index + 1 :]))
    entries = dict(node.entries) if isinstance(node, Table) else {}
    under = entries[step].node if step in entries else None
    default = defaults.get(step) if isinstance(defaults, dict) else None
    entries[step] = Entry(place=leaf.place, node=_lay(under, rest, leaf, default))
    return Table(place=node.place if isinstance(node, Table) else leaf.place, entries=entries)


def _find_item(items: Items, step: str) -> int:
    """The index of the item called `step`, or numbered so."""
    names = [name_of(node) for node in items.nodes]
    if step in names:
        return names.index(step)
    if step.isascii() and step.isdigit() and len(step) < 6 and int(step) < len(names):
        return int(step)
    known = ", ".join(name if name is not None else str(index) for index, name in enumerate(names))
    raise _RefusedError(f"there is no item {shorten(step)} in this list (known: {known or 'none'})")
