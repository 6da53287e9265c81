"""What the counts of one process say, as the model's records: runs of pages that one node uses, and regions.

Must not know where the counts come from, nor what is done about them.
"""

from dataclasses import dataclass

from balancerd import native
from balancerd.kernel.accesses.memory import MOST_PIECES, pieces
from balancerd.model.access import AccessRegion, AccessRun
from balancerd.model.ids import NodeId

MOST_RUNS = 4096
MOST_REGIONS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Runs and regions, ascending, and how many of each did not fit. Where the pages of runs lie is not known yet."""

    runs: tuple[AccessRun, ...] = ()
    regions: tuple[AccessRegion, ...] = ()
    unreported_runs: int = 0
    unreported_regions: int = 0


def judge(table: native.AccessTable, rule: native.JudgeRule, *, since_seconds: float) -> Judged:
    """Judge the pages that were accessed since a time."""
    judged = table.judge(rule, since_seconds=since_seconds, most_runs=MOST_RUNS)
    regions = table.regions(rule, since_seconds=since_seconds, most_regions=MOST_REGIONS)
    found = (
        AccessRun(
            start=run.start,
            end=run.end,
            node=NodeId(run.node),
            weight=run.weight,
            node_weight=run.node_weight,
            is_mixed=run.is_mixed,
        )
        for run in judged.runs
    )
    every = tuple(pieces(found))
    return Judged(
        runs=every[:MOST_PIECES],
        regions=tuple(
            AccessRegion(
                start=region.start,
                weight_by_node={NodeId(node): weight for node, weight in region.weights},
                is_mixed=region.is_mixed,
            )
            for region in regions.regions
        ),
        unreported_runs=judged.missed_runs + len(every[MOST_PIECES:]),
        unreported_regions=regions.missed_regions,
    )
