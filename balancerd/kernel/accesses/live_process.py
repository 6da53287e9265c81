"""The process that a pid in a log may mean: since when it lives, and which of its memory is watched."""

import os
import time

from balancerd.kernel.accesses.log_clock import Clocks
from balancerd.kernel.accesses.log_store import LiveProcess
from balancerd.kernel.accesses.memory import read_stack_bytes, watched_ranges
from balancerd.kernel.clock import boottime_seconds
from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId
from balancerd.ports import Clock


class ProcessFinder:
    """Looks processes up; for the threads of the control socket, so it shares nothing with the tick.

    Reading mappings waits for a lock of the process: the thread that asks waits, and nobody else.
    """

    def __init__(self, clock: Clock, procfs: str = "/proc") -> None:
        self._clock = clock
        self._mappings = Mappings(clock, procfs)

    def clocks(self) -> Clocks:
        """Return what the clocks show now."""
        return Clocks(monotonic=self._clock.now(), boottime=boottime_seconds(), realtime=time.time())

    def find(self, pid: int) -> LiveProcess:
        """Return the process of a pid. Raises ProcessGoneError, ParseError, OSError."""
        start_ticks = read_start_ticks(pid, self._mappings.procfs)
        try:
            vmas = self._mappings.read(pid)
            stack_bytes = read_stack_bytes(pid, self._mappings.procfs)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {pid} exited while it was read") from error
        now = self.clocks()
        return LiveProcess(
            id=ProcessId(pid, start_ticks),
            started_at=start_ticks / os.sysconf("SC_CLK_TCK") - (now.boottime - now.monotonic),
            ranges=watched_ranges(vmas, stack_bytes),
        )
