"""Builders of records with sensible defaults; fakes of the ports: a clock that only adds, a machine in memory."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from balancerd.engine.budgets import Rates
from balancerd.model.access import REGION_BYTES, Accesses, AccessMethod, AccessRegion, AccessRun, AccessWindow
from balancerd.model.decision import Reason, Skip
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.machine import Machine, NodeState
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    FailedRun,
    MigrationOutcome,
    MigrationStep,
    MovedRun,
    RunsNow,
    Verified,
    VerifyRequest,
    WholeMove,
)
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import (
    PAGE_BYTES,
    Mempolicy,
    PlacementSample,
    Pressure,
    ProcessSample,
    SampleRequest,
    Sampling,
    Snapshot,
    Survey,
    Vma,
    VmaKind,
    VmaPlacement,
)
from balancerd.model.steering import SteerKind, SteerOutcome, SteerStep, ThreadFate, nothing_steered
from balancerd.model.topology import Node, NodeMemory, Topology
from balancerd.ports import SurveyScope

MIB = 1 << 20
GIB = 1 << 30
RING = ((10, 12, 21, 31), (12, 10, 31, 21), (21, 31, 10, 12), (31, 21, 12, 10))
VMA_START = 0x7F00_0000_0000
N0, N1, N2, N3 = (NodeId(n) for n in range(4))


def make_topology(distances: tuple[tuple[int, ...], ...] = RING, memoryless: Iterable[int] = ()) -> Topology:
    """One CPU a node, numbered alike; 8 GiB a node but for the memoryless ones."""
    ids = [NodeId(n) for n in range(len(distances))]
    return Topology(
        nodes=tuple(
            Node(
                id=n,
                cpus=frozenset({CpuId(n)}),
                total_bytes=0 if n in set(memoryless) else 8 * GIB,
                distances=dict(zip(ids, distances[n], strict=True)),
            )
            for n in ids
        ),
        node_of_cpu={CpuId(n): n for n in ids},
    )


def make_memory(topology: Topology, free_bytes: Mapping[int, int] | None = None) -> dict[NodeId, NodeMemory]:
    return {
        node.id: NodeMemory(
            node=node.id,
            total_bytes=node.total_bytes,
            free_bytes=(free_bytes or {}).get(node.id, node.total_bytes * 3 // 4),
            inactive_file_bytes=0,
            high_watermark_bytes=16 * MIB,
        )
        for node in topology.nodes
    }


def make_process(pid: int = 100, *, run: Mapping[int, float] | None = None, **changes: Any) -> ProcessSample:
    """A busy, grown-up process; `run` is run time in seconds by node."""
    process = ProcessSample(
        id=ProcessId(pid, 1),
        comm="worker",
        age_seconds=600.0,
        rss_bytes=256 * MIB,
        cpu_cores=1.0,
        uid=0,
        cgroup="/",
        run_seconds={NodeId(n): seconds for n, seconds in ({0: 2.0} if run is None else run).items()},
        cpus_allowed=frozenset(CpuId(n) for n in range(4)),
        mems_allowed=frozenset(NodeId(n) for n in range(4)),
    )
    return replace(process, **changes)


def make_vma(mib: float, index: int = 0, **changes: Any) -> Vma:
    start = VMA_START + index * 64 * GIB
    vma = Vma(
        start=start,
        end=start + round(mib * MIB),
        kind=VmaKind.ANON,
        page_bytes=PAGE_BYTES,
        mempolicy=Mempolicy(mode="default"),
    )
    return replace(vma, **changes)


def make_placement(
    mib_by_node: Mapping[int, float],
    *,
    pid: int = 100,
    taken_at: float = 0.0,
    mempolicies_at: float | None = 0.0,
    **vma: Any,
) -> PlacementSample:
    """All memory in one mapping."""
    pages = {NodeId(n): mib * MIB / PAGE_BYTES for n, mib in mib_by_node.items()}
    placed = VmaPlacement(vma=make_vma(sum(mib_by_node.values()), **vma), pages_by_node=pages, absent_pages=0.0)
    return PlacementSample(
        process=ProcessId(pid, 1),
        taken_at=taken_at,
        vmas=(placed,),
        queried_pages=2048,
        present_pages=2048,
        exact=False,
        seconds=0.001,
        mempolicies_at=mempolicies_at,
    )


def make_survey(
    *processes: ProcessSample,
    at: float = 0.0,
    interval: float | None = 2.0,
    topology: Topology | None = None,
    free_bytes: Mapping[int, int] | None = None,
    pressure: Pressure | None = None,
    loads: Mapping[int, float] | None = None,
) -> Survey:
    """`loads` are those of the nodes; without, nothing is known of the machine."""
    topology = topology or make_topology()
    return Survey(
        taken_at=at,
        interval_seconds=interval,
        topology=topology,
        memory=make_memory(topology, free_bytes),
        processes=processes,
        pressure=pressure or Pressure(cpu_ratio=None, memory_ratio=None),
        machine=make_machine(loads) if loads else None,
    )


def make_machine(loads: Mapping[int, float]) -> Machine:
    return Machine(nodes={NodeId(n): NodeState(node=NodeId(n), load_ratio=load) for n, load in loads.items()})


def make_snapshot(survey: Survey, *placements: PlacementSample, windows: Iterable[AccessWindow] = ()) -> Snapshot:
    return Snapshot(
        taken_at=survey.taken_at,
        survey=survey,
        placements={p.process: p for p in placements},
        eligible=survey.processes,
        accesses={window.process: window for window in windows},
    )


def make_access_run(
    mib: float,
    node: int,
    held: Mapping[int, float] | None,
    *,
    at_mib: float = 0.0,
    weight: float = 100.0,
    **changes: Any,
) -> AccessRun:
    """Memory used by threads on `node`, from `at_mib` behind VMA_START on; `held` is MiB by node, None: not known."""
    start = VMA_START + round(at_mib * MIB)
    run = AccessRun(
        start=start,
        end=start + round(mib * MIB),
        node=NodeId(node),
        weight=weight,
        node_weight=weight,
        pages_by_node=None if held is None else {NodeId(n): m * MIB / PAGE_BYTES for n, m in held.items()},
    )
    return replace(run, **changes)


def make_access_window(*runs: AccessRun, pid: int = 100, at: float = 0.0, **changes: Any) -> AccessWindow:
    """All samples tell an address, none is lost, and no page is huge."""
    window = AccessWindow(
        process=ProcessId(pid, 1),
        taken_at=at,
        seconds=2.0,
        watched_seconds=60.0,
        method=AccessMethod.REGISTERS,
        samples=800,
        hits=800,
        threads=4,
        runs=runs,
        huge=(),
    )
    return replace(window, **changes)


def make_region(index: int = 0, *, is_mixed: bool = False, **weights: float) -> AccessRegion:
    """The region so many behind VMA_START; weights are named n0=1.0."""
    by_node = {NodeId(int(name[1:])): weight for name, weight in weights.items()}
    return AccessRegion(start=VMA_START + index * REGION_BYTES, weight_by_node=by_node, is_mixed=is_mixed)


def make_rates(
    *,
    machine_mib: float = 1024,
    process_mib: float = 1024,
    pair_mib: float = 1024,
    evict_mib: float = 64,
    interval: float = 2.0,
) -> Rates:
    """MiB a second."""
    return Rates(
        machine_bytes_per_second=machine_mib * MIB,
        process_bytes_per_second=process_mib * MIB,
        node_pair_bytes_per_second=pair_mib * MIB,
        evict_bytes_per_second=evict_mib * MIB,
        interval_seconds=interval,
    )


def make_run(start: int, mib: float, *, source: int = 2, target: int = 0, page_bytes: int = PAGE_BYTES) -> MovedRun:
    return MovedRun(
        start=start, end=start + round(mib * MIB), page_bytes=page_bytes, source=NodeId(source), target=NodeId(target)
    )


def make_verified(asked: int, elsewhere: int = 0, absent: int = 0) -> Verified:
    return Verified(
        asked_pages=asked,
        on_target_pages=asked - elsewhere - absent,
        elsewhere_pages=elsewhere,
        absent_pages=absent,
    )


def _pages(run: MovedRun) -> int:
    """Base pages."""
    return (run.end - run.start) // PAGE_BYTES


class FakeClock:
    """Time that passes only when someone waits, or when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.time = now
        self.cpu = 0.0

    def now(self) -> float:
        return self.time

    def cpu_seconds(self) -> float:
        return self.cpu

    def wait_until(self, deadline: float) -> None:
        self.time = max(self.time, deadline)


class FakeAccessWatch:
    """Tells the windows that a test has put there; whom it was asked for, one entry a reading."""

    def __init__(self) -> None:
        self.windows: dict[ProcessId, AccessWindow] = {}
        self.asked: list[tuple[ProcessId, ...]] = []

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        self.asked.append(tuple(processes))
        return Accesses(
            windows={p: self.windows[p] for p in processes if p in self.windows},
            missed={
                p: Skip(by="accesses", process=p, reason=Reason.NOT_WATCHED, detail="no source")
                for p in processes
                if p not in self.windows
            },
        )


class FakeHeatWatch:
    """Knows of one process that its first page is hot; whom it was asked for, one entry a tick."""

    def __init__(self, process: ProcessId) -> None:
        self.asked: list[tuple[tuple[ProcessId, ...], tuple[ProcessId, ...]]] = []
        region = HeatRegion(start=VMA_START, end=VMA_START + PAGE_BYTES, ratio=1.0)
        window = HeatWindow(
            process=process, taken_at=0.0, seconds=0.1, watched_seconds=1.0, method=HeatMethod.DAMON, regions=(region,)
        )
        self.heats = Heats(method=HeatMethod.DAMON, windows={process: window})

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        self.asked.append((tuple(asked), tuple(others)))
        return self.heats


class FakeKernel:
    """Processes in memory: their pages go where migrate() says, `stuck_mib` of each stay. Decisions only.

    All memory of a process is one mapping from VMA_START on; what moves, moves in ascending order, and what is stuck is
    its end; of a step over parts of it, what is on the target lies in these parts. `returned_ratio` of the pages asked
    for by verify() are found elsewhere, `absent_ratio` are gone.
    """

    mode = "enforce"

    def __init__(self, clock: FakeClock, topology: Topology | None = None) -> None:
        self.clock = clock
        self.topology = topology or make_topology()
        self.processes: dict[ProcessId, ProcessSample] = {}
        self.mib: dict[ProcessId, dict[NodeId, float]] = {}
        self.stuck_mib: dict[ProcessId, float] = {}
        self.stuck_status = PageStatus.SHARED
        self.mempolicy = Mempolicy(mode="default")
        self.missed: dict[ProcessId, Reason] = {}
        self.migrate_bytes_per_step = GIB
        self.stopped_by: Reason | None = None
        self.read_mempolicies: list[ProcessId] = []
        self.steps: list[MigrationStep] = []
        self.evictions: list[EvictionStep] = []
        self.steers: list[SteerStep] = []
        self.asleep: set[ProcessId] = set()
        self.steering_refused: Reason | None = None
        self.loads: dict[int, float] = {}
        self.verified: list[VerifyRequest] = []
        self.whole_moves: list[tuple[ProcessId, dict[NodeId, NodeId]]] = []
        self.returned_ratio: dict[ProcessId, float] = {}
        self.absent_ratio: dict[ProcessId, float] = {}
        self.pressure = Pressure(cpu_ratio=None, memory_ratio=None)
        self._last: float | None = None
        self.free_bytes: dict[int, int] = {}

    def add(self, process: ProcessSample, mib_by_node: Mapping[int, float]) -> None:
        self.processes[process.id] = process
        self.mib[process.id] = {NodeId(n): float(mib) for n, mib in mib_by_node.items()}

    def survey(self, scope: SurveyScope) -> Survey:
        now = self.clock.now()
        interval, self._last = (None if self._last is None else now - self._last), now
        big = tuple(p for p in self.processes.values() if p.rss_bytes >= scope.min_rss_bytes)
        return make_survey(
            *big,
            at=now,
            interval=interval,
            topology=self.topology,
            free_bytes=self.free_bytes,
            pressure=self.pressure,
            loads=self.loads,
        )

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        placements, missed = [], []
        for request in requests:
            if request.process in self.missed:
                missed.append(Skip(by="kernel", process=request.process, reason=self.missed[request.process]))
                continue
            if request.read_mempolicies:
                self.read_mempolicies.append(request.process)
            read = request.process in self.read_mempolicies
            placement = make_placement(
                {int(node): mib for node, mib in self.mib[request.process].items()},
                pid=request.process.pid,
                taken_at=self.clock.now(),
                mempolicies_at=self.clock.now() if read else None,
                mempolicy=self.mempolicy if read else None,
                page_bytes=PAGE_BYTES if read else None,
            )
            placements.append(placement)
        return Sampling(placements=tuple(placements), missed=tuple(missed))

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        yield from ()
        return self.migrate(step, should_stop)

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        assert not should_stop()
        self.steps.append(step)
        held = self.mib[step.process]
        goes = [node for node in held if node != step.target and (step.target_of is None or node in step.target_of)]
        span = sum(part.end - part.start for part in step.ranges) / MIB  # what is on the target lies in there
        away = min(sum(held[node] for node in goes), max(0.0, span - held.get(step.target, 0.0)))
        stuck = min(away, self.stuck_mib.get(step.process, 0.0))
        moved = min(away - stuck, min(step.budget_bytes, self.migrate_bytes_per_step) / MIB)
        start = max(step.resume_at, VMA_START)
        moved_runs: list[MovedRun] = []
        left, at = moved, start
        for node in goes:
            part = min(left, held[node])
            held[node] -= part
            left -= part
            if part:
                moved_runs.append(make_run(at, part, source=node, target=step.target))
                at = moved_runs[-1].end
        held[step.target] = held.get(step.target, 0.0) + moved
        done = moved >= away - stuck
        pages = {PageStatus.MOVED: sum(_pages(run) for run in moved_runs)}
        failed_runs: tuple[FailedRun, ...] = ()
        if done and stuck:
            end = VMA_START + round(sum(held.values()) * MIB)
            failed = FailedRun(start=end - round(stuck * MIB), end=end, page_bytes=PAGE_BYTES, status=self.stuck_status)
            failed_runs = (failed,)
            pages[self.stuck_status] = round(stuck * MIB / PAGE_BYTES)
        moved_from: dict[NodeId, int] = {}
        for run in moved_runs:
            moved_from[run.source] = moved_from.get(run.source, 0) + _pages(run)
        return MigrationOutcome(
            step=step,
            looked_pages=sum(pages.values()),
            on_target_pages=0,
            passed_over={},
            submitted_pages=sum(pages.values()),
            pages=pages,
            moved_from=moved_from,
            call_seconds=(0.001,),
            query_seconds=0.0,
            batch_pages=512,
            resume_at=None if done else at,
            stopped_by=self.stopped_by,
            moved_runs=tuple(moved_runs),
            failed_runs=failed_runs,
        )

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Threads go at once; those of processes in `asleep` keep their affinity until they are let go."""
        self.steers.append(step)
        process = self.processes.get(step.process)
        if process is None:
            return nothing_steered(step, Reason.EXITED)
        if step.kind is SteerKind.RELEASE:
            return SteerOutcome(step=step, threads={ThreadFate.RESTORED: process.n_threads})
        if self.steering_refused is not None:
            return nothing_steered(step, self.steering_refused)
        ran = sum((process.run_seconds or {}).values())
        self.processes[step.process] = replace(process, run_seconds={step.target: ran})
        fate = ThreadFate.PINNED if step.kind is SteerKind.PIN else ThreadFate.MOVED
        if step.process in self.asleep:
            fate = ThreadFate.UNSEEN
        held = 0 if fate is ThreadFate.MOVED else process.n_threads
        return SteerOutcome(step=step, threads={fate: process.n_threads}, held_threads=held)

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Take memory from the lowest node on, up to the budget; `stuck_mib` stay."""
        assert not should_stop()
        self.evictions.append(step)
        held = self.mib[step.process]
        total = sum(held.values())
        advised = min(total, step.budget_bytes / MIB)
        gone = 0.0 if step.cold_only else min(advised, max(0.0, total - self.stuck_mib.get(step.process, 0.0)))
        left = gone
        for node in sorted(held):
            part = min(left, held[node])
            held[node] -= part
            left -= part
        advised_pages, gone_pages = round(advised * MIB / PAGE_BYTES), round(gone * MIB / PAGE_BYTES)
        return EvictionOutcome(
            step=step,
            looked_pages=advised_pages,
            absent_pages=0,
            other_pages=0,
            advised_pages=advised_pages,
            evicted_pages=gone_pages,
            kept_pages=advised_pages - gone_pages,
            call_seconds=(0.001,),
            query_seconds=0.0,
            resume_at=None if advised >= total else max(step.resume_at, VMA_START) + round(advised * MIB),
            stopped_by=self.stopped_by,
        )

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        self.whole_moves.append((process, dict(target_of)))
        held = self.mib[process]
        before = {node: round(mib * MIB) for node, mib in held.items()}
        after: dict[NodeId, float] = {}
        for node, mib in held.items():
            target = target_of.get(node, node)
            after[target] = after.get(target, 0.0) + mib
        self.mib[process] = after
        return WholeMove(
            process=process,
            target_of=dict(target_of),
            not_moved_pages=0,
            seconds=0.01,
            before_bytes=before,
            after_bytes={node: round(mib * MIB) for node, mib in after.items()},
        )

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Answer for each run with its share of the pages asked for, at least one."""
        self.verified.append(request)
        if request.process not in self.processes:
            return Skip(by="kernel", process=request.process, reason=Reason.EXITED)
        total = sum(_pages(run) for run in request.runs)
        asked = [max(1, request.asked_pages * _pages(run) // total) for run in request.runs]
        returned = self.returned_ratio.get(request.process, 0.0)
        absent = self.absent_ratio.get(request.process, 0.0)
        runs = tuple(make_verified(pages, round(pages * returned), round(pages * absent)) for pages in asked)
        return RunsNow(
            process=request.process,
            runs=runs,
            total=make_verified(
                sum(asked), sum(run.elsewhere_pages for run in runs), sum(run.absent_pages for run in runs)
            ),
        )
