"""Whether a process is well placed, from as few pages as that takes. Pure: the asking is a parameter.

Wald's sequential probability ratio test (Sequential Tests of Statistical Hypotheses, 1945): 5 % of misplaced pages
against 15 %, each mistaken for the other in 5 % of cases. Between the two either verdict will do; the test errs on the
side of a closer look, since a process that is not found to be well placed is sampled in full.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from balancerd.kernel.placement.confidence import Part, effective_answers, pages_by_node
from balancerd.kernel.placement.sampling import DENSE_RATIO, Ask, make_part
from balancerd.model.ids import NodeId
from balancerd.model.interval import Interval, wilson
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Stratum, Tally, VmaTally

WELL_RATIO, BADLY_RATIO = 0.05, 0.15
ERROR_RATIO = 0.05

_FIRST_ANSWERS = 28
"""27 present pages without a misplaced one are the fewest that suffice."""

_MORE_ANSWERS = 8
_MOST_ANSWERS = 320
"""Then a full sample tells more for its price."""

_MOST_QUESTIONS_PER_ANSWER = 8
"""Where fewer addresses have a page, a test would cost nearly what a full sample does."""

_BOUND = math.log((1 - ERROR_RATIO) / ERROR_RATIO)
_OVERSHOOT = 0.5
"""One misplaced page weighs 1.1, and answers come by the batch: the ratio passes a bound by so much on average."""

_MISPLACED_WEIGHT = math.log(BADLY_RATIO / WELL_RATIO)
_PLACED_WEIGHT = math.log((1 - BADLY_RATIO) / (1 - WELL_RATIO))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Strata that are asked together, and the share of their pages that is believed to be present."""

    strata: tuple[Stratum, ...]
    present_ratio: float

    @property
    def present_pages(self) -> float:
        """Return how many base pages are believed to be present."""
        return self.present_ratio * sum(s.units * (s.unit_bytes // PAGE_BYTES) for s in self.strata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether it is well placed, as far as these answers tell."""

    is_well_placed: bool
    parts: tuple[Part, ...]
    queried_pages: int


def groups_like(strata: Sequence[Stratum], known: Mapping[tuple[int, ...], float]) -> tuple[Group, ...] | None:
    """Group strata as they were asked last, when the share present of each group was seen; None when they changed."""
    by_index = {stratum.index: stratum for stratum in strata}
    if sorted(index for group in known for index in group) != sorted(by_index):
        return None
    return tuple(
        Group(strata=tuple(by_index[index] for index in group), present_ratio=ratio)
        for group, ratio in known.items()
        if ratio > 0
    )


def dense_group(strata: Sequence[Stratum], resident_pages: int) -> tuple[Group, ...] | None:
    """Return all strata as one group when most of their pages must be present, or None."""
    total = sum(stratum.units for stratum in strata)
    if not total or any(stratum.unit_bytes != PAGE_BYTES for stratum in strata):
        return None
    ratio = min(1.0, resident_pages / total)
    return (Group(strata=tuple(strata), present_ratio=ratio),) if ratio >= DENSE_RATIO else None


def is_worth_a_test(groups: Sequence[Group]) -> bool:
    """Return whether enough questions will find a page, and all of them are few beside what there is to ask."""
    present = sum(group.present_pages for group in groups)
    units = sum(stratum.units for group in groups for stratum in group.strata)
    if not present or units < _MOST_ANSWERS * _MOST_QUESTIONS_PER_ANSWER:
        return False
    questions = sum(group.present_pages / present / group.present_ratio for group in groups)
    return questions <= _MOST_QUESTIONS_PER_ANSWER


def judge_home(groups: Sequence[Group], home: NodeId, ask: Ask, counts: Callable[[int], bool]) -> Verdict:
    """Ask for pages until it is clear whether they are on `home`. `counts` tells which mappings are of interest."""
    present = sum(group.present_pages for group in groups)
    tallies: list[Tally | None] = [None] * len(groups)
    ratio = 0.0
    answers = questions = 0
    while -_BOUND < ratio < _BOUND - _OVERSHOOT and answers < _MOST_ANSWERS:
        answers += _MORE_ANSWERS if answers else _FIRST_ANSWERS
        for i, group in enumerate(groups):
            tally = tallies[i]
            due = answers * group.present_pages / present / group.present_ratio
            batch = round((due - (tally.asked_units if tally else 0)) / 2) * 2
            if batch < 2:
                continue
            new = ask([stratum.index for stratum in group.strata], batch)
            tallies[i] = new if tally is None else _sum(tally, new)
            questions += new.asked_units
            for row in new.rows:
                if counts(row.vma):
                    ratio += _log_ratio(row, home)
    parts = tuple(
        make_part(tuple(stratum.index for stratum in group.strata), tally, group.strata[0].unit_bytes)
        for group, tally in zip(groups, tallies, strict=True)
        if tally is not None
    )
    return Verdict(is_well_placed=ratio <= -_BOUND, parts=parts, queried_pages=questions)


def plain_intervals(parts: Sequence[Part]) -> dict[NodeId, Interval]:
    """Return Wilson's intervals for as many independent answers as there are: too few for a variance of their own."""
    pages = pages_by_node(parts)
    answers = effective_answers(parts)
    if not sum(pages):
        return {}
    return {NodeId(node): wilson(min(1.0, n / sum(pages)), answers) for node, n in enumerate(pages)}


def _log_ratio(row: VmaTally, home: NodeId) -> float:
    on_home = row.on_node[home] if home < len(row.on_node) else 0
    return (sum(row.on_node) - on_home) * _MISPLACED_WEIGHT + on_home * _PLACED_WEIGHT


def _sum(a: Tally, b: Tally) -> Tally:
    def added(x: Sequence[int], y: Sequence[int]) -> tuple[int, ...]:
        return tuple(i + j for i, j in zip(x, y, strict=True))

    return Tally(
        asked_units=a.asked_units + b.asked_units,
        present_units=a.present_units + b.present_units,
        units=a.units,
        on_node=added(a.on_node, b.on_node),
        differing_pairs=added(a.differing_pairs, b.differing_pairs),
        lone_pairs=added(a.lone_pairs, b.lone_pairs),
        rows=(*a.rows, *b.rows),
        seconds=a.seconds + b.seconds,
    )
