"""Where the memory of regions lies whose heat is known: some of their pages are asked for.

Must not know how heat is found out, nor what is concluded.
"""

from dataclasses import replace

from balancerd.kernel.accesses.memory import pages_in_spans
from balancerd.model.heat import HeatWindow


def located(window: HeatWindow, *, n_nodes: int, phase: float) -> HeatWindow:
    """Return a window with where the pages of its regions lie; as it is if its process cannot be asked any more.

    `n_nodes` is the highest node id + 1; `phase`, in [0, 1), is where the sample of pages begins.
    """
    spans = [(region.start, region.end) for region in window.regions]
    try:
        found = pages_in_spans(window.process.pid, spans, n_nodes=n_nodes, phase=phase)
    except OSError:  # it exited, or is out of reach: whoever reads its heat says so
        return window
    regions = (replace(each, pages_by_node=held) for each, held in zip(window.regions, found, strict=True))
    return replace(window, regions=tuple(regions))
