"""How a placement is found out. Cheap to import: commands that only ask the daemon say it to people."""

import enum


class PlacementMethod(enum.StrEnum):
    """How a placement was found out."""

    TEST = "test"
    """Some tens of pages, enough to see that it is well placed; see docs/placement.md."""
    SAMPLE = "sample"
    """Pages chosen by chance, evenly over all of them."""
    EVERY_PAGE = "every-page"
    """move_pages(2) was asked for every page."""
    NUMA_MAPS = "numa-maps"
    """/proc/PID/numa_maps, which is exact, and cheap where pages are huge."""
