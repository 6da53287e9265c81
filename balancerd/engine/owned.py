"""What of a process's memory belongs to one node for sure, and may move there by itself. Pure arithmetic on runs.

It must not know where memory lies or what moving it would win.
"""

from balancerd.model.access import REGION_BYTES, AccessRun
from balancerd.model.extent import Extent, inside, joined
from balancerd.model.sample import PAGE_BYTES

SURE_WEIGHT = 7.0
SURE_RUN_WEIGHT = 63.0
"""Two samples give a page to one node; of memory that threads of two nodes share, that is so of every sixth page. So a
run is acted on only if its pages have so much weight each on average, which takes eight samples, or so much together,
which is as much as 32 pages have with two samples each. Its length tells nothing: pages without samples between two of
one node are in it."""


def is_sure(run: AccessRun) -> bool:
    """Return whether chance does not give as much to one node of memory that several share.

    What is as long as a region was judged as a whole, by a rule of its own.
    """
    n_bytes = run.end - run.start
    return n_bytes >= REGION_BYTES or run.weight >= min(SURE_RUN_WEIGHT, SURE_WEIGHT * n_bytes / PAGE_BYTES)


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
