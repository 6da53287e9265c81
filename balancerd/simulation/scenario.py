"""What a scenario may say: the machine, its scheduler, and the processes that live on it.

Owns the shape of the file and its defaults. It must not know files, nor how a machine is run.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from balancerd.config.fields import Bytes, Cores, Duration, Rate, Ratio, Section, between
from balancerd.config.units import format_bytes, format_duration, format_ratio

GIB = 1 << 30
MOST_NODES = 64
MOST_PROCESSES = 20_000

Count = Annotated[int, Field(ge=0)]
NodeNumber = Annotated[int, Field(ge=0, lt=MOST_NODES)]
Distance = Annotated[int, Field(ge=10, le=254)]
Life = Annotated[Duration, between(1.0, 366 * 86_400.0, format_duration)]

SchedulerKind = Literal["sticky", "random", "balancing"]


class MachineSection(Section):
    """The machine: like nodes, all as far from each other unless a table says otherwise."""

    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = Field(default=2, description="How many nodes.")
    cpus: Annotated[int, Field(ge=1, le=1024)] = Field(default=8, description="CPUs of each node.")
    memory_bytes: Annotated[Bytes, between(GIB, 1 << 46, format_bytes)] = Field(
        default=32 * GIB, description="Memory of each node."
    )
    distance: Distance = Field(default=21, description="SLIT distance between any two nodes.")
    distances: tuple[tuple[Distance, ...], ...] | None = Field(
        default=None, description="The whole table of distances, a row for each node, in place of `distance`."
    )
    bandwidth_bytes_per_second: Rate = Field(default=2 * GIB, description="Bytes that a move copies in a second.")
    used_ratio: Ratio = Field(default=0.05, description="Share of each node that the rest of the system holds.")

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        table = self.distances
        if table is not None and (len(table) != self.nodes or any(len(row) != self.nodes for row in table)):
            raise ValueError(f"distances must have {self.nodes} rows of {self.nodes} numbers, as there are nodes")
        if table is not None and any(row[i] != 10 for i, row in enumerate(table)):
            raise ValueError("the distance of a node to itself is 10")
        return self

    def distance_between(self, a: int, b: int) -> int:
        """Return the SLIT distance from node `a` to node `b`."""
        if self.distances is not None:
            return self.distances[a][b]
        return 10 if a == b else self.distance


class SchedulerSection(Section):
    """Who decides where threads run."""

    kind: SchedulerKind = Field(
        default="sticky",
        description="sticky: threads stay unless their node is overloaded. random: they move by chance. balancing: "
        "from the busiest node to the idlest one, with hysteresis.",
    )
    stay_seconds: Life = Field(default=600.0, description="random: how long a thread stays on a node on average.")
    interval_seconds: Annotated[Duration, between(0.1, 60.0, format_duration)] = Field(
        default=2.0, description="How often the scheduler looks at the load."
    )


class PhaseSection(Section):
    """A time in which a process behaves in one way; after the last phase the first begins again."""

    lasts_seconds: Life = Field(description="How long.")
    cpu_cores: Annotated[Cores, between(0.0, 1.0, str)] = Field(description="Cores that each thread wants.")
    from_ratio: Ratio = Field(default=0.0, description="Where the part of the memory begins that is in use.")
    to_ratio: Ratio = Field(default=1.0, description="Where it ends.")

    @model_validator(mode="after")
    def _is_some(self) -> Self:
        if self.from_ratio >= self.to_ratio:
            raise ValueError("from must be below to: a phase uses some of the memory")
        return self


class GroupSection(Section):
    """Processes that are alike."""

    name: Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[A-Za-z0-9_.-]+$")] = Field(
        description="What they are called: their comm."
    )
    count: Annotated[int, Field(ge=0, le=MOST_PROCESSES)] = Field(default=1, description="How many at the beginning.")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(default=1, description="Threads of each.")
    cpu_cores: Annotated[Cores, between(0.0, 1.0, str)] = Field(
        default=1.0, description="Cores that each thread wants, unless phases say so."
    )
    memory_bytes: Annotated[Bytes, between(1 << 20, 1 << 44, format_bytes)] = Field(
        default=GIB, description="Memory of each process."
    )
    memory_bound_ratio: Ratio = Field(
        default=1.0, description="How much of what the gate takes to be lost to remote memory they really lose."
    )
    private_ratio: Ratio = Field(
        default=0.0, description="Share of memory, and of accesses, that belongs to single threads; all use the rest."
    )
    foreign_ratio: Ratio = Field(
        default=0.0, description="Share of memory that processes besides map, too, so that it cannot be moved."
    )
    runs_on: tuple[NodeNumber, ...] | None = Field(
        default=None, description="Where threads begin, in turns. null: all of a process on the idlest node."
    )
    lies_on: tuple[NodeNumber, ...] | None = Field(
        default=None, description="Where memory begins, in equal parts. null: where the threads begin."
    )
    allowed: tuple[NodeNumber, ...] | None = Field(
        default=None, description="Affinity: the nodes on which its threads may run. null: all."
    )
    stays_seconds: Life | None = Field(
        default=None, description="They wander: how long one stays on a node on average. null: they do not."
    )
    lives_seconds: Life | None = Field(default=None, description="How long one lives on average. null: for ever.")
    every_seconds: Life | None = Field(default=None, description="A new one comes so often on average. null: none.")
    phases: tuple[PhaseSection, ...] = Field(default=(), description="What they do in turns; by default always alike.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        together = self.private_ratio + self.foreign_ratio
        if together > 1.0:
            raise ValueError(f"private and foreign are {format_ratio(together)} of the memory together")
        if self.every_seconds is not None and self.lives_seconds is None:
            raise ValueError("processes that come again and again must leave again: set lives")
        for name in ("runs_on", "lies_on", "allowed"):
            if getattr(self, name) == ():
                raise ValueError(f"{name} names no node: leave it out, or name one")
        return self


def _check_some(groups: tuple[GroupSection, ...]) -> tuple[GroupSection, ...]:
    if not groups:
        raise ValueError("without a group there are no processes: write at least one")
    return groups


class Scenario(Section):
    """A machine and its processes, for some time."""

    title: str = Field(default="", description="What it shows, in one line.")
    duration_seconds: Life = Field(default=3600.0, description="How long it lasts.")
    machine: MachineSection = Field(default=MachineSection(), description="The machine.")
    scheduler: SchedulerSection = Field(default=SchedulerSection(), description="Its scheduler.")
    groups: Annotated[tuple[GroupSection, ...], AfterValidator(_check_some)] = Field(description="The processes.")
    quiet_tick_seconds: Life | None = Field(
        default=None,
        description="While nothing changes a tick waits for as long as nothing has changed, but for so long at most. "
        "null: all ticks come at their interval.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError("two groups have the same name")
        for group in self.groups:
            for name, nodes in (("runs_on", group.runs_on), ("lies_on", group.lies_on), ("allowed", group.allowed)):
                if nodes is not None and max(nodes) >= self.machine.nodes:
                    raise ValueError(f"group {group.name}: {name} names node {max(nodes)}, the machine has none such")
            if group.allowed is not None and group.runs_on is not None and set(group.runs_on) - set(group.allowed):
                raise ValueError(f"group {group.name}: runs_on names a node that is not allowed")
        if sum(group.count for group in self.groups) > MOST_PROCESSES:
            raise ValueError(f"more than {MOST_PROCESSES} processes at the beginning")
        return self
