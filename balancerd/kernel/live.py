"""The Kernel port on the real machine. Owns how its parts come together; each part knows only its own files."""

import os
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from balancerd import native
from balancerd.engine.rules import Group
from balancerd.kernel.accesses.hint_faults import HintFaultSource
from balancerd.kernel.accesses.ibs import IbsSource
from balancerd.kernel.accesses.kernel_counters import KernelCounters
from balancerd.kernel.accesses.live_process import ProcessFinder
from balancerd.kernel.accesses.log_directory import LogDirectory
from balancerd.kernel.accesses.log_source import LogsFirst, LogSource
from balancerd.kernel.accesses.log_store import LogStore
from balancerd.kernel.accesses.pebs import PebsSource
from balancerd.kernel.accesses.registers import RegisterSource
from balancerd.kernel.accesses.rings import RingSource, Surroundings
from balancerd.kernel.accesses.watch import AccessSettings, Watcher
from balancerd.kernel.affinity.journal import Journal
from balancerd.kernel.affinity.steerer import Steerer
from balancerd.kernel.clock import boottime_seconds
from balancerd.kernel.doctor.files import CAP_SYS_NICE, has_capability
from balancerd.kernel.errors import BlockedError, LateError, ParseError, ProcessGoneError
from balancerd.kernel.heat.damon import DamonHeat
from balancerd.kernel.heat.kdamonds import Kdamonds
from balancerd.kernel.heat.locating import located
from balancerd.kernel.heat.soft_dirty import SoftDirtyHeat
from balancerd.kernel.heat.watch import HeatWatcher
from balancerd.kernel.machine.memory import read_memory
from balancerd.kernel.machine.pressure import read_pressure
from balancerd.kernel.machine.reader import MachineReader
from balancerd.kernel.machine.topology import OnlineSets, read_online_sets, read_topology
from balancerd.kernel.moving.calls import MigrateCore
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.cpus import CopyingCpus
from balancerd.kernel.moving.evict import EvictCore, Evictor
from balancerd.kernel.moving.migrate import Mover
from balancerd.kernel.moving.pacing import Pace, Pacer
from balancerd.kernel.moving.patience import PatientCalls
from balancerd.kernel.moving.verify import Verifier
from balancerd.kernel.moving.whole import WHOLE_SAMPLES, WholeCore, WholeMover
from balancerd.kernel.neighbours.watch import Neighbours
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.placement.reader import PlacementReader, SampleCore
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.kernel.processes.opt_out import OptOuts
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.survey import SurveyCore, Surveyor
from balancerd.kernel.workloads.accounts import WorkloadAccounts
from balancerd.kernel.workloads.workloads import Workloads
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationStep,
    RunsNow,
    VerifyRequest,
    WholeMove,
)
from balancerd.model.sample import PAGE_BYTES, PlacementSample, ProcessSample, SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerOutcome, SteerStep
from balancerd.model.topology import NodeMemory, Topology
from balancerd.ports import AccessSource, Clock, SurveyScope

READ_TIMEOUT_SECONDS = 10.0
"""The longest that can be configured: for callers that are in no hurry. The daemon has select.read_timeout."""

_NUMA_MAPS_SECONDS_PER_BYTE = 150e-9 / PAGE_BYTES
"""What reading numa_maps may take beyond the time-out: three times what it takes where nobody is in its way."""


class Core(SurveyCore, SampleCore, MigrateCore, EvictCore, WholeCore, Protocol):
    """Everything that the kernel room asks of balancerd.native."""


class LiveKernel:
    """Surveys, samples and migrates the processes of this machine.

    `pace` says how gently; `phase` returns numbers in [0, 1) that samples start at; `neighbours` tell of others. What
    waits for a lock of the process it is about may take `read_timeout_seconds`. `tell` is given a sentence for each log
    found in a directory, in a thread of its own, `tell_heat` one about the source of heat, in another. Without a
    `journal` no thread is moved; `tell_threads` is given what goes wrong with it. Construction opens `procfs`; nothing
    is read before the first survey.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        pace: Pace,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        procfs: Path = Path("/proc"),
        sysfs: Path = Path("/sys"),
        core: Core = native,
        boottime: Callable[[], float] = boottime_seconds,
        phase: Callable[[], float] = random.random,
        neighbours: Neighbours | None = None,
        groups: Sequence[Group] = (),
        accesses: AccessSettings | None = None,
        tell: Callable[[str], None] = lambda _told: None,
        tell_heat: Callable[[str], None] = lambda _told: None,
        journal: Journal | None = None,
        tell_threads: Callable[[str], None] = lambda _told: None,
    ) -> None:
        self._clock = clock
        self._procfs = procfs
        self._sysfs = sysfs
        self._files = ProcessFiles(str(procfs))
        self._reads = PatientReads(clock, ReadPool(), read_timeout_seconds)
        self._opt_outs = OptOuts(clock, self._reads, str(procfs))
        self._workloads = Workloads(clock, groups=groups, procfs=str(procfs))
        self._accounts = WorkloadAccounts(clock, self._workloads.bytes_by_node)
        self._surveyor = Surveyor(core, self._files, clock, boottime, annotate=self._annotate, patience=self._reads)
        mappings = Mappings(clock, str(procfs))

        def new_placements() -> PlacementReader:
            return PlacementReader(core, clock, str(procfs), phase, mappings=mappings)

        self._new_placements = new_placements
        self._placements = new_placements()
        self._pacer = Pacer(clock, pace, str(procfs))
        self._calls = PatientCalls(clock)
        claims = Claims(mappings, self._calls)
        may_move_all = has_capability(procfs.parent, CAP_SYS_NICE) is not False
        self._copying = CopyingCpus(pace.copying_cpus)
        self._mover = Mover(
            core,
            clock,
            self._pacer,
            claims,
            sysfs=str(sysfs),
            phase=phase,
            may_move_all=may_move_all,
            copying=self._copying,
        )
        self._evictor = Evictor(core, self._pacer, claims)
        self.steerer = Steerer(clock, journal, tell_threads, procfs=str(procfs), sysfs=str(sysfs))
        self._verifier = Verifier(core, str(procfs), str(sysfs), phase)
        counted = PlacementReader(core, clock, str(procfs), phase, samples=WHOLE_SAMPLES, mappings=mappings)
        self._whole_mover = WholeMover(core, clock, claims, counted)
        self._neighbours = neighbours or Neighbours(procfs=procfs, sysfs=sysfs, find=self._surveyor.pids_named)
        self._topology: tuple[OnlineSets, Topology] | None = None
        accesses = accesses or AccessSettings()
        around = Surroundings(
            clock=clock,
            reads=self._reads,
            mappings=mappings,
            topology=self.topology,
            sysfs=str(sysfs),
            phase=phase,
        )
        self._counting: tuple[RingSource, ...] = tuple(
            kind(around, table_bytes=accesses.table_bytes, budget_ratio=accesses.budget_ratio)
            for kind in (RegisterSource, HintFaultSource, PebsSource, IbsSource)
        )
        self._kernel_counters = KernelCounters(clock, procfs=str(procfs))
        self.accesses = Watcher(clock, self._sources(accesses), most_processes=accesses.most_processes)
        finder = ProcessFinder(clock, str(procfs))
        self.logs = LogStore(
            finder.clocks,
            finder.find,
            self.topology,
            table_bytes=accesses.table_bytes,
            most_processes=accesses.most_processes,
        )
        self._log_source = LogSource(around, self.logs, budget_ratio=accesses.budget_ratio)
        self._log_directory = LogDirectory(self.logs, tell)
        self._log_directory.use(accesses.log_directory)
        self.access_watch = LogsFirst(self._log_source, self.accesses)
        own = ProcessId(os.getpid(), read_start_ticks(os.getpid()))
        self._damon = DamonHeat(
            clock,
            Kdamonds(own, sysfs=str(sysfs), procfs=str(procfs)),
            slots=accesses.most_processes,
            budget_ratio=accesses.budget_ratio,
            sysfs=str(sysfs),
            procfs=str(procfs),
        )
        self._soft_dirty = SoftDirtyHeat(clock, budget_ratio=accesses.budget_ratio, procfs=str(procfs))
        self.heat = HeatWatcher(
            clock,
            {self._damon.method: self._damon, self._soft_dirty.method: self._soft_dirty},
            tell_heat,
            lambda window: located(window, n_nodes=max(self.topology().node_ids) + 1, phase=phase()),
        )
        self.heat.use(accesses.heat, most_processes=accesses.most_processes)
        self._machine = MachineReader(clock, str(procfs), str(sysfs))

    @property
    def mode(self) -> str:
        """Return "enforce"."""
        return "enforce"

    def close(self) -> None:
        """Give descriptors and threads back; the kernel cannot be used any more."""
        self.heat.close()
        self.accesses.close()
        self.logs.close()
        self._reads.close()
        self._calls.close()
        self._surveyor.close()
        self._files.close()

    def topology(self) -> Topology:
        """Return the topology, read again when nodes, their memory, or CPUs came or went."""
        online, known = read_online_sets(self._sysfs), self._topology
        if known is None or known[0] != online:
            known = self._topology = (online, read_topology(self._sysfs))
        return known[1]

    def survey(self, scope: SurveyScope) -> Survey:
        """Look at the machine and every process. Raises OSError or ParseError when the machine cannot be read."""
        self._log_directory.look()
        topology, memory = self._look_at_nodes()
        managers = self._neighbours.look(topology, self._clock.now())
        machine = self._machine.read(topology)
        self._copying.learn(topology, self._machine.ticks)
        survey = self._surveyor.survey(
            scope, topology, memory, hugetlb=machine.is_hugetlb_in_use, busy_cpus=machine.busy_cpus(topology)
        )
        alive = {process.id for process in survey.processes}
        self._placements.forget_all_but(alive)
        self._reads.forget_all_but(alive)
        self._opt_outs.forget_all_but(alive)
        self._mover.forget_all_but(alive)
        self._evictor.forget_all_but(alive)
        return replace(
            survey,
            pressure=read_pressure(str(self._procfs)),
            machine=machine,
            managers=managers,
            workload_bytes=self._accounts.of(survey.processes),
            workload_pressure=self._pressure_of_workloads(survey, scope),
        )

    def _pressure_of_workloads(self, survey: Survey, scope: SurveyScope) -> Mapping[str, float]:
        if not scope.read_workload_pressure:
            return {}
        found = {p.workload.cgroup for p in survey.processes if p.workload is not None}
        return self._workloads.memory_pressure(sorted(cgroup for cgroup in found if cgroup is not None))

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """Estimate the placement of each process; none stops the others."""
        n_nodes = max(self.topology().node_ids) + 1
        placements: list[PlacementSample] = []
        missed: list[Skip] = []
        for request in requests:
            answer = self._sample(request, n_nodes)
            if isinstance(answer, Skip):
                missed.append(answer)
            else:
                placements.append(answer)
        return Sampling(placements=tuple(placements), missed=tuple(missed))

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Carry out one step; see Mover."""
        return self._mover.migrate(step, should_stop)

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        """Carry out one step and let others go on while it waits; see Mover."""
        return self._mover.begin(step, should_stop)

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Move threads, or let them go; see Steerer."""
        return self.steerer.steer(step)

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Carry out one step of eviction; see Evictor."""
        return self._evictor.evict(step, should_stop)

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        """Move a whole process by one migrate_pages(2); see WholeMover."""
        return self._whole_mover.move(process, target_of, n_nodes=max(self.topology().node_ids) + 1)

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Ask where pages moved earlier are now; see Verifier."""
        try:
            return self._reads.read(request.process, lambda: self._verifier.verify(request))
        except BlockedError as error:
            return Skip(by="kernel", process=request.process, reason=Reason.BLOCKED, detail=str(error))

    def set_pace(self, pace: Pace) -> None:
        """Move at another pace from the next step on."""
        is_new_target = pace.stall_target_seconds != self._pacer.pace.stall_target_seconds
        self._pacer.pace = pace
        self._copying.permitted = pace.copying_cpus
        if is_new_target:
            self._mover.relearn()
            self._evictor.relearn()

    def set_read_timeout(self, seconds: float) -> None:
        """Wait so long for reads from now on."""
        self._reads.timeout_seconds = seconds

    def set_groups(self, groups: Sequence[Group]) -> None:
        """Name workloads by other groups from the next survey on."""
        self._workloads.use(groups)

    def set_accesses(self, settings: AccessSettings) -> None:
        """Watch accesses by other settings from the next tick on; tables that are in use keep their size."""
        for source in self._counting:
            source.table_bytes = settings.table_bytes
            source.budget_ratio = settings.budget_ratio
        self.logs.table_bytes = settings.table_bytes
        self.logs.most_processes = settings.most_processes
        self._log_source.budget_ratio = settings.budget_ratio
        self._log_directory.use(settings.log_directory)
        self._damon.budget_ratio, self._damon.slots = settings.budget_ratio, settings.most_processes
        self._soft_dirty.budget_ratio = settings.budget_ratio
        self.heat.use(settings.heat, most_processes=settings.most_processes)
        self.accesses.use(self._sources(settings), most_processes=settings.most_processes)

    def look(self, pid: int) -> ProcessSample | None:
        """Read one process now, whatever its size; None when there is none. Raises PermissionError, ParseError."""
        process = self._surveyor.look(pid)
        return None if process is None else self._annotate_whole(process)

    def memory(self) -> dict[NodeId, NodeMemory]:
        """Read the memory of the nodes now. Raises OSError or ParseError."""
        return self._memory(self.topology())

    def _sources(self, settings: AccessSettings) -> tuple[AccessSource, ...]:
        known: tuple[AccessSource, ...] = (*self._counting, self._kernel_counters)
        by_method = {source.method: source for source in known}
        return tuple(by_method[method] for method in dict.fromkeys(settings.methods))

    def _look_at_nodes(self) -> tuple[Topology, dict[NodeId, NodeMemory]]:
        """Read both; blocks of a node's memory come and go with nothing to tell but the node's total."""
        topology = self.topology()
        memory = self._memory(topology)
        if any(node.id in memory and memory[node.id].total_bytes != node.total_bytes for node in topology.nodes):
            self._topology = (read_online_sets(self._sysfs), read_topology(self._sysfs))
            topology = self._topology[1]
            memory = self._memory(topology)
        return topology, memory

    def _memory(self, topology: Topology) -> dict[NodeId, NodeMemory]:
        return read_memory(self._sysfs, topology.node_ids, self._machine.high_watermarks(topology))

    def _annotate(self, process: ProcessSample, is_busy: bool) -> ProcessSample:
        """Add what others know of a surveyed process. Who placed it or opted out is asked only if it may be moved."""
        return self._annotate_whole(process) if is_busy else self._workloads.annotate(process)

    def _annotate_whole(self, process: ProcessSample) -> ProcessSample:
        placed = self._neighbours.annotate(self._workloads.annotate(process))
        where = self._opt_outs.of(placed)
        return placed if where is None else replace(placed, opt_out=where)

    def _sample(self, request: SampleRequest, n_nodes: int) -> PlacementSample | Skip:
        reader = self._placements
        reason, detail = Reason.NOTHING_PRESENT, ""
        try:
            placement = self._reads.read(
                request.process,
                lambda: reader.read(
                    request.process,
                    n_nodes=n_nodes,
                    rss_bytes=request.rss_bytes,
                    read_mempolicies=request.read_mempolicies,
                    home=request.home,
                ),
                extra_seconds=request.rss_bytes * _NUMA_MAPS_SECONDS_PER_BYTE if request.read_mempolicies else 0.0,
            )
            if placement.present_pages > 0:
                return placement
        except LateError as error:
            reason, detail = Reason.BLOCKED, str(error)
            self._placements = self._new_placements()  # the late read is still at work in the other one
        except BlockedError as error:
            reason, detail = Reason.BLOCKED, str(error)
        except ProcessGoneError as error:
            reason, detail = Reason.VANISHED, str(error)
        except PermissionError as error:
            reason, detail = Reason.NO_ACCESS, str(error)
        except (ParseError, OSError) as error:
            reason, detail = Reason.UNREADABLE, str(error)
        return Skip(by="kernel", process=request.process, reason=reason, detail=detail)
