"""What the counts of one process say, as the model's records: runs of pages that one node uses, and regions.

Owns what is judged, and where that lies. Must not know where the counts come from, nor what is done about them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from balancerd import native
from balancerd.kernel.accesses.memory import MOST_PIECES, located, located_regions, pieces
from balancerd.kernel.errors import BlockedError, ProcessGoneError
from balancerd.kernel.moving.room import Room
from balancerd.kernel.placement.pool import PatientReads
from balancerd.model.access import REGION_BYTES, AccessRegion, AccessRun
from balancerd.model.extent import Extent, joined
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.topology import Topology

MOST_RUNS = 4096
MOST_REGIONS = 1024

HUGE_SECONDS = 60.0
"""How often it is asked which mappings hold huge pages; smaps takes 47 ns for each page of the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Runs and regions, ascending, and how many of each did not fit."""

    runs: tuple[AccessRun, ...] = ()
    regions: tuple[AccessRegion, ...] = ()
    unreported_runs: int = 0
    unreported_regions: int = 0


@dataclass(slots=True)
class Findings:
    """What was found out of one process last. `huge` are its mappings that hold huge pages; None: any may."""

    judged: Judged = field(default_factory=Judged)
    huge: tuple[Extent, ...] | None = None
    huge_at: float = float("-inf")


def judge(table: native.AccessTable, rule: native.JudgeRule, *, since_seconds: float) -> Judged:
    """Judge the pages that were accessed since a time. Where they lie is not known yet."""
    judged, regions = table.judge_all(rule, since_seconds=since_seconds, most_runs=MOST_RUNS, most_regions=MOST_REGIONS)
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
                node=None if region.node is None else NodeId(region.node),
                is_mixed=region.is_mixed,
            )
            for region in regions.regions
        ),
        unreported_runs=judged.missed_runs + len(every[MOST_PIECES:]),
        unreported_regions=regions.missed_regions,
    )


class Locator:
    """Finds where pages lie that were judged. `phase` returns numbers in [0, 1): where samples of placements begin."""

    def __init__(
        self, reads: PatientReads, topology: Callable[[], Topology], room: Room, phase: Callable[[], float]
    ) -> None:
        self._reads = reads
        self._topology = topology
        self._room = room
        self._phase = phase

    def locate(self, process: ProcessId, findings: Findings, now: float) -> None:
        """Add where runs and regions lie now; if the process cannot be asked in time, nobody knows.

        Raises ProcessGoneError, ParseError, OSError.
        """
        n_nodes, judged = max(self._topology().node_ids) + 1, findings.judged

        def find() -> Judged:
            return replace(
                judged,
                runs=located(process.pid, judged.runs, n_nodes=n_nodes, phase=self._phase()),
                regions=located_regions(process.pid, judged.regions, n_nodes=n_nodes, phase=self._phase()),
            )

        try:
            findings.judged = self._reads.read(process, find)
            self._learn_huge(process, findings, now)
        except BlockedError:
            return
        except ProcessLookupError as error:
            raise ProcessGoneError(f"process {process.pid} exited while it was read") from error

    def _learn_huge(self, process: ProcessId, findings: Findings, now: float) -> None:
        """Learn which mappings hold huge pages, where it matters: where runs are not of whole regions."""
        if now - findings.huge_at < HUGE_SECONDS or not any(map(_is_ragged, findings.judged.runs)):
            return
        findings.huge_at = now
        found = self._reads.read(process, lambda: self._room.huge_mappings(process.pid))
        findings.huge = joined(Extent(start, end) for start, end in found)


def _is_ragged(run: AccessRun) -> bool:
    return bool(run.start % REGION_BYTES or run.end % REGION_BYTES)
