"""What the daemon sees of the machine: surveys, and placements with the error that samples have.

Owns how much looking costs and how far it errs. It must not know how memory moves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.interval import Interval, wilson
from balancerd.model.machine import Machine as MachineState
from balancerd.model.machine import NodeState
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import (
    PAGE_BYTES,
    Mempolicy,
    PlacementSample,
    Pressure,
    ProcessSample,
    SampleRequest,
    Sampling,
    Survey,
    Vma,
    VmaKind,
    VmaPlacement,
)
from balancerd.ports import SurveyScope
from balancerd.simulation.clock import SimClock
from balancerd.simulation.machine import Machine, SimNode
from balancerd.simulation.process import Part, SimProcess

SURVEY_SECONDS: Final = 10e-6
"""CPU time of reading one process of which something is new, with its threads; others cost nearly nothing."""

SAMPLES: Final = 2048
SAMPLE_SECONDS: Final = 0.001
"""What the real estimator asks for, and what that takes, whatever the size: docs/placement.md."""

TESTED: Final = 55
TEST_SECONDS: Final = 0.0002
MOST_ELSEWHERE: Final = 4
"""So many answers, and no more of them elsewhere, tell a process that is well placed: 5 % misplaced passes with 86 %,
15 % with 9 %, much as the sequential test of docs/placement.md."""

NUMA_MAPS_SECONDS_PER_PAGE: Final = 25e-9
"""Reading numa_maps walks over every page."""

MEMPOLICY_SECONDS: Final = 60.0
"""For so long a reading of numa_maps tells all mappings, as kernel/placement/reader.py has it."""

YOUNG_SECONDS: Final = 120.0
"""Of a process younger than this the survey tells the age anew each time; of others nothing depends on it."""


@dataclass(slots=True)
class _Seen:
    """A process as the last survey told it; `is_steady` when nothing had changed since the one before."""

    version: int
    sample: ProcessSample
    is_steady: bool


class Looker:
    """Surveys and samples. `exact` asks for every page; else samples err, by the chance of `chance`."""

    def __init__(self, machine: Machine, clock: SimClock, chance: Random, *, exact: bool) -> None:
        self._machine, self._clock, self._chance, self._exact = machine, clock, chance, exact
        self._seen: dict[ProcessId, _Seen] = {}
        self._mempolicies_at: dict[ProcessId, float] = {}
        self._taken_at: float | None = None
        everywhere = machine.topology
        self._all_cpus = frozenset(everywhere.node_of_cpu)
        self._all_nodes = frozenset(everywhere.node_ids)

    def survey(self, scope: SurveyScope) -> Survey:
        """Look at every process. One of which nothing has changed is told by the very same object."""
        machine, now = self._machine, self._clock.now()
        interval = None if self._taken_at is None else now - self._taken_at
        seen: dict[ProcessId, _Seen] = {}
        told: list[ProcessSample] = []
        small = n_read = 0
        for process in machine.list:
            if process.n_pages * PAGE_BYTES < scope.min_rss_bytes:
                small += 1
                continue
            known = self._seen.get(process.id)
            if known is None or not known.is_steady or known.version != process.version:
                n_read += 1
                machine.settle(process)
                sample = self._tell(process, None if known is None else interval, scope, now)
                is_steady = (
                    known is not None and known.version == process.version and sample.age_seconds >= YOUNG_SECONDS
                )
                known = _Seen(process.version, sample, is_steady)
            seen[process.id] = known
            told.append(known.sample)
        for process_id in self._mempolicies_at.keys() - seen.keys():
            del self._mempolicies_at[process_id]
        self._seen, self._taken_at = seen, now
        machine.surveyed_at = now
        self._clock.work(n_read * SURVEY_SECONDS)
        return Survey(
            taken_at=now,
            interval_seconds=interval,
            topology=machine.topology,
            memory=machine.memory(),
            processes=tuple(told),
            small_processes=small,
            read_processes=n_read,
            pressure=Pressure(cpu_ratio=self._cpu_pressure(), memory_ratio=None),
            machine=MachineState(nodes={node.id: _state(node) for node in machine.nodes}),
        )

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """Estimate placements; a process that has gone meanwhile is missed."""
        placements: list[PlacementSample] = []
        missed: list[Skip] = []
        for request in requests:
            self._machine.advance(self._clock.now())
            process = self._machine.processes.get(request.process)
            if process is None:
                missed.append(Skip(by="kernel", process=request.process, reason=Reason.VANISHED))
            else:
                placements.append(self._estimate(process, request))
        return Sampling(placements=tuple(placements), missed=tuple(missed))

    def _cpu_pressure(self) -> float:
        """Return the share of time in which some task waits for a CPU: that of the worst node."""
        return max(max(0.0, -node.idle_cores) / max(node.demand_cores, 1e-9) for node in self._machine.nodes)

    def _tell(self, process: SimProcess, interval: float | None, scope: SurveyScope, now: float) -> ProcessSample:
        cores: float | None = None
        run_seconds: dict[NodeId, float] | None = None
        if interval:
            ran = process.run_seconds - process.run_mark_seconds
            cores = ran / interval
            if cores >= scope.min_cpu_cores:
                run_seconds = self._by_node(process, ran)
        is_loud = run_seconds is not None
        group = process.group
        return ProcessSample(
            id=process.id,
            comm=group.name,
            age_seconds=now - process.born_at,
            rss_bytes=process.n_pages * PAGE_BYTES,
            cpu_cores=cores,
            n_threads=len(process.threads),
            uid=1000 if is_loud else None,
            cgroup=f"/{group.name}" if is_loud else None,
            run_seconds=run_seconds,
            faults_per_second=0.0 if cores is not None else None,
            cpus_allowed=self._cpus(process) if is_loud else None,
            mems_allowed=self._all_nodes if is_loud else None,
        )

    def _by_node(self, process: SimProcess, ran: float) -> dict[NodeId, float]:
        """Return what ran by the node where threads are now: a survey counts all that for where a thread ran last."""
        by_node = process.busy_by_node(self._machine.scale)
        total = sum(by_node.values())
        return {node: ran * cores / total for node, cores in by_node.items() if cores > 0} if total > 0 else {}

    def _cpus(self, process: SimProcess) -> frozenset[CpuId]:
        if process.group.allowed is None:
            return self._all_cpus
        return frozenset(cpu for node in process.group.allowed for cpu in self._machine.nodes[node].cpus)

    def _estimate(self, process: SimProcess, request: SampleRequest) -> PlacementSample:
        now = self._clock.now()
        if request.read_mempolicies:
            self._mempolicies_at[process.id] = now
        read_at = self._mempolicies_at.get(process.id)
        is_complete = self._exact or (read_at is not None and now - read_at <= MEMPOLICY_SECONDS)
        answers, method = 0, PlacementMethod.EVERY_PAGE
        if request.read_mempolicies:
            seconds, method = process.n_pages * NUMA_MAPS_SECONDS_PER_PAGE, PlacementMethod.NUMA_MAPS
        elif self._exact:
            seconds = process.n_pages * NUMA_MAPS_SECONDS_PER_PAGE
        elif request.home is not None and not is_complete and self._is_well_placed(process, request.home):
            seconds, method, answers = TEST_SECONDS, PlacementMethod.TEST, TESTED
        else:
            seconds, method, answers = SAMPLE_SECONDS, PlacementMethod.SAMPLE, SAMPLES
        vmas = tuple(self._place(part, process.n_pages, answers, is_read=read_at is not None) for part in process.parts)
        self._clock.work(seconds)
        asked = answers or process.n_pages
        return PlacementSample(
            process=process.id,
            taken_at=now,
            vmas=vmas,
            queried_pages=asked,
            present_pages=asked,
            exact=not answers,
            seconds=seconds,
            mempolicies_at=read_at,
            method=method,
            intervals=_intervals(vmas, answers) if answers else {},
            n_vmas=len(process.parts),
            complete=is_complete,
        )

    def _is_well_placed(self, process: SimProcess, home: NodeId) -> bool:
        elsewhere = 1.0 - process.pages_on().get(home, 0) / process.n_pages
        return self._draw(TESTED, elsewhere) <= MOST_ELSEWHERE

    def _place(self, part: Part, total_pages: int, answers: int, *, is_read: bool) -> VmaPlacement:
        """Return what is seen of one mapping, which has its part of all answers."""
        layout = part.layout
        held: Mapping[NodeId, float] = {node: float(pages) for node, pages in layout.pages_on.items()}
        asked = min(layout.n_pages, math.ceil(answers * layout.n_pages / total_pages))
        if asked and len(held) > 1:
            held = self._seen_pages(layout.pages_on, layout.n_pages, asked)
        vma = Vma(
            start=part.start,
            end=part.end,
            kind=VmaKind.SHMEM if part.is_foreign else VmaKind.ANON,
            shared=part.is_foreign,
            page_bytes=PAGE_BYTES if is_read else None,
            mempolicy=Mempolicy(mode="default") if is_read else None,
        )
        return VmaPlacement(vma=vma, pages_by_node=held, absent_pages=0.0, found_pages=asked or layout.n_pages)

    def _seen_pages(self, pages_on: Mapping[NodeId, int], n_pages: int, asked: int) -> dict[NodeId, float]:
        """Return pages by node as so many answers tell them; drawn node by node."""
        left, rest = asked, n_pages
        found: dict[NodeId, float] = {}
        for node, pages in sorted(pages_on.items()):
            answers = self._draw(left, min(1.0, pages / rest)) if left and rest else 0
            left, rest = left - answers, rest - pages
            if answers:
                found[node] = answers / asked * n_pages
        return found

    def _draw(self, answers: int, share: float) -> int:
        """Return how many of so many answers say yes; of many, by the normal approximation."""
        if share <= 0.0 or share >= 1.0:
            return answers if share >= 1.0 else 0
        if answers < 100:
            return sum(self._chance.random() < share for _ in range(answers))
        drawn = self._chance.gauss(answers * share, math.sqrt(answers * share * (1.0 - share)))
        return min(answers, max(0, round(drawn)))


def _state(node: SimNode) -> NodeState:
    """Return how loaded a node is at the moment; the real one tells it over the time since the reading before."""
    load = min(1.0, node.demand_cores / len(node.cpus)) if node.cpus else None
    return NodeState(node=node.id, load_ratio=load)


def _intervals(vmas: tuple[VmaPlacement, ...], answers: int) -> dict[NodeId, Interval]:
    pages: dict[NodeId, float] = {}
    for placed in vmas:
        for node, count in placed.pages_by_node.items():
            pages[node] = pages.get(node, 0.0) + count
    total = sum(pages.values())
    return {node: wilson(min(1.0, count / total), answers) for node, count in pages.items()} if total > 0 else {}
