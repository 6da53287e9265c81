"""A machine in memory that knows the node of every page, and jobs at work on it; time passes as pages move."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace

from balancerd.engine.budgets import Rates
from balancerd.engine.memory import EngineMemory, new_memory
from balancerd.engine.plan import PlanLimits
from balancerd.jobs.board import Jobs
from balancerd.jobs.means import Means
from balancerd.jobs.record import Job, JobRequest, JobState
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
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
    ProcessSample,
    SampleRequest,
    Sampling,
    Survey,
    Vma,
    VmaKind,
    VmaPlacement,
)
from balancerd.model.steering import SteerOutcome, SteerStep, nothing_steered
from balancerd.model.topology import NodeMemory, Topology
from balancerd.ports import SurveyScope
from tests.unit.fakes import GIB, FakeClock, make_memory, make_process, make_topology

START = 0x7F00_0000_0000

DEFAULT = Mempolicy(mode="default")


@dataclass
class Memory:
    """Mappings of pages by node, each from a start of its own; `status_of` says which pages refuse, and how."""

    vmas: dict[Vma, list[int | None]]
    status_of: dict[int, PageStatus] = field(default_factory=dict)

    def nodes(self) -> Counter[int | None]:
        return Counter(node for pages in self.vmas.values() for node in pages)


def a_vma(index: int, pages: int, mempolicy: Mempolicy | None = DEFAULT, **changes: object) -> Vma:
    start = START + index * GIB
    vma = Vma(
        start=start, end=start + pages * PAGE_BYTES, kind=VmaKind.ANON, page_bytes=PAGE_BYTES, mempolicy=mempolicy
    )
    return replace(vma, **changes)  # type: ignore[arg-type]  # whatever a test wants to be different


class PagedKernel:
    """The Kernel port over `memories`. `raises` and `stopped_by` are used up one a call."""

    mode = "enforce"

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.memories: dict[ProcessId, Memory] = {}
        self.steps: list[MigrationStep | EvictionStep] = []
        self.stopped_by: list[Reason | None] = []
        self.raises: list[Exception] = []
        self.idle_steps = 0
        self.page_seconds = 1 / 256  # so that sums are exact, and a slice of 1 s is 256 pages
        self.on_page: Callable[[], None] = lambda: None
        self.on_whole: Callable[[], None] = lambda: None

    def survey(self, scope: SurveyScope) -> Survey:
        raise AssertionError(f"a job must not disturb the surveys: {scope}")

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        raise AssertionError(f"nobody asked for it: {request}")

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        (request,) = requests
        assert request.read_mempolicies
        memory = self.memories.get(request.process)
        if memory is None:
            return Sampling(placements=(), missed=(Skip(by="kernel", process=request.process, reason=Reason.VANISHED),))
        placed = tuple(
            VmaPlacement(
                vma=vma,
                pages_by_node={NodeId(n): float(c) for n, c in Counter(pages).items() if n is not None},
                absent_pages=float(pages.count(None)),
            )
            for vma, pages in memory.vmas.items()
        )
        n = sum(len(pages) for pages in memory.vmas.values())
        placement = PlacementSample(
            process=request.process,
            taken_at=self.clock.now(),
            vmas=placed,
            queried_pages=n,
            present_pages=n,
            exact=True,
            seconds=0.0,
            mempolicies_at=self.clock.now(),
        )
        return Sampling(placements=(placement,))

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        yield from ()
        return self.migrate(step, should_stop)

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        self._begin(step)
        stopped_by = self.stopped_by.pop(0) if self.stopped_by else None
        memory = self.memories.get(step.process)
        counts: Counter[str] = Counter()
        pages: Counter[PageStatus] = Counter()
        moved_from: Counter[NodeId] = Counter()
        runs: list[MovedRun] = []
        end, resume_at = self.clock.now() + step.budget_seconds, None
        if memory is None:
            stopped_by = Reason.EXITED
        for address, vma, index in self._addresses(step, memory):
            submitted = sum(pages.values()) * PAGE_BYTES
            if should_stop():
                stopped_by = Reason.STOPPING
            is_idle = self.idle_steps > 0
            if stopped_by is not None or is_idle or submitted >= step.budget_bytes or self.clock.now() >= end:
                self.idle_steps -= is_idle
                resume_at = address if counts["looked"] else step.resume_at
                break
            assert memory is not None
            counts["looked"] += 1
            source = memory.vmas[vma][index]
            target = None if source is None else _target(step, source)
            if source is None:
                counts["absent"] += 1
            elif target is None:
                counts["left alone"] += 1
            elif target == source:
                counts["on target"] += 1
            else:
                self.clock.time += self.page_seconds
                self.on_page()
                status = memory.status_of.get(address, PageStatus.MOVED)
                pages[status] += 1
                if status is PageStatus.MOVED:
                    memory.vmas[vma][index] = target
                    moved_from[NodeId(source)] += 1
                    runs.append(_run(address, source, target))
        return MigrationOutcome(
            step=step,
            looked_pages=counts["looked"],
            on_target_pages=counts["on target"],
            passed_over=dict(
                +Counter({PageStatus.ABSENT: counts["absent"], PageStatus.LEFT_ALONE: counts["left alone"]})
            ),
            submitted_pages=sum(pages.values()),
            pages=dict(pages),
            moved_from=dict(moved_from),
            call_seconds=(0.002, 0.001),
            query_seconds=0.0,
            batch_pages=64,
            resume_at=step.resume_at if memory is None else resume_at,
            stopped_by=stopped_by,
            moved_runs=tuple(runs),
            verified=Verified(asked_pages=2, on_target_pages=2, elsewhere_pages=0, absent_pages=0),
            throttled_seconds={"duty": 0.5},
        )

    def steer(self, step: SteerStep) -> SteerOutcome:
        return nothing_steered(step, Reason.NO_JOURNAL)

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        self._begin(step)
        memory = self.memories[step.process]
        advised, evicted, looked, resume_at, stopped_by = 0, 0, 0, None, None
        for address, vma, index in self._addresses(step, memory):
            stopped_by = Reason.STOPPING if should_stop() else None
            if stopped_by is not None or advised * PAGE_BYTES >= step.budget_bytes:
                resume_at = address
                break
            looked += 1
            if memory.vmas[vma][index] is not None:
                advised += 1
                self.clock.time += self.page_seconds
                self.on_page()
                if not step.cold_only and address not in memory.status_of:
                    memory.vmas[vma][index] = None
                    evicted += 1
        return EvictionOutcome(
            step=step,
            looked_pages=looked,
            absent_pages=looked - advised,
            other_pages=0,
            advised_pages=advised,
            evicted_pages=evicted,
            kept_pages=advised - evicted,
            call_seconds=(0.001,),
            query_seconds=0.0,
            resume_at=resume_at,
            stopped_by=stopped_by,
        )

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        if self.raises:
            raise self.raises.pop(0)
        self.on_whole()
        memory = self.memories[process]
        before = memory.nodes()
        for vma, pages in memory.vmas.items():
            memory.vmas[vma] = [None if n is None else target_of.get(NodeId(n), NodeId(n)) for n in pages]
        return WholeMove(
            process=process,
            target_of=target_of,
            not_moved_pages=0,
            seconds=1.5,
            before_bytes=_bytes(before),
            after_bytes=_bytes(memory.nodes()),
        )

    def _begin(self, step: MigrationStep | EvictionStep) -> None:
        if self.raises:
            raise self.raises.pop(0)
        self.steps.append(step)

    def _addresses(self, step: MigrationStep | EvictionStep, memory: Memory | None) -> Iterable[tuple[int, Vma, int]]:
        assert list(step.ranges) == sorted(step.ranges, key=lambda r: r.start)
        for each in () if memory is None else step.ranges:
            vma = next(v for v in memory.vmas if v.start <= each.start and each.end <= v.end)  # type: ignore[union-attr]  # not without a memory
            for address in range(max(each.start, step.resume_at), each.end, PAGE_BYTES):
                yield address, vma, (address - vma.start) // PAGE_BYTES


def _target(step: MigrationStep, source: int) -> NodeId | None:
    return step.target if step.target_of is None else step.target_of.get(NodeId(source))


def _run(address: int, source: int, target: int) -> MovedRun:
    return MovedRun(
        start=address, end=address + PAGE_BYTES, page_bytes=PAGE_BYTES, source=NodeId(source), target=NodeId(target)
    )


def _bytes(nodes: Counter[int | None]) -> dict[NodeId, int]:
    return {NodeId(n): count * PAGE_BYTES for n, count in nodes.items() if n is not None}


@dataclass
class World:
    """Four nodes, node 3 without memory when asked so, and the jobs of one daemon."""

    memoryless: tuple[int, ...] = ()
    rates: Rates = field(
        default_factory=lambda: Rates(
            machine_bytes_per_second=GIB,
            process_bytes_per_second=GIB,
            node_pair_bytes_per_second=GIB,
            evict_bytes_per_second=GIB,
            interval_seconds=2.0,
        )
    )
    clock: FakeClock = field(default_factory=FakeClock)
    processes: dict[int, ProcessSample] = field(default_factory=dict)
    free_bytes: dict[int, int] = field(default_factory=dict)
    ended: list[Job] = field(default_factory=list)
    wakes: int = 0
    stop: bool = False
    halted: bool = False

    def __post_init__(self) -> None:
        self.kernel = PagedKernel(self.clock)
        self.engine: EngineMemory = new_memory(cooldown_seconds=60.0, rates=self.rates, scan_budget_ratio=0.01)
        self.jobs = Jobs(
            self.means(),
            own_pid=1,
            wake=self._wake,
            should_stop=lambda: self.stop,
            on_end=self.ended.append,
            is_halted=lambda: self.halted,
        )

    def means(self) -> Means:
        return Means(
            kernel=self.kernel,
            machine=self,
            clock=self.clock,
            memory=self.engine,
            limits=PlanLimits(budget_seconds=1.0, watermark_ratio=0.02),
        )

    def look(self, pid: int) -> ProcessSample | None:
        return self.processes.get(pid)

    def topology(self) -> Topology:
        return make_topology(memoryless=self.memoryless)

    def memory(self) -> Mapping[NodeId, NodeMemory]:
        return make_memory(self.topology(), self.free_bytes)

    def add(self, pid: int, *nodes: int | None, mempolicy: Mempolicy | None = DEFAULT, **changes: object) -> Memory:
        """A process with one page for each of `nodes`, in this order, in one mapping."""
        process = replace(make_process(pid), **changes)  # type: ignore[arg-type]  # whatever a test wants different
        self.processes[pid] = process
        memory = self.kernel.memories[process.id] = Memory({a_vma(0, len(nodes), mempolicy): list(nodes)})
        return memory

    def remove(self, pid: int) -> None:
        del self.kernel.memories[self.processes.pop(pid).id]

    def finish(self, request: JobRequest, within_seconds: float = 3600.0) -> Job:
        """Hand a job in and work until it has ended."""
        return self.wait(self.jobs.submit(request).id, within_seconds)

    def wait(self, job_id: int, within_seconds: float = 3600.0) -> Job:
        end = self.clock.now() + within_seconds
        while not self.job(job_id).state.is_final:
            assert self.clock.now() < end, self.job(job_id)
            self.step()
        return self.job(job_id)

    def step(self) -> None:
        """One call of work(), and the wait that it asks for."""
        next_at = self.jobs.work(self.clock.now() + 2.0)
        if next_at is not None:
            self.clock.wait_until(next_at)

    def job(self, job_id: int) -> Job:
        found = self.jobs.find(job_id)
        assert found is not None
        return found

    def running(self) -> list[int]:
        return [job.id for job in self.jobs.all() if job.state is JobState.RUNNING]

    def _wake(self) -> None:
        self.wakes += 1
