"""From answers to the placement of each mapping. Knows how answers scale, and not how they came about.

Only mappings in which a page was found become objects, unless all are wanted: a process may have tens of thousands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from balancerd.kernel.placement.confidence import Part
from balancerd.kernel.placement.maps import to_vma
from balancerd.kernel.placement.numa_maps import VmaPolicy
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES, Vma, VmaKind, VmaPlacement
from balancerd.native import VmaTable


@dataclass(slots=True)
class _Pages:
    """What was found of one mapping, in base pages; `found` in answers."""

    by_node: dict[NodeId, float]
    absent: float = 0.0
    found: int = 0


def place(
    table: VmaTable,
    parts: Sequence[Part],
    policies: Mapping[int, VmaPolicy],
    *,
    is_counted: bool = False,
    complete: bool = False,
) -> tuple[VmaPlacement, ...]:
    """Return the placement of the mappings in which a page was found, ascending; of every mapping when `complete`.

    `is_counted` tells that the parts are exact and name only what is present: all else is absent. `policies` are what
    numa_maps said, by the start of the mapping.
    """
    pages = _pages_of_vmas(parts)
    wanted = range(len(table)) if complete else sorted(i for i, found in pages.items() if found.found)
    placed: list[VmaPlacement] = []
    for i in wanted:
        vma = _with_policy(to_vma(table.row(i)), policies)
        if vma.kind is VmaKind.SPECIAL:
            continue
        found = pages.get(i) or _Pages({})
        absent = (vma.end - vma.start) // PAGE_BYTES - sum(found.by_node.values()) if is_counted else found.absent
        placed.append(
            VmaPlacement(
                vma=vma,
                pages_by_node=dict(sorted(found.by_node.items())),
                absent_pages=max(0.0, absent),
                found_pages=found.found,
            )
        )
    return tuple(placed)


def _pages_of_vmas(parts: Sequence[Part]) -> dict[int, _Pages]:
    """Scale answers to pages. A mapping of which no page was asked for is not there."""
    pages: dict[int, _Pages] = {}
    for part in parts:
        for row in part.tally.rows:
            found = pages.setdefault(row.vma, _Pages({}))
            for node, answers in enumerate(row.on_node):
                if answers:
                    found.by_node[NodeId(node)] = found.by_node.get(NodeId(node), 0.0) + answers * part.scale
                    found.found += answers
            found.absent += (row.absent + row.other) * part.scale
    return pages


def _with_policy(vma: Vma, policies: Mapping[int, VmaPolicy]) -> Vma:
    """Add what numa_maps said; it alone knows a memfd or a SysV segment of huge pages from one of base pages."""
    policy = policies.get(vma.start)
    if policy is None:
        return vma
    kind = VmaKind.HUGETLB if policy.hugetlb else vma.kind
    return replace(vma, kind=kind, page_bytes=policy.page_bytes, mempolicy=policy.mempolicy, exclusive=policy.exclusive)
