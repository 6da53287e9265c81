"""Which mappings hold memory that is a process's own to move, and how much of it lies on which node.

Left out are the kernel's special mappings, and program files: a file of which any mapping is executable is the program
itself or a library, whose pages belong to everyone who runs it (move_pages(2) answers EACCES for them). Who alone runs
it has them for itself, and they do move; that is known once numa_maps was read, as it is before each move. So do its
variables, which a process has for itself as soon as it writes to them. The kernel's own balancer moves these and never
the rest, see task_numa_work() in kernel/sched/fair.c.
"""

from balancerd.model.ids import NodeId
from balancerd.model.sample import PlacementSample, Vma, VmaKind, VmaPlacement, bytes_by_node


def movable(placement: PlacementSample) -> tuple[VmaPlacement, ...]:
    """Return the mappings of a sample that a migration may be about, in the sample's order."""
    return tuple(p for p in placement.vmas if p.vma.kind is not VmaKind.SPECIAL and not _is_of_everyone(p.vma))


def movable_bytes_by_node(placement: PlacementSample) -> dict[NodeId, int]:
    """Return the estimated bytes of movable mappings on each node that holds any."""
    return bytes_by_node(movable(placement))


def _is_of_everyone(vma: Vma) -> bool:
    return vma.kind is VmaKind.FILE and vma.program and not vma.exclusive
