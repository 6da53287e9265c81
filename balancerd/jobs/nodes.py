"""From two sets of nodes to who goes where, as migrate_pages(2) does it. Pure."""

from collections.abc import Iterable

from balancerd.model.ids import NodeId


def target_of(sources: Iterable[NodeId], targets: Iterable[NodeId]) -> dict[NodeId, NodeId]:
    """Return the target of each source: the n-th of one set goes to the n-th of the other, both ascending.

    When the sets differ in size, targets are counted round (n modulo their number), and a source that is a target, too,
    keeps its pages; so do_migrate_pages() in the kernel's mm/mempolicy.c and bitmap_bitremap() in lib/bitmap.c. A
    source that would go to itself is left out. Unlike the kernel, which moves one node after the other, all pages move
    from where they are found: from 0-1 to 1-2, what was on node 0 stays on node 1, and two nodes may swap.
    """
    ordered, goals = sorted(set(sources)), sorted(set(targets))
    if not goals:
        return {}
    differ = len(ordered) != len(goals)
    pairs = {source: goals[n % len(goals)] for n, source in enumerate(ordered) if not (differ and source in goals)}
    return {source: target for source, target in pairs.items() if source != target}
