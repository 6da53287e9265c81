"""What of the memory that belongs to one node may move there by itself. Pure arithmetic on runs.

It must not know where memory lies or what moving it would win.
"""

from balancerd.model.access import REGION_BYTES, AccessRun
from balancerd.model.extent import Extent, inside, joined


def movable_extents(run: AccessRun, huge: tuple[Extent, ...] | None) -> tuple[Extent, ...]:
    """Return what of a run may move by itself. A huge page moves whole, so where there may be one, only whole regions.

    `huge` are whole regions of mappings that hold any, see whole_regions(); None: there may be one anywhere.
    """
    if huge is None:
        return whole_regions(Extent(run.start, run.end))
    found: list[Extent] = []
    at = run.start
    for part in inside(huge, run.start, run.end):
        found += [Extent(at, part.start), *whole_regions(part)]
        at = part.end
    return joined([*found, Extent(at, run.end)])


def whole_regions(part: Extent) -> tuple[Extent, ...]:
    """Return the regions that lie in an extent as a whole, as one extent or none."""
    start, end = -(-part.start // REGION_BYTES) * REGION_BYTES, part.end // REGION_BYTES * REGION_BYTES
    return (Extent(start, end),) if start < end else ()
