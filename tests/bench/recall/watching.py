"""Watching one process by register sampling for a while, and all that came of it, as it is told outside.

Owns the two ways of sampling that are compared. Must not know which process it is, nor what is made of the answer:

    seconds, samples, hits, lost, throttled, threads, hertz
    mappings    [[start, end]]: all that the process had at one of the reads; watched: those whose accesses count
    present     [[start, end]]: pages that are in memory at the end
    runs        [[start, end, node, is_sure]]
    sampled     [[page, node, samples]]
"""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from balancerd import native
from balancerd.kernel.accesses.memory import read_stack_bytes, watched_ranges
from balancerd.kernel.accesses.rate import Turns
from balancerd.kernel.accesses.registers import RegisterSource
from balancerd.kernel.accesses.rings import Surroundings
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.machine.topology import read_topology
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.access_records import PerfReading
from balancerd.native.accessing import REGION_BYTES
from tests.bench.locality.pages import LARGEST_BYTES

INTERVAL_SECONDS = 2.0
"""Between two reads, as between two ticks of the daemon."""

TABLE_BYTES = 32 << 20
BUDGET_RATIO = 0.01
"""The daemon's defaults."""

ENTRY_BYTES = 8
PRESENT = 1 << 63
"""Of an entry of /proc/PID/pagemap: the page is in memory."""

WAYS = ("decoded", "registers")
"""With the instruction at IP decoded, as the source does it, and by the registers alone."""


class _Undecoded(native.ThreadRings):
    """Rings that never look at the instruction: they are not told whose code it is."""

    __slots__ = ()

    def read(
        self,
        table: native.AccessTable,
        ranges: native.AddressRanges,
        *,
        pid: int | None = None,  # noqa: ARG002 that is the difference
    ) -> PerfReading:
        return super().read(table, ranges)


class _LastTurn(Turns):
    """When to judge: only once, at the end. Emulated, it takes seconds, which the budget would spread over minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.is_last = False

    def is_due(self, now: float) -> bool:  # noqa: ARG002 whatever the time
        return self.is_last


class WatchingSource(RegisterSource):
    """The real source, but for when it judges; it lets its counts be looked at."""

    def __init__(self, around: Surroundings, *, is_decoding: bool) -> None:
        super().__init__(around, table_bytes=TABLE_BYTES, budget_ratio=BUDGET_RATIO)
        self._is_decoding = is_decoding
        self._turns = _LastTurn()

    def open(self, process: ProcessId) -> None:
        super().open(process)
        self._watched[process].turns = self._turns

    def stop(self, process: ProcessId) -> None:
        """Take no more samples; what the rings still hold is gone. The next read judges, and then it begins anew."""
        self._watched[process].rings.close()
        self._turns.is_last = True

    def hertz(self, process: ProcessId) -> int:
        """Return how often each of the threads is sampled now, in each second that it runs."""
        return self._watched[process].rings.frequency_hz

    def sampled(self, process: ProcessId) -> Iterator[tuple[int, int, float]]:
        """Yield each page that was sampled, the node, and how many samples came from there."""
        table = self._watched[process].table
        for region in table.regions(self._rule).regions:
            for page in range(region.start, region.start + REGION_BYTES, PAGE_BYTES):
                found = table.page(page)
                if found is not None:  # weights age, of all nodes alike
                    total = sum(weight for _, weight in found.weights)
                    for node, weight in found.weights:
                        yield page, node, round(found.samples * weight / total, 2)

    def _make_rings(self, process: ProcessId, n_threads: int) -> native.ThreadRings:
        rings = super()._make_rings(process, n_threads)
        if self._is_decoding:
            return rings
        return _Undecoded(rings.kind, frequency_hz=rings.frequency_hz, ring_pages=rings.ring_pages)


def watch(pid: int, seconds: float, way: str, when_over: Callable[[], None]) -> dict[str, Any]:
    """Watch a process, and call `when_over` before anything is made of the samples.

    Raises RuntimeError with what is in the way of it.
    """
    clock, topology = MonotonicClock(), read_topology(Path("/sys"))
    reads = PatientReads(clock, ReadPool(), 30.0)
    mappings = Mappings(clock)
    around = Surroundings(clock=clock, reads=reads, mappings=mappings, topology=lambda: topology)
    source = WatchingSource(around, is_decoding=way == "decoded")
    obstacle = source.probe()
    if obstacle is not None:
        raise RuntimeError(f"{obstacle.seen}: {obstacle.fix}")
    process = ProcessId(pid, read_start_ticks(pid, "/proc"))
    source.open(process)
    try:
        began = time.monotonic()
        windows = [source.read(process)]
        vmas = set(mappings.read(pid))
        while (left := began + seconds - time.monotonic()) > 0:
            time.sleep(min(left, INTERVAL_SECONDS))
            windows.append(source.read(process))
            vmas |= set(mappings.read(pid))
        took, hertz = time.monotonic() - began, source.hertz(process)
        source.stop(process)
        when_over()
        last = source.read(process)
        watched = watched_ranges(vmas, read_stack_bytes(pid))
        return {
            "seconds": round(took, 3),
            "samples": sum(window.samples for window in windows),
            "hits": sum(window.hits for window in windows),
            "lost": sum(window.lost_samples for window in windows),
            "throttled": sum(window.throttled for window in windows),
            "threads": last.threads,
            "hertz": hertz,
            "mappings": merged((vma.start, vma.end) for vma in vmas),
            "watched": merged(watched),
            "present": [
                span
                for vma in sorted(mappings.read(pid), key=lambda vma: vma.start)
                if vma.end - vma.start <= LARGEST_BYTES
                for span in read_present(pid, vma.start, vma.end)
            ],
            "runs": [[run.start, run.end, run.node, run.is_sure] for run in last.runs],
            "sampled": list(source.sampled(process)),
        }
    finally:
        source.close(process)
        reads.close()


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return address ranges [start, end), ascending, as one where they touch or overlap."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def read_present(pid: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of an address range that are in memory."""
    with Path(f"/proc/{pid}/pagemap").open("rb") as entries:
        for at in range(start, end, REGION_BYTES):
            n_pages = (min(end, at + REGION_BYTES) - at) // PAGE_BYTES
            entries.seek(at // PAGE_BYTES * ENTRY_BYTES)
            found = entries.read(n_pages * ENTRY_BYTES)
            if any(found):
                yield from present_spans(array("Q", found), at)


def present_spans(entries: Sequence[int], start: int) -> list[tuple[int, int]]:
    """Return what is in memory of the pages from `start` on, of each of which there is an entry of pagemap."""
    pages = (start + number * PAGE_BYTES for number, entry in enumerate(entries) if entry >= PRESENT)
    return merged((page, page + PAGE_BYTES) for page in pages)
