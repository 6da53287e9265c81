"""Precision and recall of judged pages, from what a source judged and what the oracle counted. Pure arithmetic.

Must not know machines, programs, or how figures are told. An *access* is one that reached memory: a line of 64 bytes
that user code read or wrote and that the oracle's caches did not hold. A page is *of* a node when at least
OWNER_RATIO of its accesses in the window came from CPUs of that node.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from balancerd.model.sample import PAGE_BYTES

OWNER_RATIO = 0.6
"""A page of which a node makes so many accesses is better off there than on any other one."""

Pages = Mapping[int, Sequence[int]]
"""Accesses by the address of the page, and there by node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Pages [start, end) that a source gives to a node. `is_sure`: enough for the policy to act on."""

    start: int
    end: int
    node: int
    is_sure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How many samples a source took of one page from one node."""

    page: int
    node: int
    samples: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What some runs are worth; their pages that are not in memory do not count.

    `right_pages` are of the run's node, `unused_pages` had no access; the others are wrong. A run may reach beyond
    watched memory, since a region of 2 MiB is judged as a whole; accesses are those to watched memory.

    `accesses` went to the pages of the runs, `near_accesses` of them came from the run's node. `owned_accesses` went to
    pages that are of a node, and that a run gives to this very node.
    """

    pages: int
    right_pages: int
    unused_pages: int
    accesses: int
    near_accesses: int
    owned_accesses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One way of sampling beside the oracle, over one window.

    `process_accesses` went to any mapping of the process, `accesses` to mappings that are watched, `owned_accesses` of
    these to pages that are of a node. `present_pages` of watched mappings are in memory, `used_pages` had an access.
    `hits` of `sampled` samples were of a page that the sample's node accessed. `every` are all runs, `sure` those that
    the policy would act on.
    """

    process_accesses: int
    accesses: int
    owned_accesses: int
    present_pages: int
    used_pages: int
    sampled: float
    hits: float
    every: Judged
    sure: Judged


def figures(
    truth: Pages,
    *,
    mappings: Iterable[tuple[int, int]],
    watched: Sequence[tuple[int, int]],
    present: Iterable[tuple[int, int]],
    runs: Sequence[Run],
    samples: Iterable[Sampled],
) -> Figures:
    """Compare. `mappings` are all address ranges [start, end) of the process, of which `watched` are looked at.

    `present` are in memory; what has been freed meanwhile is not, and counts where it had an access.
    """
    everything = within(truth, mappings)
    used = within(everything, watched)
    held = {page: () for start, end in present for page in range(start, end, PAGE_BYTES)} | dict(everything)
    sampled = hits = 0.0
    for it in samples:
        sampled += it.samples
        if it.page in used and used[it.page][it.node]:
            hits += it.samples
    return Figures(
        process_accesses=accesses_of(everything),
        accesses=accesses_of(used),
        owned_accesses=sum(sum(counts) for counts in used.values() if owner(counts) is not None),
        present_pages=len(within(held, watched)),
        used_pages=len(used),
        sampled=round(sampled, 1),
        hits=round(hits, 1),
        every=judged(held, used, runs),
        sure=judged(held, used, [run for run in runs if run.is_sure]),
    )


def judged(held: Pages, used: Pages, runs: Iterable[Run]) -> Judged:
    """Look at each page of the runs; `held` are those in memory, without counts where there was no access."""
    pages = right = unused = accesses = near = owned = 0
    for run in runs:
        for page in range(run.start, run.end, PAGE_BYTES):
            counts = held.get(page)
            pages += counts is not None
            if not counts:
                unused += counts is not None
                continue
            is_right = owner(counts) == run.node
            right += is_right
            if page in used:
                accesses += sum(counts)
                near += counts[run.node]
                owned += sum(counts) if is_right else 0
    return Judged(
        pages=pages,
        right_pages=right,
        unused_pages=unused,
        accesses=accesses,
        near_accesses=near,
        owned_accesses=owned,
    )


def owner(counts: Sequence[int]) -> int | None:
    """Return the node that a page is of, None: no node."""
    most = max(counts)
    return counts.index(most) if most >= OWNER_RATIO * sum(counts) else None


def within(pages: Pages, spans: Iterable[tuple[int, int]]) -> Pages:
    """Return the pages in these address ranges."""
    ordered = sorted(spans)
    found: dict[int, Sequence[int]] = {}
    at = 0
    for page in sorted(pages):
        while at < len(ordered) and ordered[at][1] <= page:
            at += 1
        if at < len(ordered) and ordered[at][0] <= page:
            found[page] = pages[page]
    return found


def accesses_of(pages: Pages) -> int:
    """Return all accesses to some pages."""
    return sum(sum(counts) for counts in pages.values())


def ratio(part: float, whole: float) -> float | None:
    """Return a share; None: of nothing."""
    return part / whole if whole else None


def precision(it: Judged) -> float | None:
    """Return the share of judged bytes in pages that are of the node which they are given to; unused ones are not."""
    return ratio(it.right_pages, it.pages)


def used_precision(it: Judged) -> float | None:
    """Return the same without unused pages, of which there is nothing to say."""
    return ratio(it.right_pages, it.pages - it.unused_pages)


def near_share(it: Judged) -> float | None:
    """Return the share of accesses to judged pages that would be local were each page on its run's node."""
    return ratio(it.near_accesses, it.accesses)


def recall(it: Judged, all_of_it: Figures) -> float | None:
    """Return the share of accesses to watched memory that went to judged pages."""
    return ratio(it.accesses, all_of_it.accesses)


def owned_recall(it: Judged, all_of_it: Figures) -> float | None:
    """Return the share of accesses to pages that are of a node that went to pages given to this node."""
    return ratio(it.owned_accesses, all_of_it.owned_accesses)


def hit_rate(it: Figures) -> float | None:
    """Return the share of samples that tell a page which their node accessed."""
    return ratio(it.hits, it.sampled)
