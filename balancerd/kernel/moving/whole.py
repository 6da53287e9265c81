"""Moving a whole process by one migrate_pages(2): claim it, count its pages, move, and count them again.

Before Linux 6.7 the process stands still for as long as the copy takes, so this happens only at an operator's word.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.moving.account import REASON_OF_ERRNO, explain_errno
from balancerd.kernel.moving.claims import EVERYTHING, REFUSALS, Claim, Claims, why_refused
from balancerd.kernel.placement.reader import PlacementReader
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import WholeMove
from balancerd.model.sample import PAGE_BYTES
from balancerd.ports import Clock

WHOLE_SAMPLES = 4096
"""Present pages that are asked for of a process too large to ask for all."""

_EXACT_BYTES = 4 << 30
"""Up to so much mapped memory every page is asked for: about 200 ns each."""


class WholeCore(Protocol):
    """The native function that moves a whole process; balancerd.native has it."""

    def migrate_process(self, pid: int, sources: Iterable[int], targets: Iterable[int]) -> int:
        """Move all pages from nodes to nodes by migrate_pages(2); return how many did not. Raises OSError."""
        ...


class WholeMover:
    """Moves whole processes. `placements` counts pages before and after."""

    def __init__(self, core: WholeCore, clock: Clock, claims: Claims, placements: PlacementReader) -> None:
        self._core = core
        self._clock = clock
        self._claims = claims
        self._placements = placements

    def move(self, process: ProcessId, target_of: Mapping[NodeId, NodeId], *, n_nodes: int) -> WholeMove:
        """Move the pages of each node in `target_of` to the node that it gives. `n_nodes`: the highest node id + 1."""
        before: Mapping[NodeId, int] = {}
        if not is_one_call(target_of):
            detail = "migrate_pages(2) maps sets of nodes in ascending order, and so cannot map these"
            return _refused(process, target_of, before, Reason.CALL_FAILED, detail)
        try:
            with self._claims.claim(process, EVERYTHING) as claim:
                before = self._bytes_by_node(claim, n_nodes)
                return self._move(claim, target_of, before, n_nodes)
        except REFUSALS as error:
            return _refused(process, target_of, before, *why_refused(error))

    def _move(
        self, claim: Claim, target_of: Mapping[NodeId, NodeId], before: Mapping[NodeId, int], n_nodes: int
    ) -> WholeMove:
        process = claim.held.process
        began = self._clock.now()
        try:
            left = self._core.migrate_process(process.pid, sorted(target_of), sorted(set(target_of.values())))
        except OSError as error:
            number = error.errno or 0
            reason = REASON_OF_ERRNO.get(number, Reason.CALL_FAILED)
            return _refused(process, target_of, before, reason, explain_errno("migrate_pages", number))
        seconds = self._clock.now() - began
        try:
            after: Mapping[NodeId, int] = self._bytes_by_node(claim, n_nodes)
            detail = claim.detail
        except (ProcessGoneError, ParseError, OSError) as error:
            after, detail = {}, f"unknown where its pages are now: {error}"
        return WholeMove(
            process=process,
            target_of=target_of,
            not_moved_pages=left,
            seconds=seconds,
            before_bytes=before,
            after_bytes=after,
            detail=detail,
        )

    def _bytes_by_node(self, claim: Claim, n_nodes: int) -> dict[NodeId, int]:
        """Count, or estimate, the bytes on each node. numa_maps is read too: it tells the sizes of hugetlb pages."""
        process = claim.held.process
        mapped_bytes = sum(vma.end - vma.start for vma in claim.vmas)
        resident_pages = int(read_bytes(f"{self._claims.procfs}/{process.pid}/statm").split()[1])
        sample = self._placements.read(
            process,
            n_nodes=n_nodes,
            rss_bytes=resident_pages * PAGE_BYTES,
            read_mempolicies=True,
            exact=mapped_bytes <= _EXACT_BYTES,
        )
        return sample.bytes_by_node


def is_one_call(target_of: Mapping[NodeId, NodeId]) -> bool:
    """Return whether migrate_pages(2) maps these nodes so: it maps the n-th source to the n-th target, and round again.

    Source: node_remap() and bitmap_ord_to_pos() as do_migrate_pages() in mm/mempolicy.c uses them.
    """
    sources, targets = sorted(target_of), sorted(set(target_of.values()))
    return bool(sources) and all(target_of[node] == targets[i % len(targets)] for i, node in enumerate(sources))


def _refused(
    process: ProcessId,
    target_of: Mapping[NodeId, NodeId],
    before: Mapping[NodeId, int],
    reason: Reason,
    detail: str,
) -> WholeMove:
    return WholeMove(
        process=process,
        target_of=target_of,
        not_moved_pages=None,
        seconds=0.0,
        before_bytes=before,
        after_bytes=before,
        stopped_by=reason,
        detail=detail,
    )
