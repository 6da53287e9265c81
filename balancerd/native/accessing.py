"""Typed Python functions over access.c and judge.c: who accesses which page, counted without an object per page.

Owns the memory in which the counts of one process lie, and gives it back. Any, the type of C data, stops here. Must not
know where accesses come from, policies, or the model. Every call releases the GIL; a table is for one thread at a time.
"""

import mmap
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.access_records import (
    AccessRegion,
    AccessRegions,
    AccessRun,
    AccessTotals,
    Judgement,
    JudgeRule,
    PageAccesses,
)
from balancerd.native.binding import check

REGION_BYTES = 2 << 20
"""What one region covers; it begins at a multiple of that."""

GATHER_RATIO = 0.05
"""Of the pages that it may hold: then there are four on each of its base pages, and less than 2 % hold none."""

_SECOND = 1_000_000_000
_MADV_COLLAPSE = 25  # include/uapi/asm-generic/mman-common.h; not in Python 3.11


class AccessNodes:
    """The node of each CPU, given as (CPU, node): made once, used by all tables.

    Raises ValueError when CPUs are on more than 16 nodes. Nodes without a CPU access nothing and take no place.
    """

    __slots__ = ("data", "n_cpus", "nodes")

    def __init__(self, node_of_cpu: Iterable[tuple[int, int]]) -> None:
        known = dict(node_of_cpu)
        self.nodes = tuple(sorted(set(known.values())))
        if not 1 <= len(self.nodes) <= lib.BAL_ACCESS_SLOTS:
            raise ValueError(f"CPUs on {len(self.nodes)} nodes; from 1 to {lib.BAL_ACCESS_SLOTS} can be told apart")
        slots = {node: slot for slot, node in enumerate(self.nodes)}
        self.n_cpus = max(known) + 1
        self.data: Any = ffi.new("int8_t[]", [slots[known[cpu]] if cpu in known else -1 for cpu in range(self.n_cpus)])


class AccessTable:
    """Counts of the accesses of one process, by page and by the node of the CPU.

    It takes at most max_bytes: 32 for a page on a machine of up to four nodes, 8 more for each further four; as much as
    a third of that again stays free. Once full, a page that comes takes the place of one that was seen seldom. judge()
    needs 16 bytes a page beside it while it runs. Raises ValueError when no page has room.
    """

    __slots__ = ("_cells", "_is_gathered", "_max_bytes", "_memory", "_nodes", "data")

    def __init__(self, nodes: AccessNodes, max_bytes: int) -> None:
        self._nodes = nodes
        self._max_bytes = max_bytes
        self._memory = mmap.mmap(-1, max(max_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.data: Any = ffi.new("struct bal_access_table *")
        self._cells = ffi.from_buffer(self._memory)
        self._is_gathered = False
        rc = lib.bal_access_start(self._cells, max_bytes, len(nodes.nodes), nodes.data, nodes.n_cpus, self.data)
        if rc:
            raise ValueError(f"no page has room in {max_bytes} bytes")

    def copy(self) -> "AccessTable":
        """Return another table that holds the same, so that what is added to it can still be thrown away."""
        table = AccessTable(self._nodes, self._max_bytes)
        ffi.memmove(table._cells, self._cells, self._max_bytes)
        cells = table.data.cells
        ffi.memmove(table.data, self.data, ffi.sizeof("struct bal_access_table"))
        table.data.cells = cells
        return table

    def close(self) -> None:
        """Give the memory back. The table must not be used afterwards."""
        self.data = None
        ffi.release(self._cells)
        self._memory.close()

    def gather(self) -> bool:
        """Have the kernel put the table on huge pages, if a good part of it is in use; return whether it tried now.

        Keys are spread over the whole table, so by then nearly all of its base pages are in use, too, and it takes no
        more memory. It is tried once. Where the kernel has no huge pages to give, or does not know MADV_COLLAPSE
        (before Linux 6.1), all stays as it is.
        """
        if self._is_gathered or self.data.pages < GATHER_RATIO * self.data.limit:
            return False
        self._is_gathered = True
        for advice in (mmap.MADV_HUGEPAGE, _MADV_COLLAPSE):
            with suppress(OSError):
                self._memory.madvise(advice)
        return True

    def add(self, accesses: Iterable[tuple[int, float, int, int]], *, first_is_touch: bool = False) -> None:
        """Count accesses given as (address, seconds, tid, cpu), such as those of a log.

        With first_is_touch the first access of a page is its first touch, which is counted apart. Accesses by a CPU
        whose node is not known are counted as such. Raises OverflowError for what is negative or too large.
        """
        packed = [(address, round(seconds * _SECOND), tid, cpu) for address, seconds, tid, cpu in accesses]
        lib.bal_access_add(ffi.new("struct bal_access[]", packed), len(packed), first_is_touch, self.data)

    def totals(self) -> AccessTotals:
        """Return how much the table holds, and what became of all accesses so far."""
        data = self.data
        return AccessTotals(
            capacity_pages=data.limit,
            pages=data.pages,
            taken=data.taken,
            counted=data.counted,
            touches=data.touches,
            unknown_cpus=data.unknown_cpus,
            lost_pages=data.lost_pages,
            lost_samples=data.lost_samples,
        )

    def page(self, address: int) -> PageAccesses | None:
        """Return what is known of the page that holds an address, None: nothing."""
        ret = ffi.new("struct bal_access_page *")
        if lib.bal_access_look(self.data, address, ret):
            return None
        return PageAccesses(
            start=address - address % lib.BAL_PAGE_BYTES,
            samples=ret.samples,
            weights=self._weights(ret.weight),
            sole_thread=ret.tid or None,
            threads=ret.threads.bit_count(),
            first_seconds=ret.first_ns / _SECOND,
            last_seconds=ret.last_ns / _SECOND,
        )

    def forget(self, before_seconds: float) -> int:
        """Forget the pages that were last accessed before a time, to a sixteenth of a second; return how many."""
        ret = ffi.new("uint64_t *")
        lib.bal_access_forget(self.data, _nanoseconds(before_seconds), ret)
        return int(ret[0])

    def judge(self, rule: JudgeRule, *, since_seconds: float = 0.0, most_runs: int = 4096) -> Judgement:
        """Judge to which node each page belongs that was accessed since a time, as runs of pages next to each other.

        What does not fit into most_runs is counted. Raises OSError EINVAL for a rule that asks for no samples.
        """
        runs = ffi.new("struct bal_access_run[]", most_runs)
        return self._judgement(runs, self._judge(rule, since_seconds, runs=runs, n_runs=most_runs))

    def regions(self, rule: JudgeRule, *, since_seconds: float = 0.0, most_regions: int = 32768) -> AccessRegions:
        """Return what is known of each region of 2 MiB that was accessed since a time; see judge()."""
        regions = ffi.new("struct bal_access_region[]", most_regions)
        ret = self._judge(rule, since_seconds, regions=regions, n_regions=most_regions)
        return self._known_regions(regions, ret)

    def judge_all(
        self, rule: JudgeRule, *, since_seconds: float, most_runs: int, most_regions: int
    ) -> tuple[Judgement, AccessRegions]:
        """Return what judge() and regions() do, at the cost of one of them."""
        runs, regions = (
            ffi.new("struct bal_access_run[]", most_runs),
            ffi.new("struct bal_access_region[]", most_regions),
        )
        ret = self._judge(rule, since_seconds, runs=runs, n_runs=most_runs, regions=regions, n_regions=most_regions)
        return self._judgement(runs, ret), self._known_regions(regions, ret)

    def _judge(
        self,
        rule: JudgeRule,
        since_seconds: float,
        *,
        runs: Any = ffi.NULL,
        n_runs: int = 0,
        regions: Any = ffi.NULL,
        n_regions: int = 0,
    ) -> Any:
        scratch = mmap.mmap(-1, 16 * self.data.pages + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        args = ffi.new("struct bal_access_judge_args *")
        args.rule = {
            "min_share": rule.min_share,
            "region_share": rule.region_share,
            "mixed_share": rule.mixed_share,
            "z": rule.z,
            "min_samples": rule.min_samples,
            "sole_samples": rule.sole_samples,
            "region_pages": rule.region_pages,
        }
        args.since_ns = _nanoseconds(since_seconds)
        args.runs, args.run_capacity = runs, n_runs
        args.regions, args.region_capacity = regions, n_regions
        ret = ffi.new("struct bal_access_judgement *")
        with scratch, ffi.from_buffer(scratch) as memory:
            args.scratch = ffi.cast("uint64_t *", memory)
            check(lib.bal_access_judge(self.data, args, ret), None)
        return ret

    def _judgement(self, runs: Any, ret: Any) -> Judgement:
        return Judgement(
            runs=tuple(self._run(runs[at]) for at in range(ret.n_runs)),
            missed_runs=ret.missed_runs,
            pages=ret.pages,
            judged_pages=ret.judged,
            mixed_regions=ret.mixed_regions,
            duration_seconds=ret.seconds,
        )

    def _known_regions(self, regions: Any, ret: Any) -> AccessRegions:
        return AccessRegions(
            regions=tuple(self._region(regions[at]) for at in range(ret.n_regions)),
            missed_regions=ret.missed_regions,
            duration_seconds=ret.seconds,
        )

    def _weights(self, array: Any) -> tuple[tuple[int, float], ...]:
        cells = ffi.unpack(array, len(self._nodes.nodes))
        return tuple((node, _weight(cell)) for node, cell in zip(self._nodes.nodes, cells, strict=True) if cell)

    def _run(self, run: Any) -> AccessRun:
        return AccessRun(
            start=run.start,
            end=run.end,
            node=self._nodes.nodes[run.slot],
            judged_pages=run.judged,
            weight=_weight(run.weight),
            node_weight=_weight(run.node_weight),
            is_mixed=bool(run.mixed),
            last_seconds=run.last_ns / _SECOND,
        )

    def _region(self, region: Any) -> AccessRegion:
        return AccessRegion(
            start=region.start,
            pages=region.pages,
            judged_pages=region.judged,
            weights=self._weights(region.weight),
            node=self._nodes.nodes[region.slot] if region.slot >= 0 else None,
            is_mixed=bool(region.mixed),
            last_seconds=region.last_ns / _SECOND,
        )


def _weight(units: int) -> float:
    return units / lib.BAL_ACCESS_UNIT


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * _SECOND))
