"""Where memory of this very process lies whose heat is said to be known."""

import ctypes
import mmap
import os
from dataclasses import replace

from balancerd.kernel.heat.locating import located
from balancerd.model.heat import HeatMethod, HeatRegion, HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.native import PAGE_BYTES

PAGES = 64


def test_regions_are_told_with_their_pages_and_the_window_of_a_process_that_is_gone_stays_as_it_is() -> None:
    with mmap.mmap(-1, PAGES * PAGE_BYTES) as memory:
        memory[:] = b"x" * len(memory)
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        del view
        window = HeatWindow(
            process=ProcessId(os.getpid(), 1),
            taken_at=0.0,
            seconds=1.0,
            watched_seconds=1.0,
            method=HeatMethod.DAMON,
            regions=(HeatRegion(start=start, end=start + PAGES * PAGE_BYTES, ratio=0.5),),
        )
        (region,) = located(window, n_nodes=1, phase=0.0).regions
        assert sum((region.pages_by_node or {}).values()) == PAGES
        assert region.ratio == 0.5
        gone = replace(window, process=ProcessId(2**22 - 1, 1))
        assert located(gone, n_nodes=1, phase=0.0) is gone
