"""The memory whose accesses count: which mappings are watched, and where the pages of judged runs and regions lie.

Must not know how accesses are found out, or what is concluded from them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.model.access import REGION_BYTES, AccessRegion, AccessRun
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES, Vma, VmaKind
from balancerd.native import RangeArray, placement

LEAST_BYTES = 64 << 10
"""Smaller mappings are not worth a range. A thread's counters beside its part of 48 MiB, in a mapping of 96 KiB, had
1.5 % of its accesses to memory."""

USUAL_STACK_BYTES = 8 << 20
"""The default size of stacks on Linux; virtual machines such as Java's take less for each thread."""

MOST_RANGES = 1024

PIECE_BYTES = 32 << 20
"""Long runs are told in pieces, so that those that have moved are known from those that have not."""

MOST_PIECES = 8192

EVERY_PAGE_PAGES = 8192
"""Up to so many pages each is asked for, which takes 2 ms; of more, so many samples are taken."""

SAMPLES = 4096

_KINDS = frozenset({VmaKind.ANON, VmaKind.HEAP, VmaKind.HUGETLB})


def watched_ranges(vmas: Iterable[Vma], stack_bytes: int | None) -> tuple[tuple[int, int], ...]:
    """Return the mappings, ascending, that hold a process's own data: the largest, if there are very many.

    Left out is what others share, code, and stacks, into which some register points all the time: what has a guard
    (pthread_attr_setguardsize(3)) is taken to be a thread's if it is no larger than stacks usually are, or has just
    `stack_bytes`, the limit of stacks (pthread_create(3), "default stack size").
    """
    found = [
        (vma.start, vma.end)
        for vma in vmas
        if vma.kind in _KINDS
        and not vma.shared
        and not vma.executable
        and vma.end - vma.start >= LEAST_BYTES
        and not _is_stack(vma, stack_bytes)
    ]
    return tuple(sorted(sorted(found, key=lambda span: span[0] - span[1])[:MOST_RANGES]))


def _is_stack(vma: Vma, stack_bytes: int | None) -> bool:
    size = vma.end - vma.start
    return vma.kind is VmaKind.ANON and vma.guarded and (size <= USUAL_STACK_BYTES or size == stack_bytes)


def read_stack_bytes(pid: int, procfs: str = "/proc") -> int | None:
    """Read the soft limit of stacks of a process; None when there is none. Raises ParseError, OSError."""
    path = f"{procfs}/{pid}/limits"
    return parse_stack_bytes(read_bytes(path), path)


def parse_stack_bytes(text: bytes, path: str) -> int | None:
    """Parse the soft limit of stacks from /proc/PID/limits (proc_pid_limits(5)); None when there is none."""
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.startswith(b"Max stack size"):
            words = line.split()
            try:
                return None if words[3] == b"unlimited" else int(words[3])
            except (IndexError, ValueError) as error:
                raise ParseError(path, number, line, "not a limit") from error
    raise ParseError(path, 0, b"", "no limit of stacks")


def pieces(runs: Iterable[AccessRun]) -> Iterator[AccessRun]:
    """Yield runs with long ones cut at multiples of PIECE_BYTES, their weight spread evenly."""
    for run in runs:
        at = run.start
        while at < run.end:
            end = min(run.end, at // PIECE_BYTES * PIECE_BYTES + PIECE_BYTES)
            share = (end - at) / (run.end - run.start)
            yield (
                replace(run, start=at, end=end, weight=run.weight * share, node_weight=run.node_weight * share)
                if share < 1
                else run
            )
            at = end


def located(pid: int, runs: Sequence[AccessRun], *, n_nodes: int, phase: float) -> tuple[AccessRun, ...]:
    """Return the runs with where their pages lie: every page asked for, or a sample spread over all. Raises OSError.

    A run of which the sample found nothing keeps None. `phase`, in [0, 1), is where the sample begins.
    """
    found = pages_in_spans(pid, [(run.start, run.end) for run in runs], n_nodes=n_nodes, phase=phase)
    return tuple(
        run if held is None else replace(run, pages_by_node=held) for run, held in zip(runs, found, strict=True)
    )


def located_regions(
    pid: int, regions: Sequence[AccessRegion], *, n_nodes: int, phase: float
) -> tuple[AccessRegion, ...]:
    """Return the regions, those without a node with where their pages lie; as located(). Raises OSError."""
    spans = [(region.start, region.start + REGION_BYTES) for region in regions if region.node is None]
    found = iter(pages_in_spans(pid, spans, n_nodes=n_nodes, phase=phase))
    return tuple(replace(each, pages_by_node=next(found)) if each.node is None else each for each in regions)


def pages_in_spans(
    pid: int, spans: Sequence[tuple[int, int]], *, n_nodes: int, phase: float
) -> list[dict[NodeId, float] | None]:
    """Return for each span its present pages by node; None where nothing was asked for. Raises OSError."""
    if not spans:
        return []
    n_pages = sum(end - start for start, end in spans) // PAGE_BYTES
    samples = 0 if n_pages <= EVERY_PAGE_PAGES else max(SAMPLES, 4 * len(spans))
    array = RangeArray((start, end, PAGE_BYTES) for start, end in spans)
    found = placement(pid, array, n_nodes=n_nodes, samples=samples, phase=phase)
    pages_per_answer = 1.0 if samples == 0 else max(1.0, n_pages / samples)
    return [
        {NodeId(n): count * pages_per_answer for n, count in enumerate(row.on_node) if count}
        if sum(row.on_node) or row.absent_pages
        else None
        for row in found.per_range
    ]
