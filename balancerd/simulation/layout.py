"""Where each page of a mapping lies: runs of neighbouring pages, and when they left which node. Pure accounting.

Owns that no page is lost or counted twice. It must not know processes, nor why anything moves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from balancerd.model.ids import NodeId

RETURN_SECONDS = 600.0
"""Memory that returns sooner to a node that it left oscillates."""

Left = tuple[tuple[NodeId, float], ...]
"""The nodes that pages left, and when they did so last."""


class PageRun(NamedTuple):
    """Neighbouring pages on one node that have the same past."""

    pages: int
    node: NodeId
    left: Left


@dataclass(frozen=True, slots=True)
class Moved:
    """What one pass over some pages did. `runs` are those that moved: first page, pages, and from where.

    Pages that moved to a node that they had left are `returned_pages`, those that had left it a moment ago also
    `hasty_pages`, and those that had left it since anything changed that could be a cause, `oscillated_pages`.
    `next_page` is where to go on, None when the end was reached.
    """

    runs: tuple[tuple[int, int, NodeId], ...]
    looked_pages: int
    on_target_pages: int
    moved_pages: int
    returned_pages: int
    hasty_pages: int
    oscillated_pages: int
    next_page: int | None


class Layout:
    """The pages of one mapping in the order of their addresses."""

    __slots__ = ("n_pages", "pages_on", "runs")

    def __init__(self, pieces: Iterable[tuple[int, NodeId]]) -> None:
        self.runs = [PageRun(pages, node, ()) for pages, node in pieces if pages > 0]
        self.n_pages = sum(run.pages for run in self.runs)
        self.pages_on: dict[NodeId, int] = {}
        for run in self.runs:
            self.pages_on[run.node] = self.pages_on.get(run.node, 0) + run.pages

    def move(
        self, pages: range, target: NodeId, most_pages: int, now: float, *, calm_since: float = float("inf")
    ) -> Moved:
        """Move those of the pages that are elsewhere to `target`, `most_pages` of them at most.

        `calm_since` is when something last changed that is a cause to move them.
        """
        kept: list[PageRun] = []
        moved: list[tuple[int, int, NodeId]] = []
        at = looked = on_target = total = returned = hasty = oscillated = 0
        next_page: int | None = None
        for run in self.runs:
            begin, stop = max(at, pages.start), min(at + run.pages, pages.stop)
            if begin >= stop or next_page is not None:
                kept.append(run)
            elif run.node == target:
                looked += stop - begin
                on_target += stop - begin
                kept.append(run)
            else:
                n_pages = min(stop - begin, most_pages - total)
                if n_pages < stop - begin:
                    next_page = begin + n_pages
                looked += n_pages
                if begin > at:
                    kept.append(PageRun(begin - at, run.node, run.left))
                if n_pages:
                    moved.append((begin, n_pages, run.node))
                    total += n_pages
                    left_at = next((left_at for node, left_at in run.left if node == target), None)
                    if left_at is not None:
                        returned += n_pages
                        hasty += n_pages if now - left_at <= RETURN_SECONDS else 0
                        oscillated += n_pages if left_at >= calm_since else 0
                    past = tuple(each for each in run.left if each[0] not in {run.node, target})
                    kept.append(PageRun(n_pages, target, (*past, (run.node, now))))
                if begin + n_pages < at + run.pages:
                    kept.append(PageRun(at + run.pages - begin - n_pages, run.node, run.left))
            at += run.pages
        if moved:
            self.runs = _joined(kept)
            for _, n_pages, source in moved:
                self.pages_on[source] -= n_pages
                if not self.pages_on[source]:
                    del self.pages_on[source]
                self.pages_on[target] = self.pages_on.get(target, 0) + n_pages
        return Moved(tuple(moved), looked, on_target, total, returned, hasty, oscillated, next_page)

    def pages_within(self, first: int, end: int) -> dict[NodeId, int]:
        """Return how many of the pages [first, end) lie on each node."""
        found: dict[NodeId, int] = {}
        at = 0
        for run in self.runs:
            pages = min(at + run.pages, end) - max(at, first)
            if pages > 0:
                found[run.node] = found.get(run.node, 0) + pages
            at += run.pages
        return found


def _joined(runs: Iterable[PageRun]) -> list[PageRun]:
    found: list[PageRun] = []
    for run in runs:
        last = found[-1] if found else None
        if last is not None and last.node == run.node and last.left == run.left:
            found[-1] = PageRun(last.pages + run.pages, run.node, run.left)
        else:
            found.append(run)
    return found
