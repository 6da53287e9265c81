"""How often the intervals of sampled placements hold the truth, over random placements in memory.

    python -m tests.bench.bench_coverage --placements 2000 --seed 3

Every node's share strictly between 0 and 1 of each placement is a case, but of those that were asked in full: their
shares are exact. Prints, by how the pages of the node lie, the cases, how many of their 95 % intervals hold the share,
and the error of the estimate: 95th percentile and root mean square, in percent of all present pages. Then JSON.
"""

import argparse
import json
import math
import random
from collections import defaultdict
from dataclasses import dataclass

from balancerd.kernel.placement.confidence import allow_for_hidden, intervals, pages_by_node
from balancerd.kernel.placement.sampling import estimate_strata
from balancerd.model.ids import NodeId
from tests.unit.kernel.placement.memories import random_memory

SAMPLES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One node's share in one placement."""

    share: float
    error: float
    is_inside: bool
    strata: int
    differing_pairs: int
    """Of all pairs, those that have just one page on the node: how well its variance is known."""

    @property
    def sort(self) -> str:
        if self.share < 0.01:
            return "below 1 %"
        if self.differing_pairs < 10:
            return "in few places"
        return "one stratum" if self.strata == 1 else "several strata"


def cases(placements: int, seed: int, *, most_pages: int = 1 << 19) -> list[Case]:
    chance = random.Random(seed)  # noqa: S311 the same in every run
    found = []
    for _ in range(placements):
        memory = random_memory(chance, most_pages=most_pages)
        truth = memory.pages_by_node()
        present = sum(truth)
        estimate = estimate_strata(memory.strata(), present, SAMPLES, memory.ask)
        if estimate.is_exact or not present:
            continue
        estimated = pages_by_node(estimate.parts)
        bounds = allow_for_hidden(intervals(estimate.parts), estimate.parts, present)
        for node, pages in enumerate(truth):
            if 0 < pages < present:
                share, interval = pages / present, bounds[NodeId(node)]
                found.append(
                    Case(
                        share=share,
                        error=estimated[node] / sum(estimated) - share,
                        is_inside=interval.low <= share <= interval.high,
                        strata=len(estimate.parts),
                        differing_pairs=sum(part.tally.differing_pairs[node] for part in estimate.parts),
                    )
                )
    return found


def summary(some: list[Case]) -> dict[str, float]:
    errors = sorted(abs(case.error) for case in some)
    return {
        "cases": len(some),
        "inside %": round(100 * sum(case.is_inside for case in some) / len(some), 2),
        "95 % error": round(100 * errors[math.ceil(0.95 * len(errors)) - 1], 2),
        "rms error": round(100 * math.sqrt(sum(error * error for error in errors) / len(errors)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--placements", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    by_sort: dict[str, list[Case]] = defaultdict(list)
    for case in cases(options.placements, options.seed):
        by_sort["all"].append(case)
        by_sort[case.sort].append(case)
    rows = {sort: summary(some) for sort, some in sorted(by_sort.items())}
    for sort, row in rows.items():
        print(f"{sort:>15}", "  ".join(f"{name} {value:>7}" for name, value in row.items()))
    print(json.dumps({"bench": "coverage", "placements": options.placements, "rows": rows}))


if __name__ == "__main__":
    main()
