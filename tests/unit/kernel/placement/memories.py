"""Memories of which each page's node is known, and how the native core would answer questions about them.

`random_memory` makes the placements over which intervals are calibrated: mappings of all sizes, filled in
runs, by huge pages, page by page, interleaved, sorted or all on one node, with holes, beside untouched reservations
and hugetlb pages.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from balancerd.native.records import Stratum, Tally, VmaTally

ABSENT = -1
HUGE_PAGES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """So many units, and the node of each."""

    units: int
    node_of: Callable[[int], int]
    unit_pages: int = 1
    looked_at: int | None = None
    """Units behind which nothing is present; None: all may be."""

    @property
    def stratum(self) -> int:
        """As native/maps.c has it."""
        return min(7, self.units.bit_length() // 6) if self.unit_pages == 1 else 8


def nodes(listed: Sequence[int], unit_pages: int = 1) -> Mapping:
    return Mapping(units=len(listed), node_of=listed.__getitem__, unit_pages=unit_pages)


def first_present(units: int, present: int, node: int = 1) -> Mapping:
    """A mapping in which the first pages are on a node."""
    return Mapping(units=units, node_of=lambda i: node if i < present else ABSENT, looked_at=present)


@dataclass(slots=True)
class Memory:
    """Mappings of a process, and questions about them that are counted."""

    mappings: Sequence[Mapping]
    n_nodes: int = 2
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 the same in every run
    asked: int = 0

    def strata(self) -> tuple[Stratum, ...]:
        found: dict[int, Stratum] = {}
        for mapping in self.mappings:
            before = found.get(mapping.stratum)
            units = mapping.units + (before.units if before else 0)
            found[mapping.stratum] = Stratum(index=mapping.stratum, units=units, unit_bytes=mapping.unit_pages * 4096)
        return tuple(found[index] for index in sorted(found))

    def pages_by_node(self) -> list[int]:
        """The truth, of memories small enough to count."""
        pages = [0] * self.n_nodes
        for mapping in self.mappings:
            for i in range(mapping.units if mapping.looked_at is None else mapping.looked_at):
                if (node := mapping.node_of(i)) != ABSENT:
                    pages[node] += mapping.unit_pages
        return pages

    def ask(self, strata: Sequence[int], questions: int) -> Tally:
        """Answer as bal_sample() does: all units, or two in each cell."""
        chosen = [(i, m) for i, m in enumerate(self.mappings) if m.stratum in set(strata)]
        total = sum(mapping.units for _, mapping in chosen)
        numbers = range(total) if questions >= total else self._pairs(total, questions // 2)
        self.asked += len(numbers)
        rows: dict[int, list[int]] = {}
        answers = []
        at = before = 0
        for number in numbers:
            if number < before:  # round the end
                at = before = 0
            while number - before >= chosen[at][1].units:
                before += chosen[at][1].units
                at += 1
            vma, mapping = chosen[at]
            answers.append(mapping.node_of(number - before))
            rows.setdefault(vma, [0] * (self.n_nodes + 1))[answers[-1]] += 1  # absent is the last
        on_node = tuple(answers.count(node) for node in range(self.n_nodes))
        differ, lone = [0] * self.n_nodes, [0] * self.n_nodes
        for a, b in zip(answers[::2], answers[1::2], strict=False) if questions < total else ():
            for one, other in ((a, b), (b, a)):
                if one not in {other, ABSENT}:
                    differ[one] += 1
                    lone[one] += other == ABSENT
        return Tally(
            asked_units=len(numbers),
            present_units=sum(on_node),
            units=total,
            on_node=on_node,
            differing_pairs=tuple(differ),
            lone_pairs=tuple(lone),
            rows=tuple(VmaTally(vma=i, on_node=tuple(r[:-1]), absent=r[-1], other=0) for i, r in rows.items()),
            seconds=0.0,
        )

    def _pairs(self, total: int, cells: int) -> Sequence[int]:
        shift = self.chance.randrange(total)
        numbers = []
        for cell in range(cells):
            first, end = cell * total // cells, (cell + 1) * total // cells
            a, b = (
                first + int(self.chance.random() * (end - first)),
                first + int(self.chance.random() * (end - first - 1)),
            )
            b += b >= a
            numbers += [(shift + min(a, b)) % total, (shift + max(a, b)) % total]
        return numbers


def random_memory(chance: random.Random, *, most_pages: int = 1 << 17) -> Memory:
    """A process of 16 MiB to so many pages on 2 to 8 nodes."""
    n_nodes = chance.choice([2, 3, 4, 8])
    weights = [chance.expovariate(1) ** chance.choice([1, 3]) + 1e-4 for _ in range(n_nodes)]
    left = int(2 ** chance.uniform(12, most_pages.bit_length() - 1))
    mappings = []
    while left > 0:
        units = min(left, int(2 ** chance.uniform(0, most_pages.bit_length() - 1)))
        left -= units
        pages = chance.choice(FILLINGS)(chance, units, n_nodes, weights)
        if chance.random() < 0.4:
            _punch_holes(chance, pages)
        mappings.append(nodes(pages))
    if chance.random() < 0.2:
        mappings.append(first_present(1 << chance.randrange(20, 36), 0))
    if chance.random() < 0.2:
        mappings.append(nodes(chance.choices([ABSENT, *range(n_nodes)], k=chance.randrange(1, 64)), HUGE_PAGES))
    chance.shuffle(mappings)
    return Memory(mappings, n_nodes, chance)


Filling = Callable[[random.Random, int, int, Sequence[float]], list[int]]


def _in_runs(chance: random.Random, units: int, n_nodes: int, weights: Sequence[float]) -> list[int]:
    del weights
    mean = 2 ** chance.uniform(0, 12)
    pages: list[int] = []
    while len(pages) < units:
        pages += [chance.randrange(n_nodes)] * max(1, round(chance.expovariate(1 / mean)))
    return pages[:units]


def _by_huge_pages(chance: random.Random, units: int, n_nodes: int, weights: Sequence[float]) -> list[int]:
    blocks = chance.choices(range(n_nodes), weights, k=units // HUGE_PAGES + 1)
    return [node for node in blocks for _ in range(HUGE_PAGES)][:units]


def _page_by_page(chance: random.Random, units: int, n_nodes: int, weights: Sequence[float]) -> list[int]:
    return chance.choices(range(n_nodes), weights, k=units)


def _interleaved(_: random.Random, units: int, n_nodes: int, weights: Sequence[float]) -> list[int]:
    del weights
    return [i % n_nodes for i in range(units)]


def _sorted(chance: random.Random, units: int, n_nodes: int, weights: Sequence[float]) -> list[int]:
    return sorted(_page_by_page(chance, units, n_nodes, weights))


def _on_one_node(chance: random.Random, units: int, n_nodes: int, weights: Sequence[float]) -> list[int]:
    return chance.choices(range(n_nodes), weights) * units


FILLINGS: Sequence[Filling] = (_in_runs, _by_huge_pages, _page_by_page, _interleaved, _sorted, _on_one_node)


def _punch_holes(chance: random.Random, pages: list[int]) -> None:
    absent_ratio, mean = chance.uniform(0.1, 0.9), 2 ** chance.uniform(0, 10)
    at = 0
    while at < len(pages):
        length = min(len(pages) - at, max(1, round(chance.expovariate(1 / mean))))
        if chance.random() < absent_ratio:
            pages[at : at + length] = [ABSENT] * length
        at += length
