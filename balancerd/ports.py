"""The seams: what the engine asks of the world, of time, of policies and of listeners."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from balancerd.config.schema import RuleConfig
from balancerd.model.access import Accesses, AccessMethod, AccessWindow, Obstacle
from balancerd.model.decision import Skip, Verdict
from balancerd.model.heat import HeatMethod, Heats, HeatWindow
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
from balancerd.model.report import TickReport
from balancerd.model.sample import SampleRequest, Sampling, Snapshot, Survey, Window
from balancerd.model.steering import SteerOutcome, SteerStep


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyScope:
    """Which processes a survey lists (by resident bytes) and of which it reads the threads (by busy cores).

    The path of the program and the command line are read only on request, and of idle processes user, cpuset and
    affinity with `read_idle`; the memory pressure of workloads with `read_workload_pressure`. `scan_budget_ratio` is
    the share of one core that all observing may use: with very many processes those that idle are read less often.
    """

    min_rss_bytes: int
    min_cpu_cores: float
    read_exe: bool = False
    read_cmdline: bool = False
    read_idle: bool = False
    read_workload_pressure: bool = False
    scan_budget_ratio: float | None = None


class Kernel(Protocol):
    """The places where a tick touches the world."""

    @property
    def mode(self) -> str:
        """Return "enforce" or "observe"."""
        ...

    def survey(self, scope: SurveyScope) -> Survey:
        """Read the cheap files of every process. Vanished processes are counted, not raised."""
        ...

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        """Estimate the placement of the requested processes; a process that cannot be read is missed with a Reason."""
        ...

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        """Move what the step names, asking `should_stop` between runs of calls. Every page ends in the outcome."""
        ...

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        """The same without waiting: yields the time until when the process rests, and returns the outcome."""
        ...

    def steer(self, step: SteerStep) -> SteerOutcome:
        """Move threads, or let them go, as the step says. Every thread ends in the outcome."""
        ...

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        """Give back what the step names. Every page ends in the outcome."""
        ...

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        """Move a whole process by one migrate_pages(2). The process may stand still for as long as the copy takes."""
        ...

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Ask where pages moved earlier are now; a Skip says why nobody knows."""
        ...


class AccessSource(Protocol):
    """One way to see which threads touch which memory of a process."""

    @property
    def method(self) -> AccessMethod:
        """Which way."""
        ...

    def probe(self) -> Obstacle | None:
        """Try whether it works here; None when it does."""
        ...

    def open(self, process: ProcessId) -> None:
        """Begin to watch a process. Raises ProcessGoneError, or OSError."""
        ...

    def read(self, process: ProcessId) -> AccessWindow:
        """Return what was seen since it was read before, and judge it. Raises ProcessGoneError, ParseError, OSError.

        Threads that came are watched from now on, those that are gone no more.
        """
        ...

    def close(self, process: ProcessId) -> None:
        """Watch a process no longer, and forget what was seen of it."""
        ...


class AccessWatch(Protocol):
    """Watches the accesses of a few processes by whatever source works here."""

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        """Watch these processes, the most important first, and no others; return what is known of each."""
        ...


class HeatSource(Protocol):
    """One way to see how much the memory of a process is used. Called by one thread, which may wait."""

    @property
    def method(self) -> HeatMethod:
        """Which way."""
        ...

    def probe(self) -> Obstacle | None:
        """Make ready, and try whether it works here; None when it does. After an obstacle it is to be shut."""
        ...

    def open(self, process: ProcessId) -> None:
        """Begin to watch a process. Raises ProcessGoneError, ParseError, LookupError: no room for it, or OSError."""
        ...

    def read(self, process: ProcessId) -> HeatWindow | None:
        """Return its heat, None when it is too early. Raises ProcessGoneError, ParseError, LookupError, OSError."""
        ...

    def close(self, process: ProcessId) -> None:
        """Watch a process no longer, if it was watched. Raises ParseError, OSError."""
        ...

    def shut(self) -> None:
        """Watch nobody any more, and give everything back to the machine. Raises ParseError, OSError."""
        ...

    def recover(self) -> None:
        """Give back what a daemon that crashed has left on the machine. Raises ParseError, OSError."""
        ...


class HeatWatch(Protocol):
    """Watches the heat of a few processes by the configured source."""

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        """Return what is known by now; watch those asked for, the most important first, and others if there is room.

        `others` need not be iterated where nobody is watched.
        """
        ...


class Clock(Protocol):
    """The only source of time, and the only thing that waits."""

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def cpu_seconds(self) -> float:
        """Return the CPU time that this process has used, all threads together but those that serve people."""
        ...

    def wait_until(self, deadline: float) -> None:
        """Return at monotonic time `deadline`, or earlier when woken."""
        ...


class Policy(Protocol):
    """Judges a window. It may remember earlier windows and nothing else, so that a trace replays."""

    @property
    def name(self) -> str:
        """The name given in the configuration."""
        ...

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one verdict for each process of `window.now.eligible`; of decisions about parts of it, several."""
        ...


@runtime_checkable
class AccessPolicy(Policy, Protocol):
    """A policy that judges by accesses. Sources cost something for each process, so it says whom to watch."""

    def watch(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        """Return the eligible processes whose accesses it needs, most important first; asked before each decide()."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """What every policy may know beside its own options.

    `migration_bytes_per_second` is the rate at which calls are expected to copy (the BW of the gate);
    `watermark_ratio` the share of a node's memory that moves leave free, see engine.room.
    """

    migration_bytes_per_second: float
    watermark_ratio: float = 0.02


Options_contra = TypeVar("Options_contra", bound=BaseModel, contravariant=True)


class PolicyPlugin(Protocol[Options_contra]):
    """What an entry point in the group `balancerd.policies` refers to; its name there is the `kind`."""

    @property
    def options(self) -> type[BaseModel]:
        """The pydantic model that validates this policy's options."""
        ...

    @property
    def summary(self) -> str:
        """One sentence for `balancerctl policies list`."""
        ...

    def build(self, name: str, options: Options_contra, context: PolicyContext) -> Policy:
        """Return a fresh policy. Called at start and at each reload."""
        ...


@runtime_checkable
class PlacingPlugin(Protocol[Options_contra]):
    """What a PolicyPlugin may be beside: its policies say where memory belongs, whoever uses it.

    They judge idle processes, too (Snapshot.idle), and need them sampled.
    """

    def nodes(self, options: Options_contra) -> Iterable[tuple[tuple[str | int, ...], NodeId]]:
        """Return every node that options name, and the path of the key or item that does; they must have memory."""
        ...

    def rules(self, options: Options_contra) -> Iterable[tuple[tuple[str | int, ...], RuleConfig]]:
        """Return every rule in the options, and the path to it: what they ask for must be read."""
        ...


@runtime_checkable
class SteeringPlugin(Protocol):
    """What a PolicyPlugin may be beside: its policies move threads, which needs a directory for the journal."""

    @property
    def moves_threads(self) -> bool:
        """Whether policies with any options do."""
        ...


@runtime_checkable
class EvictingPlugin(Protocol):
    """What a PolicyPlugin may be beside: its policies take memory out of processes, and need their pressure."""

    @property
    def reads_workload_pressure(self) -> bool:
        """Whether the survey is to read the memory pressure of each workload's cgroup."""
        ...


@runtime_checkable
class ClosingPolicy(Policy, Protocol):
    """A policy that empties nodes. Policies behind rules and cpusets move nothing there."""

    @property
    def closed_nodes(self) -> frozenset[NodeId]:
        """The nodes that are to be empty."""
        ...


class Sink(Protocol):
    """Listens to ticks. It must not block and must not raise."""

    def emit(self, report: TickReport) -> None:
        """Take the report of one finished tick."""
        ...
