"""Builders of tick reports: every argument has a plausible default, so that a test names only what it is about."""

from collections.abc import Iterable, Mapping, Sequence

from balancerd.model.copying import Copying
from balancerd.model.decision import Decision, Eviction, Reason, Skip, Verdict
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.judged import JudgedMove, MoveResult
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationPlan,
    MigrationStep,
    Range,
    RunsNow,
)
from balancerd.model.page_status import PageStatus
from balancerd.model.report import PolicyFailure, ProcessReport, TickReport, WorkloadReport
from balancerd.model.sample import (
    PAGE_BYTES,
    Mempolicy,
    PlacementSample,
    Pressure,
    ProcessSample,
    Survey,
    Vma,
    VmaKind,
    VmaPlacement,
)
from balancerd.model.topology import LOCAL_DISTANCE, Node, NodeMemory, Topology
from balancerd.model.workload import Workload, WorkloadKind

GIB = 1 << 30
MIB = 1 << 20


def a_topology(nodes: int = 2, cpus_per_node: int = 2, memory_only: Iterable[int] = ()) -> Topology:
    """A machine of `nodes` nodes of 4 GiB at distance 21 from each other."""
    cpuless = set(memory_only)
    ids = [NodeId(n) for n in range(nodes)]
    cpus = {
        n: frozenset() if n in cpuless else frozenset(CpuId(n * cpus_per_node + c) for c in range(cpus_per_node))
        for n in ids
    }
    return Topology(
        nodes=tuple(
            Node(
                id=n,
                cpus=cpus[n],
                total_bytes=4 * GIB,
                distances={other: LOCAL_DISTANCE if other == n else 21 for other in ids},
            )
            for n in ids
        ),
        node_of_cpu={cpu: n for n, members in cpus.items() for cpu in members},
    )


def a_process(
    pid: int = 4242,
    *,
    start_ticks: int = 1000,
    comm: str = "spin",
    rss_bytes: int = 256 * MIB,
    cpu_cores: float | None = 1.0,
    age_seconds: float = 60.0,
    uid: int | None = 1000,
    cgroup: str | None = "/system.slice/spin.service",
) -> ProcessSample:
    """A busy process of one thread on CPU 0."""
    return ProcessSample(
        id=ProcessId(pid, start_ticks),
        comm=comm,
        age_seconds=age_seconds,
        rss_bytes=rss_bytes,
        cpu_cores=cpu_cores,
        uid=uid,
        cgroup=cgroup,
        run_seconds={NodeId(0): 2.0},
        cpus_allowed=frozenset({CpuId(0), CpuId(1)}),
        mems_allowed=frozenset({NodeId(0), NodeId(1)}),
    )


def a_placement(
    process: ProcessId,
    pages_by_node: Mapping[int, float] | None = None,
    *,
    name: str = "",
    mempolicy: Mempolicy | None = None,
) -> PlacementSample:
    """One anonymous mapping; by default 256 MiB, all on node 1."""
    pages = {NodeId(n): p for n, p in ({1: 65536.0} if pages_by_node is None else pages_by_node).items()}
    start = 0x7F00_0000_0000
    end = start + int(sum(pages.values())) * PAGE_BYTES
    vma = Vma(start=start, end=end, kind=VmaKind.ANON, name=name, page_bytes=PAGE_BYTES, mempolicy=mempolicy)
    return PlacementSample(
        process=process,
        taken_at=100.0,
        vmas=(VmaPlacement(vma=vma, pages_by_node=pages, absent_pages=0.0),),
        queried_pages=2048,
        present_pages=2048,
        exact=False,
        seconds=0.001,
        mempolicies_at=100.0,
    )


def a_decision(
    process: ProcessId, *, policy: str = "home", target: int = 0, misplaced_bytes: int = 256 * MIB
) -> Decision:
    """Policy `home` wants all of it on node 0."""
    return Decision(
        policy=policy,
        process=process,
        target=NodeId(target),
        misplaced_bytes=misplaced_bytes,
        gain_cores=0.13,
        cost_seconds=0.5,
        detail="home is node 0",
    )


def an_eviction(process: ProcessId, *, policy: str = "home", mib: int = 256) -> Eviction:
    """Policy `home` wants so much of it out of memory."""
    return Eviction(policy=policy, process=process, evict_bytes=mib * MIB, detail="hardly used")


def an_eviction_outcome(
    process: ProcessId,
    *,
    policy: str = "home",
    evicted_pages: int = 900,
    kept_pages: int = 100,
    cold_only: bool = False,
    is_part: bool = False,
    stopped_by: Reason | None = None,
    resume_at: int | None = None,
) -> EvictionOutcome:
    """A step that advised the pages evicted and kept."""
    advised = evicted_pages + kept_pages
    return EvictionOutcome(
        step=EvictionStep(
            policy=policy,
            process=process,
            ranges=(Range(start=0x7F00_0000_0000, end=0x7F00_1000_0000, page_bytes=PAGE_BYTES),),
            resume_at=0,
            budget_bytes=2 * GIB,
            budget_seconds=1.0,
            cold_only=cold_only,
            is_part=is_part,
        ),
        looked_pages=advised,
        absent_pages=0,
        other_pages=0,
        advised_pages=advised,
        evicted_pages=evicted_pages,
        kept_pages=kept_pages,
        call_seconds=(0.002,),
        query_seconds=0.001,
        resume_at=resume_at,
        stopped_by=stopped_by,
    )


def an_outcome(
    process: ProcessId,
    *,
    policy: str = "home",
    target: int = 0,
    pages: Mapping[PageStatus, int] | None = None,
    moved_from: Mapping[int, int] | None = None,
    call_seconds: Sequence[float] = (0.002, 0.003),
    stopped_by: Reason | None = None,
    resume_at: int | None = None,
) -> MigrationOutcome:
    """A step that submitted what `pages` says; by default 1000 pages moved from node 1 and 24 were shared."""
    counts = {PageStatus.MOVED: 1000, PageStatus.SHARED: 24} if pages is None else dict(pages)
    moved = {1: counts.get(PageStatus.MOVED, 0)} if moved_from is None else moved_from
    submitted = sum(counts.values())
    return MigrationOutcome(
        step=MigrationStep(
            policy=policy,
            process=process,
            target=NodeId(target),
            ranges=(Range(start=0x7F00_0000_0000, end=0x7F00_1000_0000, page_bytes=PAGE_BYTES),),
            resume_at=0,
            budget_bytes=2 * GIB,
            budget_seconds=1.0,
            reason=Reason.MISPLACED,
        ),
        looked_pages=submitted,
        on_target_pages=0,
        passed_over={},
        submitted_pages=submitted,
        pages=counts,
        moved_from={NodeId(n): p for n, p in moved.items() if p},
        call_seconds=tuple(call_seconds),
        query_seconds=0.001,
        batch_pages=512,
        resume_at=resume_at,
        stopped_by=stopped_by,
    )


def a_judged_move(
    process: ProcessId, *, policy: str = "home", result: MoveResult = MoveResult.IMPROVED, is_trial: bool = False
) -> JudgedMove:
    """All of 256 MiB that moved to node 0 is there."""
    return JudgedMove(
        process=process,
        policy=policy,
        target=NodeId(0),
        result=result,
        moved_bytes=256 * MIB,
        fallen_bytes=256 * MIB,
        is_trial=is_trial,
        at=99.0,
        detail="256 of 256 MiB moved to node 0 are there",
    )


def a_process_report(
    process: ProcessSample,
    *,
    verdicts: Sequence[Verdict] = (),
    reason: Reason | None = None,
    placement: PlacementSample | None = None,
    outcome: MigrationOutcome | None = None,
    run_ratio: Mapping[int, float] | None = None,
    local_ratio: float | None = None,
) -> ProcessReport:
    """The report of one process; `reason` is the last verdict's unless given."""
    last = verdicts[-1].reason if verdicts else Reason.WELL_PLACED
    return ProcessReport(
        process=process,
        placement=placement,
        run_ratio=None if run_ratio is None else {NodeId(n): ratio for n, ratio in run_ratio.items()},
        local_ratio=local_ratio,
        verdicts=tuple(verdicts),
        reason=last if reason is None else reason,
        detail=verdicts[-1].detail if verdicts else "",
        outcome=outcome,
    )


def a_workload_report(
    name: str = "spin.service",
    *,
    kind: WorkloadKind = WorkloadKind.UNIT,
    members: Sequence[int] = (4242,),
    rss_bytes: int = 256 * MIB,
    bytes_by_node: Mapping[int, int] | None = None,
    cores_by_node: Mapping[int, float] | None = None,
    local_ratio: float | None = 0.25,
    exact: bool = False,
    pending_bytes: int = 0,
    moving_processes: int = 0,
    held: Mapping[Reason, int] | None = None,
) -> WorkloadReport:
    """A workload that runs on node 0 and has, by default, all of its memory on node 1. Members by pid."""
    held_bytes = {1: rss_bytes} if bytes_by_node is None else bytes_by_node
    cores = {0: 1.5} if cores_by_node is None else cores_by_node
    return WorkloadReport(
        workload=Workload(kind=kind, name=name, cgroup=f"/system.slice/{name}"),
        members=tuple(ProcessId(pid, 1000) for pid in members),
        threads=len(members),
        rss_bytes=rss_bytes,
        cpu_cores=sum(cores.values()),
        cores_by_node={NodeId(n): c for n, c in cores.items()},
        bytes_by_node={NodeId(n): b for n, b in held_bytes.items()},
        exact=exact,
        known_bytes=rss_bytes if exact else min(rss_bytes, sum(held_bytes.values())),
        judged_bytes=0 if local_ratio is None else rss_bytes,
        local_bytes=round((local_ratio or 0.0) * rss_bytes),
        pending_bytes=pending_bytes,
        moving_processes=moving_processes,
        held={} if held is None else held,
    )


def a_report(
    *,
    number: int = 1,
    mode: str = "enforce",
    processes: Sequence[ProcessReport] = (),
    outcomes: Sequence[MigrationOutcome] = (),
    evictions: Sequence[EvictionOutcome] = (),
    returns: Sequence[RunsNow] = (),
    pressure: Pressure | None = None,
    rejected: Sequence[Skip] = (),
    steps: Sequence[MigrationStep] | None = None,
    policy_errors: Mapping[str, str] | None = None,
    disabled: Mapping[str, PolicyFailure] | None = None,
    topology: Topology | None = None,
    taken_at: float = 100.0,
    phase_seconds: Mapping[str, float] | None = None,
    workloads: Sequence[WorkloadReport] = (),
    copying: Copying | None = None,
    judged: Sequence[JudgedMove] = (),
    paused: str | None = None,
) -> TickReport:
    """A tick over `processes`, whose verdicts are also the tick's, as the engine does it."""
    machine = a_topology() if topology is None else topology
    return TickReport(
        number=number,
        mode=mode,
        survey=Survey(
            taken_at=taken_at,
            interval_seconds=2.0,
            topology=machine,
            memory={
                node.id: NodeMemory(
                    node=node.id,
                    total_bytes=node.total_bytes,
                    free_bytes=2 * GIB,
                    inactive_file_bytes=GIB,
                    high_watermark_bytes=16 * MIB,
                )
                for node in machine.nodes
            },
            processes=tuple(p.process for p in processes),
            small_processes=90,
            kernel_threads=120,
            vanished_processes=3,
            pressure=Pressure(cpu_ratio=None, memory_ratio=None) if pressure is None else pressure,
        ),
        sampled=tuple(p.placement for p in processes if p.placement is not None),
        verdicts=tuple(v for p in processes for v in p.verdicts),
        plan=MigrationPlan(
            steps=tuple(o.step for o in outcomes) if steps is None else tuple(steps), rejected=tuple(rejected)
        ),
        outcomes=tuple(outcomes),
        evictions=tuple(evictions),
        returns=tuple(returns),
        processes=tuple(processes),
        phase_seconds={"survey": 0.004, "sample": 0.002, "migrate": 0.006} if phase_seconds is None else phase_seconds,
        policy_errors={} if policy_errors is None else policy_errors,
        disabled_policies={} if disabled is None else disabled,
        workloads=tuple(workloads),
        copying=Copying() if copying is None else copying,
        judged=tuple(judged),
        paused=paused,
    )


def a_moving_report(number: int = 1, *, moved_pages: int = 1000, shared_pages: int = 24) -> TickReport:
    """A tick in which policy `home` moved pages of one process from node 1 to node 0, while another is well placed."""
    process, quiet = a_process(), a_process(77, comm="idle", cpu_cores=0.001)
    outcome = an_outcome(process.id, pages={PageStatus.MOVED: moved_pages, PageStatus.SHARED: shared_pages})
    moving = a_process_report(
        process,
        verdicts=(a_decision(process.id),),
        placement=a_placement(process.id),
        outcome=outcome,
        run_ratio={0: 1.0},
        local_ratio=0.0,
    )
    left = a_process_report(quiet, verdicts=(Skip(by="select", process=quiet.id, reason=Reason.BELOW_MIN_CPU),))
    return a_report(number=number, processes=(moving, left), outcomes=(outcome,))
